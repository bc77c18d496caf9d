//! What the store says of itself: status, datanodes, chunks, fsck findings, verdicts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chunk::SealedChunk;
use crate::datanode::{AdminState, DatanodeStats, Liveness, WriteMode};
use crate::ids::{ChunkId, ChunkVersion, ClusterId, DatanodeId, Fence, TrashId};
use crate::path::FilePath;
use crate::traffic::DatanodeTraffic;

/// Health of one chunk. Metric label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChunkHealth {
    /// Enough valid replicas, well spread.
    Healthy,
    /// One valid live replica left while more are wanted.
    AtRisk,
    /// Too few valid live replicas.
    UnderReplicated,
    /// Enough, but badly spread.
    MisReplicated,
    /// Too many.
    OverReplicated,
    /// No valid live replica.
    Missing,
}

impl ChunkHealth {
    /// Every health.
    pub const ALL: [Self; 6] = [
        Self::Healthy,
        Self::AtRisk,
        Self::UnderReplicated,
        Self::MisReplicated,
        Self::OverReplicated,
        Self::Missing,
    ];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::AtRisk => "at-risk",
            Self::UnderReplicated => "under-replicated",
            Self::MisReplicated => "mis-replicated",
            Self::OverReplicated => "over-replicated",
            Self::Missing => "missing",
        }
    }
}

/// Order of repair, most urgent first (after HDFS LowRedundancyBlocks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairPriority {
    /// One replica left, or only ones on leaving datanodes.
    LastReplica,
    /// Under a third of the wanted number.
    UnderThird,
    /// Too few otherwise.
    UnderReplicated,
    /// Enough, but badly spread.
    BadlySpread,
    /// Nothing but corrupt replicas.
    CorruptOnly,
}

impl RepairPriority {
    /// Every priority, most urgent first.
    pub const ALL: [Self; 5] = [
        Self::LastReplica,
        Self::UnderThird,
        Self::UnderReplicated,
        Self::BadlySpread,
        Self::CorruptOnly,
    ];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastReplica => "last-replica",
            Self::UnderThird => "under-third",
            Self::UnderReplicated => "under-replicated",
            Self::BadlySpread => "badly-spread",
            Self::CorruptOnly => "corrupt-only",
        }
    }
}

/// Why a chunk has fewer replicas that count than wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// As many as wanted can be read, some of them on datanodes that are being emptied.
    Leaving,
    /// More are wanted than were before.
    Raising,
    /// A datanode was taken away by an administrator before the chunk was safe without it.
    Removal,
    /// A datanode is silent, or a disk lost what it had.
    Absence,
}

impl Shortage {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Leaving, Self::Raising, Self::Removal, Self::Absence];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leaving => "leaving",
            Self::Raising => "raising",
            Self::Removal => "removal",
            Self::Absence => "absence",
        }
    }
}

/// Chunks with fewer replicas that count than wanted, by cause; each is among the chunks by health
/// too, and in the repair queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShortageStatus {
    /// As many as wanted can be read, some of them on datanodes that are being emptied.
    pub leaving: u64,
    /// More are wanted than were before.
    pub raising: u64,
    /// A datanode was taken away by an administrator before the chunk was safe without it.
    pub removal: u64,
    /// A datanode is silent, or a disk lost what it had.
    pub absence: u64,
    /// Bytes of the replicas that a raised factor asks for.
    pub raising_bytes: u64,
    /// Seconds until they are made at the measured rate, were they alone; none while there is no
    /// rate.
    pub raising_eta_seconds: Option<u64>,
    /// Why some factor cannot be reached with the datanodes that are there.
    pub unreachable: Option<String>,
}

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// One sentence for people.
    pub summary: String,
    /// Whether every chunk has its full factor and writes are taken.
    pub healthy: bool,
    /// The cluster.
    pub cluster: ClusterId,
    /// The acting tracker.
    pub fence: Fence,
    /// Version of the program.
    pub version: String,
    /// Seconds since the tracker started.
    pub uptime_seconds: u64,
    /// Set while the tracker gathers reports: what it waits for.
    pub safe_mode: Option<String>,
    /// Set while writes are refused: why.
    pub writes_refused: Option<String>,
    /// Set while repair is held: why.
    pub repair_held: Option<String>,
    /// The cluster's replication factor.
    pub replication_factor: u32,
    /// Live files.
    pub files: u64,
    /// Bytes of live files.
    pub file_bytes: u64,
    /// Sums over datanodes that are not dead.
    pub capacity: Capacity,
    /// Datanodes by liveness and admin state.
    pub datanodes: DatanodeCounts,
    /// Live datanodes by how they write large chunks, as far as they tell; `/nodes` says which.
    #[serde(default)]
    pub write_modes: BTreeMap<WriteMode, u64>,
    /// Chunks by health; every health is present.
    pub chunks: BTreeMap<ChunkHealth, u64>,
    /// Chunks with fewer replicas that count than wanted, by cause.
    #[serde(default)]
    pub shortage: ShortageStatus,
    /// Repair queue.
    pub repair: RepairStatus,
    /// How evenly the volumes are used.
    #[serde(default)]
    pub rebalance: RebalanceStatus,
    /// Whether replicas can be spread as wanted.
    #[serde(default)]
    pub spread: SpreadStatus,
    /// The trash.
    pub trash: TrashStatus,
    /// The journal.
    pub journal: JournalStatus,
}

/// Bytes of the volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// In all.
    pub total_bytes: u64,
    /// Taken by chunks.
    pub used_bytes: u64,
    /// Left for chunks, before replication.
    pub free_bytes: u64,
}

/// Datanodes by liveness and admin state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatanodeCounts {
    /// Registered and not tombstoned.
    pub registered: u64,
    /// Heard.
    pub live: u64,
    /// Three heartbeats missed.
    pub suspect: u64,
    /// Ten heartbeats missed.
    pub dead: u64,
    /// Waiting to be admitted.
    pub pending: u64,
    /// Being emptied.
    pub decommissioning: u64,
    /// Full or sick.
    pub read_only: u64,
    /// Would take a new chunk now.
    pub placeable: u64,
}

/// The repair queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Chunks waiting, by priority; every priority is present.
    pub queued: BTreeMap<RepairPriority, u64>,
    /// Copies under way.
    pub active: u64,
    /// Bytes still to copy, those under way included.
    pub bytes_remaining: u64,
    /// Seconds until the queue is empty at the measured rate; none while there is no rate.
    pub eta_seconds: Option<u64>,
    /// Copies under way, most urgent first, at most 100.
    pub tasks: Vec<RepairTaskStatus>,
}

/// One copy under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairTaskStatus {
    /// Which chunk.
    pub chunk: ChunkId,
    /// How urgent.
    pub priority: RepairPriority,
    /// From whom.
    pub source: DatanodeId,
    /// To whom.
    pub target: DatanodeId,
    /// How much.
    pub bytes: u64,
}

/// How evenly the volumes are used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RebalanceStatus {
    /// Replicas move to emptier datanodes.
    pub running: bool,
    /// Moves under way, until the old replica is deleted.
    pub active: u64,
    /// Bytes still to move, those under way included; an estimate.
    pub bytes_to_go: u64,
    /// Bytes moved in this tracker's life.
    pub moved_bytes: u64,
    /// Percent by which used shares may differ; 0 when it is turned off.
    pub threshold_percent: u32,
    /// Set while nothing begins to move whatever the volumes look like: why.
    pub waits_for: Option<String>,
}

/// Whether replicas can be spread as wanted: on distinct hosts, and over zones where every
/// datanode in service names its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpreadStatus {
    /// Whether the datanodes that are there can hold a chunk's replicas as wanted.
    pub possible: bool,
    /// That in words: what is wanted, and what there is.
    pub sentence: String,
    /// The cluster's replication factor.
    pub wanted: u32,
    /// Distinct hosts of the datanodes in service that are not dead.
    pub hosts: u32,
    /// Zones that count; 0 unless every datanode in service names its own.
    pub zones: u32,
    /// Chunks with enough replicas, badly spread.
    pub badly_spread: u64,
}

/// The trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrashStatus {
    /// Versions that wait.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Last sequence in the catalog.
    pub sequence: u64,
    /// Last sequence that is on every datanode of the journal set.
    pub replicated: u64,
    /// Who keeps it.
    pub datanodes: Vec<DatanodeId>,
    /// Sequence of the newest checkpoint on datanodes.
    pub checkpoint: Option<u64>,
}

/// One line of `GET /nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatanodeStatus {
    /// Identity.
    pub id: DatanodeId,
    /// `host:port`; empty while only known from the catalog.
    pub address: String,
    /// Failure domain.
    pub zone: Option<String>,
    /// Kubernetes node.
    pub host: Option<String>,
    /// Heard?
    pub liveness: Liveness,
    /// Wanted?
    pub admin: AdminState,
    /// Its volume and load.
    pub stats: DatanodeStats,
    /// When it was last heard.
    pub last_heartbeat: Option<Timestamp>,
    /// Version of its program.
    pub version: String,
    /// While decommissioning: chunks that still need a copy elsewhere.
    pub chunks_remaining: Option<u64>,
    /// Kubernetes pod, as it announced it.
    #[serde(default)]
    pub pod: Option<String>,
    /// UID of the claim (PVC) that its uuid is bound to since its admission.
    #[serde(default)]
    pub volume: Option<String>,
    /// Why it was refused, while it is.
    #[serde(default)]
    pub refused: Option<String>,
    /// It is heard, but the tracker cannot get through to it: it gets no new chunk meanwhile.
    #[serde(default)]
    pub unreachable: bool,
    /// Until when it was announced as away, while that is not over.
    #[serde(default)]
    pub maintenance_until: Option<Timestamp>,
    /// What it moved, where it tells.
    #[serde(default)]
    pub traffic: Option<DatanodeTraffic>,
}

/// `GET /chunks?file=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChunks {
    /// Which file.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// Wanted replicas.
    pub factor: u32,
    /// The factor was set for this file; otherwise it is the cluster's.
    #[serde(default)]
    pub own_factor: bool,
    /// In order.
    pub chunks: Vec<ChunkDetail>,
}

/// One chunk and its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkDetail {
    /// What it is.
    pub chunk: SealedChunk,
    /// How it is.
    pub health: ChunkHealth,
    /// Every replica that was reported.
    pub replicas: Vec<ReplicaDetail>,
}

/// State of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaState {
    /// Current.
    Valid,
    /// Of an older version.
    Stale,
    /// Damaged.
    Corrupt,
    /// On a datanode that is not live.
    Unreachable,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaDetail {
    /// Whose.
    pub datanode: DatanodeId,
    /// Where.
    pub address: String,
    /// Which version.
    pub version: ChunkVersion,
    /// How it is.
    pub state: ReplicaState,
}

/// One line of `GET /fsck`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum FsckLine {
    /// Something is not as it should be.
    Finding(FsckFinding),
    /// The last line.
    Verdict(FsckVerdict),
}

/// Kinds of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FsckProblem {
    /// No valid live replica.
    Missing,
    /// Too few.
    UnderReplicated,
    /// Too many.
    OverReplicated,
    /// Badly spread.
    MisReplicated,
    /// A damaged or set-aside replica that was not yet replaced.
    Corrupt,
    /// An older version.
    Stale,
    /// Reported, and named by no file, upload or trash entry.
    Orphan,
    /// A file names a chunk that the catalog does not know.
    Dangling,
    /// A counted reference disagrees with a recount.
    Miscounted,
}

/// Something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckFinding {
    /// What.
    pub problem: FsckProblem,
    /// Where, if a chunk.
    pub chunk: Option<ChunkId>,
    /// Where, if a file.
    pub path: Option<FilePath>,
    /// Where, if a trash entry.
    pub trash: Option<TrashId>,
    /// Whose replica.
    pub datanode: Option<DatanodeId>,
    /// For people.
    pub detail: String,
}

/// The end of an fsck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckVerdict {
    /// No finding, and the whole store was looked at.
    pub clean: bool,
    /// One sentence for people.
    pub summary: String,
    /// Files looked at.
    pub files: u64,
    /// Chunks looked at.
    pub chunks: u64,
    /// Findings by problem.
    pub findings: BTreeMap<FsckProblem, u64>,
}

/// `GET /nodes/{id}/safe-to-remove`, `POST /ok-to-stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it is safe. Unknown means no.
    pub safe: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// Chunks in the way, at most 100.
    pub chunks: Vec<ChunkId>,
    /// How many chunks are in the way.
    pub chunk_count: u64,
}

/// Body of `POST /ok-to-stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OkToStopRequest {
    /// Who would stop, all together.
    pub datanodes: Vec<DatanodeId>,
    /// And any one more besides, whichever it is.
    #[serde(default)]
    pub one_more: bool,
}
