//! Reading a chunk as verified blocks.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::{BLOCK_SIZE_U64, ChunkOrigin, DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{BLOCK_STREAM_MEDIA_TYPE, FrameKind, HopFailure, parse};
use dfs_protocol::repair::RepairLane;
use dfs_protocol::routes::{CHUNK_ORIGIN_HEADER, DATANODE_HEADER, REPAIR_LANE_HEADER, datanode};
use futures_util::FutureExt as _;
use http::Request;
use http::header::{ACCEPT, HeaderValue, RANGE};
use hyper::body::{Body as _, Incoming};

use crate::driven::Driven;
use crate::error::ClientError;
use crate::frame_io::{Frame, FrameDecoder};
use crate::http::{HttpClient, malformed, unreachable};

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
    origin: Option<HeaderValue>,
    body: Incoming,
    /// Given back at the end.
    connection: Option<Driven>,
    decoder: FrameDecoder,
    next_offset: u64,
    end: u64,
    ended: bool,
}

/// Begins reading the blocks that cover `range` (bytes of the chunk).
pub async fn read_blocks(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    range: Range<u64>,
) -> Result<BlockStream, ClientError> {
    begin(http, from, chunk, range, None).await
}

/// Begins reading a whole chunk for a repair copy: the source sends it within its repair bandwidth.
pub async fn read_for_repair(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    lane: RepairLane,
) -> Result<BlockStream, ClientError> {
    begin(http, from, chunk, 0..chunk.length, Some(lane)).await
}

async fn begin(
    http: &HttpClient,
    from: &DatanodeAddress,
    chunk: &SealedChunk,
    range: Range<u64>,
    lane: Option<RepairLane>,
) -> Result<BlockStream, ClientError> {
    let first = range.start / BLOCK_SIZE_U64 * BLOCK_SIZE_U64;
    let end = range
        .end
        .div_ceil(BLOCK_SIZE_U64)
        .saturating_mul(BLOCK_SIZE_U64)
        .min(chunk.length);
    let path = format!(
        "{}?id={}&version={}",
        datanode::DOWNLOAD_CHUNK,
        chunk.id,
        chunk.version
    );
    let mut builder = Request::get(path)
        .header(ACCEPT, BLOCK_STREAM_MEDIA_TYPE)
        .header(DATANODE_HEADER, from.id.to_string())
        .header(RANGE, format!("bytes={first}-{}", end.saturating_sub(1)));
    if let Some(lane) = lane {
        builder = builder.header(REPAIR_LANE_HEADER, lane.as_str());
    }
    let request = builder
        .body(())
        .map_err(|error| malformed(&from.address, &error))?;
    let asked = http.get_driven(&from.address, request, HEAD_TIMEOUT);
    let (mut response, connection) = asked.await?;
    Ok(BlockStream {
        http: http.clone(),
        from: from.clone(),
        origin: response.headers_mut().remove(CHUNK_ORIGIN_HEADER),
        body: response.into_body(),
        connection: Some(connection),
        decoder: FrameDecoder::default(),
        next_offset: first,
        end,
        ended: false,
    })
}

impl BlockStream {
    /// Whose replica is read.
    pub fn datanode(&self) -> DatanodeId {
        self.from.id
    }

    /// Where the chunk belongs, as the replica's header says: what a copy must carry on.
    pub fn origin(&self) -> Option<ChunkOrigin> {
        serde_json::from_slice(self.origin.as_ref()?.as_bytes()).ok()
    }

    /// The next block; `None` after the last. An error means that the rest must come from another
    /// replica, from [`Self::position`] on.
    pub async fn next(&mut self) -> Result<Option<Block>, ClientError> {
        if self.ended {
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
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let is_over = self.body.is_end_stream()
            || matches!(connection.frame(&mut self.body).now_or_never(), Some(None));
        if is_over {
            self.http.keep(&self.from.address, connection).await;
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, ClientError> {
        loop {
            let decoded = self.decoder.next();
            if let Some(frame) = decoded.map_err(|e| malformed(&self.from.address, &e))? {
                return Ok(frame);
            }
            let Some(connection) = &mut self.connection else {
                return Err(malformed(&self.from.address, &"the blocks ended early"));
            };
            let received = connection.frame(&mut self.body);
            let received = tokio::time::timeout(STALL_TIMEOUT, received).await;
            match received {
                Err(_) => {
                    return Err(ClientError::TimedOut {
                        address: self.from.address.clone(),
                        seconds: STALL_TIMEOUT.as_secs(),
                    });
                }
                Ok(None) => return Err(malformed(&self.from.address, &"the blocks ended early")),
                Ok(Some(Err(error))) => return Err(unreachable(&self.from.address, &error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.decoder.push(data);
                    }
                }
            }
        }
    }
}
