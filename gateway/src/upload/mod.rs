//! The write path: body -> blocks -> chunk tasks -> commit.
//!
//! An [`Upload`] is fed by a door. Chunks are sealed while the next one streams, and all of them
//! share one window, so a large file needs no more memory than a small one.

mod chunk;
mod commit;
mod stream;
mod survey;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dfs_protocol::checksum::{RunningCrc32c, crc32c, crc64nvme, crc64nvme_combine};
use dfs_protocol::chunk::{BLOCK_SIZE_U64, ChunkKind, ChunkOrigin};
use dfs_protocol::upload::Precondition;
use dfs_protocol::{DatanodeId, ErrorCode, FileId, FilePath, Problem, UploadId};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use commit::Committed;

use chunk::{ChunkTask, FailedHops, Feed, Written};
use window::Window;

use crate::error::UploadError;
use crate::gateway::SharedGateway;
use crate::headers::digests::{Digests, WantedDigests};
use crate::metrics::{GatewayMetrics, Refusal, UploadEnd};
use crate::pool::{Needs, Placed};

/// Chunks that may be waiting for their seal while the next one streams.
const MAX_SEALING: usize = 2;
/// Between two tries to get room for a chunk.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A file as its client describes it.
#[derive(Debug, Clone)]
pub(crate) struct NewFile {
    pub(crate) path: FilePath,
    pub(crate) precondition: Precondition,
    pub(crate) content_type: String,
    pub(crate) content_encoding: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) digests: WantedDigests,
    /// The most bytes that will come, when the client said so.
    pub(crate) expected: Option<u64>,
}

/// Counts an upload that does not get to its end.
#[derive(Debug)]
struct Outcome {
    metrics: GatewayMetrics,
    end: UploadEnd,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.metrics.uploads.inc(self.end);
    }
}

/// One upload. Dropped before [`Upload::finish`] ends well, nothing of it is visible and its
/// chunks are given up.
#[derive(Debug)]
pub(crate) struct Upload {
    gateway: SharedGateway,
    file: NewFile,
    id: UploadId,
    file_id: FileId,
    window: Window,
    /// Placement for the next chunk, taken early.
    placed: Option<Placed>,
    /// Where the first chunk went: the others follow it.
    first_targets: Vec<DatanodeId>,
    failed: FailedHops,
    current: Option<Current>,
    sealing: VecDeque<ChunkTask>,
    written: Vec<Written>,
    block: BytesMut,
    size: u64,
    crc64nvme: u64,
    crc32c: RunningCrc32c,
    digests: Digests,
    outcome: Outcome,
    _place: OwnedSemaphorePermit,
}

/// A block that was filled.
#[derive(Debug)]
struct CutBlock {
    data: Bytes,
    crc32c: u32,
}

/// The chunk that streams now.
#[derive(Debug)]
struct Current {
    task: ChunkTask,
    offset: u64,
    limit: u64,
}

impl Upload {
    /// Takes a place and room for the first chunk: what can be refused is refused here, before the
    /// body is read.
    pub(crate) async fn begin(gateway: SharedGateway, file: NewFile) -> Result<Self, UploadError> {
        let place = gateway.upload_place()?;
        let mut upload = Self {
            id: UploadId::from_u128(gateway.rng.u128()),
            file_id: FileId::from_u128(gateway.rng.u128()),
            window: Window::new(
                gateway.config.window(),
                gateway.metrics.window_bytes.clone(),
            ),
            placed: None,
            first_targets: Vec::new(),
            failed: FailedHops::default(),
            current: None,
            sealing: VecDeque::new(),
            written: Vec::new(),
            block: BytesMut::new(),
            size: 0,
            crc64nvme: 0,
            crc32c: RunningCrc32c::default(),
            digests: Digests::new(&file.digests),
            outcome: Outcome {
                metrics: gateway.metrics.clone(),
                end: UploadEnd::Failed,
            },
            _place: place,
            gateway,
            file,
        };
        upload.check_size(upload.file.expected.unwrap_or(0))?;
        if upload.file.expected != Some(0) {
            upload.placed = Some(upload.place().await?);
        }
        Ok(upload)
    }

    /// Adds bytes; waits while the window is full.
    pub(crate) async fn write(&mut self, mut data: Bytes) -> Result<(), UploadError> {
        self.check_size(self.size.saturating_add(data.len() as u64))?;
        self.gateway
            .metrics
            .received_bytes
            .inc_by(data.len() as u64);
        self.digests.update(&data);
        while !data.is_empty() {
            let room = self.block_room();
            if self.block.len() >= room {
                self.send_block().await?;
                continue;
            }
            let take = data.len().min(room - self.block.len());
            if self.block.capacity() == 0 {
                let coming = self.file.expected.map(|all| all.saturating_sub(self.size));
                let coming = coming.and_then(|left| usize::try_from(left).ok());
                self.block
                    .reserve(room.min(coming.unwrap_or(room).max(take)));
            }
            self.block.extend_from_slice(&data.split_to(take));
            self.size += take as u64;
            // The last one waits for the end: with nothing before it, it is a chunk that goes at once.
            if self.block.len() == room && self.file.expected != Some(self.size) {
                self.send_block().await?;
            }
        }
        Ok(())
    }

    /// Ends the body, checks it, waits until all chunks are durable and commits them.
    pub(crate) async fn finish(mut self) -> Result<Committed, UploadError> {
        let last = self.cut_block();
        let matched = self.digests.verify(self.crc32c.value(), self.crc64nvme);
        if let Err(problem) = matched {
            self.gateway.metrics.digest_mismatches.inc();
            return Err(problem.into());
        }
        match last {
            Some(cut) if self.current.is_none() => self.put_whole(cut).await?,
            Some(cut) => self.feed(cut).await?,
            None => {}
        }
        if let Some(placed) = self.placed.take() {
            self.gateway.pool.put_back(placed);
        }
        self.seal_current().await?;
        while let Some(task) = self.sealing.pop_front() {
            self.written.push(task.outcome().await?);
        }
        let committed = commit::commit(&mut self).await?;
        self.outcome.end = UploadEnd::Committed;
        Ok(committed)
    }

    fn check_size(&self, size: u64) -> Result<(), UploadError> {
        let limit = self.gateway.config.max_file_bytes;
        if size <= limit {
            return Ok(());
        }
        self.gateway.metrics.refusals.inc(Refusal::FileBytes);
        Err(Problem::new(
            ErrorCode::TooLarge,
            format!("a file may hold {limit} bytes at most"),
        )
        .next("split the file")
        .into())
    }

    /// Bytes that the block being filled may hold: a block, or what is left of the chunk.
    fn block_room(&self) -> usize {
        let left = match (&self.current, &self.placed) {
            (Some(current), _) => current.limit - current.offset,
            (None, Some(placed)) => placed.chunk_size,
            (None, None) => BLOCK_SIZE_U64,
        };
        usize::try_from(left.min(BLOCK_SIZE_U64)).unwrap_or(usize::MAX)
    }

    async fn place(&self) -> Result<Placed, UploadError> {
        let held_by = self.written.first().map(|written| &written.replicas);
        let mut needs = Needs {
            bytes: self.file.expected.map(|all| all.saturating_sub(self.size)),
            prefer: held_by.unwrap_or(&self.first_targets).clone(),
            avoid: self.failed.all(),
        };
        needs.prefer.retain(|id| !needs.avoid.contains(id));
        let gateway = &self.gateway;
        // A first chunk is refused at once: nothing was sent yet. Later a tracker that restarts is
        // waited for.
        let deadline = match self.size {
            0 => gateway.clock.monotonic(),
            _ => gateway.deadline(gateway.config.commit_deadline),
        };
        loop {
            let error = match gateway.pool.take(&*gateway.tracker, &needs).await {
                Ok(placed) => return Ok(placed),
                Err(error) => error,
            };
            if !error.is_transient() || gateway.left(deadline).is_none() {
                return Err(error.into());
            }
            tracing::warn!(%error, "room for a chunk is asked for again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Takes the block that was filled, and its checksums into those of the whole.
    fn cut_block(&mut self) -> Option<CutBlock> {
        let data = std::mem::take(&mut self.block).freeze();
        if data.is_empty() {
            return None;
        }
        let length = data.len() as u64;
        let crc = crc32c(&data);
        self.crc32c.push(crc, length);
        self.crc64nvme = match self.size - length {
            0 => crc64nvme(&data),
            _ => crc64nvme_combine(self.crc64nvme, crc64nvme(&data), length),
        };
        Some(CutBlock { data, crc32c: crc })
    }

    /// Sends the block that was filled.
    async fn send_block(&mut self) -> Result<(), UploadError> {
        match self.cut_block() {
            Some(cut) => self.feed(cut).await,
            None => Ok(()),
        }
    }

    /// Hands a block to the chunk that streams, which it may begin and end.
    async fn feed(&mut self, cut: CutBlock) -> Result<(), UploadError> {
        let CutBlock { data, crc32c } = cut;
        let length = data.len() as u64;
        if self.current.is_none() {
            self.begin_chunk(length).await?;
        }
        let Some(current) = self.current.as_mut() else {
            return Err(UploadError::TaskFailed);
        };
        let block = self.window.admit(current.offset, crc32c, data).await;
        current.offset += length;
        let is_full = current.offset >= current.limit;
        if current.task.feed(Feed::Block(block)).await.is_err() {
            return Err(self.current_failure().await);
        }
        if is_full {
            self.seal_current().await?;
        }
        Ok(())
    }

    /// Sends the last block as a chunk of its own, at once.
    async fn put_whole(&mut self, cut: CutBlock) -> Result<(), UploadError> {
        let CutBlock { data, crc32c } = cut;
        let (placed, origin) = self.next_chunk().await?;
        let block = self.window.admit(0, crc32c, data).await;
        let gateway = self.gateway.clone();
        let task = ChunkTask::whole(gateway, placed, origin, block, self.failed.clone());
        self.sealing.push_back(task);
        Ok(())
    }

    /// Where the next chunk goes, and what it says of itself.
    async fn next_chunk(&mut self) -> Result<(Placed, ChunkOrigin), UploadError> {
        let placed = match self.placed.take() {
            Some(placed) => placed,
            None => self.place().await?,
        };
        let index = self.written.len() + self.sealing.len();
        if index == 0 {
            self.first_targets = placed.targets.iter().map(|target| target.id).collect();
        }
        let origin = ChunkOrigin {
            kind: ChunkKind::Data,
            file: self.file_id,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            path_hint: self.file.path.to_string(),
        };
        Ok((placed, origin))
    }

    async fn begin_chunk(&mut self, first_block: u64) -> Result<(), UploadError> {
        let (placed, origin) = self.next_chunk().await?;
        let limit = placed.chunk_size.max(first_block);
        let before = self.size - first_block;
        let expected = self.file.expected.map(|all| all.saturating_sub(before));
        let expected = expected.unwrap_or(limit).clamp(first_block, limit);
        self.current = Some(Current {
            task: ChunkTask::begin(
                self.gateway.clone(),
                placed,
                origin,
                expected,
                self.failed.clone(),
            ),
            offset: 0,
            limit,
        });
        Ok(())
    }

    /// Lets the current chunk be sealed while the next one streams.
    async fn seal_current(&mut self) -> Result<(), UploadError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        // An error shows in the outcome.
        let _ended = current.task.feed(Feed::Seal).await;
        self.sealing.push_back(current.task);
        while self.sealing.len() > MAX_SEALING {
            if let Some(task) = self.sealing.pop_front() {
                self.written.push(task.outcome().await?);
            }
        }
        Ok(())
    }

    async fn current_failure(&mut self) -> UploadError {
        match self.current.take() {
            Some(current) => match current.task.outcome().await {
                Ok(_) => UploadError::TaskFailed,
                Err(error) => error,
            },
            None => UploadError::TaskFailed,
        }
    }
}
