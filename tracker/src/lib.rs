//! The tracker: catalog, placement, repair, garbage collection. `model` and `plan` are pure;
//! `store` is the durable catalog; `service` answers; `loops` carry plans out.

pub mod config;
pub mod http;
mod journal_set;
mod loops;
pub mod lost;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod rebuild;
pub mod service;
pub mod store;

pub use config::{AdmissionPolicy, TrackerConfig};
pub use journal_set::decode_journal_page;
pub use service::{StartError, Tracker, TrackerParts};

use std::sync::Arc;

use dfs_runtime::disk::SharedDisk;
use dfs_runtime::request::{RequestEdge, RequestMetrics, Routes};
use dfs_runtime::server::{ServerMetrics, serve};
use dfs_runtime::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::store::{Engine, RedbConfig, RedbEngine, StoreError};

/// Requests under way at once.
const IN_FLIGHT: usize = 4096;

/// A tracker with its loops running.
#[derive(Debug)]
pub struct Running {
    /// The service, to be mounted.
    pub tracker: Arc<Tracker>,
    loops: JoinSet<()>,
}

/// Opens the embedded catalog of `config.dir`. Blocking work is done on a blocking thread.
///
/// Errors: [`StoreError`]: locked, damaged, of a newer format, half rebuilt.
pub async fn open_engine(
    disk: SharedDisk,
    config: &TrackerConfig,
) -> Result<Arc<dyn Engine>, StoreError> {
    rebuild::refuse_unfinished(disk.clone(), config.dir.clone()).await?;
    open_any_engine(disk, config).await
}

/// As [`open_engine`], also while a rebuild fills it.
async fn open_any_engine(
    disk: SharedDisk,
    config: &TrackerConfig,
) -> Result<Arc<dyn Engine>, StoreError> {
    let redb = RedbConfig {
        cache_bytes: config.cache_bytes,
        ballast_bytes: config.ballast_bytes,
        reserve_bytes: config.reserve_bytes,
        quick_repair: config.quick_repair,
        ..RedbConfig::new(config.dir.clone())
    };
    let opened = tokio::task::spawn_blocking(move || RedbEngine::open(disk, &redb)).await;
    match opened {
        Ok(engine) => Ok(Arc::new(engine?)),
        Err(panic) => Err(StoreError::Engine {
            detail: panic.to_string(),
        }),
    }
}

/// Opens the tracker and starts its loops.
///
/// Errors: [`StartError`].
pub async fn start(
    engine: Arc<dyn Engine>,
    config: TrackerConfig,
    parts: TrackerParts,
    shutdown: &Shutdown,
) -> Result<Running, StartError> {
    let tracker = Tracker::open(engine, config, parts).await?;
    let loops = loops::start(&tracker, shutdown);
    Ok(Running { tracker, loops })
}

impl Running {
    /// Waits until the loops ended (after the shutdown) and closes the catalog.
    pub async fn stop(mut self) {
        while self.loops.join_next().await.is_some() {}
        self.tracker.catalog().close().await;
    }
}

/// Serves the tracker's routes beside `doors` (the gateway's) until the shutdown, or until this
/// tracker must end: the reason is returned then.
///
/// Errors: metrics that cannot be registered.
pub async fn run(
    running: Running,
    doors: Routes,
    listener: TcpListener,
    registry: &prometheus::Registry,
    shutdown: Shutdown,
) -> Result<Option<String>, prometheus::Error> {
    let tracker = running.tracker.clone();
    let edge = RequestEdge::new(
        tracker.rng.clone(),
        tracker.clock.clone(),
        RequestMetrics::register(registry)?,
        IN_FLIGHT,
    )
    .trusting(tracker.config.proxies.clone())
    .for_roles()
    .traced(tracker.config.tracer.clone());
    let router = edge.wrap(http::guarded(tracker.clone(), doors));
    let metrics = ServerMetrics::register(registry, "api")?;
    let limits = tracker.config.server.clone();
    let over = tokio::select! {
        reason = tracker.until_over() => Some(reason),
        () = serve(listener, router, limits, metrics, shutdown) => None,
    };
    if over.is_none() {
        running.stop().await;
    }
    Ok(over)
}
