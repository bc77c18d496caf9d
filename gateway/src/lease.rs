//! The write lease of this gateway: keeps chunks that no file names yet from being collected.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_client::{ClientError, TrackerApi};
use dfs_protocol::upload::{RenewRequest, RenewResponse};
use dfs_protocol::{ChunkId, Fence, LeaseId};
use dfs_runtime::shutdown::Shutdown;
use tokio::sync::Notify;

/// Renewal interval until the tracker said how long a lease lasts.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// Chunks given up together are told together after this pause.
const GATHER: Duration = Duration::from_millis(200);
/// Given-up chunks remembered while the tracker is away; the rest is collected when the lease ends.
const MAX_ABANDONED: usize = 100_000;

/// One lease for all uploads of a process.
#[derive(Debug)]
pub(crate) struct Lease {
    id: LeaseId,
    tracker: Arc<dyn TrackerApi>,
    state: Mutex<State>,
    abandoned: Notify,
}

#[derive(Debug, Default)]
struct State {
    in_use: BTreeSet<ChunkId>,
    abandoned: Vec<ChunkId>,
    condemned: BTreeSet<ChunkId>,
    fence: Option<Fence>,
    interval: Option<Duration>,
}

/// A chunk under the lease. Dropped, it is given up; [`HeldChunk::keep`] lets it go in peace.
#[derive(Debug)]
pub(crate) struct HeldChunk {
    id: ChunkId,
    lease: Arc<Lease>,
    kept: bool,
}

impl HeldChunk {
    pub(crate) fn id(&self) -> ChunkId {
        self.id
    }

    /// A file names the chunk now, or may: it is not ours to give up.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Whether the tracker condemned the chunk.
    pub(crate) fn is_condemned(&self) -> bool {
        self.lease.lock().condemned.contains(&self.id)
    }
}

impl Drop for HeldChunk {
    fn drop(&mut self) {
        let mut state = self.lease.lock();
        state.in_use.remove(&self.id);
        state.condemned.remove(&self.id);
        if !self.kept && state.abandoned.len() < MAX_ABANDONED {
            state.abandoned.push(self.id);
            self.lease.abandoned.notify_one();
        }
    }
}

impl Lease {
    pub(crate) fn new(id: LeaseId, tracker: Arc<dyn TrackerApi>) -> Arc<Self> {
        Arc::new(Self {
            id,
            tracker,
            state: Mutex::default(),
            abandoned: Notify::new(),
        })
    }

    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    /// Puts a chunk under the lease.
    pub(crate) fn hold(self: &Arc<Self>, id: ChunkId) -> HeldChunk {
        self.lock().in_use.insert(id);
        HeldChunk {
            id,
            lease: self.clone(),
            kept: false,
        }
    }

    /// The newest fence heard of; none before the first answer.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.lock().fence
    }

    /// Notes what an answer of the tracker said.
    pub(crate) fn heard(&self, fence: Fence, lease_ms: u64) {
        let mut state = self.lock();
        if state.fence.is_none_or(|known| fence.epoch >= known.epoch) {
            state.fence = Some(fence);
        }
        // Three tries within a lease.
        state.interval = Some(Duration::from_millis((lease_ms / 3).max(100)));
    }

    /// Whether there is nothing to tell the tracker.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.in_use.is_empty() && state.abandoned.is_empty()
    }

    /// Renews now. Chunks whose giving-up was not heard are told again next time.
    pub(crate) async fn renew(&self) -> Result<RenewResponse, ClientError> {
        let (chunks, abandoned) = {
            let mut state = self.lock();
            let chunks = state.in_use.iter().copied().collect();
            (chunks, std::mem::take(&mut state.abandoned))
        };
        let request = RenewRequest {
            lease: self.id,
            chunks,
            abandoned: abandoned.clone(),
        };
        match self.tracker.renew(request).await {
            Ok(answer) => {
                self.heard(answer.fence, answer.lease_ms);
                let mut state = self.lock();
                for id in &answer.condemned {
                    if state.in_use.contains(id) {
                        state.condemned.insert(*id);
                    }
                }
                drop(state);
                Ok(answer)
            }
            Err(error) => {
                let mut state = self.lock();
                let room = MAX_ABANDONED.saturating_sub(state.abandoned.len());
                state.abandoned.extend(abandoned.into_iter().take(room));
                Err(error)
            }
        }
    }

    /// Renews while anything is under the lease, until the shutdown.
    pub(crate) async fn keep_renewing(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let interval = self.lock().interval.unwrap_or(FIRST_INTERVAL);
            let gathered = async {
                self.abandoned.notified().await;
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(interval) => {}
                () = gathered => {}
            }
            if self.is_idle() {
                continue;
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "cannot renew the write lease");
                // An unheard giving-up must not spin: wait out an interval.
                tokio::select! {
                    () = shutdown.triggered() => return,
                    () = tokio::time::sleep(interval.min(FIRST_INTERVAL)) => {}
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
