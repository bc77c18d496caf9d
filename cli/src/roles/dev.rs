//! `dfs dev`: a whole store in one process, on one port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dfs_client::TrackerApi as _;
use dfs_datanode::store::SpaceLimits;
use dfs_datanode::{Datanode, DatanodeConfig, DatanodeSeams};
use dfs_protocol::calls::Nothing;
use dfs_protocol::status::ClusterStatus;
use dfs_runtime::admin::{Readiness, admin_router};
use dfs_runtime::disk::DiskLock;
use dfs_runtime::request::{RequestEdge, RequestMetrics};
use dfs_runtime::server::{ServerMetrics, serve};
use dfs_runtime::shutdown::{Shutdown, ShutdownTrigger, shutdown_pair};
use dfs_runtime::token::Tokens;
use dfs_tracker::lost::CATALOG_CHECK;
use dfs_tracker::{Running, TrackerConfig};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::World;
use super::board::Board;
use super::place::{bind, blocking, failed, lock, prepare};
use super::switchboard::{Hosted, switchboard};
use super::tracker::{open_tracker, tracker_config, tracker_routes};
use crate::args::{DevArgs, PolicyArgs};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::tokens;

/// Kept by the process that uses the directory.
const LOCK: &str = "dev.lock";
/// Bytes of the disk that chunks never take.
const RESERVE: u64 = 256 * 1024 * 1024;
/// Name of a datanode's directory, before its number.
const DATANODE: &str = "datanode-";
/// Requests under way at once at the tracker and its doors; at each datanode.
const IN_FLIGHT: (usize, usize) = (1024, 1024);
/// Memory of the catalog's cache: a store for trying things out is small.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Nobody waits long for a store that was started in a terminal.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the tracker may take to bring its last changes into the journals.
const CLOSE: Duration = Duration::from_secs(10);
/// How long the board waits for the datanodes before it says what is missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether all is ready.
const GLANCE: Duration = Duration::from_millis(10);

/// A store in one process.
#[derive(Debug, Clone)]
pub struct DevConfig {
    /// Everything lives below it.
    pub dir: PathBuf,
    /// Datanodes wanted; those that hold data from an earlier run are started too.
    pub datanodes: u32,
    /// How the tracker decides. The factor is never more than there are datanodes.
    pub policy: PolicyArgs,
    /// Who may call what is not public.
    pub tokens: Tokens,
}

/// A store that runs in this process.
pub struct Dev {
    address: SocketAddr,
    running: Running,
    datanodes: Vec<JoinHandle<Result<(), dfs_datanode::DatanodeError>>>,
    serving: JoinHandle<()>,
    factor: u32,
    /// Requests of the tracker and its doors.
    requests: RequestMetrics,
    /// The tracker ends before the others.
    end_tracker: ShutdownTrigger,
    end_rest: ShutdownTrigger,
    _lock: Box<dyn DiskLock>,
}

impl std::fmt::Debug for Dev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dev")
            .field("address", &self.address)
            .field("datanodes", &self.datanodes.len())
            .finish_non_exhaustive()
    }
}

/// Runs a store until the shutdown; says on standard output when it is ready.
pub async fn run_dev(
    args: &DevArgs,
    world: World,
    out: &Output,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let address = SocketAddr::new(args.listen, args.port);
    let listener = bind(address, "--port").await?;
    let config = DevConfig {
        dir: args.directory(),
        datanodes: args.datanodes,
        policy: args.policy.clone(),
        tokens: tokens::of_role(&args.token, &world, &shutdown).await?,
    };
    let dev = Dev::start(&config, &world, listener, &shutdown).await?;
    let status = tokio::select! {
        status = dev.ready(&world) => status,
        () = shutdown.triggered() => None,
    };
    if !shutdown.is_triggered() {
        out.line(&dev.board(&config, status.as_ref()).render())?;
    }
    dev.wait(shutdown).await
}

impl Dev {
    /// Starts tracker, doors and datanodes. Peers meet over `listener`'s own address. Once
    /// `shutdown` is triggered, requests from outside are refused; [`Self::wait`] ends the rest.
    pub async fn start(
        config: &DevConfig,
        world: &World,
        listener: TcpListener,
        shutdown: &Shutdown,
    ) -> Result<Self, Failure> {
        let dir = config.dir.clone();
        let address = listener
            .local_addr()
            .map_err(|error| Failure::local("listen", &error))?;
        prepare(world.disk.clone(), dir.clone()).await?;
        let dir_lock = lock(world.disk.clone(), dir, LOCK, "dfs dev").await?;
        let count = datanode_count(config, world).await?;
        let tracker_config = config.tracker(count);
        prepare(world.disk.clone(), tracker_config.dir.clone()).await?;
        let registry = Registry::new();
        let (end_tracker, tracker_end) = shutdown_pair();
        let (end_rest, rest_end) = shutdown_pair();
        let (running, doors) =
            open_tracker(&tracker_config, world, &registry, &tracker_end).await?;
        let peer = peer_address(address);
        let starting =
            (1..=count).map(|number| start_datanode(config, world, number, &peer, &rest_end));
        let started = futures_util::future::try_join_all(starting).await?;
        let mut registries = vec![registry.clone()];
        let (mut hosted, mut datanodes) = (Vec::new(), Vec::new());
        for (datanode, line, registry) in started {
            registries.push(registry);
            hosted.push(line);
            datanodes.push(tokio::spawn(datanode.wait()));
        }
        let (requests, connections) = metrics(&registry)?;
        let edge = edge(world, requests.clone(), IN_FLIGHT.0);
        let readiness = Readiness::new();
        readiness.set(CATALOG_CHECK, Ok(()));
        let board = switchboard(
            edge.wrap(tracker_routes(&running, doors)),
            admin_router(readiness, registries),
            hosted,
            shutdown.clone(),
        );
        let limits = tracker_config.server.clone();
        let serving = tokio::spawn(serve(listener, board, limits, connections, rest_end));
        Ok(Self {
            address,
            running,
            datanodes,
            serving,
            factor: tracker_config.replication_factor,
            requests,
            end_tracker,
            end_rest,
            _lock: dir_lock,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until every datanode is in and writes are taken; gives what is known when that does
    /// not happen in time. None when the tracker does not say.
    pub async fn ready(&self, world: &World) -> Option<ClusterStatus> {
        let deadline = world.clock.monotonic() + PATIENCE;
        loop {
            let status = self.running.tracker.status(Nothing {}).await.ok();
            let is_ready = status.as_ref().is_some_and(|status| self.is_ready(status));
            if is_ready || world.clock.monotonic() >= deadline {
                return status;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn is_ready(&self, status: &ClusterStatus) -> bool {
        let datanodes = self.datanodes.len() as u64;
        status.datanodes.live >= datanodes
            && status.datanodes.placeable >= datanodes.min(u64::from(self.factor))
            && status.safe_mode.is_none()
            && status.writes_refused.is_none()
    }

    fn board<'a>(&self, config: &'a DevConfig, status: Option<&ClusterStatus>) -> Board<'a> {
        let attention = match status {
            Some(status) if self.is_ready(status) && status.healthy => None,
            Some(status) => Some(status.summary.clone()),
            None => Some("the tracker does not say how the store is".to_owned()),
        };
        Board {
            address: self.address,
            datanodes: self.datanodes.len(),
            extra: self
                .datanodes
                .len()
                .saturating_sub(config.datanodes as usize),
            replication: self.factor,
            dir: &config.dir,
            files: status.map_or(0, |status| status.files),
            attention,
        }
    }

    /// Waits for the shutdown, then ends everything in order: requests from outside, the tracker,
    /// the datanodes. An error when a part ends by itself.
    pub async fn wait(self, shutdown: Shutdown) -> Result<(), Failure> {
        let Self {
            running,
            datanodes,
            serving,
            requests,
            end_tracker,
            end_rest,
            ..
        } = self;
        let tracker = running.tracker.clone();
        let mut ended = std::pin::pin!(all_ended(datanodes));
        tokio::select! {
            () = shutdown.triggered() => {}
            reason = tracker.until_over() => {
                return Err(Failure::new(Exit::Failed, "the tracker had to end", reason)
                    .next("start it again"));
            }
            ended = &mut ended => return ended,
        }
        let drained = async {
            while requests.in_flight_count() > 0 {
                tokio::time::sleep(GLANCE).await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("requests were still under way at the end of the drain");
        }
        end_tracker.trigger();
        if tokio::time::timeout(CLOSE, running.stop()).await.is_err() {
            tracing::warn!("the tracker did not end in time: nothing acknowledged is lost");
        }
        end_rest.trigger();
        ended.await?;
        let _served = serving.await;
        Ok(())
    }
}

/// Waits until every datanode ended well, or one failed.
async fn all_ended(
    datanodes: Vec<JoinHandle<Result<(), dfs_datanode::DatanodeError>>>,
) -> Result<(), Failure> {
    let each = datanodes.into_iter().map(|datanode| async {
        match datanode.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed("a datanode had to end", &error)),
            Err(error) => Err(failed("a datanode ended", &error)),
        }
    });
    futures_util::future::try_join_all(each).await.map(drop)
}

/// Metrics of the tracker's requests and of the one listener.
fn metrics(registry: &Registry) -> Result<(RequestMetrics, ServerMetrics), Failure> {
    let registered = || {
        dfs_runtime::process::register(registry, "dev")?;
        let requests = RequestMetrics::register(registry)?;
        Ok((requests, ServerMetrics::register(registry, "api")?))
    };
    registered().map_err(|error: prometheus::Error| failed("register metrics", &error))
}

impl DevConfig {
    fn tracker(&self, datanodes: u32) -> TrackerConfig {
        let mut config = tracker_config(self.dir.join("tracker"), &self.policy);
        config.replication_factor = config.replication_factor.min(datanodes);
        config.cache_bytes = CACHE_BYTES;
        config.tokens = self.tokens.clone();
        config.server.drain = DRAIN;
        config
    }
}

/// Where the parts of the store reach each other: what is bound to every interface is reached
/// over loopback.
fn peer_address(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("[::1]:{}", v6.port()),
        _ => address.to_string(),
    }
}

/// As many as asked for, and every one that an earlier run left data in.
async fn datanode_count(config: &DevConfig, world: &World) -> Result<u32, Failure> {
    let (disk, dir, wanted) = (world.disk.clone(), config.dir.clone(), config.datanodes);
    blocking(move || {
        let entries = disk
            .list(&dir)
            .map_err(|error| Failure::local(format!("read {}", dir.display()), &error))?;
        let numbers = entries.iter().filter(|entry| entry.is_dir);
        let numbers = numbers.filter_map(|entry| number_of(Path::new(&entry.name)));
        Ok(numbers.max().unwrap_or(0).max(wanted))
    })
    .await
}

fn number_of(name: &Path) -> Option<u32> {
    name.to_str()?.strip_prefix(DATANODE)?.parse().ok()
}

async fn start_datanode(
    config: &DevConfig,
    world: &World,
    number: u32,
    peer: &str,
    shutdown: &Shutdown,
) -> Result<(Datanode, Hosted, Registry), Failure> {
    let what = format!("start datanode {number}");
    let dir = config.dir.join(format!("{DATANODE}{number}"));
    prepare(world.disk.clone(), dir.clone()).await?;
    let labels = [("datanode".to_owned(), number.to_string())].into();
    let registry =
        Registry::new_custom(None, Some(labels)).map_err(|error| failed(&what, &error))?;
    let mut datanode_config = DatanodeConfig::new(dir, peer, peer);
    // The disk is the person's own, and may well be fuller than a datanode's should be.
    datanode_config.space = SpaceLimits::exactly(RESERVE);
    datanode_config.limits.drain = DRAIN;
    datanode_config.tokens = config.tokens.clone();
    let seams = DatanodeSeams {
        disk: world.disk.clone(),
        clock: world.clock.clone(),
        rng: world.rng.clone(),
        connector: world.connector.clone(),
        registry: registry.clone(),
    };
    let datanode = Datanode::start(datanode_config, seams, shutdown.clone())
        .await
        .map_err(|error| failed(&what, &error))?;
    let requests = RequestMetrics::register(&registry).map_err(|error| failed(&what, &error))?;
    let edge = edge(world, requests, IN_FLIGHT.1);
    let router: Router = edge.wrap(datanode.router());
    let hosted = Hosted {
        identity: Arc::new(datanode.identity()),
        router,
    };
    Ok((datanode, hosted, registry))
}

fn edge(world: &World, metrics: RequestMetrics, in_flight: usize) -> RequestEdge {
    RequestEdge::new(world.rng.clone(), world.clock.clone(), metrics, in_flight)
}
