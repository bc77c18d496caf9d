//! The tracker's story: what happened, for people and for who watches. `GET /events`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, DatanodeId};

/// What kind of thing happened. The name is the SSE event type and a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A datanode that the tracker did not know announced itself.
    DatanodeJoined,
    /// Three heartbeats missed.
    DatanodeSuspect,
    /// Ten heartbeats missed.
    DatanodeDead,
    /// A suspect or dead datanode is heard again.
    DatanodeReturned,
    /// A pending datanode was let in.
    DatanodeAdmitted,
    /// Its uuid is void for ever.
    DatanodeTombstoned,
    /// A replica was found damaged and set aside.
    ChunkCorrupt,
    /// Copies of chunks that lack replicas are under way; the count is of chunks that wait.
    RepairBegan,
    /// They are made, or cannot be made now; the count is of copies made.
    RepairEnded,
    /// Replicas move to emptier datanodes.
    RebalanceBegan,
    /// They moved, or something else goes first; the count is of replicas moved.
    RebalanceEnded,
    /// Enough was reported: repair and collection begin.
    SafeModeEnded,
    /// So many datanodes fell silent together that the network is likelier to blame; the count is
    /// of datanodes.
    PartitionNoticed,
    /// A checkpoint of the catalog is on the datanodes; the count is of its chunks.
    CheckpointTaken,
    /// A datanode's journal knows more than the catalog: the catalog is not the newest one.
    CatalogComparisonFailed,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::DatanodeJoined,
        Self::DatanodeSuspect,
        Self::DatanodeDead,
        Self::DatanodeReturned,
        Self::DatanodeAdmitted,
        Self::DatanodeTombstoned,
        Self::ChunkCorrupt,
        Self::RepairBegan,
        Self::RepairEnded,
        Self::RebalanceBegan,
        Self::RebalanceEnded,
        Self::SafeModeEnded,
        Self::PartitionNoticed,
        Self::CheckpointTaken,
        Self::CatalogComparisonFailed,
    ];

    /// Stable name, kebab-case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DatanodeJoined => "datanode-joined",
            Self::DatanodeSuspect => "datanode-suspect",
            Self::DatanodeDead => "datanode-dead",
            Self::DatanodeReturned => "datanode-returned",
            Self::DatanodeAdmitted => "datanode-admitted",
            Self::DatanodeTombstoned => "datanode-tombstoned",
            Self::ChunkCorrupt => "chunk-corrupt",
            Self::RepairBegan => "repair-began",
            Self::RepairEnded => "repair-ended",
            Self::RebalanceBegan => "rebalance-began",
            Self::RebalanceEnded => "rebalance-ended",
            Self::SafeModeEnded => "safe-mode-ended",
            Self::PartitionNoticed => "partition-noticed",
            Self::CheckpointTaken => "checkpoint-taken",
            Self::CatalogComparisonFailed => "catalog-comparison-failed",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with every event, also over restarts of the tracker; not dense.
    pub id: u64,
    /// When, by the tracker's wall clock.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// Whose, if one datanode's.
    pub datanode: Option<DatanodeId>,
    /// Which, if one chunk's.
    pub chunk: Option<ChunkId>,
    /// How many; the kind says of what.
    pub count: Option<u64>,
    /// One sentence for people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_in_json_and_in_labels() {
        for kind in EventKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<EventKind>(&json).unwrap(), kind);
        }
    }
}
