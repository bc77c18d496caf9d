//! The rest of what doors ask of the tracker: health, trash, administration.

use serde::{Deserialize, Serialize};

use crate::datanode::AdminState;
use crate::file::TrashEntry;
use crate::ids::{DatanodeId, TrashId, UploadId};
use crate::path::FilePath;
use crate::status::FsckLine;

/// Asks for nothing in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Asks for the next lines of an fsck.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsckRequest {
    /// Where the page before ended; none at the start. Opaque: it carries the running sums.
    pub after: Option<String>,
}

/// Some lines of an fsck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsckPage {
    /// Findings; the verdict is the very last line of the last page.
    pub lines: Vec<FsckLine>,
    /// Pass as `after` to go on; none after the verdict.
    pub next: Option<String>,
}

/// One page of the trash, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashRequest {
    /// Entries in a page.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<TrashId>,
}

/// One page of the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashPage {
    /// Entries.
    pub entries: Vec<TrashEntry>,
    /// Pass as `after` to go on; none at the end.
    pub next: Option<TrashId>,
}

/// Brings a version back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Which.
    pub id: TrashId,
    /// Where to; where it came from when absent.
    pub to: Option<FilePath>,
    /// Becomes the version.
    pub upload: UploadId,
}

/// Deletes a version in the trash for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// Which.
    pub id: TrashId,
}

/// Names a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatanodeRequest {
    /// Which.
    pub id: DatanodeId,
}

/// Changes what the administrator wants of a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAdminRequest {
    /// Which.
    pub id: DatanodeId,
    /// `decommissioning` (decommission), `in-service` (recommission) or `tombstoned` (remove, only
    /// once it is decommissioned).
    pub admin: AdminState,
}

/// Names a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// Which.
    pub path: FilePath,
}
