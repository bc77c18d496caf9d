//! Copies under way: how many and how much, in all and for each datanode, and whether there is room
//! for one more.
//!
//! Orders are planned on ticks and travel with heartbeats, so that a datanode gets about one batch of
//! them in a tick. Four copies fill that time when chunks are large; small chunks are done at once and
//! the rest of the tick is idle. So more of them may be under way than of large ones.

use std::collections::BTreeMap;
use std::ops::Add;

use dfs_protocol::DatanodeId;

use super::tasks::CopyTask;

/// How much copying goes on somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyLoad {
    /// How many copies.
    pub copies: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl CopyLoad {
    /// Most small copies in the place of one: four times as many fill a tick of a quarter of a second with chunks of
    /// 64 KiB. With 16 the loss of one of four datanodes took 2.3 times as long (`docs/performance.md`, W7).
    pub const SMALL_FOR_ONE: u32 = 64;

    /// Whether one more copy may begin where `most` may go on at a time: so many of any size, and up
    /// to [`Self::SMALL_FOR_ONE`] times as many as long as all together have fewer than `most` times `each` bytes.
    pub fn has_room(self, most: u32, each: u64) -> bool {
        let Self { copies, bytes } = self;
        copies < most
            || copies < most.saturating_mul(Self::SMALL_FOR_ONE)
                && bytes < u64::from(most).saturating_mul(each)
    }

    fn begin(&mut self, more: u64) {
        self.copies += 1;
        self.bytes = self.bytes.saturating_add(more);
    }

    fn end(&mut self, less: u64) {
        self.copies = self.copies.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(less);
    }
}

impl Add for CopyLoad {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            copies: self.copies.saturating_add(other.copies),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The load in all, of those who send and of those who receive.
#[derive(Debug, Clone, Default)]
pub struct CopyLoads {
    all: CopyLoad,
    from: BTreeMap<DatanodeId, CopyLoad>,
    to: BTreeMap<DatanodeId, CopyLoad>,
}

impl CopyLoads {
    /// All copies.
    pub fn all(&self) -> CopyLoad {
        self.all
    }

    /// Those that the datanode sends.
    pub fn from(&self, datanode: DatanodeId) -> CopyLoad {
        self.from.get(&datanode).copied().unwrap_or_default()
    }

    /// Those that the datanode receives.
    pub fn to(&self, datanode: DatanodeId) -> CopyLoad {
        self.to.get(&datanode).copied().unwrap_or_default()
    }

    /// A copy is planned: its first source sends it.
    pub(super) fn begin(&mut self, copy: &CopyTask) {
        let bytes = copy.chunk.length;
        self.all.begin(bytes);
        self.to.entry(copy.target).or_default().begin(bytes);
        if let Some(source) = copy.sources.first() {
            self.from.entry(*source).or_default().begin(bytes);
        }
    }

    /// A copy that was begun is over.
    pub(super) fn end(&mut self, copy: &CopyTask) {
        let bytes = copy.chunk.length;
        self.all.end(bytes);
        end(&mut self.to, copy.target, bytes);
        if let Some(source) = copy.sources.first() {
            end(&mut self.from, *source, bytes);
        }
    }
}

fn end(loads: &mut BTreeMap<DatanodeId, CopyLoad>, datanode: DatanodeId, bytes: u64) {
    if let Some(load) = loads.get_mut(&datanode) {
        load.end(bytes);
        if load.copies == 0 {
            loads.remove(&datanode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_small_copies_than_large_ones_go_on_at_a_time() {
        const MIB: u64 = 1 << 20;
        for (copies, bytes, room) in [
            (0, 0, true),
            (3, 3 * 64 * MIB, true),
            (4, 4 * 64 * MIB, false),
            (4, 4 * 16 * MIB, false),
            (4, 4 * 16 * MIB - 1, true),
            (5, 4 * MIB + 64 * MIB, false),
            (255, 255, true),
            (256, 256, false),
        ] {
            let load = CopyLoad { copies, bytes };
            assert_eq!(load.has_room(4, 16 * MIB), room, "{load:?}");
            assert_eq!(load.has_room(4, 0), copies < 4, "{load:?}");
        }
    }
}
