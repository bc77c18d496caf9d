//! Fewer datanodes: one at a time, the highest ordinal, and only with the tracker's proof.
//!
//! Every step rests on what status holds: a pass either moves the record on, or carries out what the
//! record already says. So an operator that is killed between any two calls goes on where it was, and
//! nothing is done that was not written down first.
//!
//! ```text
//! (none) --preflight--> Decommissioning --safe--> Quiet --safe again--> Removing --pod gone--> Removed
//!    ^                        |  ^                  |                      |     (set lowered,
//!    +---- raised: recommission  +---- not safe ----+----------------------+      uuid tombstoned)
//! ```

mod emptying;
mod leaving;
#[cfg(test)]
mod tests;

use dfs_protocol::datanode::AdminState;

use super::conditions::Reason;
use super::preflight::{self, Candidate};
use super::{Input, Step, growth};
use crate::crd::DecommissionState;
use crate::names;
use crate::observe::{OpenTracker, Part, TrackerView, WorkloadView};
use crate::tracker_client::{DatanodeEntry, Verdict};
use crate::validate::Decommissioning;

/// Why fewer datanodes are wanted than there are, and nothing moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// One word.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Blocked {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// How many datanodes there are to be, and how that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Replicas for the datanodes' StatefulSet. Never fewer than it has: only [`Step::Lower`] takes one away.
    pub replicas: i32,
    /// Whatever the set has stays: a removal is under way, and an old look must not undo it.
    pub as_is: bool,
    /// Removals as status is to hold them.
    pub decommissions: Vec<Decommissioning>,
    /// What is to be done now, if status holds its reason already.
    pub step: Option<Step>,
    /// Why nothing moves although fewer are wanted.
    pub blocked: Option<Blocked>,
}

impl Scale {
    /// As many as that, and nobody leaves.
    fn settled(replicas: i32) -> Self {
        Self {
            replicas,
            as_is: false,
            decommissions: Vec::new(),
            step: None,
            blocked: None,
        }
    }

    /// Whatever there is stays, and nothing is begun.
    pub(super) fn at_rest(input: &Input<'_>) -> Self {
        let set = input.observed.datanode_set.as_ref();
        let name = names::datanode_set(&input.cluster.key.name);
        Self {
            as_is: true,
            ..Self::settled(set.map_or_else(|| highest_pod(input, &name) + 1, |set| set.wanted))
        }
    }

    fn blocked(replicas: i32, why: Blocked) -> Self {
        Self {
            blocked: Some(why),
            ..Self::settled(replicas)
        }
    }

    /// With this removal under way.
    fn with(replicas: i32, entry: Decommissioning) -> Self {
        Self {
            as_is: true,
            decommissions: vec![entry],
            ..Self::settled(replicas)
        }
    }

    fn step(self, step: Step) -> Self {
        Self {
            step: Some(step),
            ..self
        }
    }

    fn because(mut self, why: Blocked) -> Self {
        if let Some(entry) = self.decommissions.first_mut() {
            entry.reason = Some(why.message.clone());
        }
        self.blocked = Some(why);
        self
    }

    fn waiting(mut self, why: impl Into<String>) -> Self {
        if let Some(entry) = self.decommissions.first_mut() {
            entry.reason = Some(why.into());
        }
        self
    }
}

/// Decides from the spec, the StatefulSet, the record and the tracker.
pub fn scale(input: &Input<'_>) -> Scale {
    let cluster = input.cluster;
    let wanted = cluster.datanodes;
    let name = names::datanode_set(&cluster.key.name);
    let Some(set) = &input.observed.datanode_set else {
        let record = growth::recorded(cluster, &name);
        return Scale {
            // Where only this look does not show it, it keeps what it has.
            as_is: record.is_some(),
            decommissions: cluster.decommissions.clone(),
            ..Scale::settled(record.map_or_else(
                || wanted.max(highest_pod(input, &name) + 1),
                |record| record.replicas,
            ))
        };
    };
    if set.deleting {
        return Scale {
            as_is: true,
            decommissions: cluster.decommissions.clone(),
            ..Scale::settled(set.wanted)
        };
    }
    let Some(entry) = cluster.decommissions.first() else {
        return begin(input, set);
    };
    let Some(ordinal) = names::ordinal(&name, &entry.pod) else {
        return begin(input, set);
    };
    if set.wanted <= ordinal {
        return leaving::leaving(input, set, entry, ordinal);
    }
    if wanted > ordinal || ordinal != set.wanted - 1 || cluster.removal.hold {
        return cancel(input, set, entry);
    }
    emptying::emptying(input, set, entry)
}

/// Nobody is on the way out.
fn begin(input: &Input<'_>, set: &WorkloadView) -> Scale {
    let cluster = input.cluster;
    let wanted = cluster.datanodes;
    let name = names::datanode_set(&cluster.key.name);
    let present = set.wanted.max(highest_member(input) + 1);
    if set.wanted == 0 {
        // After a stop everyone who has chunks comes back, also who is to leave.
        let recorded = cluster.members.iter();
        let recorded = recorded.filter_map(|pod| names::ordinal(&name, pod)).max();
        return Scale::settled(wanted.max(present).max(recorded.map_or(0, |last| last + 1)));
    }
    if wanted >= present {
        return Scale::settled(wanted);
    }
    if present > set.wanted {
        let message = format!(
            "StatefulSet {name} was lowered to {} by someone else while {name}-{} holds chunks; it is raised again",
            set.wanted,
            present - 1
        );
        return Scale::blocked(present, Blocked::new(Reason::ScaledByHand, message));
    }
    let pod = names::pod(&name, present - 1);
    match preflight::preflight(input, &pod, present - 1) {
        Err(why) => Scale::blocked(present, why),
        Ok(candidate) => Scale::with(present, entry(input, pod, candidate)),
    }
}

fn entry(input: &Input<'_>, pod: String, candidate: Candidate) -> Decommissioning {
    let Candidate { id, volume } = candidate;
    Decommissioning {
        pod,
        volume,
        // A pod whose datanode was never let in holds nothing.
        state: if id.is_some() {
            DecommissionState::Decommissioning
        } else {
            DecommissionState::Removing
        },
        id,
        started: input.now,
        progressed: input.now,
        remaining: None,
        heard: None,
        reason: None,
    }
}

/// The highest ordinal of a pod that is there to stay; -1 if there is none. A set that someone orphaned is made
/// again around all its pods.
fn highest_pod(input: &Input<'_>, set: &str) -> i32 {
    let pods = input.observed.pods_of(Part::Datanode);
    let pods = pods.filter(|pod| !pod.deleting);
    pods.filter_map(|pod| names::ordinal(set, &pod.name))
        .max()
        .unwrap_or(-1)
}

/// The highest ordinal whose datanode is a member and still has its volume; -1 if there is none.
fn highest_member(input: &Input<'_>) -> i32 {
    let Ok(open) = readable(input) else {
        return -1;
    };
    let name = names::datanode_set(&input.cluster.key.name);
    let serving = open.nodes.iter().filter(|entry| {
        matches!(
            entry.admin,
            AdminState::InService | AdminState::Decommissioning
        )
    });
    let with_volume = serving.filter_map(|entry| {
        let pod = entry.pod.as_deref()?;
        let claim = input.observed.claim(&names::claim(pod))?;
        entry
            .is_on(&claim.uid)
            .then(|| names::ordinal(&name, pod))?
    });
    with_volume.max().unwrap_or(-1)
}

/// More are wanted again, or none may go: whatever was begun is taken back.
fn cancel(input: &Input<'_>, set: &WorkloadView, entry: &Decommissioning) -> Scale {
    let replicas = input.cluster.datanodes.max(set.wanted);
    let kept = Scale {
        replicas,
        decommissions: vec![entry.clone()],
        ..Scale::settled(replicas)
    };
    let Some(id) = entry.id else {
        return Scale::settled(replicas);
    };
    let open = match readable(input) {
        Ok(open) => open,
        Err(why) => return kept.waiting(why.message),
    };
    match find(open, entry).map(|node| node.admin) {
        Some(AdminState::Decommissioning | AdminState::Decommissioned) => kept
            .waiting("it is taken back into service")
            .step(Step::Recommission {
                id,
                pod: entry.pod.clone(),
            }),
        Some(AdminState::InService | AdminState::Pending | AdminState::Tombstoned) | None => {
            Scale::settled(replicas)
        }
    }
}

/// The tracker, if it may be believed now.
pub(super) fn readable<'a>(input: &'a Input<'_>) -> Result<&'a OpenTracker, Blocked> {
    let unreadable = |why: &str| {
        Blocked::new(
            Reason::TrackerUnreadable,
            format!("the tracker must say that it is safe, and cannot be asked: {why}"),
        )
    };
    let open = match &input.observed.tracker {
        TrackerView::Open(open) => open,
        TrackerView::Absent => return Err(unreadable("it does not run yet")),
        TrackerView::Unreadable(why) => return Err(unreadable(why)),
        TrackerView::NoCatalog(_) => return Err(unreadable("it has no catalog")),
    };
    if input.cluster.cluster_id != Some(open.status.cluster) {
        let other = open.status.cluster;
        let message =
            format!("the tracker answers for cluster {other}, which is not the recorded one");
        return Err(Blocked::new(Reason::WrongCluster, message));
    }
    Ok(open)
}

pub(super) fn find<'a>(
    open: &'a OpenTracker,
    entry: &Decommissioning,
) -> Option<&'a DatanodeEntry> {
    let id = entry.id?;
    open.nodes.iter().find(|node| node.id == id)
}

/// The tracker's word about the datanode on its way out.
fn verdict<'a>(input: &'a Input<'_>, entry: &Decommissioning) -> Option<&'a Verdict> {
    input.verdicts.removal.get(&entry.id?)
}

/// A human named this very datanode.
fn is_unproved(input: &Input<'_>, entry: &Decommissioning) -> bool {
    entry.id.is_some() && entry.id == input.cluster.unproved
}

/// The record with another state.
fn moved(input: &Input<'_>, entry: &Decommissioning, state: DecommissionState) -> Decommissioning {
    Decommissioning {
        state,
        progressed: input.now,
        reason: None,
        ..entry.clone()
    }
}
