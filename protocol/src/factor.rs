//! Setting and looking at the replication factor of files.

use serde::{Deserialize, Serialize};

use crate::file::MAX_FACTOR;
use crate::path::{FilePath, PathPrefix};
use crate::upload::Precondition;

/// Asks how far the replication factor of files is reached, or sets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorRequest {
    /// A file, or a directory (ends in `/`; empty: everything), of which one page is taken.
    pub path: PathPrefix,
    /// Of a directory: where the page before ended.
    pub after: Option<FilePath>,
    /// What must be true of a single file that is changed.
    pub precondition: Precondition,
    /// What is to be changed; none looks only.
    pub change: Option<FactorChange>,
}

/// A factor to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactorChange {
    /// The cluster's, whatever it is and becomes.
    Cluster,
    /// 1 to [`MAX_FACTOR`].
    Own(u32),
}

impl FactorChange {
    /// A factor of their own, if there may be such a one.
    pub fn own(factor: u32) -> Option<Self> {
        (1..=MAX_FACTOR)
            .contains(&factor)
            .then_some(Self::Own(factor))
    }

    /// The factor where the cluster's is `cluster`.
    pub fn wanted(self, cluster: u32) -> u32 {
        match self {
            Self::Cluster => cluster,
            Self::Own(factor) => factor,
        }
    }
}

/// One page of files and how far their factor is reached. Sums of several pages add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorPage {
    /// Files of the page.
    pub files: u64,
    /// Those whose factor was changed.
    pub changed: u64,
    /// Chunks of the page's files; one of several files counts with each.
    pub chunks: u64,
    /// Chunks that do not have as many replicas as wanted.
    pub chunks_to_go: u64,
    /// Bytes of the replicas that are still to be made.
    pub bytes_to_copy: u64,
    /// Bytes of the replicas that are more than wanted and will be deleted.
    pub bytes_to_free: u64,
    /// The largest factor that a chunk of the page is to have.
    pub wanted: u32,
    /// Bytes a second that repair copies, while it is measured.
    pub copy_rate: Option<u64>,
    /// Why that factor cannot be reached with the datanodes that are there.
    pub unreachable: Option<String>,
    /// Pass as `after` to go on; none at the end.
    pub next: Option<FilePath>,
}
