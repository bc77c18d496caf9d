//! The closed set of changes to the catalog. Each is decided in the catalog's serial order, leaves
//! the catalog through one durable transaction, and travels in the journal as the keys it wrote.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::file::{FileRecord, MAX_FACTOR};
use dfs_protocol::upload::{CommitRequest, Precondition, TransferMode};
use dfs_protocol::{
    ChunkId, ChunkVersion, DatanodeId, Fence, FileId, FilePath, PathPrefix, TrashId, UploadId,
    VersionId,
};

/// A chunk that files, or versions in the trash, name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecord {
    /// The version that readers must find.
    pub version: ChunkVersion,
    /// Bytes.
    pub length: u64,
    /// CRC32C of all bytes.
    pub crc32c: u32,
    /// The file id in its replicas' headers.
    pub file: FileId,
    /// Position in that file.
    pub index: u32,
    /// How many file and trash records name it: counted, recounted by fsck.
    pub references: u32,
    /// The cluster's factor when the record was first written. Those that name it without a factor
    /// of their own follow the cluster's as it is now: see [`Self::wanted`].
    pub factor: u32,
    /// Factors of those that name it and have one of their own. Where there are some they stand behind
    /// the rest of a stored record, and its format says so.
    #[serde(skip)]
    pub own: OwnFactors,
}

impl ChunkRecord {
    /// Wanted replicas where the cluster's factor is `cluster`: the largest of those that name it.
    pub fn wanted(&self, cluster: u32) -> u32 {
        let own = self.own.largest().unwrap_or(0);
        if self.references > self.own.total() {
            own.max(cluster)
        } else {
            own
        }
    }
}

/// How many of those that name a chunk want 1 to [`MAX_FACTOR`] replicas of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnFactors([u32; MAX_FACTOR as usize]);

impl OwnFactors {
    /// Counts a file in; one without a factor of its own changes nothing.
    pub fn add(&mut self, file: &FileRecord) {
        if let Some(count) = self.count_of(file) {
            *count = count.saturating_add(1);
        }
    }

    /// Counts a file out.
    pub fn remove(&mut self, file: &FileRecord) {
        if let Some(count) = self.count_of(file) {
            *count = count.saturating_sub(1);
        }
    }

    /// Whether nothing that names the chunk has a factor of its own.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn count_of(&mut self, file: &FileRecord) -> Option<&mut u32> {
        let at = (file.factor as usize).checked_sub(1)?;
        self.0.get_mut(at).filter(|_| file.own_factor)
    }

    fn total(&self) -> u32 {
        self.0
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn largest(&self) -> Option<u32> {
        let factors = (1..).zip(self.0);
        factors
            .filter(|(_, count)| *count > 0)
            .map(|(factor, _)| factor)
            .last()
    }
}

/// A chunk that nothing may name any more. Durable before the first replica is deleted, so that a
/// late commit is refused (I10); doubles as the chunk's tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedRecord {
    /// Replicas up to this version go.
    pub version: ChunkVersion,
    /// What the bytes are for.
    pub kind: ChunkKind,
    /// Journal sequence of the condemnation: replicas stay while a kept checkpoint is older.
    pub sequence: u64,
    /// When, for people.
    pub condemned: Timestamp,
}

/// What an administrator found a datanode to be when it was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The pod that it runs in.
    pub pod: String,
    /// UID of the claim (PVC) that holds its volume: the uuid stays bound to it.
    pub volume: String,
}

/// A datanode as the catalog remembers it. Its bytes: [`crate::store::datanode_value`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatanodeRecord {
    /// What the administrator wants of it.
    pub admin: AdminState,
    /// Failure domain.
    pub zone: Option<String>,
    /// Kubernetes node.
    pub host: Option<String>,
    /// Last known `host:port`, so that a restarted tracker can find journals.
    pub address: String,
    /// When it was first admitted or announced.
    pub registered: Timestamp,
    /// Set by the administrator who admitted it.
    pub claim: Option<Claim>,
}

/// One change, with the wall time at which it was asked for (stamps only, never decisions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A tracker starts: everything after it carries this fence.
    BeginEpoch {
        /// Must be higher than the stored one.
        fence: Fence,
    },
    /// Makes an upload visible. The service has already found enough replicas; the transaction
    /// checks again that no chunk is condemned and that each counted replica's datanode is in
    /// service.
    Commit {
        /// As the gateway sent it.
        request: Box<CommitRequest>,
        /// The factor, resolved.
        factor: u32,
        /// Keep a replaced version in the trash under this id; none deletes it at once.
        trash: Option<TrashId>,
        /// Stamp.
        now: Timestamp,
    },
    /// Deletes one file.
    Delete {
        /// Which.
        path: FilePath,
        /// What must be true of it.
        precondition: Precondition,
        /// Keep it in the trash under this id; none deletes it at once.
        trash: Option<TrashId>,
        /// Stamp.
        now: Timestamp,
    },
    /// Copies or moves a file, or moves a directory.
    Transfer {
        /// A file, or a directory (ends in `/`).
        from: PathPrefix,
        /// The same kind.
        to: PathPrefix,
        /// Copy or move.
        mode: TransferMode,
        /// What must be true of a target file.
        precondition: Precondition,
        /// Becomes the version of a copy.
        upload: UploadId,
        /// Keep a replaced target in the trash under this id.
        trash: Option<TrashId>,
        /// Stamp.
        now: Timestamp,
    },
    /// Says how many replicas files should have. Nothing else of them changes, their versions
    /// neither. A directory is taken a page at a time.
    SetFactor {
        /// A file, or a directory (ends in `/`; empty: everything).
        path: PathPrefix,
        /// Of a directory: only what lies behind this path, where the page before ended.
        after: Option<FilePath>,
        /// What must be true of a single file.
        precondition: Precondition,
        /// 1 to [`MAX_FACTOR`]; none: whatever the cluster's is.
        factor: Option<u32>,
        /// The cluster's.
        cluster: u32,
    },
    /// Brings a version back from the trash.
    Restore {
        /// Which.
        id: TrashId,
        /// Where to; where it came from when absent.
        to: Option<FilePath>,
        /// Becomes the restored file's version: nothing that was deleted keeps its `ETag`.
        upload: UploadId,
        /// Stamp.
        now: Timestamp,
    },
    /// Deletes versions in the trash for good; their chunks are condemned in the same transaction.
    Purge {
        /// Which; unknown ones are skipped.
        ids: Vec<TrashId>,
        /// Stamp.
        now: Timestamp,
    },
    /// Condemns orphans. Those that something names by now are spared.
    Condemn {
        /// Which, with the newest version reported.
        chunks: Vec<(ChunkId, ChunkVersion, ChunkKind)>,
        /// Stamp.
        now: Timestamp,
    },
    /// Forgets condemned chunks of which no replica is left.
    Forget {
        /// Which; unknown ones are skipped.
        chunks: Vec<ChunkId>,
    },
    /// Writes a datanode's record.
    PutDatanode {
        /// Whose.
        id: DatanodeId,
        /// The admin state on which this was decided; refused when another came first.
        from: Option<AdminState>,
        /// What.
        record: DatanodeRecord,
    },
    /// Records the checkpoints that are on datanodes, oldest first.
    SetCheckpoints {
        /// All that are kept.
        checkpoints: Vec<CheckpointRecord>,
    },
    /// Puts a file record in place as found by a rebuild or a load; fails when the path is taken.
    Adopt {
        /// What.
        file: Box<FileRecord>,
    },
}

/// A checkpoint of the catalog that lies on datanodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The id in its chunks' headers.
    pub file: FileId,
    /// Every change up to here is in it (and possibly later ones: replay is idempotent).
    pub sequence: u64,
    /// Its chunks, in order.
    pub chunks: Vec<dfs_protocol::chunk::SealedChunk>,
    /// When, for people.
    pub created: Timestamp,
}

/// What an [`Op`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpOutcome {
    /// Nothing to say.
    Done,
    /// The file as it now is: commit, copy, move of one file, restore.
    File {
        /// The record.
        file: Box<FileRecord>,
        /// Whether a version was replaced.
        replaced: bool,
        /// Chunks that the catalog did not know before.
        new_chunks: Vec<ChunkId>,
        /// Chunks that were condemned on the way (replaced with trash off).
        condemned: Vec<ChunkId>,
        /// Chunks that lost a name with a factor of its own.
        refactored: Vec<(ChunkId, ChunkRecord)>,
    },
    /// Factors were set.
    Factored(FactoredPage),
    /// A directory was moved.
    Moved {
        /// Files that have a new path.
        files: u64,
    },
    /// A file was deleted.
    Deleted {
        /// The version that is gone.
        version: VersionId,
        /// Where it waits.
        trash: Option<TrashId>,
        /// Chunks that were condemned on the way (trash off).
        condemned: Vec<ChunkId>,
        /// Chunks that lost a name with a factor of its own.
        refactored: Vec<(ChunkId, ChunkRecord)>,
    },
    /// Trash entries were purged, or orphans condemned.
    Condemned {
        /// Chunks that were condemned.
        chunks: Vec<ChunkId>,
        /// Trash entries that are gone.
        purged: u64,
        /// Chunks that lost a name with a factor of its own.
        refactored: Vec<(ChunkId, ChunkRecord)>,
    },
}

/// What setting the factor of a page of files did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FactoredPage {
    /// Files of the page.
    pub files: u64,
    /// Those whose record changed.
    pub changed: u64,
    /// Every chunk of the page's files.
    pub chunks: Vec<ChunkId>,
    /// Chunks whose record changed.
    pub refactored: Vec<(ChunkId, ChunkRecord)>,
    /// Where the next page begins; none at the end.
    pub next: Option<FilePath>,
}
