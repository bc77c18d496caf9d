//! Over real loopback sockets, with raw bytes: what a client can do wrong, no client library does.

mod capacity;
mod input;
mod pace;
mod requests;
mod streams;
mod traces;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::Response;
use axum::routing::{get, post};
use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{ServerLimits, ServerMetrics, serve};
use crate::clock::SystemClock;
use crate::forwarded::TrustedProxies;
use crate::request::{RequestEdge, RequestMetrics};
use crate::rng::SharedRng;
use crate::shutdown::{ShutdownTrigger, shutdown_pair};

/// Far above what any test needs on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(90);

pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) metrics: ServerMetrics,
    pub(super) requests: RequestMetrics,
    pub(super) trigger: ShutdownTrigger,
    pub(super) done: JoinHandle<()>,
}

/// Serves `router` behind the request layer, with room for 4 requests in flight.
pub(super) async fn serve_router(limits: ServerLimits, router: Router) -> Served {
    serve_behind(limits, router, TrustedProxies::default()).await
}

/// The same, with proxies in front.
pub(super) async fn serve_behind(
    limits: ServerLimits,
    router: Router,
    proxies: TrustedProxies,
) -> Served {
    let registry = Registry::new();
    let metrics = ServerMetrics::register(&registry, "api").unwrap();
    let requests = RequestMetrics::register(&registry).unwrap();
    let edge = RequestEdge::new(
        SharedRng::from_seed(1),
        SystemClock::shared(),
        requests.clone(),
        4,
    )
    .trusting(proxies);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = shutdown_pair();
    let router = edge.wrap(router);
    let done = tokio::spawn(serve(listener, router, limits, metrics.clone(), shutdown));
    Served {
        address,
        metrics,
        requests,
        trigger,
        done,
    }
}

/// `GET /` says hello, `POST /echo` sends the body back, `POST /ignore` never looks at it.
pub(super) async fn serve_simple(limits: ServerLimits) -> Served {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/echo",
            post(|body: Bytes| async { body }).put(|body: Bytes| async { body }),
        )
        .route(
            "/ignore",
            post(|| async { Response::new("ignored".to_owned()) }),
        );
    serve_router(limits, router).await
}

impl Served {
    pub(super) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends bytes on a new connection, reads until the server closes.
    pub(super) async fn talk(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }
}

pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What comes until the server closes; a reset is an end too.
    pub(super) async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        let read = self.0.read_to_end(&mut text);
        let _reset = tokio::time::timeout(DEADLINE, read).await.unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads until what came ends with `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let read = async {
            while !text.ends_with(end.as_bytes()) {
                let byte = self.0.read_u8().await;
                let so_far = String::from_utf8_lossy(&text);
                text.push(byte.unwrap_or_else(|error| panic!("{error} after {so_far}")));
            }
        };
        tokio::time::timeout(DEADLINE, read).await.unwrap();
        String::from_utf8(text).unwrap()
    }
}

/// Waits until `condition` holds.
pub(super) async fn eventually(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}
