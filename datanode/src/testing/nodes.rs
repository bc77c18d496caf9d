//! Datanodes on loopback with a tracker that says what the test wants.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::post;
use axum::{Json, Router};
use dfs_client::blocks::read_to_copy;
use dfs_client::silence::SilenceWatch;
use dfs_client::write_stream::WriteStreams;
use dfs_client::{HttpClient, datanode::DatanodeClient};
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, ChunkKind, ChunkOrigin, DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::{
    Admission, ChunkReport, Command, Heartbeat, HeartbeatReply, RegisterRequest, RegisterResponse,
};
use dfs_protocol::frame::{OpenChunk, Resume};
use dfs_protocol::repair::RepairTerms;
use dfs_protocol::routes::REPAIR_HEADER;
use dfs_protocol::routes::tracker;
use dfs_protocol::{
    ChunkId, ChunkVersion, ClusterId, DatanodeId, Epoch, Fence, FileId, Incarnation,
};
use dfs_runtime::clock::SystemClock;
use dfs_runtime::disk::{Disk, RealDisk};
use dfs_runtime::net::TcpConnector;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::TestDisk;
use crate::store::{PackLimits, SpaceLimits};
use crate::{DatanodeConfig, DatanodeError, DatanodeParts, run};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(0xc);
pub(crate) const FENCE: Fence = Fence {
    epoch: Epoch(5),
    incarnation: Incarnation(50),
};

/// What the tracker of a test says and has heard.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) cluster: ClusterId,
    pub(crate) fence: Fence,
    pub(crate) admission: Admission,
    pub(crate) commands: Vec<Command>,
    pub(crate) full_report: bool,
    pub(crate) journal_floor: u64,
    /// Said with the answers to heartbeats.
    pub(crate) terms: Option<RepairTerms>,
    /// Tombstoned uuid: answered `Reset`.
    pub(crate) tombstoned: Option<DatanodeId>,
    pub(crate) registered: Vec<RegisterRequest>,
    pub(crate) heartbeats: Vec<Heartbeat>,
    pub(crate) reports: Vec<ChunkReport>,
}

type Shared = Arc<Mutex<Script>>;

/// A tracker on loopback.
#[derive(Debug, Clone)]
pub(crate) struct FakeTracker {
    pub(crate) script: Shared,
    pub(crate) address: String,
}

impl FakeTracker {
    pub(crate) async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script {
            cluster: CLUSTER,
            fence: FENCE,
            admission: Admission::Admitted,
            commands: Vec::new(),
            full_report: false,
            journal_floor: 0,
            terms: None,
            tombstoned: None,
            registered: Vec::new(),
            heartbeats: Vec::new(),
            reports: Vec::new(),
        }));
        let router = Router::new()
            .route(tracker::REGISTER, post(on_register))
            .route(tracker::HEARTBEAT, post(on_heartbeat))
            .route(tracker::CHUNK_REPORT, post(on_report))
            .with_state(Arc::clone(&script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (trigger, shutdown) = shutdown_pair();
        let registry = Registry::new();
        let metrics = dfs_runtime::server::ServerMetrics::register(&registry, "api").unwrap();
        tokio::spawn(async move {
            let _trigger = trigger;
            let limits = dfs_runtime::server::ServerLimits::default();
            dfs_runtime::server::serve(listener, router, limits, metrics, shutdown).await;
        });
        Self { script, address }
    }

    pub(crate) fn tell<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }
}

async fn on_register(
    State(script): State<Shared>,
    Json(request): Json<RegisterRequest>,
) -> Json<RegisterResponse> {
    let mut script = script.lock().unwrap();
    let admission = if script.tombstoned == Some(request.datanode) {
        Admission::Reset
    } else {
        script.admission
    };
    script.registered.push(request);
    Json(RegisterResponse {
        cluster: script.cluster,
        fence: script.fence,
        admission,
        heartbeat_interval_ms: 20,
        chunk_size: 1 << 26,
    })
}

async fn on_heartbeat(
    State(script): State<Shared>,
    Json(heartbeat): Json<Heartbeat>,
) -> impl IntoResponse {
    let mut script = script.lock().unwrap();
    script.heartbeats.push(heartbeat);
    let commands = script.commands.clone();
    let full_report = script.full_report;
    let terms = script.terms.as_ref();
    let terms = terms.map(|terms| [(REPAIR_HEADER, serde_json::to_string(terms).unwrap())]);
    (
        AppendHeaders(terms.into_iter().flatten().collect::<Vec<_>>()),
        Json(reply(&script, commands, full_report)),
    )
}

async fn on_report(State(script): State<Shared>, body: bytes::Bytes) -> Json<HeartbeatReply> {
    let mut script = script.lock().unwrap();
    script.full_report = false;
    script.reports.push(postcard::from_bytes(&body).unwrap());
    Json(reply(&script, Vec::new(), false))
}

fn reply(script: &Script, commands: Vec<Command>, full_report: bool) -> HeartbeatReply {
    HeartbeatReply {
        fence: script.fence,
        admission: script.admission,
        full_report,
        commands,
        journal_floor: script.journal_floor,
    }
}

/// A datanode on loopback.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) disk: TestDisk,
    pub(crate) address: DatanodeAddress,
    pub(crate) ended: JoinHandle<Result<(), DatanodeError>>,
    pub(crate) registry: Registry,
    trigger: ShutdownTrigger,
}

impl Node {
    pub(crate) async fn start(tracker: &FakeTracker) -> Self {
        Self::on(tracker, Arc::new(tempfile::tempdir().unwrap()), |_| {}).await
    }

    /// A datanode on a volume; waits until it answers.
    pub(crate) async fn on(
        tracker: &FakeTracker,
        dir: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut DatanodeConfig),
    ) -> Self {
        let disk = TestDisk::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut config = DatanodeConfig::new(dir.path().join("v"), &tracker.address, &address);
        config.space = SpaceLimits {
            soft_fraction: 0.001,
            hard_fraction: 0.001,
            reserve_bytes: 0,
        };
        // Tests damage the files of chunks.
        config.packs = PackLimits::NONE;
        config.limits.drain = Duration::from_millis(200);
        change(&mut config);
        let registry = Registry::new();
        let parts = DatanodeParts {
            listener,
            admin: None,
            disk: disk.shared(),
            clock: SystemClock::shared(),
            rng: SharedRng::from_entropy(),
            connector: TcpConnector::shared(),
            registry: registry.clone(),
        };
        let (trigger, shutdown) = shutdown_pair();
        let ended = tokio::spawn(run(config, parts, shutdown));
        let client = client();
        let mut id = DatanodeId::from_u128(0);
        super::eventually("the datanode answers", async || {
            if ended.is_finished() {
                return true;
            }
            match client.identity(&address).await {
                Ok(identity) => {
                    id = identity.datanode;
                    true
                }
                Err(_) => false,
            }
        })
        .await;
        Self {
            dir,
            disk,
            address: DatanodeAddress { id, address },
            ended,
            registry,
            trigger,
        }
    }

    /// A datanode that the tracker has admitted.
    pub(crate) async fn admitted(tracker: &FakeTracker) -> Self {
        let node = Self::start(tracker).await;
        node.wait_admitted(tracker).await;
        node
    }

    pub(crate) async fn wait_admitted(&self, tracker: &FakeTracker) {
        let id = self.address.id;
        super::eventually("a heartbeat", async || {
            tracker.tell(|s| s.heartbeats.iter().any(|h| h.datanode == id))
        })
        .await;
    }

    /// The present value of one of its counters, over all labels.
    pub(crate) fn counted(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.unwrap().get_metric().iter();
        metrics.map(|one| one.get_counter().get_value()).sum()
    }

    /// A metric that counts whole things and has no labels.
    // What the gauges hold was a whole number below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.unwrap().get_metric()[0].get_gauge().get_value() as u64
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("v")
    }

    /// Ends it well and gives its volume back.
    pub(crate) async fn stop(self) -> Arc<tempfile::TempDir> {
        self.trigger.trigger();
        self.ended.await.unwrap().unwrap();
        self.dir
    }

    /// Ends it at once, as a kill would: connections break.
    pub(crate) async fn kill(self) {
        let lock = self.root().join("lock");
        self.ended.abort();
        let _ended = self.ended.await;
        super::eventually("the volume is free", async || RealDisk.lock(&lock).is_ok()).await;
    }
}

pub(crate) fn client() -> DatanodeClient {
    DatanodeClient::new(HttpClient::new(TcpConnector::shared()))
}

pub(crate) fn streams() -> WriteStreams {
    let http = HttpClient::new(TcpConnector::shared());
    let silent = prometheus::IntCounter::new("silent", "silent").unwrap();
    WriteStreams::new(http.clone(), SilenceWatch::new(http, silent))
}

pub(crate) fn open_on(chain: &[&Node], chunk: u128, version: u32) -> OpenChunk {
    OpenChunk {
        cluster: CLUSTER,
        datanode: chain[0].address.id,
        fence: FENCE,
        chunk: ChunkId::from_u128(chunk),
        version: ChunkVersion(version),
        origin: origin(),
        expected: 8 << 20,
        resume: None,
        downstream: chain[1..].iter().map(|n| n.address.clone()).collect(),
        trace: None,
    }
}

pub(crate) fn resume(open: OpenChunk, version: u32, length: u64) -> OpenChunk {
    OpenChunk {
        resume: Some(Resume {
            version: ChunkVersion(version),
            length,
        }),
        ..open
    }
}

pub(crate) fn origin() -> ChunkOrigin {
    ChunkOrigin {
        kind: ChunkKind::Data,
        file: FileId::from_u128(0xf),
        index: 3,
        path_hint: "dir/ü.bin".into(),
    }
}

pub(crate) fn sealed(chunk: u128, version: u32, data: &[u8]) -> SealedChunk {
    SealedChunk {
        id: ChunkId::from_u128(chunk),
        version: ChunkVersion(version),
        length: data.len() as u64,
        crc32c: crc32c(data),
    }
}

pub(crate) fn blocks(data: &[u8], from: usize) -> impl Iterator<Item = (u64, u32, &[u8])> {
    let parts = data[from..].chunks(BLOCK_SIZE);
    parts
        .zip((from as u64..).step_by(BLOCK_SIZE))
        .map(|(part, offset)| (offset, crc32c(part), part))
}

/// Writes one whole chunk over a chain.
pub(crate) async fn put(chain: &[&Node], chunk: u128, data: &[u8]) -> SealedChunk {
    use dfs_client::write_stream::ChunkEvent;
    let open = open_on(chain, chunk, 1);
    let mut writer = streams().open(&chain[0].address, &open).await.unwrap();
    for (offset, crc, part) in blocks(data, 0) {
        writer.sender.block(offset, crc, part).await.unwrap();
    }
    let chunk = sealed(chunk, 1, data);
    writer.sender.seal(&chunk).await.unwrap();
    loop {
        match writer.receiver.next().await.unwrap() {
            ChunkEvent::Progress(_) => {}
            ChunkEvent::Sealed(report) => {
                assert!(report.failed.is_empty(), "{report:?}");
                assert_eq!(report.replicas.len(), chain.len());
                return chunk;
            }
            ChunkEvent::Failed(failed) => panic!("{failed:?}"),
        }
    }
}

/// Reads one chunk as blocks that its datanode has verified.
pub(crate) async fn get(from: &Node, chunk: &SealedChunk) -> Option<Vec<u8>> {
    let http = HttpClient::new(TcpConnector::shared());
    let read = read_to_copy(&http, &from.address, chunk, None).await;
    let mut stream = read.ok()?;
    assert_eq!(stream.origin(), Some(origin()));
    let mut data = Vec::new();
    while let Some(block) = stream.next().await.ok()? {
        data.extend_from_slice(&block.data);
    }
    Some(data)
}

pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

pub(crate) fn chunk_file(root: &Path, chunk: &SealedChunk) -> PathBuf {
    crate::store::layout::chunk_path(root, chunk.id, chunk.version)
}
