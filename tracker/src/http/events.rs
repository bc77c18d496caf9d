//! `GET /events`: the tracker's story as server-sent events, or as one JSON array.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dfs_protocol::events::Event;
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::problem::{ApiQuery, ProblemResponse};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::service::Tracker;
use crate::service::events::Subscription;

/// A comment is sent after so much silence, so that proxies keep the connection and a reader that
/// is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a browser sends when it connects anew.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    since: Option<u64>,
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    #[default]
    Sse,
    Json,
}

pub(super) async fn events(
    State(tracker): State<Arc<Tracker>>,
    headers: HeaderMap,
    ApiQuery(EventsQuery { since, format }): ApiQuery<EventsQuery>,
) -> Result<Response, ProblemResponse> {
    // The header is newer: a reconnecting browser repeats the query of its first request.
    let since = match headers.get(LAST_EVENT_ID) {
        Some(id) => Some(parse(id)?),
        None => since,
    };
    if format == Format::Json {
        let kept = tracker.events.since(since);
        let kept: Vec<&Event> = kept.iter().map(Arc::as_ref).collect();
        return Ok(Json(kept).into_response());
    }
    let subscription = tracker.events.subscribe(since)?;
    let body = Body::from_stream(stream::unfold(
        Some((opening(&subscription), subscription)),
        next,
    ));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that hold answers back would hold each event back.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((headers, body).into_response())
}

fn parse(id: &HeaderValue) -> Result<u64, Problem> {
    let number = id.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| {
        Problem::new(
            ErrorCode::InvalidParameter,
            "Last-Event-ID is not the id of an event",
        )
        .next("send back the id of the last event that was read, or none")
    })
}

/// The first lines, sent at once: the reader knows that it is connected.
fn opening(subscription: &Subscription) -> Bytes {
    let gap = if subscription.gap {
        ": events before these are forgotten\n\n"
    } else {
        ""
    };
    Bytes::from(format!(
        "retry: 3000\n: the story of a dfs tracker\n\n{gap}"
    ))
}

type Feed = Option<(Bytes, Subscription)>;

/// The next piece: the opening, the backlog, then what comes; a comment when nothing does.
async fn next(feed: Feed) -> Option<(Result<Bytes, Infallible>, Feed)> {
    let (opening, mut subscription) = feed?;
    if !opening.is_empty() {
        return Some((Ok(opening), Some((Bytes::new(), subscription))));
    }
    let event = match subscription.backlog.pop_front() {
        Some(event) => Ok(Some(event)),
        None => tokio::time::timeout(KEEP_ALIVE, subscription.coming.recv()).await,
    };
    let piece = match event {
        Ok(Some(event)) => written(&event),
        Ok(None) => return None,
        Err(_silent) => Bytes::from_static(b": nothing new\n\n"),
    };
    Some((Ok(piece), Some((Bytes::new(), subscription))))
}

/// One event as it goes over the wire. Its JSON is one line.
fn written(event: &Event) -> Bytes {
    // Plain data: it always serialises.
    let data = serde_json::to_string(event).unwrap_or_default();
    let (id, kind) = (event.id, event.kind);
    Bytes::from(format!("id: {id}\nevent: {kind}\ndata: {data}\n\n"))
}
