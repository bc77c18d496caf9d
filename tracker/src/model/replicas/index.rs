//! From chunk id to slot, at five bytes a bucket: a slot holds its id already, so that the table keeps
//! numbers of slots only and asks the slots who they are.

use dfs_protocol::ChunkId;
use hashbrown::HashTable;

use super::slot::Slot;

/// Numbers of the occupied slots by the ids of their chunks.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    table: HashTable<u32>,
}

impl Index {
    /// The slot of a chunk.
    pub(super) fn find(&self, slots: &[Slot], chunk: ChunkId) -> Option<u32> {
        let is_it = |at: &u32| slots[*at as usize].id == chunk;
        self.table.find(fold(chunk), is_it).copied()
    }

    /// Enters a slot whose chunk has none.
    pub(super) fn insert(&mut self, slots: &[Slot], at: u32) {
        let of = |at: &u32| fold(slots[*at as usize].id);
        self.table.insert_unique(of(&at), at, of);
    }

    /// Takes the slot of a chunk out.
    pub(super) fn remove(&mut self, slots: &[Slot], chunk: ChunkId) -> Option<u32> {
        let is_it = |at: &u32| slots[*at as usize].id == chunk;
        let found = self.table.find_entry(fold(chunk), is_it).ok()?;
        Some(found.remove().0)
    }
}

/// Chunk ids are random already: folding them is hashing enough, and keeps runs repeatable.
// Cutting the id into words is the point.
#[allow(clippy::cast_possible_truncation)]
fn fold(chunk: ChunkId) -> u64 {
    let bits = chunk.as_u128();
    let step = |hash: u64, word: u64| {
        let mixed = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    };
    step(step(0, bits as u64), (bits >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dfs_protocol::ChunkVersion;
    use dfs_protocol::chunk::{ChunkKind, SealedChunk};
    use proptest::prelude::*;

    use super::*;

    fn slot(id: ChunkId) -> Slot {
        let chunk = SealedChunk {
            id,
            version: ChunkVersion(1),
            length: 1,
            crc32c: 1,
        };
        Slot::new(&chunk, 3, ChunkKind::Data)
    }

    proptest! {
        /// Ids in runs, so that buckets collide as random ones would not.
        #[test]
        fn every_chunk_is_found_in_its_slot_and_no_other_after_any_history(
            steps in prop::collection::vec((0u128..200, any::<bool>()), 0..600)
        ) {
            let (mut index, mut slots) = (Index::default(), Vec::new());
            let mut plain: BTreeMap<ChunkId, u32> = BTreeMap::new();
            for (n, keeps) in steps {
                let id = ChunkId::from_u128(n << 64);
                if keeps && !plain.contains_key(&id) {
                    let at = u32::try_from(slots.len()).unwrap();
                    slots.push(slot(id));
                    index.insert(&slots, at);
                    plain.insert(id, at);
                } else if !keeps {
                    prop_assert_eq!(index.remove(&slots, id), plain.remove(&id));
                }
            }
            for n in 0..200 {
                let id = ChunkId::from_u128(n << 64);
                prop_assert_eq!(index.find(&slots, id), plain.get(&id).copied());
            }
        }
    }
}
