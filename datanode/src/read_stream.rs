//! Chunks for readers that verify: one connection carries many reads in sequence. An answer is the checksums of its blocks and
//! then their bytes as they lie on the disk, sent from the page cache without a copy (`sendfile`). What is not in
//! memory is read and verified first, as for everybody else. There are no frames between blocks, so that damage or a
//! lost disk can only break the connection: whoever reads goes on from another replica.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::frame_io::{FrameIoError, FrameReader};
use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::frame::{self, FrameHeader, FrameKind, ReadChunk};
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::server::RawStream;
use tokio::io::AsyncWriteExt as _;

use crate::context::Context;
use crate::http::large::Ahead;
use crate::http::read::Place;
use crate::store::{ChunkRead, StoreError};

/// Blocks that are sent, or read, at once: 1 MiB.
const STEP: u64 = 16;
/// How long a reader may take none of what is sent.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one connection until its reader leaves or the datanode ends.
pub async fn serve(ctx: Arc<Context>, stream: RawStream) {
    let mut frames = FrameReader::new(stream);
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(ctx.config.stream_idle, frames.next()) => next,
            () = ctx.shutdown.triggered() => return,
        };
        let Ok(Ok(Some(frame))) = next else { return };
        if frame.header.kind != FrameKind::Read {
            return;
        }
        let Ok(read) = frame::parse::<ReadChunk>(&frame.payload) else {
            return;
        };
        if let Err(error) = answer_traced(&ctx, frames.stream_mut(), &read).await {
            tracing::debug!(chunk = %read.chunk, %error, "a read was broken off");
            return;
        }
    }
}

async fn answer_traced(
    ctx: &Arc<Context>,
    stream: &mut RawStream,
    read: &ReadChunk,
) -> io::Result<()> {
    let Some(parent) = read.trace else {
        return answer(ctx, stream, read).await;
    };
    let (current, mut span) = ctx.config.tracer.work(parent, "read");
    span.text("dfs.chunk", || read.chunk.to_string());
    let answered = Box::pin(current.scope(answer(ctx, stream, read))).await;
    if answered.is_err() {
        span.failed("broken-off");
    }
    answered
}

/// Answers one read. An error ends the connection.
async fn answer(ctx: &Arc<Context>, stream: &mut RawStream, read: &ReadChunk) -> io::Result<()> {
    let begun = begin(ctx, read).await;
    let (place, reader) = match begun {
        Ok(begun) => begun,
        Err(problem) => {
            let refused = frame::control(FrameKind::Refused, &problem);
            let refused = refused.ok_or(io::ErrorKind::InvalidData)?;
            return within(stream.write_all(&refused)).await;
        }
    };
    let table = reader.checksums(read.blocks());
    let head = FrameHeader::describe(FrameKind::Checksums, read.start, &table).encode();
    within(stream.write_all(&[&head[..], &table].concat())).await?;
    let mut sending = Sending {
        ctx,
        reader: &reader,
        next: read.blocks().start,
        end: read.blocks().end,
        ahead: Ahead::new(read.blocks().end),
    };
    let sent = sending.run(stream).await;
    drop(place);
    sent
}

/// A place among the reads, and the replica.
async fn begin(
    ctx: &Arc<Context>,
    read: &ReadChunk,
) -> Result<(Place, Arc<dyn ChunkRead>), Problem> {
    ctx.readable()?;
    let place = Place::of(ctx)?;
    let (id, version) = (read.chunk, read.version);
    let opened = ctx.blocking(move |ctx| ctx.store.open(id, version)).await?;
    let reader = opened.map_err(Problem::from)?;
    if !read.is_within(reader.header().chunk.length) {
        let detail = "the chunk does not have these blocks";
        return Err(Problem::new(ErrorCode::RangeNotSatisfiable, detail));
    }
    Ok((place, reader))
}

/// An answer on its way.
struct Sending<'a> {
    ctx: &'a Arc<Context>,
    reader: &'a Arc<dyn ChunkRead>,
    next: u64,
    end: u64,
    ahead: Ahead,
}

impl Sending<'_> {
    async fn run(&mut self, stream: &mut RawStream) -> io::Result<()> {
        while self.next < self.end {
            let step = self.next..self.end.min(self.next + STEP);
            self.next = step.end;
            if self.reader.is_in_memory(step.clone()) {
                self.send(stream, step).await?;
            } else {
                self.read_and_send(stream, step).await?;
            }
        }
        Ok(())
    }
}
