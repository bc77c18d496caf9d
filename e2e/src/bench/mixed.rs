//! W9: reads, stats, writes and deletes of files of 256 KiB by the same clients. Each kind has its own
//! share of the time; rates are of all kinds together.

use std::cell::RefCell;
use std::io;

use super::body::Source;
use super::door::Session;
use super::drive::{Done, Load, drive, fill};
use super::fleet::{Fleet, fleets, tell_named};
use super::report::{Report, Unit};
use super::rounds::{Run, Sample};
use super::settings::{KIB, Settings};
use super::side::{Task, measure};

/// Bytes of each file.
const BYTES: u64 = 256 * KIB;
/// Clients at once.
const CLIENTS: usize = 16;
/// Files at the start.
const FILES: usize = 64;

/// Names that are there, and how many were ever made.
struct World {
    names: RefCell<Vec<usize>>,
    made: RefCell<usize>,
}

/// Measures.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let source = Source::new(settings.seed);
    let fleets = fleets(settings).await?;
    let mut sides = Vec::new();
    for (kind, name, fleet) in &fleets {
        let load = Load {
            streams: CLIENTS,
            operations: FILES,
            limit: settings.fill_limit,
        };
        let source = &source;
        fill(&fleet.door, &fleet.group, load, async |session, number| {
            let body = || source.body(BYTES, number);
            Ok(Done::after(session.put(&key(number), body).await?))
        })
        .await?;
        let world = World {
            names: RefCell::new((0..FILES).collect()),
            made: RefCell::new(FILES),
        };
        let world = std::rc::Rc::new(world);
        let run: Run<'_> = Box::new(move |round| {
            let world = std::rc::Rc::clone(&world);
            Box::pin(async move { mix(settings, fleet, source, &world, round).await })
        });
        sides.push(fleet.side(*kind, name, "D2", run));
    }
    let task = Task {
        id: "W9",
        what: format!("45 % GET, 30 % STAT, 15 % PUT, 10 % DELETE, 256 KiB, c={CLIENTS}"),
        unit: Unit::Operations,
    };
    measure(settings, report, &task, sides).await?;
    tell_named(report, "W9", &fleets)
}

async fn mix(
    settings: &Settings,
    fleet: &Fleet,
    source: &Source,
    world: &World,
    round: usize,
) -> io::Result<Sample> {
    let load = Load {
        streams: CLIENTS,
        operations: settings.mixed,
        limit: settings.limit,
    };
    drive(&fleet.door, &fleet.group, load, async |session, number| {
        let seed = settings.seed + (round * load.operations + number) as u64;
        let rng = fastrand::Rng::with_seed(seed);
        one(session, source, world, rng).await
    })
    .await
}

async fn one(
    session: &mut Session,
    source: &Source,
    world: &World,
    mut rng: fastrand::Rng,
) -> io::Result<Done> {
    let dice = rng.u8(..100);
    match dice {
        0..75 => {
            // Whoever reads a file keeps others from deleting it meanwhile.
            let Some(name) = take(world, &mut rng) else {
                return make(session, source, world).await;
            };
            let read = if dice < 45 {
                Done::answer(session.get(&key(name)).await?, BYTES)
            } else {
                session.head(&key(name)).await.map(|()| Done::ONE)
            };
            world.names.borrow_mut().push(name);
            read
        }
        75..90 => make(session, source, world).await,
        _ => {
            let Some(name) = take(world, &mut rng) else {
                return make(session, source, world).await;
            };
            session.delete(&key(name)).await?;
            Ok(Done::ONE)
        }
    }
}

async fn make(session: &mut Session, source: &Source, world: &World) -> io::Result<Done> {
    let name = {
        let mut made = world.made.borrow_mut();
        *made += 1;
        *made
    };
    let body = || source.body(BYTES, name);
    let refusals = session.put(&key(name), body).await?;
    world.names.borrow_mut().push(name);
    Ok(Done::after(refusals))
}

fn take(world: &World, rng: &mut fastrand::Rng) -> Option<usize> {
    let mut names = world.names.borrow_mut();
    if names.is_empty() {
        return None;
    }
    let index = rng.usize(..names.len());
    Some(names.swap_remove(index))
}

fn key(number: usize) -> String {
    format!("mixed/{number}")
}
