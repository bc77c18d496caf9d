//! W7: one of several datanodes is gone. How long until every chunk has all its replicas again, what
//! readers of small files notice meanwhile, and how that changes with the number of datanodes.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dfs_client::http::whole;
use dfs_protocol::status::{ChunkHealth, ClusterStatus};
use serde_json::json;

use super::body::Source;
use super::cold;
use super::drive::{Done, Load, drive_paced, fill};
use super::fleet::{Fleet, Layout};
use super::lookups::FILLERS;
use super::report::Report;
use super::rounds::{Sample, percentiles};
use super::settings::{MIB, Settings};
use super::writes::{blocking, tell_bytes};
use crate::wait::eventually;

/// How long repair may take.
const LIMIT: Duration = Duration::from_mins(15);
/// How often the tracker is asked.
const LOOK: Duration = Duration::from_millis(50);
/// Clients that read meanwhile.
const READERS: usize = 16;
/// They begin a read so often: little, so that what is seen is the repair and not who else wants the two cores.
const EVERY: Duration = Duration::from_millis(4);
/// Reads before the loss, for comparison; as many before them are not counted.
const READS_BEFORE: usize = 2_000;
/// Most files that `dd` copies for its rate.
const COPIED_BY_DD: usize = 16;
/// No delay and short silence: what is measured is the copying.
const POLICY: &[&str] = &[
    "--repair-delay=0",
    "--heartbeat-interval=500ms",
    "--rebalance-threshold=0",
];

/// So low that not the disk that all datanodes share here bounds the copying, but the rate.
const RATE: u64 = MIB;
/// [`POLICY`] with [`RATE`], and chunks of which even the smallest share of a datanode has many.
const CURVE_POLICY: &[&str] = &[
    "--repair-delay=0",
    "--heartbeat-interval=500ms",
    "--rebalance-threshold=0",
    "--repair-rate=1MiB",
    "--chunk-size=1MiB",
];

/// One store that loses a datanode.
struct Case<'a> {
    name: &'a str,
    datanodes: usize,
    /// Bytes a second that each datanode may receive; none when it may receive all that it can.
    rate: Option<u64>,
    /// Large files (number, bytes) and small ones.
    files: [(usize, u64); 2],
}

/// One store after another, each with another number of datanodes.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let [(large, large_bytes), (small, small_bytes)] = settings.repair_files;
    let policy = POLICY.join(" ");
    let text = format!(
        "R=3, {large} files of {} and {small} of {}, then kill -9 of one datanode; {policy}; a \
         read of a small file each {EVERY:?}; D1: a copy is synced before it counts",
        tell_bytes(large_bytes),
        tell_bytes(small_bytes)
    );
    report.note("W7", &text, &json!(null))?;
    for (name, binary) in &settings.binaries {
        for &datanodes in &settings.repaired {
            let layout = Layout {
                datanodes,
                tracker_args: POLICY,
                ..Layout::default()
            };
            let fleet = Fleet::start_with(binary, &settings.dir, &layout).await?;
            let case = Case {
                name,
                datanodes,
                rate: None,
                files: settings.repair_files,
            };
            lose_one(settings, report, &case, fleet).await?;
        }
    }
    curve(settings, report).await
}

/// Seconds over the number of datanodes, each with as many bytes, while the rate is what bounds the copying.
async fn curve(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let Some((name, binary)) = settings.binaries.first() else {
        return Ok(());
    };
    let most = settings.repair_curve.iter().copied().max().unwrap_or(1);
    let (mut products, mut raw) = (Vec::new(), Vec::new());
    for &datanodes in &settings.repair_curve {
        let layout = Layout {
            datanodes,
            tracker_args: CURVE_POLICY,
            ..Layout::default()
        };
        let fleet = Fleet::start_with(binary, &settings.dir, &layout).await?;
        let case = Case {
            name,
            datanodes,
            rate: Some(RATE),
            files: settings
                .curve_files
                .map(|(files, bytes)| ((files * datanodes).div_ceil(most), bytes)),
        };
        let seen = lose_one(settings, report, &case, fleet).await?;
        let product = seen.repaired * (datanodes - 1) as f64;
        raw.push(product);
        // As if every lost datanode had held as many bytes.
        products.push(product / seen.copied.max(1) as f64);
    }
    let from_mean = |products: &[f64]| {
        let mean = products.iter().sum::<f64>() / products.len().max(1) as f64;
        let off = products.iter().map(|one| one / mean - 1.0);
        let off: Vec<String> = off.map(|off| format!("{:+.0} %", off * 100.0)).collect();
        off.join(", ")
    };
    let text = format!(
        "{name}, curve over {:?} datanodes at {} a second each: seconds times others from their mean {}, the same for a byte copied {}",
        settings.repair_curve,
        tell_bytes(RATE),
        from_mean(&raw),
        from_mean(&products),
    );
    report.note(
        "W7",
        &text,
        &json!({ "seconds_times_others": raw, "seconds_of_others_for_a_byte": products }),
    )
}

/// What was seen of one repair.
struct Seen {
    /// From the kill to the first chunk that the tracker misses a replica of.
    noticed: f64,
    /// From then on to the last.
    repaired: f64,
    /// What the datanodes that stay received for it.
    copied: u64,
}

async fn lose_one(
    settings: &Settings,
    report: &mut Report,
    case: &Case<'_>,
    mut fleet: Fleet,
) -> io::Result<Seen> {
    let (datanodes, small) = (case.datanodes, case.files[1]);
    let source = Source::new(settings.seed);
    fill_store(settings, &fleet, &source, &case.files).await?;
    let copied_by_dd = dd_rate(settings, &fleet).await?;
    let _warm = read(small, &fleet, READS_BEFORE, &Cell::new(false)).await?;
    let before = read(small, &fleet, READS_BEFORE, &Cell::new(false)).await?;
    let held = received_by_all_but(&fleet, datanodes).await?;
    fleet
        .group
        .get_mut(&format!("datanode-{datanodes}"))?
        .kill_9()?;
    let over = Cell::new(false);
    let reading = read(small, &fleet, usize::MAX, &over);
    let watching = async {
        let seen = watch(&fleet).await;
        over.set(true);
        seen
    };
    let (meanwhile, seen) = futures_util::future::join(reading, watching).await;
    let (meanwhile, (noticed, repaired)) = (meanwhile?, seen?);
    let copied = received_by_all_but(&fleet, datanodes)
        .await?
        .saturating_sub(held);
    let seen = Seen {
        noticed,
        repaired,
        copied,
    };
    tell(report, case, &seen, copied_by_dd, &[before, meanwhile])?;
    Ok(seen)
}

fn tell(
    report: &mut Report,
    case: &Case<'_>,
    seen: &Seen,
    copied_by_dd: f64,
    reads: &[Sample; 2],
) -> io::Result<()> {
    let Case {
        name,
        datanodes,
        rate: limit,
        files: _,
    } = *case;
    let rate = seen.copied as f64 / seen.repaired.max(1e-9);
    let share = limit.map(|limit| rate / (limit as f64 * (datanodes - 1) as f64));
    let throttle = share.map_or("no throttle that binds".to_owned(), |share| {
        format!("{share:.2} of the throttle of all others")
    });
    let [before, meanwhile] = reads.each_ref().map(|sample| {
        let (half, most) = percentiles(std::slice::from_ref(sample)).unwrap_or_default();
        (half * 1e3, most * 1e3)
    });
    let text = format!(
        "{name}, one of {datanodes} datanodes gone: missed after {:.2} s, all replicas back {:.2} s \
         later (times {} others: {:.2} s), {} copied at {:.3} GB/s, dd direct copy {:.3} GB/s, ratio \
         {:.2}, {throttle}; GET p50, p99 before {:.2}, {:.2} ms, meanwhile {:.2}, {:.2} ms",
        seen.noticed,
        seen.repaired,
        datanodes - 1,
        seen.repaired * (datanodes - 1) as f64,
        tell_bytes(seen.copied),
        rate / 1e9,
        copied_by_dd / 1e9,
        rate / copied_by_dd,
        before.0,
        before.1,
        meanwhile.0,
        meanwhile.1,
    );
    let figures = json!({
        "datanodes": datanodes, "noticed_s": seen.noticed, "repaired_s": seen.repaired,
        "copied_bytes": seen.copied, "rate": rate, "dd_rate": copied_by_dd,
        "ratio": rate / copied_by_dd, "limit": limit, "share_of_limit": share, "before_p50_p99_ms": before, "meanwhile_p50_p99_ms": meanwhile,
        "class": "D1",
    });
    report.note("W7", &text, &figures)
}

async fn fill_store(
    settings: &Settings,
    fleet: &Fleet,
    source: &Source,
    files: &[(usize, u64); 2],
) -> io::Result<()> {
    for (kind, &(files, bytes)) in ["large", "small"].into_iter().zip(files) {
        let load = Load {
            // Few large ones at once, many small ones.
            streams: if kind == "large" {
                2
            } else {
                FILLERS.min(files)
            },
            operations: files,
            limit: settings.fill_limit,
        };
        fill(&fleet.door, &fleet.group, load, async |session, number| {
            let body = || source.body(bytes, number);
            Ok(Done::after(
                session.put(&format!("{kind}/{number}"), body).await?,
            ))
        })
        .await?;
    }
    // One that is asked for last shows that all is well before.
    let mut session = fleet.door.session().await?;
    session.put("last", || whole("x")).await?;
    eventually("every chunk has its replicas", LIMIT, || async {
        let status = fleet.status().await.map_err(|error| error.to_string())?;
        if lacking(&status) == 0 && status.repair_held.is_none() && status.safe_mode.is_none() {
            return Ok(());
        }
        Err(status.summary)
    })
    .await;
    Ok(())
}

/// Chunks with fewer replicas than wanted.
fn lacking(status: &ClusterStatus) -> u64 {
    let kinds = [
        ChunkHealth::AtRisk,
        ChunkHealth::UnderReplicated,
        ChunkHealth::Missing,
    ];
    let of = |kind| status.chunks.get(kind).copied().unwrap_or(0);
    kinds.iter().map(of).sum()
}

/// Seconds until the tracker misses replicas, and from there until it misses none.
async fn watch(fleet: &Fleet) -> io::Result<(f64, f64)> {
    let started = Instant::now();
    let mut missed = None;
    while started.elapsed() < LIMIT {
        let status = fleet.status().await?;
        let now = started.elapsed().as_secs_f64();
        match (missed, lacking(&status)) {
            // Few small chunks are copied between two looks.
            (None, 0) if status.datanodes.dead > 0 => return Ok((now, LOOK.as_secs_f64())),
            (None, 0) => {}
            (None, _) => missed = Some(now),
            (Some(since), 0) => return Ok((since, now - since)),
            (Some(_), _) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
    let status = fleet.status().await?;
    let text = format!("repair took longer than {LIMIT:?}: {}", status.summary);
    Err(io::Error::other(text))
}

/// Reads small files until `over`, or so many.
async fn read(
    (files, bytes): (usize, u64),
    fleet: &Fleet,
    count: usize,
    over: &Cell<bool>,
) -> io::Result<Sample> {
    let load = Load {
        streams: READERS,
        operations: count,
        limit: LIMIT,
    };
    drive_paced(
        &fleet.door,
        &fleet.group,
        load,
        EVERY,
        async |session, number| {
            if over.get() {
                return Ok(Done::OVER);
            }
            let file = fastrand::Rng::with_seed(number as u64).usize(..files);
            Done::answer(session.get(&format!("small/{file}")).await?, bytes)
        },
    )
    .await
}

/// Bytes that every datanode that stays received for repair.
async fn received_by_all_but(fleet: &Fleet, gone: usize) -> io::Result<u64> {
    let series = "dfs_datanode_repair_bytes_total{direction=\"received\"}";
    let mut bytes = 0;
    for number in 1..gone {
        bytes += fleet.counter(&format!("datanode-{number}"), series).await?;
    }
    Ok(bytes)
}

fn chunk_files(fleet: &Fleet, number: usize) -> io::Result<Vec<PathBuf>> {
    let dir = fleet.dir().join(format!("datanode-{number}"));
    let journal = dir.join("journal");
    let mut files = cold::files(&dir)?;
    files.retain(|path| !path.starts_with(&journal));
    Ok(files)
}

/// What `dd` makes of the largest chunk files of one datanode.
async fn dd_rate(settings: &Settings, fleet: &Fleet) -> io::Result<f64> {
    let mut files = chunk_files(fleet, 1)?;
    files.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).map_or(0, |m| m.len())));
    files.truncate(COPIED_BY_DD);
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    let dir = scratch.path().to_path_buf();
    let sample = blocking(move || cold::copy_direct(&files, &dir)).await?;
    Ok(sample.rate())
}
