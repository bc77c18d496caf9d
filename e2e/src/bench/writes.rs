//! W1: large files, three replicas, durable before the answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::baseline;
use super::body::Source;
use super::door::Door;
use super::drive::{Done, Load, drive};
use super::fleet::{Fleet, fleets, tell_named};
use super::group::Group;
use super::peers::{self, Peer};
use super::report::{Report, Unit};
use super::rounds::{Run, Sample};
use super::settings::{MIB, Settings};
use super::side::{Kind, Side, Task, measure};

/// Other stores write no more streams than this: what was deleted stays on their volumes for a while.
const MOST_OF_PEERS: usize = 4;

/// Measures each concurrency.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let source = Source::new(settings.seed);
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    let peers = peers::start(settings, report).await?;
    for &streams in &settings.streams {
        let fleets = fleets(settings).await?;
        let bytes = settings.large;
        let mut sides = vec![three_files(settings, scratch.path(), streams)];
        for (kind, name, fleet) in &fleets {
            let source = &source;
            let run: Run<'_> =
                Box::new(move |round| Box::pin(put_files(fleet, source, bytes, streams, round)));
            sides.push(fleet.side(*kind, name, "D2", run));
        }
        let peers = peers.iter().filter(|_| streams <= MOST_OF_PEERS);
        sides.extend(peers.map(|peer| beside(peer, &source, bytes, streams)));
        let task = Task {
            id: "W1",
            what: format!("PUT {}, R=3, c={streams}", tell_bytes(bytes)),
            unit: Unit::Bytes,
        };
        measure(settings, report, &task, sides).await?;
        tell_named(report, "W1", &fleets)?;
    }
    as_forms(settings, report, &source, scratch.path()).await
}

fn three_files<'a>(settings: &Settings, dir: &'a Path, streams: usize) -> Side<'a> {
    let (bytes, seed) = (settings.large, settings.seed);
    let run: Run<'a> = Box::new(move |_| {
        let dir = dir.to_path_buf();
        Box::pin(blocking(move || {
            baseline::write_three(&dir, bytes, streams, seed)
        }))
    });
    Side {
        name: "three direct files",
        kind: Kind::Baseline,
        class: "D2",
        group: None,
        run,
    }
}

/// The same as the file of a form, one at a time.
async fn as_forms(
    settings: &Settings,
    report: &mut Report,
    source: &Source,
    dir: &Path,
) -> io::Result<()> {
    let fleets = fleets(settings).await?;
    let bytes = settings.large;
    let mut sides = vec![three_files(settings, dir, 1)];
    for (kind, name, fleet) in &fleets {
        let run: Run<'_> =
            Box::new(move |round| Box::pin(upload_and_delete(fleet, source, bytes, round)));
        sides.push(fleet.side(*kind, name, "D2", run));
    }
    let task = Task {
        id: "W1",
        what: format!("POST /upload of {}, R=3, c=1", tell_bytes(bytes)),
        unit: Unit::Bytes,
    };
    measure(settings, report, &task, sides).await
}

async fn upload_and_delete(
    fleet: &Fleet,
    source: &Source,
    bytes: u64,
    round: usize,
) -> io::Result<Sample> {
    let name = format!("form-{round}");
    let load = Load {
        streams: 1,
        operations: 1,
        limit: Duration::MAX,
    };
    let sample = drive(&fleet.door, &fleet.group, load, async |session, _| {
        session.upload(source.form(&name, bytes, round)).await?;
        Ok(Done {
            amount: bytes as f64,
            ..Done::default()
        })
    })
    .await?;
    let mut session = fleet.door.session().await?;
    session.delete(&name).await?;
    Ok(sample)
}

/// A peer that does the same.
fn beside<'a>(peer: &'a Peer, source: &'a Source, bytes: u64, streams: usize) -> Side<'a> {
    let run: Run<'a> = Box::new(move |round| {
        Box::pin(async move {
            let (door, group) = (peer.door(), peer.group());
            let sample = put_and_delete(door, group, source, bytes, streams, round).await?;
            peer.tidy().await?;
            Ok(sample)
        })
    });
    peer.side(run)
}

/// Blocks a thread made for that.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A size for people.
pub(super) fn tell_bytes(bytes: u64) -> String {
    if bytes < MIB {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// PUTs `streams` files at once; they are deleted outside of the measurement.
pub(super) async fn put_files(
    fleet: &Fleet,
    source: &Source,
    bytes: u64,
    streams: usize,
    round: usize,
) -> io::Result<Sample> {
    put_and_delete(&fleet.door, &fleet.group, source, bytes, streams, round).await
}

async fn put_and_delete(
    door: &Door,
    group: &Group,
    source: &Source,
    bytes: u64,
    streams: usize,
    round: usize,
) -> io::Result<Sample> {
    let load = Load {
        streams,
        operations: streams,
        // Each client begins once.
        limit: Duration::MAX,
    };
    let sample = drive(door, group, load, async |session, number| {
        let body = || source.body(bytes, round * 97 + number * 13);
        let refusals = session.put(&path(round, number), body).await?;
        Ok(Done {
            amount: bytes as f64,
            ..Done::after(refusals)
        })
    })
    .await?;
    let mut session = door.session().await?;
    for number in 0..streams {
        session.delete(&path(round, number)).await?;
    }
    Ok(sample)
}

fn path(round: usize, number: usize) -> String {
    format!("large/{round}-{number}")
}
