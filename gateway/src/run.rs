//! The stand-alone gateway.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::TrackerApi;
use dfs_protocol::calls::Nothing;
use dfs_runtime::admin::{Readiness, admin_router, serve_admin};
use dfs_runtime::request::{RequestEdge, RequestMetrics};
use dfs_runtime::server::{ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::Shutdown;
use tokio::net::TcpListener;

use crate::config::GatewayConfig;
use crate::doors::doors;
use crate::gateway::GatewayParts;

/// Between two looks at the tracker.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Configuration of a gateway of its own.
#[derive(Debug, Clone)]
pub struct StandAlone {
    /// The doors.
    pub gateway: GatewayConfig,
    /// The listener.
    pub limits: ServerLimits,
    /// Requests at once.
    pub in_flight: usize,
}

/// A gateway that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A metric is registered already: two gateways share a registry.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves the public door on `listener` and health and metrics on `admin_listener` until the
/// shutdown. Ready while the tracker answers.
pub async fn run(
    config: StandAlone,
    parts: GatewayParts,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let StandAlone {
        gateway,
        limits,
        in_flight,
    } = config;
    let registry = parts.registry.clone();
    dfs_runtime::process::register(&registry, "gateway")?;
    let server_metrics = ServerMetrics::register(&registry, "api")?;
    let edge = RequestEdge::new(
        parts.rng.clone(),
        parts.clock.clone(),
        RequestMetrics::register(&registry)?,
        in_flight,
    );
    let readiness = Readiness::new();
    let watch = tokio::spawn(watch_tracker(
        parts.tracker.clone(),
        readiness.clone(),
        shutdown.clone(),
    ));
    let public = edge.wrap(doors(parts, gateway)?.public);
    let admin = serve_admin(
        admin_listener,
        admin_router(readiness, vec![registry.clone()]),
        ServerMetrics::register(&registry, "admin")?,
        shutdown.clone(),
    );
    tokio::join!(
        serve(listener, public, limits, server_metrics, shutdown),
        admin
    );
    watch.abort();
    Ok(())
}

async fn watch_tracker(tracker: Arc<dyn TrackerApi>, readiness: Readiness, shutdown: Shutdown) {
    loop {
        let state = tracker.status(Nothing {}).await;
        let state = state.map(drop).map_err(|error| error.to_string());
        readiness.set("tracker", state);
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
}
