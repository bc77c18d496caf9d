//! What each process registers. Series that come and go are there once, so that their labels are known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use dfs_client::ClientMetrics;
use dfs_datanode::metrics::DatanodeMetrics;
use dfs_gateway::GatewayMetrics;
use dfs_operator::decide::conditions::invalid;
use dfs_operator::validate::ClusterKey;
use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Capacity;
use dfs_runtime::clock::SystemClock;
use dfs_runtime::disk::DiskMetrics;
use dfs_runtime::request::{RequestEdge, RequestMetrics, Routes};
use dfs_runtime::rng::SharedRng;
use dfs_runtime::server::ServerMetrics;
use dfs_runtime::trace::TraceMetrics;
use dfs_tracker::metrics::{EventMetrics, TrackerMetrics, catalog_lost};
use dfs_tracker::model::datanodes::{DatanodeTable, LivenessPolicy};
use dfs_tracker::model::op::DatanodeRecord;
use dfs_tracker::store::CatalogMetrics;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use prometheus::Registry;
use prometheus::proto::{Metric, MetricType};
use tower::ServiceExt as _;

type Error = Box<dyn std::error::Error>;

/// One metric, as every process that has it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    /// What it tells.
    pub help: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: BTreeSet<String>,
    /// Processes that have it.
    pub roles: Vec<&'static str>,
}

/// Every metric by its name.
pub(crate) type Families = BTreeMap<String, Family>;

/// The registry of each process.
pub(crate) fn registries() -> Result<[(&'static str, Registry); 4], Error> {
    Ok([
        ("tracker", tracker()?),
        ("datanode", datanode()?),
        ("gateway", gateway()?),
        ("operator", operator()?),
    ])
}

/// Everything that any process registers.
pub(crate) fn families() -> Result<Families, Error> {
    let mut all = Families::new();
    for (role, registry) in registries()? {
        for family in registry.gather() {
            let metrics = family.get_metric().iter();
            let labels = metrics.flat_map(Metric::get_label);
            let labels = labels.map(|label| label.name().to_owned()).collect();
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY | MetricType::UNTYPED => "other",
            };
            let help = family.help().to_owned();
            let known = all.entry(family.name().to_owned()).or_insert(Family {
                help: help.clone(),
                kind,
                labels,
                roles: Vec::new(),
            });
            if known.help != help {
                let name = family.name();
                return Err(format!("two roles say of {name} different things").into());
            }
            known.roles.push(role);
        }
    }
    Ok(all)
}

fn tracker() -> Result<Registry, Error> {
    let registry = Registry::new();
    every_process(&registry, "tracker", &["api", "admin"])?;
    serving(&registry)?;
    DiskMetrics::register(&registry)?;
    GatewayMetrics::register(&registry)?;
    let catalog = CatalogMetrics::register(&registry)?;
    catalog.operations.with_label_values(&["commit", "done"]);
    EventMetrics::register(&registry)?;
    catalog_lost(&registry)?;
    let metrics = TrackerMetrics::register(&registry)?;
    let mut datanodes = DatanodeTable::new(LivenessPolicy::default(), 1);
    let record = DatanodeRecord {
        admin: AdminState::InService,
        zone: None,
        host: None,
        address: String::new(),
        registered: Timestamp::UNIX_EPOCH,
        claim: None,
    };
    datanodes.put(DatanodeId::from_u128(1), record, Duration::ZERO)?;
    metrics.volumes.set(&datanodes, &Capacity::default());
    Ok(registry)
}

fn datanode() -> Result<Registry, Error> {
    let registry = Registry::new();
    every_process(&registry, "datanode", &["api", "admin"])?;
    serving(&registry)?;
    DiskMetrics::register(&registry)?;
    DatanodeMetrics::register(&registry)?;
    Ok(registry)
}

fn gateway() -> Result<Registry, Error> {
    let registry = Registry::new();
    every_process(&registry, "gateway", &["api", "admin"])?;
    serving(&registry)?;
    GatewayMetrics::register(&registry)?;
    Ok(registry)
}

fn operator() -> Result<Registry, Error> {
    let registry = Registry::new();
    every_process(&registry, "operator", &["admin"])?;
    ClientMetrics::register(&registry)?;
    let metrics = dfs_operator::metrics::Metrics::register(&registry)?;
    let key = ClusterKey {
        namespace: "namespace".into(),
        name: "cluster".into(),
    };
    metrics.clusters.succeeded(&key, Timestamp::UNIX_EPOCH);
    metrics.clusters.judged(&key, &invalid(""));
    Ok(registry)
}

fn every_process(
    registry: &Registry,
    role: &'static str,
    listeners: &[&'static str],
) -> Result<(), Error> {
    dfs_runtime::process::register(registry, role)?;
    for listener in listeners {
        ServerMetrics::register(registry, listener)?;
    }
    Ok(())
}

/// Takes and makes requests. The metrics of those that come have no series before a router knows its routes, and one was called.
fn serving(registry: &Registry) -> Result<(), Error> {
    ClientMetrics::register(registry)?;
    TraceMetrics::register(registry)?;
    let metrics = RequestMetrics::register(registry)?;
    let edge = RequestEdge::new(SharedRng::from_seed(1), SystemClock::shared(), metrics, 1);
    let router = edge.wrap(Routes::mount([("/", get(|| async {}))], ()));
    let answered = router
        .oneshot(http::Request::new(Body::empty()))
        .now_or_never();
    drop(answered.ok_or("a handler without any work waits")??);
    Ok(())
}
