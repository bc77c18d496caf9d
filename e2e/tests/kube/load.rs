//! A writer and readers that go on while things are taken away, and what they saw: every acknowledged file
//! is remembered with its digest, every answer is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs_e2e::http::Reply;
use dfs_e2e::ledger::Content;
use dfs_e2e::store::Store;
use tokio::task::JoinSet;

use crate::tools::load_mib;

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// Sizes of the files that a scenario begins with, in turn.
const BEFORE: [u64; 7] = [1, 1 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20];
/// Bytes after which files stay small: however long a scenario takes, its small volumes do not fill up.
const PLENTY: usize = 160 << 20;
/// Requests wait so long for a tracker that restarts, and are refused afterwards.
const TRACKER_PATIENCE: Duration = Duration::from_secs(30);
/// Failures that are kept word by word.
const KEPT: usize = 10;

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Files that were acknowledged.
    pub(crate) acked: BTreeMap<String, Content>,
    /// Writes that were refused or broke.
    pub(crate) failed_writes: u64,
    /// Longest time between two acknowledgements.
    pub(crate) longest_write_gap: Duration,
    /// Reads that brought the right bytes.
    pub(crate) reads: u64,
    /// Longest read that brought the right bytes.
    pub(crate) longest_read: Duration,
    /// Reads that were refused or broke.
    pub(crate) failed_reads: u64,
    /// Reads that brought other bytes, or said that an acknowledged file is not there.
    pub(crate) wrong_reads: u64,
    /// The first failures, in words.
    pub(crate) failures: Vec<String>,
}

impl Seen {
    /// Nothing was refused, broken or wrong.
    pub(crate) fn assert_nothing_failed(&self) {
        let failed = (self.failed_writes, self.failed_reads, self.wrong_reads);
        assert_eq!(failed, (0, 0, 0), "{self}");
    }

    /// The tracker was away for a while, and nothing else. Until datanodes have reported to it a read may be refused, and
    /// then it says so and is to be tried again; nothing else fails before the patience with the tracker is over.
    pub(crate) fn assert_only_the_tracker_was_away(&self) {
        assert_eq!(self.wrong_reads, 0, "{self}");
        let mut allowed = vec!["urn:dfs:problem:safe-mode"];
        if self.longest_write_gap < TRACKER_PATIENCE {
            assert_eq!(self.failed_writes, 0, "{self}");
        } else {
            allowed.push("urn:dfs:problem:unavailable");
        }
        let mut reads = self.failures.iter().filter(|it| it.starts_with("GET "));
        let is_allowed = |failure: &String| allowed.iter().any(|code| failure.contains(code));
        assert!(reads.all(is_allowed), "{self}");
    }

    /// Fetches every acknowledged file once more: those that cannot be had as they were, in words.
    pub(crate) async fn wrong_at_the_end(&self, store: &Store) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, content) in &self.acked {
            match store.content(path).await {
                Ok(Some(found)) if found == *content => {}
                other => wrong.push(format!("at the end, {path}: {other:?}, not {content:?}")),
            }
        }
        wrong
    }

    /// Notes the answer to a write; true when it was acknowledged.
    fn wrote(
        &mut self,
        path: String,
        content: Content,
        answer: io::Result<Reply>,
        gap: Duration,
    ) -> bool {
        let failure = match answer {
            Ok(reply) if reply.status.is_success() => {
                self.longest_write_gap = self.longest_write_gap.max(gap);
                self.acked.insert(path, content);
                return true;
            }
            Ok(reply) => format!("{}: {}", reply.status, reply.text()),
            Err(error) => error.to_string(),
        };
        self.failed_writes += 1;
        self.failed(format!("PUT {path}: {failure}"));
        false
    }

    /// Notes the answer to a read of an acknowledged file.
    fn read(
        &mut self,
        path: &str,
        content: &Content,
        found: Result<Option<Content>, String>,
        took: Duration,
    ) {
        match found {
            Ok(Some(found)) if found == *content => {
                self.reads += 1;
                self.longest_read = self.longest_read.max(took);
            }
            Ok(other) => {
                self.wrong_reads += 1;
                self.failed(format!("GET {path}: {other:?}, not {content:?}"));
            }
            Err(reason) => {
                self.failed_reads += 1;
                self.failed(format!("GET {path}: {reason}"));
            }
        }
    }

    fn failed(&mut self, words: String) {
        if self.failures.len() < KEPT {
            self.failures.push(words);
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files acked, {} writes failed, longest gap {:.1?}; {} reads, longest {:.1?}, {} failed, {} wrong",
            self.acked.len(),
            self.failed_writes,
            self.longest_write_gap,
            self.reads,
            self.longest_read,
            self.failed_reads,
            self.wrong_reads
        )?;
        self.failures
            .iter()
            .try_for_each(|failure| write!(f, "\n    {failure}"))
    }
}

struct Shared {
    store: Store,
    directory: String,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// The running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Load {
    /// The same as [`Self::start`], once as much was written as `DFS_KUBE_LOAD_MIB` says.
    pub(crate) async fn start_full(store: &Store, directory: &str) -> Self {
        let acked = filled(store, &format!("{directory}-before"), load_mib() << 20).await;
        Self::start_with(store, directory, acked)
    }

    /// Starts one writer and two readers on files below `directory`.
    pub(crate) fn start(store: &Store, directory: &str) -> Self {
        Self::start_with(store, directory, BTreeMap::new())
    }

    fn start_with(store: &Store, directory: &str, acked: BTreeMap<String, Content>) -> Self {
        let seen = Seen {
            acked,
            ..Seen::default()
        };
        let shared = Arc::new(Shared {
            store: store.clone(),
            directory: directory.to_owned(),
            stop: AtomicBool::new(false),
            seen: Mutex::new(seen),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(write(shared.clone(), fastrand::Rng::new()));
        for _ in 0..2 {
            tasks.spawn(read(shared.clone(), fastrand::Rng::new()));
        }
        Self { shared, tasks }
    }

    /// What was seen up to now.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }

    /// Stops the clients.
    pub(crate) async fn halt(mut self) -> Seen {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.seen()
    }

    /// Stops, then fetches every acknowledged file once more. A file that cannot be had counts as wrong.
    pub(crate) async fn stop(self) -> Seen {
        let store = self.shared.store.clone();
        let mut seen = self.halt().await;
        for wrong in seen.wrong_at_the_end(&store).await {
            seen.wrong_reads += 1;
            seen.failed(wrong);
        }
        eprintln!("  load: {seen}");
        seen
    }
}

/// Writes files of all sizes, `bytes` in all.
async fn filled(store: &Store, directory: &str, bytes: u64) -> BTreeMap<String, Content> {
    let mut acked = BTreeMap::new();
    let mut left = bytes;
    for (number, size) in BEFORE.into_iter().cycle().enumerate() {
        if left == 0 {
            break;
        }
        let size = size.min(left);
        left -= size;
        let mut body = vec![0; usize::try_from(size).unwrap()];
        fastrand::fill(&mut body);
        let (body, path) = (Bytes::from(body), format!("{directory}/{number}"));
        let content = Content::of(&body);
        let answer = store.try_put(&path, body).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
        acked.insert(path, content);
    }
    acked
}

/// Mostly small files, some of several MiB; each path once.
async fn write(shared: Arc<Shared>, mut rng: fastrand::Rng) {
    let mut last = Instant::now();
    let mut written = 0;
    for number in 0_u64.. {
        if shared.stopped() {
            return;
        }
        let longest = match number % 20 {
            _ if written > PLENTY => 1 << 10,
            19 => 4 << 20,
            _ => 64 << 10,
        };
        let mut body = vec![0; rng.usize(1..longest)];
        rng.fill(&mut body);
        let (body, path) = (Bytes::from(body), format!("{}/{number}", shared.directory));
        let content = Content::of(&body);
        written += body.len();
        let answer = shared.store.try_put(&path, body).await;
        if shared.seen().wrote(path, content, answer, last.elapsed()) {
            last = Instant::now();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(shared: Arc<Shared>, mut rng: fastrand::Rng) {
    while !shared.stopped() {
        let chosen = {
            let seen = shared.seen();
            let nth = rng.usize(..seen.acked.len().max(1));
            seen.acked
                .iter()
                .nth(nth)
                .map(|(path, content)| (path.clone(), content.clone()))
        };
        if let Some((path, content)) = chosen {
            let start = Instant::now();
            let found = shared.store.content(&path).await;
            shared.seen().read(&path, &content, found, start.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
