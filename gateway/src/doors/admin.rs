//! What the tracker's own port serves besides: datanodes, chunks, fsck, trash, verdicts.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use bytes::Bytes;
use dfs_client::{ClientError, TrackerApi};
use dfs_protocol::calls::{
    DatanodeRequest, FileRequest, FsckPage, FsckRequest, Nothing, PurgeRequest, RestoreRequest,
    SetAdminRequest, TrashRequest,
};
use dfs_protocol::datanode::AdminState;
use dfs_protocol::file::TrashEntry;
use dfs_protocol::routes::tracker as paths;
use dfs_protocol::status::OkToStopRequest;
use dfs_protocol::upload::MAX_LIST_LIMIT;
use dfs_protocol::{DatanodeId, FilePath, Problem, TrashId, UploadId};
use dfs_runtime::problem::{ApiJson, ApiPath};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::Route;
use super::answer::{Answer, refused};
use super::query::{Query, invalid};
use crate::gateway::SharedGateway;

/// Entries of a page of the trash when nothing is said.
const DEFAULT_TRASH_LIMIT: u32 = 100;

pub(super) fn routes() -> Vec<Route> {
    vec![
        (paths::NODES, get(datanodes)),
        ("/nodes/{id}/decommission", post(decommission)),
        ("/nodes/{id}/recommission", post(recommission)),
        ("/nodes/{id}/safe-to-remove", get(safe_to_remove)),
        ("/nodes/{id}", delete(deregister)),
        (paths::CHUNKS, get(chunks)),
        (paths::FSCK, get(fsck)),
        (paths::TRASH, get(trash)),
        ("/trash/{id}", delete(purge)),
        ("/trash/{id}/restore", post(restore)),
        (paths::OK_TO_STOP, post(ok_to_stop)),
        ("/repair/acknowledge-partition", post(acknowledge_partition)),
    ]
}

type Gate = State<SharedGateway>;

async fn datanodes(State(gateway): Gate, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    let all = gateway
        .tracker
        .datanodes(Nothing {})
        .await
        .map_err(refused)?;
    Ok(Json(all).into_response())
}

async fn decommission(gate: Gate, id: ApiPath<String>, uri: Uri) -> Answer {
    set_admin(gate, &id, &uri, AdminState::Decommissioning).await
}

async fn recommission(gate: Gate, id: ApiPath<String>, uri: Uri) -> Answer {
    set_admin(gate, &id, &uri, AdminState::InService).await
}

/// The last step of removal: the uuid never comes back.
async fn deregister(gate: Gate, id: ApiPath<String>, uri: Uri) -> Answer {
    set_admin(gate, &id, &uri, AdminState::Tombstoned).await
}

async fn set_admin(
    State(gateway): Gate,
    id: &ApiPath<String>,
    uri: &Uri,
    admin: AdminState,
) -> Answer {
    Query::read(uri, &[])?;
    let request = SetAdminRequest {
        id: datanode(&id.0)?,
        admin,
    };
    let status = gateway.tracker.set_admin(request).await.map_err(refused)?;
    Ok(Json(status).into_response())
}

async fn safe_to_remove(State(gateway): Gate, id: ApiPath<String>, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    let request = DatanodeRequest {
        id: datanode(&id.0)?,
    };
    let verdict = gateway.tracker.safe_to_remove(request).await;
    Ok(Json(verdict.map_err(refused)?).into_response())
}

async fn ok_to_stop(
    State(gateway): Gate,
    uri: Uri,
    ApiJson(request): ApiJson<OkToStopRequest>,
) -> Answer {
    Query::read(&uri, &[])?;
    let verdict = gateway.tracker.ok_to_stop(request).await;
    Ok(Json(verdict.map_err(refused)?).into_response())
}

async fn acknowledge_partition(State(gateway): Gate, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    let done = gateway.tracker.acknowledge_partition(Nothing {}).await;
    done.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn chunks(State(gateway): Gate, uri: Uri) -> Answer {
    let query = Query::read(&uri, &["file"])?;
    let Some(name) = query.get("file") else {
        return Err(invalid("say which file: `?file=PATH`".into()).into());
    };
    let request = FileRequest {
        path: FilePath::parse(name).map_err(Problem::from)?,
    };
    let chunks = gateway.tracker.chunks(request).await.map_err(refused)?;
    Ok(Json(chunks).into_response())
}

/// Findings as lines of JSON; the last line is the verdict. A stream without a verdict was broken.
async fn fsck(State(gateway): Gate, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    let tracker = gateway.tracker.clone();
    // The first page decides whether there is an answer at all.
    let first = tracker
        .fsck(FsckRequest::default())
        .await
        .map_err(refused)?;
    let pages = stream::try_unfold(Some(FsckStep::Send(first)), move |step| {
        next_page(tracker.clone(), step)
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(pages)).into_response())
}

/// What an fsck sends next.
enum FsckStep {
    Send(FsckPage),
    Ask(String),
}

async fn next_page(
    tracker: Arc<dyn TrackerApi>,
    step: Option<FsckStep>,
) -> Result<Option<(Bytes, Option<FsckStep>)>, ClientError> {
    let page = match step {
        None => return Ok(None),
        Some(FsckStep::Send(page)) => page,
        Some(FsckStep::Ask(after)) => {
            let after = Some(after);
            tracker.fsck(FsckRequest { after }).await?
        }
    };
    let mut text = Vec::new();
    for line in &page.lines {
        let json = serde_json::to_vec(line);
        let json = json.map_err(|error| ClientError::Malformed {
            address: "tracker".to_owned(),
            detail: error.to_string(),
        })?;
        text.extend_from_slice(&json);
        text.push(b'\n');
    }
    Ok(Some((text.into(), page.next.map(FsckStep::Ask))))
}

/// A page of the trash.
#[derive(Debug, Serialize)]
struct TrashAnswer {
    entries: Vec<TrashEntry>,
    /// For the next page; null at the end.
    cursor: Option<TrashId>,
}

async fn trash(State(gateway): Gate, uri: Uri) -> Answer {
    let query = Query::read(&uri, &["limit", "cursor"])?;
    let after = match query.get("cursor") {
        None => None,
        Some(cursor) => Some(cursor.parse::<TrashId>().map_err(|_| {
            Problem::new(
                dfs_protocol::ErrorCode::InvalidCursor,
                "the cursor was not given out by this listing",
            )
        })?),
    };
    let request = TrashRequest {
        limit: query.limit(DEFAULT_TRASH_LIMIT, MAX_LIST_LIMIT)?,
        after,
    };
    let page = gateway.tracker.trash(request).await.map_err(refused)?;
    let answer = TrashAnswer {
        entries: page.entries,
        cursor: page.next,
    };
    Ok(Json(answer).into_response())
}

async fn restore(State(gateway): Gate, id: ApiPath<String>, uri: Uri) -> Answer {
    let query = Query::read(&uri, &["to"])?;
    let to = query.get("to").map(FilePath::parse);
    let request = RestoreRequest {
        id: trash_id(&id.0)?,
        to: to.transpose().map_err(Problem::from)?,
        upload: UploadId::from_u128(gateway.rng.u128()),
    };
    let file = gateway.tracker.restore(request).await.map_err(refused)?;
    Ok(Json(file).into_response())
}

async fn purge(State(gateway): Gate, id: ApiPath<String>, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    let request = PurgeRequest {
        id: trash_id(&id.0)?,
    };
    gateway.tracker.purge(request).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn datanode(text: &str) -> Result<DatanodeId, Problem> {
    text.parse()
        .map_err(|error| invalid(format!("{error}")).next("ids of datanodes are listed at /nodes"))
}

fn trash_id(text: &str) -> Result<TrashId, Problem> {
    text.parse()
        .map_err(|error| invalid(format!("{error}")).next("ids are listed at /trash"))
}
