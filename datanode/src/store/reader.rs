//! One sealed replica, open for reading. Nothing leaves it that was not verified (I4).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use dfs_protocol::checksum::{RunningCrc32c, crc32c};
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, SealedChunk};
use dfs_protocol::datanode::Damage;
use dfs_runtime::disk::{DiskFile, OpenMode};

use super::error::{StoreError, is_passing};
use super::files::Shared;
use super::layout::chunk_path;
use super::packs::Place;
use super::packs::format::{Entry, EntryKind};
use super::record::{
    HEADER_LEN, HEADER_LEN_U64, RecordHeader, RecordState, block_count, decode_footer,
    footer_length, record_length,
};
use super::{Block, ChunkRead};

/// An open record of [`super::FileChunkStore`].
#[derive(Debug)]
pub struct RecordReader {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    header: RecordHeader,
    /// Where the data begins in the file.
    data: u64,
    /// Where a packed one lay when it was opened.
    place: Option<Place>,
    blocks: Vec<u32>,
    /// As the index was when it was opened ([`super::index::ReplicaIndex::taken`]).
    taken: u64,
}

/// Why a record cannot be opened or read.
enum Fault {
    Damage(Damage),
    /// About this process, not about the bytes.
    Passing(io::Error),
}

impl RecordReader {
    /// Opens and verifies header, length and block table. Damage sets the replica aside.
    pub(super) fn open(shared: &Arc<Shared>, chunk: &SealedChunk) -> Result<Self, StoreError> {
        let mut place = shared.packs.place((chunk.id, chunk.version));
        loop {
            let opened = match place {
                Some(place) => Self::try_open_packed(shared, chunk, place),
                None => Self::try_open(shared, chunk),
            };
            let now = shared.packs.place((chunk.id, chunk.version));
            match opened {
                // Moved by compaction between the look and the open.
                Err(Fault::Damage(_)) if now.is_some() && now != place => place = now,
                opened => return opened.map_err(|fault| raise(shared, chunk, place, fault)),
            }
        }
    }

    fn try_open_packed(
        shared: &Arc<Shared>,
        chunk: &SealedChunk,
        place: Place,
    ) -> Result<Self, Fault> {
        let (file, salt) = shared
            .packs
            .file(place.pack)
            .map_err(|e| classify(e, Damage::Missing))?;
        let mut bytes = vec![0; usize::try_from(place.header).unwrap_or(HEADER_LEN)];
        file.read_exact_at(&mut bytes, place.offset)
            .map_err(|e| classify(e, Damage::ReadError))?;
        let entry = Entry::decode(&bytes, place.pack, place.offset, salt);
        let (entry, _) = entry.ok_or(Fault::Damage(Damage::Header))?;
        if entry.kind != EntryKind::Chunk || entry.header.chunk != *chunk {
            return Err(Fault::Damage(Damage::Header));
        }
        let data = place.offset + place.header;
        let blocks = read_footer(file.as_ref(), chunk, data)?;
        Ok(Self {
            shared: Arc::clone(shared),
            file,
            header: entry.header,
            data,
            place: Some(place),
            blocks,
            taken: shared.index.taken(),
        })
    }

    fn try_open(shared: &Arc<Shared>, chunk: &SealedChunk) -> Result<Self, Fault> {
        let taken = shared.index.taken();
        let path = chunk_path(&shared.root, chunk.id, chunk.version);
        let file = shared
            .disk
            .open(&path, OpenMode::Read)
            .map_err(|e| classify(e, Damage::Missing))?;
        let mut bytes = vec![0; HEADER_LEN];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|e| classify(e, Damage::ReadError))?;
        let header = RecordHeader::decode(&bytes).map_err(|_| Fault::Damage(Damage::Header))?;
        if (header.chunk.id, header.chunk.version) != (chunk.id, chunk.version) {
            return Err(Fault::Damage(Damage::Misplaced));
        }
        if header.state != RecordState::Sealed || header.chunk != *chunk {
            return Err(Fault::Damage(Damage::Header));
        }
        let length = file.length().map_err(|e| classify(e, Damage::ReadError))?;
        if length != record_length(chunk.length) {
            return Err(Fault::Damage(Damage::Length));
        }
        let blocks = read_footer(file.as_ref(), chunk, HEADER_LEN_U64)?;
        Ok(Self {
            shared: Arc::clone(shared),
            file,
            header,
            data: HEADER_LEN_U64,
            place: None,
            blocks,
            taken,
        })
    }

    /// Where blocks begin and end in the data.
    fn place_of(&self, blocks: Range<u64>) -> (u64, u64) {
        let length = self.header.chunk.length;
        let at = |block: u64| block.saturating_mul(BLOCK_SIZE_U64).min(length);
        (at(blocks.start), at(blocks.end))
    }

    /// The same blocks out of the file that has the replica's name now, where it may be another one: a repair puts it
    /// there once this one was set aside.
    fn blocks_anew(&self, first: u64, count: u64) -> Option<Vec<Block>> {
        if self.is_packed() || self.shared.index.taken() == self.taken {
            return None;
        }
        let anew = Self::try_open(&self.shared, &self.header.chunk).ok()?;
        anew.try_blocks(first, count).ok()
    }

    fn try_blocks(&self, first: u64, count: u64) -> Result<Vec<Block>, Fault> {
        let (start, end) = self.place_of(first..first.saturating_add(count));
        let wanted = usize::try_from(end - start).unwrap_or(usize::MAX);
        let mut data = self.shared.buffers.take(wanted);
        self.file
            .read_exact_at(&mut data, self.data + start)
            .map_err(|e| classify(e, Damage::ReadError))?;
        let mut data = data.freeze();
        let mut blocks = Vec::new();
        let mut offset = start;
        while !data.is_empty() {
            let block = data.split_to(data.len().min(BLOCK_SIZE));
            let index = usize::try_from(offset / BLOCK_SIZE_U64).unwrap_or(usize::MAX);
            let stored = self.blocks.get(index).copied();
            if stored != Some(crc32c(&block)) {
                return Err(Fault::Damage(Damage::Block));
            }
            let next = offset + block.len() as u64;
            blocks.push(Block {
                offset,
                crc32c: stored.unwrap_or_default(),
                data: block,
            });
            offset = next;
        }
        Ok(blocks)
    }
}

impl ChunkRead for RecordReader {
    fn header(&self) -> &RecordHeader {
        &self.header
    }

    fn blocks(&self, first: u64, count: u64) -> Result<Vec<Block>, StoreError> {
        let fault = match self.try_blocks(first, count) {
            Ok(blocks) => return Ok(blocks),
            Err(fault) => fault,
        };
        let anew = match fault {
            Fault::Damage(_) => self.blocks_anew(first, count),
            Fault::Passing(_) => None,
        };
        anew.ok_or_else(|| raise(&self.shared, &self.header.chunk, self.place, fault))
    }

    fn read_ahead(&self, blocks: Range<u64>) {
        let (start, end) = self.place_of(blocks);
        let length = end.saturating_sub(start);
        self.file.read_ahead(self.data + start, length);
    }

    fn checksums(&self, blocks: Range<u64>) -> Vec<u8> {
        let at = |block: u64| usize::try_from(block).unwrap_or(usize::MAX);
        let told = self.blocks.get(at(blocks.start)..at(blocks.end));
        told.unwrap_or_default()
            .iter()
            .flat_map(|crc| crc.to_le_bytes())
            .collect()
    }

    fn in_memory(&self, blocks: Range<u64>) -> Option<(&dyn DiskFile, Range<u64>)> {
        // What is packed may be moved under the read, and is small.
        if self.is_packed() {
            return None;
        }
        let (start, end) = self.place_of(blocks);
        let place = self.data + start..self.data + end;
        let is_here = self
            .file
            .is_in_memory(place.start, end.saturating_sub(start));
        is_here.then(|| (self.file.as_ref(), place))
    }

    fn is_packed(&self) -> bool {
        self.place.is_some()
    }

    fn whole_matches(&self) -> bool {
        let length = self.header.chunk.length;
        let mut whole = RunningCrc32c::default();
        for (index, crc) in (0u64..).zip(&self.blocks) {
            whole.push(*crc, (length - index * BLOCK_SIZE_U64).min(BLOCK_SIZE_U64));
        }
        block_count(length) == self.blocks.len() as u64 && whole.value() == self.header.chunk.crc32c
    }
}

/// The block table behind data that begins at `data`.
fn read_footer(file: &dyn DiskFile, chunk: &SealedChunk, data: u64) -> Result<Vec<u32>, Fault> {
    let length = usize::try_from(footer_length(chunk.length)).unwrap_or(usize::MAX);
    let mut footer = vec![0; length];
    file.read_exact_at(&mut footer, data + chunk.length)
        .map_err(|e| classify(e, Damage::ReadError))?;
    decode_footer(chunk.id, chunk.version, &footer).ok_or(Fault::Damage(Damage::Footer))
}

fn classify(error: io::Error, otherwise: Damage) -> Fault {
    if is_passing(&error) {
        return Fault::Passing(error);
    }
    Fault::Damage(match error.kind() {
        io::ErrorKind::NotFound => Damage::Missing,
        io::ErrorKind::UnexpectedEof => Damage::Length,
        _ if otherwise == Damage::Missing => Damage::ReadError,
        _ => otherwise,
    })
}

fn raise(
    shared: &Arc<Shared>,
    chunk: &SealedChunk,
    place: Option<Place>,
    fault: Fault,
) -> StoreError {
    match fault {
        // The bytes that were read are not the replica's any more: it was moved, and verified then.
        Fault::Damage(_) if shared.packs.place((chunk.id, chunk.version)) != place => {
            StoreError::Disk {
                doing: "reading a chunk that is being moved",
                source: io::ErrorKind::Interrupted.into(),
            }
        }
        Fault::Passing(source) => StoreError::Disk {
            doing: "opening a chunk for reading",
            source,
        },
        Fault::Damage(damage) => {
            shared.set_aside(chunk.id, chunk.version, damage);
            StoreError::Corrupt {
                chunk: chunk.id,
                version: chunk.version,
                damage,
            }
        }
    }
}
