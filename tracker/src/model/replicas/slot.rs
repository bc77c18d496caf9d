//! One chunk in 48 bytes.

use dfs_protocol::chunk::{ChunkKind, SealedChunk};
use dfs_protocol::status::{ChunkHealth, RepairPriority, Shortage};
use dfs_protocol::{ChunkId, ChunkVersion};

use super::super::health::Assessment;

/// What the planner should look at a chunk for, besides irregular replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Repair(RepairPriority),
    Excess,
}

/// One chunk. Chunks are at most 1 GiB, so lengths fit u32.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) id: ChunkId,
    pub(super) nodes: NodeList,
    pub(super) version: ChunkVersion,
    length: u32,
    crc32c: u32,
    factor: u8,
    /// Copies that are missing and possible.
    pub(super) deficit: u8,
    health: u8,
    flags: u8,
}

const OCCUPIED: u8 = 1;
const CHECKPOINT: u8 = 2;
/// The side maps hold something about this chunk.
const ODD: u8 = 4;
/// Some good replica is known, live or not.
const SEEN: u8 = 8;
/// Its factor rose while it had too few, and it had never enough since.
const RAISED: u8 = 16;
/// A holder was taken away while it had too few without it, and it had never enough since.
const REMOVED: u8 = 32;
/// Too few replicas count, and too few can be read.
const SHORT: u8 = 64;
/// Too few replicas count, but enough can be read.
const LEAVING: u8 = 128;

/// What made a chunk fall short, where its replicas do not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Raised,
    Removed,
}

impl Slot {
    pub(super) fn new(chunk: &SealedChunk, factor: u32, kind: ChunkKind) -> Self {
        let mut slot = Self {
            id: chunk.id,
            nodes: NodeList::default(),
            version: chunk.version,
            length: 0,
            crc32c: 0,
            factor: 0,
            deficit: 0,
            health: 0,
            flags: OCCUPIED,
        };
        slot.expect(chunk, factor, kind);
        slot
    }

    /// Takes over what the catalog says.
    pub(super) fn expect(&mut self, chunk: &SealedChunk, factor: u32, kind: ChunkKind) {
        self.version = chunk.version;
        self.length = u32::try_from(chunk.length).unwrap_or(u32::MAX);
        self.crc32c = chunk.crc32c;
        self.factor = u8::try_from(factor).unwrap_or(u8::MAX);
        self.set_flag(CHECKPOINT, kind == ChunkKind::Checkpoint);
    }

    pub(super) fn expected(&self) -> SealedChunk {
        SealedChunk {
            id: self.id,
            version: self.version,
            length: u64::from(self.length),
            crc32c: self.crc32c,
        }
    }

    pub(super) fn factor(&self) -> u32 {
        u32::from(self.factor)
    }

    pub(super) fn length(&self) -> u64 {
        u64::from(self.length)
    }

    pub(super) fn kind(&self) -> ChunkKind {
        if self.flags & CHECKPOINT == 0 {
            ChunkKind::Data
        } else {
            ChunkKind::Checkpoint
        }
    }

    pub(super) fn occupied(&self) -> bool {
        self.flags & OCCUPIED != 0
    }

    pub(super) fn vacate(&mut self) {
        self.flags = 0;
        self.nodes = NodeList::default();
    }

    pub(super) fn odd(&self) -> bool {
        self.flags & ODD != 0
    }

    pub(super) fn set_odd(&mut self, odd: bool) {
        self.set_flag(ODD, odd);
    }

    pub(super) fn seen(&self) -> bool {
        self.flags & SEEN != 0
    }

    pub(super) fn set_seen(&mut self, seen: bool) {
        self.set_flag(SEEN, seen);
    }

    /// Remembers what made the chunk fall short.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.flags |= match mark {
            Mark::Raised => RAISED,
            Mark::Removed => REMOVED,
        };
    }

    /// Takes over how many replicas count and can be read; what made it fall short is forgotten
    /// once enough count.
    pub(super) fn set_enough(&mut self, found: &Assessment) {
        let factor = self.factor();
        let few = found.counted < factor;
        self.set_flag(LEAVING, few && found.readable >= factor);
        self.set_flag(SHORT, few && found.readable < factor);
        if !few {
            self.flags &= !(RAISED | REMOVED);
        }
    }

    /// Why too few replicas count.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        if self.flags & LEAVING != 0 {
            return Some(Shortage::Leaving);
        }
        (self.flags & SHORT != 0).then_some(if self.flags & REMOVED != 0 {
            Shortage::Removal
        } else if self.flags & RAISED != 0 {
            Shortage::Raising
        } else {
            Shortage::Absence
        })
    }

    pub(super) fn health(&self) -> ChunkHealth {
        let at = usize::from(self.health & 7);
        ChunkHealth::ALL
            .get(at)
            .copied()
            .unwrap_or(ChunkHealth::Missing)
    }

    pub(super) fn need(&self) -> Need {
        match usize::from(self.health >> 3) {
            0 => Need::Nothing,
            6 => Need::Excess,
            at => RepairPriority::ALL
                .get(at - 1)
                .map_or(Need::Nothing, |p| Need::Repair(*p)),
        }
    }

    pub(super) fn set_health(&mut self, health: ChunkHealth, need: Need) {
        let need = match need {
            Need::Nothing => 0,
            Need::Repair(priority) => 1 + priority as u8,
            Need::Excess => 6,
        };
        self.health = health as u8 | (need << 3);
    }

    fn set_flag(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}

/// Interned datanodes that hold a chunk: up to six without an allocation.
#[derive(Debug, Clone)]
pub(super) enum NodeList {
    Inline(u8, [u16; INLINE]),
    // The box keeps the whole enum at 16 bytes; a bare Vec would make it 24.
    #[allow(clippy::box_collection)]
    Heap(Box<Vec<u16>>),
}

const INLINE: usize = 6;

impl Default for NodeList {
    fn default() -> Self {
        Self::Inline(0, [0; INLINE])
    }
}

impl NodeList {
    pub(super) fn as_slice(&self) -> &[u16] {
        match self {
            Self::Inline(len, nodes) => &nodes[..usize::from(*len)],
            Self::Heap(nodes) => nodes,
        }
    }

    /// Adds a node that is not in it.
    pub(super) fn push(&mut self, node: u16) {
        match self {
            Self::Inline(len, nodes) if usize::from(*len) < INLINE => {
                nodes[usize::from(*len)] = node;
                *len += 1;
            }
            Self::Inline(_, nodes) => {
                let mut all = nodes.to_vec();
                all.push(node);
                *self = Self::Heap(Box::new(all));
            }
            Self::Heap(nodes) => nodes.push(node),
        }
    }

    pub(super) fn remove(&mut self, node: u16) {
        match self {
            Self::Inline(len, nodes) => {
                let used = usize::from(*len);
                if let Some(at) = nodes[..used].iter().position(|n| *n == node) {
                    nodes.copy_within(at + 1..used, at);
                    *len -= 1;
                }
            }
            Self::Heap(nodes) => nodes.retain(|n| *n != node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_48_bytes() {
        assert_eq!(size_of::<Slot>(), 48);
    }

    #[test]
    fn a_node_list_outgrows_its_inline_room_and_loses_members_anywhere() {
        let mut list = NodeList::default();
        for node in 0..9 {
            list.push(node);
        }
        list.remove(0);
        list.remove(8);
        assert_eq!(list.as_slice(), [1, 2, 3, 4, 5, 6, 7]);
        let mut short = NodeList::default();
        for node in 0..3 {
            short.push(node);
        }
        short.remove(1);
        short.remove(7);
        assert_eq!(short.as_slice(), [0, 2]);
    }
}
