//! The operator as a process: admin listener, lease, one controller for each scope, and an orderly
//! end. Everything from outside is an argument.

use std::sync::Arc;
use std::time::Duration;

use dfs_runtime::admin::{Readiness, admin_router, serve_admin};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::server::ServerMetrics;
use dfs_runtime::shutdown::{Shutdown, ShutdownTrigger, shutdown_pair};
use kube::Client;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::apply::Settled;
use crate::controller::{Scope, run_scope};
use crate::ctx::{AddressOf, Ctx, Memory};
use crate::events::Events;
use crate::lease::{Elector, LeaseLock};
use crate::metrics::Metrics;
use crate::observe::LiveInventory;
use crate::tracker_client::Tracker;

/// Name of the lease, in the operator's own namespace.
const LEASE_NAME: &str = "dfs-operator";
/// How long reconciles under way may go on after the wish to end: below the 30 s that Kubernetes
/// grants by default.
const DRAIN: Duration = Duration::from_secs(20);

/// The operator's knobs.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// Namespaces to watch; none means all.
    pub namespaces: Vec<String>,
    /// Image of clusters that name none.
    pub image: String,
    /// The operator's own.
    pub namespace: String,
    /// Where the lease is kept.
    pub lease_namespace: String,
    /// Names this process in lease and events: its pod's name.
    pub identity: String,
    /// How often a cluster in which nothing moves is looked at.
    pub resync: Duration,
}

/// What the operator takes from outside.
pub struct OperatorParts {
    /// The API server.
    pub client: Client,
    /// Trackers.
    pub tracker: Arc<dyn Tracker>,
    /// Where trackers listen.
    pub address_of: AddressOf,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Where metrics go.
    pub registry: Registry,
}

/// Why the operator ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A metric could not be registered.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    /// Another process may act now.
    #[error("the lease is lost: another operator may act now")]
    LeaseLost,
    /// A controller ended although nobody asked.
    #[error("a controller ended by itself")]
    ControllerEnded,
}

/// A client of the API server that this machine's kubeconfig, or a pod's service account, names.
pub async fn connect() -> kube::Result<Client> {
    Client::try_default().await
}

/// Runs until the shutdown, or until the lease is lost.
pub async fn run(
    config: OperatorConfig,
    mut parts: OperatorParts,
    admin_listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), OperatorError> {
    let metrics = Metrics::register(&parts.registry)?;
    parts.client = metrics.api.counting(parts.client);
    dfs_runtime::process::register(&parts.registry, "operator")?;
    let readiness = Readiness::new();
    // A standby is ready too: it is what takes over.
    readiness.set("operator", Ok(()));
    let admin_metrics = ServerMetrics::register(&parts.registry, "admin")?;
    // Health is told until the very end.
    let (stop, stopping) = shutdown_pair();
    let admin = tokio::spawn(serve_admin(
        admin_listener,
        admin_router(readiness.clone(), vec![parts.registry.clone()]),
        admin_metrics,
        stopping,
    ));
    let ended = lead(&config, &parts, &metrics, &readiness, &shutdown).await;
    stop.trigger();
    let _ended = admin.await;
    ended
}

async fn lead(
    config: &OperatorConfig,
    parts: &OperatorParts,
    metrics: &Metrics,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<(), OperatorError> {
    let lock = LeaseLock::new(parts.client.clone(), &config.lease_namespace, LEASE_NAME);
    let mut elector = Elector::new(
        Arc::new(lock),
        parts.clock.clone(),
        config.identity.clone(),
        metrics.leader.clone(),
    );
    tracing::info!(identity = config.identity, "waiting for the lease");
    if !elector.acquire(shutdown).await {
        return Ok(());
    }
    tracing::info!(identity = config.identity, namespaces = ?config.namespaces, "this operator acts");
    let (stop, mut scopes) = start(config, parts, metrics);
    let ended = tokio::select! {
        kept = elector.keep(shutdown) => if kept { Ok(()) } else { Err(OperatorError::LeaseLost) },
        _ = scopes.join_next() => Err(OperatorError::ControllerEnded),
    };
    readiness.set("operator", Err("it is ending".to_owned()));
    if matches!(ended, Err(OperatorError::LeaseLost)) {
        // Not one more write: another may act already.
        scopes.abort_all();
        return ended;
    }
    stop.trigger();
    let drained =
        tokio::time::timeout(DRAIN, async { while scopes.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("reconciles under way are broken off; the next operator goes on from there");
        scopes.abort_all();
    }
    elector.release().await;
    ended
}

/// One controller for each scope.
fn start(
    config: &OperatorConfig,
    parts: &OperatorParts,
    metrics: &Metrics,
) -> (ShutdownTrigger, JoinSet<()>) {
    let (stop, stopping) = shutdown_pair();
    let events = Arc::new(Events::new(
        parts.client.clone(),
        parts.clock.clone(),
        parts.rng.clone(),
        metrics.clone(),
        config.identity.clone(),
    ));
    let mut tasks = JoinSet::new();
    for scope in scopes(&config.namespaces) {
        let events = Arc::clone(&events);
        let (client, tracker) = (parts.client.clone(), Arc::clone(&parts.tracker));
        let (clock, rng) = (parts.clock.clone(), parts.rng.clone());
        let (address_of, metrics) = (Arc::clone(&parts.address_of), metrics.clone());
        let (image, resync) = (config.image.clone(), config.resync);
        let operator_namespace = Some(config.namespace.clone());
        let context = move |inventory| Ctx {
            live: LiveInventory::new(client.clone()),
            client,
            inventory: Arc::new(inventory),
            tracker,
            address_of,
            clock,
            rng,
            metrics,
            events,
            settled: Arc::new(Settled::default()),
            memory: Arc::new(Memory::default()),
            image,
            operator_namespace,
            resync,
        };
        tasks.spawn(run_scope(
            scope,
            parts.client.clone(),
            context,
            stopping.clone(),
        ));
    }
    (stop, tasks)
}

fn scopes(namespaces: &[String]) -> Vec<Scope> {
    if namespaces.is_empty() {
        return vec![Scope::All];
    }
    let mut names = namespaces.to_vec();
    names.sort();
    names.dedup();
    names.into_iter().map(Scope::Namespace).collect()
}
