//! `POST /upload-chunk`: stores one replica from a plain body.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::BytesMut;
use dfs_protocol::checksum::{RunningCrc32c, crc32c};
use dfs_protocol::chunk::{
    BLOCK_SIZE, ChunkKind, ChunkOrigin, DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, Replica, SealedChunk,
};
use dfs_protocol::{ChunkId, ChunkVersion, ErrorCode, FileId, Problem};
use dfs_runtime::problem::{ApiQuery, ProblemResponse, body_problem};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Ctx;
use crate::context::Context;
use crate::store::NewChunk;
use crate::write_stream::disk::{Begin, DiskOrder, DiskWrite, begin};

/// Which replica, and where it belongs when the caller knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadQuery {
    id: ChunkId,
    version: Option<ChunkVersion>,
    kind: Option<ChunkKind>,
    file: Option<FileId>,
    index: Option<u32>,
    path: Option<String>,
}

/// Stores a replica; answered when it is durable.
pub async fn upload(
    State(ctx): Ctx,
    ApiQuery(query): ApiQuery<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Replica>), ProblemResponse> {
    let cluster = ctx.admitted()?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let announced: Option<u64> = announced.and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > MAX_CHUNK_SIZE) {
        return Err(too_large().into());
    }
    let _permit = Arc::clone(&ctx.writes).try_acquire_owned().map_err(|_| {
        ctx.metrics.refused_busy.inc();
        Problem::new(ErrorCode::Unavailable, "too many chunks are being written")
            .next("try again, or another datanode")
    })?;
    let new = NewChunk {
        cluster,
        id: query.id,
        version: query.version.unwrap_or(ChunkVersion::FIRST),
        origin: ChunkOrigin {
            kind: query.kind.unwrap_or(ChunkKind::Data),
            file: query.file.unwrap_or(FileId::from_u128(0)),
            index: query.index.unwrap_or(0),
            path_hint: query.path.unwrap_or_default(),
        },
        expected: announced.unwrap_or(DEFAULT_CHUNK_SIZE),
    };
    let (id, version) = (new.id, new.version);
    let parked = ctx.attempts.take_parked((id, version));
    let disk = begin(Arc::clone(&ctx.store), Begin::Fresh(new, parked))
        .await
        .map_err(Problem::from)?;
    let received = receive(&ctx, body, &disk.orders).await;
    let whole = match received {
        Ok(whole) => whole,
        Err(problem) => return Err(abandon(&ctx, disk).await.unwrap_or(problem).into()),
    };
    let chunk = SealedChunk {
        id,
        version,
        length: whole.length(),
        crc32c: whole.value(),
    };
    let replica = disk.seal(chunk).await.map_err(Problem::from)?;
    Ok((StatusCode::CREATED, Json(replica)))
}

/// Cuts the body into blocks and hands them to the disk. The whole body's checksum is returned.
async fn receive(
    ctx: &Context,
    mut body: Body,
    orders: &mpsc::Sender<DiskOrder>,
) -> Result<RunningCrc32c, Problem> {
    let mut whole = RunningCrc32c::default();
    let mut buffer = BytesMut::with_capacity(BLOCK_SIZE * 2);
    loop {
        let ended = match body.frame().await {
            None => true,
            Some(Err(error)) => return Err(body_problem(&error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    buffer.extend_from_slice(&data);
                }
                false
            }
        };
        while buffer.len() >= BLOCK_SIZE || (ended && !buffer.is_empty()) {
            let data = buffer.split_to(buffer.len().min(BLOCK_SIZE)).freeze();
            let offset = whole.length();
            if offset + data.len() as u64 > MAX_CHUNK_SIZE {
                return Err(too_large());
            }
            let crc32c = crc32c(&data);
            whole.push(crc32c, data.len() as u64);
            ctx.metrics.received_bytes.inc_by(data.len() as u64);
            let order = DiskOrder::Block {
                offset,
                crc32c,
                data,
            };
            if orders.send(order).await.is_err() {
                return Err(Problem::new(ErrorCode::Unavailable, "the disk failed"));
            }
        }
        if ended {
            return Ok(whole);
        }
    }
}

/// Drops what was written; the disk's own failure, if that ended it.
async fn abandon(ctx: &Arc<Context>, disk: DiskWrite) -> Option<Problem> {
    match disk.leave().await {
        Ok(staged) => {
            ctx.discard(staged);
            None
        }
        Err(error) => Some(error.into()),
    }
}

fn too_large() -> Problem {
    let detail = format!("a chunk holds {MAX_CHUNK_SIZE} bytes at most");
    Problem::new(ErrorCode::TooLarge, detail).next("upload the file to a gateway, which cuts it")
}
