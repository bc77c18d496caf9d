//! Reads while one of the datanodes is slow: it is stopped and goes on (SIGSTOP, SIGCONT), over and
//! over, so shortly that nobody takes it for dead. Every file has a replica there.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::body::Source;
use super::drive::{Done, Load, drive, fill};
use super::fleet::Fleet;
use super::lookups::FILLERS;
use super::report::Report;
use super::rounds::{Sample, percentiles};
use super::settings::{KIB, MIB, Settings};
use super::writes::tell_bytes;

/// Which one is slow.
const SLOW: &str = "datanode-1";
/// How long it stands still, and then works.
const STOPPED: Duration = Duration::from_millis(800);
const WORKING: Duration = Duration::from_millis(200);
/// Clients.
const READERS: usize = 16;
/// Bytes of a small file, of a range, and of the file that ranges are of.
const SMALL: u64 = 4 * KIB;
const RANGE: u64 = MIB;

/// Name of the large file.
const LARGE: &str = "large";

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Small,
    Ranges,
}

/// Healthy, then with a slow datanode, then healthy again.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    for (name, binary) in &settings.binaries {
        let fleet = Fleet::start(binary, &settings.dir).await?;
        let source = Source::new(settings.seed);
        let mut session = fleet.door.session().await?;
        session
            .put(LARGE, || source.body(settings.large, 0))
            .await?;
        let load = Load {
            streams: FILLERS.min(settings.hedged.0),
            operations: settings.hedged.0,
            limit: settings.fill_limit,
        };
        fill(&fleet.door, &fleet.group, load, async |session, number| {
            let body = || source.body(SMALL, number);
            Ok(Done::after(
                session.put(&format!("small/{number}"), body).await?,
            ))
        })
        .await?;
        for what in [What::Small, What::Ranges] {
            compare(settings, report, name, &fleet, what).await?;
        }
    }
    Ok(())
}

async fn compare(
    settings: &Settings,
    report: &mut Report,
    name: &str,
    fleet: &Fleet,
    what: What,
) -> io::Result<()> {
    let healthy = read(settings, fleet, what).await?;
    let before = hedges(fleet).await?;
    let over = Cell::new(false);
    let reading = async {
        let sample = read(settings, fleet, what).await;
        over.set(true);
        sample
    };
    let slowing = slow_down(fleet, &over, settings.limit);
    let (slow, slowed) = futures_util::future::join(reading, slowing).await;
    let (slow, stops) = (slow?, slowed?);
    let sent = hedges(fleet).await? - before;
    let figures = [&healthy, &slow].map(times);
    let label = match what {
        What::Small => format!("GET {}", tell_bytes(SMALL)),
        What::Ranges => format!("ranges of {}", tell_bytes(RANGE)),
    };
    let tell = |[half, most, last]: [f64; 3]| format!("{half:.2}, {most:.2}, {last:.2} ms");
    let text = format!(
        "{name}, {label} c={READERS}, one of three datanodes stopped for {STOPPED:?} of every {:?} ({stops} times): \
         p50, p99, max healthy {}, slow {}; {sent} hedges for {} reads",
        STOPPED + WORKING,
        tell(figures[0]),
        tell(figures[1]),
        slow.latencies.len(),
    );
    let json = json!({
        "what": label, "healthy_p50_p99_max_ms": figures[0], "slow_p50_p99_max_ms": figures[1],
        "hedges": sent, "reads": slow.latencies.len(), "stops": stops,
    });
    report.note("hedged", &text, &json)
}

/// Median, 99th percentile and longest, in milliseconds.
fn times(sample: &Sample) -> [f64; 3] {
    let (half, most) = percentiles(std::slice::from_ref(sample)).unwrap_or_default();
    let last = sample.latencies.iter().copied().fold(0.0, f64::max);
    [half, most, last].map(|seconds| seconds * 1e3)
}

async fn read(settings: &Settings, fleet: &Fleet, what: What) -> io::Result<Sample> {
    let (files, reads) = settings.hedged;
    let load = Load {
        streams: READERS,
        operations: reads,
        limit: settings.limit,
    };
    let steps = usize::try_from(settings.large / RANGE).unwrap_or(1).max(1);
    drive(&fleet.door, &fleet.group, load, async |session, number| {
        let mut rng = fastrand::Rng::with_seed(number as u64);
        match what {
            What::Small => {
                let path = format!("small/{}", rng.usize(..files));
                Done::answer(session.get(&path).await?, SMALL)
            }
            What::Ranges => {
                let from = rng.usize(..steps) as u64 * RANGE;
                Done::answer(session.get_range(LARGE, from, RANGE).await?, RANGE)
            }
        }
    })
    .await
}

/// Stops the slow one and lets it go on until `over`, or so long; says how often. It runs at the end.
async fn slow_down(fleet: &Fleet, over: &Cell<bool>, limit: Duration) -> io::Result<u32> {
    let process = fleet.group.get(SLOW)?;
    let started = Instant::now();
    let mut stops = 0;
    while !over.get() && started.elapsed() < limit * 2 {
        process.pause()?;
        tokio::time::sleep(STOPPED).await;
        process.resume()?;
        tokio::time::sleep(WORKING).await;
        stops += 1;
    }
    Ok(stops)
}

/// Hedges that the doors sent so far.
async fn hedges(fleet: &Fleet) -> io::Result<u64> {
    let sent = "dfs_gateway_read_hedges_total{hedge=\"sent\"}";
    fleet.counter("tracker", sent).await
}
