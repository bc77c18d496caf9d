//! Chunks for readers that verify: one connection carries many reads in sequence. An answer is the checksums of its blocks and
//! then their bytes as they lie on the disk, sent from the page cache without a copy (`sendfile`). What is not in
//! memory is read and verified first, as for everybody else. There are no frames between blocks, so that damage or a
//! lost disk can only break the connection: whoever reads goes on from another replica.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::frame_io::FrameReader;
use dfs_protocol::frame::{self, FrameHeader, FrameKind, ReadChunk};
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::disk::{DiskFile, is_of_a_file};
use dfs_runtime::server::RawStream;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::http::large::Ahead;
use crate::http::read::Place;
use crate::store::{Block, ChunkRead, StoreError};

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
        frames.rest();
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
        reading: None,
        is_cold: false,
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
    if read.datanode != ctx.id() {
        ctx.metrics.wrong_datanode.inc();
        let detail = format!("this is datanode {}", ctx.id());
        return Err(Problem::new(ErrorCode::WrongDatanode, detail)
            .next("ask the tracker for the datanode's present address"));
    }
    ctx.readable()?;
    let place = Place::take(ctx)?;
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
    /// The step at `next`, where it is being read.
    reading: Option<JoinHandle<Step>>,
    /// Something was not in memory: the disk is kept busy from then on.
    is_cold: bool,
    ahead: Ahead,
}

type Step = Result<Vec<Block>, StoreError>;

impl Sending<'_> {
    async fn run(&mut self, stream: &mut RawStream) -> io::Result<()> {
        while self.next < self.end {
            let step = self.step();
            let reading = self.reading.take();
            let reader = Arc::clone(self.reader);
            match reader.in_memory(step.clone()) {
                Some((file, place)) if reading.is_none() => {
                    self.next = step.end;
                    self.look_ahead();
                    self.send(stream, file, place, step).await?;
                }
                Some(_) | None => {
                    let reading = reading.unwrap_or_else(|| self.read(step.clone()));
                    self.next = step.end;
                    self.send_read(stream, reading).await?;
                }
            }
        }
        Ok(())
    }

    /// Blocks of the step at `next`.
    fn step(&self) -> Range<u64> {
        self.next..self.end.min(self.next + STEP)
    }

    async fn send(
        &self,
        stream: &mut RawStream,
        file: &dyn DiskFile,
        place: Range<u64>,
        step: Range<u64>,
    ) -> io::Result<()> {
        if let Err(error) = send(stream, file, &place).await {
            if is_of_a_file(&error) {
                self.look_at(step).await;
            }
            return Err(error);
        }
        let bytes = place.end - place.start;
        self.ctx.metrics.read_bytes.inc_by(bytes);
        self.ctx.metrics.uncopied_read_bytes.inc_by(bytes);
        Ok(())
    }

    /// Sends a step that had to be read. The next one is read meanwhile, if it must be.
    async fn send_read(
        &mut self,
        stream: &mut RawStream,
        reading: JoinHandle<Step>,
    ) -> io::Result<()> {
        let blocks = reading.await.map_err(io::Error::other)?;
        let blocks = blocks.map_err(|error| io::Error::other(error.describe()))?;
        let next = self.step();
        if !next.is_empty() && self.reader.in_memory(next.clone()).is_none() {
            self.reading = Some(self.read(next));
        }
        for block in blocks {
            within(stream.write_all(&block.data)).await?;
            let bytes = block.data.len() as u64;
            self.ctx.metrics.read_bytes.inc_by(bytes);
        }
        Ok(())
    }

    /// Asks the disk for what comes behind `next`, if it is about to be needed from there.
    fn look_ahead(&mut self) {
        let beyond = if self.is_cold {
            self.ahead.beyond(self.next)
        } else {
            0..0
        };
        if !beyond.is_empty() {
            let reader = Arc::clone(self.reader);
            tokio::task::spawn_blocking(move || reader.read_ahead(beyond));
        }
    }

    /// Reads and verifies a step on a blocking thread. What comes behind it on the disk is asked for, too.
    fn read(&mut self, step: Range<u64>) -> JoinHandle<Step> {
        self.is_cold = true;
        let beyond = self.ahead.beyond(step.end);
        let reader = Arc::clone(self.reader);
        tokio::task::spawn_blocking(move || {
            if !beyond.is_empty() {
                reader.read_ahead(beyond);
            }
            reader.blocks(step.start, step.end - step.start)
        })
    }

    /// Bytes could not be sent: whether they can be read decides what becomes of the replica.
    async fn look_at(&self, step: Range<u64>) {
        let reader = Arc::clone(self.reader);
        let looked = move |_: &Context| reader.blocks(step.start, step.end - step.start).map(drop);
        match self.ctx.blocking(looked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = error.describe(), "a chunk cannot be sent"),
            Err(problem) => tracing::warn!(%problem, "cannot look at a chunk"),
        }
    }
}

/// Sends a part of a file that is in memory.
async fn send(stream: &mut RawStream, file: &dyn DiskFile, place: &Range<u64>) -> io::Result<()> {
    let mut at = place.start;
    while at < place.end {
        let left = usize::try_from(place.end - at).unwrap_or(usize::MAX);
        match within(stream.send_file(file, at, left)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => at += sent as u64,
        }
    }
    Ok(())
}

/// Gives a reader so long to take something.
async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(PEER_TIMEOUT, work).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
