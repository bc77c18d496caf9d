//! W4: small files read at random among many; nginx reads the same bytes from plain files. And what
//! a file costs in memory.

use std::io;
use std::path::Path;

use dfs_client::http::whole;
use serde_json::json;

use super::body::Source;
use super::door::Door;
use super::drive::{Done, Load, drive, fill};
use super::fleet::{Fleet, fleets};
use super::group::Group;
use super::peers;
use super::peers::nginx::Pair;
use super::report::{Report, Unit};
use super::rounds::Run;
use super::settings::Settings;
use super::side::{Kind, Side, Task, measure};
use super::writes::{blocking, tell_bytes};

/// Directories over which files are spread.
const DIRECTORIES: usize = 256;
/// Connections that fill a store.
pub(super) const FILLERS: usize = 64;

/// Measures each size and concurrency.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    for &bytes in &settings.file_bytes {
        of_size(settings, report, bytes).await?;
    }
    Ok(())
}

async fn of_size(settings: &Settings, report: &mut Report, bytes: u64) -> io::Result<()> {
    let source = Source::new(settings.seed);
    let plain = tempfile::Builder::new()
        .prefix("dfs-bench.")
        .tempdir_in(&settings.dir)?;
    write_plain(settings, plain.path(), &source, bytes).await?;
    let nginx = Pair::start(settings, report, plain.path()).await?;
    let (fleets, peers) = (
        fleets(settings).await?,
        peers::start(settings, report).await?,
    );
    for (_, name, fleet) in &fleets {
        memory_of_files(settings, report, name, fleet, &source, bytes).await?;
    }
    let less = settings.for_peers();
    for peer in &peers {
        fill_with(&less, peer.door(), peer.group(), &source, bytes).await?;
    }
    if !peers.is_empty() && less.files < settings.files {
        let text = format!(
            "other stores hold {} of the {} files, and look among those",
            less.files, settings.files
        );
        report.note("W4", &text, &json!(null))?;
    }
    for &(streams, operations) in &settings.lookups {
        let load = Load {
            streams,
            operations,
            limit: settings.limit,
        };
        let get = |door, group| lookups(door, group, load, settings, bytes);
        let mut sides = Vec::new();
        if let Some(Pair { plain, two_hops }) = &nginx {
            for (name, one) in [("nginx", plain), ("nginx, two hops", two_hops)] {
                sides.push(Side {
                    name,
                    kind: Kind::Baseline,
                    class: "-",
                    group: Some(&one.group),
                    run: get(&one.door, &one.group),
                });
            }
        }
        for (kind, name, fleet) in &fleets {
            sides.push(fleet.side(*kind, name, "-", get(&fleet.door, &fleet.group)));
        }
        for peer in &peers {
            let load = Load {
                limit: less.limit,
                ..load
            };
            let side = peer.side(lookups(peer.door(), peer.group(), load, &less, bytes));
            sides.push(Side { class: "-", ..side });
        }
        let files = settings.files;
        let what = format!("GET {} among {files} files, c={streams}", tell_bytes(bytes));
        let task = Task {
            id: "W4",
            what,
            unit: Unit::Operations,
        };
        measure(settings, report, &task, sides).await?;
    }
    Ok(())
}

async fn write_plain(
    settings: &Settings,
    dir: &Path,
    source: &Source,
    bytes: u64,
) -> io::Result<()> {
    let (dir, source, files) = (dir.to_path_buf(), source.clone(), settings.files);
    blocking(move || {
        for directory in 0..DIRECTORIES.min(files) {
            std::fs::create_dir(dir.join(format!("d{directory}")))?;
        }
        for number in 0..files {
            std::fs::write(dir.join(key(number)), source.slice(length(bytes), number))?;
        }
        Ok(())
    })
    .await
}

/// Fills a store and says by how much its processes grew.
async fn memory_of_files(
    settings: &Settings,
    report: &mut Report,
    name: &str,
    fleet: &Fleet,
    source: &Source,
    bytes: u64,
) -> io::Result<()> {
    let resident = || fleet.group.resident_bytes("tracker") as f64;
    // Connections and their buffers are there before it is counted.
    let load = Load {
        streams: FILLERS,
        operations: 2 * FILLERS,
        limit: settings.fill_limit,
    };
    fill(&fleet.door, &fleet.group, load, async |session, number| {
        let body = source.slice(length(bytes), number);
        let key = format!("warm-up-{number}");
        Ok(Done::after(
            session.put(&key, || whole(body.clone())).await?,
        ))
    })
    .await?;
    let before = resident();
    fill_with(settings, &fleet.door, &fleet.group, source, bytes).await?;
    let each = (resident() - before) / settings.files as f64;
    let text = format!(
        "{name}: the tracker's resident memory grew by {each:.0} bytes for each of {} files of one \
         chunk, from {:.1} MiB",
        settings.files,
        before / 1_048_576.0
    );
    let figures = json!({
        "files": settings.files, "bytes_per_file": each, "tracker_before_bytes": before,
    });
    report.note("memory", &text, &figures)
}

pub(super) async fn fill_with(
    settings: &Settings,
    door: &Door,
    group: &Group,
    source: &Source,
    bytes: u64,
) -> io::Result<()> {
    let load = Load {
        streams: FILLERS.min(settings.files),
        operations: settings.files,
        limit: settings.fill_limit,
    };
    fill(door, group, load, async |session, number| {
        let body = source.slice(length(bytes), number);
        let key = key(number);
        Ok(Done::after(
            session.put(&key, || whole(body.clone())).await?,
        ))
    })
    .await
}

/// The same files for everybody in one round, other ones in the next.
pub(super) fn lookups<'a>(
    door: &'a Door,
    group: &'a Group,
    load: Load,
    settings: &Settings,
    bytes: u64,
) -> Run<'a> {
    let (files, seed) = (settings.files, settings.seed);
    Box::new(move |round| {
        Box::pin(drive(door, group, load, async move |session, number| {
            let seed = seed.wrapping_add((round * load.operations + number) as u64);
            let file = fastrand::Rng::with_seed(seed).usize(..files);
            Done::answer(session.get(&key(file)).await?, bytes)
        }))
    })
}

#[allow(clippy::cast_possible_truncation)] // Kilobytes.
fn length(bytes: u64) -> usize {
    bytes as usize
}

fn key(number: usize) -> String {
    format!("d{}/{number}", number % DIRECTORIES)
}
