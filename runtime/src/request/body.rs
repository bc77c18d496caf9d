//! The end of a request is the end of its answer's body: counted and logged there, also when the
//! client leaves before it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use super::metrics::{MethodLabel, RequestMetrics};
use crate::clock::SharedClock;
use crate::trace;

/// A request in flight. Dropped at its end, however it ends.
#[derive(Debug)]
pub(super) struct RequestEnd {
    pub(super) metrics: RequestMetrics,
    pub(super) clock: SharedClock,
    pub(super) started: Duration,
    /// Of the answer; [`client_gone`] until there is one.
    pub(super) status: StatusCode,
    /// Body bytes handed to the connection.
    pub(super) bytes: u64,
    /// The answer's body broke off.
    pub(super) broken: bool,
    pub(super) method: MethodLabel,
    pub(super) route: Arc<str>,
    pub(super) span: Span,
    /// Of its trace.
    pub(super) part: trace::Span,
    /// From another role: logged at DEBUG, or heartbeats would drown what people asked for.
    pub(super) between_roles: bool,
    /// Kept until the body ends: a client that reads slowly holds its place.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

/// Status in the log of a request whose client left before the answer: the customary 499.
pub(super) fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// A body that reports its end.
#[derive(Debug)]
pub(super) struct Observed {
    inner: Body,
    end: RequestEnd,
}

impl Observed {
    pub(super) fn new(inner: Body, end: RequestEnd) -> Self {
        Self { inner, end }
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let span = self.end.span.clone();
        let _entered = span.enter();
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.end.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                self.end.broken = true;
                tracing::warn!(%error, "breaking off the answer");
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestEnd {
    fn drop(&mut self) {
        let duration = self.clock.monotonic().saturating_sub(self.started);
        self.metrics
            .ended(self.method, &self.route, self.status, self.bytes, duration);
        let _entered = self.span.enter();
        let (status, bytes, broken) = (self.status.as_u16(), self.bytes, self.broken);
        self.part
            .number("http.response.status_code", u64::from(status));
        self.part.number("http.response.body.size", bytes);
        if broken {
            self.part.failed("broken-off");
        } else if self.status.is_server_error() {
            self.part.failed("server-error");
        }
        let seconds = duration.as_secs_f64();
        if self.between_roles {
            tracing::debug!(target: "dfs::access", status, bytes, broken, seconds, "request ended");
        } else {
            tracing::info!(target: "dfs::access", status, bytes, broken, seconds, "request ended");
        }
    }
}
