//! `dfs operator`.

use std::sync::Arc;

use dfs_client::{ClientMetrics, HttpClient};
use dfs_operator::tracker_client::HttpTrackerClient;
use dfs_operator::{OperatorConfig, OperatorParts};
use dfs_runtime::shutdown::Shutdown;
use prometheus::Registry;

use super::World;
use super::place::{bind, failed};
use crate::args::OperatorArgs;
use crate::exit::{Exit, Failure};

/// Runs the operator until the shutdown, or until it loses its lease.
pub async fn run_operator(
    args: &OperatorArgs,
    world: World,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let admin_listener = bind(args.admin(), "--admin-port").await?;
    let client = dfs_operator::connect().await.map_err(|error| {
        Failure::new(
            Exit::Failed,
            "find the Kubernetes API server",
            error.to_string(),
        )
        .next("run it in a pod with a service account, or set KUBECONFIG")
    })?;
    let identity = args
        .identity
        .clone()
        .unwrap_or_else(|| format!("dfs-operator-{:016x}", world.rng.u64()));
    let config = OperatorConfig {
        namespaces: args.namespaces(),
        image: args.image.clone(),
        namespace: client.default_namespace().to_owned(),
        lease_namespace: args
            .lease_namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned()),
        identity,
        resync: args.resync,
    };
    let registry = Registry::new();
    let calls =
        ClientMetrics::register(&registry).map_err(|error| failed("register metrics", &error))?;
    let http = HttpClient::counted(world.connector, calls);
    let parts = OperatorParts {
        client,
        tracker: Arc::new(HttpTrackerClient::new(http)),
        address_of: dfs_operator::ctx::service_address(),
        clock: world.clock,
        rng: world.rng,
        registry,
    };
    tracing::info!(admin = %args.admin(), identity = config.identity, "the operator starts");
    dfs_operator::run(config, parts, admin_listener, shutdown)
        .await
        .map_err(|error| failed("run the operator", &error))
}
