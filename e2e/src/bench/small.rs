//! W3: small files, durable before the answer, with three replicas and with one. And W8, small: the
//! tracker's restart over what they left.

use std::io;

use dfs_client::http::whole;
use serde_json::json;

use super::baseline;
use super::body::Source;
use super::door::Door;
use super::drive::{Done, Load, drive};
use super::fleet::{Fleets, Layout, REPLICAS, fleets, fleets_of, tell_named};
use super::group::Group;
use super::peers::{self, Peer};
use super::report::{Report, Unit};
use super::rounds::{Run, Sample};
use super::settings::{Scale, Settings};
use super::side::{Kind, Side, Task, measure};
use super::writes::{blocking, tell_bytes};

/// What a sample is of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    bytes: u64,
    streams: usize,
    operations: usize,
    replicas: u16,
}

/// Measures each size and concurrency, then the restart; with everything also one replica.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let peers = peers::start(settings, report).await?;
    let three = fleets(settings).await?;
    let mut files = 0;
    let mut last = None;
    for &bytes in &settings.small_bytes {
        for &(streams, operations) in &settings.small {
            let shape = Shape {
                bytes,
                streams,
                operations,
                replicas: REPLICAS,
            };
            row(settings, report, shape, &three, &peers).await?;
            files += operations * settings.rounds;
            last = Some(key(shape, 0, 0));
        }
    }
    drop(peers);
    tell_named(report, "W3", &three)?;
    if let (Some((_, name, mut fleet)), Some(last)) = (three.into_iter().next(), last) {
        let (ready, serving) = fleet.restart_tracker(&format!("/files/{last}")).await?;
        let text = format!(
            "{name} tracker killed and started over {files} files: ready after {ready:.2} s, a \
             file read after {serving:.2} s"
        );
        let figures = json!({ "files": files, "ready_s": ready, "first_read_s": serving });
        report.note("W8", &text, &figures)?;
    }
    if settings.scale == Scale::Short {
        return Ok(());
    }
    let layout = Layout {
        datanodes: 1,
        replication: 1,
        ..Layout::default()
    };
    let one = fleets_of(settings, &layout).await?;
    for &(streams, operations) in &settings.small {
        let shape = Shape {
            bytes: 4096,
            streams,
            operations,
            replicas: 1,
        };
        row(settings, report, shape, &one, &[]).await?;
    }
    Ok(())
}

async fn row(
    settings: &Settings,
    report: &mut Report,
    shape: Shape,
    fleets: &Fleets,
    peers: &[Peer],
) -> io::Result<()> {
    let source = Source::new(settings.seed);
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    let (dir, body) = (scratch.path(), source.slice(shape.length(), 1));
    let logs: Run<'_> = Box::new(move |_| {
        let (dir, body) = (dir.to_path_buf(), body.clone());
        let run = move || {
            let logs = shape.replicas;
            baseline::append_logs(&dir, logs, &body, shape.streams, shape.operations)
        };
        Box::pin(blocking(run))
    });
    let name = if shape.replicas == 1 {
        "one fdatasynced log"
    } else {
        "three fdatasynced logs"
    };
    let mut sides = vec![Side {
        name,
        kind: Kind::Baseline,
        class: "D2",
        group: None,
        run: logs,
    }];
    let source = &source;
    for (kind, name, fleet) in fleets {
        let run = puts(&fleet.door, &fleet.group, source, shape, settings);
        sides.push(fleet.side(*kind, name, "D2", run));
    }
    for peer in peers {
        let settings = settings.for_peers();
        let run = puts(peer.door(), peer.group(), source, shape, &settings);
        sides.push(peer.side(run));
    }
    let Shape {
        bytes,
        streams,
        replicas,
        ..
    } = shape;
    let task = Task {
        id: "W3",
        what: format!("PUT {}, R={replicas}, c={streams}", tell_bytes(bytes)),
        unit: Unit::Operations,
    };
    measure(settings, report, &task, sides).await
}

fn puts<'a>(
    door: &'a Door,
    group: &'a Group,
    source: &'a Source,
    shape: Shape,
    settings: &Settings,
) -> Run<'a> {
    let limit = settings.limit;
    Box::new(move |round| Box::pin(put_small(door, group, source, (shape, limit), round)))
}

async fn put_small(
    door: &Door,
    group: &Group,
    source: &Source,
    (shape, limit): (Shape, std::time::Duration),
    round: usize,
) -> io::Result<Sample> {
    let load = Load {
        streams: shape.streams,
        operations: shape.operations,
        limit,
    };
    drive(door, group, load, async |session, number| {
        let body = source.slice(shape.length(), round * 1000 + number);
        let key = key(shape, round, number);
        let refusals = session.put(&key, || whole(body.clone())).await?;
        Ok(Done::after(refusals))
    })
    .await
}

impl Shape {
    #[allow(clippy::cast_possible_truncation)] // Kilobytes.
    fn length(self) -> usize {
        self.bytes as usize
    }
}

fn key(shape: Shape, round: usize, number: usize) -> String {
    let Shape { bytes, streams, .. } = shape;
    format!("small/{bytes}/{streams}/{round}/{number}")
}
