//! Measurements: ratios taken inside one interleaved run, with CPU seconds and peak memory beside
//! every figure. Nothing here asserts a time; `make bench` prints.

mod baseline;
mod body;
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
mod writes;

use std::io;

pub use settings::{Scale, Settings, Workload};

use report::Report;

/// Runs what the settings name, prints JSON lines and then one table.
pub async fn run(settings: &Settings) -> io::Result<()> {
    let mut report = Report::default();
    report.facts(&procfs::machine_facts(settings)?)?;
    for workload in &settings.workloads {
        let left = procfs::machine_load();
        tracing::debug!(?workload, load = left, "a workload begins");
        match workload {
            Workload::Write => writes::run(settings, &mut report).await?,
            Workload::Read => reads::run(settings, &mut report).await?,
            Workload::SmallPut => small::run(settings, &mut report).await?,
            Workload::Lookup => lookups::run(settings, &mut report).await?,
            Workload::Names => names::run(settings, &mut report).await?,
            Workload::List => listing::run(settings, &mut report).await?,
            Workload::Repair => repair::run(settings, &mut report).await?,
            Workload::Hedged => hedged::run(settings, &mut report).await?,
            Workload::Mixed => mixed::run(settings, &mut report).await?,
            Workload::Herd => herd::run(settings, &mut report).await?,
            Workload::Sight => sight::run(settings, &mut report).await?,
            Workload::Synced => synced::run(settings, &mut report).await?,
            Workload::Memory => memory::slope(settings, &mut report).await?,
            Workload::Dev => memory::dev(settings, &mut report).await?,
        }
    }
    report.table()
}
