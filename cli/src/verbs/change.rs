//! `dfs rm`, `dfs cp`, `dfs mv`: no bytes move.

use dfs_protocol::upload::{ListEntry, TransferMode};
use dfs_protocol::{FilePath, PathPrefix};
use tokio::sync::mpsc;

use super::conclude;
use super::expand::{Glob, Source, Want};
use super::list::each_entry;
use crate::args::{CopyArgs, MoveArgs, RemoveArgs};
use crate::exit::{Exit, Failure};
use crate::paths::{RemotePath, check_destination, split_destination};
use crate::session::Session;
use crate::store::FileGuard;
use crate::transfer::{Progress, Tally, run_all};

/// Files that may be found ahead.
const AHEAD: usize = 1024;

pub(super) async fn rm(session: &Session, args: RemoveArgs) -> Result<Exit, Failure> {
    let paths = args.paths.iter().map(|path| RemotePath::parse(path));
    let paths = Source::read_all(session, "rm", paths).await?;
    // A star that a shell found no local name for comes here as it is.
    let is_everything = |source: &Source| match source {
        Source::Path(path) => path.is_root(),
        Source::Glob(glob) => glob.is_everything(),
    };
    if paths.iter().any(is_everything) {
        let why = "that would delete everything in the store";
        return Err(Failure::usage("rm /", why).next("name what is to go: `dfs rm -r a/ b/`"));
    }
    let globs = paths.iter().any(Source::is_glob);
    let (recursive, force) = (args.transfer.recursive, args.force);
    let guard = args.if_match.map_or(FileGuard::None, FileGuard::Version);
    let progress = Progress::new(&session.out, true);
    let (jobs, receiver) = mpsc::channel(AHEAD);
    let plan = async {
        let jobs = jobs;
        for source in &paths {
            let planned = plan_removal(session, source, recursive, force, &jobs).await;
            if let Some(job) = planned.transpose() {
                let _taken = jobs.send(job).await;
            }
        }
    };
    let deletions = run_all(
        receiver,
        args.transfer.jobs,
        &session.out,
        async |path: FilePath| {
            let what = format!("rm {path}");
            match session
                .call(&what, || session.store.delete(&path, guard))
                .await
            {
                Err(failure) if force && failure.exit == Exit::NotFound => Ok(0),
                ended => {
                    ended?;
                    tell(
                        session,
                        &serde_json::json!({ "removed": path }),
                        &path,
                        recursive,
                    )?;
                    Ok(0)
                }
            }
        },
    );
    let ((), tally) = futures_util::join!(plan, deletions);
    conclude(session, &progress, "removed", tally, recursive || globs)
}

pub(super) async fn cp(session: &Session, args: CopyArgs) -> Result<Exit, Failure> {
    let recursive = args.transfer.recursive;
    let guard = guard(args.if_absent);
    let (sources, destination) = read_paths("cp", args.paths)?;
    let progress = Progress::new(&session.out, true);
    let (jobs, receiver) = mpsc::channel(AHEAD);
    let plan = async {
        let jobs = jobs;
        for source in &sources {
            let planned = if recursive {
                let base = match source.file_name().filter(|_| destination.is_directory()) {
                    Some(name) => destination.below(name),
                    None => destination.clone(),
                };
                let pair = |path: &FilePath, relative: &str| {
                    let to = base.join(relative);
                    let to =
                        to.map_err(|error| Failure::invalid_name(format!("cp {path}"), &error))?;
                    Ok((path.clone(), to))
                };
                match plan_directory(session, "cp", source, &jobs, pair).await {
                    Ok(Some(from)) => target("cp", &from, &destination).map(|to| Some((from, to))),
                    Ok(None) => Ok(None),
                    Err(failure) => Err(failure),
                }
            } else {
                file(source, "cp")
                    .and_then(|from| Ok(Some((from.clone(), target("cp", &from, &destination)?))))
            };
            if let Some(job) = planned.transpose() {
                let _taken = jobs.send(job).await;
            }
        }
    };
    let copies = run_all(
        receiver,
        args.transfer.jobs,
        &session.out,
        async |(from, to)| one(session, TransferMode::Copy, from, to, guard, recursive).await,
    );
    let ((), tally) = futures_util::join!(plan, copies);
    conclude(session, &progress, "copied", tally, recursive)
}

pub(super) async fn mv(session: &Session, args: MoveArgs) -> Result<Exit, Failure> {
    let guard = guard(args.if_absent);
    let (sources, destination) = read_paths("mv", args.paths)?;
    let progress = Progress::new(&session.out, true);
    let mut tally = Tally::default();
    // In order: the second move may depend on the first.
    for source in &sources {
        let moved = if args.recursive || source.is_directory() {
            move_directory(session, source, &destination, guard).await
        } else {
            move_file(session, source, &destination, guard).await
        };
        match moved {
            Ok(()) => tally.done += 1,
            Err(failure) => tally.fail(&session.out, &failure),
        }
    }
    conclude(session, &progress, "moved", tally, false)
}

async fn move_file(
    session: &Session,
    source: &RemotePath,
    destination: &RemotePath,
    guard: FileGuard,
) -> Result<(), Failure> {
    let from = file(source, "mv")?;
    let to = target("mv", &from, destination)?;
    one(session, TransferMode::Move, from, to, guard, false).await?;
    Ok(())
}

/// One transaction, however many files.
async fn move_directory(
    session: &Session,
    source: &RemotePath,
    destination: &RemotePath,
    guard: FileGuard,
) -> Result<(), Failure> {
    let what = format!("mv {source}");
    let Some(name) = source.file_name() else {
        return Err(Failure::usage(what, "the top of the store cannot be moved"));
    };
    let into = if destination.is_directory() {
        destination.below(name)
    } else {
        destination.clone()
    };
    let invalid = |error| Failure::invalid_name(&what, &error);
    let from = source.prefix().map_err(invalid)?;
    let to = into.prefix().map_err(invalid)?;
    let request = || {
        session
            .store
            .transfer(TransferMode::Move, &from, &to, guard)
    };
    session.call(&what, request).await?;
    let document = serde_json::json!({ "from": from, "to": to });
    tell_line(session, &document, &format!("{from} -> {to}"))
}

/// Copies or moves one file.
async fn one(
    session: &Session,
    mode: TransferMode,
    from: FilePath,
    to: FilePath,
    guard: FileGuard,
    recursive: bool,
) -> Result<u64, Failure> {
    let verb = match mode {
        TransferMode::Copy => "cp",
        TransferMode::Move => "mv",
    };
    let what = format!("{verb} {from}");
    let as_prefix = |path: &FilePath| {
        PathPrefix::parse(path.as_str()).map_err(|error| Failure::invalid_name(&what, &error))
    };
    let (source, into) = (as_prefix(&from)?, as_prefix(&to)?);
    let request = || session.store.transfer(mode, &source, &into, guard);
    session.call(&what, request).await?;
    let document = serde_json::json!({ "from": from, "to": to });
    if session.out.is_json() {
        session.out.json(&document)?;
    } else if !recursive {
        session.out.line(&format!("{from} -> {to}"))?;
    }
    Ok(0)
}

fn guard(if_absent: bool) -> FileGuard {
    if if_absent {
        FileGuard::Absent
    } else {
        FileGuard::None
    }
}

fn read_paths(verb: &str, paths: Vec<String>) -> Result<(Vec<RemotePath>, RemotePath), Failure> {
    let (sources, destination) = split_destination(paths);
    let destination = RemotePath::parse(&destination.unwrap_or_default());
    let shown = destination.to_string();
    check_destination(verb, sources.len(), destination.is_directory(), &shown)?;
    let sources = sources.iter().map(|source| RemotePath::parse(source));
    Ok((sources.collect(), destination))
}

fn file(path: &RemotePath, verb: &str) -> Result<FilePath, Failure> {
    let what = format!("{verb} {path}");
    if path.is_directory() {
        return Err(Failure::usage(what, "it is written as a directory").next("add -r"));
    }
    path.file()
        .map_err(|error| Failure::invalid_name(what, &error))
}

fn target(verb: &str, from: &FilePath, destination: &RemotePath) -> Result<FilePath, Failure> {
    let to = if destination.is_directory() {
        destination.join(from.file_name())
    } else {
        destination.file()
    };
    to.map_err(|error| Failure::invalid_name(format!("{verb} {from}"), &error))
}

/// Sends a job for each file below `source`; gives `source` back when it is a file itself.
async fn plan_directory<J>(
    session: &Session,
    verb: &str,
    source: &RemotePath,
    jobs: &mpsc::Sender<Result<J, Failure>>,
    job: impl Fn(&FilePath, &str) -> Result<J, Failure>,
) -> Result<Option<FilePath>, Failure> {
    let what = format!("{verb} {source}");
    let prefix = source
        .prefix()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    let mut found = false;
    each_entry(session, &what, &prefix, true, async |entry| {
        found = true;
        if let ListEntry::File { path, .. } = entry {
            let relative = path.as_str().get(prefix.as_str().len()..).unwrap_or("");
            let _taken = jobs.send(job(&path, relative)).await;
        }
        Ok(())
    })
    .await?;
    if found || source.is_root() {
        return Ok(None);
    }
    if source.is_directory() {
        return Err(Failure::new(Exit::NotFound, what, "no file is below it")
            .next("`dfs ls` shows what there is"));
    }
    file(source, verb).map(Some)
}

/// Sends what is found below the source; gives back a file that needs no looking for.
async fn plan_removal(
    session: &Session,
    source: &Source,
    recursive: bool,
    force: bool,
    jobs: &mpsc::Sender<Result<FilePath, Failure>>,
) -> Result<Option<FilePath>, Failure> {
    match source {
        Source::Path(path) if recursive => {
            let below = |path: &FilePath, _: &str| Ok(path.clone());
            plan_directory(session, "rm", path, jobs, below).await
        }
        Source::Path(path) => file(path, "rm").map(Some),
        Source::Glob(glob) => match plan_glob(session, glob, recursive, jobs).await {
            Err(failure) if force && failure.exit == Exit::NotFound => Ok(None),
            planned => planned.map(|()| None),
        },
    }
}

/// Sends each file that matches, and with `-r` each below a directory that matches.
async fn plan_glob(
    session: &Session,
    glob: &Glob,
    recursive: bool,
    jobs: &mpsc::Sender<Result<FilePath, Failure>>,
) -> Result<(), Failure> {
    let plan = async |entry| {
        if let ListEntry::File { path, .. } = entry {
            let _taken = jobs.send(Ok(path)).await;
        }
        Ok(())
    };
    let each = async |entry| match entry {
        ListEntry::Directory { path } => {
            each_entry(session, &format!("rm {path}"), &path, true, &plan).await
        }
        file @ ListEntry::File { .. } => plan(file).await,
    };
    glob.expand(session, "rm", Want::of(recursive), each).await
}

fn tell(
    session: &Session,
    document: &serde_json::Value,
    path: &FilePath,
    recursive: bool,
) -> Result<(), Failure> {
    if recursive && !session.out.is_json() {
        return Ok(());
    }
    tell_line(session, document, path.as_str())
}

fn tell_line(session: &Session, document: &serde_json::Value, text: &str) -> Result<(), Failure> {
    if session.out.is_json() {
        session.out.json(document)
    } else {
        session.out.line(text)
    }
}
