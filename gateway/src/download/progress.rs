//! How far a chunk was read, from whichever replicas.

use std::ops::Range;

use bytes::Bytes;
use dfs_client::blocks::Block;
use dfs_protocol::checksum::RunningCrc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, SealedChunk};

/// How far a chunk was read.
pub(super) struct Progress {
    pub(super) chunk: SealedChunk,
    pub(super) next: u64,
    pub(super) end: u64,
    /// CRC32C of the blocks so far, while all were read from the first on: the catalog's checksum
    /// then tells a replica that is consistent in itself, and wrong.
    whole: Option<RunningCrc32c>,
}

impl Progress {
    pub(super) fn new(chunk: &SealedChunk, part: Range<u64>) -> Self {
        Self {
            chunk: *chunk,
            next: part.start,
            end: part.end,
            whole: (part == (0..chunk.length)).then(RunningCrc32c::default),
        }
    }

    /// Where the next block begins. Whoever goes on reads from here, also beside another replica.
    pub(super) fn rest(&self) -> Range<u64> {
        self.next..self.end
    }

    /// Whether the part was read.
    pub(super) fn is_whole(&self) -> bool {
        self.next >= self.end
    }

    /// The wanted bytes of a block; `None` when it is not the next one, or when the whole chunk turns
    /// out to be another one.
    pub(super) fn accept(&mut self, block: &Block) -> Option<Bytes> {
        let block_end = block.offset + block.data.len() as u64;
        if !(block.offset..block_end).contains(&self.next) {
            return None;
        }
        if let Some(whole) = &mut self.whole {
            let mut with = *whole;
            with.push(block.crc32c, block.data.len() as u64);
            let is_last = with.length() == self.chunk.length;
            if is_last && with.value() != self.chunk.crc32c {
                return None;
            }
            *whole = with;
        }
        let from = self.next - block.offset;
        let to = self.end.min(block_end) - block.offset;
        self.next = block.offset + to;
        let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        Some(block.data.slice(cut(from)..cut(to)))
    }
}
