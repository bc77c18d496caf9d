//! Measurements: ratios taken inside one interleaved run, with CPU seconds and peak memory beside
//! every figure. Nothing here asserts a time; `make bench` prints.

mod baseline;
mod body;
mod catalog;
mod client;
mod cold;
mod door;
mod drive;
mod fleet;
mod group;
mod hedged;
mod herd;
mod listing;
mod lookups;
mod memory;
mod mixed;
mod mount;
mod names;
mod peers;
mod played;
mod procfs;
mod reads;
mod repair;
mod report;
mod rounds;
mod settings;
mod side;
mod sight;
mod small;
mod synced;
mod targets;
mod writes;

use std::io;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::json;

pub use settings::{Scale, Settings, Workload};

use report::Report;

/// No group of rows takes longer.
const GROUP: Duration = Duration::from_mins(20);

/// Runs what the settings name, prints JSON lines and then one table. A group that fails leaves the others
/// as they are; the error comes at the end.
pub async fn run(settings: &Settings) -> io::Result<()> {
    let mut report = Report::default();
    report.facts(&procfs::machine_facts(settings)?)?;
    let all = Instant::now();
    let mut failed = Vec::new();
    for workload in &settings.workloads {
        let (name, load) = (workload.name(), procfs::machine_load());
        let elapsed = all.elapsed().as_secs();
        report::progress(&format!("{elapsed} s: {name} begins, load {load:.1}"))?;
        let started = Instant::now();
        let ended = one(*workload, settings, &mut report).await;
        let seconds = started.elapsed().as_secs();
        let ended = match ended {
            Ok(()) => "done".to_owned(),
            Err(error) => {
                failed.push(name);
                let text = format!("{name} failed: {error}");
                report.note("failed", &text, &json!({ "group": name }))?;
                text
            }
        };
        report::progress(&format!("{name}: {ended} after {seconds} s"))?;
    }
    report.table()?;
    if failed.is_empty() {
        return Ok(());
    }
    let text = format!("these groups failed: {}", failed.join(", "));
    Err(io::Error::other(text))
}

/// One group of rows: what is awaited in vain there panics, and ends no other.
async fn one(workload: Workload, settings: &Settings, report: &mut Report) -> io::Result<()> {
    let rows = AssertUnwindSafe(rows(workload, settings, report)).catch_unwind();
    match tokio::time::timeout(GROUP, rows).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(io::Error::other("it panicked; the reason is above")),
        Err(_) => Err(io::Error::other(format!("it took longer than {GROUP:?}"))),
    }
}

async fn rows(workload: Workload, settings: &Settings, report: &mut Report) -> io::Result<()> {
    match workload {
        Workload::Write => writes::run(settings, report).await,
        Workload::Read => reads::run(settings, report).await,
        Workload::SmallPut => small::run(settings, report).await,
        Workload::Lookup => lookups::run(settings, report).await,
        Workload::Names => names::run(settings, report).await,
        Workload::List => listing::run(settings, report).await,
        Workload::Repair => repair::run(settings, report).await,
        Workload::Hedged => hedged::run(settings, report).await,
        Workload::Mixed => mixed::run(settings, report).await,
        Workload::Herd => herd::run(settings, report).await,
        Workload::Catalog => catalog::run(settings, report).await,
        Workload::Sight => sight::run(settings, report).await,
        Workload::Synced => synced::run(settings, report).await,
        Workload::Memory => memory::slope(settings, report).await,
        Workload::Dev => memory::dev(settings, report).await,
    }
}
