//! Replicas with files of their own that stay open between reads: the next read asks the disk for no file, header or
//! block table. The index holds them, so that none outlives its replica.

use std::collections::HashMap;
use std::sync::Arc;

use super::ChunkRead;
use super::index::ReplicaKey;

/// Each costs a file handle, and 4 bytes of memory for each block.
pub(super) const MOST_KEPT: usize = 128;

/// Open replicas, at most [`MOST_KEPT`]: those that were read last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    open: HashMap<ReplicaKey, (u64, Arc<dyn ChunkRead>)>,
    uses: u64,
}

impl Kept {
    pub(super) fn get(&mut self, key: ReplicaKey) -> Option<Arc<dyn ChunkRead>> {
        let (used, reader) = self.open.get_mut(&key)?;
        self.uses += 1;
        *used = self.uses;
        Some(Arc::clone(reader))
    }

    /// Keeps one. Returns the one that it takes the place of: closing it may take time.
    pub(super) fn put(
        &mut self,
        key: ReplicaKey,
        reader: Arc<dyn ChunkRead>,
    ) -> Option<Arc<dyn ChunkRead>> {
        let is_new = !self.open.contains_key(&key);
        let least = || self.open.iter().min_by_key(|(_, (used, _))| *used);
        let gives_way = if is_new && self.open.len() >= MOST_KEPT {
            least().map(|(key, _)| *key)
        } else {
            None
        };
        let gone = gives_way.and_then(|key| self.take(key));
        self.uses += 1;
        let before = self.open.insert(key, (self.uses, reader));
        gone.or(before.map(|(_, reader)| reader))
    }

    pub(super) fn take(&mut self, key: ReplicaKey) -> Option<Arc<dyn ChunkRead>> {
        self.open.remove(&key).map(|(_, reader)| reader)
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }
}
