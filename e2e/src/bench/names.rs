//! W5: names alone. Empty files are created, looked at, moved and deleted: changes of the catalog, each
//! durable in it and on three journals before it is answered.

use std::io;

use bytes::Bytes;
use dfs_client::http::empty;

use super::baseline;
use super::door::Session;
use super::drive::{Done, Load, drive};
use super::fleet::{Fleets, REPLICAS, fleets};
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

/// Measures each concurrency.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    let fleets = fleets(settings).await?;
    for &(streams, operations) in &settings.names {
        let load = Load {
            streams,
            operations,
            limit: settings.limit,
        };
        for step in STEPS {
            let dir = scratch.path();
            let logs: Run<'_> = Box::new(move |_| {
                let dir = dir.to_path_buf();
                let change = Bytes::from_static(&[0x5a; CHANGE]);
                let run =
                    move || baseline::append_logs(&dir, REPLICAS + 1, &change, streams, operations);
                Box::pin(blocking(run))
            });
            let mut sides = Vec::new();
            if step != Step::Stat {
                sides.push(Side {
                    name: "commit loop of four logs",
                    kind: Kind::Baseline,
                    class: "D2",
                    group: None,
                    run: logs,
                });
            }
            let class = if step == Step::Stat { "-" } else { "D2" };
            sides.extend(ours(&fleets, step, class, load));
            let task = Task {
                id: "W5",
                what: format!("{step:?} names, c={streams}"),
                unit: Unit::Operations,
            };
            measure(settings, report, &task, sides).await?;
        }
    }
    Ok(())
}

fn ours<'a>(fleets: &'a Fleets, step: Step, class: &'static str, load: Load) -> Vec<Side<'a>> {
    let mut sides = Vec::new();
    for (kind, name, fleet) in fleets {
        let run: Run<'_> = Box::new(move |round| {
            let (door, group) = (&fleet.door, &fleet.group);
            Box::pin(drive(door, group, load, async move |session, number| {
                one(session, step, (load.streams, round, number)).await
            }))
        });
        sides.push(fleet.side(*kind, name, class, run));
    }
    sides
}

async fn one(
    session: &mut Session,
    step: Step,
    (streams, round, number): (usize, usize, usize),
) -> io::Result<Done> {
    let made = format!("names/{streams}/{round}/{number}");
    let moved = format!("moved/{streams}/{round}/{number}");
    match step {
        Step::Create => return Ok(Done::after(session.put(&made, empty).await?)),
        Step::Stat => session.head(&made).await?,
        Step::Rename => session.transfer("move-from", &made, &moved).await?,
        Step::Delete => session.delete(&moved).await?,
    }
    Ok(Done::ONE)
}
