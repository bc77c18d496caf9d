//! One sealed replica, open for reading. Nothing leaves it that was not verified (I4).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dfs_protocol::checksum::{RunningCrc32c, crc32c};
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, SealedChunk};
use dfs_protocol::datanode::Damage;
use dfs_runtime::disk::{DiskFile, OpenMode};

use super::error::{StoreError, is_passing};
use super::files::Shared;
use super::layout::chunk_path;
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
    blocks: Vec<u32>,
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
        Self::try_open(shared, chunk).map_err(|fault| raise(shared, chunk, fault))
    }

    fn try_open(shared: &Arc<Shared>, chunk: &SealedChunk) -> Result<Self, Fault> {
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
        let footer_len = usize::try_from(footer_length(chunk.length)).unwrap_or(usize::MAX);
        let mut footer = vec![0; footer_len];
        file.read_exact_at(&mut footer, HEADER_LEN_U64 + chunk.length)
            .map_err(|e| classify(e, Damage::ReadError))?;
        let blocks =
            decode_footer(chunk.id, chunk.version, &footer).ok_or(Fault::Damage(Damage::Footer))?;
        Ok(Self {
            shared: Arc::clone(shared),
            file,
            header,
            blocks,
        })
    }

    fn try_blocks(&self, first: u64, count: u64) -> Result<Vec<Block>, Fault> {
        let length = self.header.chunk.length;
        let start = first.saturating_mul(BLOCK_SIZE_U64).min(length);
        let end = first
            .saturating_add(count)
            .saturating_mul(BLOCK_SIZE_U64)
            .min(length);
        let mut data = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut data, HEADER_LEN_U64 + start)
            .map_err(|e| classify(e, Damage::ReadError))?;
        let mut data = Bytes::from(data);
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
        self.try_blocks(first, count)
            .map_err(|fault| raise(&self.shared, &self.header.chunk, fault))
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

fn raise(shared: &Arc<Shared>, chunk: &SealedChunk, fault: Fault) -> StoreError {
    match fault {
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
