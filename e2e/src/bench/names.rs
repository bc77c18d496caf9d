//! W5: names alone. Empty files are created, looked at, moved and deleted: changes of the catalog, each
//! durable in it and on three journals before it is answered. The catalog has other names already.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use serde_json::json;

use super::baseline;
use super::door::{Door, Session};
use super::drive::{Done, Load, drive, fill};
use super::fleet::{Fleet, Fleets, REPLICAS, fleets};
use super::group::Group;
use super::lookups::FILLERS;
use super::peers::{self, Peer};
use super::report::{Report, Unit};
use super::rounds::Run;
use super::settings::Settings;
use super::side::{Kind, Side, Task, measure};
use super::writes::blocking;

/// About the bytes of one change of a catalog.
const CHANGE: usize = 256;

/// One kind of operation; every round of the next kind works on what this one left in that round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Stat,
    Rename,
    Delete,
}

const STEPS: [Step; 4] = [Step::Create, Step::Stat, Step::Rename, Step::Delete];

/// How many names one contender made in each round: a slow one makes fewer than it was asked for.
type Made = RefCell<Vec<usize>>;

/// Measures each size of the catalog at each concurrency.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let fleets = fleets(settings).await?;
    let mut peers = peers::named(settings, report).await?;
    let mut held = 0;
    for &names in &settings.catalogs {
        for (_, _, fleet) in &fleets {
            fill_catalog(settings, fleet, held, names).await?;
        }
        held = names;
        for &(streams, operations) in &settings.names {
            let load = Load {
                streams,
                operations,
                limit: settings.limit,
            };
            steps(settings, report, (&fleets, &peers), load, names).await?;
        }
        if !peers.is_empty() {
            let text = "other stores hold no other names, and take part at the first size alone";
            report.note("W5", text, &json!(null))?;
            peers.clear();
        }
    }
    Ok(())
}

/// Names that nobody asks for, until there are so many.
async fn fill_catalog(
    settings: &Settings,
    fleet: &Fleet,
    from: usize,
    names: usize,
) -> io::Result<()> {
    let load = Load {
        streams: FILLERS,
        operations: names.saturating_sub(from),
        limit: settings.fill_limit,
    };
    fill(&fleet.door, &fleet.group, load, async |session, number| {
        let number = from + number;
        let key = format!("held/{}/{number}", number / 1000);
        Ok(Done::after(session.create(&key).await?))
    })
    .await
}

async fn steps(
    settings: &Settings,
    report: &mut Report,
    (fleets, peers): (&Fleets, &[Peer]),
    load: Load,
    held: usize,
) -> io::Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    let made: Vec<Made> = std::iter::repeat_with(|| RefCell::new(vec![0; settings.rounds]))
        .take(fleets.len() + peers.len())
        .collect();
    for step in STEPS {
        let mut made = made.iter();
        let mut sides = Vec::new();
        if step != Step::Stat {
            sides.push(commit_loop(scratch.path(), load));
        }
        for ((kind, name, fleet), made) in fleets.iter().zip(&mut made) {
            let run = operations(&fleet.door, &fleet.group, load, step, made);
            sides.push(fleet.side(*kind, name, class(step, "D2"), run));
        }
        for (peer, made) in peers.iter().zip(made) {
            let load = Load {
                limit: settings.peer_limit,
                ..load
            };
            let run = operations(peer.door(), peer.group(), load, step, made);
            let class = class(step, peer.class_of_names());
            sides.push(Side {
                class,
                ..peer.side(run)
            });
        }
        let task = Task {
            id: "W5",
            what: match held {
                0 => format!("{step:?} names, c={}", load.streams),
                held => format!("{step:?} names beside {held}, c={}", load.streams),
            },
            unit: Unit::Operations,
        };
        measure(settings, report, &task, sides).await?;
    }
    Ok(())
}

fn class(step: Step, of_changes: &'static str) -> &'static str {
    if step == Step::Stat { "-" } else { of_changes }
}

fn commit_loop(dir: &std::path::Path, load: Load) -> Side<'_> {
    let logs: Run<'_> = Box::new(move |_| {
        let dir = dir.to_path_buf();
        let change = Bytes::from_static(&[0x5a; CHANGE]);
        let run = move || {
            let (logs, streams) = (REPLICAS + 1, load.streams);
            baseline::append_logs(&dir, logs, &change, streams, load.operations)
        };
        Box::pin(blocking(run))
    });
    Side {
        name: "commit loop of four logs",
        kind: Kind::Baseline,
        class: "D2",
        group: None,
        run: logs,
    }
}

fn operations<'a>(
    door: &'a Door,
    group: &'a Group,
    load: Load,
    step: Step,
    made: &'a Made,
) -> Run<'a> {
    Box::new(move |round| {
        Box::pin(async move {
            let mut load = load;
            if step != Step::Create {
                // All of them, however long that takes: the next step finds what this one left.
                load.operations = made.borrow()[round];
                load.limit = std::time::Duration::MAX;
            }
            let sample = drive(door, group, load, async move |session, number| {
                one(session, step, (load.streams, round, number)).await
            })
            .await?;
            made.borrow_mut()[round] = sample.latencies.len();
            Ok(sample)
        })
    })
}

async fn one(
    session: &mut Session,
    step: Step,
    (streams, round, number): (usize, usize, usize),
) -> io::Result<Done> {
    let made = format!("names/{streams}/{round}/{number}");
    let moved = format!("moved/{streams}/{round}/{number}");
    match step {
        Step::Create => return Ok(Done::after(session.create(&made).await?)),
        Step::Stat => session.head(&made).await?,
        Step::Rename => session.rename(&made, &moved).await?,
        Step::Delete => session.delete(&moved).await?,
    }
    Ok(Done::ONE)
}
