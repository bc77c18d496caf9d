//! Answers that several doors give.

use axum::Json;
use axum::response::{IntoResponse, Response};
use dfs_protocol::{DatanodeId, FilePath, Problem, VersionId};
use dfs_runtime::problem::ProblemResponse;
use http::StatusCode;
use http::header::{ETAG, LOCATION};
use serde::Serialize;

use crate::headers::{digests, file};
use crate::upload::Committed;

/// What a handler returns.
pub(super) type Answer = Result<Response, ProblemResponse>;

/// The answer to an upload.
#[derive(Debug, Serialize)]
struct Stored {
    path: FilePath,
    size: u64,
    etag: VersionId,
    checksum: Checksum,
    /// How many.
    chunks: usize,
    /// Datanodes that hold every chunk.
    replicas: Vec<DatanodeId>,
    /// Fewest replicas of any chunk.
    replica_count: u32,
    /// The factor aimed at.
    wanted: u32,
}

#[derive(Debug, Serialize)]
struct Checksum {
    /// CRC64-NVME, base64 of eight big-endian bytes.
    crc64nvme: String,
}

/// 201 or 200 for a stored file.
pub(super) fn stored(committed: Committed, status: StatusCode) -> Response {
    let Committed {
        file,
        replaced: _,
        replicas,
        replica_count,
        wanted,
    } = committed;
    let stored = Stored {
        path: file.path.clone(),
        size: file.size,
        etag: file.version,
        checksum: Checksum {
            crc64nvme: digests::crc64_text(file.crc64nvme),
        },
        chunks: file.chunks.len(),
        replicas,
        replica_count,
        wanted,
    };
    let mut response = (status, Json(stored)).into_response();
    let headers = response.headers_mut();
    file::put(headers, ETAG, &file::etag(&file));
    if status == StatusCode::CREATED {
        file::put(headers, LOCATION, &file::location(&file));
    }
    response
}

/// An error of the tracker as an answer.
pub(super) fn refused(error: dfs_client::ClientError) -> Problem {
    error.into_problem()
}
