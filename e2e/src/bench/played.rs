//! Datanodes without disks: they register, heartbeat and report as real ones do, and confirm every
//! journal record. Whoever is asked for a chunk has none.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs_client::{ClientError, HttpClient, HttpTracker, TrackerApi};
use dfs_protocol::chunk::{ChunkKind, Replica, SealedChunk, SetDigest};
use dfs_protocol::datanode::{ChunkReport, DatanodeStats, Heartbeat, RegisterRequest};
use dfs_protocol::ids::{
    ChunkVersion, ClusterId, DatanodeId, Fence, FileId, InstanceId, LeaseId, UploadId,
};
use dfs_protocol::path::FilePath;
use dfs_protocol::routes::datanode::{INVENTORY, JOURNAL, JOURNAL_BACKFILL};
use dfs_protocol::upload::{
    AllocateRequest, CommitRequest, CommitResponse, Placement, Precondition, WrittenChunk,
};
use dfs_runtime::net::TcpConnector;
use futures_util::future::try_join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::body::broken;
use crate::wait::eventually;

/// Chunks of one allocation: the most that the tracker gives.
const ALLOCATED: u32 = 64;
/// Chunks of one file.
const OF_FILE: usize = 1024;
/// Bytes of one chunk, as it is said to be.
const CHUNK: u64 = 1024 * 1024;
/// Heartbeats under way at once.
const AT_ONCE: usize = 16;
/// Heartbeats go out this often while chunks are made.
const BEAT: Duration = Duration::from_secs(1);
/// How long the tracker may take to give room.
const START: Duration = Duration::from_mins(1);

/// One datanode.
#[derive(Debug)]
struct Played {
    id: DatanodeId,
    instance: InstanceId,
    sequence: u64,
    replicas: Vec<Replica>,
    /// Of what was reported.
    digest: SetDigest,
}

/// All of them, behind one listener.
#[derive(Debug)]
pub(super) struct Herd {
    tracker: HttpTracker,
    address: String,
    rng: fastrand::Rng,
    cluster: Option<ClusterId>,
    fence: Fence,
    datanodes: Vec<Played>,
    files: usize,
}

impl Herd {
    /// Registers so many.
    pub(super) async fn start(tracker: &str, seed: u64, count: usize) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(answer_all(listener));
        let http = HttpClient::new(TcpConnector::shared());
        let mut herd = Self {
            tracker: HttpTracker::new(http, tracker),
            address,
            rng: fastrand::Rng::with_seed(seed),
            cluster: None,
            fence: Fence::default(),
            datanodes: Vec::new(),
            files: 0,
        };
        herd.grow(count).await?;
        Ok(herd)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.datanodes.len()
    }

    /// Registers until there are so many.
    pub(super) async fn grow(&mut self, count: usize) -> io::Result<()> {
        while self.datanodes.len() < count {
            let played = Played {
                id: DatanodeId::from_u128(self.rng.u128(..)),
                instance: InstanceId(self.rng.u64(..)),
                sequence: 0,
                replicas: Vec::new(),
                digest: SetDigest::default(),
            };
            let request = RegisterRequest {
                cluster: self.cluster,
                datanode: played.id,
                instance: played.instance,
                address: self.address.clone(),
                zone: None,
                host: None,
                pod: None,
                fence: self.fence,
                stats: played.stats(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            let response = self.tracker.register(&request).await.map_err(broken)?;
            self.cluster = Some(response.cluster);
            self.fence = response.fence;
            self.datanodes.push(played);
        }
        self.heartbeat().await
    }

    /// Waits until the tracker has heard enough of them to give room for chunks.
    pub(super) async fn wait_for_writes(&mut self) -> io::Result<()> {
        let this = tokio::sync::Mutex::new(self);
        eventually("the tracker gives room", START, || async {
            let mut herd = this.lock().await;
            herd.heartbeat().await.map_err(|error| error.to_string())?;
            let placed = herd.allocate().await.map_err(|error| error.to_string())?;
            match placed.first() {
                Some(placement) if placement.targets.len() == 3 => Ok(()),
                _ => Err("fewer than three targets".to_owned()),
            }
        })
        .await;
        Ok(())
    }

    /// A heartbeat of everybody.
    pub(super) async fn heartbeat(&mut self) -> io::Result<()> {
        let Some(cluster) = self.cluster else {
            return Ok(());
        };
        let (address, fence) = (&self.address, self.fence);
        let beats: Vec<Heartbeat> = self
            .datanodes
            .iter_mut()
            .map(|played| played.heartbeat(cluster, address, fence))
            .collect();
        for some in beats.chunks(AT_ONCE) {
            let sent = some.iter().map(|beat| self.tracker.heartbeat(beat, None));
            try_join_all(sent).await.map_err(broken)?;
        }
        Ok(())
    }

    /// Puts so many chunks into files; their holders are who the tracker chose.
    pub(super) async fn write(&mut self, chunks: usize) -> io::Result<()> {
        let mut beaten = Instant::now();
        let mut left = chunks;
        while left > 0 {
            let mut placements = Vec::new();
            let lease = self.lease();
            while placements.len() < OF_FILE.min(left) {
                placements.extend(self.allocate_for(lease).await?);
                if beaten.elapsed() > BEAT {
                    self.heartbeat().await?;
                    beaten = Instant::now();
                }
            }
            placements.truncate(left);
            left -= placements.len();
            self.commit(lease, placements).await?;
        }
        Ok(())
    }

    /// Makes so many files of one chunk each, as many at once as one allocation gives chunks.
    pub(super) async fn write_files(&mut self, files: usize) -> io::Result<()> {
        let mut beaten = Instant::now();
        let mut left = files;
        while left > 0 {
            let lease = self.lease();
            let mut placements = self.allocate_for(lease).await?;
            placements.truncate(left);
            left -= placements.len();
            let requests = placements.into_iter();
            let requests = requests.map(|one| self.commit_request(lease, vec![one]));
            let requests = requests.collect::<io::Result<Vec<_>>>()?;
            let sent = requests
                .into_iter()
                .map(|request| self.tracker.commit(request));
            for answer in try_join_all(sent).await.map_err(broken)? {
                committed(answer)?;
            }
            if beaten.elapsed() > BEAT {
                self.heartbeat().await?;
                beaten = Instant::now();
            }
        }
        Ok(())
    }

    /// The full chunk set of everybody who has one; entries in all.
    pub(super) async fn report(&mut self) -> io::Result<usize> {
        let Some(cluster) = self.cluster else {
            return Ok(0);
        };
        let mut entries = 0;
        for played in &mut self.datanodes {
            if played.replicas.is_empty() {
                continue;
            }
            played.sequence += 1;
            let report = ChunkReport {
                cluster,
                datanode: played.id,
                instance: played.instance,
                sequence: played.sequence,
                digest: SetDigest::of(played.replicas.iter().map(|replica| &replica.chunk)),
                replicas: played.replicas.clone(),
            };
            let encoded = postcard::to_stdvec(&report).map_err(broken)?;
            let (reply, _terms) = self.tracker.chunk_report(encoded).await.map_err(broken)?;
            if reply.full_report {
                return Err(io::Error::other(
                    "the tracker asks for the same report again",
                ));
            }
            played.digest = report.digest;
            entries += played.replicas.len();
        }
        Ok(entries)
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId::from_u128(self.rng.u128(..))
    }

    async fn allocate(&mut self) -> Result<Vec<Placement>, ClientError> {
        let request = AllocateRequest {
            lease: self.lease(),
            chunks: 1,
            bytes_each: CHUNK,
            factor: None,
            avoid: Vec::new(),
            prefer: Vec::new(),
        };
        Ok(self.tracker.allocate(request).await?.placements)
    }

    async fn allocate_for(&self, lease: LeaseId) -> io::Result<Vec<Placement>> {
        let request = AllocateRequest {
            lease,
            chunks: ALLOCATED,
            bytes_each: CHUNK,
            factor: None,
            avoid: Vec::new(),
            prefer: Vec::new(),
        };
        let given = self.tracker.allocate(request).await.map_err(broken)?;
        Ok(given.placements)
    }

    async fn commit(&mut self, lease: LeaseId, placements: Vec<Placement>) -> io::Result<()> {
        let request = self.commit_request(lease, placements)?;
        committed(self.tracker.commit(request).await.map_err(broken)?)
    }

    fn commit_request(
        &mut self,
        lease: LeaseId,
        placements: Vec<Placement>,
    ) -> io::Result<CommitRequest> {
        let mut chunks = Vec::new();
        for placement in placements {
            let chunk = SealedChunk {
                id: placement.chunk,
                version: ChunkVersion(1),
                length: CHUNK,
                crc32c: self.rng.u32(..),
            };
            let replicas: Vec<DatanodeId> =
                placement.targets.iter().map(|target| target.id).collect();
            for played in &mut self.datanodes {
                if replicas.contains(&played.id) {
                    let kind = ChunkKind::Data;
                    played.replicas.push(Replica { chunk, kind });
                }
            }
            chunks.push(WrittenChunk { chunk, replicas });
        }
        let path = format!("played/{}/{}", self.files / 1000, self.files);
        self.files += 1;
        Ok(CommitRequest {
            upload: UploadId::from_u128(self.rng.u128(..)),
            lease,
            file: FileId::from_u128(self.rng.u128(..)),
            path: FilePath::parse(&path).map_err(broken)?,
            precondition: Precondition::None,
            content_type: "application/octet-stream".to_owned(),
            content_encoding: None,
            metadata: std::collections::BTreeMap::new(),
            size: CHUNK * chunks.len() as u64,
            crc64nvme: 0,
            md5: None,
            factor: None,
            chunks,
        })
    }
}

fn committed(answer: CommitResponse) -> io::Result<()> {
    match answer {
        CommitResponse::Committed { .. } => Ok(()),
        CommitResponse::NeedsReplicas { copies, .. } => {
            let text = format!("{} chunks need more replicas", copies.len());
            Err(io::Error::other(text))
        }
    }
}

impl Played {
    fn stats(&self) -> DatanodeStats {
        let capacity = 1 << 44;
        let used = self.replicas.len() as u64 * CHUNK;
        DatanodeStats {
            capacity_bytes: capacity,
            used_bytes: used,
            free_bytes: capacity - used,
            chunks: self.replicas.len() as u64,
            ..DatanodeStats::default()
        }
    }

    fn heartbeat(&mut self, cluster: ClusterId, address: &str, fence: Fence) -> Heartbeat {
        self.sequence += 1;
        Heartbeat {
            cluster,
            datanode: self.id,
            instance: self.instance,
            sequence: self.sequence,
            address: address.to_owned(),
            fence,
            stats: self.stats(),
            base: self.digest,
            added: Vec::new(),
            removed: Vec::new(),
            digest: self.digest,
            corrupt: Vec::new(),
            finished: Vec::new(),
        }
    }
}

async fn answer_all(listener: TcpListener) {
    // Ends with the runtime.
    while let Ok((stream, _)) = listener.accept().await {
        let serving =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(serving);
    }
}

/// Journal records are taken and forgotten: whatever is asked for is missing.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks is a call that nobody waits for.
    let _read = body.collect().await;
    let mut response = Response::new(Full::default());
    if head.method == http::Method::POST {
        return Ok(response);
    }
    match head.uri.path() {
        JOURNAL | INVENTORY => {}
        JOURNAL_BACKFILL => {
            let query = head.uri.query().unwrap_or_default();
            let from = query.strip_prefix("from=").unwrap_or("0");
            *response.body_mut() = Full::from(format!(r#"{{"first_missing":{from}}}"#));
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}
