//! Chunks for readers that verify: one connection carries many reads in sequence. An answer is the checksums of its blocks and
//! then their bytes as they lie on the disk, sent from the page cache without a copy (`sendfile`). What is not in
//! memory is read and verified first, as for everybody else, and so are small packed chunks, which go out with the checksums. There
//! are no frames between blocks, so that damage or a lost disk can only break the connection: whoever reads goes on from
//! another replica.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Buf as _;
use dfs_client::frame_io::FrameReader;
use dfs_protocol::frame::{self, FrameHeader, FrameKind, ReadChunk};
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::disk::{DiskFile, is_of_a_file};
use dfs_runtime::server::RawStream;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::reads::{Ahead, Place, STEP, Step};
use crate::store::{Block, ChunkRead};

/// Room for a request: most fill a fifth of it.
const REQUEST: usize = 1024;

/// Serves one connection until its reader leaves or the datanode ends.
pub async fn serve(ctx: Arc<Context>, stream: RawStream) {
    let mut frames = FrameReader::new(stream);
    frames.expect(REQUEST);
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
    let (place, reader) = match begin(ctx, read).await {
        Ok((place, Found::Whole(blocks))) => {
            let sent = send_whole(ctx, stream, read, blocks).await;
            drop(place);
            return sent;
        }
        Ok((place, Found::Open(reader))) => (place, reader),
        Err(problem) => {
            let refused = frame::control(FrameKind::Refused, &problem);
            let refused = refused.ok_or(io::ErrorKind::InvalidData)?;
            return stream.write_all(&refused).await;
        }
    };
    let table = reader.checksums(read.blocks());
    stream.write_all(&checksums(read, &table)).await?;
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

/// A replica that is to be read.
enum Found {
    /// In memory: its blocks.
    Whole(Vec<Block>),
    Open(Arc<dyn ChunkRead>),
}

/// A place among the reads, and the replica.
async fn begin(ctx: &Arc<Context>, read: &ReadChunk) -> Result<(Place, Found), Problem> {
    ctx.is_meant(Some(read.datanode))?;
    ctx.readable()?;
    let place = Place::take(ctx)?;
    let (id, version) = (read.chunk, read.version);
    let (length, found) = if let Some(small) = ctx.store.read_now(id, version) {
        (small.header.chunk.length, Found::Whole(small.blocks))
    } else {
        let reader = if let Some(reader) = ctx.store.kept(id, version) {
            reader
        } else {
            let open = move |ctx: &Context| ctx.store.open_to_keep(id, version);
            ctx.blocking(open).await?.map_err(Problem::from)?
        };
        (reader.header().chunk.length, Found::Open(reader))
    };
    if !read.is_within(length) {
        let detail = "the chunk does not have these blocks";
        return Err(Problem::new(ErrorCode::RangeNotSatisfiable, detail));
    }
    Ok((place, found))
}

/// Sends checksums and blocks of a chunk that is in memory, as one write where it is one block.
async fn send_whole(
    ctx: &Context,
    stream: &mut RawStream,
    read: &ReadChunk,
    blocks: Vec<Block>,
) -> io::Result<()> {
    let wanted = |block: &Block| (read.start..read.end).contains(&block.offset);
    let blocks: Vec<_> = blocks.into_iter().filter(wanted).collect();
    let table = blocks.iter().flat_map(|block| block.crc32c.to_le_bytes());
    let mut head = checksums(read, &table.collect::<Vec<_>>());
    for block in blocks {
        let bytes = block.data.len() as u64;
        let mut answer = (&head[..]).chain(block.data);
        stream.write_all_buf(&mut answer).await?;
        ctx.metrics.read_bytes.inc_by(bytes);
        head.clear();
    }
    Ok(())
}

/// What an answer begins with.
fn checksums(read: &ReadChunk, table: &[u8]) -> Vec<u8> {
    let head = FrameHeader::describe(FrameKind::Checksums, read.start, table).encode();
    [&head[..], table].concat()
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

impl Sending<'_> {
    async fn run(&mut self, stream: &mut RawStream) -> io::Result<()> {
        while self.next < self.end {
            let step = self.step();
            if let Some(reading) = self.reading.take() {
                self.next = step.end;
                self.send_read(stream, reading, 0).await?;
                continue;
            }
            let reader = Arc::clone(self.reader);
            if let Some((file, place)) = reader.in_memory(step.clone()) {
                self.next = step.end;
                self.look_ahead();
                self.send(stream, file, place, step).await?;
            } else {
                self.reading = Some(self.read(step));
            }
        }
        Ok(())
    }

    /// Blocks of the step at `next`.
    fn step(&self) -> Range<u64> {
        self.next..self.end.min(self.next + STEP)
    }

    async fn send(
        &mut self,
        stream: &mut RawStream,
        file: &dyn DiskFile,
        place: Range<u64>,
        step: Range<u64>,
    ) -> io::Result<()> {
        let sent = match send_in_memory(stream, file, &place).await {
            Ok(sent) => sent,
            Err(error) => {
                if is_of_a_file(&error) {
                    self.look_at(step).await;
                }
                return Err(error);
            }
        };
        self.ctx.metrics.read_bytes.inc_by(sent);
        self.ctx.metrics.uncopied_read_bytes.inc_by(sent);
        if sent < place.end - place.start {
            // Its reader is so slow that it left memory meanwhile.
            let reading = self.read(step);
            self.send_read(stream, reading, sent).await?;
        }
        Ok(())
    }

    /// Sends a step that had to be read, but for the bytes at its beginning that were `sent` before. The next one is read meanwhile, if it
    /// must be.
    async fn send_read(
        &mut self,
        stream: &mut RawStream,
        reading: JoinHandle<Step>,
        mut sent: u64,
    ) -> io::Result<()> {
        let blocks = reading.await.map_err(io::Error::other)?;
        let blocks = blocks.map_err(|error| io::Error::other(error.describe()))?;
        let next = self.step();
        if !next.is_empty() && self.reader.in_memory(next.clone()).is_none() {
            self.reading = Some(self.read(next));
        }
        for Block { mut data, .. } in blocks {
            let skipped = sent.min(data.len() as u64);
            sent -= skipped;
            data.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
            stream.write_all(&data).await?;
            self.ctx.metrics.read_bytes.inc_by(data.len() as u64);
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

/// Sends a part of a file that is in memory, up to where it is not any more.
async fn send_in_memory(
    stream: &mut RawStream,
    file: &dyn DiskFile,
    place: &Range<u64>,
) -> io::Result<u64> {
    let mut at = place.start;
    while at < place.end {
        let left = usize::try_from(place.end - at).unwrap_or(usize::MAX);
        match stream.send_file(file, at, left).await? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(sent) => at += sent as u64,
            None if file.is_in_memory(at, place.end - at) => {}
            None => break,
        }
    }
    Ok(at - place.start)
}
