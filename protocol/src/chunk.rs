//! Chunks and their replicas as the roles speak of them.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, ChunkVersion, DatanodeId, FileId};

/// Bytes of one checksummed block. The last block of a chunk may be shorter.
pub const BLOCK_SIZE: usize = 64 * 1024;
/// [`BLOCK_SIZE`] where lengths are counted in u64.
pub const BLOCK_SIZE_U64: u64 = 64 * 1024;
/// Bytes of a full chunk unless the cluster says otherwise.
pub const DEFAULT_CHUNK_SIZE: u64 = 64 * 1024 * 1024;
/// No chunk is larger than this, whatever the configuration says.
pub const MAX_CHUNK_SIZE: u64 = 1024 * 1024 * 1024;

/// What a chunk's bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChunkKind {
    /// Part of a file.
    Data,
    /// A checkpoint of the tracker's catalog: found by scanning, never named by a file.
    Checkpoint,
}

/// A sealed chunk as the catalog knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedChunk {
    /// Which chunk.
    pub id: ChunkId,
    /// The version that readers must find.
    pub version: ChunkVersion,
    /// Bytes.
    pub length: u64,
    /// CRC32C of all bytes.
    pub crc32c: u32,
}

/// Where a chunk belongs: written into every replica's header, so that a chunk explains itself
/// when the catalog is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkOrigin {
    /// What the bytes are for.
    pub kind: ChunkKind,
    /// The file that was written.
    pub file: FileId,
    /// Position among the file's chunks, from 0.
    pub index: u32,
    /// The path at the time of writing: a hint, since moves and copies do not touch chunks.
    pub path_hint: String,
}

/// One replica in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Which chunk, in which version, with which bytes.
    pub chunk: SealedChunk,
    /// What the bytes are for.
    pub kind: ChunkKind,
}

/// A datanode and where to reach it now. The id is checked by the datanode; the address is a hint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatanodeAddress {
    /// Identity.
    pub id: DatanodeId,
    /// `host:port` of its API.
    pub address: String,
}

/// Order-independent digest of a set of replicas: equal digests mean that the tracker's picture of
/// a datanode is current, so that full reports travel only when they must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDigest {
    /// Replicas in the set.
    pub count: u64,
    /// Wrapping sum of each replica's mixed id, version, length and checksum.
    pub sum: u64,
}

impl SetDigest {
    /// Adds one replica.
    pub fn insert(&mut self, chunk: &SealedChunk) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(mix(chunk));
    }

    /// Takes one replica out that was inserted before.
    pub fn remove(&mut self, chunk: &SealedChunk) {
        self.count = self.count.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(mix(chunk));
    }

    /// The digest of a whole set.
    pub fn of<'a>(chunks: impl IntoIterator<Item = &'a SealedChunk>) -> Self {
        let mut digest = Self::default();
        for chunk in chunks {
            digest.insert(chunk);
        }
        digest
    }
}

// splitmix64's finaliser over the folded identity: replicas that differ in one bit differ widely.
#[allow(clippy::cast_possible_truncation)]
fn mix(chunk: &SealedChunk) -> u64 {
    let id = chunk.id.as_u128();
    let mut z = (id as u64) ^ ((id >> 64) as u64).rotate_left(29);
    for part in [
        u64::from(chunk.version.0),
        chunk.length,
        u64::from(chunk.crc32c),
    ] {
        z = z.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(id: u128, version: u32) -> SealedChunk {
        SealedChunk {
            id: ChunkId::from_u128(id),
            version: ChunkVersion(version),
            length: 5,
            crc32c: 7,
        }
    }

    #[test]
    fn a_digest_ignores_order_and_sees_versions() {
        let (a, b) = (chunk(1, 1), chunk(2, 1));
        assert_eq!(SetDigest::of([&a, &b]), SetDigest::of([&b, &a]));
        assert_ne!(SetDigest::of([&a]), SetDigest::of([&chunk(1, 2)]));
        let mut digest = SetDigest::of([&a, &b]);
        digest.remove(&b);
        assert_eq!(digest, SetDigest::of([&a]));
    }
}
