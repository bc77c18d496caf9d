//! `dfs tracker`.

use std::path::PathBuf;
use std::sync::Arc;

use dfs_gateway::{Document, GatewayConfig, GatewayParts, doors};
use dfs_runtime::admin::{Readiness, admin_router, serve_admin};
use dfs_runtime::disk::{DiskMetrics, MeteredDisk, SharedDisk};
use dfs_runtime::request::Routes;
use dfs_runtime::server::ServerMetrics;
use dfs_runtime::shutdown::{Shutdown, shutdown_pair};
use dfs_tracker::lost::{CATALOG_CHECK, find_or_recover};
use dfs_tracker::store::{Engine, JournalMode};
use dfs_tracker::{AdmissionPolicy, Running, TrackerConfig, TrackerParts};
use prometheus::Registry;

use super::place::{bind, failed, prepare};
use super::{DRAIN, World};
use crate::args::{self, PolicyArgs, Role, TrackerOptions};
use crate::exit::{Exit, Failure};
use crate::tokens;
use crate::traces::Traces;

/// The tracker's knobs as the command line sets them.
pub fn tracker_config(dir: PathBuf, policy: &PolicyArgs) -> TrackerConfig {
    let PolicyArgs {
        replication,
        min_write,
        repair_delay,
        repair_rate,
        decommission_rate,
        rebalance_threshold,
        rebalance_rate,
        heartbeat_interval,
        trash_retention,
        orphan_age,
        chunk_size,
        journal,
    } = policy;
    let mut config = TrackerConfig::new(dir);
    config.replication_factor = *replication;
    config.min_write = *min_write;
    config.repair_delay = *repair_delay;
    config.repair_rate = *repair_rate;
    config.decommission_rate = *decommission_rate;
    config.rebalance_threshold = *rebalance_threshold;
    config.rebalance_rate = *rebalance_rate;
    config.heartbeat_interval = *heartbeat_interval;
    config.trash_retention = *trash_retention;
    config.orphan_age = *orphan_age;
    config.chunk_size = *chunk_size;
    config.journal = match journal {
        args::JournalMode::Sync => JournalMode::Sync,
        args::JournalMode::Async => JournalMode::Async,
    };
    config.server.drain = DRAIN;
    config
}

/// Runs a tracker, which answers the whole API, until the shutdown.
pub async fn run_tracker(
    options: &TrackerOptions,
    world: World,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let place = options.listen.resolve(Role::Tracker);
    let listener = bind(place.api, "--port").await?;
    let admin_listener = bind(place.admin, "--admin-port").await?;
    prepare(world.disk.clone(), place.dir.clone()).await?;
    let registry = Registry::new();
    let mut config = tracker_config(place.dir.clone(), &options.policy);
    config.tokens = tokens::of_role(&options.token, &world, &shutdown).await?;
    config.expect_cluster = options.expect_cluster.0;
    config.admission = match options.admission {
        args::Admission::Auto => AdmissionPolicy::Auto,
        args::Admission::Operator => AdmissionPolicy::Operator,
    };
    config.proxies = options.proxies.trusted_proxies.clone();
    let failure = |error: &dyn std::error::Error| failed("run the tracker", error);
    dfs_runtime::process::register(&registry, "tracker").map_err(|error| failure(&error))?;
    let instance = place.api.to_string();
    let traces = Traces::of_role(&options.traces, Role::Tracker, &instance, &world, &registry)?;
    config.tracer = traces.tracer.clone();
    let readiness = Readiness::new();
    readiness.set(CATALOG_CHECK, Err("being opened".to_owned()));
    let admin_metrics =
        ServerMetrics::register(&registry, "admin").map_err(|error| failure(&error))?;
    // Health is told from the very beginning to the very end.
    let (stop, stopping) = shutdown_pair();
    let admin = tokio::spawn(serve_admin(
        admin_listener,
        admin_router(readiness.clone(), vec![registry.clone()]),
        admin_metrics,
        stopping,
    ));
    let parts = parts(&world, &registry);
    let disk = metered(&world, &registry)?;
    let found = find_or_recover(disk, &config, &parts, &readiness, listener, &shutdown);
    let what = format!("open the catalog in {}", config.dir.display());
    let found = found.await.map_err(|error| failed(&what, &error))?;
    let Some((engine, listener)) = found else {
        return Ok(());
    };
    let (running, doors) = start_tracker(engine, &config, &world, &registry, &shutdown).await?;
    readiness.set(CATALOG_CHECK, Ok(()));
    tracing::info!(api = %place.api, admin = %place.admin, dir = %place.dir.display(), "the tracker serves");
    let over = dfs_tracker::run(running, doors, listener, &registry, shutdown).await;
    traces.finish().await;
    stop.trigger();
    let _ended = admin.await;
    match over.map_err(|error| failure(&error))? {
        None => Ok(()),
        Some(reason) => Err(Failure::new(Exit::Failed, "the tracker had to end", reason)
            .next("start it again; if a later tracker acts, this one must stay away")),
    }
}

/// Opens the catalog, starts the tracker and makes its doors, both kinds in one router.
pub(super) async fn open_tracker(
    config: &TrackerConfig,
    world: &World,
    registry: &Registry,
    shutdown: &Shutdown,
) -> Result<(Running, Routes), Failure> {
    let what = format!("open the catalog in {}", config.dir.display());
    let engine = dfs_tracker::open_engine(metered(world, registry)?, config)
        .await
        .map_err(|error| failed(&what, &error))?;
    start_tracker(engine, config, world, registry, shutdown).await
}

/// The disk under the catalog, its work timed.
fn metered(world: &World, registry: &Registry) -> Result<SharedDisk, Failure> {
    let metrics =
        DiskMetrics::register(registry).map_err(|error| failed("register metrics", &error))?;
    Ok(MeteredDisk::shared(
        world.disk.clone(),
        world.clock.clone(),
        metrics,
    ))
}

fn parts(world: &World, registry: &Registry) -> TrackerParts {
    TrackerParts {
        clock: world.clock.clone(),
        rng: world.rng.clone(),
        connector: world.connector.clone(),
        registry: registry.clone(),
    }
}

/// Starts the tracker on an open catalog and makes its doors.
async fn start_tracker(
    engine: Arc<dyn Engine>,
    config: &TrackerConfig,
    world: &World,
    registry: &Registry,
    shutdown: &Shutdown,
) -> Result<(Running, Routes), Failure> {
    let what = format!("open the catalog in {}", config.dir.display());
    let running = dfs_tracker::start(engine, config.clone(), parts(world, registry), shutdown)
        .await
        .map_err(|error| failed(&what, &error))?;
    let parts = GatewayParts {
        tracker: running.tracker.clone(),
        http: running.tracker.http().clone(),
        clock: world.clock.clone(),
        rng: world.rng.clone(),
        registry: registry.clone(),
        shutdown: shutdown.clone(),
    };
    let config = GatewayConfig {
        tokens: config.tokens.clone(),
        document: Document::PublicAndAdmin {
            more: dfs_tracker::http::openapi_paths(),
        },
        ..GatewayConfig::default()
    };
    let doors = doors(parts, config).map_err(|error| failed("open the doors", &error))?;
    Ok((running, doors.public.merge(doors.admin)))
}

/// The tracker's own routes beside its doors.
pub(super) fn tracker_routes(running: &Running, doors: Routes) -> Routes {
    dfs_tracker::http::guarded(Arc::clone(&running.tracker), doors)
}
