//! Reading a chunk as verified blocks.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::{BLOCK_SIZE_U64, ChunkOrigin, DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{BLOCK_STREAM_MEDIA_TYPE, FrameKind, HopFailure, ReadChunk, parse};
use dfs_protocol::repair::RepairLane;
use dfs_protocol::routes::{CHUNK_ORIGIN_HEADER, DATANODE_HEADER, REPAIR_LANE_HEADER, datanode};
use futures_util::FutureExt as _;
use http::Request;
use http::header::{ACCEPT, HeaderValue, RANGE};
use hyper::body::{Body as _, Incoming};

use crate::driven::Driven;
use crate::error::ClientError;
use crate::frame_io::{Frame, FrameDecoder};
use crate::http::{HttpClient, malformed, timed_out, unreachable};
use crate::read_stream::RawBlocks;

/// How long a datanode may take to begin an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a datanode may be silent within an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// One block whose bytes match its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Position in the chunk; a multiple of the block size.
    pub offset: u64,
    /// CRC32C of `data`.
    pub crc32c: u32,
    /// At most one block.
    pub data: Bytes,
}

/// The blocks that cover a range of one chunk on one datanode, in order, each verified.
#[derive(Debug)]
pub struct BlockStream {
    http: HttpClient,
    from: DatanodeAddress,
    source: Source,
    first: u64,
    next_offset: u64,
    end: u64,
    ended: bool,
}

/// How the blocks come.
#[derive(Debug)]
enum Source {
    /// Framed, in the body of an answer.
    Framed(Box<Framed>),
    /// As they lie on the disk. None after the last one: the connection went back.
    Raw(Option<RawBlocks>),
}

#[derive(Debug)]
struct Framed {
    origin: Option<HeaderValue>,
    body: Incoming,
    /// Given back at the end.
    connection: Option<Driven>,
    decoder: FrameDecoder,
}

/// Begins reading the blocks that cover `range` (bytes of the chunk).
pub async fn read_blocks(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    range: Range<u64>,
) -> Result<BlockStream, ClientError> {
    let blocks = covering(chunk, &range);
    // A frame cannot ask for no blocks.
    let raw = if blocks.is_empty() {
        None
    } else {
        begin_raw(http, from, chunk, &blocks).await?
    };
    let source = match raw {
        Some(raw) => Source::Raw(Some(raw)),
        // A datanode of an earlier version.
        None => begin_framed(http, from, chunk, &blocks, None).await?,
    };
    Ok(BlockStream::new(http, from, source, blocks))
}

/// Begins reading a whole chunk to make a copy of it: with where it belongs, and verified by its source, too. In a lane
/// the source sends it within its repair bandwidth.
pub async fn read_to_copy(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    lane: Option<RepairLane>,
) -> Result<BlockStream, ClientError> {
    let blocks = 0..chunk.length;
    let source = begin_framed(http, from, chunk, &blocks, lane).await?;
    Ok(BlockStream::new(http, from, source, blocks))
}

/// The bytes of whole blocks that cover a range.
fn covering(chunk: &SealedChunk, range: &Range<u64>) -> Range<u64> {
    let end = range.end.div_ceil(BLOCK_SIZE_U64);
    let end = end.saturating_mul(BLOCK_SIZE_U64).min(chunk.length);
    range.start / BLOCK_SIZE_U64 * BLOCK_SIZE_U64..end
}

async fn begin_raw(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    blocks: &Range<u64>,
) -> Result<Option<RawBlocks>, ClientError> {
    let read = ReadChunk {
        datanode: from.id,
        chunk: chunk.id,
        version: chunk.version,
        start: blocks.start,
        end: blocks.end,
        trace: None,
    };
    let asked = http.reads().begin(http, from, read, HEAD_TIMEOUT);
    Box::pin(asked).await
}

async fn begin_framed(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    blocks: &Range<u64>,
    lane: Option<RepairLane>,
) -> Result<Source, ClientError> {
    let Range { start, end } = blocks;
    let path = format!(
        "{}?id={}&version={}",
        datanode::DOWNLOAD_CHUNK,
        chunk.id,
        chunk.version
    );
    let mut builder = Request::get(path)
        .header(ACCEPT, BLOCK_STREAM_MEDIA_TYPE)
        .header(DATANODE_HEADER, from.id.to_string())
        .header(RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
    if let Some(lane) = lane {
        builder = builder.header(REPAIR_LANE_HEADER, lane.as_str());
    }
    let request = builder
        .body(())
        .map_err(|error| malformed(&from.address, &error))?;
    let asked = http.get_driven(&from.address, request, HEAD_TIMEOUT);
    let (mut response, connection) = asked.await?;
    Ok(Source::Framed(Box::new(Framed {
        origin: response.headers_mut().remove(CHUNK_ORIGIN_HEADER),
        body: response.into_body(),
        connection: Some(connection),
        decoder: FrameDecoder::default(),
    })))
}

impl BlockStream {
    fn new(http: &HttpClient, from: &DatanodeAddress, source: Source, blocks: Range<u64>) -> Self {
        Self {
            http: http.clone(),
            from: from.clone(),
            source,
            first: blocks.start,
            next_offset: blocks.start,
            end: blocks.end,
            ended: false,
        }
    }

    /// Whose replica is read.
    pub fn datanode(&self) -> DatanodeId {
        self.from.id
    }

    /// Where the chunk belongs, as the replica's header says: what a copy must carry on.
    pub fn origin(&self) -> Option<ChunkOrigin> {
        match &self.source {
            Source::Framed(framed) => {
                serde_json::from_slice(framed.origin.as_ref()?.as_bytes()).ok()
            }
            Source::Raw(_) => None,
        }
    }

    /// The next block; `None` after the last. An error means that the rest must come from another
    /// replica, from [`Self::position`] on. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Block>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        if let Source::Raw(raw) = &mut self.source {
            if self.next_offset < self.end {
                return self.next_raw().await.map(Some);
            }
            self.ended = true;
            if let Some(blocks) = raw.take() {
                self.http.reads().keep(&self.from, blocks);
            }
            return Ok(None);
        }
        let frame = self.next_frame().await?;
        match frame.header.kind {
            FrameKind::Block => self.accept(frame).map(Some),
            FrameKind::End if self.next_offset == self.end => {
                self.ended = true;
                self.give_back().await;
                Ok(None)
            }
            FrameKind::Failed => {
                let failure: HopFailure =
                    parse(&frame.payload).map_err(|error| malformed(&self.from.address, &error))?;
                Err(malformed(&self.from.address, &failure.detail))
            }
            kind => Err(malformed(
                &self.from.address,
                &format!("unexpected {kind:?} frame"),
            )),
        }
    }

    /// Bytes of the chunk before this offset were handed out.
    pub fn position(&self) -> u64 {
        self.next_offset
    }

    async fn next_raw(&mut self) -> Result<Block, ClientError> {
        let offset = self.next_offset;
        let length = BLOCK_SIZE_U64.min(self.end - offset);
        let index = (offset - self.first) / BLOCK_SIZE_U64;
        let (index, bytes) = (as_usize(index), as_usize(length));
        let Source::Raw(Some(blocks)) = &mut self.source else {
            return Err(malformed(&self.from.address, &"the blocks ended early"));
        };
        let received = blocks.block(&self.from, index, bytes);
        let received = tokio::time::timeout(STALL_TIMEOUT, received).await;
        let (crc32c, data) =
            received.unwrap_or_else(|_| Err(timed_out(&self.from.address, STALL_TIMEOUT)))?;
        self.next_offset += length;
        Ok(Block {
            offset,
            crc32c,
            data,
        })
    }

    fn accept(&mut self, frame: Frame) -> Result<Block, ClientError> {
        let wanted = BLOCK_SIZE_U64.min(self.end - self.next_offset);
        if frame.header.offset != self.next_offset || u64::from(frame.header.length) != wanted {
            return Err(malformed(&self.from.address, &"a block came out of order"));
        }
        self.next_offset += wanted;
        Ok(Block {
            offset: frame.header.offset,
            crc32c: frame.header.crc32c,
            data: frame.payload,
        })
    }

    /// Keeps the connection, if the answer ends with the end mark and is here. Does not wait.
    async fn give_back(&mut self) {
        let Source::Framed(framed) = &mut self.source else {
            return;
        };
        let Some(mut connection) = framed.connection.take() else {
            return;
        };
        let is_over = framed.body.is_end_stream()
            || matches!(
                connection.frame(&mut framed.body).now_or_never(),
                Some(None)
            );
        if is_over {
            self.http.keep(&self.from.address, connection).await;
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, ClientError> {
        let address = &self.from.address;
        let ended_early = || malformed(address, &"the blocks ended early");
        let Source::Framed(framed) = &mut self.source else {
            return Err(ended_early());
        };
        loop {
            let decoded = framed.decoder.next();
            if let Some(frame) = decoded.map_err(|e| malformed(address, &e))? {
                return Ok(frame);
            }
            let Some(connection) = &mut framed.connection else {
                return Err(ended_early());
            };
            let received = connection.frame(&mut framed.body);
            let received = tokio::time::timeout(STALL_TIMEOUT, received).await;
            match received {
                Err(_) => return Err(timed_out(address, STALL_TIMEOUT)),
                Ok(None) => return Err(ended_early()),
                Ok(Some(Err(error))) => return Err(unreachable(address, &error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        framed.decoder.push(data);
                    }
                }
            }
        }
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
