//! `dfs gateway`.

use std::sync::Arc;

use dfs_client::{ClientMetrics, HttpClient, HttpTracker};
use dfs_gateway::{GatewayConfig, GatewayParts, StandAlone};
use dfs_runtime::server::ServerLimits;
use dfs_runtime::shutdown::Shutdown;
use prometheus::Registry;

use super::place::{bind, failed};
use super::{DRAIN, World};
use crate::args::{GatewayArgs, Role};
use crate::exit::Failure;
use crate::tokens;
use crate::traces::Traces;

/// Requests under way at once.
const IN_FLIGHT: usize = 1024;

/// Runs a gateway until the shutdown.
pub async fn run_gateway(
    args: &GatewayArgs,
    world: World,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let place = args.listen.resolve(Role::Gateway);
    let listener = bind(place.api, "--port").await?;
    let admin_listener = bind(place.admin, "--admin-port").await?;
    let tokens = tokens::of_role(&args.token, &world, &shutdown).await?;
    let registry = Registry::new();
    let calls =
        ClientMetrics::register(&registry).map_err(|error| failed("register metrics", &error))?;
    let instance = place.api.to_string();
    let traces = Traces::of_role(&args.traces, Role::Gateway, &instance, &world, &registry)?;
    let http = HttpClient::counted(world.connector, calls).with_tokens(tokens.clone());
    let parts = GatewayParts {
        tracker: Arc::new(HttpTracker::new(http.clone(), args.tracker.as_str())),
        http,
        clock: world.clock,
        rng: world.rng,
        registry,
        shutdown: shutdown.clone(),
    };
    let config = StandAlone {
        gateway: GatewayConfig {
            tracker_patience: args.tracker_patience,
            tokens,
            ..GatewayConfig::default()
        },
        limits: ServerLimits {
            drain: DRAIN,
            ..ServerLimits::default()
        },
        in_flight: IN_FLIGHT,
        proxies: args.proxies.trusted_proxies.clone(),
        tracer: traces.tracer.clone(),
    };
    tracing::info!(api = %place.api, admin = %place.admin, tracker = %args.tracker, "the gateway serves");
    let ended = dfs_gateway::run(config, parts, listener, admin_listener, shutdown).await;
    traces.finish().await;
    ended.map_err(|error| failed("run the gateway", &error))
}
