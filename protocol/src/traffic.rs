//! What goes through a store: what each datanode moved since it started, and which files were read and
//! written most lately.

use serde::{Deserialize, Serialize};

use crate::datanode::WriteMode;
use crate::ids::{Fence, InstanceId};
use crate::path::FilePath;

/// Bytes that one run of a datanode's process moved, and how it writes them. Counters: a rate is the difference of two of the
/// same `instance`, divided by that of their times.
///
/// It rides on heartbeats as JSON in [`crate::routes::TRAFFIC_HEADER`] and not in the body, because the
/// body's readers refuse fields that they do not know: a tracker of an earlier version hears a newer
/// datanode all the same. For the same reason later versions may add fields here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatanodeTraffic {
    /// The run of the process that counts.
    pub instance: InstanceId,
    /// When it counted, in milliseconds of its own monotonic clock.
    pub at_ms: u64,
    /// Sent to readers, and to datanodes that made copies.
    pub read_bytes: u64,
    /// Received from writers.
    pub written_bytes: u64,
    /// Fetched from other datanodes to make copies.
    pub copied_bytes: u64,
    /// How large chunks are written; none from an earlier version.
    #[serde(default)]
    pub write_mode: Option<WriteMode>,
}

/// `GET /hot`: which files were read and written most lately, as the acting tracker saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotFiles {
    /// The acting tracker: counters of another one have nothing to do with these.
    pub fence: Fence,
    /// When it counted, in milliseconds of its own monotonic clock.
    pub at_ms: u64,
    /// Reads begun since it started.
    pub reads: u64,
    /// Files written since it started.
    pub writes: u64,
    /// After so many seconds an access counts half.
    pub half_life_seconds: u64,
    /// Files that are counted at once; more of them are never in memory.
    pub limit: u64,
    /// Hottest first.
    pub files: Vec<HotFile>,
}

/// One file of [`HotFiles`]. The true counts are at least these, and `missed` more at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotFile {
    /// Which.
    pub path: FilePath,
    /// Its bytes at the newest access.
    pub size: u64,
    /// Reads begun lately; older ones count less.
    pub reads: f64,
    /// Times that it was written lately; older ones count less.
    pub writes: f64,
    /// Accesses that may be missing, from before it was counted.
    pub missed: f64,
}
