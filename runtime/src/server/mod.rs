//! The HTTP/1.1 server of every role: an accept loop that survives running out of file handles,
//! caps and timeouts on everything that a client controls, and an end that lets requests finish.

mod accept;
mod connection;
mod framing;
mod head;
mod limits;
mod metrics;
mod rate;
mod raw;
mod wire;

#[cfg(test)]
mod tests;

pub use limits::{RateLimit, ServerLimits};
pub use metrics::{CutReason, RefusalReason, ServerMetrics};
pub use raw::RawStream;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};

use accept::Acceptor;

use crate::shutdown::Shutdown;

/// The remote end of the connection, among a request's extensions: `Extension(PeerAddr)` in a
/// handler. Headers never change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Serves `router` on `listener` until the shutdown, then lets requests in flight finish within
/// [`ServerLimits::drain`] and closes what is left (but not upgraded connections: their handlers
/// should listen to the shutdown too). Handlers may upgrade connections
/// ([`hyper::upgrade::on`]); an upgraded connection holds its place under the cap until dropped. What
/// it sends is watched as answers are; it has no other timeouts but its handler's.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    metrics: ServerMetrics,
    shutdown: Shutdown,
) {
    let drain = limits.drain;
    let mut acceptor = Acceptor::new(
        listener,
        limits.connections,
        limits.spare_handles,
        metrics.clone(),
    );
    let server = Server {
        router,
        limits: Arc::new(limits),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.triggered() => break,
            accepted = acceptor.next() => {
                connections.spawn(connection::run(server.clone(), accepted));
            }
            Some(ended) = connections.join_next() => log_panic(ended),
        }
    }
    // New connections are refused by the kernel from here on.
    let places = acceptor.close();
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
        // Upgraded connections left their tasks, but hold their places.
        places.all_free().await;
    };
    if tokio::time::timeout(drain, all_ended).await.is_err() {
        let left = places.taken();
        metrics.cut.add(CutReason::Shutdown, left as u64);
        tracing::warn!(
            connections = left,
            "closing connections at the end of the drain"
        );
        connections.shutdown().await;
    }
}

/// What each connection of one listener shares.
#[derive(Debug, Clone)]
struct Server {
    router: Router,
    limits: Arc<ServerLimits>,
    metrics: ServerMetrics,
    shutdown: Shutdown,
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
