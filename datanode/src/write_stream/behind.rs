//! The next hop of a chain, as the hop before it sees it.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::write_stream::{
    ChunkEvent, ChunkReceiver, ChunkSender, ChunkWriter, WholeBlock, failure,
};
use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::{BLOCK_SIZE_U64, DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{HopFailure, HopFault, OpenChunk, PROGRESS_STEP, SealedReport};

use crate::context::Context;

/// The next hop.
pub(super) struct Behind {
    pub(super) at: DatanodeAddress,
    pub(super) sender: ChunkSender,
    pub(super) receiver: ChunkReceiver,
    /// Bytes that were sent.
    pub(super) sent: u64,
    /// Bytes that it and every hop behind it have.
    pub(super) confirmed: u64,
    /// How long it may take to seal.
    pub(super) patience: Duration,
}

impl Behind {
    /// Whether a confirmation should have come for what was sent.
    pub(super) fn owes(&self) -> bool {
        self.sent.saturating_sub(self.confirmed) > PROGRESS_STEP + BLOCK_SIZE_U64
    }
}

/// Opens the chunk on the hops behind; none when this is the last.
pub(super) async fn open_behind(
    ctx: &Arc<Context>,
    open: &OpenChunk,
) -> Result<Option<Behind>, HopFailure> {
    let resumed = open.resume.map_or(0, |resume| resume.length);
    let Some((first, forwarded)) = forwarded(open) else {
        return Ok(None);
    };
    let ChunkWriter { sender, receiver } = ctx.streams.open(first, &forwarded).await?;
    Ok(Some(Behind {
        at: first.clone(),
        sender,
        receiver,
        sent: resumed,
        confirmed: resumed,
        patience: patience(ctx, &forwarded),
    }))
}

/// The next hop and what it is told; none when this is the last.
fn forwarded(open: &OpenChunk) -> Option<(&DatanodeAddress, OpenChunk)> {
    let (first, rest) = open.downstream.split_first()?;
    let forwarded = OpenChunk {
        datanode: first.id,
        downstream: rest.to_vec(),
        ..open.clone()
    };
    Some((first, forwarded))
}

/// How long a hop waits for `hops` behind it to have a chunk durable, when nobody waits as long as
/// `longest`. The longer the chain, the longer: the hop just before the one at fault gives up first, and names it.
pub fn durable_within(longest: Duration, hops: usize) -> Duration {
    let hops = u32::try_from(hops).unwrap_or(u32::MAX - 1);
    longest.mul_f64(f64::from(hops) / f64::from(hops + 1))
}

/// [`durable_within`] of the next hop and those behind it.
fn patience(ctx: &Context, forwarded: &OpenChunk) -> Duration {
    durable_within(ctx.config.durable_within, forwarded.downstream.len() + 1)
}

/// Has a chunk that came whole written on the hops behind; none when this is the last.
pub(super) async fn put_behind(
    ctx: &Context,
    open: &OpenChunk,
    block: &WholeBlock,
) -> Option<Result<SealedReport, HopFailure>> {
    let (first, forwarded) = forwarded(open)?;
    let put = ctx
        .streams
        .put(first, &forwarded, block, patience(ctx, &forwarded))
        .await;
    Some(put)
}

/// Ends when the next hop is silent, with that as its failure; never without a next hop.
pub(super) async fn gone_silent(ctx: &Context, next_hop: Option<&DatanodeAddress>) -> HopFailure {
    match next_hop {
        Some(hop) => ctx.streams.silent_hop(hop).await,
        None => std::future::pending().await,
    }
}

/// A hop that broke the connection may have said before whose fault it was.
pub(super) async fn told_failure(behind: &mut Behind, broken: HopFailure) -> HopFailure {
    let listen = async {
        loop {
            match behind.receiver.next().await {
                Ok(ChunkEvent::Progress(_)) => {}
                Ok(ChunkEvent::Failed(told)) => return Some(told),
                Ok(ChunkEvent::Sealed(_)) | Err(_) => return None,
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(1), listen).await;
    told.ok().flatten().unwrap_or(broken)
}

/// The failure of a hop that lives and takes nothing.
pub(super) fn stalled(id: DatanodeId) -> HopFailure {
    failure(id, HopFault::Unreachable, &"the hop does not take bytes")
}

/// Seals on the hops behind.
pub(super) async fn seal_behind(
    ctx: &Arc<Context>,
    behind: Behind,
    chunk: &SealedChunk,
) -> Result<SealedReport, HopFailure> {
    let Behind {
        at,
        mut sender,
        mut receiver,
        patience,
        ..
    } = behind;
    let exchange = async {
        sender.seal(chunk).await?;
        loop {
            match receiver.next().await? {
                ChunkEvent::Progress(_) => {}
                ChunkEvent::Sealed(report) => return Ok(report),
                ChunkEvent::Failed(failed) => return Err(failed),
            }
        }
    };
    let sealed = tokio::select! {
        sealed = tokio::time::timeout(patience, exchange) => sealed,
        silent = ctx.streams.silent_hop(&at) => return Err(silent),
    };
    let report = sealed.unwrap_or_else(|_| Err(stalled(at.id)))?;
    ctx.streams.put_back(sender, receiver);
    Ok(report)
}
