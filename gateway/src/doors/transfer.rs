//! `POST /files/{path}?copy-from=` and `?move-from=`: changes of the catalog alone. With `?factor=`
//! it is about replicas: see `factor`.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use dfs_protocol::upload::{TransferMode, TransferRequest, TransferResponse};
use dfs_protocol::{ErrorCode, FilePath, PathPrefix, Problem, UploadId, VersionId};
use http::header::ETAG;
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;

use super::answer::{Answer, refused};
use super::factor;
use super::files::ROUTE;
use super::query::{Query, invalid};
use crate::gateway::SharedGateway;
use crate::headers::{conditional, file};
use crate::names;

/// The answer to a copy or a move.
#[derive(Debug, Serialize)]
struct Transferred {
    path: PathPrefix,
    /// Files that now have a new path.
    files: u64,
    /// The version at the target, for a single file.
    etag: Option<VersionId>,
    replaced: bool,
}

pub(super) async fn post(
    State(gateway): State<SharedGateway>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    if factor::is_asked(&uri) {
        return factor::set(&gateway, &uri, &headers).await;
    }
    let query = Query::read(&uri, &["copy-from", "move-from"])?;
    let (mode, from) = match (query.get("copy-from"), query.get("move-from")) {
        (Some(from), None) => (TransferMode::Copy, from),
        (None, Some(from)) => (TransferMode::Move, from),
        (Some(_), Some(_)) | (None, None) => {
            return Err(
                invalid("say one of `copy-from`, `move-from` and `factor`".into())
                    .next("to store a file, PUT it here or POST a form to /upload")
                    .into(),
            );
        }
    };
    let to = names::prefix(&uri, ROUTE)?;
    let from = PathPrefix::parse(from).map_err(Problem::from)?;
    check_kinds(mode, &from, &to)?;
    let request = TransferRequest {
        from,
        to: to.clone(),
        mode,
        precondition: conditional::precondition(&headers)?,
        upload: UploadId::from_u128(gateway.rng.u128()),
    };
    let TransferResponse {
        files,
        version,
        replaced,
    } = gateway.tracker.transfer(request).await.map_err(refused)?;
    let status = if version.is_none() || replaced {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let transferred = Transferred {
        path: to,
        files,
        etag: version,
        replaced,
    };
    let mut response = (status, Json(transferred)).into_response();
    if let Some(version) = version {
        file::put(response.headers_mut(), ETAG, &format!("\"{version}\""));
    }
    Ok(response)
}

/// File to file, or directory to directory; only moves take directories.
fn check_kinds(mode: TransferMode, from: &PathPrefix, to: &PathPrefix) -> Result<(), Problem> {
    for path in [from, to] {
        if !path.as_str().ends_with('/') {
            FilePath::parse(path.as_str())?;
        }
    }
    let directories = (from.is_directory(), to.is_directory());
    match (directories, mode) {
        ((false, false), _) | ((true, true), TransferMode::Move) => Ok(()),
        ((true, true), TransferMode::Copy) => Err(Problem::new(
            ErrorCode::InvalidParameter,
            "only single files are copied",
        )
        .next("list the directory and copy its files one by one")),
        _ => Err(Problem::new(
            ErrorCode::InvalidParameter,
            "one of the two paths names a directory and the other a file",
        )
        .next("end both with `/`, or neither")),
    }
}
