//! One hand at a time at the file of each version of a chunk: a writer, or who takes it away.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dfs_protocol::ChunkVersion;

use super::error::StoreError;
use super::files::Shared;
use super::index::ReplicaKey;

/// Chunks being written or taken away.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: Mutex<BTreeSet<ReplicaKey>>,
    /// One was given back.
    freed: Condvar,
}

impl Claims {
    fn taken(&self) -> MutexGuard<'_, BTreeSet<ReplicaKey>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to write one version of one chunk, or to take it away; given back on drop.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
    key: ReplicaKey,
}

impl Claim {
    pub(super) fn take(shared: &Arc<Shared>, key: ReplicaKey) -> Result<Self, StoreError> {
        let (chunk, version) = key;
        if !shared.claims.taken().insert(key) {
            return Err(StoreError::InProgress { chunk, version });
        }
        let claim = Self {
            shared: Arc::clone(shared),
            key,
        };
        // Looked at after the claim: a seal puts the replica there before it gives its claim back.
        if shared.index.get(key).is_some() {
            return Err(StoreError::AlreadySealed { chunk, version });
        }
        Ok(claim)
    }

    /// The right to take away what is held; `None` when nothing is. Waits for who has it: while the
    /// replica is in the index that is nobody who writes for long, but a writer that ends, one that is
    /// about to find it there, or another hand that takes it away. Blocks.
    pub(super) fn hold(shared: &Arc<Shared>, key: ReplicaKey) -> Option<Self> {
        let mut taken = shared.claims.taken();
        loop {
            // Looked at anew each time: who has the claim may have taken the replica away.
            shared.index.get(key)?;
            if taken.insert(key) {
                let shared = Arc::clone(shared);
                return Some(Self { shared, key });
            }
            let freed = shared.claims.freed.wait(taken);
            taken = freed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Exchanges the claim for one on another version of the same chunk.
    pub(super) fn relabel(&mut self, version: ChunkVersion) -> Result<(), StoreError> {
        *self = Self::take(&self.shared, (self.key.0, version))?;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let claims = &self.shared.claims;
        claims.taken().remove(&self.key);
        claims.freed.notify_all();
    }
}
