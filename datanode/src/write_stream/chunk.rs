//! One chunk of a write stream, from `Open` to `Sealed` or `Failed`.

use std::sync::Arc;

use dfs_client::frame_io::{Frame, FrameIoError};
use dfs_client::write_stream::{ChunkEvent, failure};
use dfs_protocol::chunk::{BLOCK_SIZE_U64, Replica, SealedChunk};
use dfs_protocol::frame::{
    self, FrameKind, HopFailure, HopFault, OpenChunk, PROGRESS_STEP, SealedReport,
};
use dfs_protocol::{DatanodeId, ErrorCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::behind::{Behind, gone_silent, open_behind, seal_behind, stalled, told_failure};
use super::disk::{Begin, DiskOrder, DiskWrite, begin};
use super::{Next, PEER_TIMEOUT, Upstream};
use crate::attempts::Active;
use crate::context::Context;
use crate::store::{NewChunk, StoreError};

/// Longest chain.
const MAX_HOPS: usize = 16;

/// A chunk that is open here and behind.
struct Write {
    active: Active,
    disk: DiskWrite,
    behind: Option<Behind>,
    _permit: OwnedSemaphorePermit,
}

/// How the body of a chunk ended.
enum BodyEnd {
    /// The writer wants it sealed.
    Seal(SealedChunk),
    /// The writer wants it dropped.
    Abort,
    /// The writer is gone, or has come back on another connection: kept for resume.
    WriterGone,
    /// A hop failed: kept for resume.
    Failed(HopFailure),
}

/// Receives one chunk.
pub async fn receive<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Arc<Context>,
    upstream: &mut Upstream<S>,
    open: OpenChunk,
) -> Next {
    let opened = open_chain(ctx, &open).await;
    let mut write = match opened {
        Ok(write) => write,
        Err(failed) => return upstream.fail(ctx, &failed).await,
    };
    ctx.metrics.write_streams.inc();
    let next = if upstream.send(&frame::signal(FrameKind::Opened, 0)).await {
        let end = body(ctx, upstream, &mut write).await;
        finish(ctx, upstream, write, end).await
    } else {
        park(ctx, write).await;
        Next::Close
    };
    ctx.metrics.write_streams.dec();
    next
}

async fn finish<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Arc<Context>,
    upstream: &mut Upstream<S>,
    mut write: Write,
    end: BodyEnd,
) -> Next {
    match end {
        BodyEnd::Seal(chunk) => match seal(ctx, write, chunk).await {
            Ok(report) => match frame::control(FrameKind::Sealed, &report) {
                Some(frame) if upstream.send(&frame).await => Next::Continue,
                Some(_) | None => Next::Close,
            },
            Err(failed) => upstream.fail(ctx, &failed).await,
        },
        BodyEnd::Abort => {
            if let Some(behind) = &mut write.behind {
                // A hop that does not hear it drops its attempt when the lease is over.
                let abort = behind.sender.abort();
                let _unheard = tokio::time::timeout(PEER_TIMEOUT, abort).await;
            }
            if let Ok(Some(staged)) = write.disk.leave().await {
                ctx.discard([staged]);
            }
            Next::Continue
        }
        BodyEnd::WriterGone => {
            park(ctx, write).await;
            Next::Close
        }
        BodyEnd::Failed(failed) => {
            // First: a writer that hears of the failure may resume at once.
            let failed = park(ctx, write).await.unwrap_or(failed);
            upstream.fail(ctx, &failed).await
        }
    }
}

/// Checks the order, then opens the chunk here and on the hops behind, both at once.
async fn open_chain(ctx: &Arc<Context>, open: &OpenChunk) -> Result<Write, HopFailure> {
    let own = ctx.id();
    check(ctx, open).await?;
    let permit = Arc::clone(&ctx.writes).try_acquire_owned().map_err(|_| {
        ctx.metrics.refused_busy.inc();
        failure(own, HopFault::Busy, &"too many chunks are being written")
    })?;
    let own_failure = |error: StoreError| failure(own, error.fault(), &error.describe());
    let resumed = match &open.resume {
        Some(resume) => Some((take_resumed(ctx, open).await?, *resume)),
        None => None,
    };
    let Some((active, older)) = ctx.attempts.enter((open.chunk, open.version)) else {
        let (chunk, version) = (open.chunk, open.version);
        return Err(own_failure(StoreError::InProgress { chunk, version }));
    };
    let how = match resumed {
        Some((staged, resume)) => {
            ctx.discard(older);
            Begin::Resumed(staged, open.version, resume)
        }
        None => Begin::Fresh(new_chunk(open), older),
    };
    let (disk, behind) = tokio::join!(begin(Arc::clone(&ctx.store), how), open_behind(ctx, open));
    let disk = disk.map_err(own_failure)?;
    let write = |behind| Write {
        active,
        disk,
        behind,
        _permit: permit,
    };
    match behind {
        Ok(behind) => Ok(write(behind)),
        Err(failed) => {
            // Bytes that were confirmed before stay for the next try.
            park(ctx, write(None)).await;
            Err(failed)
        }
    }
}

/// Whether this datanode may take the chunk: its identity, its cluster and the tracker's fence.
pub(super) async fn check(ctx: &Arc<Context>, open: &OpenChunk) -> Result<(), HopFailure> {
    let own = ctx.id();
    let refuse = |cause, detail: &dyn std::fmt::Display| Err(failure(own, cause, detail));
    if open.datanode != own {
        ctx.metrics.wrong_datanode.inc();
        let detail = format!("this is datanode {own}, not {}", open.datanode);
        return refuse(HopFault::WrongDatanode, &detail);
    }
    let cluster = match ctx.admitted() {
        Ok(cluster) => cluster,
        Err(problem) => return refuse(HopFault::Busy, &problem),
    };
    if open.cluster != cluster {
        let detail = format!("this datanode belongs to cluster {cluster}");
        return refuse(HopFault::WrongDatanode, &detail);
    }
    if open.downstream.len() >= MAX_HOPS {
        return refuse(HopFault::Protocol, &"the chain is too long");
    }
    match ctx.accept(open.fence).await {
        Ok(()) => Ok(()),
        Err(problem) if problem.is(ErrorCode::Fenced) => refuse(HopFault::Fenced, &problem),
        Err(problem) => refuse(HopFault::Disk, &problem),
    }
}

/// The attempt to go on with: any of the writer's from the named version on. A later one comes
/// from a resume that a hop behind this one could not follow; it has the same bytes.
async fn take_resumed(
    ctx: &Arc<Context>,
    open: &OpenChunk,
) -> Result<Box<dyn crate::store::StagedChunk>, HopFailure> {
    let from = open.resume.map_or(open.version, |resume| resume.version);
    let taken = ctx.attempts.take(open.chunk, from, open.version).await;
    if let Some(staged) = taken {
        return Ok(staged);
    }
    let sealed = ctx.store.index().versions(open.chunk);
    let error = match sealed.iter().find(|r| r.chunk.version >= from) {
        Some(replica) => StoreError::AlreadySealed {
            chunk: open.chunk,
            version: replica.chunk.version,
        },
        None => StoreError::CannotResume {
            chunk: open.chunk,
            length: open.resume.map_or(0, |resume| resume.length),
            have: 0,
        },
    };
    Err(failure(ctx.id(), error.fault(), &error))
}

pub(super) fn new_chunk(open: &OpenChunk) -> NewChunk {
    NewChunk {
        cluster: open.cluster,
        id: open.chunk,
        version: open.version,
        origin: open.origin.clone(),
        expected: open.expected,
    }
}

/// Keeps what is here for resume. Returns the disk's own failure, if that is why it ended.
async fn park(ctx: &Arc<Context>, write: Write) -> Option<HopFailure> {
    let Write {
        active,
        disk,
        behind,
        _permit,
    } = write;
    // Broken towards the hops behind: they keep what they have as well.
    drop(behind);
    match disk.leave().await {
        Ok(Some(staged)) => {
            let gone = ctx.attempts.park(active, staged);
            ctx.discard(gone);
            None
        }
        Ok(None) => None,
        Err(error) => Some(failure(ctx.id(), error.fault(), &error.describe())),
    }
}

/// Takes blocks until the writer ends the chunk or something breaks.
async fn body<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Arc<Context>,
    upstream: &mut Upstream<S>,
    write: &mut Write,
) -> BodyEnd {
    let own = ctx.id();
    let mut told = *write.disk.written.borrow();
    let next_hop = write.behind.as_ref().map(|hop| hop.at.clone());
    loop {
        let owed = write.behind.as_ref().is_some_and(Behind::owes);
        tokio::select! {
            frame = tokio::time::timeout(ctx.config.stream_idle, upstream.frames.next()) => {
                match frame {
                    Ok(Ok(Some(frame))) => {
                        if let Some(end) = take(ctx, write, frame).await {
                            return end;
                        }
                    }
                    Ok(Ok(None) | Err(FrameIoError::Io(_))) | Err(_) => {
                        return BodyEnd::WriterGone;
                    }
                    Ok(Err(FrameIoError::Frame(error))) => {
                        return BodyEnd::Failed(failure(own, HopFault::Corrupt, &error));
                    }
                }
            }
            event = next_event(&mut write.behind) => {
                if let Some(failed) = hear(event, write) {
                    return BodyEnd::Failed(failed);
                }
            }
            written = write.disk.written.changed() => {
                if written.is_err() {
                    // The disk thread ended: parking finds out why.
                    return BodyEnd::Failed(failure(own, HopFault::Disk, &"the disk failed"));
                }
            }
            () = write.active.stopped() => return BodyEnd::WriterGone,
            silent = gone_silent(ctx, next_hop.as_ref()), if owed => {
                return BodyEnd::Failed(silent);
            }
        }
        let confirmed = confirmed(write);
        write.active.progress(confirmed);
        // At each whole MiB: a writer whose window is full waits for exactly that.
        if confirmed / PROGRESS_STEP > told / PROGRESS_STEP {
            told = confirmed / BLOCK_SIZE_U64 * BLOCK_SIZE_U64;
            if !upstream
                .send(&frame::signal(FrameKind::Progress, told))
                .await
            {
                return BodyEnd::WriterGone;
            }
        }
    }
}

/// Bytes that this hop and every one behind it have.
fn confirmed(write: &Write) -> u64 {
    let own = *write.disk.written.borrow();
    write
        .behind
        .as_ref()
        .map_or(own, |behind| own.min(behind.confirmed))
}

/// Hands a frame of the writer to the disk and to the next hop.
async fn take(ctx: &Context, write: &mut Write, frame: Frame) -> Option<BodyEnd> {
    let own = ctx.id();
    let Frame { header, payload } = frame;
    match header.kind {
        FrameKind::Block => {}
        FrameKind::Seal => {
            return Some(match frame::parse(&payload) {
                Ok(chunk) => BodyEnd::Seal(chunk),
                Err(error) => BodyEnd::Failed(failure(own, HopFault::Protocol, &error)),
            });
        }
        FrameKind::Abort => return Some(BodyEnd::Abort),
        FrameKind::Open
        | FrameKind::Whole
        | FrameKind::Opened
        | FrameKind::Progress
        | FrameKind::Sealed
        | FrameKind::Failed
        | FrameKind::End
        | FrameKind::Read
        | FrameKind::Checksums
        | FrameKind::Refused => {
            let detail = "a frame came that has no place within a chunk";
            return Some(BodyEnd::Failed(failure(own, HopFault::Protocol, &detail)));
        }
    }
    ctx.metrics.received_bytes.inc_by(payload.len() as u64);
    let order = DiskOrder::Block {
        offset: header.offset,
        crc32c: header.crc32c,
        data: payload.clone(),
    };
    // The wait for a place in the queue is what slows a writer down to the disk's speed.
    if write.disk.orders.send(order).await.is_err() {
        return Some(BodyEnd::Failed(failure(
            own,
            HopFault::Disk,
            &"the disk failed",
        )));
    }
    let behind = write.behind.as_mut()?;
    let block = behind.sender.block(header.offset, header.crc32c, &payload);
    let sent = tokio::select! {
        sent = tokio::time::timeout(PEER_TIMEOUT, block) => sent,
        silent = ctx.streams.silent_hop(&behind.at) => return Some(BodyEnd::Failed(silent)),
    };
    match sent {
        Ok(Ok(())) => {
            behind.sent = header.offset + payload.len() as u64;
            None
        }
        Ok(Err(failed)) => Some(BodyEnd::Failed(told_failure(behind, failed).await)),
        Err(_) => Some(BodyEnd::Failed(stalled(behind.at.id))),
    }
}

async fn next_event(behind: &mut Option<Behind>) -> Result<ChunkEvent, HopFailure> {
    match behind {
        Some(behind) => behind.receiver.next().await,
        None => std::future::pending().await,
    }
}

fn hear(event: Result<ChunkEvent, HopFailure>, write: &mut Write) -> Option<HopFailure> {
    let behind = write.behind.as_mut()?;
    match event {
        Ok(ChunkEvent::Progress(offset)) => {
            behind.confirmed = behind.confirmed.max(offset);
            None
        }
        Ok(ChunkEvent::Failed(failed)) | Err(failed) => Some(failed),
        Ok(ChunkEvent::Sealed(_)) => {
            let detail = "the hop sealed before it was asked to";
            Some(failure(behind.at.id, HopFault::Protocol, &detail))
        }
    }
}

/// Seals here and behind at once. Fails only when no hop from here on sealed.
async fn seal(
    ctx: &Arc<Context>,
    write: Write,
    chunk: SealedChunk,
) -> Result<SealedReport, HopFailure> {
    let own = ctx.id();
    let Write {
        active,
        disk,
        behind,
        _permit,
    } = write;
    let (own_end, behind_end) = tokio::join!(seal_own(own, disk, chunk), async {
        match behind {
            Some(behind) => Some(seal_behind(ctx, behind, &chunk).await),
            None => None,
        }
    });
    drop(active);
    reported(ctx, chunk, own_end, behind_end)
}

/// What both ends of a chain's rest come to. Fails only when no hop from here on sealed.
pub(super) fn reported(
    ctx: &Context,
    chunk: SealedChunk,
    own_end: Result<Replica, HopFailure>,
    behind_end: Option<Result<SealedReport, HopFailure>>,
) -> Result<SealedReport, HopFailure> {
    let own = ctx.id();
    let mut report = SealedReport {
        chunk,
        replicas: Vec::new(),
        failed: Vec::new(),
    };
    match own_end {
        Ok(_) => report.replicas.push(own),
        Err(failed) => report.failed.push(failed),
    }
    match behind_end {
        Some(Ok(behind)) => {
            report.replicas.extend(behind.replicas);
            report.failed.extend(behind.failed);
        }
        Some(Err(failed)) => report.failed.push(failed),
        None => {}
    }
    if report.replicas.is_empty() {
        let failed = report.failed.into_iter().next();
        return Err(failed.unwrap_or_else(|| failure(own, HopFault::Disk, &"nothing was sealed")));
    }
    for failed in &report.failed {
        ctx.metrics.hop_fault(failed.cause).inc();
    }
    Ok(report)
}

async fn seal_own(
    own: DatanodeId,
    disk: DiskWrite,
    chunk: SealedChunk,
) -> Result<Replica, HopFailure> {
    let sealed = disk.seal(chunk).await;
    sealed.map_err(|error| failure(own, error.fault(), &error.describe()))
}
