//! `GET /download-chunk`: a replica's bytes, or its blocks with their checksums. Damage that shows
//! after the head was sent breaks the connection; there is never a clean short body (I5).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dfs_client::write_stream::failure;
use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::frame::{self, BLOCK_STREAM_MEDIA_TYPE, FrameHeader, FrameKind};
use dfs_protocol::repair::RepairLane;
use dfs_protocol::routes::{CHUNK_ORIGIN_HEADER, REPAIR_LANE_HEADER};
use dfs_protocol::{ChunkId, ChunkVersion, ErrorCode, Problem};
use dfs_runtime::problem::{ApiQuery, ProblemResponse};
use futures_util::stream;
use http::header::{ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::Ctx;
use super::framed::framed_length;
use super::range::{Wanted, parse};
use crate::context::Context;
use crate::metrics::Direction;
use crate::reads::{Ahead, Place, STEP, Step};
use crate::store::{Block, ChunkRead, RecordHeader, SmallChunk, StoreError};

/// Which replica.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    id: ChunkId,
    version: Option<ChunkVersion>,
}

/// Returns one replica, or a range of it.
pub async fn download(
    State(ctx): Ctx,
    ApiQuery(query): ApiQuery<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    ctx.readable()?;
    let place = Place::take(&ctx)?;
    let newest = || ctx.store.index().versions(query.id).pop();
    let version = query
        .version
        .or_else(|| newest().map(|replica| replica.chunk.version))
        .unwrap_or(ChunkVersion::FIRST);
    let as_blocks = wants_blocks(&headers);
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let lane = headers.get(REPAIR_LANE_HEADER);
    let lane = lane.map(|value| RepairLane::from_header(value.as_bytes()));
    // What is read for repair waits for its bandwidth on the way, whatever its size.
    if lane.is_none()
        && let Some(small) = ctx.store.read_now(query.id, version)
    {
        return Ok(small_answer(&ctx, small, range, as_blocks, place));
    }
    let range = range.map(str::to_owned);
    let begun = ctx
        .blocking(move |ctx| begin(ctx, (query.id, version), range.as_deref(), as_blocks))
        .await?;
    let Begun {
        reader,
        wanted,
        first,
    } = begun.map_err(Problem::from)?;
    let header = reader.header().clone();
    let Some(answer) = Answer::of(&header, wanted, as_blocks) else {
        return Ok(unsatisfiable(header.chunk.length));
    };
    let steps = Steps::over(&answer.range);
    let framed = framed_length(&(steps.next..steps.end.max(steps.next)), answer.length);
    let mut reading = Reading {
        ctx,
        reader,
        range: answer.range.clone(),
        as_blocks,
        beyond: Ahead::new(steps.end),
        steps,
        ahead: None,
        left: framed,
        ready: VecDeque::new(),
        done: false,
        lane,
        place,
    };
    // The first blocks before the head: damage there is a clean refusal.
    reading.begin_with(first);
    if reading.done && lane.is_none() {
        let pieces = Pieces::new(reading.ready.into_iter().flatten(), reading.place);
        return Ok(answer.with(Body::new(pieces)));
    }
    let body = Body::from_stream(stream::unfold(reading, Reading::next));
    let mut response = answer.with(body);
    if as_blocks {
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(framed));
    }
    Ok(response)
}

/// A replica that is open, with the first step of what is wanted.
struct Begun {
    reader: Arc<dyn ChunkRead>,
    wanted: Wanted,
    first: Vec<Block>,
}

/// Opens a replica and reads the first step, in one go: a small read is one visit of a blocking thread.
fn begin(
    ctx: &Context,
    (id, version): (ChunkId, ChunkVersion),
    range: Option<&str>,
    as_blocks: bool,
) -> Result<Begun, StoreError> {
    let reader = ctx.store.open(id, version)?;
    let wanted = parse(range, reader.header().chunk.length);
    let first = match Answer::of(reader.header(), wanted.clone(), as_blocks) {
        None => Vec::new(),
        Some(answer) => {
            let Steps { next, end } = Steps::over(&answer.range);
            reader.blocks(next, STEP.min(end - next))?
        }
    };
    Ok(Begun {
        reader,
        wanted,
        first,
    })
}

/// The answer to a request for a chunk that is in memory.
fn small_answer(
    ctx: &Context,
    small: SmallChunk,
    range: Option<&str>,
    as_blocks: bool,
    place: Place,
) -> Response {
    let SmallChunk { header, blocks } = small;
    let wanted = parse(range, header.chunk.length);
    let Some(answer) = Answer::of(&header, wanted, as_blocks) else {
        return unsatisfiable(header.chunk.length);
    };
    let Steps { next, end } = Steps::over(&answer.range);
    let mut pieces = Vec::new();
    for block in (0..)
        .zip(blocks)
        .filter(|(index, _)| (next..end).contains(index))
    {
        let (_, block) = block;
        ctx.metrics.read_bytes.inc_by(block.data.len() as u64);
        push_block(&mut pieces, block, &answer.range, as_blocks);
    }
    if as_blocks {
        pieces.push(end_mark(&answer.range));
    }
    answer.with(Body::new(Pieces::new(pieces, place)))
}

/// The head of an answer that has a body.
struct Answer {
    /// Bytes of the chunk that are sent, or that the blocks sent cover.
    range: Range<u64>,
    status: StatusCode,
    as_blocks: bool,
    /// Of the chunk.
    length: u64,
    /// Where the chunk belongs, as JSON.
    origin: Vec<u8>,
}

impl Answer {
    /// None where the chunk has none of the bytes that are wanted.
    fn of(header: &RecordHeader, wanted: Wanted, as_blocks: bool) -> Option<Self> {
        let length = header.chunk.length;
        let (range, status) = match wanted {
            Wanted::Whole => (0..length, StatusCode::OK),
            Wanted::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
            Wanted::Unsatisfiable if as_blocks => (length..length, StatusCode::OK),
            Wanted::Unsatisfiable => return None,
        };
        Some(Self {
            range,
            status: if as_blocks { StatusCode::OK } else { status },
            as_blocks,
            length,
            origin: serde_json::to_vec(&header.origin).unwrap_or_default(),
        })
    }

    fn with(self, body: Body) -> Response {
        let Self {
            range,
            status,
            as_blocks,
            length,
            origin,
        } = self;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let media = if as_blocks {
            BLOCK_STREAM_MEDIA_TYPE
        } else {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
            "application/octet-stream"
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if status == StatusCode::PARTIAL_CONTENT {
            let value = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            headers.extend(HeaderValue::try_from(value).map(|v| (CONTENT_RANGE, v)));
        }
        if let Ok(value) = HeaderValue::from_bytes(&origin) {
            headers.insert(CHUNK_ORIGIN_HEADER, value);
        }
        response
    }
}

fn wants_blocks(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|media| media.trim() == BLOCK_STREAM_MEDIA_TYPE)
}

fn unsatisfiable(length: u64) -> Response {
    let detail = format!("the chunk has {length} bytes");
    let problem = ProblemResponse::new(ErrorCode::RangeNotSatisfiable, detail);
    let mut response = problem.into_response();
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

/// Blocks of a range, some at a time.
#[derive(Debug)]
struct Steps {
    /// First block of the next step.
    next: u64,
    /// After the last block.
    end: u64,
}

impl Steps {
    fn over(range: &Range<u64>) -> Self {
        Self {
            next: range.start / BLOCK_SIZE_U64,
            end: range.end.div_ceil(BLOCK_SIZE_U64),
        }
    }

    /// First block and number of the next step.
    fn take(&mut self) -> Option<(u64, u64)> {
        if self.next >= self.end {
            return None;
        }
        let (first, count) = (self.next, STEP.min(self.end - self.next));
        self.next += count;
        Some((first, count))
    }
}

/// A read in progress: one step is sent while the next is read.
struct Reading {
    ctx: Arc<Context>,
    reader: Arc<dyn ChunkRead>,
    range: Range<u64>,
    as_blocks: bool,
    /// What is left to be read.
    steps: Steps,
    ahead: Option<JoinHandle<Step>>,
    beyond: Ahead,
    /// Bytes of frames that are not ready yet.
    left: u64,
    ready: VecDeque<io::Result<Bytes>>,
    done: bool,
    /// Set when it is read for repair.
    lane: Option<RepairLane>,
    place: Place,
}

/// A block as it is sent: framed, or the part of it that lies in the range.
fn push_block(pieces: &mut Vec<Bytes>, block: Block, range: &Range<u64>, as_blocks: bool) {
    if as_blocks {
        let header = FrameHeader {
            kind: FrameKind::Block,
            length: u32::try_from(block.data.len()).unwrap_or(u32::MAX),
            crc32c: block.crc32c,
            offset: block.offset,
        };
        pieces.push(Bytes::copy_from_slice(&header.encode()));
        pieces.push(block.data);
        return;
    }
    let length = block.data.len() as u64;
    let from = range.start.saturating_sub(block.offset).min(length);
    let to = range.end.saturating_sub(block.offset).min(length);
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    pieces.push(block.data.slice(at(from)..at(to)));
}

/// The frame behind the last block.
fn end_mark(range: &Range<u64>) -> Bytes {
    Bytes::copy_from_slice(&frame::signal(FrameKind::End, range.end))
}

/// A body that is at hand: its length is announced, and it goes out with the head.
struct Pieces {
    waiting: VecDeque<Bytes>,
    left: u64,
    _place: Place,
}

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = Bytes>, place: Place) -> Self {
        let waiting: VecDeque<_> = pieces.into_iter().collect();
        let left = waiting.iter().map(|piece| piece.len() as u64).sum();
        Self {
            waiting,
            left,
            _place: place,
        }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.waiting.pop_front();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Reading {
    /// Goes on behind the first step, which was read before.
    fn begin_with(&mut self, first: Vec<Block>) {
        let _read = self.steps.take();
        self.start_step();
        self.accept(first);
    }

    fn start_step(&mut self) {
        let Some((first, count)) = self.steps.take() else {
            return;
        };
        let reader = Arc::clone(&self.reader);
        let beyond = self.beyond.beyond(self.steps.next);
        let step = tokio::task::spawn_blocking(move || {
            if !beyond.is_empty() {
                reader.read_ahead(beyond);
            }
            reader.blocks(first, count)
        });
        self.ahead = Some(step);
    }

    async fn finish_step(&mut self) -> Step {
        match self.ahead.take() {
            None => Ok(Vec::new()),
            Some(step) => step.await.unwrap_or_else(|error| {
                Err(StoreError::Disk {
                    doing: "reading a chunk",
                    source: io::Error::other(error),
                })
            }),
        }
    }

    fn accept(&mut self, blocks: Vec<Block>) {
        let mut pieces = Vec::with_capacity(2 * blocks.len() + 1);
        for block in blocks {
            let length = block.data.len() as u64;
            self.ctx.metrics.read_bytes.inc_by(length);
            push_block(&mut pieces, block, &self.range, self.as_blocks);
        }
        if self.ahead.is_none() && !self.done {
            self.done = true;
            if self.as_blocks {
                pieces.push(end_mark(&self.range));
            }
        }
        for piece in pieces {
            self.push(piece);
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.ready.push_back(Ok(piece));
    }

    fn break_off(&mut self, error: &StoreError) {
        self.done = true;
        if self.as_blocks {
            let failed = failure(self.ctx.id(), error.fault(), &error.describe());
            // An answer that is as long as announced would look whole: the connection is what breaks then.
            let frame = frame::control(FrameKind::Failed, &failed);
            if let Some(frame) = frame.filter(|frame| (frame.len() as u64) < self.left) {
                self.push(Bytes::from(frame));
            }
        }
        let broken = io::Error::other(error.describe());
        self.ready.push_back(Err(broken));
    }

    /// The next piece of the body.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                if let (Some(lane), Ok(data)) = (self.lane, &piece) {
                    let bytes = data.len() as u64;
                    self.ctx.repair.pass(Direction::Sent, lane, bytes).await;
                }
                return Some((piece, self));
            }
            if self.done {
                return None;
            }
            match self.finish_step().await {
                Ok(blocks) => {
                    self.start_step();
                    self.accept(blocks);
                }
                Err(error) => self.break_off(&error),
            }
        }
    }
}
