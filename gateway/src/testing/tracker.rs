//! A tracker in memory: one map of files, placements on the lowest ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use dfs_client::{ClientError, TrackerApi};
use dfs_protocol::calls::{
    DatanodeRequest, FileRequest, FsckPage, FsckRequest, Nothing, PurgeRequest, RestoreRequest,
    SetAdminRequest, TrashPage, TrashRequest,
};
use dfs_protocol::factor::{FactorPage, FactorRequest};
use dfs_protocol::file::FileRecord;
use dfs_protocol::status::{
    Capacity, ClusterStatus, DatanodeCounts, DatanodeStatus, FileChunks, FsckLine, FsckVerdict,
    JournalStatus, OkToStopRequest, RepairStatus, TrashStatus, Verdict,
};
use dfs_protocol::upload::{
    AllocateRequest, AllocateResponse, CommitRequest, CommitResponse, DeleteRequest,
    DeleteResponse, ListEntry, ListRequest, ListResponse, LocateRequest, LocateResponse,
    LocatedChunk, NeededCopy, Placement, RenewRequest, RenewResponse, SuspectReplica, TransferMode,
    TransferRequest, TransferResponse,
};
use dfs_protocol::{
    ChunkId, ClusterId, DatanodeId, Epoch, ErrorCode, Fence, FilePath, Incarnation, PathPrefix,
    Problem, VersionId,
};

use super::Chain;
use crate::headers::conditional::{failed, holds};

const FACTOR: usize = 3;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, FileRecord>,
    next_chunk: u128,
    abandoned: BTreeSet<ChunkId>,
    renewed: BTreeSet<ChunkId>,
    suspects: Vec<DatanodeId>,
    allocations: Vec<AllocateRequest>,
}

#[derive(Debug)]
pub(crate) struct FakeTracker {
    chain: Chain,
    chunk_size: u64,
    state: Mutex<State>,
    epoch: AtomicU64,
    pub(crate) commits: AtomicU32,
    /// So many commits take effect and their answers get lost.
    pub(crate) lost_answers: AtomicU32,
    /// So many calls do not reach the tracker.
    pub(crate) unreachable: AtomicU32,
    /// So many questions for the status do not reach it.
    pub(crate) unasked: AtomicU32,
    /// In safe mode although every replica is known.
    pub(crate) gathers: std::sync::atomic::AtomicBool,
    /// Hides locations, as in safe mode.
    pub(crate) safe_mode: std::sync::atomic::AtomicBool,
}

fn refuse<T>(code: ErrorCode) -> Result<T, ClientError> {
    Err(Problem::new(code, "as the fake tracker says").into())
}

fn lost<T>() -> Result<T, ClientError> {
    Err(ClientError::Unreachable {
        address: "tracker".into(),
        detail: "as ordered".into(),
    })
}

/// Takes one from a counter of faults.
fn due(counter: &AtomicU32) -> bool {
    let take = |n: u32| n.checked_sub(1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
        .is_ok()
}

impl FakeTracker {
    pub(crate) fn new(chain: Chain, chunk_size: u64) -> Self {
        Self {
            chain,
            chunk_size,
            state: Mutex::default(),
            epoch: AtomicU64::new(1),
            commits: AtomicU32::new(0),
            lost_answers: AtomicU32::new(0),
            unreachable: AtomicU32::new(0),
            unasked: AtomicU32::new(0),
            gathers: std::sync::atomic::AtomicBool::new(false),
            safe_mode: std::sync::atomic::AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn fence(&self) -> Fence {
        Fence {
            epoch: Epoch(self.epoch.load(Ordering::SeqCst)),
            incarnation: Incarnation(1),
        }
    }

    /// Another tracker acts from now on.
    pub(crate) fn restart(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn file(&self, path: &str) -> Option<FileRecord> {
        self.lock().files.get(path).cloned()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    pub(crate) fn abandoned(&self) -> usize {
        self.lock().abandoned.len()
    }

    pub(crate) fn is_abandoned(&self, chunk: ChunkId) -> bool {
        self.lock().abandoned.contains(&chunk)
    }

    pub(crate) fn renewed(&self) -> usize {
        self.lock().renewed.len()
    }

    pub(crate) fn was_renewed(&self, chunk: ChunkId) -> bool {
        self.lock().renewed.contains(&chunk)
    }

    pub(crate) fn suspects(&self) -> Vec<DatanodeId> {
        self.lock().suspects.clone()
    }

    pub(crate) fn allocations(&self) -> Vec<AllocateRequest> {
        self.lock().allocations.clone()
    }

    fn needed(&self, request: &CommitRequest) -> Vec<NeededCopy> {
        let live = self.chain.live();
        let wanted = FACTOR.min(live.len());
        let lacking = request
            .chunks
            .iter()
            .filter(|written| written.replicas.len() < wanted);
        lacking
            .map(|written| {
                let has = |id: &DatanodeId| written.replicas.contains(id);
                let (sources, targets) = live.iter().cloned().partition(|node| has(&node.id));
                NeededCopy {
                    chunk: written.chunk,
                    sources,
                    targets,
                    missing: u32::try_from(wanted - written.replicas.len()).unwrap(),
                }
            })
            .collect()
    }

    fn apply(&self, request: &CommitRequest) -> Result<CommitResponse, ClientError> {
        let mut state = self.lock();
        let key = request.path.to_string();
        let version = VersionId::from(request.upload);
        let now = state.files.get(&key).map(|file| file.version);
        let replayed = now == Some(version);
        if !replayed && !holds(&request.precondition, now) {
            return Err(failed().into());
        }
        let at = jiff::Timestamp::from_second(1_700_000_000).unwrap();
        let file = FileRecord {
            path: request.path.clone(),
            file: request.file,
            version,
            size: request.size,
            crc64nvme: request.crc64nvme,
            md5: request.md5,
            content_type: request.content_type.clone(),
            content_encoding: request.content_encoding.clone(),
            metadata: request.metadata.clone(),
            created: at,
            modified: at,
            factor: 3,
            chunks: request.chunks.iter().map(|written| written.chunk).collect(),
            own_factor: false,
        };
        state.files.insert(key, file.clone());
        let mut replicas: Vec<_> = request
            .chunks
            .first()
            .map_or(vec![], |c| c.replicas.clone());
        replicas.retain(|id| request.chunks.iter().all(|c| c.replicas.contains(id)));
        let fewest = request.chunks.iter().map(|c| c.replicas.len()).min();
        Ok(CommitResponse::Committed {
            file: Box::new(file),
            replaced: now.is_some() && !replayed,
            replicas,
            replica_count: u32::try_from(fewest.unwrap_or(FACTOR)).unwrap(),
            wanted: 3,
        })
    }
}

#[async_trait]
impl TrackerApi for FakeTracker {
    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, ClientError> {
        if due(&self.unreachable) {
            return lost();
        }
        let mut live = self.chain.live();
        live.sort_by_key(|node| (request.avoid.contains(&node.id), node.id));
        live.truncate(FACTOR);
        if live.is_empty() {
            return refuse(ErrorCode::TooFewDatanodes);
        }
        let mut state = self.lock();
        let placements = (0..request.chunks).map(|_| {
            state.next_chunk += 1;
            Placement {
                chunk: ChunkId::from_u128(state.next_chunk),
                targets: live.clone(),
                wanted: 3,
            }
        });
        let placements = placements.collect();
        state.allocations.push(request);
        Ok(AllocateResponse {
            fence: self.fence(),
            placements,
            chunk_size: self.chunk_size,
            lease_ms: 3000,
        })
    }

    async fn renew(&self, request: RenewRequest) -> Result<RenewResponse, ClientError> {
        let mut state = self.lock();
        state.abandoned.extend(request.abandoned);
        state.renewed.extend(request.chunks);
        Ok(RenewResponse {
            fence: self.fence(),
            lease_ms: 3000,
            condemned: Vec::new(),
        })
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitResponse, ClientError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        if due(&self.unreachable) {
            return lost();
        }
        let copies = self.needed(&request);
        if !copies.is_empty() {
            return Ok(CommitResponse::NeedsReplicas {
                fence: self.fence(),
                copies,
            });
        }
        let answer = self.apply(&request);
        if due(&self.lost_answers) {
            return lost();
        }
        answer
    }

    async fn locate(&self, request: LocateRequest) -> Result<LocateResponse, ClientError> {
        let Some(file) = self.file(request.path.as_str()) else {
            return refuse(ErrorCode::NotFound);
        };
        let safe_mode = self.safe_mode.load(Ordering::SeqCst);
        let mut chunks = Vec::new();
        for chunk in file.chunks.iter().filter(|_| request.locations) {
            let replicas = self.chain.holders(chunk);
            chunks.push(LocatedChunk {
                chunk: *chunk,
                replicas: if safe_mode { Vec::new() } else { replicas },
            });
        }
        Ok(LocateResponse {
            file,
            chunks,
            safe_mode: safe_mode || self.gathers.load(Ordering::SeqCst),
        })
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, ClientError> {
        let prefix = request.prefix.as_str();
        let mut entries: Vec<(String, ListEntry)> = Vec::new();
        for (name, file) in self
            .lock()
            .files
            .iter()
            .filter(|(n, _)| n.starts_with(prefix))
        {
            let cut = name[prefix.len()..].find('/').filter(|_| request.delimited);
            let (key, entry) = if let Some(at) = cut {
                let path = PathPrefix::parse(&name[..=prefix.len() + at]).unwrap();
                (path.to_string(), ListEntry::Directory { path })
            } else {
                let file = ListEntry::File {
                    path: file.path.clone(),
                    size: file.size,
                    etag: file.version,
                    modified: file.modified,
                    content_type: file.content_type.clone(),
                };
                (name.clone(), file)
            };
            let seen = entries.last().is_some_and(|(last, _)| *last == key);
            let passed = request.after.as_ref().is_some_and(|after| key <= *after);
            if !seen && !passed {
                entries.push((key, entry));
            }
        }
        let limit = request.limit as usize;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().map(|(key, _)| key.clone()).filter(|_| more);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Ok(ListResponse { entries, next })
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, ClientError> {
        let mut state = self.lock();
        let key = request.path.as_str();
        let Some(now) = state.files.get(key).map(|file| file.version) else {
            return refuse(ErrorCode::NotFound);
        };
        if !holds(&request.precondition, Some(now)) {
            return Err(failed().into());
        }
        state.files.remove(key);
        Ok(DeleteResponse {
            version: now,
            trash: None,
        })
    }

    async fn transfer(&self, request: TransferRequest) -> Result<TransferResponse, ClientError> {
        let mut state = self.lock();
        let (from, to) = (request.from.as_str(), request.to.as_str());
        let moved: Vec<_> = state
            .files
            .keys()
            .filter(|n| n.starts_with(from))
            .cloned()
            .collect();
        if moved.is_empty() {
            return refuse(ErrorCode::NotFound);
        }
        let mut replaced = false;
        for name in &moved {
            let target = format!("{to}{}", &name[from.len()..]);
            let mut file = state.files[name].clone();
            if request.mode == TransferMode::Move {
                state.files.remove(name);
            }
            file.path = FilePath::parse(&target).unwrap();
            replaced |= state.files.insert(target, file).is_some();
        }
        let single = !request.from.is_directory();
        Ok(TransferResponse {
            files: moved.len() as u64,
            version: single.then(|| request.upload.into()),
            replaced,
        })
    }

    /// One file a page, and whatever is asked for is reached at once.
    async fn factor(&self, request: FactorRequest) -> Result<FactorPage, ClientError> {
        let mut state = self.lock();
        let after = request.after.map(|after| after.to_string());
        let below: Vec<String> = state
            .files
            .keys()
            .filter(|name| name.starts_with(request.path.as_str()))
            .filter(|name| after.as_ref().is_none_or(|after| *name > after))
            .cloned()
            .collect();
        let Some(first) = below.first() else {
            return refuse(ErrorCode::NotFound);
        };
        let file = state.files.get_mut(first).unwrap();
        let before = file.factor;
        file.factor = request.change.map_or(before, |change| change.wanted(3));
        Ok(FactorPage {
            files: 1,
            changed: u64::from(file.factor != before),
            wanted: file.factor,
            next: (below.len() > 1).then(|| file.path.clone()),
            ..FactorPage::default()
        })
    }

    async fn suspect(&self, request: SuspectReplica) -> Result<Nothing, ClientError> {
        self.lock().suspects.push(request.datanode);
        Ok(Nothing {})
    }

    async fn status(&self, _: Nothing) -> Result<ClusterStatus, ClientError> {
        if due(&self.unasked) {
            return lost();
        }
        Ok(ClusterStatus {
            summary: "fake".into(),
            healthy: true,
            cluster: ClusterId::from_u128(9),
            fence: self.fence(),
            version: "0".into(),
            uptime_seconds: 0,
            safe_mode: None,
            writes_refused: None,
            repair_held: None,
            replication_factor: 3,
            files: 0,
            file_bytes: 0,
            capacity: Capacity::default(),
            datanodes: DatanodeCounts::default(),
            write_modes: BTreeMap::new(),
            chunks: BTreeMap::new(),
            shortage: dfs_protocol::status::ShortageStatus::default(),
            repair: RepairStatus::default(),
            rebalance: dfs_protocol::status::RebalanceStatus::default(),
            spread: dfs_protocol::status::SpreadStatus::default(),
            trash: TrashStatus::default(),
            journal: JournalStatus::default(),
        })
    }

    async fn datanodes(&self, _: Nothing) -> Result<Vec<DatanodeStatus>, ClientError> {
        Ok(Vec::new())
    }

    async fn chunks(&self, request: FileRequest) -> Result<FileChunks, ClientError> {
        match self.file(request.path.as_str()) {
            None => refuse(ErrorCode::NotFound),
            Some(file) => Ok(FileChunks {
                path: file.path,
                size: file.size,
                factor: 3,
                own_factor: false,
                chunks: Vec::new(),
            }),
        }
    }

    async fn fsck(&self, request: FsckRequest) -> Result<FsckPage, ClientError> {
        let verdict = FsckVerdict {
            clean: true,
            summary: "clean".into(),
            files: 0,
            chunks: 0,
            findings: BTreeMap::new(),
        };
        // Two pages: an empty one, and the verdict.
        Ok(match request.after {
            None => FsckPage {
                lines: Vec::new(),
                next: Some("x".into()),
            },
            Some(_) => FsckPage {
                lines: vec![FsckLine::Verdict(verdict)],
                next: None,
            },
        })
    }

    async fn trash(&self, _: TrashRequest) -> Result<TrashPage, ClientError> {
        Ok(TrashPage {
            entries: Vec::new(),
            next: None,
        })
    }

    async fn restore(&self, _: RestoreRequest) -> Result<FileRecord, ClientError> {
        refuse(ErrorCode::NotFound)
    }

    async fn purge(&self, _: PurgeRequest) -> Result<Nothing, ClientError> {
        refuse(ErrorCode::NotFound)
    }

    async fn set_admin(&self, _: SetAdminRequest) -> Result<DatanodeStatus, ClientError> {
        refuse(ErrorCode::NotFound)
    }

    async fn safe_to_remove(&self, _: DatanodeRequest) -> Result<Verdict, ClientError> {
        refuse(ErrorCode::NotFound)
    }

    async fn ok_to_stop(&self, request: OkToStopRequest) -> Result<Verdict, ClientError> {
        Ok(Verdict {
            safe: request.datanodes.is_empty(),
            reason: "fake".into(),
            chunks: Vec::new(),
            chunk_count: 0,
        })
    }

    async fn acknowledge_partition(&self, _: Nothing) -> Result<Nothing, ClientError> {
        Ok(Nothing {})
    }
}
