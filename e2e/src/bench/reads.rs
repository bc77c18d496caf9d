//! W2: a large file, warm, through the doors, against the same bytes read from the chunk files.

use std::io;
use std::time::Instant;

use futures_util::future::try_join_all;

use super::baseline;
use super::body::Source;
use super::client::{Connection, connections};
use super::fleet::Fleet;
use super::report::{Report, Row, Unit};
use super::rounds::{Run, Sample, interleave};
use super::settings::{MIB, Settings};
use super::writes::blocking;

const PATH: &str = "/files/large";

/// Measures each concurrency.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let bytes = settings.large;
    let source = Source::new(settings.seed);
    for (name, binary) in &settings.binaries {
        let fleet = Fleet::start(binary, &settings.dir).await?;
        let mut connection = Connection::open(&fleet.address).await?;
        connection.put(PATH, || source.body(bytes, 0)).await?;
        let records = fleet.records_of_one()?;
        for &streams in &settings.streams {
            fleet.reset_peaks();
            let fleet = &fleet;
            let local: Run<'_> = Box::new(|_| {
                let records = records.clone();
                let run = move || baseline::read_files(&records, bytes, streams);
                Box::pin(blocking(run))
            });
            let ours: Run<'_> = Box::new(move |_| Box::pin(get_file(fleet, bytes, streams)));
            let mut contenders = [local, ours];
            let samples = interleave(&mut contenders, settings.rounds, settings.seed).await?;
            report.compare(Row {
                id: "W2",
                what: format!("GET {} MiB warm, c={streams}", bytes / MIB),
                class: "-",
                unit: Unit::Bytes,
                baseline: ("pread of the chunk files", &samples[0]),
                ours: (name, &samples[1]),
                peaks: fleet.peaks(),
            })?;
        }
    }
    Ok(())
}

async fn get_file(fleet: &Fleet, bytes: u64, streams: usize) -> io::Result<Sample> {
    let mut open = connections(&fleet.address, streams).await?;
    let cpu = fleet.cpu();
    let started = Instant::now();
    let lengths = try_join_all(open.iter_mut().map(|connection| connection.get(PATH))).await?;
    let seconds = started.elapsed().as_secs_f64();
    if lengths.iter().any(|length| *length != bytes) {
        return Err(io::Error::other("a download has another length"));
    }
    Ok(Sample {
        seconds,
        amount: (bytes * streams as u64) as f64,
        cpu: fleet.cpu().since(&cpu),
        ..Sample::default()
    })
}
