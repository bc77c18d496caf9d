//! The receiving end of chunk write streams: one connection carries many chunks in sequence, each
//! written here and forwarded along the chain.

mod behind;
pub mod chunk;
pub mod disk;
pub mod puts;
mod whole;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole_tests;

use std::sync::Arc;
use std::time::Duration;

use dfs_client::frame_io::{FrameReader, FrameWriter};
use dfs_client::write_stream::failure;
use dfs_protocol::frame::{self, FrameKind, HopFailure, HopFault, OpenChunk};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tracing::Instrument as _;

use crate::context::Context;

pub use behind::durable_within;

/// How long a peer that lives may take to accept a frame.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// The two halves of a stream's connection.
#[derive(Debug)]
pub struct Upstream<S> {
    /// From the writer.
    pub frames: FrameReader<ReadHalf<S>>,
    /// To the writer.
    pub answers: FrameWriter<WriteHalf<S>>,
    /// Chunks that failed on it.
    pub failed: u64,
}

/// What becomes of the connection after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next chunk may come.
    Continue,
    /// The connection is of no use.
    Close,
}

/// Serves one connection until its writer leaves, has nothing to write for too long, or the datanode ends.
pub async fn serve<S: AsyncRead + AsyncWrite + Send>(ctx: Arc<Context>, stream: S) {
    let (read, write) = tokio::io::split(stream);
    let mut upstream = Upstream {
        frames: FrameReader::new(read),
        answers: FrameWriter::new(write),
        failed: 0,
    };
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(ctx.config.stream_idle, upstream.frames.next()) => frame,
            () = ctx.shutdown.triggered() => return,
        };
        let frame = match frame {
            Ok(Ok(Some(frame))) => frame,
            // Writers close theirs earlier: this one may be gone without a word.
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a write stream ended");
                return;
            }
        };
        let next = match frame.header.kind {
            kind @ (FrameKind::Open | FrameKind::Whole) => match frame::parse(&frame.payload) {
                Ok(open) => Box::pin(receive(&ctx, &mut upstream, kind, open)).await,
                Err(error) => {
                    let failed = failure(ctx.id(), HopFault::Protocol, &error);
                    upstream.fail(&ctx, &failed).await
                }
            },
            // The rest of a chunk that failed: its writer had not heard yet.
            FrameKind::Block | FrameKind::Seal | FrameKind::Abort => Next::Continue,
            FrameKind::Opened
            | FrameKind::Progress
            | FrameKind::Sealed
            | FrameKind::Failed
            | FrameKind::End
            | FrameKind::Read
            | FrameKind::Checksums
            | FrameKind::Refused => Next::Close,
        };
        if next == Next::Close {
            return;
        }
    }
}

/// Receives one chunk, as part of the request that writes it.
async fn receive<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Arc<Context>,
    upstream: &mut Upstream<S>,
    kind: FrameKind,
    open: OpenChunk,
) -> Next {
    let Some(parent) = open.trace else {
        return receive_as(ctx, upstream, kind, open).await;
    };
    let (current, mut span) = ctx.config.tracer.work(parent, "write");
    span.text("dfs.chunk", || open.chunk.to_string());
    let log = tracing::info_span!("chunk", trace = %parent.trace, chunk = %open.chunk);
    let before = upstream.failed;
    let received = receive_as(ctx, upstream, kind, open).instrument(log);
    let next = Box::pin(current.scope(received)).await;
    if upstream.failed > before {
        span.failed("hop-failed");
    }
    next
}

async fn receive_as<S: AsyncRead + AsyncWrite + Send>(
    ctx: &Arc<Context>,
    upstream: &mut Upstream<S>,
    kind: FrameKind,
    open: OpenChunk,
) -> Next {
    if kind == FrameKind::Whole {
        whole::receive(ctx, upstream, open).await
    } else {
        chunk::receive(ctx, upstream, open).await
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Upstream<S> {
    /// Sends whole frames; false when the writer is gone or does not listen.
    pub async fn send(&mut self, frames: &[u8]) -> bool {
        let sent = tokio::time::timeout(PEER_TIMEOUT, self.answers.raw(frames)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Tells the writer that the chunk failed.
    pub async fn fail(&mut self, ctx: &Context, failed: &HopFailure) -> Next {
        self.failed += 1;
        ctx.metrics.hop_fault(failed.cause).inc();
        tracing::info!(
            datanode = %failed.datanode, cause = failed.cause.as_str(), detail = failed.detail,
            "a chunk write failed"
        );
        match frame::control(FrameKind::Failed, failed) {
            Some(frame) if self.send(&frame).await => Next::Continue,
            Some(_) | None => Next::Close,
        }
    }
}
