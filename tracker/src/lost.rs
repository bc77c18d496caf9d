//! A tracker whose volume holds no catalog although its cluster had one. It makes no new one: every
//! file would be gone, and every datanode would belong to a stranger. It answers 503 to everything until
//! somebody lets it rebuild the catalog from the datanodes; then it serves.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::catalog_lost;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use dfs_protocol::admission::{CatalogState, CatalogStatus, RebuildCatalogRequest};
use dfs_protocol::routes::{is_public, tracker as routes};
use dfs_protocol::{ClusterId, ErrorCode, Problem};
use dfs_runtime::admin::Readiness;
use dfs_runtime::disk::SharedDisk;
use dfs_runtime::problem::{ApiJson, ProblemResponse};
use dfs_runtime::request::{RequestEdge, RequestMetrics};
use dfs_runtime::server::{ServerMetrics, serve};
use dfs_runtime::shutdown::{Shutdown, shutdown_pair};
use dfs_runtime::token::Guard;
use http::StatusCode;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::TrackerConfig;
use crate::open_engine;
use crate::rebuild::{clear, rebuild};
use crate::service::TrackerParts;
use crate::store::rebuild::RebuildOptions;
use crate::store::redb::has_catalog;
use crate::store::{Engine, StoreError, keys};

/// Requests under way at once.
const IN_FLIGHT: usize = 256;
/// How long requests may go on once the catalog is there.
const DRAIN: Duration = Duration::from_secs(2);
/// The check on the admin listener.
pub const CATALOG_CHECK: &str = "catalog";
/// Most datanodes of one rebuild.
const MAX_DATANODES: usize = 10_000;

/// Why a tracker has no catalog to serve.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is another cluster's.
    #[error(
        "the catalog is that of cluster {found}, and {expected} is expected: give the tracker its \
         own volume, or say the right cluster with --expect-cluster"
    )]
    OtherCluster {
        /// What lies there.
        found: ClusterId,
        /// What was expected.
        expected: ClusterId,
    },
    /// The socket cannot be shared.
    #[error("the listener failed: {0}")]
    Listener(#[from] io::Error),
    /// A metric was registered twice.
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the tracker's directory holds.
#[derive(Debug)]
pub enum Found {
    /// A catalog, new where none is expected.
    Catalog(Arc<dyn Engine>),
    /// No catalog, or no whole one, although the cluster had one.
    Lost {
        /// The cluster.
        cluster: ClusterId,
        /// What is there instead.
        detail: String,
    },
}

/// Opens the catalog of `config.dir`. Where a cluster is expected, none is made and no other is taken.
///
/// Errors: [`CatalogError`].
pub async fn find(disk: SharedDisk, config: &TrackerConfig) -> Result<Found, CatalogError> {
    let Some(cluster) = config.expect_cluster else {
        return Ok(Found::Catalog(open_engine(disk, config).await?));
    };
    let lost = |detail: &str| {
        Ok(Found::Lost {
            cluster,
            detail: detail.to_owned(),
        })
    };
    let (looking, dir) = (disk.clone(), config.dir.clone());
    let is_there = blocking(move || {
        looking.create_dir_all(&dir)?;
        has_catalog(&looking, &dir)
    });
    if !is_there.await? {
        return lost("the volume holds no catalog");
    }
    let engine = match open_engine(disk, config).await {
        Err(StoreError::PartlyLoaded) => return lost("a rebuild was interrupted"),
        opened => opened?,
    };
    match cluster_of(engine.clone()).await? {
        // Made and never filled: the process that made it died at once.
        None => lost("the volume holds an empty catalog"),
        Some(found) if found != cluster => Err(CatalogError::OtherCluster {
            found,
            expected: cluster,
        }),
        Some(_) => Ok(Found::Catalog(engine)),
    }
}

/// The cluster of an open catalog; none when it is empty or half loaded.
async fn cluster_of(engine: Arc<dyn Engine>) -> Result<Option<ClusterId>, StoreError> {
    let read = tokio::task::spawn_blocking(move || {
        let txn = engine.read()?;
        if txn
            .get(crate::store::kv::Table::Meta, keys::LOADING)?
            .is_some()
        {
            return Ok(None);
        }
        keys::read_cluster(txn.as_ref())
    });
    read.await.unwrap_or_else(|error| {
        Err(StoreError::Engine {
            detail: error.to_string(),
        })
    })
}

/// Finds the catalog; while it is lost, serves 503 on the listener and waits to be told to rebuild it.
/// Gives the catalog and the listener to serve on; none at the shutdown.
///
/// Errors: [`CatalogError`].
pub async fn find_or_recover(
    disk: SharedDisk,
    config: &TrackerConfig,
    parts: &TrackerParts,
    readiness: &Readiness,
    listener: TcpListener,
    shutdown: &Shutdown,
) -> Result<Option<(Arc<dyn Engine>, TcpListener)>, CatalogError> {
    let is_lost = catalog_lost(&parts.registry)?;
    let socket = listener.into_std()?;
    loop {
        let (cluster, detail) = match find(disk.clone(), config).await? {
            Found::Catalog(engine) => {
                is_lost.set(0);
                // Ready is who answers: `CATALOG_CHECK` is for whoever loads it to set.
                readiness.set(CATALOG_CHECK, Err("being loaded".to_owned()));
                return Ok(Some((engine, TcpListener::from_std(socket)?)));
            }
            Found::Lost { cluster, detail } => (cluster, detail),
        };
        is_lost.set(1);
        let reason = format!("{detail}; POST /catalog/rebuild builds it from the datanodes");
        readiness.set(CATALOG_CHECK, Err(reason));
        tracing::error!(%cluster, detail, "the catalog is lost: nothing is served until it is rebuilt");
        let waiting = Arc::new(Waiting {
            disk: disk.clone(),
            config: config.clone(),
            parts: parts.clone(),
            cluster,
            now: Mutex::new((CatalogState::Lost, detail)),
            rebuilt: watch::Sender::new(false),
        });
        let door = TcpListener::from_std(socket.try_clone()?)?;
        if !waiting.serve_until_rebuilt(door, shutdown).await? {
            return Ok(None);
        }
    }
}

/// A lost catalog that waits for its rebuild.
#[derive(Debug)]
struct Waiting {
    disk: SharedDisk,
    config: TrackerConfig,
    parts: TrackerParts,
    cluster: ClusterId,
    now: Mutex<(CatalogState, String)>,
    rebuilt: watch::Sender<bool>,
}

impl Waiting {
    /// True when the catalog is there, false at the shutdown.
    async fn serve_until_rebuilt(
        self: Arc<Self>,
        door: TcpListener,
        shutdown: &Shutdown,
    ) -> Result<bool, prometheus::Error> {
        // The tracker that serves later registers its own under the same names.
        let registry = Registry::new();
        let edge = RequestEdge::new(
            self.parts.rng.clone(),
            self.parts.clock.clone(),
            RequestMetrics::register(&registry)?,
            IN_FLIGHT,
        );
        let metrics = ServerMetrics::register(&registry, "api")?;
        let mut limits = self.config.server.clone();
        limits.drain = limits.drain.min(DRAIN);
        let (stop, stopping) = shutdown_pair();
        let serving = serve(door, edge.wrap(router(&self)), limits, metrics, stopping);
        let mut rebuilt = self.rebuilt.subscribe();
        let over = async {
            let is_rebuilt = tokio::select! {
                () = shutdown.triggered() => false,
                // The sender lives as long as `self`.
                done = rebuilt.wait_for(|done| *done) => done.is_ok(),
            };
            stop.trigger();
            is_rebuilt
        };
        let ((), is_rebuilt) = tokio::join!(serving, over);
        Ok(is_rebuilt)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (CatalogState, String)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> CatalogStatus {
        let (state, detail) = self.lock().clone();
        CatalogStatus {
            state,
            cluster: self.cluster,
            detail,
        }
    }

    /// Begins a rebuild, unless one is under way.
    fn begin(&self) -> Result<(), Problem> {
        let mut now = self.lock();
        if now.0 == CatalogState::Rebuilding {
            return Err(
                Problem::new(ErrorCode::Conflict, "a rebuild is under way already")
                    .next("look at GET /catalog"),
            );
        }
        *now = (CatalogState::Rebuilding, "reading the datanodes".to_owned());
        Ok(())
    }

    async fn rebuild(self: Arc<Self>, request: RebuildCatalogRequest) {
        let outcome = match self.fill(request).await {
            Ok(files) => {
                tracing::info!(files, "the catalog was rebuilt");
                (CatalogState::Open, String::new())
            }
            Err(reason) => {
                tracing::error!(reason, "the catalog could not be rebuilt");
                let emptied = self.empty().await;
                let left = emptied
                    .err()
                    .map(|error| format!("; emptying the directory: {error}"));
                let detail = format!("the rebuild failed: {reason}{}", left.unwrap_or_default());
                (CatalogState::Lost, detail)
            }
        };
        let is_open = outcome.0 == CatalogState::Open;
        *self.lock() = outcome;
        self.rebuilt.send_replace(is_open);
    }

    async fn fill(&self, request: RebuildCatalogRequest) -> Result<u64, String> {
        let RebuildCatalogRequest {
            datanodes,
            allow_gap,
        } = request;
        self.empty().await.map_err(|error| error.to_string())?;
        let parts = TrackerParts {
            // The tracker that serves later registers its own under the same names.
            registry: Registry::new(),
            ..self.parts.clone()
        };
        let options = RebuildOptions { allow_gap };
        let disk = self.disk.clone();
        let rebuilt = rebuild(disk, &self.config, &datanodes, options, parts).await;
        rebuilt
            .map(|rebuilt| rebuilt.files)
            .map_err(|error| error.to_string())
    }

    /// Removes what an interrupted or failed rebuild left.
    async fn empty(&self) -> io::Result<()> {
        let (disk, dir) = (self.disk.clone(), self.config.dir.clone());
        blocking(move || clear(&disk, &dir))
            .await
            .map_err(io::Error::other)
    }
}

fn router(waiting: &Arc<Waiting>) -> Router {
    let routes = Router::new()
        .route(routes::CATALOG, get(status))
        .route(routes::CATALOG_REBUILD, post(begin_rebuild))
        .route("/", axum::routing::any(lost))
        .route("/{*path}", axum::routing::any(lost))
        .with_state(waiting.clone());
    Guard::new(waiting.config.tokens.clone(), is_public).wrap(routes)
}

async fn status(State(waiting): State<Arc<Waiting>>) -> Json<CatalogStatus> {
    Json(waiting.status())
}

/// 202: it is under way; `GET /catalog` tells how it ends.
async fn begin_rebuild(
    State(waiting): State<Arc<Waiting>>,
    ApiJson(request): ApiJson<RebuildCatalogRequest>,
) -> Result<(StatusCode, Json<CatalogStatus>), ProblemResponse> {
    let count = request.datanodes.len();
    if count == 0 || count > MAX_DATANODES {
        let detail = format!("{count} datanodes are named; 1 to {MAX_DATANODES} can be asked");
        return Err(Problem::new(ErrorCode::InvalidParameter, detail)
            .next("name every datanode that can be had: {\"datanodes\": [\"IP:PORT\"]}")
            .into());
    }
    waiting.begin()?;
    let status = waiting.status();
    tokio::spawn(waiting.rebuild(request));
    Ok((StatusCode::ACCEPTED, Json(status)))
}

/// What every other route answers: whether a file exists is not known.
async fn lost(State(waiting): State<Arc<Waiting>>) -> ProblemResponse {
    let (state, detail) = waiting.lock().clone();
    let (what, next) = match state {
        CatalogState::Lost => (
            format!(
                "the catalog of cluster {} is lost: {detail}",
                waiting.cluster
            ),
            "bring the tracker's volume back, or let the tracker rebuild the catalog from the \
             datanodes: POST /catalog/rebuild",
        ),
        CatalogState::Rebuilding | CatalogState::Open => (
            format!(
                "the catalog of cluster {} is being rebuilt",
                waiting.cluster
            ),
            "wait; GET /catalog tells how it goes",
        ),
    };
    Problem::new(ErrorCode::CatalogLost, what)
        .next(next)
        .retry_after(5)
        .into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| StoreError::Io {
            doing: "looking at the catalog's directory",
            source,
        })
}

#[cfg(test)]
mod tests {
    use dfs_runtime::clock::SystemClock;
    use dfs_runtime::disk::RealDisk;
    use dfs_runtime::net::TcpConnector;
    use dfs_runtime::rng::SharedRng;

    use super::*;

    /// Loading takes seconds where there are millions of chunks, and requests would hang for as long.
    #[tokio::test]
    async fn a_catalog_that_is_open_and_not_loaded_yet_makes_nobody_ready() {
        let dir = tempfile::tempdir().unwrap();
        let config = TrackerConfig::new(dir.path().to_path_buf());
        let parts = TrackerParts {
            clock: SystemClock::shared(),
            rng: SharedRng::from_seed(1),
            connector: TcpConnector::shared(),
            registry: Registry::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (readiness, (_end, shutdown)) = (Readiness::new(), shutdown_pair());
        let disk = RealDisk::shared();
        let found = find_or_recover(disk, &config, &parts, &readiness, listener, &shutdown).await;
        assert!(found.unwrap().is_some());
        assert!(!readiness.is_ready(), "{}", readiness.describe());
    }
}
