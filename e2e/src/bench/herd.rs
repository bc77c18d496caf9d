//! W10: datanodes that are only played. A thousand of them heartbeat, some report all their chunks; what
//! is measured is the tracker's CPU time, and report entries in a second.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::fleet::Fleet;
use super::played::Herd;
use super::report::Report;
use super::rounds::median;
use super::settings::{Scale, Settings};

/// How many of them have chunks: three replicas of each are among these.
const REPORTERS: usize = 6;
/// Between two heartbeats of one datanode: the tracker's default.
const INTERVAL: Duration = Duration::from_secs(1);

/// One tracker after another.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    for (name, binary) in &settings.binaries {
        let fleet = Fleet::start_tracker(binary, &settings.dir).await?;
        let (datanodes, chunks) = settings.herd;
        let reporters = REPORTERS.min(datanodes);
        let mut herd = Herd::start(&fleet.address, settings.seed, reporters).await?;
        herd.wait_for_writes().await?;
        herd.write(chunks * reporters / 3).await?;
        reports(settings, report, name, &fleet, &mut herd).await?;
        herd.grow(datanodes).await?;
        heartbeats(settings, report, (name, &fleet), &mut herd).await?;
    }
    Ok(())
}

/// The first report of everybody, then reports that change nothing.
async fn reports(
    settings: &Settings,
    report: &mut Report,
    name: &str,
    fleet: &Fleet,
    herd: &mut Herd,
) -> io::Result<()> {
    let mut rates = Vec::new();
    let mut cpu = Vec::new();
    let mut entries = 0;
    for _ in 0..settings.rounds.max(3) {
        let before = tracker_cpu(fleet);
        let started = Instant::now();
        entries = herd.report().await?;
        rates.push(entries as f64 / started.elapsed().as_secs_f64());
        cpu.push((tracker_cpu(fleet) - before) / entries as f64 * 1e6);
        herd.heartbeat().await?;
    }
    let resident = fleet.group.resident_bytes("tracker");
    let reporters = herd.len();
    let later = &rates[1..];
    let text = format!(
        "{name}: {entries} report entries of {reporters} played datanodes: first {:.0}/s, {:.2} CPU s \
         for a million; later {:.0}/s ({:.0}..{:.0}), {:.2} CPU s for a million; tracker {:.0} MiB \
         ({:.0} bytes for each replica)",
        rates[0],
        cpu[0],
        median(later),
        later.iter().copied().fold(f64::INFINITY, f64::min),
        later.iter().copied().fold(0.0, f64::max),
        median(&cpu[1..]),
        resident as f64 / 1_048_576.0,
        resident as f64 / entries as f64,
    );
    let figures = json!({
        "entries": entries, "entries_per_s": rates, "cpu_s_per_million": cpu,
        "tracker_resident_bytes": resident,
    });
    report.note("W10", &text, &figures)
}

/// Everybody heartbeats once in each interval.
async fn heartbeats(
    settings: &Settings,
    report: &mut Report,
    (name, fleet): (&str, &Fleet),
    herd: &mut Herd,
) -> io::Result<()> {
    let beats = match settings.scale {
        Scale::Smoke => 1,
        Scale::Short => 5,
        Scale::Full => 10,
    };
    let before = tracker_cpu(fleet);
    let started = Instant::now();
    for beat in 1..=beats {
        herd.heartbeat().await?;
        let next = INTERVAL * beat;
        tokio::time::sleep(next.saturating_sub(started.elapsed())).await;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let share = (tracker_cpu(fleet) - before) / elapsed * 100.0;
    let sent = herd.len() * beats as usize;
    let text = format!(
        "{name}: {} played datanodes, each every {} s, sent {:.0} heartbeats a second for {elapsed:.1} s: the tracker took \
         {share:.1} % of a core",
        herd.len(),
        INTERVAL.as_secs(),
        sent as f64 / elapsed,
    );
    let figures = json!({
        "datanodes": herd.len(), "heartbeats_per_s": sent as f64 / elapsed,
        "core_percent": share, "seconds": elapsed,
        "interval_s": INTERVAL.as_secs(),
    });
    report.note("W10", &text, &figures)
}

fn tracker_cpu(fleet: &Fleet) -> f64 {
    let mut pids = fleet.group.pids();
    let tracker = pids.find(|(name, _)| *name == "tracker");
    tracker.map_or(0.0, |(_, pid)| super::procfs::cpu_seconds(pid))
}
