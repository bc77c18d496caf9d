//! What every request gets before a handler sees it: a trace, an id, a span, a place under the cap, and a
//! net under panics. What every answer gets: the id, and problems finished for the client.

mod body;
mod endpoints;
mod metrics;

use body::{Observed, RequestEnd};
pub use endpoints::{Endpoint, Routes};
pub use metrics::{MethodLabel, RequestMetrics, StatusClass};

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use dfs_protocol::problem::{ErrorCode, Problem};
use dfs_protocol::routes::{self, REQUEST_ID_HEADER, TRACEPARENT_HEADER};
use dfs_protocol::{TraceContext, TraceId};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::clock::SharedClock;
use crate::forwarded::{ClientAddr, TrustedProxies};
use crate::problem::{self, ProblemResponse};
use crate::rng::SharedRng;
use crate::server::PeerAddr;
use crate::trace::{self, Tracer};

/// Longest request id that is taken from a client.
const REQUEST_ID_LIMIT: usize = 64;

/// The id of a request, among its extensions: `Extension(RequestId)` in a handler. It is the client's own
/// word where it gave one, and otherwise the id of the trace. Other roles hear of the trace alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// What the layer needs; one per router, cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestEdge {
    rng: SharedRng,
    clock: SharedClock,
    metrics: RequestMetrics,
    places: Arc<Semaphore>,
    proxies: Arc<TrustedProxies>,
    tracer: Tracer,
    for_roles: bool,
}

impl RequestEdge {
    /// At most `in_flight` requests are between their header and the end of their answer; the next
    /// gets 503.
    pub fn new(
        rng: SharedRng,
        clock: SharedClock,
        metrics: RequestMetrics,
        in_flight: usize,
    ) -> Self {
        Self {
            rng,
            clock,
            metrics,
            places: Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS))),
            proxies: Arc::default(),
            tracer: Tracer::off(),
            for_roles: false,
        }
    }

    /// Other roles call here: on their routes the caller's word counts on what is written down.
    #[must_use]
    pub fn for_roles(mut self) -> Self {
        self.for_roles = true;
        self
    }

    /// Writes requests down with this tracer; with none unless said.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Takes these proxies' word on who the client is; nobody's unless said.
    #[must_use]
    pub fn trusting(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = Arc::new(proxies);
        self
    }

    /// Puts the layer around all routes of a router, fallbacks included. Call it once, last. The
    /// metrics have series for every endpoint from here on.
    pub fn wrap(&self, routes: impl Into<Routes>) -> Router {
        let Routes { router, endpoints } = routes.into();
        self.metrics.expect(endpoints);
        problem::with_fallbacks(router)
            .layer(axum::middleware::from_fn_with_state(self.clone(), handle))
    }

    /// The trace of a request, and its span.
    fn begin(&self, request: &Request, method: &str, route: &str) -> Tracked {
        let headers = request.headers();
        let path = request.uri().path();
        let between_roles = path.starts_with(routes::INTERNAL_PREFIX)
            || headers.contains_key(routes::DATANODE_HEADER);
        let parent = headers.get(TRACEPARENT_HEADER);
        let parent = parent.and_then(|value| value.to_str().ok());
        let parent: Option<TraceContext> = parent.and_then(|text| text.parse().ok());
        // At a door for everybody a context is an id, and says nothing about what is written down.
        let role_decided = self.for_roles && between_roles && !routes::is_public(method, path);
        let (current, mut span) = self.tracer.request(&self.rng, parent, role_decided, || {
            format!("{method} {route}")
        });
        span.text("http.request.method", || method.to_owned());
        span.text("http.route", || route.to_owned());
        Tracked {
            current,
            span,
            between_roles,
        }
    }
}

/// A request that was given its trace.
struct Tracked {
    current: trace::Current,
    span: trace::Span,
    /// From another role: logged at DEBUG, or heartbeats would drown what people asked for.
    between_roles: bool,
}

/// The client's own id, if it sent a good one.
fn own_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let sent = headers.get(REQUEST_ID_HEADER)?.to_str().ok()?;
    is_request_id(sent).then(|| sent.into())
}

/// What an answer says of its request.
pub(crate) struct Named<'a> {
    pub(crate) id: &'a str,
    pub(crate) trace: TraceId,
}

/// Ids go into logs and headers: short, and nothing that needs quoting.
fn is_request_id(id: &str) -> bool {
    (1..=REQUEST_ID_LIMIT).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

async fn handle(State(edge): State<RequestEdge>, mut request: Request, next: Next) -> Response {
    let started = edge.clock.monotonic();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route: Arc<str> = route.as_ref().map_or("none", MatchedPath::as_str).into();
    let method = MethodLabel::of(request.method());
    let Tracked {
        current,
        span: part,
        between_roles,
    } = edge.begin(&request, crate::metrics::Label::as_str(method), &route);
    let trace = current.context().trace;
    let own_id = own_id(request.headers());
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0);
    let client = peer.map(|peer| edge.proxies.client(peer.ip(), request.headers()));
    let span = tracing::info_span!(
        "request",
        trace = %trace,
        id = own_id.as_deref(),
        method = crate::metrics::Label::as_str(method),
        route = &*route,
        peer = peer.map(tracing::field::display),
        client = client.map(tracing::field::display),
    );
    if let Some(client) = client {
        request.extensions_mut().insert(ClientAddr(client));
    }
    let id = own_id.unwrap_or_else(|| trace.to_string().into());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut wanted = HeaderMap::new();
    for value in request.headers().get_all(http::header::ACCEPT) {
        wanted.append(http::header::ACCEPT, value.clone());
    }

    let place = edge.places.clone().try_acquire_owned().ok();
    let has_place = place.is_some();
    edge.metrics.started();
    let mut end = RequestEnd {
        metrics: edge.metrics.clone(),
        clock: edge.clock.clone(),
        started,
        status: body::client_gone(),
        bytes: 0,
        broken: false,
        method,
        route,
        span: span.clone(),
        part,
        between_roles,
        _place: place,
    };
    let mut response = if has_place {
        let work = run(&edge, request, next).instrument(span);
        current.scope(work).await
    } else {
        edge.metrics.refused();
        full()
    };
    problem::finish(&mut response, &Named { id: &id, trace }, &wanted);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    end.status = response.status();
    response.map(|inner| Body::new(Observed::new(inner, end)))
}

/// Runs the handler; its panic is a 500 and a counter, not a lost connection.
async fn run(edge: &RequestEdge, request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.unwrap_or_else(|_panic| {
        edge.metrics.panicked();
        tracing::error!("handler panicked");
        let problem = Problem::new(ErrorCode::Internal, "the server hit a bug in this request")
            .next("report the request id; other requests are not affected");
        ProblemResponse(problem).into_response()
    })
}

fn full() -> Response {
    let problem = Problem::new(
        ErrorCode::Unavailable,
        "as many requests as this server takes at once are in flight",
    );
    ProblemResponse(problem.next("try again shortly")).into_response()
}
