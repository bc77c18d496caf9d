//! Chunks that are being written, and those whose writer is gone: kept for a while, so that the
//! writer can go on over the hops that are left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_protocol::datanode::OpenChunkState;
use dfs_protocol::{ChunkId, ChunkVersion};
use dfs_runtime::clock::SharedClock;
use tokio::sync::{Notify, watch};

use crate::metrics::DatanodeMetrics;
use crate::store::StagedChunk;

/// How long a stream may take to let go of a chunk that another wants to resume.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// One chunk in one version.
pub type AttemptKey = (ChunkId, ChunkVersion);

/// Every unfinished write of this datanode.
#[derive(Debug)]
pub struct Attempts {
    slots: Mutex<BTreeMap<AttemptKey, Slot>>,
    changed: Notify,
    clock: SharedClock,
    lease: Duration,
    most: usize,
    metrics: DatanodeMetrics,
}

#[derive(Debug)]
enum Slot {
    Active {
        stop: watch::Sender<bool>,
        length: Arc<AtomicU64>,
    },
    Parked {
        staged: Box<dyn StagedChunk>,
        until: Duration,
    },
}

/// An active write's place in the list; gone on drop.
#[derive(Debug)]
pub struct Active {
    attempts: Arc<Attempts>,
    key: AttemptKey,
    stop: watch::Receiver<bool>,
    length: Arc<AtomicU64>,
}

impl Attempts {
    /// Keeps at most `most` abandoned attempts, each for `lease`.
    pub fn new(
        clock: SharedClock,
        lease: Duration,
        most: usize,
        metrics: DatanodeMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::default(),
            changed: Notify::new(),
            clock,
            lease,
            most,
            metrics,
        })
    }

    /// Enters an active write. What was parked under the same key is returned: the new write
    /// begins anew, so it is to be dropped on a blocking thread. None when another is active.
    pub fn enter(
        self: &Arc<Self>,
        key: AttemptKey,
    ) -> Option<(Active, Option<Box<dyn StagedChunk>>)> {
        let mut slots = self.lock();
        if matches!(slots.get(&key), Some(Slot::Active { .. })) {
            return None;
        }
        let (stop, stopped) = watch::channel(false);
        let length = Arc::new(AtomicU64::new(0));
        let slot = Slot::Active {
            stop,
            length: Arc::clone(&length),
        };
        let parked = match slots.insert(key, slot) {
            Some(Slot::Parked { staged, .. }) => Some(staged),
            Some(Slot::Active { .. }) | None => None,
        };
        self.count(&slots);
        let active = Active {
            attempts: Arc::clone(self),
            key,
            stop: stopped,
            length,
        };
        Some((active, parked))
    }

    /// Keeps a broken attempt for its writer. Returns what had to go for it, to be dropped on a
    /// blocking thread.
    pub fn park(&self, active: Active, staged: Box<dyn StagedChunk>) -> Vec<Box<dyn StagedChunk>> {
        let until = self.clock.monotonic() + self.lease;
        let mut slots = self.lock();
        let mut gone = Vec::new();
        // Takes the active write's place in one step: whoever waits for it must not find nothing.
        if let Some(Slot::Parked { staged, .. }) =
            slots.insert(staged.key(), Slot::Parked { staged, until })
        {
            gone.push(staged);
        }
        let parked = slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Parked { until, .. } => Some((*until, *key)),
            Slot::Active { .. } => None,
        });
        let mut parked: Vec<_> = parked.collect();
        parked.sort_unstable();
        let excess = parked.len().saturating_sub(self.most);
        for (_, key) in parked.into_iter().take(excess) {
            self.metrics.expired_attempts.inc();
            gone.extend(take_parked(&mut slots, key));
        }
        self.count(&slots);
        drop(slots);
        drop(active);
        gone
    }

    /// Takes an attempt of `id` with a version in `from .. below` to go on with. An active one is
    /// told to stop: its writer has come back on another connection.
    pub async fn take(
        &self,
        id: ChunkId,
        from: ChunkVersion,
        below: ChunkVersion,
    ) -> Option<Box<dyn StagedChunk>> {
        if below <= from {
            return None;
        }
        let search = async {
            loop {
                let changed = self.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                match self.try_take(id, from, below) {
                    Taken::Staged(staged) => return Some(staged),
                    Taken::Nothing => return None,
                    Taken::Wait => changed.await,
                }
            }
        };
        tokio::time::timeout(TAKE_OVER, search).await.ok().flatten()
    }

    fn try_take(&self, id: ChunkId, from: ChunkVersion, below: ChunkVersion) -> Taken {
        let mut slots = self.lock();
        let newest = slots.range((id, from)..(id, below)).next_back();
        let Some((key, slot)) = newest else {
            return Taken::Nothing;
        };
        let key = *key;
        if let Slot::Active { stop, .. } = slot {
            stop.send_replace(true);
            return Taken::Wait;
        }
        let taken = take_parked(&mut slots, key);
        self.count(&slots);
        taken.map_or(Taken::Nothing, Taken::Staged)
    }

    /// Takes what is parked under a key, to be dropped on a blocking thread.
    pub fn take_parked(&self, key: AttemptKey) -> Option<Box<dyn StagedChunk>> {
        let mut slots = self.lock();
        let taken = take_parked(&mut slots, key);
        self.count(&slots);
        taken
    }

    /// Takes every attempt whose lease is over, to be dropped on a blocking thread.
    pub fn expired(&self) -> Vec<Box<dyn StagedChunk>> {
        let now = self.clock.monotonic();
        let mut slots = self.lock();
        let over = slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Parked { until, .. } if *until <= now => Some(*key),
            Slot::Parked { .. } | Slot::Active { .. } => None,
        });
        let over: Vec<AttemptKey> = over.collect();
        let mut gone = Vec::new();
        for key in over {
            self.metrics.expired_attempts.inc();
            gone.extend(take_parked(&mut slots, key));
        }
        self.count(&slots);
        gone
    }

    /// The newest unfinished write of a chunk.
    pub fn state(&self, id: ChunkId) -> Option<OpenChunkState> {
        let slots = self.lock();
        let range = (id, ChunkVersion(0))..=(id, ChunkVersion(u32::MAX));
        let (key, slot) = slots.range(range).next_back()?;
        let length = match slot {
            Slot::Active { length, .. } => length.load(Ordering::Relaxed),
            Slot::Parked { staged, .. } => staged.length(),
        };
        Some(OpenChunkState {
            version: key.1,
            length,
        })
    }

    fn count(&self, slots: &BTreeMap<AttemptKey, Slot>) {
        let parked = slots.values().filter(|s| matches!(s, Slot::Parked { .. }));
        let parked = i64::try_from(parked.count()).unwrap_or(i64::MAX);
        self.metrics.parked_attempts.set(parked);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Taken {
    Staged(Box<dyn StagedChunk>),
    Wait,
    Nothing,
}

fn take_parked(
    slots: &mut BTreeMap<AttemptKey, Slot>,
    key: AttemptKey,
) -> Option<Box<dyn StagedChunk>> {
    match slots.remove(&key)? {
        Slot::Parked { staged, .. } => Some(staged),
        active @ Slot::Active { .. } => {
            slots.insert(key, active);
            None
        }
    }
}

impl Active {
    /// Notes the bytes taken so far.
    pub fn progress(&self, length: u64) {
        self.length.store(length, Ordering::Relaxed);
    }

    /// Waits until another connection wants to go on with this chunk.
    pub async fn stopped(&mut self) {
        if self.stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut slots = self.attempts.lock();
        if matches!(slots.get(&self.key), Some(Slot::Active { .. })) {
            slots.remove(&self.key);
        }
        drop(slots);
        self.attempts.changed.notify_waiters();
    }
}
