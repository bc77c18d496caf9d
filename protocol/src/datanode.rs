//! What datanodes and the tracker say to each other: register, heartbeat, chunk report, and the
//! commands that ride back. Three messages, three words.

use serde::{Deserialize, Serialize};

use crate::chunk::{ChunkKind, DatanodeAddress, Replica, SealedChunk, SetDigest};
use crate::ids::{ChunkId, ChunkVersion, ClusterId, DatanodeId, Fence, InstanceId, TaskId};

/// Whether a datanode is heard. Apart from [`AdminState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Liveness {
    /// Heard within three heartbeats.
    Live,
    /// Three heartbeats missed: gets no new chunks, is still read from.
    Suspect,
    /// Ten heartbeats missed.
    Dead,
}

/// What the administrator wants of a datanode. Apart from [`Liveness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminState {
    /// Announced, not admitted: gets no chunk and serves none.
    Pending,
    /// Takes and serves chunks.
    InService,
    /// Being emptied: takes no new chunk, stays readable.
    Decommissioning,
    /// Emptied: every chunk has its full factor elsewhere.
    Decommissioned,
    /// Deregistered for ever; comes back only under a new uuid.
    Tombstoned,
}

/// What a datanode says of itself in every message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatanodeStats {
    /// Bytes of the volume.
    pub capacity_bytes: u64,
    /// Bytes that chunks occupy.
    pub used_bytes: u64,
    /// Bytes that chunks may still take, reserve already subtracted.
    pub free_bytes: u64,
    /// Sealed replicas.
    pub chunks: u64,
    /// Set while the volume is too full, or too sick, to take chunks.
    pub read_only: bool,
    /// Files set aside as corrupt, torn or foreign.
    pub quarantined: u64,
    /// Chunk streams being written now.
    pub active_writes: u32,
    /// Chunk streams being read now.
    pub active_reads: u32,
    /// Age in seconds of the replica whose checksum was verified longest ago.
    pub oldest_unverified_seconds: u64,
}

/// How a datanode writes large chunks: packs, journals and small chunks are always buffered. Metric label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteMode {
    /// Through the page cache, which lets go of the bytes at once (`RWF_DONTCACHE`).
    Dontcache,
    /// Past the page cache (`O_DIRECT`).
    Direct,
    /// Through the page cache.
    Buffered,
}

impl WriteMode {
    /// Every mode, the best first.
    pub const ALL: [Self; 3] = [Self::Dontcache, Self::Direct, Self::Buffered];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dontcache => "dontcache",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

/// A datanode announces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The cluster written on the volume; none on a fresh one.
    pub cluster: Option<ClusterId>,
    /// The uuid written on the volume.
    pub datanode: DatanodeId,
    /// This run of the process.
    pub instance: InstanceId,
    /// `host:port` where peers reach its API.
    pub address: String,
    /// Failure domain, if known.
    pub zone: Option<String>,
    /// Kubernetes node, if there is one; its own uuid stands in for it otherwise.
    pub host: Option<String>,
    /// Kubernetes pod, if it runs in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The highest fence that it accepted.
    pub fence: Fence,
    /// Volume and load.
    pub stats: DatanodeStats,
    /// Version of the program.
    pub version: String,
}

/// The tracker's answer to an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterResponse {
    /// The cluster to belong to: a fresh volume writes it down.
    pub cluster: ClusterId,
    /// The acting tracker.
    pub fence: Fence,
    /// Whether the datanode is in.
    pub admission: Admission,
    /// Milliseconds between heartbeats.
    pub heartbeat_interval_ms: u64,
    /// Bytes of a full chunk.
    pub chunk_size: u64,
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// Heard, waiting to be let in.
    Pending,
    /// In.
    Admitted,
    /// The uuid is tombstoned: retire the chunks, take a new uuid, register again.
    Reset,
}

/// Still alive, with usage and what changed since the last answered message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The cluster written on the volume.
    pub cluster: ClusterId,
    /// The uuid written on the volume.
    pub datanode: DatanodeId,
    /// This run of the process.
    pub instance: InstanceId,
    /// Rises with every heartbeat and report of this instance: late ones are ignored.
    pub sequence: u64,
    /// `host:port` where peers reach its API.
    pub address: String,
    /// The highest fence that it accepted.
    pub fence: Fence,
    /// Volume and load.
    pub stats: DatanodeStats,
    /// Digest of the chunk set that the last answered message left the tracker with.
    pub base: SetDigest,
    /// Replicas sealed since then.
    pub added: Vec<Replica>,
    /// Replicas gone since then.
    pub removed: Vec<SealedChunk>,
    /// Digest of the chunk set after `added` and `removed`.
    pub digest: SetDigest,
    /// Replicas found bad and set aside since the last answered heartbeat.
    pub corrupt: Vec<CorruptReplica>,
    /// Commands that ended since the last answered heartbeat.
    pub finished: Vec<FinishedTask>,
}

/// The full chunk set of one datanode; encoded with postcard on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkReport {
    /// The cluster written on the volume.
    pub cluster: ClusterId,
    /// The uuid written on the volume.
    pub datanode: DatanodeId,
    /// This run of the process.
    pub instance: InstanceId,
    /// Shares the heartbeats' sequence.
    pub sequence: u64,
    /// Every sealed replica.
    pub replicas: Vec<Replica>,
    /// Digest of `replicas`.
    pub digest: SetDigest,
}

/// A replica that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorruptReplica {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Which version the damaged replica had.
    pub version: ChunkVersion,
    /// How the damage showed.
    pub damage: Damage,
}

/// How damage showed. Metric label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// Header unreadable or its checksum wrong.
    Header,
    /// A block's bytes do not match their checksum.
    Block,
    /// The block checksum table is damaged.
    Footer,
    /// Shorter or longer than its header says.
    Length,
    /// The header names another chunk than the file does.
    Misplaced,
    /// The file is gone.
    Missing,
    /// The disk gave an error on reading.
    ReadError,
}

impl Damage {
    /// Every kind, for metrics that show zero before the first event.
    pub const ALL: [Self; 7] = [
        Self::Header,
        Self::Block,
        Self::Footer,
        Self::Length,
        Self::Misplaced,
        Self::Missing,
        Self::ReadError,
    ];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Block => "block",
            Self::Footer => "footer",
            Self::Length => "length",
            Self::Misplaced => "misplaced",
            Self::Missing => "missing",
            Self::ReadError => "read-error",
        }
    }
}

/// The tracker's answer to a heartbeat or a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatReply {
    /// The acting tracker.
    pub fence: Fence,
    /// Whether the datanode is in.
    pub admission: Admission,
    /// Set when the digests differ: send a [`ChunkReport`].
    pub full_report: bool,
    /// Work, each piece fenced by the reply's `fence`.
    pub commands: Vec<Command>,
    /// Journal records below this sequence may go.
    pub journal_floor: u64,
}

/// One order of the tracker to a datanode. Repeating one is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "command")]
pub enum Command {
    /// Fetch a replica from one of `sources`, verify it, seal it.
    Copy {
        /// For the answer in [`Heartbeat::finished`].
        task: TaskId,
        /// What must arrive.
        chunk: SealedChunk,
        /// Where valid replicas are, best first.
        sources: Vec<DatanodeAddress>,
    },
    /// Remove a replica for good.
    Delete {
        /// For the answer in [`Heartbeat::finished`].
        task: TaskId,
        /// Which chunk.
        chunk: ChunkId,
        /// Only this version: a newer one stays.
        version: ChunkVersion,
        /// What the bytes are for.
        kind: ChunkKind,
    },
    /// Read a replica through and report what is found.
    Verify {
        /// For the answer in [`Heartbeat::finished`].
        task: TaskId,
        /// Which chunk.
        chunk: ChunkId,
        /// Which version.
        version: ChunkVersion,
    },
}

impl Command {
    /// The task that this command carries out.
    pub const fn task(&self) -> TaskId {
        match self {
            Self::Copy { task, .. } | Self::Delete { task, .. } | Self::Verify { task, .. } => {
                *task
            }
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedTask {
    /// Which one.
    pub task: TaskId,
    /// How it ended.
    pub outcome: TaskOutcome,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "outcome")]
pub enum TaskOutcome {
    /// As ordered, durably.
    Done,
    /// Not done; the tracker plans anew.
    Failed {
        /// The datanode at fault, if another than the one ordered.
        source: Option<DatanodeId>,
        /// What happened, for people.
        detail: String,
    },
}

/// What a datanode says of itself when called (`GET /identity`): the tracker's call-back on
/// `GET /register?port=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The cluster written on the volume; none on a fresh one.
    pub cluster: Option<ClusterId>,
    /// The uuid written on the volume.
    pub datanode: DatanodeId,
    /// This run of the process.
    pub instance: InstanceId,
    /// The highest fence that it accepted.
    pub fence: Fence,
    /// The tracker it heartbeats to.
    pub tracker: String,
    /// Version of the program.
    pub version: String,
}

/// Asks a datanode to fetch a replica now (`POST /chunks/copy`); answered when it is sealed and
/// durable. Completes an upload that lost a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRequest {
    /// The tracker that placed the replica.
    pub fence: Fence,
    /// What must arrive.
    pub chunk: SealedChunk,
    /// Where valid replicas are, best first.
    pub sources: Vec<DatanodeAddress>,
}

/// The answer to [`CopyRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyResponse {
    /// The replica that is now there.
    pub replica: Replica,
}

/// What a datanode holds of one chunk (`GET /chunks/{id}`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkState {
    /// The sealed replica, if there is one.
    pub sealed: Option<Replica>,
    /// Version and bytes of an unfinished write, if there is one.
    pub open: Option<OpenChunkState>,
}

/// An unfinished write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenChunkState {
    /// Version of the attempt.
    pub version: ChunkVersion,
    /// Bytes received.
    pub length: u64,
}

/// Appends one batch of the catalog to a datanode's journal (`POST /journal`); the body is the
/// batch, these are the query parameters. Answered after fsync. Appending the same record again is
/// harmless; a record of an older fence is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalAppend {
    /// The acting tracker's epoch.
    pub epoch: u64,
    /// The acting tracker's incarnation.
    pub incarnation: u64,
    /// Position in the journal, from 1, without gaps within an epoch.
    pub sequence: u64,
    /// CRC32C of the body.
    pub crc32c: u32,
}

/// Appends records that a datanode lacks (`POST /journal/backfill`); the body is [`crate::backfill::encode`]'s,
/// these are the query parameters. Answered after one fsync for all. Otherwise as [`JournalAppend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalBackfill {
    /// The acting tracker's epoch.
    pub epoch: u64,
    /// The acting tracker's incarnation.
    pub incarnation: u64,
    /// CRC32C of the body.
    pub crc32c: u32,
}

/// Where a journal ends or has a hole (`GET /journal/backfill?from=SEQUENCE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalGap {
    /// The first sequence from there on of which no record can be read.
    pub first_missing: u64,
}

/// One journal record as `GET /journal?from=SEQUENCE` streams them: a postcard sequence, each
/// entry preceded by its length as u32 little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// Written under this fence.
    pub fence: Fence,
    /// Position in the journal.
    pub sequence: u64,
    /// The batch.
    pub payload: Vec<u8>,
}
