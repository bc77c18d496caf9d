//! Decisions: pure functions of what was observed. No clock, no client, no randomness; running a
//! plan's result through the planner again yields nothing new.

pub mod admission;
pub mod budget;
pub mod catalog;
pub mod conditions;
pub mod decommission;
pub mod lost;
mod preflight;
mod spread;
#[cfg(test)]
mod tests;
pub mod waits;

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::{ClusterId, DatanodeId};
use jiff::Timestamp;

pub use admission::Decision;
pub use budget::Budget;
pub use catalog::CatalogStep;
pub use conditions::{Judgement, Kind, Reason, Truth, conditions};
pub use decommission::{Blocked, Scale};
pub use lost::Gone;

use crate::observe::{Observed, Uid};
use crate::tracker_client::{Admission, DatanodeEntry, Verdict};
use crate::validate::Cluster;

/// Everything that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is wanted.
    pub cluster: &'a Cluster,
    /// What is there.
    pub observed: &'a Observed,
    /// The tracker's word about datanodes whose volume is gone, and about those on their way out.
    pub verdicts: &'a BTreeMap<DatanodeId, Verdict>,
    /// The tracker's word on whether any further datanode may stop; none when it gave none.
    pub further: Option<&'a Verdict>,
    /// For how long each newcomer has been pending, as far as this process knows.
    pub waited: &'a BTreeMap<DatanodeId, Duration>,
    /// The time, for periods that outlive this process; whole seconds. Nothing is safe because of it.
    pub now: Timestamp,
}

/// One thing to do, here or at the tracker. Those that take something away name exactly what was seen.
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
    /// Begin to empty a datanode.
    Decommission {
        /// Which.
        id: DatanodeId,
        /// Its pod.
        pod: String,
    },
    /// Take it back into service.
    Recommission {
        /// Which.
        id: DatanodeId,
        /// Its pod.
        pod: String,
    },
    /// Lower a StatefulSet.
    Lower {
        /// Which.
        set: String,
        /// Its UID.
        uid: Uid,
        /// What it must ask for now.
        from: i32,
        /// What it is to ask for.
        to: i32,
        /// Why that is safe, for people.
        proof: String,
    },
    /// Deregister an emptied datanode whose pod is gone.
    Deregister {
        /// Which.
        id: DatanodeId,
        /// The pod that it had.
        pod: String,
    },
    /// Delete the claim of a datanode that is deregistered.
    DeleteClaim {
        /// Which.
        name: String,
        /// Exactly this one.
        uid: Uid,
    },
}

impl Step {
    /// Whether it cannot be taken back: it is decided again on what the API server itself holds.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Lower { .. } | Self::Deregister { .. } | Self::DeleteClaim { .. } => true,
            Self::Admit { .. }
            | Self::Update { .. }
            | Self::Refuse { .. }
            | Self::Lost(_)
            | Self::Rebuild(_)
            | Self::ForgetAcknowledgement
            | Self::Decommission { .. }
            | Self::Recommission { .. } => false,
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Replicas of the datanodes' StatefulSet, and who is on the way out.
    pub scale: Scale,
    /// How many datanodes' pods may be unavailable.
    pub budget: Budget,
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
    let scale = decommission::scale(input);
    let mut plan = Plan {
        budget: budget::budget(input, scale.replicas, wrong_cluster(input)),
        scale,
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
    if plan.wrong_cluster.is_none() {
        plan.steps.extend(plan.scale.step.clone());
    }
    if cluster.paused {
        plan.steps.clear();
        // What status holds is what an operator that acts again goes on from.
        plan.scale.decommissions.clone_from(&cluster.decommissions);
    }
    plan
}

/// Whether another cluster's tracker answers.
fn wrong_cluster(input: &Input<'_>) -> bool {
    let answers = input
        .observed
        .tracker
        .open()
        .map(|open| open.status.cluster);
    let recorded = input.cluster.cluster_id;
    recorded.is_some() && answers.is_some() && recorded != answers
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
