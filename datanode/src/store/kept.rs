//! Replicas with files of their own that stay open between reads: the next read asks the disk for no file, header or
//! block table. The index holds them, so that none outlives its replica. None is read from for long: damage of a header or a
//! table, or a file that is gone, shows when it is opened anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::ChunkRead;
use super::index::{MonotonicSeconds, ReplicaKey};

/// Each costs a file handle, and 4 bytes of memory for each block.
pub(super) const MOST_KEPT: usize = 128;
/// Seconds after which it is opened anew.
pub(super) const KEPT_SECONDS: MonotonicSeconds = 5;

/// Open replicas, at most [`MOST_KEPT`]: those that were read last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    open: HashMap<ReplicaKey, One>,
    uses: u64,
}

#[derive(Debug)]
struct One {
    reader: Arc<dyn ChunkRead>,
    opened: MonotonicSeconds,
    /// The greatest was read last.
    used: u64,
}

impl Kept {
    pub(super) fn get(
        &mut self,
        key: ReplicaKey,
        now: MonotonicSeconds,
    ) -> Option<Arc<dyn ChunkRead>> {
        let one = self.open.get_mut(&key)?;
        if now - one.opened >= KEPT_SECONDS {
            return None;
        }
        self.uses += 1;
        one.used = self.uses;
        Some(Arc::clone(&one.reader))
    }

    /// Keeps one that was opened just now. Returns the one that it takes the place of: closing it may take time.
    pub(super) fn put(
        &mut self,
        key: ReplicaKey,
        reader: Arc<dyn ChunkRead>,
        now: MonotonicSeconds,
    ) -> Option<Arc<dyn ChunkRead>> {
        let is_new = !self.open.contains_key(&key);
        let least = || self.open.iter().min_by_key(|(_, one)| one.used);
        let gives_way = if is_new && self.open.len() >= MOST_KEPT {
            least().map(|(key, _)| *key)
        } else {
            None
        };
        let gone = gives_way.and_then(|key| self.take(key));
        self.uses += 1;
        let one = One {
            reader,
            opened: now,
            used: self.uses,
        };
        let before = self.open.insert(key, one);
        gone.or(before.map(|one| one.reader))
    }

    pub(super) fn take(&mut self, key: ReplicaKey) -> Option<Arc<dyn ChunkRead>> {
        self.open.remove(&key).map(|one| one.reader)
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }
}
