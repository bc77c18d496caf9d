//! `dfs get SRC... DEST` and `dfs cat PATH...`.

use std::path::{Path, PathBuf};

use dfs_protocol::FilePath;
use dfs_protocol::upload::ListEntry;
use tokio::sync::mpsc;

use super::conclude;
use super::expand::{Glob, Source, Want};
use super::list::each_entry;
use crate::args::GetArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::is_closed_output;
use crate::paths::{
    RemotePath, check_destination, is_local_directory_spelling, local_target, split_destination,
};
use crate::session::Session;
use crate::transfer::{Downloaded, Progress, Target, download, run_all};

/// Files that may be found ahead of the transfers.
const AHEAD: usize = 1024;

/// One file to get.
struct Job {
    from: FilePath,
    to: PathBuf,
    /// Whether the progress knows its bytes already.
    announced: bool,
}

type Jobs = mpsc::Sender<Result<Job, Failure>>;

pub(super) async fn get(session: &Session, args: GetArgs) -> Result<Exit, Failure> {
    let recursive = args.transfer.recursive;
    let (sources, destination) = split_destination(args.paths);
    let destination = destination.unwrap_or_else(|| PathBuf::from("."));
    let sources = read_sources(session, &sources).await?;
    if destination.as_os_str() == "-" {
        return to_output(session, &sources).await;
    }
    let spelled = is_local_directory_spelling(&destination);
    let is_directory = spelled || is_directory(&destination).await;
    let globs = sources.iter().any(Source::is_glob);
    check_target(sources.len(), globs, is_directory, &destination)?;
    let several = sources.len() > 1 || globs;
    let progress = Progress::new(&session.out, args.transfer.quiet);
    let (sender, jobs) = mpsc::channel(AHEAD);
    let plan = async {
        let jobs = sender;
        for source in &sources {
            let source = match source {
                Source::Path(path) => path,
                Source::Glob(glob) => {
                    let planned =
                        plan_glob(session, glob, &destination, recursive, &progress, &jobs).await;
                    if let Err(failure) = planned {
                        let _taken = jobs.send(Err(failure)).await;
                    }
                    continue;
                }
            };
            let directory_name = (spelled || several).then(|| source.file_name()).flatten();
            let planned = if recursive {
                let base = directory_name
                    .map_or_else(|| destination.clone(), |name| destination.join(name));
                plan_directory(session, source, &base, is_directory, &progress, &jobs).await
            } else {
                plan_file(source, &destination, is_directory)
            };
            if let Some(job) = planned.transpose() {
                // Nobody takes jobs any more once the transfers ended.
                let _taken = jobs.send(job).await;
            }
        }
    };
    let transfers = run_all(jobs, args.transfer.jobs, &session.out, async |job: Job| {
        progress.say(job.from.to_string());
        let target = Target::File(job.to.clone());
        let got = download(session, &job.from, target, job.announced, &progress).await?;
        tell(session, &got, &job.to, recursive || globs)?;
        Ok(got.size)
    });
    let ((), tally) = futures_util::join!(plan, transfers);
    conclude(session, &progress, "got", tally, recursive || globs)
}

async fn read_sources(session: &Session, sources: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let paths = sources.iter().map(|source| {
        let what = format!("get {}", source.display());
        RemotePath::from_path(source).map_err(|error| Failure::invalid_name(what, &error))
    });
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    Source::read_all(session, "get", paths).await
}

/// Whatever matches a pattern may be several files, and needs a directory as several do.
fn check_target(
    sources: usize,
    globs: bool,
    is_directory: bool,
    destination: &Path,
) -> Result<(), Failure> {
    let shown = destination.display().to_string();
    check_destination("get", sources, is_directory, &shown)?;
    if globs && !is_directory {
        let why = format!("whatever matches cannot all become `{shown}`");
        return Err(Failure::usage("get", why).next(format!("write `{shown}/`: a directory")));
    }
    Ok(())
}

async fn is_directory(path: &Path) -> bool {
    tokio::fs::metadata(path)
        .await
        .is_ok_and(|metadata| metadata.is_dir())
}

fn plan_file(
    source: &RemotePath,
    destination: &Path,
    is_directory: bool,
) -> Result<Option<Job>, Failure> {
    let what = format!("get {source}");
    if source.is_directory() {
        return Err(Failure::usage(what, "it is written as a directory")
            .next("add -r, or leave the slash at its end away"));
    }
    let from = source
        .file()
        .map_err(|error| Failure::invalid_name(what, &error))?;
    let to = if is_directory {
        destination.join(from.file_name())
    } else {
        destination.to_path_buf()
    };
    Ok(Some(Job {
        from,
        to,
        announced: false,
    }))
}

/// Sends a job for each file below `source`; gives one back when `source` is a file itself.
async fn plan_directory(
    session: &Session,
    source: &RemotePath,
    base: &Path,
    is_directory: bool,
    progress: &Progress,
    jobs: &Jobs,
) -> Result<Option<Job>, Failure> {
    let what = format!("get {source}");
    let prefix = source
        .prefix()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    let mut found = false;
    each_entry(session, &what, &prefix, true, async |entry| {
        found = true;
        let ListEntry::File { path, size, .. } = entry else {
            return Ok(());
        };
        progress.found(size);
        let relative = path.as_str().get(prefix.as_str().len()..).unwrap_or("");
        let job = Job {
            to: local_target(base, relative),
            from: path,
            announced: true,
        };
        let _taken = jobs.send(Ok(job)).await;
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
    // `base` already ends in the name where DEST was spelled as a directory.
    let ends_in_name = base.file_name().and_then(|name| name.to_str()) == source.file_name();
    let parent = base.parent().filter(|_| ends_in_name);
    match parent {
        Some(parent) => plan_file(source, parent, true),
        None => plan_file(source, base, is_directory),
    }
}

/// Sends a job for each file that matches. Below the destination they keep their paths from the
/// first wildcard on, so that no two of them become one.
async fn plan_glob(
    session: &Session,
    glob: &Glob,
    destination: &Path,
    recursive: bool,
    progress: &Progress,
    jobs: &Jobs,
) -> Result<(), Failure> {
    let plan = async |entry| {
        if let ListEntry::File { path, size, .. } = entry {
            progress.found(size);
            let relative = path.as_str().get(glob.base().len()..).unwrap_or("");
            let job = Job {
                to: local_target(destination, relative),
                from: path,
                announced: true,
            };
            let _taken = jobs.send(Ok(job)).await;
        }
        Ok(())
    };
    let want = Want::of(recursive);
    let each = async |entry| match entry {
        ListEntry::Directory { path } => {
            each_entry(session, &format!("get {path}"), &path, true, &plan).await
        }
        file @ ListEntry::File { .. } => plan(file).await,
    };
    glob.expand(session, "get", want, each).await
}

async fn to_output(session: &Session, sources: &[Source]) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for source in sources {
        match one_to_output(session, source).await {
            Ok(()) => {}
            Err(failure) if is_closed_output(&failure) => return Err(failure),
            Err(failure) => {
                session.out.failure(&failure);
                exit = exit.and(failure.exit);
            }
        }
    }
    Ok(exit)
}

async fn one_to_output(session: &Session, source: &Source) -> Result<(), Failure> {
    let fetch = async |from: &FilePath| {
        let target = Target::Output(session.out.stdout());
        let progress = Progress::new(&session.out, true);
        download(session, from, target, true, &progress).await?;
        Ok(())
    };
    match source {
        Source::Path(path) => {
            let from = path
                .file()
                .map_err(|error| Failure::invalid_name(format!("get {path}"), &error))?;
            fetch(&from).await
        }
        Source::Glob(glob) => {
            let each = async |entry| match entry {
                ListEntry::File { path, .. } => fetch(&path).await,
                ListEntry::Directory { .. } => Ok(()),
            };
            glob.expand(session, "get", Want::Files, each).await
        }
    }
}

pub(super) async fn cat(session: &Session, paths: &[String]) -> Result<Exit, Failure> {
    let paths = paths.iter().map(|path| RemotePath::parse(path));
    let sources = Source::read_all(session, "cat", paths).await?;
    to_output(session, &sources).await
}

fn tell(session: &Session, got: &Downloaded, to: &Path, recursive: bool) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&serde_json::json!({
            "path": got.path,
            "to": to.to_string_lossy(),
            "size": got.size,
            "etag": got.etag,
            "checksum": { "crc64nvme": got.crc64nvme },
            "verified": got.verified,
            "resumed": got.resumed,
        }));
    }
    if recursive {
        return Ok(());
    }
    let verified = if got.verified {
        "verified"
    } else {
        "not verified"
    };
    let (to, size) = (to.display(), human::bytes(got.size));
    session.out.line(&format!("{to}  {size}  {verified}"))
}
