//! W1: large files, three replicas, durable before the answer.

use std::io;
use std::time::Instant;

use futures_util::future::try_join_all;

use super::baseline;
use super::body::Source;
use super::client::connections;
use super::fleet::Fleet;
use super::report::{Report, Row, Unit};
use super::rounds::{Run, Sample, interleave};
use super::settings::{MIB, Settings};

/// Measures each concurrency.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let source = Source::new(settings.seed);
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    for &streams in &settings.streams {
        let mut fleets = Vec::new();
        for (name, binary) in &settings.binaries {
            fleets.push((name, Fleet::start(binary, &settings.dir).await?));
        }
        for (_, fleet) in &fleets {
            fleet.reset_peaks();
        }
        let dir = scratch.path();
        let (bytes, seed) = (settings.large, settings.seed);
        let direct: Run<'_> = Box::new(move |_| {
            let dir = dir.to_path_buf();
            let run = move || baseline::write_three(&dir, bytes, streams, seed);
            Box::pin(async move { blocking(run).await })
        });
        let mut contenders = vec![direct];
        for (_, fleet) in &fleets {
            let source = &source;
            contenders.push(Box::new(move |round| {
                Box::pin(put_files(fleet, source, bytes, streams, round))
            }));
        }
        let samples = interleave(&mut contenders, settings.rounds, seed).await?;
        drop(contenders);
        for (index, (name, fleet)) in fleets.iter().enumerate() {
            report.compare(Row {
                id: "W1",
                what: format!("PUT {} MiB, R=3, c={streams}", bytes / MIB),
                class: "D2",
                unit: Unit::Bytes,
                baseline: ("three direct files", &samples[0]),
                ours: (name, &samples[index + 1]),
                peaks: fleet.peaks(),
            })?;
        }
        beside(report, streams, bytes, &samples)?;
    }
    Ok(())
}

/// Another binary against ours, from the same rounds.
fn beside(
    report: &mut Report,
    streams: usize,
    bytes: u64,
    samples: &[Vec<Sample>],
) -> io::Result<()> {
    if samples.len() < 3 {
        return Ok(());
    }
    report.compare(Row {
        id: "W1",
        what: format!("PUT {} MiB, R=3, c={streams}", bytes / MIB),
        class: "D2",
        unit: Unit::Bytes,
        baseline: ("other", &samples[2]),
        ours: ("dfs", &samples[1]),
        peaks: Vec::new(),
    })
}

/// Blocks a thread made for that.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// PUTs `streams` files at once; they are deleted outside of the measurement.
pub(super) async fn put_files(
    fleet: &Fleet,
    source: &Source,
    bytes: u64,
    streams: usize,
    round: usize,
) -> io::Result<Sample> {
    let mut open = connections(&fleet.address, streams).await?;
    let cpu = fleet.cpu();
    let started = Instant::now();
    let puts = open.iter_mut().enumerate().map(|(number, connection)| {
        let body = move || source.body(bytes, round * 97 + number * 13);
        async move { connection.put(&path(round, number), body).await }
    });
    let refusals = try_join_all(puts).await?.into_iter().sum();
    let seconds = started.elapsed().as_secs_f64();
    let cpu = fleet.cpu().since(&cpu);
    for (number, connection) in open.iter_mut().enumerate() {
        connection.delete(&path(round, number)).await?;
    }
    Ok(Sample {
        seconds,
        amount: (bytes * streams as u64) as f64,
        cpu,
        refusals,
    })
}

fn path(round: usize, number: usize) -> String {
    format!("/files/large/{round}-{number}")
}
