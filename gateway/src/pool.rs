//! Placements ahead of need, so that a small file costs one chunk write and one commit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_client::{ClientError, TrackerApi};
use dfs_protocol::chunk::{DEFAULT_CHUNK_SIZE, DatanodeAddress};
use dfs_protocol::upload::{AllocateRequest, AllocateResponse};
use dfs_protocol::{DatanodeId, ErrorCode, Fence};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::shutdown::Shutdown;

use crate::config::GatewayConfig;
use crate::lease::{HeldChunk, Lease};
use crate::suspects::Suspects;

/// Most placements in one call.
const MAX_BATCH: u32 = 64;
/// Shortest pause between two looks for placements that nobody took.
const SHORTEST_EXPIRY: Duration = Duration::from_millis(50);
/// How long the end of a gateway waits for the tracker.
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(2);

/// Room for one chunk.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) chunk: HeldChunk,
    /// The chain, first hop first; never empty.
    pub(crate) targets: Vec<DatanodeAddress>,
    /// Of the tracker that placed it.
    pub(crate) fence: Fence,
    /// Bytes of a full chunk.
    pub(crate) chunk_size: u64,
    /// When it was placed, monotonic.
    at: Duration,
}

/// What a chunk needs of its placement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// Bytes that will come, when known; a full chunk otherwise.
    pub(crate) bytes: Option<u64>,
    /// Datanodes that just failed this upload.
    pub(crate) avoid: Vec<DatanodeId>,
    /// Datanodes that hold the file's earlier chunks.
    pub(crate) prefer: Vec<DatanodeId>,
}

impl Needs {
    /// Whether any placement will do.
    fn is_plain(&self) -> bool {
        self.avoid.is_empty() && self.prefer.is_empty()
    }
}

/// Placements that wait for a chunk.
#[derive(Debug)]
pub(crate) struct Pool {
    lease: Arc<Lease>,
    suspects: Arc<Suspects>,
    clock: SharedClock,
    batch: u32,
    max_age: Duration,
    chunk_size: AtomicU64,
    waiting: Mutex<VecDeque<Placed>>,
    /// One batch at a time: uploads that begin together share it.
    filling: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(crate) fn new(
        lease: Arc<Lease>,
        suspects: Arc<Suspects>,
        clock: SharedClock,
        config: &GatewayConfig,
    ) -> Self {
        Self {
            lease,
            suspects,
            clock,
            batch: config.pool_size.clamp(1, MAX_BATCH),
            max_age: config.pool_max_age,
            chunk_size: AtomicU64::new(DEFAULT_CHUNK_SIZE),
            waiting: Mutex::default(),
            filling: tokio::sync::Mutex::new(()),
        }
    }

    /// Room for one chunk.
    pub(crate) async fn take(
        &self,
        tracker: &dyn TrackerApi,
        needs: &Needs,
    ) -> Result<Placed, ClientError> {
        if !needs.is_plain() {
            return self.one(tracker, needs).await;
        }
        if let Some(placed) = self.pop() {
            return Ok(placed);
        }
        let _turn = self.filling.lock().await;
        if let Some(placed) = self.pop() {
            return Ok(placed);
        }
        match self.allocate(tracker, self.batch, &Needs::default()).await {
            Ok(placed) => {
                self.lock().extend(placed);
                self.pop().ok_or_else(|| no_placement().into())
            }
            // A full store may still have room for a small file.
            Err(error) if error.is(ErrorCode::InsufficientStorage) && needs.bytes.is_some() => {
                self.one(tracker, needs).await
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a placement back that nothing was written to.
    pub(crate) fn put_back(&self, placed: Placed) {
        self.lock().push_front(placed);
    }

    /// Drops the placements on a datanode that just failed.
    pub(crate) fn forget(&self, datanode: DatanodeId) {
        let is_elsewhere =
            |placed: &Placed| placed.targets.iter().all(|target| target.id != datanode);
        self.drop_unless(is_elsewhere);
    }

    async fn one(&self, tracker: &dyn TrackerApi, needs: &Needs) -> Result<Placed, ClientError> {
        let placed = self.allocate(tracker, 1, needs).await?;
        let first = placed.into_iter().next();
        first.ok_or_else(|| no_placement().into())
    }

    async fn allocate(
        &self,
        tracker: &dyn TrackerApi,
        chunks: u32,
        needs: &Needs,
    ) -> Result<Vec<Placed>, ClientError> {
        let Needs {
            bytes,
            mut avoid,
            mut prefer,
        } = needs.clone();
        // The tracker hears of a silent datanode later than who waits for it.
        for silent in self.suspects.silent() {
            prefer.retain(|id| *id != silent);
            if !avoid.contains(&silent) {
                avoid.push(silent);
            }
        }
        let chunk_size = self.chunk_size.load(Ordering::Relaxed);
        let request = AllocateRequest {
            lease: self.lease.id(),
            chunks,
            bytes_each: bytes.map_or(chunk_size, |bytes| bytes.clamp(1, chunk_size)),
            factor: None,
            avoid,
            prefer,
        };
        let AllocateResponse {
            fence,
            placements,
            chunk_size,
            lease_ms,
        } = tracker.allocate(request).await?;
        self.lease.heard(fence, lease_ms);
        self.chunk_size.store(chunk_size.max(1), Ordering::Relaxed);
        let at = self.clock.monotonic();
        let placed = placements
            .into_iter()
            .filter(|placement| !placement.targets.is_empty())
            .map(|placement| Placed {
                chunk: self.lease.hold(placement.chunk),
                targets: placement.targets,
                fence,
                chunk_size: chunk_size.max(1),
                at,
            });
        Ok(placed.collect())
    }

    /// Gives placements up that nobody took in time, until the shutdown. Without this those of an
    /// idle gateway stay under its lease, and no datanode that they name is ever safe to remove.
    pub(crate) async fn keep_expiring(self: Arc<Self>, shutdown: Shutdown) {
        let interval = (self.max_age / 2).max(SHORTEST_EXPIRY);
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(interval) => self.expire(),
            }
        }
    }

    /// Gives all placements up and tells the tracker, for a gateway that ends: what it holds counts as being
    /// written until the lease runs out, and until then keeps datanodes from being stopped.
    pub(crate) async fn give_up(&self) {
        self.drop_unless(|_| false);
        if self.lease.is_idle() {
            return;
        }
        let told = tokio::time::timeout(GIVE_UP_PATIENCE, self.lease.renew());
        match told.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the tracker did not hear what is given up"),
            Err(_) => tracing::debug!("the tracker did not hear in time what is given up"),
        }
    }

    /// Drops what is too old, of a former tracker, or condemned.
    fn expire(&self) {
        let now = self.clock.monotonic();
        let fence = self.lease.fence();
        self.drop_unless(|placed| {
            Some(placed.fence) == fence
                && now.saturating_sub(placed.at) < self.max_age
                && !placed.chunk.is_condemned()
        });
    }

    fn pop(&self) -> Option<Placed> {
        self.expire();
        self.lock().pop_front()
    }

    fn drop_unless(&self, keep: impl Fn(&Placed) -> bool) {
        let mut waiting = self.lock();
        let (kept, dropped): (VecDeque<_>, VecDeque<_>) = waiting.drain(..).partition(keep);
        *waiting = kept;
        drop(waiting);
        // Their chunks are given up here, outside the lock.
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Placed>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_placement() -> dfs_protocol::Problem {
    dfs_protocol::Problem::new(
        ErrorCode::TooFewDatanodes,
        "the tracker found no datanode for a chunk",
    )
    .next("start datanodes, or wait until they are heard")
}
