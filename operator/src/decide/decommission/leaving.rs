//! The set was lowered: the pod goes, the uuid is deregistered, then the claim is decided about.

use dfs_protocol::datanode::{AdminState, Liveness};

use super::{Blocked, Scale, find, is_unproved, moved, readable, verdict};
use crate::crd::DecommissionState;
use crate::decide::conditions::Reason;
use crate::decide::lost::Gone;
use crate::decide::{Input, Step};
use crate::names;
use crate::observe::WorkloadView;
use crate::tracker_client::{DatanodeEntry, Verdict};
use crate::validate::Decommissioning;

/// Decides the next step of a removal whose set no longer has the pod.
pub(super) fn leaving(
    input: &Input<'_>,
    set: &WorkloadView,
    entry: &Decommissioning,
    ordinal: i32,
) -> Scale {
    let kept = |entry| Scale::with(ordinal, entry);
    match entry.state {
        DecommissionState::Decommissioning | DecommissionState::Quiet => {
            let message = format!(
                "the StatefulSet was lowered by someone else before {} was proved to be empty; it is raised again",
                entry.pod
            );
            back(
                input,
                entry,
                ordinal,
                Blocked::new(Reason::ScaledByHand, message),
            )
        }
        DecommissionState::Removing if input.observed.pod(&entry.pod).is_some() => {
            kept(entry.clone()).waiting("its pod is ending")
        }
        DecommissionState::Removing => deregister(input, entry, ordinal),
        DecommissionState::Removed => claim(input, set, entry, ordinal),
    }
}

/// The datanode is wanted back although its set was lowered: its chunks still matter.
fn back(input: &Input<'_>, entry: &Decommissioning, ordinal: i32, why: Blocked) -> Scale {
    let next = match entry.state {
        DecommissionState::Decommissioning => entry.clone(),
        _ => moved(input, entry, DecommissionState::Decommissioning),
    };
    Scale {
        as_is: false,
        ..Scale::with(ordinal + 1, next).because(why)
    }
}

/// The pod is gone: its uuid never comes back.
fn deregister(input: &Input<'_>, entry: &Decommissioning, ordinal: i32) -> Scale {
    let kept = Scale::with(ordinal, entry.clone());
    let removed = || Scale::with(ordinal, moved(input, entry, DecommissionState::Removed));
    let Some(id) = entry.id else {
        return removed();
    };
    let open = match readable(input) {
        Ok(open) => open,
        Err(why) => return kept.because(why),
    };
    let Some(node) = find(open, entry) else {
        // Deregistered datanodes are not listed.
        return removed();
    };
    let Some(verdict) = verdict(input, entry) else {
        return kept.waiting("the tracker did not say whether it may be deregistered");
    };
    match node.admin {
        AdminState::Tombstoned => removed(),
        AdminState::Decommissioned if verdict.safe => kept
            .waiting("its uuid is deregistered")
            .step(Step::Deregister {
                id,
                pod: entry.pod.clone(),
            }),
        _ if is_unproved(input, entry) => unproved(kept, entry, node, verdict),
        _ => {
            let message = format!(
                "{} is needed again, its pod is brought back: {}",
                entry.pod,
                verdict.offenders()
            );
            back(
                input,
                entry,
                ordinal,
                Blocked::new(Reason::NotSafe, message),
            )
        }
    }
}

/// A human had it removed: it is lost to the tracker as soon as nothing depends on it. The loss of a
/// chunk is a human's word, given to the tracker.
fn unproved(
    kept: Scale,
    entry: &Decommissioning,
    node: &DatanodeEntry,
    verdict: &Verdict,
) -> Scale {
    let volume = entry.volume.clone();
    match (volume, node.liveness, verdict.safe) {
        (Some(volume), Liveness::Dead, true) => {
            let gone = Gone {
                id: node.id,
                volume,
                pod: entry.pod.clone(),
                dead: true,
                awaited: false,
            };
            kept.waiting("it is declared lost").step(Step::Lost(gone))
        }
        _ => kept.waiting(format!(
            "removed without proof; its chunks are copied from elsewhere: {}",
            verdict.offenders()
        )),
    }
}

/// Only its claim is left.
fn claim(input: &Input<'_>, set: &WorkloadView, entry: &Decommissioning, ordinal: i32) -> Scale {
    let name = names::claim(&entry.pod);
    let claim = input.observed.claim(&name);
    match claim {
        Some(claim)
            if input.cluster.removal.deletes_claim && entry.volume.as_ref() == Some(&claim.uid) =>
        {
            let kept = Scale::with(ordinal, entry.clone());
            if claim.deleting {
                return kept.waiting("its claim is being deleted");
            }
            kept.waiting("its claim is deleted")
                .step(Step::DeleteClaim {
                    name,
                    uid: claim.uid.clone(),
                })
        }
        _ => Scale::settled(input.cluster.datanodes.max(set.wanted)),
    }
}
