//! One connection from accept to close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dfs_protocol::problem::{ErrorCode, Problem};
use dfs_protocol::routes::REQUEST_ID_HEADER;
use http::header::{ALLOW, CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::ServiceExt as _;

use super::accept::Accepted;
use super::head::Refusal;
use super::wire::{InFlight, REFUSED_METHOD, Shared, Wire};
use super::{PeerAddr, Server, ServerLimits};
use crate::problem::{self, ProblemResponse};

/// Bytes that hyper buffers of a request body or an answer, beside one whole header.
const BUFFER: usize = 256 * 1024;

/// Serves one connection until its end, or until its last request after the shutdown.
pub(super) async fn run(server: Server, accepted: Accepted) {
    let Accepted {
        stream,
        peer,
        place,
    } = accepted;
    let shared = Arc::new(Shared::default());
    let limits = server.limits.clone();
    let wire = Wire::new(
        stream,
        limits.clone(),
        server.metrics.clone(),
        shared.clone(),
        place,
    );
    let shutdown = server.shutdown.clone();
    let service = service_fn(move |request| {
        let in_flight = shared.begin();
        answer(server.clone(), shared.clone(), peer, request, in_flight)
    });
    let connection = builder(&limits)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.triggered() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection ended early");
    }
}

fn builder(limits: &ServerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The wire keeps the times: hyper's own would cut an idle connection, too.
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.saturating_add(BUFFER));
    if limits.headers > 100 {
        // A number of its own costs hyper an allocation per request; its default is 100.
        builder.max_headers(limits.headers);
    }
    builder
}

async fn answer(
    server: Server,
    shared: Arc<Shared>,
    peer: SocketAddr,
    request: Request<Incoming>,
    in_flight: InFlight,
) -> Result<Response<Guarded>, Infallible> {
    let upgrade = request.headers().contains_key(UPGRADE);
    let mut response = if request.method().as_str() == REFUSED_METHOD {
        close(refused(&shared))
    } else if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        close(never_allowed())
    } else {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(PeerAddr(peer));
        let Ok(response) = server.router.oneshot(request).await;
        response
    };
    if shared.is_slow_body() {
        response = close(too_slow(&response));
    } else if upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // What follows the request was not judged as a header.
        response = close(response);
    }
    Ok(response.map(|inner| Guarded {
        inner,
        _in_flight: in_flight,
    }))
}

fn close(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn refused(shared: &Shared) -> Response {
    let refusal = shared.take_refusal();
    let Refusal(code, detail) = refusal.unwrap_or(Refusal(ErrorCode::BadRequest, "unknown method"));
    ProblemResponse::new(code, detail).into_response()
}

/// TRACE echoes headers to whoever can make a browser send it; CONNECT is for proxies.
fn never_allowed() -> Response {
    let problem = Problem::new(
        ErrorCode::MethodNotAllowed,
        "this server knows no TRACE and no CONNECT",
    );
    let mut response = ProblemResponse(problem).into_response();
    let allow = HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE");
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Whatever the handler made of the broken body, the client is told the reason.
fn too_slow(response: &Response) -> Response {
    let mut problem = problem::slow_body();
    let id = response.headers().get(REQUEST_ID_HEADER);
    if let Some(id) = id.and_then(|id| id.to_str().ok()) {
        id.clone_into(&mut problem.request_id);
    }
    let mut slow = ProblemResponse(problem).into_response();
    if let Some(id) = id {
        slow.headers_mut().insert(REQUEST_ID_HEADER, id.clone());
    }
    slow
}

/// An answer's body: the request is in flight until it is sent.
#[derive(Debug)]
struct Guarded {
    inner: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
