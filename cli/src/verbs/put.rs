//! `dfs put SRC... DEST`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dfs_protocol::{FilePath, InvalidName};
use tokio::sync::mpsc;

use super::conclude;
use crate::args::PutArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::Output;
use crate::paths::{RemotePath, check_destination, local_name, split_destination};
use crate::session::Session;
use crate::store::{FileGuard, PutAnswer};
use crate::transfer::{Found, Progress, Source, UploadOptions, WalkProblem, run_all, upload, walk};

/// Files that may be found ahead of the transfers.
const AHEAD: usize = 4096;

/// One file to put.
struct Job {
    from: From,
    to: FilePath,
}

enum From {
    File(PathBuf),
    Stdin,
}

pub(super) async fn put(
    session: &Session,
    args: PutArgs,
    stdin: Box<dyn Read + Send>,
) -> Result<Exit, Failure> {
    let recursive = args.transfer.recursive;
    let options = UploadOptions {
        guard: match (args.if_absent, args.if_match) {
            (true, _) => FileGuard::Absent,
            (false, Some(version)) => FileGuard::Version(version),
            (false, None) => FileGuard::None,
        },
        content_type: args.content_type,
    };
    let (sources, destination) = split_destination(args.paths);
    let destination = read_destination(destination)?;
    check_sources(&sources, &destination)?;
    let progress = Progress::new(&session.out, args.transfer.quiet);
    let (sender, jobs) = mpsc::channel(AHEAD);
    let planner = Planner {
        destination,
        recursive,
        out: session.out.clone(),
        progress: progress.clone(),
        jobs: sender,
    };
    let planning = tokio::task::spawn_blocking(move || planner.plan(&sources));
    let stdin = Mutex::new(Some(stdin));
    let thin = AtomicU64::new(0);
    let tally = run_all(jobs, args.transfer.jobs, &session.out, async |job: Job| {
        let (source, name) = match job.from {
            From::File(path) => (Source::File(path.clone()), path.display().to_string()),
            From::Stdin => (take_stdin(&stdin)?, "standard input".to_owned()),
        };
        progress.say(job.to.to_string());
        let answer = upload(session, source, &name, &job.to, &options, &progress).await?;
        if answer.replica_count < answer.wanted {
            thin.fetch_add(1, Ordering::Relaxed);
        }
        tell(&session.out, &answer, recursive)?;
        Ok(answer.size)
    })
    .await;
    // It ends when its channel does; a panic in it has been logged.
    let _ended = planning.await;
    let exit = conclude(session, &progress, "put", tally, recursive)?;
    match thin.into_inner() {
        0 => {}
        thin => session.out.warn(&format!(
            "{} with fewer replicas than wanted for now: see `dfs status`",
            human::count(thin, "file")
        )),
    }
    Ok(exit)
}

/// Without DEST, the top of the store.
fn read_destination(destination: Option<PathBuf>) -> Result<RemotePath, Failure> {
    let Some(path) = destination else {
        return Ok(RemotePath::parse("/"));
    };
    let what = format!("put to {}", path.display());
    RemotePath::from_path(&path).map_err(|error| Failure::invalid_name(what, &error))
}

fn check_sources(sources: &[PathBuf], destination: &RemotePath) -> Result<(), Failure> {
    let is_directory = destination.is_directory();
    check_destination("put", sources.len(), is_directory, &destination.to_string())?;
    let from_stdin = sources.iter().filter(|source| is_stdin(source)).count();
    if from_stdin > 0 && is_directory {
        let why = "what comes from standard input needs a name";
        return Err(Failure::usage("put -", why).next("write `dfs put - path/in/store`"));
    }
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn take_stdin(stdin: &Mutex<Option<Box<dyn Read + Send>>>) -> Result<Source, Failure> {
    let taken = stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
    taken
        .map(Source::Stream)
        .ok_or_else(|| Failure::usage("put -", "standard input can be put once only"))
}

fn tell(out: &Output, answer: &PutAnswer, recursive: bool) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(answer);
    }
    if recursive {
        return Ok(());
    }
    let (path, size) = (&answer.path, human::bytes(answer.size));
    if answer.wanted == 0 {
        return out.line(&format!("{path}  {size}"));
    }
    let replicas = human::count(u64::from(answer.replica_count), "replica");
    out.line(&format!("{path}  {size}  {replicas}"))
}

/// Finds the files, ahead of the transfers. Runs on a blocking thread.
struct Planner {
    destination: RemotePath,
    recursive: bool,
    out: Output,
    progress: Progress,
    jobs: mpsc::Sender<Result<Job, Failure>>,
}

impl Planner {
    fn plan(&self, sources: &[PathBuf]) {
        for source in sources {
            if is_stdin(source) {
                self.send(job(From::Stdin, "standard input", self.destination.file()));
                continue;
            }
            match std::fs::metadata(source) {
                Err(error) => {
                    let failure = Failure::local(format!("put {}", source.display()), &error);
                    self.send(Err(failure));
                }
                Ok(metadata) if metadata.is_dir() => self.directory(source),
                Ok(metadata) => {
                    self.progress.found(metadata.len());
                    let to = match local_name(source).filter(|_| self.destination.is_directory()) {
                        Some(name) => utf8(name).and_then(|name| self.destination.join(name)),
                        None => self.destination.file(),
                    };
                    let name = source.display().to_string();
                    self.send(job(From::File(source.clone()), &name, to));
                }
            }
        }
    }

    fn directory(&self, source: &Path) {
        let what = format!("put {}", source.display());
        if !self.recursive {
            self.send(Err(
                Failure::new(Exit::Failed, what, "it is a directory").next("add -r")
            ));
            return;
        }
        // A DEST without a slash becomes the directory itself.
        let below = if self.destination.is_directory() {
            local_name(source).map(utf8).transpose()
        } else {
            Ok(None)
        };
        let base = match below {
            Ok(Some(name)) => self.destination.below(name),
            Ok(None) => self.destination.clone(),
            Err(error) => {
                self.send(Err(Failure::invalid_name(what, &error)));
                return;
            }
        };
        let mut empty = true;
        walk(source, &mut |found| {
            empty = false;
            match found {
                Ok(file) => self.found(&base, file),
                Err(problem) => self.problem(problem),
            }
        });
        if empty {
            let source = source.display();
            self.out.warn(&format!(
                "{source} holds no files: in the store, directories exist through their files"
            ));
        }
    }

    fn found(&self, base: &RemotePath, file: Found) -> bool {
        self.progress.found(file.length);
        let name = file.path.display().to_string();
        let to = base.join(&file.relative);
        self.send(job(From::File(file.path), &name, to))
    }

    fn problem(&self, problem: WalkProblem) -> bool {
        let what = |path: &Path| format!("put {}", path.display());
        match problem {
            WalkProblem::Special(path) => {
                self.skip(&path, "it is a pipe, a socket or a device");
                true
            }
            WalkProblem::Cycle(path) => {
                self.skip(&path, "the link leads back to a directory above it");
                true
            }
            WalkProblem::Name(path, error) => {
                self.send(Err(Failure::invalid_name(what(&path), &error)))
            }
            WalkProblem::Unreadable(path, error) => {
                self.send(Err(Failure::local(what(&path), &error)))
            }
        }
    }

    fn skip(&self, path: &Path, why: &str) {
        self.out
            .warn(&format!("{} is skipped: {why}", path.display()));
    }

    fn send(&self, job: Result<Job, Failure>) -> bool {
        self.jobs.blocking_send(job).is_ok()
    }
}

fn utf8(name: &std::ffi::OsStr) -> Result<&str, InvalidName> {
    name.to_str().ok_or(InvalidName::NotUtf8)
}

fn job(from: From, name: &str, to: Result<FilePath, InvalidName>) -> Result<Job, Failure> {
    to.map(|to| Job { from, to })
        .map_err(|error| Failure::invalid_name(format!("put {name}"), &error))
}
