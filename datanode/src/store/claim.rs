//! One writer for each version of a chunk.

use std::sync::Arc;

use dfs_protocol::ChunkVersion;

use super::error::StoreError;
use super::files::Shared;
use super::index::ReplicaKey;

/// The right to write one version of one chunk; given back on drop.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
    key: ReplicaKey,
}

impl Claim {
    pub(super) fn take(shared: &Arc<Shared>, key: ReplicaKey) -> Result<Self, StoreError> {
        let (chunk, version) = key;
        if !shared.claims().insert(key) {
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

    /// Exchanges the claim for one on another version of the same chunk.
    pub(super) fn relabel(&mut self, version: ChunkVersion) -> Result<(), StoreError> {
        *self = Self::take(&self.shared, (self.key.0, version))?;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.claims().remove(&self.key);
    }
}
