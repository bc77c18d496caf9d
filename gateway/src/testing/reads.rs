//! What the fake datanodes answer besides chunk streams.

use std::collections::BTreeMap;
use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dfs_protocol::chunk::{BLOCK_SIZE, ChunkKind, Replica};
use dfs_protocol::datanode::{ChunkState, CopyRequest, CopyResponse, OpenChunkState};
use dfs_protocol::frame::{self, FrameHeader, FrameKind};
use dfs_protocol::{ChunkId, ErrorCode, Problem};
use dfs_runtime::problem::ProblemResponse;
use futures_util::StreamExt as _;
use http::header::RANGE;

use super::datanode::{Hop, ReadFault};

fn gone() -> Response {
    ProblemResponse(Problem::new(ErrorCode::Unavailable, "dead")).into_response()
}

pub(super) async fn state(State(hop): State<Hop>, Path(chunk): Path<String>) -> Response {
    let chunk: ChunkId = chunk.parse().unwrap();
    let shared = hop.chain.lock();
    if shared.dead.contains(&hop.id) {
        return gone();
    }
    let node = &shared.nodes[&hop.id];
    let sealed = node.sealed.get(&chunk).map(|(chunk, _)| Replica {
        chunk: *chunk,
        kind: ChunkKind::Data,
    });
    let open = node
        .open
        .get(&chunk)
        .map(|(version, bytes)| OpenChunkState {
            version: *version,
            length: bytes.len() as u64,
        });
    Json(ChunkState { sealed, open }).into_response()
}

pub(super) async fn copy(State(hop): State<Hop>, Json(request): Json<CopyRequest>) -> Response {
    let mut shared = hop.chain.lock();
    if shared.dead.contains(&hop.id) {
        return gone();
    }
    let chunk = request.chunk;
    let found = request.sources.iter().find_map(|source| {
        let (sealed, bytes) = shared.nodes[&source.id].sealed.get(&chunk.id)?;
        (*sealed == chunk).then(|| bytes.clone())
    });
    let Some(bytes) = found else {
        return ProblemResponse(Problem::new(ErrorCode::NotFound, "no source")).into_response();
    };
    let node = shared.nodes.get_mut(&hop.id).unwrap();
    node.sealed.insert(chunk.id, (chunk, bytes));
    let replica = Replica {
        chunk,
        kind: ChunkKind::Data,
    };
    Json(CopyResponse { replica }).into_response()
}

pub(super) async fn download(
    State(hop): State<Hop>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let chunk: ChunkId = query["id"].parse().unwrap();
    if hop.asked() == Some(ReadFault::Mute) {
        std::future::pending::<()>().await;
    }
    let mut shared = hop.chain.lock();
    if shared.dead.contains(&hop.id) {
        return gone();
    }
    let node = shared.nodes.get_mut(&hop.id).unwrap();
    let fault = node.read_fault;
    if matches!(fault, Some(ReadFault::StallOnceBefore(_))) {
        node.read_fault = None;
    }
    let Some((sealed, bytes)) = node.sealed.get(&chunk) else {
        return ProblemResponse(Problem::new(ErrorCode::NotFound, "no replica")).into_response();
    };
    assert_eq!(sealed.version.to_string(), query["version"]);
    let range = request.headers()[RANGE].to_str().unwrap();
    let (first, last) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let (items, stalls) = frames(bytes, first..last + 1, fault);
    let items = futures_util::stream::iter(items);
    if stalls {
        return Body::from_stream(items.chain(futures_util::stream::pending())).into_response();
    }
    Body::from_stream(items).into_response()
}

impl Hop {
    /// Counts a read.
    pub(super) fn asked(&self) -> Option<ReadFault> {
        let mut shared = self.chain.lock();
        let node = shared.nodes.get_mut(&self.id).unwrap();
        node.reads += 1;
        node.read_fault
    }
}

/// The blocks of a range as frames, each an item of the body; and whether the body hangs behind them.
fn frames(
    bytes: &[u8],
    range: std::ops::Range<usize>,
    fault: Option<ReadFault>,
) -> (Vec<io::Result<Bytes>>, bool) {
    let stall = match fault {
        Some(ReadFault::StallBefore(block) | ReadFault::StallOnceBefore(block)) => Some(block),
        _ => None,
    };
    let mut items = Vec::new();
    for offset in range.clone().step_by(BLOCK_SIZE) {
        let mut block = bytes[offset..range.end.min(offset + BLOCK_SIZE)].to_vec();
        if fault == Some(ReadFault::OtherBytes) {
            block[0] ^= 1;
        }
        let header = FrameHeader::describe(FrameKind::Block, offset as u64, &block);
        let index = offset / BLOCK_SIZE;
        if fault == Some(ReadFault::Flip(index)) {
            block[0] ^= 1;
        }
        if fault == Some(ReadFault::CutBefore(index)) {
            items.push(Err(io::ErrorKind::ConnectionReset.into()));
            return (items, false);
        }
        if stall.is_some_and(|block| block <= index) {
            return (items, true);
        }
        items.push(Ok([&header.encode()[..], &block].concat().into()));
    }
    let end = frame::signal(FrameKind::End, 0);
    items.push(Ok(Bytes::copy_from_slice(&end)));
    (items, false)
}
