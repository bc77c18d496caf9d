//! What-if and proofs: nothing changes by asking.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use dfs_protocol::plan::{PlanAnswer, PlanQuestion, Proof};
use dfs_protocol::routes::tracker as paths;
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::problem::{ApiPath, ApiQuery, ProblemResponse};
use serde::Deserialize;

use crate::service::Tracker;

type Service = State<Arc<Tracker>>;

pub(super) fn routes() -> Vec<(String, MethodRouter<Arc<Tracker>>)> {
    vec![
        (paths::PLAN.to_owned(), get(plan)),
        (paths::PROOF.to_owned(), get(proof)),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    lose: Option<String>,
    scale: Option<u32>,
}

async fn plan(
    State(tracker): Service,
    ApiQuery(Asked { lose, scale }): ApiQuery<Asked>,
) -> Result<Json<PlanAnswer>, ProblemResponse> {
    let question = match (lose, scale) {
        (Some(names), None) => PlanQuestion::Lose(
            names
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect(),
        ),
        (None, Some(wanted)) => PlanQuestion::Scale(wanted),
        (Some(_), Some(_)) | (None, None) => {
            return Err(
                Problem::new(ErrorCode::InvalidParameter, "say either `lose` or `scale`")
                    .next("?lose=NODE,NODE or ?scale=N")
                    .into(),
            );
        }
    };
    Ok(Json(tracker.foresee(question).await?))
}

async fn proof(
    State(tracker): Service,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<Proof>, ProblemResponse> {
    Ok(Json(tracker.prove(&name).await?))
}
