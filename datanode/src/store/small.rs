//! Small packed chunks, each read whole with one call that does not wait for the disk: the common read
//! needs no other thread. Whatever is not as it should be is left to [`super::reader`], which says what.

use std::sync::Arc;

use bytes::Bytes;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, SealedChunk};

use super::Block;
use super::files::Shared;
use super::packs::format::{Entry, EntryKind};
use super::packs::{AtHand, Place};
use super::record::{RecordHeader, decode_footer, footer_length};

/// Entries over this are not read on the thread of a request: two blocks, header and footer.
const MOST_BYTES: u64 = 2 * BLOCK_SIZE_U64 + 4096;

/// A whole chunk, verified.
#[derive(Debug)]
pub struct SmallChunk {
    /// What the replica says of itself.
    pub header: RecordHeader,
    /// All of its blocks.
    pub blocks: Vec<Block>,
}

/// The chunk, if it is packed, small, in memory and undamaged.
pub(super) fn read_now(shared: &Arc<Shared>, chunk: &SealedChunk) -> Option<SmallChunk> {
    let AtHand { place, file, salt } = shared.packs.at_hand((chunk.id, chunk.version))?;
    if place.length > MOST_BYTES {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(place.length).ok()?];
    file.read_exact_now_at(&mut bytes, place.offset).ok()?;
    let (entry, _) = Entry::decode(&bytes, place.pack, place.offset, salt)?;
    if entry.kind != EntryKind::Chunk || entry.header.chunk != *chunk {
        return None;
    }
    Some(SmallChunk {
        blocks: verified(chunk, place, &bytes.into())?,
        header: entry.header,
    })
}

/// The blocks of an entry, if all of them match the footer, and the footer is the chunk's.
fn verified(chunk: &SealedChunk, place: Place, entry: &Bytes) -> Option<Vec<Block>> {
    let from = usize::try_from(place.header).ok()?;
    let to = from.checked_add(usize::try_from(chunk.length).ok()?)?;
    let end = to.checked_add(usize::try_from(footer_length(chunk.length)).ok()?)?;
    let table = decode_footer(chunk.id, chunk.version, entry.get(to..end)?)?;
    let starts = (from..to).step_by(BLOCK_SIZE);
    let mut blocks = Vec::with_capacity(table.len());
    for (start, stored) in starts.zip(table) {
        let data = entry.slice(start..to.min(start + BLOCK_SIZE));
        if crc32c(&data) != stored {
            return None;
        }
        blocks.push(Block {
            offset: (start - from) as u64,
            data,
            crc32c: stored,
        });
    }
    Some(blocks)
}
