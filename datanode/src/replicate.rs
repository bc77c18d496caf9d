//! Fetching a replica from a peer: every block verified on arrival, the whole at the seal.

use std::sync::Arc;

use dfs_client::blocks::read_to_copy;
use dfs_protocol::chunk::{DatanodeAddress, Replica, SealedChunk};
use dfs_protocol::repair::RepairLane;
use dfs_protocol::{ChunkVersion, ClusterId, DatanodeId, ErrorCode, Problem};

use crate::context::Context;
use crate::metrics::Direction;
use crate::store::{NewChunk, StoreError};
use crate::write_stream::disk::{Begin, DiskOrder, DiskWrite, begin};

/// How fast a copy may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A client waits for it.
    Urgent,
    /// Repair: within the repair bandwidth, here and at the source.
    Repair(RepairLane),
}

/// A copy that no source could give.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct CopyError {
    /// The last source tried, when it was at fault.
    pub source_datanode: Option<DatanodeId>,
    /// What happened.
    pub problem: Problem,
}

/// Makes a replica of `chunk` here, from the first of `sources` that can give it. Durable on
/// return. A replica that is already there is the answer.
pub async fn copy(
    ctx: &Arc<Context>,
    chunk: &SealedChunk,
    sources: &[DatanodeAddress],
    pace: Pace,
) -> Result<Replica, CopyError> {
    let own_fault = |problem: Problem| CopyError {
        source_datanode: None,
        problem,
    };
    let cluster = ctx.admitted().map_err(own_fault)?;
    let key = (chunk.id, chunk.version);
    if let Some(replica) = ctx.store.index().get(key) {
        if replica.chunk == *chunk {
            return Ok(replica);
        }
        let detail = format!("chunk {} is here with other bytes", chunk.id);
        return Err(own_fault(Problem::new(ErrorCode::Conflict, detail)));
    }
    let _permit = Arc::clone(&ctx.writes).try_acquire_owned().map_err(|_| {
        ctx.metrics.refused_busy.inc();
        let problem = Problem::new(ErrorCode::Unavailable, "too many chunks are being written");
        own_fault(problem.next("try again, or another datanode"))
    })?;
    // What a broken stream left of the same version is of no use beside a whole replica. Nor is one that stays open
    // behind a hop that fell silent: its writer went on over others, and waits for this copy.
    let above = ChunkVersion(chunk.version.0.saturating_add(1));
    let taken = ctx.attempts.take(chunk.id, chunk.version, above).await;
    if let Some(staged) = taken {
        ctx.blocking(move |_| drop(staged))
            .await
            .map_err(own_fault)?;
    }
    let mut last = own_fault(Problem::new(
        ErrorCode::DataUnavailable,
        format!("no source was named for chunk {}", chunk.id),
    ));
    for source in sources.iter().filter(|source| source.id != ctx.id()) {
        match copy_from(ctx, cluster, chunk, source, pace).await {
            Ok(replica) => return Ok(replica),
            Err(error) => {
                tracing::info!(
                    chunk = %chunk.id, source = %source.id, error = %error.problem,
                    "could not copy a replica"
                );
                // Another source does not help when the fault is here.
                if error.source_datanode.is_none() {
                    return Err(error);
                }
                last = error;
            }
        }
    }
    Err(last)
}

async fn copy_from(
    ctx: &Arc<Context>,
    cluster: ClusterId,
    chunk: &SealedChunk,
    source: &DatanodeAddress,
    pace: Pace,
) -> Result<Replica, CopyError> {
    let source_fault = |problem: Problem| CopyError {
        source_datanode: Some(source.id),
        problem,
    };
    let own_fault = |error: StoreError| CopyError {
        source_datanode: None,
        problem: error.into(),
    };
    let watch = ctx.streams.watch();
    let opening = async {
        match pace {
            Pace::Urgent => read_to_copy(&ctx.http, source, chunk, None).await,
            Pace::Repair(lane) => read_to_copy(&ctx.http, source, chunk, Some(lane)).await,
        }
    };
    let opened = watch.unless_silent(source, opening).await;
    let mut blocks = opened.map_err(|e| source_fault(e.into_problem()))?;
    let Some(origin) = blocks.origin() else {
        let detail = "the source does not say where the chunk belongs";
        return Err(source_fault(Problem::new(ErrorCode::Internal, detail)));
    };
    let new = NewChunk {
        cluster,
        id: chunk.id,
        version: chunk.version,
        origin,
        expected: chunk.length,
    };
    let disk = begin(Arc::clone(&ctx.store), Begin::Fresh(new, None))
        .await
        .map_err(own_fault)?;
    loop {
        let block = match watch.unless_silent(source, blocks.next()).await {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(error) => {
                abandon(disk).await;
                return Err(source_fault(error.into_problem()));
            }
        };
        let length = block.data.len() as u64;
        if let Pace::Repair(lane) = pace {
            ctx.repair.pass(Direction::Received, lane, length).await;
        }
        ctx.metrics.copied_bytes.inc_by(length);
        let order = DiskOrder::Block {
            offset: block.offset,
            crc32c: block.crc32c,
            data: block.data,
        };
        if disk.orders.send(order).await.is_err() {
            break;
        }
    }
    disk.seal(*chunk).await.map_err(|error| match error {
        // Blocks were whole on the wire, the whole is another: the source's replica is wrong.
        StoreError::Mismatch { .. } => source_fault(error.into()),
        other => own_fault(other),
    })
}

/// Ends a copy whose source failed. The staged file is gone on return: the next source begins the
/// same chunk.
async fn abandon(disk: DiskWrite) {
    if let Ok(Some(staged)) = disk.leave().await {
        let _joined = tokio::task::spawn_blocking(move || drop(staged)).await;
    }
}
