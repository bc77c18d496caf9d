//! Reads while one of the datanodes is slow: it is stopped and goes on (SIGSTOP, SIGCONT), over and
//! over, so shortly that nobody takes it for dead. Every file has a replica there.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::body::Source;
use super::drive::{Done, Load, drive_paced, fill};
use super::fleet::Fleet;
use super::lookups::FILLERS;
use super::report::Report;
use super::rounds::{Sample, per_mille};
use super::settings::{KIB, MIB, Settings};
use super::writes::tell_bytes;

/// Which one is slow.
const SLOW: &str = "datanode-1";
/// How long it stands still, and then works.
const STOPPED: Duration = Duration::from_millis(800);
const WORKING: Duration = Duration::from_millis(200);
/// Clients: more than reads that one stop keeps waiting, so that the next ones begin when it is their time.
const READERS: usize = 256;
/// One begins so often: little for two cores, so that what is seen is the datanode and not a queue.
const EVERY_SMALL: Duration = Duration::from_millis(2);
const EVERY_RANGE: Duration = Duration::from_millis(10);
/// A read that takes longer is a slow one.
const SLOW_READ: f64 = 0.1;
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

impl What {
    fn every(self) -> Duration {
        match self {
            Self::Small => EVERY_SMALL,
            Self::Ranges => EVERY_RANGE,
        }
    }
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
    let tell = |[half, most, last, slow]: [f64; 4]| {
        format!("{half:.2}, {most:.2}, {last:.2} ms, {slow:.2} %")
    };
    let text = format!(
        "{name}, {label}, one each {:?}, one of three datanodes stopped for {STOPPED:?} of every {:?} ({stops} times): \
         p50, p99, p99.9, share above {SLOW_READ} s healthy {}, slow {}; {sent} hedges for {} reads",
        what.every(),
        STOPPED + WORKING,
        tell(figures[0]),
        tell(figures[1]),
        slow.latencies.len(),
    );
    let json = json!({
        "what": label, "healthy_p50_p99_p999_ms_slow_percent": figures[0], "slow_p50_p99_p999_ms_slow_percent": figures[1],
        "hedges": sent, "reads": slow.latencies.len(), "stops": stops,
    });
    report.note("hedged", &text, &json)
}

/// p50, p99 and p99.9 in milliseconds, and percent of the reads that were slow.
fn times(sample: &Sample) -> [f64; 4] {
    let [half, most, nearly_all] =
        per_mille(std::slice::from_ref(sample), [500, 990, 999]).unwrap_or_default();
    let slow = sample
        .latencies
        .iter()
        .filter(|one| **one > SLOW_READ)
        .count();
    let share = slow as f64 / sample.latencies.len().max(1) as f64;
    [half * 1e3, most * 1e3, nearly_all * 1e3, share * 100.0]
}

async fn read(settings: &Settings, fleet: &Fleet, what: What) -> io::Result<Sample> {
    let (files, reads) = settings.hedged;
    let load = Load {
        streams: READERS.min(reads),
        operations: reads,
        limit: settings.limit,
    };
    let steps = usize::try_from(settings.large / RANGE).unwrap_or(1).max(1);
    let every = what.every();
    drive_paced(
        &fleet.door,
        &fleet.group,
        load,
        every,
        async |session, number| {
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
        },
    )
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
