//! Files as the catalog records them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chunk::SealedChunk;
use crate::ids::{FileId, TrashId, VersionId};
use crate::path::FilePath;

/// Media type of a file whose client named none.
pub const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// Largest replication factor.
pub const MAX_FACTOR: u32 = 7;

/// One committed version of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Where it lives.
    pub path: FilePath,
    /// The id that its chunks' headers carry.
    pub file: FileId,
    /// Strong, opaque `ETag`.
    pub version: VersionId,
    /// Bytes.
    pub size: u64,
    /// CRC64-NVME of all bytes.
    pub crc64nvme: u64,
    /// MD5 of all bytes, where it was computed.
    pub md5: Option<[u8; 16]>,
    /// Media type.
    pub content_type: String,
    /// `Content-Encoding`, as given on upload.
    pub content_encoding: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// When the path first came to be.
    #[serde(deserialize_with = "crate::timestamp::deserialize")]
    pub created: Timestamp,
    /// When this version was committed.
    #[serde(deserialize_with = "crate::timestamp::deserialize")]
    pub modified: Timestamp,
    /// Wanted replicas of each chunk, as of when this was written: see [`Self::wanted`].
    pub factor: u32,
    /// The bytes, in order.
    pub chunks: Vec<SealedChunk>,
    /// The factor was set for this file; otherwise it follows the cluster's. Told by the format of a
    /// stored record, and not sent.
    #[serde(skip)]
    pub own_factor: bool,
}

impl FileRecord {
    /// Wanted replicas of each chunk where the cluster's factor is `cluster`.
    pub fn wanted(&self, cluster: u32) -> u32 {
        if self.own_factor {
            self.factor
        } else {
            cluster
        }
    }
}

/// Why a version is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrashReason {
    /// Deleted by a client.
    Deleted,
    /// A newer version took its path.
    Replaced,
}

/// One entry of the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashEntry {
    /// For restore and purge.
    pub id: TrashId,
    /// When it got there.
    #[serde(deserialize_with = "crate::timestamp::deserialize")]
    pub deleted: Timestamp,
    /// Why it got there.
    pub reason: TrashReason,
    /// What it was.
    pub file: FileRecord,
}
