//! W2: a large file, warm, cold and in ranges, through the doors; against the same bytes read from
//! the chunk files and sent by nginx.

use std::io;
use std::path::{Path, PathBuf};

use super::baseline;
use super::body::Source;
use super::cold;
use super::door::Door;
use super::drive::{Done, Load, drive};
use super::fleet::{Fleets, fleets};
use super::group::Group;
use super::peers::nginx::Pair;
use super::peers::{self, Peer};
use super::report::{Report, Unit};
use super::rounds::Run;
use super::settings::Settings;
use super::side::{Kind, Side, Task, measure};
use super::writes::{blocking, tell_bytes};

const KEY: &str = "large";

/// Everything that holds the file.
struct Ready {
    fleets: Fleets,
    nginx: Option<Pair>,
    peers: Vec<Peer>,
    /// The chunk files of one of our datanodes.
    records: Vec<PathBuf>,
    bytes: u64,
}

/// Measures each concurrency, each size of range, and what no cache holds.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let bytes = settings.large;
    let source = Source::new(settings.seed);
    let files = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    source.write(&files.path().join(KEY), bytes).await?;
    let ready = Ready {
        fleets: fleets(settings).await?,
        nginx: Pair::start(settings, report, files.path()).await?,
        peers: peers::start(settings, report).await?,
        records: Vec::new(),
        bytes,
    };
    let ready = ready.filled(&source).await?;
    for &streams in &settings.streams {
        let task = Task {
            id: "W2",
            what: format!("GET {} warm, c={streams}", tell_bytes(bytes)),
            unit: Unit::Bytes,
        };
        measure(settings, report, &task, ready.warm(settings, streams)).await?;
    }
    for &range in settings.ranges.iter().filter(|range| **range <= bytes) {
        for &streams in &settings.streams {
            let what = format!(
                "GET ranges of {} of {}, warm, c={streams}",
                tell_bytes(range),
                tell_bytes(bytes)
            );
            let task = Task {
                id: "W2",
                what,
                unit: Unit::Bytes,
            };
            let sides = ready.ranges(settings, range, streams);
            measure(settings, report, &task, sides).await?;
        }
    }
    let task = Task {
        id: "W2",
        what: format!("GET {} cold, c=1", tell_bytes(bytes)),
        unit: Unit::Bytes,
    };
    measure(settings, report, &task, ready.cold()).await
}

impl Ready {
    async fn filled(mut self, source: &Source) -> io::Result<Self> {
        let bytes = self.bytes;
        let fleets = self.fleets.iter().map(|(_, _, fleet)| &fleet.door);
        let peers = self.peers.iter().map(Peer::door);
        for door in fleets.chain(peers) {
            let mut session = door.session().await?;
            session.put(KEY, || source.body(bytes, 0)).await?;
        }
        if let Some((_, _, fleet)) = self.fleets.first() {
            self.records = fleet.records_of_one()?;
        }
        Ok(self)
    }

    fn warm(&self, settings: &Settings, streams: usize) -> Vec<Side<'_>> {
        let bytes = self.bytes;
        let load = Load {
            streams,
            operations: streams,
            limit: settings.limit,
        };
        let local: Run<'_> = Box::new(move |_| {
            let records = self.records.clone();
            let run = move || baseline::read_files(&records, bytes, streams);
            Box::pin(blocking(run))
        });
        let mut sides = vec![baseline("pread of the chunk files", None, local)];
        let get = |door, group| whole(door, group, load, bytes);
        sides.extend(self.others(get));
        sides
    }

    fn ranges(&self, settings: &Settings, range: u64, streams: usize) -> Vec<Side<'_>> {
        let load = Load {
            streams,
            operations: settings.reads_of(range),
            limit: settings.limit,
        };
        let (bytes, seed) = (self.bytes, settings.seed);
        let records = &self.records;
        let local: Run<'_> = Box::new(move |round| {
            let records = records.clone();
            let seed = seed.wrapping_add(round as u64);
            let run =
                move || baseline::read_ranges(&records, range, streams, load.operations, seed);
            Box::pin(blocking(run))
        });
        let mut sides = vec![baseline("pread of the chunk files", None, local)];
        let get = |door, group| parts(door, group, load, bytes, range, seed);
        sides.extend(self.others(get));
        sides
    }

    /// nginx, ours and peers, which all read through a door.
    fn others<'a>(&'a self, get: impl Fn(&'a Door, &'a Group) -> Run<'a>) -> Vec<Side<'a>> {
        let mut sides = Vec::new();
        if let Some(Pair { plain, two_hops }) = &self.nginx {
            for (name, one) in [("nginx", plain), ("nginx, two hops", two_hops)] {
                let run = get(&one.door, &one.group);
                sides.push(baseline(name, Some(&one.group), run));
            }
        }
        for (kind, name, fleet) in &self.fleets {
            let run = get(&fleet.door, &fleet.group);
            sides.push(fleet.side(*kind, name, "-", run));
        }
        for peer in &self.peers {
            let mut side = peer.side(get(peer.door(), peer.group()));
            side.class = "-";
            sides.push(side);
        }
        sides
    }

    fn cold(&self) -> Vec<Side<'_>> {
        let (bytes, records) = (self.bytes, &self.records);
        let direct: Run<'_> = Box::new(move |_| {
            let records = records.clone();
            Box::pin(blocking(move || cold::read_direct(&records)))
        });
        let mut sides = vec![baseline(
            "dd iflag=direct bs=4M of the chunk files",
            None,
            direct,
        )];
        let load = Load {
            streams: 1,
            operations: 1,
            limit: std::time::Duration::MAX,
        };
        for (kind, name, fleet) in &self.fleets {
            let get = whole(&fleet.door, &fleet.group, load, bytes);
            let run = forgotten_first(fleet.dir(), get);
            sides.push(fleet.side(*kind, name, "-", run));
        }
        for peer in &self.peers {
            let get = whole(peer.door(), peer.group(), load, bytes);
            let mut side = peer.side(forgotten_first(peer.dir(), get));
            side.class = "-";
            sides.push(side);
        }
        sides
    }
}

fn baseline<'a>(name: &'a str, group: Option<&'a Group>, run: Run<'a>) -> Side<'a> {
    Side {
        name,
        kind: Kind::Baseline,
        class: "-",
        group,
        run,
    }
}

fn whole<'a>(door: &'a Door, group: &'a Group, load: Load, bytes: u64) -> Run<'a> {
    Box::new(move |_| {
        Box::pin(drive(door, group, load, async move |session, _| {
            Done::bytes(session.get(KEY).await?, bytes)
        }))
    })
}

/// The same places for everybody in one round, other ones in the next.
fn parts<'a>(
    door: &'a Door,
    group: &'a Group,
    load: Load,
    bytes: u64,
    range: u64,
    seed: u64,
) -> Run<'a> {
    Box::new(move |round| {
        Box::pin(drive(door, group, load, async move |session, number| {
            let seed = seed.wrapping_add((round * load.operations + number) as u64);
            let from = fastrand::Rng::with_seed(seed).u64(0..=bytes - range);
            Done::bytes(session.get_range(KEY, from, range).await?, range)
        }))
    })
}

/// Everything below a directory leaves the page cache before each sample.
fn forgotten_first<'a>(dir: &'a Path, mut get: Run<'a>) -> Run<'a> {
    Box::new(move |round| {
        let forgotten = cold::forget(dir);
        let sample = get(round);
        Box::pin(async move {
            forgotten?;
            sample.await
        })
    })
}
