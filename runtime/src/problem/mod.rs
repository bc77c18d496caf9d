//! One way from an error to an answer: [`Problem`] as `application/problem+json`, or as plain text
//! for clients that prefer it. The request layer adds the request's id.

mod accept;
mod extract;

pub use extract::{ApiJson, ApiPath, ApiQuery, DEFAULT_JSON_LIMIT};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use dfs_protocol::problem::{ErrorCode, PROBLEM_MEDIA_TYPE, Problem};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::request::Named;

/// A [`Problem`] as a handler's error: `Result<T, ProblemResponse>`, with `?` on `Problem`.
#[derive(Debug, Clone)]
pub struct ProblemResponse(pub Problem);

impl ProblemResponse {
    /// A problem with its code's title and status.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }
}

impl From<Problem> for ProblemResponse {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<dfs_protocol::path::InvalidName> for ProblemResponse {
    fn from(error: dfs_protocol::path::InvalidName) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        fill(&mut response, self.0, false);
        response
    }
}

/// Puts a problem into a response: status, body and headers; other headers (`Allow`,
/// `Content-Range`) stay. The problem also rides as an extension, for the request layer.
pub(crate) fn fill(response: &mut Response, problem: Problem, plain: bool) {
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = if plain {
        plain_text(&problem)
    } else {
        serde_json::to_string(&problem).unwrap_or_else(|_| problem.to_string())
    };
    let media_type = if plain {
        "text/plain; charset=utf-8"
    } else {
        PROBLEM_MEDIA_TYPE
    };
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    *response.body_mut() = Body::from(body);
    response.extensions_mut().insert(problem);
}

/// Finishes a problem for the client that asked: ids and media type. An empty 404 or 405 of
/// the router becomes a problem here; other responses pass.
pub(crate) fn finish(response: &mut Response, request: &Named<'_>, request_headers: &HeaderMap) {
    let problem = response.extensions_mut().remove::<Problem>();
    let Some(mut problem) = problem.or_else(|| router_problem(response)) else {
        return;
    };
    request.id.clone_into(&mut problem.request_id);
    problem.trace_id = request.trace.to_string();
    fill(
        response,
        problem,
        accept::prefers_plain_text(request_headers),
    );
}

fn router_problem(response: &Response) -> Option<Problem> {
    use http_body::Body as _;
    if response.body().size_hint().exact() != Some(0) {
        return None;
    }
    match response.status() {
        StatusCode::NOT_FOUND => Some(no_route()),
        StatusCode::METHOD_NOT_ALLOWED => Some(wrong_method()),
        _ => None,
    }
}

fn no_route() -> Problem {
    Problem::new(ErrorCode::NotFound, "no such route")
        .next("the routes are listed at /openapi.json and in the documentation")
}

fn wrong_method() -> Problem {
    Problem::new(
        ErrorCode::MethodNotAllowed,
        "the route exists, but not for this method",
    )
    .next("use a method of the Allow header")
}

/// Answers unknown routes and known routes with another method (405 with `Allow`) as problems.
/// [`crate::request::RequestEdge::wrap`] calls it.
pub fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .fallback(|| async { ProblemResponse(no_route()) })
        .method_not_allowed_fallback(|| async { ProblemResponse(wrong_method()) })
}

/// What an error while reading a request's body means: the client was too slow (408), the body
/// is over a limit (413), broke off or is malformed (400).
pub fn body_problem(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return Problem::new(ErrorCode::TooLarge, "the body is over this route's limit");
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::TimedOut
        {
            return slow_body();
        }
        source = error.source();
    }
    Problem::new(ErrorCode::IncompleteBody, error.to_string())
        .next("send the whole body; nothing of it was kept")
}

pub(crate) fn slow_body() -> Problem {
    Problem::new(
        ErrorCode::RequestTimeout,
        "the body arrived more slowly than the minimum rate",
    )
    .next("send the body without long pauses, or upload in smaller parts")
}

/// For a person at a terminal.
fn plain_text(problem: &Problem) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{}: {}\n", problem.title, problem.detail);
    if let Some(next) = &problem.next {
        let _infallible = writeln!(text, "{next}");
    }
    if !problem.trace_id.is_empty() && problem.trace_id != problem.request_id {
        let _infallible = writeln!(text, "trace {}", problem.trace_id);
    }
    if !problem.request_id.is_empty() {
        let _infallible = writeln!(text, "request {}", problem.request_id);
    }
    text
}
