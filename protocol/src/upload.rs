//! The way of a write through the tracker (allocate, renew, commit) and of a read (locate).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chunk::{DatanodeAddress, SealedChunk};
use crate::file::FileRecord;
use crate::ids::{ChunkId, DatanodeId, Fence, FileId, LeaseId, TrashId, UploadId, VersionId};
use crate::path::{FilePath, PathPrefix};

/// Asks for room for chunks that will be written next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocateRequest {
    /// The gateway's lease, which this renews and extends over the new chunks.
    pub lease: LeaseId,
    /// How many chunks, 1 to 64.
    pub chunks: u32,
    /// Bytes that each may take; more than a full chunk counts as a full chunk.
    pub bytes_each: u64,
    /// Wanted replicas; the cluster's factor when absent.
    pub factor: Option<u32>,
    /// Datanodes that just failed this writer: placed last.
    pub avoid: Vec<DatanodeId>,
    /// Datanodes that hold the file's earlier chunks: placed first, in this order, so that the
    /// answer to an upload can name R datanodes each of which holds the whole file.
    #[serde(default)]
    pub prefer: Vec<DatanodeId>,
}

/// Room for chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocateResponse {
    /// The acting tracker; each chunk stream carries it.
    pub fence: Fence,
    /// One for each chunk asked for.
    pub placements: Vec<Placement>,
    /// Bytes of a full chunk.
    pub chunk_size: u64,
    /// Milliseconds until the lease must be renewed.
    pub lease_ms: u64,
}

/// Where one chunk's replicas go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The new chunk.
    pub chunk: ChunkId,
    /// The chain, first hop first. Fewer than `wanted` only when fewer are placeable.
    pub targets: Vec<DatanodeAddress>,
    /// The factor aimed at.
    pub wanted: u32,
}

/// Keeps a gateway's unnamed chunks from being collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The gateway's lease.
    pub lease: LeaseId,
    /// Every chunk that an upload still needs: a tracker that restarted learns them anew.
    pub chunks: Vec<ChunkId>,
    /// Chunks that will never be committed: collected without waiting.
    pub abandoned: Vec<ChunkId>,
}

/// The lease goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewResponse {
    /// The acting tracker: placements of an older one are void.
    pub fence: Fence,
    /// Milliseconds until the lease must be renewed.
    pub lease_ms: u64,
    /// Chunks among those renewed that were condemned meanwhile: their upload must start over.
    pub condemned: Vec<ChunkId>,
}

/// What must be true of a path for a change to happen, decided in the catalog's serial order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// Nothing lives there (`If-None-Match: *`).
    Absent,
    /// Something lives there (`If-Match: *`).
    Exists,
    /// One of these versions lives there (`If-Match`).
    Versions(Vec<VersionId>),
    /// Something else than these versions lives there, or nothing (`If-None-Match: "v"`).
    NotVersions(Vec<VersionId>),
}

/// Makes an upload visible. Sending it again after a lost answer is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// Becomes the version.
    pub upload: UploadId,
    /// The lease under which the chunks were placed.
    pub lease: LeaseId,
    /// The file id that the chunks' headers carry.
    pub file: FileId,
    /// Where it appears.
    pub path: FilePath,
    /// What must be true of the path.
    pub precondition: Precondition,
    /// Media type.
    pub content_type: String,
    /// Stored `Content-Encoding`, as given.
    pub content_encoding: Option<String>,
    /// User metadata: lower-case names.
    pub metadata: BTreeMap<String, String>,
    /// Bytes in all.
    pub size: u64,
    /// CRC64-NVME of all bytes.
    pub crc64nvme: u64,
    /// MD5 of all bytes, when it was computed.
    pub md5: Option<[u8; 16]>,
    /// Wanted replicas; the cluster's factor when absent.
    pub factor: Option<u32>,
    /// The chunks in order, and who fsynced a replica of each.
    pub chunks: Vec<WrittenChunk>,
}

/// A chunk that was written and the datanodes that answered for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenChunk {
    /// What was sealed.
    pub chunk: SealedChunk,
    /// Who holds it durably.
    pub replicas: Vec<DatanodeId>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum CommitResponse {
    /// Visible and durable in catalog and journal.
    Committed {
        /// The file as it now is.
        file: Box<FileRecord>,
        /// Whether a version was replaced.
        replaced: bool,
        /// Datanodes each of which holds every chunk of the file, in no order; empty for a
        /// zero-byte file. The file survives the loss of all but one of them.
        replicas: Vec<DatanodeId>,
        /// Fewest replicas of any chunk; the wanted factor for a zero-byte file.
        replica_count: u32,
        /// The factor aimed at.
        wanted: u32,
    },
    /// Some chunk has too few replicas while datanodes are placeable: copy, then commit again.
    NeedsReplicas {
        /// The acting tracker.
        fence: Fence,
        /// What to copy where.
        copies: Vec<NeededCopy>,
    },
}

/// A replica that must exist before a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeededCopy {
    /// What to copy.
    pub chunk: SealedChunk,
    /// Who has it.
    pub sources: Vec<DatanodeAddress>,
    /// Who should get it, best first; `missing` of them must.
    pub targets: Vec<DatanodeAddress>,
    /// How many replicas are missing.
    pub missing: u32,
}

/// Asks for a file and where its chunks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocateRequest {
    /// Which file.
    pub path: FilePath,
    /// Whether locations are wanted (GET), or the record alone (HEAD).
    pub locations: bool,
}

/// A file and where its chunks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocateResponse {
    /// The file.
    pub file: FileRecord,
    /// One for each chunk, in order; empty when not asked for. A chunk without locations is
    /// `missing`, or not yet reported while the tracker is in safe mode.
    pub chunks: Vec<LocatedChunk>,
    /// Set in safe mode: an absent location may still be reported.
    pub safe_mode: bool,
}

/// A chunk and the datanodes to read it from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocatedChunk {
    /// Which chunk.
    pub chunk: SealedChunk,
    /// Valid replicas, best first.
    pub replicas: Vec<DatanodeAddress>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Start of the names wanted.
    pub prefix: PathPrefix,
    /// Set: names are cut after the first `/` that follows the prefix.
    pub delimited: bool,
    /// Entries in a page, 1 to [`MAX_LIST_LIMIT`].
    pub limit: u32,
    /// Where the page before ended (exclusive): a path, or a common prefix ending in `/`.
    pub after: Option<String>,
}

/// Most entries of one page.
pub const MAX_LIST_LIMIT: u32 = 10_000;
/// Entries of one page when nothing is said.
pub const DEFAULT_LIST_LIMIT: u32 = 1000;

/// One page of a listing, in byte order of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListResponse {
    /// Files and common prefixes.
    pub entries: Vec<ListEntry>,
    /// Pass as `after` to go on; none at the end.
    pub next: Option<String>,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ListEntry {
    /// A file.
    File {
        /// Its path.
        path: FilePath,
        /// Bytes.
        size: u64,
        /// Its version.
        etag: VersionId,
        /// When its content was committed.
        modified: jiff::Timestamp,
        /// Media type.
        content_type: String,
    },
    /// Names that share what follows the prefix up to and with the next `/`.
    Directory {
        /// Ends in `/`.
        path: PathPrefix,
    },
}

/// Deletes one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Which file.
    pub path: FilePath,
    /// What must be true of it.
    pub precondition: Precondition,
}

/// What a deletion left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteResponse {
    /// The version that is gone.
    pub version: VersionId,
    /// Where it waits in the trash; none when trash is off.
    pub trash: Option<TrashId>,
}

/// Copies or moves a file, or moves everything under a directory, without touching chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// A file, or a directory when it ends in `/` (moves only).
    pub from: PathPrefix,
    /// The same kind as `from`.
    pub to: PathPrefix,
    /// Copy or move.
    pub mode: TransferMode,
    /// What must be true of a target file.
    pub precondition: Precondition,
    /// Becomes the version of a copied file; sending the same again is harmless.
    pub upload: UploadId,
}

/// What a transfer does with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferMode {
    /// The source stays; chunks are shared.
    Copy,
    /// The source goes, in the same transaction.
    Move,
}

/// What a transfer did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferResponse {
    /// Files that now have a new path.
    pub files: u64,
    /// The version at the target, for a single file.
    pub version: Option<VersionId>,
    /// Whether a file at the target was replaced.
    pub replaced: bool,
}

/// A reader found a replica wanting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspectReplica {
    /// Which chunk.
    pub chunk: SealedChunk,
    /// Whose replica.
    pub datanode: DatanodeId,
    /// What was seen, for people.
    pub detail: String,
}
