//! W1: large files, three replicas, durable before the answer.

use std::io;

use super::baseline;
use super::body::Source;
use super::door::Door;
use super::drive::{Done, Load, drive};
use super::fleet::{Fleet, fleets};
use super::group::Group;
use super::peers::seaweed::{self, Seaweed};
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
    let peers = seaweed::start(settings, report).await?;
    for &streams in &settings.streams {
        let fleets = fleets(settings).await?;
        let dir = scratch.path();
        let (bytes, seed) = (settings.large, settings.seed);
        let direct: Run<'_> = Box::new(move |_| {
            let dir = dir.to_path_buf();
            let run = move || baseline::write_three(&dir, bytes, streams, seed);
            Box::pin(async move { blocking(run).await })
        });
        let mut sides = vec![Side {
            name: "three direct files",
            kind: Kind::Baseline,
            class: "D2",
            group: None,
            run: direct,
        }];
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
    }
    Ok(())
}

/// A peer that does the same.
fn beside<'a>(peer: &'a Seaweed, source: &'a Source, bytes: u64, streams: usize) -> Side<'a> {
    let run: Run<'a> = Box::new(move |round| {
        Box::pin(async move {
            let (door, group) = (&peer.door, &peer.group);
            let sample = put_and_delete(door, group, source, bytes, streams, round).await?;
            peer.vacuum().await?;
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
        limit: std::time::Duration::MAX,
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
