//! Decisions: pure functions of what was observed. No clock, no client, no randomness; running a
//! plan's result through the planner again yields nothing new.

pub mod admission;
pub mod budget;
pub mod catalog;
pub mod conditions;
pub mod decommission;
pub mod growth;
pub mod lost;
pub mod nodes;
mod preflight;
pub mod roll;
mod spread;
pub mod stop;
#[cfg(test)]
pub(crate) mod tests;
pub mod waits;
mod way;

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
pub use growth::{Ask, Growth};
pub use lost::{Acknowledged, Gone};
pub use nodes::Nodes;
pub use roll::Roll;
pub use stop::{Stop, foreign_cluster};
pub use way::{SHORT_ABSENCE, Way};

use crate::observe::{Observed, Uid, Verdicts};
use crate::tracker_client::{Admission, DatanodeEntry};
use crate::validate::Cluster;

/// Everything that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is wanted.
    pub cluster: &'a Cluster,
    /// What is there.
    pub observed: &'a Observed,
    /// The tracker's word about whether datanodes may go or stop.
    pub verdicts: &'a Verdicts,
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
    /// A datanode that was announced as away for a while cannot come back, because its volume is gone: its chunks are
    /// copied now.
    StopWaiting(Gone),
    /// A datanode that was announced as away for a while cannot come back meanwhile, and a drain waits for its chunks.
    MakeWay(Way),
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
    /// Restart a pod, so that it runs the newest template.
    Restart {
        /// Its name.
        pod: String,
        /// Exactly this one.
        uid: Uid,
        /// The datanode in it that is waited for, where it may hold chunks.
        datanode: Option<DatanodeId>,
        /// It goes only if the eviction API lets it, as a datanode that serves does: somebody may drain nodes meanwhile.
        within_budget: bool,
        /// Why that is safe, for people.
        proof: String,
    },
    /// Delete a StatefulSet and keep its pods: it is made again with the same replicas.
    Orphan {
        /// Which.
        set: String,
        /// Exactly this one.
        uid: Uid,
        /// What it must ask for now, as status holds it.
        replicas: i32,
    },
    /// Deregister an emptied datanode whose pod is gone.
    Deregister {
        /// Which.
        id: DatanodeId,
        /// The pod that it had.
        pod: String,
    },
    /// A human gave a dead datanode up: it is deregistered. The tracker refuses where a chunk would be lost.
    GiveUp(Gone),
    /// Take that word back: it was for this one datanode, of which nothing is left.
    ForgetLoss(DatanodeId),
    /// Delete the pod of a datanode that was given up, so that it returns on a new claim.
    DeletePod {
        /// Which.
        name: String,
        /// Exactly this one.
        uid: Uid,
    },
    /// Take a pod away that cannot end, because nothing on its node can run any more.
    ForceDelete {
        /// Which.
        pod: String,
        /// Exactly this one.
        uid: Uid,
        /// Why that is certain, for people.
        fence: String,
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
            Self::Lower { .. }
            | Self::Restart { .. }
            | Self::Orphan { .. }
            | Self::Deregister { .. }
            | Self::GiveUp(_)
            | Self::DeletePod { .. }
            | Self::ForceDelete { .. }
            | Self::DeleteClaim { .. } => true,
            Self::Admit { .. }
            | Self::Update { .. }
            | Self::Refuse { .. }
            | Self::StopWaiting(_)
            | Self::MakeWay(_)
            | Self::Lost(_)
            | Self::Rebuild(_)
            | Self::ForgetAcknowledgement
            | Self::ForgetLoss(_)
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
    /// How a change of the template comes along.
    pub roll: Roll,
    /// How far a stop is, where the spec asks for one.
    pub stop: Option<Stop>,
    /// Trackers that there are to be.
    pub trackers: i32,
    /// Gateways that there are to be.
    pub gateways: i32,
    /// Why there are none yet, after a stop.
    pub doors: Option<String>,
    /// How many datanodes' pods may be unavailable.
    pub budget: Budget,
    /// How many of the tracker's pods may be unavailable.
    pub tracker_away: i32,
    /// What to tell the tracker, in order.
    pub steps: Vec<Step>,
    /// Volumes that are to grow.
    pub growth: Growth,
    /// Kubernetes nodes that are lost.
    pub nodes: Nodes,
    /// The loss that a human acknowledged.
    pub loss: Acknowledged,
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
    let wrong_cluster = wrong_cluster(input);
    let doors = stop::doors(input, scale.replicas);
    let mut plan = Plan {
        roll: roll::roll(input),
        stop: stop::stop(input),
        trackers: 1,
        gateways: if doors.is_some() { 0 } else { cluster.gateways },
        doors,
        budget: budget::budget(input, scale.replicas, wrong_cluster.is_some()),
        tracker_away: budget::tracker_away(input),
        scale,
        steps: Vec::new(),
        growth: growth::growth(input),
        nodes: nodes::nodes(input),
        // What is recorded stays while the tracker cannot be read.
        loss: Acknowledged {
            record: cluster.loss.clone(),
            ..Acknowledged::default()
        },
        catalog: catalog::catalog(input),
        waiting: Vec::new(),
        conflicts: Vec::new(),
        refused: Vec::new(),
        wrong_cluster,
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
        plan.steps.extend(plan.roll.step().cloned());
        // A set that is lowered in this pass is another one than was recorded.
        if !matches!(plan.scale.step, Some(Step::Lower { .. })) {
            plan.steps.extend(plan.growth.steps.clone());
        }
        plan.steps.extend(plan.nodes.steps.clone());
    }
    if let Some(stop) = plan.stop.clone().filter(Stop::rests) {
        stop::rest(input, &mut plan, &stop);
    }
    if cluster.paused {
        plan.steps.clear();
        // What status holds is what an operator that acts again goes on from.
        plan.scale.decommissions.clone_from(&cluster.decommissions);
        plan.growth.replacements.clone_from(&cluster.replacements);
        plan.loss.record.clone_from(&cluster.loss);
    }
    plan
}

/// The other cluster whose tracker answers, if it is one.
fn wrong_cluster(input: &Input<'_>) -> Option<ClusterId> {
    let answers = input.observed.tracker.open()?.status.cluster;
    let recorded = input.cluster.cluster_id?;
    (recorded != answers).then_some(answers)
}

fn membership(input: &Input<'_>, plan: &mut Plan) {
    let Some(open) = input.observed.tracker.open() else {
        return;
    };
    if plan.wrong_cluster.is_some() {
        plan.steps.clear();
        return;
    }
    // Nobody is let in before the id is on record: a tracker that lost its volume right after
    // would otherwise start afresh and take the datanodes' chunks for garbage.
    if input.cluster.cluster_id.is_none() {
        return;
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
    plan.steps
        .extend(lost::in_vain(input, open).map(Step::StopWaiting));
    plan.steps.extend(way::make_way(input, open));
    let (ready, waiting) = lost::lost(input, open);
    plan.steps.extend(ready.into_iter().map(Step::Lost));
    plan.waiting.extend(waiting);
    plan.loss = lost::acknowledged(input, open);
    plan.steps.extend(plan.loss.steps.clone());
    plan.waiting
        .extend(plan.loss.waiting.clone().filter(|why| !why.is_empty()));
}

fn refused(entry: &DatanodeEntry) -> Option<String> {
    let reason = entry.refused.as_ref()?;
    (entry.admin == AdminState::Pending)
        .then(|| format!("datanode {} is refused: {reason}", entry.id.short()))
}
