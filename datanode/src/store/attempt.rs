//! A chunk being written: a staged file that grows block by block and becomes a sealed record in
//! one durable step. A small chunk grows in memory instead, and its step is an entry of a pack.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dfs_protocol::checksum::{RunningCrc32c, crc32c};
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, MAX_CHUNK_SIZE, Replica, SealedChunk};
use dfs_protocol::frame::Resume;
use dfs_protocol::{ChunkId, ChunkVersion};
use dfs_runtime::disk::DiskFile;

use super::claim::Claim;
use super::error::StoreError;
use super::files::Shared;
use super::layout::{chunk_path, fan_out};
use super::packs::{Body, Job};
use super::put::Filled;
use super::record::{
    HEADER_LEN_U64, RecordHeader, RecordState, encode_footer, footer_length, record_length,
};
use super::space::Reservation;
use super::steps::{LargeFile, Steps};
use super::{NewChunk, StagedChunk, WholeChunk};

/// End of every staged record's name.
pub const STAGED_SUFFIX: &str = ".staged";

/// A staged record of [`super::FileChunkStore`].
#[derive(Debug)]
pub struct Attempt {
    shared: Arc<Shared>,
    claim: Claim,
    new: NewChunk,
    bytes: Staged,
    reservation: Reservation,
    blocks: Vec<u32>,
    running: RunningCrc32c,
}

/// Where the bytes are until the seal.
#[derive(Debug)]
enum Staged {
    /// Of a chunk that goes into a pack, at most [`super::PackLimits::chunk`].
    Memory(Vec<u8>),
    /// In a file of its own.
    File(StagedFile),
}

#[derive(Debug)]
struct StagedFile {
    shared: Arc<Shared>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where blocks go.
    data: Steps,
    /// The staged name is gone: renamed or removed.
    moved: bool,
}

impl Attempt {
    /// Opens the attempt, in memory when the chunk is to be packed.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        claim: Claim,
        new: NewChunk,
        reservation: Reservation,
    ) -> Result<Self, StoreError> {
        let packed = shared.packs.takes(new.expected);
        // All of it at once: growing step by step takes up to twice as much.
        let room = if packed { new.expected } else { 0 };
        let held = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        let mut attempt = Self {
            shared: Arc::clone(shared),
            claim,
            new,
            bytes: Staged::Memory(held),
            reservation,
            blocks: Vec::new(),
            running: RunningCrc32c::default(),
        };
        if !packed {
            attempt.bytes = Staged::File(attempt.staged_file()?);
        }
        Ok(attempt)
    }

    /// A new staged file with the open header.
    fn staged_file(&self) -> Result<StagedFile, StoreError> {
        let (path, file) = self.shared.new_staged(self.new.id, self.new.version)?;
        // Removed from here on when anything fails.
        let mut staged = StagedFile {
            shared: Arc::clone(&self.shared),
            path,
            data: Steps::new(LargeFile::Buffered(Arc::clone(&file)), HEADER_LEN_U64),
            file,
            moved: false,
        };
        let large = self.shared.large_file(&staged.path, &staged.file)?;
        staged.data = Steps::new(large, HEADER_LEN_U64);
        let header = self.header(RecordState::Open, 0, 0).encode();
        staged
            .file
            .write_all_at(&header, 0)
            .map_err(|e| self.write_error("writing a staged header", e))?;
        Ok(staged)
    }

    /// Puts a block where the bytes are. A chunk that turns out larger than packed ones may be gets
    /// a file of its own.
    fn put(&mut self, block: &Bytes) -> Result<(), StoreError> {
        let length = self.running.length();
        let added = block.len() as u64;
        if let Staged::Memory(held) = &mut self.bytes {
            if self.shared.packs.takes(length + added) {
                held.extend_from_slice(block);
                return Ok(());
            }
            // Given back on error: the attempt keeps what it says that it has.
            let held = std::mem::take(held);
            let moved = self.staged_file().and_then(|mut staged| {
                let pushed = staged.data.push(Bytes::copy_from_slice(&held));
                pushed.map_err(|e| self.write_error("writing a block", e))?;
                Ok(staged)
            });
            let staged = match moved {
                Ok(staged) => staged,
                Err(error) => {
                    self.bytes = Staged::Memory(held);
                    return Err(error);
                }
            };
            self.reservation.consume(length);
            self.bytes = Staged::File(staged);
        }
        if let Staged::File(staged) = &mut self.bytes {
            let pushed = staged.data.push(block.clone());
            pushed.map_err(|e| self.write_error("writing a block", e))?;
        }
        self.reservation.consume(added);
        Ok(())
    }

    fn header(&self, state: RecordState, length: u64, crc32c: u32) -> RecordHeader {
        RecordHeader {
            state,
            cluster: self.new.cluster,
            chunk: SealedChunk {
                id: self.new.id,
                version: self.new.version,
                length,
                crc32c,
            },
            origin: self.new.origin.clone(),
        }
    }

    fn protocol(&self, detail: &'static str) -> StoreError {
        StoreError::Protocol {
            chunk: self.new.id,
            detail,
        }
    }

    fn write_error(&self, doing: &'static str, error: std::io::Error) -> StoreError {
        self.full(self.shared.write_error(doing, error))
    }

    /// A lack of room, with its numbers.
    fn full(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NoSpace { .. } => StoreError::NoSpace {
                needed: self.new.expected,
                free: self.shared.space.room().map_or(0, |room| room.free),
            },
            other => other,
        }
    }

    /// Writes footer and header, makes the file's bytes durable, and then its name.
    fn seal_file(&mut self, mut staged: StagedFile, replica: &Replica) -> Result<(), StoreError> {
        let chunk = &replica.chunk;
        // A packed one of this name is being removed; it must not stand before this one in a read.
        self.shared.forget(self.key(), None)?;
        let footer = encode_footer(chunk.id, chunk.version, &self.blocks);
        let header = self
            .header(RecordState::Sealed, chunk.length, chunk.crc32c)
            .encode();
        staged
            .data
            .flush()
            .map_err(|e| self.write_error("writing a block", e))?;
        staged
            .file
            .write_all_at(&footer, HEADER_LEN_U64 + chunk.length)
            .and_then(|()| staged.file.write_all_at(&header, 0))
            .map_err(|e| self.write_error("writing header and footer", e))?;
        self.reservation.consume(footer_length(chunk.length));
        staged
            .file
            .sync()
            .map_err(|error| self.shared.fail_stop.fail(&staged.path, &error))?;
        let target = chunk_path(&self.shared.root, chunk.id, chunk.version);
        let dir = self.shared.chunk_dir(&fan_out(chunk.id))?;
        self.shared
            .disk
            .rename(&staged.path, &target)
            .map_err(|e| self.write_error("renaming a sealed chunk", e))?;
        staged.moved = true;
        self.shared.sync_dir(&dir)?;
        // An fsync that failed elsewhere meanwhile may have been about the same device.
        self.shared.fail_stop.check()?;
        self.shared.index.insert(replica, self.shared.seconds());
        Ok(())
    }

    /// Takes all bytes of a chunk that is to be packed.
    pub(super) fn take_whole(mut self, whole: &WholeChunk) -> Result<Filled, StoreError> {
        self.append(0, &whole.data, whole.crc32c)?;
        let replica = self.checked(&whole.sealed())?;
        let Staged::Memory(data) = std::mem::replace(&mut self.bytes, Staged::Memory(Vec::new()))
        else {
            return Err(self.protocol("a chunk that came whole is too large for a pack"));
        };
        let body = self.body(data, &replica.chunk)?;
        Ok(Filled {
            attempt: self,
            replica,
            body,
        })
    }

    /// The end of a chunk that was handed to a pack.
    pub(super) fn appended(
        mut self,
        replica: Replica,
        written: Result<(), StoreError>,
    ) -> Result<Replica, StoreError> {
        written.map_err(|error| self.full(error))?;
        self.reservation.consume(replica.chunk.length);
        self.count(&replica.chunk);
        Ok(replica)
    }

    /// What a seal makes of this attempt, if it is what the writer means.
    fn checked(&self, expected: &SealedChunk) -> Result<Replica, StoreError> {
        self.shared.fail_stop.check()?;
        let mismatch = |detail| StoreError::Mismatch {
            chunk: self.new.id,
            detail,
        };
        if (expected.id, expected.version) != self.key() {
            return Err(mismatch("another chunk or version is to be sealed"));
        }
        if expected.length != self.running.length() {
            return Err(mismatch("the length differs"));
        }
        if expected.crc32c != self.running.value() {
            return Err(mismatch("the checksum of the whole differs"));
        }
        Ok(Replica {
            chunk: *expected,
            kind: self.new.origin.kind,
        })
    }

    fn count(&self, chunk: &SealedChunk) {
        self.shared.metrics.sealed.inc();
        self.shared
            .metrics
            .written_bytes
            .inc_by(record_length(chunk.length));
    }

    /// Appends the chunk to a pack, with all others that are sealed meanwhile.
    fn seal_packed(&mut self, data: Vec<u8>, chunk: &SealedChunk) -> Result<(), StoreError> {
        let body = self.body(data, chunk)?;
        self.shared
            .append(vec![Job::Seal(body)])
            .map_err(|error| self.full(error))?;
        self.reservation.consume(chunk.length);
        Ok(())
    }

    fn body(&mut self, data: Vec<u8>, chunk: &SealedChunk) -> Result<Body, StoreError> {
        if data.len() as u64 != chunk.length {
            return Err(StoreError::Mismatch {
                chunk: chunk.id,
                detail: "bytes that were taken are missing",
            });
        }
        Ok(Body {
            header: self.header(RecordState::Sealed, chunk.length, chunk.crc32c),
            data,
            blocks: std::mem::take(&mut self.blocks),
        })
    }
}

impl StagedChunk for Attempt {
    fn key(&self) -> (ChunkId, ChunkVersion) {
        (self.new.id, self.new.version)
    }

    fn length(&self) -> u64 {
        self.running.length()
    }

    fn append(&mut self, offset: u64, block: &Bytes, crc: u32) -> Result<(), StoreError> {
        let length = self.running.length();
        let added = block.len() as u64;
        if offset != length {
            return Err(self.protocol("a block is out of order"));
        }
        if !length.is_multiple_of(BLOCK_SIZE_U64) {
            return Err(self.protocol("a block follows a short one"));
        }
        if block.is_empty() || block.len() > BLOCK_SIZE {
            return Err(self.protocol("a block is empty or over 64 KiB"));
        }
        if length + added > MAX_CHUNK_SIZE {
            return Err(self.protocol("the chunk exceeds the largest size"));
        }
        if crc32c(block) != crc {
            return Err(StoreError::Mismatch {
                chunk: self.new.id,
                detail: "a block does not match its checksum",
            });
        }
        self.put(block)?;
        self.blocks.push(crc);
        self.running.push(crc, added);
        Ok(())
    }

    fn resume(&mut self, version: ChunkVersion, resume: &Resume) -> Result<(), StoreError> {
        let have = self.running.length();
        if !resume.length.is_multiple_of(BLOCK_SIZE_U64) {
            return Err(self.protocol("a resumed write begins inside a block"));
        }
        if resume.length > have || version <= self.new.version {
            return Err(StoreError::CannotResume {
                chunk: self.new.id,
                length: resume.length,
                have,
            });
        }
        self.claim.relabel(version)?;
        self.new.version = version;
        match &mut self.bytes {
            Staged::Memory(held) => {
                held.truncate(usize::try_from(resume.length).unwrap_or(usize::MAX));
            }
            Staged::File(staged) => {
                let cut = staged.data.cut(HEADER_LEN_U64 + resume.length);
                cut.map_err(|e| self.write_error("cutting a staged file", e))?;
            }
        }
        let kept = usize::try_from(resume.length / BLOCK_SIZE_U64).unwrap_or(usize::MAX);
        self.blocks.truncate(kept);
        self.running = RunningCrc32c::default();
        for crc in &self.blocks {
            self.running.push(*crc, BLOCK_SIZE_U64);
        }
        Ok(())
    }

    fn seal(mut self: Box<Self>, expected: &SealedChunk) -> Result<Replica, StoreError> {
        let replica = self.checked(expected)?;
        match std::mem::replace(&mut self.bytes, Staged::Memory(Vec::new())) {
            Staged::Memory(data) => self.seal_packed(data, expected)?,
            Staged::File(staged) => self.seal_file(staged, &replica)?,
        }
        self.count(expected);
        Ok(replica)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.moved
            && let Err(error) = self.shared.disk.remove(&self.path)
        {
            tracing::warn!(
                file = %self.path.display(), error = %error,
                "a staged file stays until the next start"
            );
        }
    }
}
