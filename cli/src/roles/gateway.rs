//! `dfs gateway`.

use std::sync::Arc;

use dfs_client::{HttpClient, HttpTracker};
use dfs_gateway::{GatewayConfig, GatewayParts, StandAlone};
use dfs_runtime::server::ServerLimits;
use dfs_runtime::shutdown::Shutdown;
use prometheus::Registry;

use super::place::{bind, failed};
use super::{DRAIN, World};
use crate::args::{GatewayArgs, Role};
use crate::exit::Failure;
use crate::tokens;

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
    let http = HttpClient::new(world.connector.clone()).with_tokens(tokens.clone());
    let parts = GatewayParts {
        tracker: Arc::new(HttpTracker::new(http, args.tracker.as_str())),
        connector: world.connector,
        clock: world.clock,
        rng: world.rng,
        registry: Registry::new(),
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
    };
    tracing::info!(api = %place.api, admin = %place.admin, tracker = %args.tracker, "the gateway serves");
    dfs_gateway::run(config, parts, listener, admin_listener, shutdown)
        .await
        .map_err(|error| failed("run the gateway", &error))
}
