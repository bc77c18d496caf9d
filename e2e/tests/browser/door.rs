//! A store and a gateway of its own before it, as in a cluster: the gateway outlives the tracker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::{HttpClient, HttpTracker};
use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options};
use dfs_gateway::{GatewayConfig, GatewayParts, StandAlone};
use dfs_runtime::clock::SystemClock;
use dfs_runtime::forwarded::TrustedProxies;
use dfs_runtime::net::TcpConnector;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::server::ServerLimits;
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use dfs_runtime::trace::Tracer;
use prometheus::Registry;
use tokio::net::TcpListener;

/// A store whose datanodes are not taken for dead because a browser starts on the same two cores.
pub(crate) async fn store() -> Cluster {
    let calm = Options {
        tracker: |config| config.heartbeat_interval = CALM_HEARTS,
        ..Options::default()
    };
    Cluster::start(calm).await
}

/// A gateway; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    _end: ShutdownTrigger,
}

impl Door {
    /// Before the store whose tracker listens there.
    pub(crate) async fn start(tracker: SocketAddr) -> Self {
        let bind = || TcpListener::bind(("127.0.0.1", 0));
        let (listener, admin) = (bind().await.unwrap(), bind().await.unwrap());
        let address = listener.local_addr().unwrap();
        let (end, shutdown) = shutdown_pair();
        let http = HttpClient::new(TcpConnector::shared());
        let parts = GatewayParts {
            tracker: Arc::new(HttpTracker::new(http.clone(), tracker.to_string())),
            http,
            clock: SystemClock::shared(),
            rng: SharedRng::from_seed(fastrand::u64(..)),
            registry: Registry::new(),
            shutdown: shutdown.clone(),
        };
        let config = StandAlone {
            gateway: GatewayConfig {
                // The page's own limit is longer, so that what the gateway says is seen as well.
                tracker_patience: Duration::from_secs(1),
                ..GatewayConfig::default()
            },
            limits: ServerLimits::default(),
            in_flight: 64,
            proxies: TrustedProxies::default(),
            tracer: Tracer::off(),
        };
        tokio::spawn(dfs_gateway::run(config, parts, listener, admin, shutdown));
        Self { address, _end: end }
    }

    /// Where the page is.
    pub(crate) fn page(&self) -> String {
        format!("http://{}/", self.address)
    }
}
