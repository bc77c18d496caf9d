//! Which leaving datanodes are empty enough to be called decommissioned.

use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Verdict;

use super::removal::{RemovalView, safe_to_remove};

/// How far one datanode has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecommissionProgress {
    /// Which.
    pub datanode: DatanodeId,
    /// Chunks that still need a copy elsewhere.
    pub chunks_remaining: u64,
    /// Whether it becomes decommissioned now, and why (not).
    pub verdict: Verdict,
}

impl DecommissionProgress {
    /// Whether it becomes decommissioned now.
    pub fn done(&self) -> bool {
        self.verdict.safe
    }
}

/// How far every decommissioning datanode has come. A datanode that is done leaves the answer once
/// its record says decommissioned.
pub fn plan(view: &RemovalView<'_>, now: Duration) -> Vec<DecommissionProgress> {
    let leaving = view
        .datanodes
        .iter()
        .filter(|n| n.record.admin == AdminState::Decommissioning);
    leaving
        .map(|node| {
            let verdict = safe_to_remove(view, node.id, now);
            DecommissionProgress {
                datanode: node.id,
                chunks_remaining: verdict.chunk_count,
                verdict,
            }
        })
        .collect()
}
