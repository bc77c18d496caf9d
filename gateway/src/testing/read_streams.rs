//! Reads of the fake datanodes over connections of their own: checksums, then bytes that nobody verified.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use dfs_client::frame_io::FrameReader;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::BLOCK_SIZE;
use dfs_protocol::frame::{self, FrameHeader, FrameKind, READ_STREAM_PROTOCOL, ReadChunk};
use dfs_protocol::{ErrorCode, Problem};
use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::datanode::{Hop, ReadFault};

pub(super) async fn upgrade(State(hop): State<Hop>, mut request: Request) -> Response {
    if hop.chain.lock().older {
        return StatusCode::NOT_FOUND.into_response();
    }
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            let mut frames = FrameReader::new(TokioIo::new(upgraded));
            while answer(&hop, &mut frames).await.is_some() {}
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, READ_STREAM_PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Answers one read; `None` when the connection is to be dropped.
async fn answer<S>(hop: &Hop, frames: &mut FrameReader<S>) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = frames.next().await.ok()??;
    assert_eq!(frame.header.kind, FrameKind::Read);
    let read: ReadChunk = frame::parse(&frame.payload).unwrap();
    assert_eq!(read.datanode, hop.id);
    if hop.asked() == Some(ReadFault::Mute) {
        std::future::pending::<()>().await;
    }
    let (bytes, fault) = match found(hop, &read) {
        Found::Dead => return None,
        Found::Nothing => {
            let refused = Problem::new(ErrorCode::NotFound, "no replica");
            let refused = frame::control(FrameKind::Refused, &refused)?;
            return frames.stream_mut().write_all(&refused).await.ok();
        }
        Found::Bytes(bytes, fault) => (bytes, fault),
    };
    let first = usize::try_from(read.start).unwrap() / BLOCK_SIZE;
    let mut blocks: Vec<Vec<u8>> = bytes.chunks(BLOCK_SIZE).map(<[u8]>::to_vec).collect();
    if fault == Some(ReadFault::OtherBytes) {
        for block in &mut blocks {
            block[0] ^= 1;
        }
    }
    let table = blocks.iter().flat_map(|block| crc32c(block).to_le_bytes());
    let table: Vec<u8> = table.collect();
    let head = FrameHeader::describe(FrameKind::Checksums, read.start, &table);
    let stream = frames.stream_mut();
    stream.write_all(&head.encode()).await.ok()?;
    stream.write_all(&table).await.ok()?;
    for (index, mut block) in (first..).zip(blocks) {
        match fault {
            Some(ReadFault::Flip(bad)) if bad == index => block[0] ^= 1,
            Some(ReadFault::CutBefore(cut)) if cut == index => return None,
            Some(ReadFault::StallBefore(stall) | ReadFault::StallOnceBefore(stall))
                if stall <= index =>
            {
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        stream.write_all(&block).await.ok()?;
    }
    Some(())
}

enum Found {
    Dead,
    Nothing,
    /// And what goes wrong with them.
    Bytes(Vec<u8>, Option<ReadFault>),
}

/// The bytes that are asked for.
fn found(hop: &Hop, read: &ReadChunk) -> Found {
    let mut shared = hop.chain.lock();
    if shared.dead.contains(&hop.id) {
        return Found::Dead;
    }
    let node = shared.nodes.get_mut(&hop.id).unwrap();
    let fault = node.read_fault;
    if matches!(fault, Some(ReadFault::StallOnceBefore(_))) {
        node.read_fault = None;
    }
    let Some((sealed, bytes)) = node.sealed.get(&read.chunk) else {
        return Found::Nothing;
    };
    assert_eq!(sealed.version, read.version);
    assert!(read.is_within(sealed.length));
    let at = |offset: u64| usize::try_from(offset).unwrap();
    Found::Bytes(bytes[at(read.start)..at(read.end)].to_vec(), fault)
}
