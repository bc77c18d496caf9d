//! A chunk being written: a staged file that grows block by block and becomes a sealed record in
//! one durable step.

use std::path::PathBuf;
use std::sync::Arc;

use dfs_protocol::checksum::{RunningCrc32c, crc32c};
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, MAX_CHUNK_SIZE, Replica, SealedChunk};
use dfs_protocol::frame::Resume;
use dfs_protocol::{ChunkId, ChunkVersion};
use dfs_runtime::disk::DiskFile;

use super::error::StoreError;
use super::files::{Claim, Shared};
use super::layout::{chunk_path, fan_out};
use super::record::{
    HEADER_LEN_U64, RecordHeader, RecordState, encode_footer, footer_length, record_length,
};
use super::space::Reservation;
use super::steps::Steps;
use super::{NewChunk, StagedChunk};

/// End of every staged record's name.
pub const STAGED_SUFFIX: &str = ".staged";

/// A staged record of [`super::FileChunkStore`].
#[derive(Debug)]
pub struct Attempt {
    shared: Arc<Shared>,
    claim: Claim,
    new: NewChunk,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    data: Steps,
    reservation: Reservation,
    blocks: Vec<u32>,
    running: RunningCrc32c,
    /// The staged name is gone: renamed or removed.
    moved: bool,
}

impl Attempt {
    /// Writes the open header into a new staged file.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        claim: Claim,
        new: NewChunk,
        reservation: Reservation,
    ) -> Result<Self, StoreError> {
        let (path, file) = shared.new_staged(new.id, new.version)?;
        let attempt = Self {
            shared: Arc::clone(shared),
            claim,
            new,
            path,
            data: Steps::new(Arc::clone(&file), HEADER_LEN_U64),
            file,
            reservation,
            blocks: Vec::new(),
            running: RunningCrc32c::default(),
            moved: false,
        };
        let header = attempt.header(RecordState::Open, 0, 0).encode();
        attempt
            .file
            .write_all_at(&header, 0)
            .map_err(|e| attempt.write_error("writing a staged header", e))?;
        Ok(attempt)
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
        match self.shared.write_error(doing, error) {
            StoreError::NoSpace { .. } => StoreError::NoSpace {
                needed: self.new.expected,
                free: self.shared.space.room().map_or(0, |room| room.free),
            },
            other => other,
        }
    }

    /// Writes footer and header and makes the file's bytes durable.
    fn finish_bytes(&mut self, chunk: &SealedChunk) -> Result<(), StoreError> {
        let footer = encode_footer(chunk.id, chunk.version, &self.blocks);
        let header = self
            .header(RecordState::Sealed, chunk.length, chunk.crc32c)
            .encode();
        self.data
            .flush()
            .map_err(|e| self.write_error("writing a block", e))?;
        self.file
            .write_all_at(&footer, HEADER_LEN_U64 + chunk.length)
            .and_then(|()| self.file.write_all_at(&header, 0))
            .map_err(|e| self.write_error("writing header and footer", e))?;
        self.reservation.consume(footer_length(chunk.length));
        self.file
            .sync()
            .map_err(|error| self.shared.fail_stop.fail(&self.path, &error))
    }
}

impl StagedChunk for Attempt {
    fn key(&self) -> (ChunkId, ChunkVersion) {
        (self.new.id, self.new.version)
    }

    fn length(&self) -> u64 {
        self.running.length()
    }

    fn append(&mut self, offset: u64, block: &[u8], crc: u32) -> Result<(), StoreError> {
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
        self.data
            .push(block)
            .map_err(|e| self.write_error("writing a block", e))?;
        self.reservation.consume(added);
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
        self.data
            .cut(HEADER_LEN_U64 + resume.length)
            .map_err(|e| self.write_error("cutting a staged file", e))?;
        let kept = usize::try_from(resume.length / BLOCK_SIZE_U64).unwrap_or(usize::MAX);
        self.blocks.truncate(kept);
        self.running = RunningCrc32c::default();
        for crc in &self.blocks {
            self.running.push(*crc, BLOCK_SIZE_U64);
        }
        Ok(())
    }

    fn seal(mut self: Box<Self>, expected: &SealedChunk) -> Result<Replica, StoreError> {
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
        self.finish_bytes(expected)?;
        let root = &self.shared.root;
        let target = chunk_path(root, expected.id, expected.version);
        let dir = self.shared.chunk_dir(&fan_out(expected.id))?;
        self.shared
            .disk
            .rename(&self.path, &target)
            .map_err(|e| self.write_error("renaming a sealed chunk", e))?;
        self.moved = true;
        self.shared.sync_dir(&dir)?;
        // An fsync that failed elsewhere meanwhile may have been about the same device.
        self.shared.fail_stop.check()?;
        let replica = Replica {
            chunk: *expected,
            kind: self.new.origin.kind,
        };
        self.shared.index.insert(&replica, self.shared.seconds());
        self.shared.metrics.sealed.inc();
        self.shared
            .metrics
            .written_bytes
            .inc_by(record_length(expected.length));
        Ok(replica)
    }
}

impl Drop for Attempt {
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
