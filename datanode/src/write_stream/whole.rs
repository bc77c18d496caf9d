//! A chunk that comes whole: the order and its one block, written here and behind at once, and one
//! answer when all of them have it durable or failed.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::frame_io::FrameIoError;
use dfs_client::write_stream::{WholeBlock, failure};
use dfs_protocol::chunk::Replica;
use dfs_protocol::frame::{self, FrameKind, HopFailure, HopFault, OpenChunk, SealedReport};
use tokio::io::{AsyncRead, AsyncWrite};

use super::behind::put_behind;
use super::chunk::{check, new_chunk, reported};
use super::{Next, Upstream};
use crate::context::Context;
use crate::store::{NewChunk, StoreError, WholeChunk};

/// How long a chunk waits for a place. The hops before it have it by then, so a refusal costs a copy.
const PLACE_WAIT: Duration = Duration::from_secs(2);

/// Why there is no block.
enum NoBlock {
    /// The writer is gone.
    Gone,
    /// Something else came.
    Refused(HopFailure),
}

/// Receives one whole chunk.
pub(super) async fn receive<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Arc<Context>,
    upstream: &mut Upstream<S>,
    open: OpenChunk,
) -> Next {
    let block = match take_block(ctx, upstream).await {
        Ok(block) => block,
        Err(NoBlock::Gone) => return Next::Close,
        Err(NoBlock::Refused(failed)) => return upstream.fail(ctx, &failed).await,
    };
    ctx.metrics.write_streams.inc();
    let written = write(ctx, &open, block).await;
    ctx.metrics.write_streams.dec();
    match written {
        Ok(report) => match frame::control(FrameKind::Sealed, &report) {
            Some(frame) if upstream.send(&frame).await => Next::Continue,
            Some(_) | None => Next::Close,
        },
        Err(failed) => upstream.fail(ctx, &failed).await,
    }
}

/// The block behind the order, verified on arrival.
async fn take_block<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Context,
    upstream: &mut Upstream<S>,
) -> Result<WholeBlock, NoBlock> {
    let own = ctx.id();
    let next = tokio::time::timeout(ctx.config.stream_idle, upstream.frames.next());
    let frame = match next.await {
        Ok(Ok(Some(frame))) => frame,
        Ok(Ok(None) | Err(FrameIoError::Io(_))) | Err(_) => return Err(NoBlock::Gone),
        Ok(Err(FrameIoError::Frame(error))) => {
            return Err(NoBlock::Refused(failure(own, HopFault::Corrupt, &error)));
        }
    };
    let is_whole = frame.header.offset == 0 && !frame.payload.is_empty();
    if frame.header.kind != FrameKind::Block || !is_whole {
        let detail = "a whole chunk came without its block";
        return Err(NoBlock::Refused(failure(own, HopFault::Protocol, &detail)));
    }
    ctx.metrics
        .received_bytes
        .inc_by(frame.payload.len() as u64);
    Ok(WholeBlock {
        crc32c: frame.header.crc32c,
        data: frame.payload,
    })
}

/// Checks the order, then writes here and behind at once. Fails only when no hop from here on has it.
async fn write(
    ctx: &Arc<Context>,
    open: &OpenChunk,
    block: WholeBlock,
) -> Result<SealedReport, HopFailure> {
    let own = ctx.id();
    if open.resume.is_some() {
        let detail = "a whole chunk has nothing to resume";
        return Err(failure(own, HopFault::Protocol, &detail));
    }
    check(ctx, open).await?;
    let own_failure = |error: StoreError| failure(own, error.fault(), &error.describe());
    let Some((active, older)) = ctx.attempts.enter((open.chunk, open.version)) else {
        let (chunk, version) = (open.chunk, open.version);
        return Err(own_failure(StoreError::InProgress { chunk, version }));
    };
    if older.is_some() {
        // It holds the chunk's name until it is gone. Dropped on a blocking thread.
        let _gone = tokio::task::spawn_blocking(move || drop(older)).await;
    }
    let whole = WholeChunk {
        new: NewChunk {
            expected: block.data.len() as u64,
            ..new_chunk(open)
        },
        data: block.data.clone(),
        crc32c: block.crc32c,
    };
    let sealed = whole.sealed();
    // Sent on first: the way to the last hop is the longest.
    let (behind, stored) = tokio::join!(put_behind(ctx, open, &block), put_own(ctx, whole));
    drop(active);
    reported(ctx, sealed, stored, behind)
}

/// Writes here. The place is given back before the hops behind have answered: two chains that cross
/// would wait for each other's places.
async fn put_own(ctx: &Arc<Context>, whole: WholeChunk) -> Result<Replica, HopFailure> {
    let own = ctx.id();
    ctx.metrics.waiting_writes.inc();
    let place = tokio::time::timeout(PLACE_WAIT, ctx.whole_writes.acquire()).await;
    ctx.metrics.waiting_writes.dec();
    let Ok(Ok(_place)) = place else {
        ctx.metrics.refused_busy.inc();
        let detail = "too many chunks are being written";
        return Err(failure(own, HopFault::Busy, &detail));
    };
    let stored = ctx.puts.put(whole).await;
    stored.map_err(|error| failure(own, error.fault(), &error.describe()))
}
