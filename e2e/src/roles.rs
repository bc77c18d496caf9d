//! Roles as futures: wired as the binary wires them, over the test's seams. Each says at its end
//! in words why it ended.

use std::fmt::Display;
use std::future::Future;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use dfs_datanode::{DatanodeConfig, DatanodeParts};
use dfs_gateway::{Document, GatewayConfig, GatewayParts};
use dfs_runtime::admin::Readiness;
use dfs_runtime::clock::SharedClock;
use dfs_runtime::disk::SharedDisk;
use dfs_runtime::net::SharedConnector;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::Shutdown;
use dfs_tracker::lost::find_or_recover;
use dfs_tracker::{TrackerConfig, TrackerParts};
use prometheus::Registry;
use tokio::net::TcpListener;

#[derive(Debug, Clone)]
pub(crate) struct Seams {
    pub(crate) disk: SharedDisk,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) connector: SharedConnector,
    pub(crate) registry: Registry,
}

/// A role that was asked to end, and did.
const ENDED: &str = "ended as asked";

pub(crate) fn tracker(
    config: TrackerConfig,
    gateway: GatewayConfig,
    seams: Seams,
    listener: StdListener,
    shutdown: Shutdown,
) -> impl Future<Output = String> + Send {
    said(run_tracker(config, gateway, seams, listener, shutdown))
}

async fn run_tracker(
    config: TrackerConfig,
    gateway: GatewayConfig,
    seams: Seams,
    listener: StdListener,
    shutdown: Shutdown,
) -> Result<Option<String>, String> {
    let parts = TrackerParts {
        clock: seams.clock.clone(),
        rng: seams.rng.clone(),
        connector: seams.connector.clone(),
        registry: seams.registry.clone(),
    };
    let tokens = config.tokens.clone();
    let listener = TcpListener::from_std(listener).map_err(words)?;
    let (disk, readiness) = (seams.disk, Readiness::new());
    let found = find_or_recover(disk, &config, &parts, &readiness, listener, &shutdown).await;
    let Some((engine, listener)) = found.map_err(words)? else {
        return Ok(None);
    };
    let running = dfs_tracker::start(engine, config, parts, &shutdown)
        .await
        .map_err(words)?;
    let parts = GatewayParts {
        tracker: Arc::clone(&running.tracker) as Arc<dyn dfs_client::TrackerApi>,
        http: running.tracker.http().clone(),
        clock: seams.clock,
        rng: seams.rng,
        registry: seams.registry.clone(),
        shutdown: shutdown.clone(),
    };
    let gateway = GatewayConfig {
        tokens,
        document: Document::PublicAndAdmin {
            more: dfs_tracker::http::openapi_paths(),
        },
        ..gateway
    };
    let doors = dfs_gateway::doors(parts, gateway).map_err(words)?;
    let doors = doors.public.merge(doors.admin);
    dfs_tracker::run(running, doors, listener, &seams.registry, shutdown)
        .await
        .map_err(words)
}

pub(crate) fn datanode(
    config: DatanodeConfig,
    seams: Seams,
    listener: StdListener,
    shutdown: Shutdown,
) -> impl Future<Output = String> + Send {
    said(async move {
        let parts = DatanodeParts {
            listener: TcpListener::from_std(listener).map_err(words)?,
            admin: None,
            disk: seams.disk,
            clock: seams.clock,
            rng: seams.rng,
            connector: seams.connector,
            registry: seams.registry,
        };
        dfs_datanode::run(config, parts, shutdown)
            .await
            .map_err(words)?;
        Ok(None)
    })
}

async fn said(role: impl Future<Output = Result<Option<String>, String>>) -> String {
    match role.await {
        Ok(None) => ENDED.to_owned(),
        Ok(Some(reason)) | Err(reason) => reason,
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}
