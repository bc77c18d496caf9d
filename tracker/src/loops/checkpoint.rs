//! Checkpoints: now and then the whole catalog goes to datanodes as chunks of its own kind, so that
//! a rebuild need not replay the journal from its beginning and condemned chunks can be deleted.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::write_stream::ChunkEvent;
use dfs_protocol::checksum::{RunningCrc32c, crc32c};
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, ChunkKind, ChunkOrigin, SealedChunk};
use dfs_protocol::events::EventKind;
use dfs_protocol::frame::{HopFailure, OpenChunk};
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId, FileId, LeaseId};

use super::Work;
use crate::model::op::{CheckpointRecord, Op};
use crate::model::story::Telling;
use crate::plan::placement::{self, PlacementRequest};
use crate::service::Tracker;
use crate::store::checkpoint::{CheckpointPages, PAGE_BYTES};
use crate::store::{StoreError, SubmitError};

/// Checkpoints that are kept: the newest, and one more in case the newest cannot be read.
const KEPT: usize = 2;
/// When space is short, deletions must not wait long for their checkpoint; nor must one that failed wait for its
/// turn, as the first one does where datanodes are still arriving.
const SHORT_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of a checkpoint's chunks on full volumes: few, to fit what those keep in reserve.
const LIMIT_WHEN_FULL: u64 = 4 * BLOCK_SIZE_U64;

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    last_try: Option<Duration>,
    failed: bool,
}

#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("datanode {} failed: {}", .0.datanode, .0.detail)]
    Hop(HopFailure),
    #[error("{0}")]
    Lease(#[from] crate::model::leases::LeaseRefused),
    #[error("too few datanodes take chunks")]
    TooFew,
    #[error("the task that reads the catalog failed")]
    Reader,
}

impl Work for Checkpoints {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        let now = tracker.clock.monotonic();
        match self.is_due(tracker, now).await {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether a checkpoint is due");
                return;
            }
        }
        self.last_try = Some(now);
        let taken = take(tracker).await;
        self.failed = taken.is_err();
        match taken {
            Ok(record) => {
                tracker.metrics.checkpoints.inc();
                let detail = format!("a checkpoint covers the catalog up to {}", record.sequence);
                let told = Telling::new(EventKind::CheckpointTaken, detail);
                tracker.tell(told.count(record.chunks.len() as u64));
                tracing::info!(
                    sequence = record.sequence,
                    chunks = record.chunks.len(),
                    "a checkpoint of the catalog is on the datanodes"
                );
            }
            Err(error) => {
                tracker.metrics.checkpoint_failures.inc();
                tracing::warn!(%error, "a checkpoint could not be written; it is tried again");
            }
        }
    }
}

impl Checkpoints {
    async fn is_due(&self, tracker: &Tracker, now: Duration) -> Result<bool, StoreError> {
        let meta = tracker.catalog.meta().await?;
        let state = tracker.state();
        // Full datanodes take checkpoints still: deletions wait for them.
        if state.hold(now).is_some() || !state.may_change(now) {
            return Ok(false);
        }
        let newest = meta
            .checkpoints
            .last()
            .map_or(0, |checkpoint| checkpoint.sequence);
        let oldest = meta
            .checkpoints
            .first()
            .map_or(0, |checkpoint| checkpoint.sequence);
        let behind = meta.sequence.saturating_sub(newest);
        let waiting = state.condemned.has_newer_than(oldest) || state.has_ruined_checkpoint();
        let mut interval = tracker.config.checkpoint_interval;
        if self.failed || waiting && state.is_under_pressure(now) {
            interval = interval.min(SHORT_INTERVAL);
        }
        let waited = self
            .last_try
            .is_none_or(|last| now.saturating_sub(last) >= interval);
        // The record of the checkpoint itself is always behind it by one.
        Ok(waited && (behind > 1 || waiting) || behind >= tracker.config.checkpoint_records)
    }
}

/// Writes one checkpoint and records it.
async fn take(tracker: &Arc<Tracker>) -> Result<CheckpointRecord, CheckpointError> {
    let file = FileId::from_u128(tracker.rng.u128());
    let lease = LeaseId::from_u128(tracker.rng.u128());
    let created = tracker.clock.wall();
    let engine = tracker.catalog.engine();
    let (frames, mut incoming) = tokio::sync::mpsc::channel::<Vec<u8>>(2);
    let reader = tokio::task::spawn_blocking(move || {
        let mut pages = CheckpointPages::begin(engine, created, PAGE_BYTES)?;
        for frame in &mut pages {
            if frames.blocking_send(frame?).is_err() {
                break;
            }
        }
        Ok::<u64, StoreError>(pages.sequence())
    });
    let mut writer = Writer {
        tracker,
        file,
        lease,
        written: Vec::new(),
        pending: Vec::new(),
    };
    let written = writer.write(&mut incoming).await;
    drop(incoming);
    let sequence = reader.await.map_err(|_| CheckpointError::Reader)??;
    let written = match written {
        Ok(()) => writer.written,
        Err(error) => {
            let ids: Vec<ChunkId> = writer.written.iter().map(|(chunk, _)| chunk.id).collect();
            tracker.state().leases.abandon(lease, &ids);
            return Err(error);
        }
    };
    let record = CheckpointRecord {
        file,
        sequence,
        chunks: written.iter().map(|(chunk, _)| *chunk).collect(),
        created,
    };
    let holders = written
        .into_iter()
        .map(|(chunk, held)| (chunk.id, held))
        .collect();
    let mut checkpoints = tracker.catalog.meta().await?.checkpoints;
    {
        // One that no datanode has whole is of no use to a rebuild.
        let mut state = tracker.state();
        checkpoints.retain(|checkpoint| !state.is_ruined(checkpoint));
        // Until heartbeats report them they must not count as missing.
        state.checkpoint_holders = holders;
    }
    checkpoints.push(record.clone());
    checkpoints.drain(..checkpoints.len().saturating_sub(KEPT));
    let op = Op::SetCheckpoints { checkpoints };
    tracker.catalog.submit(op).await?;
    Ok(record)
}

struct Writer<'a> {
    tracker: &'a Arc<Tracker>,
    file: FileId,
    lease: LeaseId,
    /// Sealed chunks, and the datanodes that have them durably.
    written: Vec<(SealedChunk, Vec<DatanodeId>)>,
    pending: Vec<u8>,
}

impl Writer<'_> {
    async fn write(
        &mut self,
        incoming: &mut tokio::sync::mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), CheckpointError> {
        while self.fill(incoming).await {
            self.chunk(incoming).await?;
        }
        Ok(())
    }

    /// Waits until a block is at hand, or the end; says whether anything is.
    async fn fill(&mut self, incoming: &mut tokio::sync::mpsc::Receiver<Vec<u8>>) -> bool {
        while self.pending.len() < BLOCK_SIZE {
            let Some(frame) = incoming.recv().await else {
                break;
            };
            self.pending.extend_from_slice(&frame);
        }
        !self.pending.is_empty()
    }

    /// Writes one chunk: all that is left, or as much as a chunk takes.
    async fn chunk(
        &mut self,
        incoming: &mut tokio::sync::mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), CheckpointError> {
        let Placed { id, targets, limit } = self.place()?;
        let addresses = self.tracker.state().addresses(&targets);
        let Some((first, rest)) = addresses.split_first() else {
            return Err(CheckpointError::TooFew);
        };
        let index = u32::try_from(self.written.len()).unwrap_or(u32::MAX);
        let open = OpenChunk {
            cluster: self.tracker.cluster,
            datanode: first.id,
            fence: self.tracker.fence(),
            chunk: id,
            version: ChunkVersion::FIRST,
            origin: ChunkOrigin {
                kind: ChunkKind::Checkpoint,
                file: self.file,
                index,
                path_hint: String::new(),
            },
            expected: limit,
            resume: None,
            downstream: rest.to_vec(),
            trace: None,
        };
        let streams = &self.tracker.write_streams;
        let mut writer = streams
            .open(first, &open)
            .await
            .map_err(CheckpointError::Hop)?;
        let mut running = RunningCrc32c::default();
        while running.length() + BLOCK_SIZE_U64 <= limit && self.fill(incoming).await {
            let rest = self.pending.split_off(self.pending.len().min(BLOCK_SIZE));
            let block = std::mem::replace(&mut self.pending, rest);
            let crc = crc32c(&block);
            let offset = running.length();
            writer
                .sender
                .block(offset, crc, &block)
                .await
                .map_err(CheckpointError::Hop)?;
            running.push(crc, block.len() as u64);
        }
        let sealed = SealedChunk {
            id,
            version: ChunkVersion::FIRST,
            length: running.length(),
            crc32c: running.value(),
        };
        writer
            .sender
            .seal(&sealed)
            .await
            .map_err(CheckpointError::Hop)?;
        let holders = loop {
            match writer.receiver.next().await.map_err(CheckpointError::Hop)? {
                ChunkEvent::Progress(_) => {}
                ChunkEvent::Sealed(report) if report.failed.is_empty() => break report.replicas,
                ChunkEvent::Sealed(report) => {
                    let failure = report.failed.into_iter().next();
                    return Err(failure.map_or(CheckpointError::TooFew, CheckpointError::Hop));
                }
                ChunkEvent::Failed(failure) => return Err(CheckpointError::Hop(failure)),
            }
        };
        streams.put_back(writer.sender, writer.receiver);
        self.written.push((sealed, holders));
        Ok(())
    }

    /// Places a chunk; a small one where the volumes are full.
    fn place(&self) -> Result<Placed, CheckpointError> {
        let now = self.tracker.clock.monotonic();
        let factor = self.tracker.config.replication_factor;
        let least = self.tracker.config.min_write() as usize;
        let mut limit = self.tracker.config.chunk_size;
        let mut rng = self.tracker.rng.fork();
        let mut state = self.tracker.state();
        let mut request = PlacementRequest {
            factor,
            bytes: limit,
            avoid: &[],
        };
        let mut targets = placement::choose(&state.datanodes, &request, now, &mut rng);
        if targets.len() < least {
            limit = limit.min(LIMIT_WHEN_FULL);
            request.bytes = limit;
            targets = placement::choose_last(&state.datanodes, &request, now, &mut rng);
        }
        if targets.len() < least {
            return Err(CheckpointError::TooFew);
        }
        let id = ChunkId::from_u128(self.tracker.rng.u128());
        state
            .leases
            .extend(self.lease, vec![(id, targets.clone())], factor, now)?;
        Ok(Placed { id, targets, limit })
    }
}

struct Placed {
    id: ChunkId,
    targets: Vec<DatanodeId>,
    /// Bytes that the chunk may hold.
    limit: u64,
}
