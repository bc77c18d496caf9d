//! Chunks on disk. [`ChunkStore`] is what the rest of the datanode sees; behind it small chunks lie in
//! packs, each other one in a file of its own. Everything here blocks: call it on a blocking thread.

pub mod aside;
pub mod attempt;
mod buffers;
pub mod claim;
pub mod error;
pub mod files;
pub mod group;
pub mod index;
mod kept;
pub mod layout;
pub mod packs;
mod put;
pub mod reader;
pub mod record;
pub mod refusal;
pub mod scan;
pub mod small;
pub mod space;
mod steps;
pub mod volume;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dfs_protocol::chunk::{ChunkKind, ChunkOrigin, Replica, SealedChunk};
use dfs_protocol::datanode::{Damage, WriteMode};
use dfs_protocol::frame::Resume;
use dfs_protocol::{ChunkId, ChunkVersion, ClusterId};
use dfs_runtime::disk::DiskFile;

pub use error::{FailStop, StoreError};
pub use files::{FileChunkStore, StoreConfig, StoreSeams};
pub use index::ReplicaIndex;
pub use packs::PackLimits;
pub use record::RecordHeader;
pub use small::SmallChunk;
pub use space::{Room, SpaceLimits};
pub use volume::{Identity, Volume, VolumeError};

/// A chunk about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChunk {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Which chunk.
    pub id: ChunkId,
    /// The version of this attempt.
    pub version: ChunkVersion,
    /// Where it belongs.
    pub origin: ChunkOrigin,
    /// Bytes that it may take: room is set apart.
    pub expected: u64,
}

/// A chunk that came whole, at most one block.
#[derive(Debug, Clone)]
pub struct WholeChunk {
    /// Which chunk; `expected` is its length.
    pub new: NewChunk,
    /// Its bytes.
    pub data: Bytes,
    /// CRC32C of them, which is verified.
    pub crc32c: u32,
}

impl WholeChunk {
    /// The chunk as it is sealed.
    pub fn sealed(&self) -> SealedChunk {
        SealedChunk {
            id: self.new.id,
            version: self.new.version,
            length: self.data.len() as u64,
            crc32c: self.crc32c,
        }
    }
}

/// Sealed chunks, and those being written. All calls block but where they say otherwise.
pub trait ChunkStore: Debug + Send + Sync + 'static {
    /// Begins a chunk. Nothing of it is seen before [`StagedChunk::seal`].
    fn begin(&self, new: &NewChunk) -> Result<Box<dyn StagedChunk>, StoreError>;
    /// Whether a chunk of so many bytes goes into a pack. Does not block.
    fn packs(&self, length: u64) -> bool;
    /// Begins, fills and seals whole chunks that go into packs, with one fsync for all where one batch
    /// takes them. One answer for each, in this order.
    fn put_packed(&self, chunks: Vec<WholeChunk>) -> Vec<Result<Replica, StoreError>>;
    /// Opens a sealed replica for reading; its header and block table are verified.
    fn open(&self, id: ChunkId, version: ChunkVersion) -> Result<Arc<dyn ChunkRead>, StoreError>;
    /// As [`ChunkStore::open`], for a read that others may follow: one with a file of its own stays open for them, for some
    /// seconds: damage of its header is found when it is opened anew.
    fn open_to_keep(
        &self,
        id: ChunkId,
        version: ChunkVersion,
    ) -> Result<Arc<dyn ChunkRead>, StoreError>;
    /// One that is open already. Does not block.
    fn kept(&self, id: ChunkId, version: ChunkVersion) -> Option<Arc<dyn ChunkRead>>;
    /// A small replica, whole and verified, if it is packed and in memory: does not block. `None` also
    /// where anything is wrong with it; [`ChunkStore::open`] then says what, and acts on it.
    fn read_now(&self, id: ChunkId, version: ChunkVersion) -> Option<SmallChunk>;
    /// Removes a replica, durably. False when there is none. A replica of another kind stays.
    fn remove(
        &self,
        id: ChunkId,
        version: ChunkVersion,
        kind: ChunkKind,
    ) -> Result<bool, StoreError>;
    /// Sets a damaged replica aside: it is no longer served and the tracker is told.
    fn set_aside(&self, id: ChunkId, version: ChunkVersion, damage: Damage);
    /// Every replica of a kind with where it belongs, read from the headers.
    fn origins(&self, kind: ChunkKind) -> Result<Vec<(Replica, ChunkOrigin)>, StoreError>;
    /// Moves every replica out of sight: the datanode becomes a newcomer.
    fn retire_all(&self) -> Result<(), StoreError>;
    /// Deletes what [`ChunkStore::retire_all`] left; returns how many files.
    fn purge_retired(&self) -> Result<u64, StoreError>;
    /// One step of giving room back that removed replicas hold: the bytes that it wrote, none when
    /// there is nothing to do. For one caller at a time.
    fn compact(&self) -> Result<Option<u64>, StoreError>;
    /// The sealed replicas.
    fn index(&self) -> &ReplicaIndex;
    /// Room for chunks.
    fn room(&self) -> io::Result<Room>;
    /// Whether the disk refuses writes: a new chunk would most likely fail. A trial that is due is
    /// made by [`ChunkStore::try_disk`].
    fn refuses_writes(&self) -> bool;
    /// How chunks that are not packed are written.
    fn write_mode(&self) -> WriteMode;
    /// Makes a trial write when one is due.
    fn try_disk(&self);
    /// Files set aside in all, and files that are not ours.
    fn set_aside_count(&self) -> SetAside;
    /// Tells when the store has failed and the process must stop (I14).
    fn fail_stop(&self) -> &FailStop;
}

/// Counts of files that are kept but not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAside {
    /// In `quarantine/`.
    pub quarantined: u64,
    /// Left where they were found: not made by this program.
    pub foreign: u64,
}

/// One chunk being written. Dropping it removes what was staged.
pub trait StagedChunk: Debug + Send {
    /// Which chunk, in which version.
    fn key(&self) -> (ChunkId, ChunkVersion);
    /// Bytes taken so far.
    fn length(&self) -> u64;
    /// Takes the next block with its CRC32C, which is verified. Blocks are 64 KiB; only the last
    /// one may be shorter. It may be kept until its step is written.
    fn append(&mut self, offset: u64, block: &Bytes, crc: u32) -> Result<(), StoreError>;
    /// Cuts to a length that every survivor has and takes the new version.
    fn resume(&mut self, version: ChunkVersion, resume: &Resume) -> Result<(), StoreError>;
    /// Makes the chunk final and durable: footer, header, fsync, rename, fsync directory; or one write
    /// and one fsync of a pack, together with others.
    fn seal(self: Box<Self>, expected: &SealedChunk) -> Result<Replica, StoreError>;
}

/// One sealed replica, open for reading. Every block handed out was verified.
pub trait ChunkRead: Debug + Send + Sync {
    /// What the replica says of itself.
    fn header(&self) -> &RecordHeader;
    /// Reads blocks `first .. first + count`, cut at the chunk's end. On damage the replica is
    /// set aside and nothing is returned.
    fn blocks(&self, first: u64, count: u64) -> Result<Vec<Block>, StoreError>;
    /// Lets the disk fetch blocks that will be read soon. Does not wait for them.
    fn read_ahead(&self, blocks: Range<u64>);
    /// The checksums of blocks as a reader gets them, u32 each, little-endian.
    fn checksums(&self, blocks: Range<u64>) -> Vec<u8>;
    /// Where blocks that are in memory lie, to be sent as they are to a reader that verifies them. `None` where they must
    /// be read first; then they are verified, too.
    fn in_memory(&self, blocks: Range<u64>) -> Option<(&dyn DiskFile, Range<u64>)>;
    /// Whether it lies in a pack, where compaction moves it.
    fn is_packed(&self) -> bool;
    /// Whether the block checksums add up to the whole's.
    fn whole_matches(&self) -> bool;
}

/// One verified block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Position in the chunk; a multiple of 64 KiB.
    pub offset: u64,
    /// At most 64 KiB.
    pub data: Bytes,
    /// CRC32C of `data`.
    pub crc32c: u32,
}
