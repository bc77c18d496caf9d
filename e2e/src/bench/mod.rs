//! Measurements: ratios taken inside one interleaved run, with CPU seconds and peak memory beside
//! every figure. Nothing here asserts a time; `make bench` prints.

mod baseline;
mod body;
mod client;
mod fleet;
mod memory;
mod procfs;
mod reads;
mod report;
mod rounds;
mod settings;
mod small;
mod writes;

use std::io;

pub use settings::{Settings, Workload};

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
            Workload::Memory => memory::slope(settings, &mut report).await?,
            Workload::Dev => memory::dev(settings, &mut report).await?,
        }
    }
    report.table()
}
