//! The tracker's own routes: what datanodes and gateways call. The public doors come from the
//! gateway crate and are mounted beside these.

mod admission;
mod events;
mod hot;
mod plans;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json};
use bytes::Bytes;
use dfs_client::tracker::dispatch;
use dfs_protocol::datanode::{
    ChunkReport, Heartbeat, HeartbeatReply, RegisterRequest, RegisterResponse,
};
use dfs_protocol::routes::{REPAIR_HEADER, is_public, tracker as routes};
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::problem::{ApiJson, ApiPath, ApiQuery, ProblemResponse};
use dfs_runtime::request::Routes;
use dfs_runtime::server::PeerAddr;
use dfs_runtime::token::Guard;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::service::Tracker;

/// A commit of a file with many thousand chunks, or a heartbeat after a wave of deletions.
const CALL_LIMIT: usize = 16 * 1024 * 1024;
/// A full report of several million replicas.
const REPORT_LIMIT: usize = 256 * 1024 * 1024;

/// The paths of this router that people call, as an OpenAPI paths object. The calls between roles
/// (`/internal/`) are no part of the API.
pub fn openapi_paths() -> serde_json::Value {
    // A test parses it, so the fallback is never seen.
    serde_json::from_str(include_str!("openapi.json")).unwrap_or_default()
}

/// The tracker's own routes.
pub fn router(tracker: Arc<Tracker>) -> Routes {
    Routes::mount(routes(), tracker)
}

/// Every path and its methods: a table, so that a test can go over it.
fn routes() -> Vec<(String, MethodRouter<Arc<Tracker>>)> {
    let mut all = vec![
        (
            routes::REGISTER.to_owned(),
            get(register_by_port).post(register),
        ),
        (routes::HEARTBEAT.to_owned(), post(heartbeat)),
        (
            routes::CHUNK_REPORT.to_owned(),
            post(chunk_report).layer(DefaultBodyLimit::max(REPORT_LIMIT)),
        ),
        (
            format!("{}{{name}}", routes::CALL_PREFIX),
            post(call).layer(DefaultBodyLimit::max(CALL_LIMIT)),
        ),
    ];
    all.push((routes::EVENTS.to_owned(), get(events::events)));
    all.extend(admission::routes());
    all.extend(plans::routes());
    all.extend(hot::routes());
    all
}

/// Every path of the tracker's own.
pub fn paths() -> Vec<String> {
    routes().into_iter().map(|(path, _)| path).collect()
}

/// The routes of the tracker's port: its own and `doors` (the gateway's), behind the cluster token
/// where there is one.
pub fn guarded(tracker: Arc<Tracker>, doors: Routes) -> Routes {
    let noting = tracker.clone();
    let guard = Guard::new(tracker.config.tokens.clone(), is_public);
    let guard = guard.on_refused(Arc::new(move |request: &Request, problem: &Problem| {
        let from_datanode = [routes::REGISTER, routes::HEARTBEAT, routes::CHUNK_REPORT];
        if from_datanode.contains(&request.uri().path()) {
            let peer = request.extensions().get::<PeerAddr>();
            noting.note_wrong_token(peer.map(|peer| peer.0.ip()), problem);
        }
    }));
    let both = router(tracker).merge(doors);
    both.map(|router| guard.wrap(router))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterByPort {
    port: u16,
}

/// `GET /register?port=6001`: a person, or a datanode of the simplest kind, announces whoever
/// listens on the caller's address and that port.
async fn register_by_port(
    State(tracker): State<Arc<Tracker>>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    ApiQuery(RegisterByPort { port }): ApiQuery<RegisterByPort>,
) -> Result<Json<serde_json::Value>, ProblemResponse> {
    let address = std::net::SocketAddr::new(peer.ip(), port).to_string();
    Ok(Json(tracker.register_by_address(&address).await?))
}

async fn register(
    State(tracker): State<Arc<Tracker>>,
    ApiJson(request): ApiJson<RegisterRequest>,
) -> Result<Json<RegisterResponse>, ProblemResponse> {
    Ok(Json(tracker.register(request).await?))
}

async fn heartbeat(
    State(tracker): State<Arc<Tracker>>,
    headers: HeaderMap,
    ApiJson(heartbeat): ApiJson<Heartbeat, CALL_LIMIT>,
) -> Result<Response, ProblemResponse> {
    let id = heartbeat.datanode;
    let reply = tracker.heartbeat(heartbeat).await?;
    if let Some(traffic) = hot::traffic(&headers) {
        tracker.note_traffic(id, traffic);
    }
    Ok(with_terms(&tracker, reply))
}

/// A reply, with the terms of its copies.
fn with_terms(tracker: &Tracker, reply: HeartbeatReply) -> Response {
    let terms = serde_json::to_string(&tracker.repair_terms(&reply)).unwrap_or_default();
    ([(REPAIR_HEADER, terms)], Json(reply)).into_response()
}

async fn chunk_report(
    State(tracker): State<Arc<Tracker>>,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    let taking = Arc::clone(&tracker);
    // Millions of entries take a while: not where other requests are served.
    let taken = tokio::task::spawn_blocking(move || {
        let report: ChunkReport = postcard::from_bytes(&body).map_err(|error| {
            Problem::new(
                ErrorCode::BadRequest,
                format!("the chunk report cannot be read: {error}"),
            )
        })?;
        taking.chunk_report(report)
    });
    let reply = taken
        .await
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))??;
    Ok(with_terms(&tracker, reply))
}

async fn call(
    State(tracker): State<Arc<Tracker>>,
    ApiPath(name): ApiPath<String>,
    body: Bytes,
) -> Result<Response, ProblemResponse> {
    let json = dispatch(tracker.as_ref(), &name, &body).await?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dfs_protocol::routes::INTERNAL_PREFIX;

    use super::*;

    #[test]
    fn the_document_names_every_route_that_people_call() {
        let documented = openapi_paths();
        let documented: BTreeSet<&String> = documented.as_object().unwrap().keys().collect();
        let served = paths();
        let for_people = |path: &&String| !path.starts_with(INTERNAL_PREFIX);
        assert_eq!(documented, served.iter().filter(for_people).collect());
        assert_eq!(served.len(), documented.len() + 3);
        let methods = |path: &str| -> Vec<String> {
            let operations = openapi_paths()[path].as_object().cloned().unwrap();
            operations.keys().cloned().collect()
        };
        assert_eq!(methods(routes::EVENTS), ["get", "head"]);
        assert_eq!(methods(routes::REGISTER), ["get", "head", "post"]);
        assert_eq!(methods(routes::CATALOG), ["get", "head"]);
        assert_eq!(methods(routes::ADMIT), ["post"]);
    }
}
