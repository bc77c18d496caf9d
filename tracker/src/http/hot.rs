//! Hot files, and what heartbeats tell of traffic.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get};
use dfs_protocol::routes::{TRAFFIC_HEADER, tracker as paths};
use dfs_protocol::traffic::{DatanodeTraffic, HotFiles};
use dfs_runtime::problem::{ApiQuery, ProblemResponse};
use http::HeaderMap;
use serde::Deserialize;

use crate::service::Tracker;

pub(super) fn routes() -> Vec<(String, MethodRouter<Arc<Tracker>>)> {
    vec![(paths::HOT.to_owned(), get(hot))]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

async fn hot(
    State(tracker): State<Arc<Tracker>>,
    ApiQuery(NoQuery {}): ApiQuery<NoQuery>,
) -> Result<Json<HotFiles>, ProblemResponse> {
    Ok(Json(tracker.hot_files()))
}

/// What a heartbeat's header tells; none where a datanode of an earlier version sends none. One that
/// cannot be read is none too: a heartbeat is never refused for it.
pub(super) fn traffic(headers: &HeaderMap) -> Option<DatanodeTraffic> {
    serde_json::from_slice(headers.get(TRAFFIC_HEADER)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use dfs_protocol::InstanceId;
    use dfs_protocol::datanode::WriteMode;
    use http::HeaderValue;

    use super::*;

    fn told(text: &str) -> Option<DatanodeTraffic> {
        let mut headers = HeaderMap::new();
        headers.insert(TRAFFIC_HEADER, HeaderValue::from_str(text).unwrap());
        traffic(&headers)
    }

    #[test]
    fn traffic_of_older_and_newer_datanodes_is_read_and_nonsense_is_none() {
        assert_eq!(traffic(&HeaderMap::new()), None);
        let mine = DatanodeTraffic {
            instance: InstanceId(7),
            at_ms: 1,
            read_bytes: 2,
            written_bytes: 3,
            copied_bytes: 4,
            write_mode: Some(WriteMode::Direct),
        };
        let mut json = serde_json::to_value(mine).unwrap();
        assert_eq!(told(&json.to_string()), Some(mine));
        json["of_tomorrow"] = 5.into();
        assert_eq!(told(&json.to_string()), Some(mine));
        json.as_object_mut().unwrap().remove("write_mode");
        assert_eq!(told(&json.to_string()).unwrap().write_mode, None);
        for nonsense in ["", "{}", "7", "{\"at_ms\":-1}"] {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
    }
}
