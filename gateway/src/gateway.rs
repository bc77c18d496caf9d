//! What all doors share.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::datanode::DatanodeClient;
use dfs_client::silence::SilenceWatch;
use dfs_client::write_stream::WriteStreams;
use dfs_client::{ClientError, HttpClient, TrackerApi};
use dfs_protocol::calls::Nothing;
use dfs_protocol::{ClusterId, DatanodeId, LeaseId, Problem};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::Shutdown;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::config::GatewayConfig;
use crate::download::HedgeDelay;
use crate::lease::Lease;
use crate::metrics::{Doubt, GatewayMetrics, Refusal};
use crate::patience::Patient;
use crate::pool::Pool;
use crate::suspects::Suspects;

/// The world as the doors see it.
#[derive(Debug, Clone)]
pub struct GatewayParts {
    /// The tracker, in this process or over HTTP.
    pub tracker: Arc<dyn TrackerApi>,
    /// Calls datanodes; the process's one client, so that its calls are counted once.
    pub http: HttpClient,
    /// Time.
    pub clock: SharedClock,
    /// Randomness, for ids.
    pub rng: SharedRng,
    /// Where the doors' metrics go.
    pub registry: prometheus::Registry,
    /// Ends the lease renewal.
    pub shutdown: Shutdown,
}

pub(crate) type SharedGateway = Arc<Gateway>;

/// State behind the doors; one per process.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) tracker: Arc<dyn TrackerApi>,
    pub(crate) streams: WriteStreams,
    pub(crate) datanodes: DatanodeClient,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) lease: Arc<Lease>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) hedges: Arc<Semaphore>,
    pub(crate) hedge_delay: HedgeDelay,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    cluster: OnceCell<ClusterId>,
}

impl Gateway {
    /// Starts the lease renewal and the care for placements; must be called inside a Tokio runtime.
    pub(crate) fn start(
        parts: GatewayParts,
        config: GatewayConfig,
    ) -> Result<SharedGateway, prometheus::Error> {
        let GatewayParts {
            tracker,
            http,
            clock,
            rng,
            registry,
            shutdown,
        } = parts;
        let metrics = GatewayMetrics::register(&registry)?;
        let lease = Lease::new(LeaseId::from_u128(rng.u128()), tracker.clone());
        let patience = config.tracker_patience;
        let tracker = Patient::shared(tracker, clock.clone(), patience, metrics.clone());
        let http = http.with_tokens(config.tokens.clone());
        let watch = SilenceWatch::new(http.clone(), metrics.silent.clone());
        let suspects = Suspects::new(clock.clone(), metrics.clone());
        let pool = Pool::new(lease.clone(), suspects.clone(), clock.clone(), &config);
        let gateway = Arc::new(Self {
            streams: WriteStreams::new(http.clone(), watch),
            datanodes: DatanodeClient::new(http),
            pool: Arc::new(pool),
            suspects,
            hedges: Arc::new(Semaphore::new(config.max_hedges)),
            hedge_delay: HedgeDelay::new(config.hedge_after),
            uploads: Arc::new(Semaphore::new(config.max_uploads)),
            downloads: Arc::new(Semaphore::new(config.max_downloads)),
            cluster: OnceCell::new(),
            tracker,
            clock,
            rng,
            metrics,
            lease: lease.clone(),
            config,
        });
        tokio::spawn(lease.keep_renewing(shutdown.clone()));
        tokio::spawn(gateway.pool.clone().keep_expiring(shutdown));
        Ok(gateway)
    }

    /// The cluster that chunks belong to; asked of the tracker once.
    pub(crate) async fn cluster(&self) -> Result<ClusterId, ClientError> {
        let asked = self.cluster.get_or_try_init(|| async {
            let status = self.tracker.status(Nothing {}).await?;
            Ok(status.cluster)
        });
        asked.await.copied()
    }

    /// A datanode was not reached or did not answer: what was placed on it ahead of need is given up.
    pub(crate) fn note_silent(&self, id: DatanodeId) {
        if self.suspects.note(id, Doubt::Silent) {
            self.pool.forget(id);
        }
    }

    /// A call to a datanode failed; whether that is silence shows in the error.
    pub(crate) fn note_failed(&self, id: DatanodeId, error: &ClientError) {
        if error.is_unheard() {
            self.note_silent(id);
        }
    }

    /// A place among the uploads.
    pub(crate) fn upload_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.place(&self.uploads, Refusal::Uploads, "uploads")
    }

    /// A place among the downloads.
    pub(crate) fn download_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.place(&self.downloads, Refusal::Downloads, "downloads")
    }

    fn place(
        &self,
        places: &Arc<Semaphore>,
        refusal: Refusal,
        what: &str,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        places.clone().try_acquire_owned().map_err(|_| {
            self.metrics.refusals.inc(refusal);
            Problem::new(
                dfs_protocol::ErrorCode::Unavailable,
                format!("as many {what} as this gateway takes at once are running"),
            )
            .next("try again shortly, or use another gateway")
        })
    }

    /// Monotonic time after which something that begins now is too late.
    pub(crate) fn deadline(&self, within: Duration) -> Duration {
        self.clock.monotonic().saturating_add(within)
    }

    /// Time left until `deadline`; none when it passed.
    pub(crate) fn left(&self, deadline: Duration) -> Option<Duration> {
        let left = deadline.checked_sub(self.clock.monotonic())?;
        (!left.is_zero()).then_some(left)
    }
}
