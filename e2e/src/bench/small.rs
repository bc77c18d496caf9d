//! W3: small files, three replicas, durable before the answer. And W8, small: the tracker's restart
//! over what they left.

use std::io;
use std::time::Instant;

use dfs_client::http::whole;
use futures_util::future::try_join_all;
use serde_json::json;

use super::baseline;
use super::body::Source;
use super::client::connections;
use super::fleet::Fleet;
use super::report::{Report, Row, Unit};
use super::rounds::{Run, Sample, interleave};
use super::settings::Settings;
use super::writes::blocking;

/// Bytes of a small file.
const SMALL: usize = 4096;

/// Measures each concurrency, then the restart.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let source = Source::new(settings.seed);
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    let mut fleets = Vec::new();
    for (name, binary) in &settings.binaries {
        fleets.push((name, Fleet::start(binary, &settings.dir).await?));
    }
    let mut files = 0;
    for &(streams, operations) in &settings.small {
        for (_, fleet) in &fleets {
            fleet.reset_peaks();
        }
        let (dir, body) = (scratch.path(), source.slice(SMALL, 1));
        let logs: Run<'_> = Box::new(|_| {
            let (dir, body) = (dir.to_path_buf(), body.clone());
            let run = move || baseline::append_logs(&dir, &body, streams, operations);
            Box::pin(blocking(run))
        });
        let mut contenders = vec![logs];
        for (_, fleet) in &fleets {
            let source = &source;
            contenders.push(Box::new(move |round| {
                Box::pin(put_small(fleet, source, streams, operations, round))
            }));
        }
        let samples = interleave(&mut contenders, settings.rounds, settings.seed).await?;
        drop(contenders);
        files += operations * settings.rounds;
        compare(report, streams, &fleets, &samples)?;
    }
    let Some((name, mut fleet)) = fleets.into_iter().next() else {
        return Ok(());
    };
    let (ready, serving) = fleet.restart_tracker(&path(1, 0, 0, 1)).await?;
    let text = format!(
        "{name} tracker killed and started over {files} files: ready after {ready:.2} s, a file \
         read after {serving:.2} s"
    );
    let figures = json!({ "files": files, "ready_s": ready, "first_read_s": serving });
    report.note("W8", &text, &figures)
}

/// Each binary against the logs, and ours against another one.
fn compare(
    report: &mut Report,
    streams: usize,
    fleets: &[(&String, Fleet)],
    samples: &[Vec<Sample>],
) -> io::Result<()> {
    let row = |baseline, ours, peaks| Row {
        id: "W3",
        what: format!("PUT 4 KiB, R=3, c={streams}"),
        class: "D2",
        unit: Unit::Operations,
        baseline,
        ours,
        peaks,
    };
    for ((name, fleet), ours) in fleets.iter().zip(&samples[1..]) {
        let baseline = ("three fdatasynced logs", samples[0].as_slice());
        report.compare(row(baseline, (name.as_str(), ours), fleet.peaks()))?;
    }
    if let [_, ours, other, ..] = samples {
        report.compare(row(("other", other), ("dfs", ours), Vec::new()))?;
    }
    Ok(())
}

async fn put_small(
    fleet: &Fleet,
    source: &Source,
    streams: usize,
    operations: usize,
    round: usize,
) -> io::Result<Sample> {
    let mut open = connections(&fleet.address, streams).await?;
    let each = operations.div_ceil(streams);
    let cpu = fleet.cpu();
    let started = Instant::now();
    let puts = open
        .iter_mut()
        .enumerate()
        .map(|(number, connection)| async move {
            let mut refusals = 0;
            for count in 0..each {
                let body = source.slice(SMALL, round * 1000 + number * 100 + count);
                let path = path(streams, number, count, round);
                refusals += connection.put(&path, || whole(body.clone())).await?;
            }
            Ok::<u64, io::Error>(refusals)
        });
    let refusals = try_join_all(puts).await?.into_iter().sum();
    Ok(Sample {
        seconds: started.elapsed().as_secs_f64(),
        amount: (each * streams) as f64,
        cpu: fleet.cpu().since(&cpu),
        refusals,
    })
}

fn path(streams: usize, number: usize, count: usize, round: usize) -> String {
    format!("/files/small/{streams}/{number}/{round}-{count}")
}
