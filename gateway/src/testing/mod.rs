//! Stand-ins: a chain of datanodes that speaks the real protocol and fails on order, and a tracker
//! in memory.

mod datanode;
mod read_streams;
mod reads;
mod tracker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfs_client::HttpClient;
use dfs_protocol::checksum::crc64nvme;
use dfs_protocol::file::FileRecord;
use dfs_protocol::{FileId, FilePath, VersionId};
use dfs_runtime::clock::{Clock, SharedClock, SystemClock};
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use prometheus::Registry;

pub(crate) use datanode::{Chain, Fault, ReadFault, id};
pub(crate) use tracker::FakeTracker;

use crate::config::GatewayConfig;
use crate::gateway::{Gateway, GatewayParts, SharedGateway};

/// Chunks of the tests: five blocks and a little, so that chunk ends and block ends differ.
pub(crate) const CHUNK: u64 = 5 * 65_536 + 100;

/// A gateway with its world.
pub(crate) struct World {
    pub(crate) chain: Chain,
    pub(crate) tracker: Arc<FakeTracker>,
    pub(crate) gateway: SharedGateway,
    _end: ShutdownTrigger,
}

impl World {
    /// `datanodes` of them, factor 3, chunks of `chunk_size` bytes.
    pub(crate) async fn new(datanodes: usize, chunk_size: u64) -> Self {
        Self::with(datanodes, chunk_size, config()).await
    }

    pub(crate) async fn with(datanodes: usize, chunk_size: u64, config: GatewayConfig) -> Self {
        Self::at(datanodes, chunk_size, config, SystemClock::shared()).await
    }

    /// Under a clock of the test's.
    pub(crate) async fn at(
        datanodes: usize,
        chunk_size: u64,
        config: GatewayConfig,
        clock: SharedClock,
    ) -> Self {
        let (parts, chain, tracker, end) = parts(datanodes, chunk_size).await;
        let parts = GatewayParts { clock, ..parts };
        Self {
            chain,
            tracker,
            gateway: Gateway::start(parts, config).unwrap(),
            _end: end,
        }
    }
}

/// The parts of a gateway over fakes.
pub(crate) async fn parts(
    datanodes: usize,
    chunk_size: u64,
) -> (GatewayParts, Chain, Arc<FakeTracker>, ShutdownTrigger) {
    let (end, shutdown) = shutdown_pair();
    let chain = Chain::start(datanodes, shutdown.clone()).await;
    let tracker = Arc::new(FakeTracker::new(chain.clone(), chunk_size));
    let parts = GatewayParts {
        tracker: tracker.clone(),
        http: HttpClient::new(chain.connector()),
        clock: SystemClock::shared(),
        rng: SharedRng::from_seed(7),
        registry: Registry::new(),
        shutdown,
    };
    (parts, chain, tracker, end)
}

/// Short deadlines.
pub(crate) fn config() -> GatewayConfig {
    GatewayConfig {
        // Longer than a busy machine stalls: tests about it have a shorter one.
        chain_stall: Duration::from_secs(30),
        commit_deadline: Duration::from_secs(5),
        replica_deadline: Duration::from_secs(5),
        tracker_patience: Duration::ZERO,
        // No second replica is asked unless a test is about that.
        hedge_after: Duration::from_mins(5),
        ..GatewayConfig::default()
    }
}

/// A clock that stands until a test moves it.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

/// Bytes in which every block differs.
pub(crate) fn content(length: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(length);
    (0..length).map(|_| rng.u8(..)).collect()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..9000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

/// A record without chunks.
pub(crate) fn record(path: &str, content: &[u8]) -> FileRecord {
    let at = jiff::Timestamp::from_second(1_000_000_000).unwrap();
    FileRecord {
        path: FilePath::parse(path).unwrap(),
        file: FileId::from_u128(1),
        version: VersionId::from_u128(2),
        size: content.len() as u64,
        crc64nvme: crc64nvme(content),
        md5: None,
        content_type: "text/plain".into(),
        content_encoding: None,
        metadata: BTreeMap::new(),
        created: at,
        modified: at,
        factor: 3,
        chunks: Vec::new(),
        own_factor: false,
    }
}
