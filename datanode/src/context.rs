//! What every part of one datanode shares, and the gate that each order passes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dfs_client::HttpClient;
use dfs_client::write_stream::WriteStreams;
use dfs_protocol::datanode::{DatanodeStats, FinishedTask};
use dfs_protocol::traffic::DatanodeTraffic;
use dfs_protocol::{ClusterId, DatanodeId, ErrorCode, Fence, InstanceId, Problem, TaskId};
use dfs_runtime::admin::Readiness;
use dfs_runtime::clock::SharedClock;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::Shutdown;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::attempts::Attempts;
use crate::bandwidth::RepairBandwidth;
use crate::config::DatanodeConfig;
use crate::journal::{Journal, JournalError};
use crate::metrics::DatanodeMetrics;
use crate::store::index::MonotonicSeconds;
use crate::store::{ChunkStore, StagedChunk, Volume, VolumeError};
use crate::write_stream::puts::Puts;

/// Where this datanode stands with the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not heard in this run: reads are served when the volume has a cluster, writes are not.
    Unheard,
    /// Announced, not admitted: serves and takes no chunk.
    Pending,
    /// In.
    Admitted,
}

/// One datanode.
#[derive(Debug)]
pub struct Context {
    /// Settings.
    pub config: DatanodeConfig,
    /// Identity, lock and fence.
    pub volume: Volume,
    /// Chunks.
    pub store: Arc<dyn ChunkStore>,
    /// Whole chunks on their way there.
    pub puts: Arc<Puts>,
    /// The tracker's journal.
    pub journal: Journal,
    /// Unfinished writes.
    pub attempts: Arc<Attempts>,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Calls to peers and the tracker.
    pub http: HttpClient,
    /// Chunk streams to the next hops.
    pub streams: WriteStreams,
    /// This run.
    pub instance: InstanceId,
    /// Where it stands with the tracker.
    pub standing: watch::Sender<Standing>,
    /// Writes at once, in steps: streams, uploads and copies.
    pub writes: Arc<Semaphore>,
    /// Chunks that came whole, written at once. Places of their own: these wait for one, and a copy, which
    /// does not, would find none as long as anybody waits.
    pub whole_writes: Semaphore,
    /// Reads at once.
    pub reads: Arc<Semaphore>,
    /// Repair bandwidth.
    pub repair: RepairBandwidth,
    /// Commands that run or wait, and results not told yet.
    pub tasks: Mutex<Tasks>,
    /// When the replica verified longest ago was verified.
    pub oldest_verified: AtomicI64,
    /// Since when, in monotonic seconds, chunks of an earlier identity may lie in `retired/`.
    pub retired_since: AtomicI64,
    /// Numbers heartbeats and reports.
    pub sequence: AtomicU64,
    /// Checks of the admin listener.
    pub readiness: Readiness,
    /// Streams and commands: they end with the datanode.
    pub spawned: Mutex<JoinSet<()>>,
    /// Counters.
    pub metrics: DatanodeMetrics,
    /// The end.
    pub shutdown: Shutdown,
}

/// The tracker's commands as they stand.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Running or waiting.
    pub known: BTreeSet<TaskId>,
    /// Ended, not yet told.
    pub finished: VecDeque<FinishedTask>,
}

impl Context {
    /// The uuid written on the volume.
    pub fn id(&self) -> DatanodeId {
        self.volume.record().datanode
    }

    /// Seconds of the monotonic clock.
    pub fn seconds(&self) -> MonotonicSeconds {
        i64::try_from(self.clock.monotonic().as_secs()).unwrap_or(i64::MAX)
    }

    /// Runs work that blocks on the disk.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let ctx = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&ctx))
            .await
            .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
    }

    /// Starts a task that ends with the datanode.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut spawned = self.spawned.lock().unwrap_or_else(PoisonError::into_inner);
        while spawned.try_join_next().is_some() {}
        spawned.spawn(task);
    }

    /// Ends every task started with [`Context::spawn`].
    pub fn abort_spawned(&self) {
        let mut spawned = self.spawned.lock().unwrap_or_else(PoisonError::into_inner);
        spawned.abort_all();
    }

    /// Takes an order's fence: persisted before it is obeyed when it is higher, refused when it
    /// is older (I8, I20).
    pub async fn accept(self: &Arc<Self>, fence: Fence) -> Result<(), Problem> {
        if self.volume.record().fence == fence {
            return Ok(());
        }
        let accepted = self.blocking(move |ctx| ctx.volume.accept(fence)).await?;
        accepted.map_err(|error| self.volume_problem(&error))
    }

    /// The cluster whose chunks are taken: none before admission.
    pub fn admitted(&self) -> Result<ClusterId, Problem> {
        let standing = *self.standing.borrow();
        match (standing, self.volume.record().cluster) {
            (Standing::Admitted, Some(cluster)) => Ok(cluster),
            _ => Err(not_admitted()),
        }
    }

    /// Whether chunks may be read.
    pub fn readable(&self) -> Result<(), Problem> {
        let has_cluster = self.volume.record().cluster.is_some();
        match *self.standing.borrow() {
            Standing::Admitted => Ok(()),
            Standing::Unheard if has_cluster => Ok(()),
            Standing::Unheard | Standing::Pending => Err(not_admitted()),
        }
    }

    /// A volume's refusal as an answer.
    pub fn volume_problem(&self, error: &VolumeError) -> Problem {
        match error {
            VolumeError::Fenced { .. } => {
                self.metrics.fenced.inc();
                Problem::new(ErrorCode::Fenced, error.to_string())
                    .next("ask the acting tracker for a new placement")
            }
            VolumeError::ForeignCluster { .. } | VolumeError::Refused { .. } => {
                Problem::new(ErrorCode::WrongCluster, error.to_string())
            }
            VolumeError::Locked { .. }
            | VolumeError::Unreadable { .. }
            | VolumeError::LaterFormat { .. }
            | VolumeError::Disk { .. } => {
                Problem::new(ErrorCode::Unavailable, error.to_string()).next("use another datanode")
            }
        }
    }

    /// A journal's refusal as an answer.
    pub fn journal_problem(&self, error: &JournalError) -> Problem {
        let text = error.to_string();
        match error {
            JournalError::Fence(error) => self.volume_problem(error),
            JournalError::Digest => Problem::new(ErrorCode::BadDigest, text),
            JournalError::TooLong { .. } => Problem::new(ErrorCode::TooLarge, text),
            JournalError::Sequence { .. } => Problem::new(ErrorCode::BadRequest, text),
            JournalError::Conflict { .. } => Problem::new(ErrorCode::Conflict, text),
            JournalError::Damaged { .. } => Problem::new(ErrorCode::DataUnavailable, text)
                .next("read the rest of the journal from another datanode"),
            JournalError::Full => Problem::new(ErrorCode::InsufficientStorage, text),
            JournalError::Disk { .. } | JournalError::Failed(_) => {
                Problem::new(ErrorCode::Unavailable, text)
            }
        }
    }

    /// Refuses what is meant for another datanode (I21).
    pub fn is_meant(&self, datanode: Option<DatanodeId>) -> Result<(), Problem> {
        let own = self.id();
        if datanode == Some(own) {
            return Ok(());
        }
        self.metrics.wrong_datanode.inc();
        let detail = format!("this is datanode {own}");
        Err(Problem::new(ErrorCode::WrongDatanode, detail)
            .next("ask the tracker for the datanode's present address"))
    }

    /// What the tracker hears of volume and load.
    pub fn stats(&self) -> DatanodeStats {
        let (chunks, used_bytes) = self.store.index().totals();
        self.metrics
            .open_chunks
            .set(i64::try_from(self.store.index().kept_count()).unwrap_or(i64::MAX));
        let aside = self.store.set_aside_count();
        let room = self.store.room();
        let failed = self.store.fail_stop().is_failed() || room.is_err();
        if let Ok(room) = &room {
            self.metrics.volume.set(room, used_bytes);
        }
        let room = room.unwrap_or(crate::store::Room {
            capacity: 0,
            free: 0,
            reserve: 0,
            read_only: true,
        });
        let read_only = room.read_only || failed || self.store.refuses_writes();
        self.metrics.volume.read_only.set(i64::from(read_only));
        let oldest = self.seconds() - self.oldest_verified.load(Ordering::Relaxed);
        let oldest = if chunks == 0 { 0 } else { oldest.max(0) };
        self.metrics.oldest_unverified.set(oldest);
        DatanodeStats {
            capacity_bytes: room.capacity,
            used_bytes,
            free_bytes: if room.read_only { 0 } else { room.free },
            chunks,
            read_only,
            quarantined: aside.quarantined + aside.foreign,
            active_writes: gauge_u32(self.metrics.write_streams.get()),
            active_reads: gauge_u32(self.metrics.reads.get()),
            oldest_unverified_seconds: u64::try_from(oldest).unwrap_or(0),
        }
    }

    /// What this run of the process moved, for people who look.
    pub fn traffic(&self) -> DatanodeTraffic {
        let metrics = &self.metrics;
        DatanodeTraffic {
            instance: self.instance,
            at_ms: u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX),
            read_bytes: metrics.read_bytes.get(),
            written_bytes: metrics.received_bytes.get(),
            copied_bytes: metrics.copied_bytes.get(),
            write_mode: Some(self.store.write_mode()),
        }
    }

    /// Notes how a command ended; the next heartbeat, which goes at once, tells it.
    pub fn finish(&self, task: FinishedTask) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.known.remove(&task.task);
        tasks.finished.push_back(task);
        drop(tasks);
        self.store.index().hurry();
    }

    /// Drops staged chunks, which removes their files, on a blocking thread.
    pub fn discard(&self, staged: impl IntoIterator<Item = Box<dyn StagedChunk>>) {
        let staged: Vec<_> = staged.into_iter().collect();
        if !staged.is_empty() {
            tokio::task::spawn_blocking(move || drop(staged));
        }
    }
}

fn not_admitted() -> Problem {
    Problem::new(
        ErrorCode::Unavailable,
        "the tracker has not admitted this datanode",
    )
    .next("use another datanode; `dfs nodes` shows who is admitted")
}

fn gauge_u32(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}
