//! One chunk on its way to a chain of datanodes: a task that keeps every block until all live hops
//! confirmed it, and goes on over the survivors when a hop breaks (design.md section 6).

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_client::write_stream::{WholeBlock, failure};
use dfs_protocol::checksum::RunningCrc32c;
use dfs_protocol::chunk::{ChunkOrigin, DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{HopFailure, HopFault, OpenChunk, Resume, SealedReport};
use dfs_protocol::{ChunkVersion, DatanodeId, ErrorCode, Fence, Problem};
use dfs_runtime::trace;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::stream::{Sent, Streamed, stream};
use super::survey;
use super::window::Block;
use crate::error::UploadError;
use crate::gateway::SharedGateway;
use crate::lease::HeldChunk;
use crate::pool::{Needs, Placed};

/// Blocks between the cutter and the chain's task; they count in the window.
const FEED_BLOCKS: usize = 8;
/// How often a chain may be opened for one chunk.
const MAX_ATTEMPTS: u32 = 16;
/// How often a chunk that lost every hop may begin anew elsewhere.
const MAX_FRESH_STARTS: u32 = 3;
/// How often a chunk waits for a datanode that is writing as many as it may: five seconds in all. Its
/// places are taken by streams that broke, too, until it notices.
const MAX_BUSY: u32 = 4;
/// The first such wait; each is as much longer as the one before.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Datanodes that failed one upload: its later chunks stay clear of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailedHops(Arc<Mutex<BTreeSet<DatanodeId>>>);

impl FailedHops {
    fn add(&self, datanode: DatanodeId) {
        self.lock().insert(datanode);
    }

    /// All of them, lowest id first.
    pub(crate) fn all(&self) -> Vec<DatanodeId> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<DatanodeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the cutter says to the task.
#[derive(Debug)]
pub(crate) enum Feed {
    /// The next block.
    Block(Block),
    /// There are no more.
    Seal,
}

/// A chunk that is durable on `replicas`.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) chunk: SealedChunk,
    pub(crate) replicas: Vec<DatanodeId>,
    /// Given up when dropped.
    pub(crate) held: HeldChunk,
}

/// The cutter's end of a chunk's task.
#[derive(Debug)]
pub(crate) struct ChunkTask {
    feed: mpsc::Sender<Feed>,
    outcome: JoinHandle<Result<Written, UploadError>>,
}

impl ChunkTask {
    /// Begins a chunk. `expected` is the most that it may hold.
    pub(crate) fn begin(
        gateway: SharedGateway,
        placed: Placed,
        origin: ChunkOrigin,
        expected: u64,
        failed: FailedHops,
    ) -> Self {
        let (feed, blocks) = mpsc::channel(FEED_BLOCKS);
        let job = ChunkJob::new(gateway, placed, origin, expected, failed);
        Self {
            feed,
            outcome: tokio::spawn(trace::carried(job.run(blocks))),
        }
    }

    /// A chunk of one block: nothing more is fed.
    pub(crate) fn whole(
        gateway: SharedGateway,
        placed: Placed,
        origin: ChunkOrigin,
        block: Block,
        failed: FailedHops,
    ) -> Self {
        let (feed, blocks) = mpsc::channel(1);
        let mut job = ChunkJob::new(gateway, placed, origin, block.end(), failed);
        job.take(block);
        job.complete = true;
        Self {
            feed,
            outcome: tokio::spawn(trace::carried(job.run(blocks))),
        }
    }

    /// Hands on; an error means that the task ended: its outcome says why.
    pub(crate) async fn feed(&self, feed: Feed) -> Result<(), ()> {
        self.feed.send(feed).await.map_err(drop)
    }

    /// Waits for the end.
    pub(crate) async fn outcome(self) -> Result<Written, UploadError> {
        let Self { feed, outcome } = self;
        drop(feed);
        outcome.await.unwrap_or(Err(UploadError::TaskFailed))
    }
}

/// State of one chunk. Invariant: `window` holds every byte from `base` to `received`, and every
/// live hop has the bytes before `base`.
#[derive(Debug)]
pub(super) struct ChunkJob {
    pub(super) gateway: SharedGateway,
    origin: ChunkOrigin,
    expected: u64,
    placed: Placed,
    /// Targets that have not failed.
    live: Vec<DatanodeAddress>,
    /// Version of the attempt that runs, or of the next one.
    version: ChunkVersion,
    /// The last attempt that was open on all live hops.
    opened: Option<ChunkVersion>,
    /// Set after a failed reopening: who has which version must be asked.
    doubtful: bool,
    fence: Fence,
    pub(super) window: VecDeque<Block>,
    pub(super) base: u64,
    pub(super) received: u64,
    pub(super) whole: RunningCrc32c,
    /// No more blocks will come.
    pub(super) complete: bool,
    failures: Vec<HopFailure>,
    failed: FailedHops,
    attempts: u32,
    fresh_starts: u32,
    /// Times that a hop was busy.
    busy: u32,
}

impl ChunkJob {
    fn new(
        gateway: SharedGateway,
        placed: Placed,
        origin: ChunkOrigin,
        expected: u64,
        failed: FailedHops,
    ) -> Self {
        Self {
            live: hopeful(&gateway, &placed),
            gateway,
            origin,
            expected,
            fence: placed.fence,
            placed,
            version: ChunkVersion::FIRST,
            opened: None,
            doubtful: false,
            window: VecDeque::new(),
            base: 0,
            received: 0,
            whole: RunningCrc32c::default(),
            complete: false,
            failures: Vec::new(),
            failed,
            attempts: 0,
            fresh_starts: 0,
            busy: 0,
        }
    }

    async fn run(mut self, mut blocks: mpsc::Receiver<Feed>) -> Result<Written, UploadError> {
        loop {
            let failed = match self.attempt(&mut blocks).await? {
                Ok(report) => return self.sealed(report),
                Err(failed) => failed,
            };
            if failed.cause == HopFault::Unreachable {
                self.gateway.note_silent(failed.datanode);
            }
            if let Some((chunk, replicas)) = self.found_sealed().await {
                return Ok(self.written(chunk, replicas));
            }
            self.lost(failed).await;
        }
    }

    /// Writes the chunk over the live hops. The inner error is a hop that failed.
    async fn attempt(
        &mut self,
        blocks: &mut mpsc::Receiver<Feed>,
    ) -> Result<Result<SealedReport, HopFailure>, UploadError> {
        let (first, open) = self.next_open().await?;
        if let Some(whole) = self.whole_block() {
            let limit = self.gateway.config.chain_stall;
            return Ok(self.gateway.streams.put(&first, &open, &whole, limit).await);
        }
        let writer = match self.gateway.streams.open(&first, &open).await {
            Ok(writer) => writer,
            Err(failed) => return Ok(Err(failed)),
        };
        self.opened = Some(self.version);
        self.doubtful = false;
        match stream(self, writer, blocks).await {
            Streamed::Sealed { report, sent } => {
                let Sent { sender, receiver } = *sent;
                self.gateway.streams.put_back(sender, receiver);
                Ok(Ok(report))
            }
            Streamed::GivenUp => Err(UploadError::GivenUp),
            Streamed::Broke(failed) => Ok(Err(failed)),
        }
    }

    /// The block that is the whole chunk, if it is one and no more will come.
    fn whole_block(&self) -> Option<WholeBlock> {
        let block = self.window.front()?;
        let is_whole = self.complete && self.base == 0 && self.window.len() == 1;
        is_whole.then(|| WholeBlock {
            data: block.data.clone(),
            crc32c: block.crc32c,
        })
    }

    /// Keeps a block until every live hop has it.
    pub(super) fn take(&mut self, block: Block) {
        self.received = block.end();
        self.whole.push(block.crc32c, block.data.len() as u64);
        self.window.push_back(block);
    }

    /// The next attempt: on the live hops, on fresh ones when none is left.
    async fn next_open(&mut self) -> Result<(DatanodeAddress, OpenChunk), UploadError> {
        let (first, resume) = loop {
            if self.live.is_empty() || self.attempts >= MAX_ATTEMPTS {
                self.start_afresh().await?;
            }
            let resume = self.resume_point().await;
            // Nobody may hold what was confirmed: the next round starts afresh, or ends.
            if let Some(first) = self.live.first() {
                break (first.clone(), resume);
            }
        };
        self.attempts += 1;
        let open = OpenChunk {
            cluster: self.gateway.cluster().await?,
            datanode: first.id,
            fence: self.fence,
            chunk: self.placed.chunk.id(),
            version: self.version,
            origin: self.origin.clone(),
            expected: self.expected,
            resume,
            downstream: self.live.iter().skip(1).cloned().collect(),
            trace: None,
        };
        Ok((first, open))
    }

    /// Where the survivors go on; drops those that cannot. Nothing confirmed: from the start.
    async fn resume_point(&mut self) -> Option<Resume> {
        let version = self.opened.filter(|_| self.base > 0)?;
        if self.doubtful {
            let id = self.placed.chunk.id();
            let (holders, highest) =
                survey::resumable(&self.gateway, &self.live, id, version, self.base).await;
            self.live.retain(|target| holders.contains(&target.id));
            self.version = self.version.max(highest.next());
        }
        Some(Resume {
            version,
            length: self.base,
        })
    }

    /// Takes a new placement for a chunk that no datanode holds a needed byte of.
    async fn start_afresh(&mut self) -> Result<(), UploadError> {
        let lost = || UploadError::ChainLost {
            failures: self.failures.clone(),
        };
        if self.base > 0 || self.fresh_starts >= MAX_FRESH_STARTS {
            return Err(lost());
        }
        // What failed it is avoided; what is only suspected too, by the pool.
        let needs = Needs {
            bytes: Some(self.expected),
            avoid: self.failed.all(),
            prefer: Vec::new(),
        };
        let tracker = &*self.gateway.tracker;
        let placed = self.gateway.pool.take(tracker, &needs).await;
        let placed = placed.map_err(|error| {
            tracing::warn!(%error, "no fresh placement for a chunk that lost its chain");
            if error.is(ErrorCode::InsufficientStorage) {
                UploadError::Tracker(error)
            } else {
                lost()
            }
        })?;
        self.fresh_starts += 1;
        self.attempts = 0;
        self.live = hopeful(&self.gateway, &placed);
        self.fence = placed.fence;
        self.placed = placed;
        self.version = ChunkVersion::FIRST;
        self.opened = None;
        self.doubtful = false;
        Ok(())
    }

    /// Drops a hop from the chain, or mends what made it refuse.
    async fn lost(&mut self, failed: HopFailure) {
        tracing::warn!(
            chunk = %self.placed.chunk.id(),
            version = %self.version,
            datanode = %failed.datanode,
            cause = failed.cause.as_str(),
            detail = failed.detail,
            "a chain lost a hop"
        );
        self.gateway.metrics.hop_failures.inc(failed.cause.into());
        self.gateway.pool.forget(failed.datanode);
        let was_open = self.opened == Some(self.version);
        self.version = self.version.next();
        let mended = match failed.cause {
            HopFault::Fenced => self.took_new_fence().await,
            HopFault::CannotResume => !self.doubtful,
            HopFault::Busy => self.waited_for_a_place().await,
            HopFault::Unreachable
            | HopFault::NoSpace
            | HopFault::Disk
            | HopFault::WrongDatanode
            | HopFault::AlreadySealed
            | HopFault::Corrupt
            | HopFault::Protocol => false,
        };
        self.doubtful = !was_open;
        if !mended {
            let known = self.live.iter().any(|target| target.id == failed.datanode);
            // A failure that names a stranger still ended the stream of the first hop.
            let culprit = if known {
                Some(failed.datanode)
            } else {
                self.live.first().map(|target| target.id)
            };
            self.live.retain(|target| Some(target.id) != culprit);
            if let Some(culprit) = culprit {
                self.failed.add(culprit);
            }
        }
        self.failures.push(failed);
    }

    /// A datanode obeys a newer tracker. The lease, renewed there with this chunk, is our right to
    /// go on under its fence.
    async fn took_new_fence(&mut self) -> bool {
        let Ok(answer) = self.gateway.lease.renew().await else {
            return false;
        };
        let condemned = answer.condemned.contains(&self.placed.chunk.id());
        let newer = answer.fence != self.fence;
        self.fence = answer.fence;
        newer && !condemned
    }

    /// A hop that has no place for a write now is no worse than any other: slow is not missing.
    async fn waited_for_a_place(&mut self) -> bool {
        if self.busy >= MAX_BUSY {
            return false;
        }
        self.busy += 1;
        tokio::time::sleep(BUSY_PAUSE * self.busy).await;
        true
    }

    /// After the last block: a break may have hidden a seal that took effect.
    async fn found_sealed(&self) -> Option<(SealedChunk, Vec<DatanodeId>)> {
        if !self.complete {
            return None;
        }
        survey::sealed(&self.gateway, &self.placed.targets, &self.seal()).await
    }

    /// The chunk as it must be sealed in this attempt.
    pub(super) fn seal(&self) -> SealedChunk {
        SealedChunk {
            id: self.placed.chunk.id(),
            version: self.version,
            length: self.whole.length(),
            crc32c: self.whole.value(),
        }
    }

    /// The hop that the stream goes to.
    pub(super) fn first(&self) -> DatanodeAddress {
        let first = self.live.first().or_else(|| self.placed.targets.first());
        first.cloned().unwrap_or_else(|| DatanodeAddress {
            id: DatanodeId::from_u128(0),
            address: String::new(),
        })
    }

    /// A failure of the hop that the stream goes to.
    pub(super) fn first_hop(&self, detail: &dyn std::fmt::Display) -> HopFailure {
        failure(self.first().id, HopFault::Unreachable, detail)
    }

    fn sealed(self, report: SealedReport) -> Result<Written, UploadError> {
        let SealedReport {
            chunk,
            replicas,
            failed,
        } = report;
        for hop in &failed {
            self.gateway.metrics.hop_failures.inc(hop.cause.into());
            if is_to_blame(hop.cause) {
                self.gateway.pool.forget(hop.datanode);
                self.failed.add(hop.datanode);
            }
            if hop.cause == HopFault::Unreachable {
                self.gateway.note_silent(hop.datanode);
            }
            tracing::warn!(%chunk.id, datanode = %hop.datanode, detail = hop.detail,
                "a hop was lost at the seal");
        }
        let ours = |id: &DatanodeId| self.live.iter().any(|target| target.id == *id);
        let replicas: Vec<DatanodeId> = replicas.into_iter().filter(ours).collect();
        if replicas.is_empty() || chunk != self.seal() {
            let problem = Problem::new(
                ErrorCode::Unavailable,
                "a datanode sealed something else than what was sent",
            );
            return Err(problem.next("nothing was stored: upload again").into());
        }
        for id in &replicas {
            self.gateway.suspects.clear(*id);
        }
        Ok(self.written(chunk, replicas))
    }

    fn written(self, chunk: SealedChunk, replicas: Vec<DatanodeId>) -> Written {
        Written {
            chunk,
            replicas,
            held: self.placed.chunk,
        }
    }
}

/// Whether a hop that failed is worse than any other for what comes next: one that had no place for a write, hears a
/// newer tracker or has the chunk already is not.
fn is_to_blame(cause: HopFault) -> bool {
    match cause {
        HopFault::Busy | HopFault::Fenced | HopFault::AlreadySealed => false,
        HopFault::CannotResume
        | HopFault::Unreachable
        | HopFault::NoSpace
        | HopFault::Disk
        | HopFault::WrongDatanode
        | HopFault::Corrupt
        | HopFault::Protocol => true,
    }
}

/// The chain over a placement: without datanodes that were just silent. The commit has their replicas
/// made from the others as long as the tracker counts on them.
fn hopeful(gateway: &SharedGateway, placed: &Placed) -> Vec<DatanodeAddress> {
    let mut targets = placed.targets.clone();
    gateway.suspects.leave_out_silent(&mut targets);
    targets
}
