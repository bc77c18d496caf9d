//! What an administrator (the operator in Kubernetes) says to datanodes that wait or are lost, and
//! what he sees: refusals, and whether there is a catalog.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use dfs_protocol::admission::{
    AdmitRequest, CatalogState, CatalogStatus, LostRequest, Refusal, RefuseRequest,
};
use dfs_protocol::routes::tracker as paths;
use dfs_protocol::status::DatanodeStatus;
use dfs_protocol::{DatanodeId, ErrorCode, Problem};
use dfs_runtime::problem::{ApiJson, ApiPath, ApiQuery, ProblemResponse};
use jiff::Timestamp;
use serde::Deserialize;

use crate::service::Tracker;

type Service = State<Arc<Tracker>>;
type Answer<T> = Result<Json<T>, ProblemResponse>;

pub(super) fn routes() -> Vec<(String, MethodRouter<Arc<Tracker>>)> {
    let all = [
        (paths::ADMIT, post(admit)),
        (paths::REFUSE, post(refuse)),
        (paths::LOST, post(lost)),
        (paths::MAINTENANCE, post(maintain).delete(back)),
        (paths::REFUSALS, get(refusals)),
        (paths::CATALOG, get(catalog)),
        (paths::CATALOG_REBUILD, post(rebuild)),
    ];
    all.map(|(path, methods)| (path.to_owned(), methods)).into()
}

async fn admit(
    State(tracker): Service,
    ApiPath(id): ApiPath<DatanodeId>,
    ApiJson(request): ApiJson<AdmitRequest>,
) -> Answer<DatanodeStatus> {
    Ok(Json(tracker.admit(id, request).await?))
}

async fn refuse(
    State(tracker): Service,
    ApiPath(id): ApiPath<DatanodeId>,
    ApiJson(request): ApiJson<RefuseRequest>,
) -> Answer<DatanodeStatus> {
    Ok(Json(tracker.refuse(id, request)?))
}

/// Without a body nothing is given up.
async fn lost(
    State(tracker): Service,
    ApiPath(id): ApiPath<DatanodeId>,
    body: Bytes,
) -> Answer<DatanodeStatus> {
    let request = if body.is_empty() {
        LostRequest::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Problem::new(ErrorCode::InvalidJson, error.to_string()))?
    };
    Ok(Json(tracker.lose(id, request).await?))
}

/// Until when a datanode is away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Away {
    until: Option<Timestamp>,
    /// From now on, by the tracker's own clock.
    seconds: Option<u32>,
}

async fn maintain(
    State(tracker): Service,
    ApiPath(id): ApiPath<DatanodeId>,
    ApiQuery(away): ApiQuery<Away>,
) -> Answer<DatanodeStatus> {
    let until = match (away.until, away.seconds) {
        (Some(until), None) => until,
        (None, Some(seconds)) => {
            tracker.clock.wall() + std::time::Duration::from_secs(u64::from(seconds))
        }
        (Some(_), Some(_)) | (None, None) => {
            let problem = Problem::new(
                ErrorCode::InvalidParameter,
                "say until when: `?until=TIME` or `?seconds=N`",
            );
            return Err(problem.into());
        }
    };
    Ok(Json(tracker.maintain(id, Some(until))?))
}

async fn back(State(tracker): Service, ApiPath(id): ApiPath<DatanodeId>) -> Answer<DatanodeStatus> {
    Ok(Json(tracker.maintain(id, None)?))
}

async fn refusals(State(tracker): Service) -> Json<Vec<Refusal>> {
    Json(tracker.refusals())
}

async fn catalog(State(tracker): Service) -> Json<CatalogStatus> {
    Json(CatalogStatus {
        state: CatalogState::Open,
        cluster: tracker.cluster(),
        detail: String::new(),
    })
}

/// A tracker that serves has its catalog: see [`crate::lost`] for one that does not.
async fn rebuild() -> ProblemResponse {
    let problem = Problem::new(ErrorCode::Conflict, "the catalog is open: nothing is lost");
    problem.next("look at GET /catalog").into()
}
