//! `GET /status`: how the store is.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use dfs_protocol::calls::Nothing;
use http::Uri;

use super::Route;
use super::answer::{Answer, refused};
use super::query::Query;
use crate::gateway::SharedGateway;

pub(super) fn routes() -> Vec<Route> {
    vec![(dfs_protocol::routes::tracker::STATUS, get(status))]
}

async fn status(State(gateway): State<SharedGateway>, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    let status = gateway.tracker.status(Nothing {}).await.map_err(refused)?;
    Ok(Json(status).into_response())
}
