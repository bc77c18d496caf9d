//! Reads a range chunk by chunk; a replica that fails is left for another, from the position
//! reached.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use dfs_client::ClientError;
use dfs_client::blocks::{Block, BlockStream, read_blocks};
use dfs_protocol::checksum::RunningCrc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, DatanodeAddress, SealedChunk};
use dfs_protocol::upload::{LocateRequest, LocateResponse, SuspectReplica};
use dfs_protocol::{DatanodeId, ErrorCode};
use tokio::sync::mpsc;

use crate::error::DownloadError;
use crate::gateway::SharedGateway;

type Blocks = mpsc::Sender<Result<Bytes, DownloadError>>;

/// How often locations are asked for anew within one chunk.
const RELOCATIONS: u32 = 1;

/// One download.
#[derive(Debug)]
pub(super) struct Reader {
    gateway: SharedGateway,
    located: LocateResponse,
}

/// Why a chunk's reading ended early.
enum Ended {
    /// The client went away.
    ClientGone,
    Failed(DownloadError),
}

impl Reader {
    pub(super) fn new(gateway: SharedGateway, located: LocateResponse) -> Self {
        Self { gateway, located }
    }

    /// Sends the range's bytes; the last item is an error if they could not all be had.
    pub(super) async fn run(mut self, range: Range<u64>, blocks: Blocks) {
        let mut start = 0;
        for index in 0..self.located.file.chunks.len() {
            let length = self.located.file.chunks[index].length;
            let end = start + length;
            if end > range.start && start < range.end {
                let part = range.start.saturating_sub(start)..range.end.min(end) - start;
                match self.chunk(index, start, part, &blocks).await {
                    Ok(()) => {}
                    Err(Ended::ClientGone) => return,
                    Err(Ended::Failed(error)) => {
                        // The client may be gone: then nobody needs the error.
                        let _gone = blocks.send(Err(error)).await;
                        return;
                    }
                }
            }
            start = end;
        }
    }

    /// Sends `part` (bytes of the chunk), trying every replica and, once, newly asked ones.
    async fn chunk(
        &mut self,
        index: usize,
        start: u64,
        part: Range<u64>,
        blocks: &Blocks,
    ) -> Result<(), Ended> {
        let chunk = self.located.file.chunks[index];
        let mut progress = Progress::new(&chunk, part);
        let mut tried = BTreeSet::new();
        let mut relocations = 0;
        let mut detail = "no datanode has reported a replica".to_owned();
        loop {
            let Some(replica) = self.next_replica(index, &tried) else {
                if relocations < RELOCATIONS && self.relocate().await {
                    relocations += 1;
                    tried.clear();
                    continue;
                }
                return Err(Ended::Failed(DownloadError::Unavailable {
                    path: self.located.file.path.clone(),
                    from: start + progress.next,
                    detail,
                    safe_mode: self.located.safe_mode,
                }));
            };
            match self.replica(&replica, &mut progress, blocks).await? {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(chunk = %chunk.id, datanode = %replica.id, %error,
                        "a read goes on from another replica");
                    self.gateway.metrics.failovers.inc();
                    self.report(&chunk, replica.id, &error);
                    tried.insert(replica.id);
                    detail = error.to_string();
                }
            }
        }
    }

    fn next_replica(&self, index: usize, tried: &BTreeSet<DatanodeId>) -> Option<DatanodeAddress> {
        let located = self.located.chunks.get(index)?;
        let untried = |replica: &&DatanodeAddress| !tried.contains(&replica.id);
        located.replicas.iter().find(untried).cloned()
    }

    /// Asks for locations again; false when the file is no longer what is being read.
    async fn relocate(&mut self) -> bool {
        let request = LocateRequest {
            path: self.located.file.path.clone(),
            locations: true,
        };
        match self.gateway.tracker.locate(request).await {
            Ok(located) if located.file.version == self.located.file.version => {
                self.located = located;
                true
            }
            _ => false,
        }
    }

    /// Reads from one replica until the part ends or it fails. The outer error ends the download.
    async fn replica(
        &self,
        replica: &DatanodeAddress,
        progress: &mut Progress,
        blocks: &Blocks,
    ) -> Result<Result<(), ClientError>, Ended> {
        let http = self.gateway.datanodes.http();
        let rest = progress.next..progress.end;
        let opened = tokio::select! {
            opened = read_blocks(http, replica, &progress.chunk, rest) => opened,
            () = blocks.closed() => return Err(Ended::ClientGone),
        };
        let mut stream: BlockStream = match opened {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        while progress.next < progress.end {
            let next = tokio::select! {
                next = stream.next() => next,
                () = blocks.closed() => return Err(Ended::ClientGone),
            };
            let block = match next {
                Ok(Some(block)) => block,
                Ok(None) => {
                    return Ok(Err(damaged(replica, "the blocks ended early")));
                }
                Err(error) => return Ok(Err(error)),
            };
            let Some(bytes) = progress.accept(&block) else {
                return Ok(Err(damaged(replica, "the chunk's checksum is wrong")));
            };
            if blocks.send(Ok(bytes)).await.is_err() {
                return Err(Ended::ClientGone);
            }
        }
        // What is left is the end mark: read it, so that the connection can be used again.
        let _unneeded = stream.next().await;
        Ok(Ok(()))
    }

    /// Lets the tracker have a replica verified that is damaged or not where it should be.
    fn report(&self, chunk: &SealedChunk, datanode: DatanodeId, error: &ClientError) {
        let is_suspect = match error {
            ClientError::Malformed { .. } => true,
            ClientError::Refused(problem) => {
                !problem.is(ErrorCode::WrongDatanode) && !error.is_transient()
            }
            ClientError::NotConnected { .. }
            | ClientError::Unreachable { .. }
            | ClientError::TimedOut { .. } => false,
        };
        if !is_suspect {
            return;
        }
        let report = SuspectReplica {
            chunk: *chunk,
            datanode,
            detail: error.to_string(),
        };
        let tracker = self.gateway.tracker.clone();
        tokio::spawn(async move {
            if let Err(error) = tracker.suspect(report).await {
                tracing::warn!(%error, "cannot report a suspect replica");
            }
        });
    }
}

/// How far a chunk was read.
struct Progress {
    chunk: SealedChunk,
    next: u64,
    end: u64,
    /// CRC32C of the blocks so far, while all were read from the first on: the catalog's checksum
    /// then tells a replica that is consistent in itself, and wrong.
    whole: Option<RunningCrc32c>,
}

impl Progress {
    fn new(chunk: &SealedChunk, part: Range<u64>) -> Self {
        Self {
            chunk: *chunk,
            next: part.start,
            end: part.end,
            whole: (part == (0..chunk.length)).then(RunningCrc32c::default),
        }
    }

    /// The wanted bytes of a block; `None` when the whole chunk turns out to be another one.
    fn accept(&mut self, block: &Block) -> Option<Bytes> {
        if let Some(whole) = &mut self.whole {
            let mut with = *whole;
            with.push(block.crc32c, block.data.len() as u64);
            let is_last = with.length() == self.chunk.length;
            if is_last && with.value() != self.chunk.crc32c {
                return None;
            }
            *whole = with;
        }
        let block_end = block.offset + block.data.len() as u64;
        let from = self.next - block.offset;
        let to = self.end.min(block_end) - block.offset;
        self.next = block.offset + to;
        let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        Some(block.data.slice(cut(from)..cut(to)))
    }
}

fn damaged(replica: &DatanodeAddress, detail: &str) -> ClientError {
    ClientError::Malformed {
        address: replica.address.clone(),
        detail: detail.to_owned(),
    }
}
