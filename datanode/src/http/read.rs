//! `GET /download-chunk`: a replica's bytes, or its blocks with their checksums. Damage that shows
//! after the head was sent breaks the connection; there is never a clean short body (I5).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dfs_client::write_stream::failure;
use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::frame::{self, BLOCK_STREAM_MEDIA_TYPE, FrameHeader, FrameKind};
use dfs_protocol::routes::CHUNK_ORIGIN_HEADER;
use dfs_protocol::{ChunkId, ChunkVersion, ErrorCode, Problem};
use dfs_runtime::problem::{ApiQuery, ProblemResponse};
use futures_util::stream;
use http::header::{ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use prometheus::IntGauge;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::Ctx;
use super::large::{Ahead, framed_length};
use super::range::{Wanted, parse};
use crate::context::Context;
use crate::store::{Block, ChunkRead, StoreError};

/// Blocks read from the disk at once: 1 MiB.
const STEP: u64 = 16;

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
    let permit = Arc::clone(&ctx.reads).try_acquire_owned().map_err(|_| {
        ctx.metrics.refused_busy.inc();
        Problem::new(ErrorCode::Unavailable, "too many chunks are being read")
            .next("read another replica, or try again")
    })?;
    let newest = || ctx.store.index().versions(query.id).pop();
    let version = query
        .version
        .or_else(|| newest().map(|replica| replica.chunk.version))
        .unwrap_or(ChunkVersion::FIRST);
    let opened = ctx
        .blocking(move |ctx| ctx.store.open(query.id, version))
        .await?;
    let reader = opened.map_err(Problem::from)?;
    let length = reader.header().chunk.length;
    let as_blocks = wants_blocks(&headers);
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let wanted = parse(range, length);
    let (range, status) = match wanted {
        Wanted::Whole => (0..length, StatusCode::OK),
        Wanted::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
        Wanted::Unsatisfiable if as_blocks => (length..length, StatusCode::OK),
        Wanted::Unsatisfiable => return Ok(unsatisfiable(length)),
    };
    let origin = reader.header().origin.clone();
    let mut reading = Reading::new(Arc::clone(&ctx), reader, range.clone(), as_blocks, permit);
    let framed = reading.left;
    // The first blocks before the head: damage there is a clean refusal.
    reading.prime().await.map_err(Problem::from)?;
    let mut response = Body::from_stream(stream::unfold(reading, Reading::next)).into_response();
    *response.status_mut() = if as_blocks { StatusCode::OK } else { status };
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if as_blocks {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(BLOCK_STREAM_MEDIA_TYPE),
        );
        headers.insert(CONTENT_LENGTH, HeaderValue::from(framed));
    } else {
        let media = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, media);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if status == StatusCode::PARTIAL_CONTENT {
            let value = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            headers.extend(HeaderValue::try_from(value).map(|v| (CONTENT_RANGE, v)));
        }
    }
    let origin = serde_json::to_vec(&origin).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_bytes(&origin) {
        headers.insert(CHUNK_ORIGIN_HEADER, value);
    }
    Ok(response)
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

type Step = Result<Vec<Block>, StoreError>;

/// A read in progress: one step is sent while the next is read.
struct Reading {
    ctx: Arc<Context>,
    reader: Arc<dyn ChunkRead>,
    range: Range<u64>,
    as_blocks: bool,
    /// First block of the next step.
    next: u64,
    /// After the last block.
    end: u64,
    ahead: Option<JoinHandle<Step>>,
    beyond: Ahead,
    /// Bytes of frames that are not ready yet.
    left: u64,
    ready: VecDeque<io::Result<Bytes>>,
    done: bool,
    _count: Counted,
    _permit: OwnedSemaphorePermit,
}

/// Counts a read while it lives.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Reading {
    fn new(
        ctx: Arc<Context>,
        reader: Arc<dyn ChunkRead>,
        range: Range<u64>,
        as_blocks: bool,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        ctx.metrics.reads.inc();
        let (next, end) = (
            range.start / BLOCK_SIZE_U64,
            range.end.div_ceil(BLOCK_SIZE_U64),
        );
        let length = reader.header().chunk.length;
        Self {
            _count: Counted(ctx.metrics.reads.clone()),
            next,
            end,
            beyond: Ahead::new(end),
            left: framed_length(&(next..end.max(next)), length),
            ctx,
            reader,
            range,
            as_blocks,
            ahead: None,
            ready: VecDeque::new(),
            done: false,
            _permit: permit,
        }
    }

    /// Reads the first step.
    async fn prime(&mut self) -> Result<(), StoreError> {
        self.start_step();
        let step = self.finish_step().await?;
        self.start_step();
        self.accept(step);
        Ok(())
    }

    fn start_step(&mut self) {
        if self.next >= self.end {
            return;
        }
        let (first, count) = (self.next, STEP.min(self.end - self.next));
        self.next += count;
        let reader = Arc::clone(&self.reader);
        let beyond = self.beyond.beyond(self.next);
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
        for block in blocks {
            self.ctx.metrics.read_bytes.inc_by(block.data.len() as u64);
            if self.as_blocks {
                let header = FrameHeader {
                    kind: FrameKind::Block,
                    length: u32::try_from(block.data.len()).unwrap_or(u32::MAX),
                    crc32c: block.crc32c,
                    offset: block.offset,
                };
                let header = Bytes::copy_from_slice(&header.encode());
                self.push_frame(header);
                self.push_frame(block.data);
            } else {
                self.ready.push_back(Ok(self.cut(&block)));
            }
        }
        if self.ahead.is_none() && !self.done {
            self.done = true;
            if self.as_blocks {
                let end = frame::signal(FrameKind::End, self.range.end);
                self.push_frame(Bytes::copy_from_slice(&end));
            }
        }
    }

    fn push_frame(&mut self, bytes: Bytes) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.ready.push_back(Ok(bytes));
    }

    /// The part of a block that lies in the range.
    fn cut(&self, block: &Block) -> Bytes {
        let length = block.data.len() as u64;
        let from = self.range.start.saturating_sub(block.offset).min(length);
        let to = self.range.end.saturating_sub(block.offset).min(length);
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        block.data.slice(at(from)..at(to))
    }

    fn break_off(&mut self, error: &StoreError) {
        self.done = true;
        if self.as_blocks {
            let failed = failure(self.ctx.id(), error.fault(), &error.describe());
            // An answer that is as long as announced would look whole: the connection is what breaks then.
            let frame = frame::control(FrameKind::Failed, &failed);
            if let Some(frame) = frame.filter(|frame| (frame.len() as u64) < self.left) {
                self.push_frame(Bytes::from(frame));
            }
        }
        let broken = io::Error::other(error.describe());
        self.ready.push_back(Err(broken));
    }

    /// The next piece of the body.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
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
