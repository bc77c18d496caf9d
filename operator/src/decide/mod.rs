//! Decisions: pure functions of what was observed. No clock, no client, no randomness; running a
//! plan's result through the planner again yields nothing new.

pub mod admission;
pub mod catalog;
pub mod conditions;
pub mod lost;
pub mod scale;
mod spread;
#[cfg(test)]
mod tests;
pub mod waits;

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::{ClusterId, DatanodeId};

pub use admission::Decision;
pub use catalog::CatalogStep;
pub use conditions::{Judgement, Kind, Reason, Truth, conditions};
pub use lost::Gone;
pub use scale::Scale;

use crate::observe::Observed;
use crate::tracker_client::{Admission, DatanodeEntry, Verdict};
use crate::validate::Cluster;

/// Everything that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is wanted.
    pub cluster: &'a Cluster,
    /// What is there.
    pub observed: &'a Observed,
    /// The tracker's word about datanodes whose volume is gone.
    pub verdicts: &'a BTreeMap<DatanodeId, Verdict>,
    /// For how long each newcomer has been pending, as far as this process knows.
    pub waited: &'a BTreeMap<DatanodeId, Duration>,
}

/// One thing to tell the tracker. There is no step that deletes a volume or removes a datanode that
/// still has one: an operator that cannot say it cannot do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Let a newcomer in, bound to its volume.
    Admit {
        /// Which.
        id: DatanodeId,
        /// What it was matched with.
        admission: Admission,
    },
    /// A member moved.
    Update {
        /// Which.
        id: DatanodeId,
        /// Where it is now.
        admission: Admission,
    },
    /// Tell a newcomer no.
    Refuse {
        /// Which.
        id: DatanodeId,
        /// Why.
        reason: String,
    },
    /// A datanode's volume is gone for ever and nothing depends on it.
    Lost(Gone),
    /// Rebuild the catalog from these addresses.
    Rebuild(Vec<String>),
    /// Take the acknowledgement of a lost catalog back: it was for that one loss.
    ForgetAcknowledgement,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Replicas of the datanodes' StatefulSet.
    pub scale: Scale,
    /// What to tell the tracker, in order.
    pub steps: Vec<Step>,
    /// What the lost catalog waits for.
    pub catalog: CatalogStep,
    /// What the plan waits for, in sentences.
    pub waiting: Vec<String>,
    /// What only a human can put right, in sentences.
    pub conflicts: Vec<String>,
    /// Newcomers that were told no, in sentences.
    pub refused: Vec<String>,
    /// The tracker answers for another cluster: nothing else is done.
    pub wrong_cluster: Option<ClusterId>,
}

/// Decides.
pub fn decide(input: &Input<'_>) -> Plan {
    let cluster = input.cluster;
    let mut plan = Plan {
        scale: scale::scale(cluster.datanodes, input.observed.datanode_set.as_ref()),
        steps: Vec::new(),
        catalog: catalog::catalog(input),
        waiting: Vec::new(),
        conflicts: Vec::new(),
        refused: Vec::new(),
        wrong_cluster: None,
    };
    match &plan.catalog {
        CatalogStep::Rebuild(addresses) => plan.steps.push(Step::Rebuild(addresses.clone())),
        CatalogStep::Forget => plan.steps.push(Step::ForgetAcknowledgement),
        CatalogStep::AwaitDatanodes(reason) | CatalogStep::AwaitAcknowledgement(reason) => {
            plan.waiting.push(reason.clone());
        }
        CatalogStep::Rebuilding(_) | CatalogStep::Nothing => {}
    }
    membership(input, &mut plan);
    if cluster.paused {
        plan.steps.clear();
    }
    plan
}

fn membership(input: &Input<'_>, plan: &mut Plan) {
    let Some(open) = input.observed.tracker.open() else {
        return;
    };
    match input.cluster.cluster_id {
        // Nobody is let in before the id is on record: a tracker that lost its volume right after
        // would otherwise start afresh and take the datanodes' chunks for garbage.
        None => return,
        Some(recorded) if recorded != open.status.cluster => {
            plan.wrong_cluster = Some(open.status.cluster);
            plan.steps.clear();
            return;
        }
        Some(_) => {}
    }
    for (_, decision) in admission::admissions(input, open) {
        match decision {
            Decision::Step(step) => plan.steps.push(step),
            Decision::Waiting(reason) => plan.waiting.push(reason),
            Decision::Conflict(reason) => plan.conflicts.push(reason),
            Decision::Settled => {}
        }
    }
    plan.refused = open.nodes.iter().filter_map(refused).collect();
    let (ready, waiting) = lost::lost(input, open);
    plan.steps.extend(ready.into_iter().map(Step::Lost));
    plan.waiting.extend(waiting);
}

fn refused(entry: &DatanodeEntry) -> Option<String> {
    let reason = entry.refused.as_ref()?;
    (entry.admin == AdminState::Pending)
        .then(|| format!("datanode {} is refused: {reason}", entry.id.short()))
}
