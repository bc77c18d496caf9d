//! Starting and running a datanode.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_client::silence::SilenceWatch;
use dfs_client::write_stream::WriteStreams;
use dfs_client::{ClientMetrics, HttpClient, HttpTracker};
use dfs_protocol::datanode::WriteMode;
use dfs_protocol::{DatanodeId, InstanceId};
use dfs_runtime::admin::{Readiness, admin_router, serve_admin};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::disk::{DiskMetrics, MeteredDisk, SharedDisk, probe_write_mode};
use dfs_runtime::net::SharedConnector;
use dfs_runtime::request::{RequestEdge, RequestMetrics, Routes};
use dfs_runtime::rng::SharedRng;
use dfs_runtime::server::{ServerMetrics, serve};
use dfs_runtime::shutdown::{Shutdown, shutdown_pair};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::attempts::Attempts;
use crate::bandwidth::RepairBandwidth;
use crate::config::DatanodeConfig;
use crate::context::{Context, Standing, Tasks};
use crate::journal::Journal;
use crate::metrics::{DatanodeMetrics, StoreMetrics};
use crate::store::layout::{JOURNAL_DIR, RETIRED_DIR, STAGING_DIR};
use crate::store::{ChunkStore, FileChunkStore, StoreConfig, StoreSeams, Volume, VolumeError};
use crate::write_stream::puts::Puts;
use crate::{compaction, heartbeat, http, scrub};

/// Asks the volume how it takes large writes; a start removes it where another one left it.
const WRITE_PROBE: &str = "write-mode.staged";
/// How often expired attempts and retired chunks are looked at.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Requests between header and end of answer at once.
const IN_FLIGHT: usize = 1024;

/// Why a datanode does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DatanodeError {
    /// The volume cannot be used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The volume cannot be read.
    #[error("scanning the volume {path}: {source}")]
    Scan {
        /// The volume.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An fsync failed: restart the process, it verifies what is on the disk (I14).
    #[error("{0}; restart the datanode after the disk was looked at")]
    FailStop(String),
    /// Two datanodes share one registry.
    #[error("registering metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task of the datanode ended unexpectedly.
    #[error("a task of the datanode ended: {0}")]
    Task(String),
}

/// What a datanode takes from outside: time, randomness, disk, network, metrics.
#[derive(Debug, Clone)]
pub struct DatanodeSeams {
    /// Holds the volume.
    pub disk: SharedDisk,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Connections to the tracker and to peers.
    pub connector: SharedConnector,
    /// This datanode's own: give each its own registry, with a label where several share a process.
    pub registry: Registry,
}

/// Seams and sockets of a datanode with a port of its own.
#[derive(Debug)]
pub struct DatanodeParts {
    /// The API's.
    pub listener: TcpListener,
    /// The admin listener's, if there is one.
    pub admin: Option<TcpListener>,
    /// Holds the volume.
    pub disk: SharedDisk,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Connections to the tracker and to peers.
    pub connector: SharedConnector,
    /// Metrics.
    pub registry: Registry,
}

/// A started datanode: its routes serve, its loops run.
#[derive(Debug)]
pub struct Datanode {
    ctx: Arc<Context>,
    loops: JoinSet<Result<(), DatanodeError>>,
}

/// Starts what a datanode does by itself.
fn loops(
    ctx: &Arc<Context>,
    disk: SharedDisk,
    tracker: HttpTracker,
) -> JoinSet<Result<(), DatanodeError>> {
    let mut loops = JoinSet::new();
    let beating = Arc::clone(ctx);
    loops.spawn(async move { Ok(heartbeat::run(beating, tracker).await?) });
    let scrubbing = Arc::clone(ctx);
    loops.spawn(async move {
        scrub::run(scrubbing, disk).await;
        Ok(())
    });
    let compacting = Arc::clone(ctx);
    loops.spawn(async move {
        compaction::run(compacting).await;
        Ok(())
    });
    let tidying = Arc::clone(ctx);
    loops.spawn(async move {
        tidy(tidying).await;
        Ok(())
    });
    loops
}

impl Datanode {
    /// Opens the volume, scans it and starts the loops. The volume's lock is held until the
    /// datanode, its loops and every clone of its router are gone.
    pub async fn start(
        config: DatanodeConfig,
        mut seams: DatanodeSeams,
        shutdown: Shutdown,
    ) -> Result<Self, DatanodeError> {
        let metrics = DatanodeMetrics::register(&seams.registry)?;
        seams.disk = MeteredDisk::shared(
            seams.disk,
            Arc::clone(&seams.clock),
            DiskMetrics::register(&seams.registry)?,
        );
        let readiness = Readiness::new();
        readiness.set("registered", Err("not registered yet".to_owned()));
        let disk = Arc::clone(&seams.disk);
        let opening = {
            let (config, seams) = (config.clone(), seams.clone());
            let metrics = metrics.clone();
            tokio::task::spawn_blocking(move || open(&config, &seams, &metrics))
        };
        let Opened {
            volume,
            store,
            journal,
        } = opening
            .await
            .map_err(|error| DatanodeError::Task(error.to_string()))??;
        readiness.set("volume", Ok(()));
        let tokens = &config.tokens;
        let calls = ClientMetrics::register(&seams.registry)?;
        let http = HttpClient::counted(Arc::clone(&seams.connector), calls);
        let http = http.with_tokens(tokens.clone());
        let watch = SilenceWatch::new(http.clone(), metrics.silent_peers.clone());
        let streams = WriteStreams::new(http.clone(), watch);
        let ctx = Arc::new(Context {
            volume,
            puts: Puts::new(Arc::clone(&store)),
            store,
            journal,
            attempts: Attempts::new(
                Arc::clone(&seams.clock),
                config.resume_lease,
                config.resume_attempts,
                metrics.clone(),
            ),
            http: http.clone(),
            streams,
            instance: InstanceId(seams.rng.u64()),
            standing: watch::Sender::new(Standing::Unheard),
            writes: Arc::new(Semaphore::new(config.max_writes)),
            whole_writes: Semaphore::new(config.max_writes),
            reads: Arc::new(Semaphore::new(config.max_reads)),
            repair: RepairBandwidth::new(&seams.clock, config.repair_rate, metrics.repair.clone()),
            tasks: Mutex::new(Tasks::default()),
            oldest_verified: AtomicI64::new(0),
            retired_since: AtomicI64::new(seams_seconds(&seams.clock)),
            sequence: AtomicU64::new(0),
            readiness,
            spawned: Mutex::default(),
            metrics,
            clock: seams.clock,
            rng: seams.rng,
            shutdown,
            config,
        });
        // Numbers of the volume are there before the first heartbeat.
        let _told_by_heartbeats = ctx.stats();
        let tracker = HttpTracker::new(http, ctx.config.tracker.clone());
        let loops = loops(&ctx, disk, tracker);
        Ok(Self { ctx, loops })
    }

    /// The uuid now; a reset changes it.
    pub fn id(&self) -> DatanodeId {
        self.ctx.id()
    }

    /// Tells the uuid as it stands at each call, also after the handle was consumed.
    pub fn identity(&self) -> impl Fn() -> DatanodeId + Clone + Send + Sync + 'static {
        let ctx = Arc::clone(&self.ctx);
        move || ctx.id()
    }

    /// The routes, without the request layer: mount them on a port, alone or behind one that
    /// tells datanodes apart by `x-dfs-datanode`.
    pub fn router(&self) -> Routes {
        http::router(Arc::clone(&self.ctx))
    }

    /// Checks for the admin listener.
    pub fn readiness(&self) -> Readiness {
        self.ctx.readiness.clone()
    }

    /// What every part of it shares.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Waits for the shutdown, then for reads and writes in flight (within the listener's drain time) and
    /// the loops. An error when it must stop by itself: a failed fsync, a volume of another
    /// cluster.
    pub async fn wait(mut self) -> Result<(), DatanodeError> {
        let ctx = Arc::clone(&self.ctx);
        let stopped = tokio::select! {
            reason = ctx.store.fail_stop().failed() => {
                ctx.readiness.set("volume", Err(reason.clone()));
                return Err(DatanodeError::FailStop(reason));
            }
            ended = next_failure(&mut self.loops) => ended,
        };
        stopped?;
        let all = |places: usize| u32::try_from(places).unwrap_or(u32::MAX);
        let writes = all(ctx.config.max_writes);
        let idle = async {
            tokio::join!(
                ctx.writes.acquire_many(writes),
                ctx.whole_writes.acquire_many(writes),
                ctx.reads.acquire_many(all(ctx.config.max_reads)),
            )
        };
        if tokio::time::timeout(ctx.config.limits.drain, idle)
            .await
            .is_err()
        {
            tracing::warn!("chunks were still being read or written at the end of the drain");
        }
        Ok(())
    }
}

impl Drop for Datanode {
    fn drop(&mut self) {
        self.ctx.abort_spawned();
    }
}

/// Waits until every loop ended well, or one failed.
async fn next_failure(loops: &mut JoinSet<Result<(), DatanodeError>>) -> Result<(), DatanodeError> {
    while let Some(ended) = loops.join_next().await {
        ended.unwrap_or_else(|error| Err(DatanodeError::Task(error.to_string())))?;
    }
    Ok(())
}

/// Runs a datanode on its own port until the shutdown.
pub async fn run(
    config: DatanodeConfig,
    parts: DatanodeParts,
    shutdown: Shutdown,
) -> Result<(), DatanodeError> {
    let DatanodeParts {
        listener,
        admin,
        disk,
        clock,
        rng,
        connector,
        registry,
    } = parts;
    let server_metrics = ServerMetrics::register(&registry, "api")?;
    let admin_metrics = ServerMetrics::register(&registry, "admin")?;
    let edge = RequestEdge::new(
        rng.clone(),
        Arc::clone(&clock),
        RequestMetrics::register(&registry)?,
        IN_FLIGHT,
    )
    .for_roles()
    .traced(config.tracer.clone());
    let limits = config.limits.clone();
    let seams = DatanodeSeams {
        disk,
        clock,
        rng,
        connector,
        registry: registry.clone(),
    };
    let datanode = Datanode::start(config, seams, shutdown.clone()).await?;
    let api = edge.wrap(datanode.router());
    // Ends the listeners when the datanode stops by itself.
    let (stop, stopping) = shutdown_pair();
    // Aborted when this future is dropped: a datanode that is cut off answers nothing more.
    let mut listeners = JoinSet::new();
    listeners.spawn(serve(listener, api, limits, server_metrics, stopping));
    if let Some(listener) = admin {
        let admin_routes = admin_router(datanode.readiness(), vec![registry]);
        listeners.spawn(serve_admin(
            listener,
            admin_routes,
            admin_metrics,
            stop.listen(),
        ));
    }
    let waiting = datanode.wait();
    tokio::pin!(waiting);
    let ended = tokio::select! {
        // First without shutting the door: a failure must not wait for the drain.
        ended = &mut waiting => ended,
        () = shutdown.triggered() => {
            stop.trigger();
            waiting.await
        }
    };
    stop.trigger();
    match ended {
        Ok(()) => while listeners.join_next().await.is_some() {},
        // Nothing more may be acknowledged: connections are cut.
        Err(_) => listeners.shutdown().await,
    }
    ended
}

fn seams_seconds(clock: &SharedClock) -> i64 {
    i64::try_from(clock.monotonic().as_secs()).unwrap_or(i64::MAX)
}

struct Opened {
    volume: Volume,
    store: Arc<dyn ChunkStore>,
    journal: Journal,
}

fn open(
    config: &DatanodeConfig,
    seams: &DatanodeSeams,
    metrics: &DatanodeMetrics,
) -> Result<Opened, DatanodeError> {
    let fresh = DatanodeId::from_u128(seams.rng.u128());
    let volume = Volume::open(Arc::clone(&seams.disk), &config.dir, fresh)?;
    let failed = |source| DatanodeError::Scan {
        path: config.dir.clone(),
        source,
    };
    let writes = write_mode(config, &seams.disk, &metrics.store);
    let store = FileChunkStore::open(
        StoreSeams {
            disk: Arc::clone(&seams.disk),
            clock: Arc::clone(&seams.clock),
            rng: seams.rng.clone(),
            metrics: metrics.store.clone(),
            identity: volume.identity(),
        },
        &config.dir,
        StoreConfig {
            space: config.space,
            packs: config.packs,
            writes,
        },
    )
    .map_err(failed)?;
    let now = seams_seconds(&seams.clock);
    let wall = seams.clock.wall().as_second();
    scrub::load(&seams.disk, &config.dir, store.index(), now, wall);
    let journal = Journal::open(
        Arc::clone(&seams.disk),
        &config.dir.join(JOURNAL_DIR),
        config.journal_segment,
    )
    .map_err(failed)?;
    metrics
        .journal_damaged
        .set(i64::try_from(journal.damaged()).unwrap_or(i64::MAX));
    Ok(Opened {
        volume,
        store: Arc::new(store),
        journal,
    })
}

/// How large chunks are written in this run. A volume that is too full or too sick to be asked gets buffered writes: it
/// must serve reads all the same.
fn write_mode(config: &DatanodeConfig, disk: &SharedDisk, metrics: &StoreMetrics) -> WriteMode {
    let staging = config.dir.join(STAGING_DIR);
    let wanted = config.writes;
    let asked = probe_write_mode(disk.as_ref(), &staging, WRITE_PROBE, wanted);
    let mode = asked.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot ask the volume how it takes large writes");
        WriteMode::Buffered
    });
    match wanted {
        Some(wanted) if wanted != mode => tracing::warn!(
            wanted = wanted.as_str(),
            mode = mode.as_str(),
            "the volume does not take large writes as wanted"
        ),
        _ => tracing::info!(mode = mode.as_str(), "large chunks are written like this"),
    }
    metrics.write_mode(mode);
    mode
}

/// Drops what is kept for a bounded time: attempts without writers, chunks of an earlier identity.
/// Tries a disk that refused a write.
async fn tidy(ctx: Arc<Context>) {
    let retention = i64::try_from(ctx.config.retired_retention.as_secs()).unwrap_or(i64::MAX);
    while !ctx.shutdown.is_triggered() {
        ctx.discard(ctx.attempts.expired());
        let since = ctx.retired_since.load(Ordering::Relaxed);
        let due = ctx.seconds().saturating_sub(since) >= retention;
        let full = ctx.store.room().is_ok_and(|room| room.read_only);
        if due || full {
            purge(&ctx).await;
        }
        if let Err(problem) = ctx.blocking(|ctx| ctx.store.try_disk()).await {
            tracing::warn!(%problem, "could not try the disk");
        }
        tokio::select! {
            () = ctx.shutdown.triggered() => {}
            () = tokio::time::sleep(TIDY_EVERY) => {}
        }
    }
}

async fn purge(ctx: &Arc<Context>) {
    match ctx.blocking(|ctx| ctx.store.purge_retired()).await {
        Ok(Ok(0)) => {}
        Ok(Ok(files)) => tracing::info!(files, dir = RETIRED_DIR, "deleted retired chunks"),
        Ok(Err(error)) => tracing::warn!(error = error.describe(), "could not delete them"),
        Err(problem) => tracing::warn!(%problem, "could not delete retired chunks"),
    }
}
