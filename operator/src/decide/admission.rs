//! Who is let in: a datanode that the tracker lists is matched with a pod, a claim and a node of
//! this cluster. A uuid is bound to the UID of one claim for ever; addresses and names are hints.

use std::net::SocketAddr;
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};

use super::{Input, Step};
use crate::names;
use crate::observe::{Observed, OpenTracker, Part, PodView};
use crate::tracker_client::{Admission, DatanodeEntry};

/// How long a newcomer may stay unmatched before it is refused: kubelets report a pod's address
/// some seconds after the pod speaks.
pub const GRACE: Duration = Duration::from_mins(1);

/// What was decided about one datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Tell the tracker.
    Step(Step),
    /// Not yet: why.
    Waiting(String),
    /// Something is wrong that only a human can put right.
    Conflict(String),
    /// As it should be.
    Settled,
}

/// How an entry compares with the pods.
enum Match {
    Pod(Admission),
    /// May still become true.
    NotYet(String),
    /// Cannot become true.
    Stranger(String),
}

/// Decides about every entry of the tracker's list.
pub fn admissions(input: &Input<'_>, open: &OpenTracker) -> Vec<(DatanodeId, Decision)> {
    let nodes = open.nodes.iter();
    let decided = nodes.map(|entry| (entry.id, decide(input, open, entry)));
    decided.collect()
}

fn decide(input: &Input<'_>, open: &OpenTracker, entry: &DatanodeEntry) -> Decision {
    match entry.admin {
        AdminState::Tombstoned => Decision::Settled,
        AdminState::Pending => newcomer(input, open, entry),
        AdminState::InService | AdminState::Decommissioning | AdminState::Decommissioned => {
            member(input, open, entry)
        }
    }
}

fn newcomer(input: &Input<'_>, open: &OpenTracker, entry: &DatanodeEntry) -> Decision {
    let id = entry.id;
    let refuse = |reason: String| {
        // Told once is enough.
        if entry.refused.is_some() {
            return Decision::Settled;
        }
        Decision::Step(Step::Refuse { id, reason })
    };
    match matching(input, entry) {
        // Its pod is about to go: nobody moves in.
        Match::Pod(admission) if is_leaving(input, &admission) => {
            Decision::Waiting(format!("pod {} is being removed", admission.pod))
        }
        Match::Pod(admission) => match in_the_way(open, entry, &admission) {
            None => Decision::Step(Step::Admit { id, admission }),
            Some(InTheWay::OtherVolume(reason)) => refuse(reason),
            Some(InTheWay::StillHeard(reason)) => Decision::Waiting(reason),
        },
        Match::Stranger(reason) => refuse(reason),
        Match::NotYet(reason) => {
            let waited = input.waited.get(&id).copied().unwrap_or_default();
            if waited >= GRACE {
                refuse(reason)
            } else if entry.refused.is_some() {
                Decision::Settled
            } else {
                Decision::Waiting(format!("datanode {}: {reason}", id.short()))
            }
        }
    }
}

fn is_leaving(input: &Input<'_>, admission: &Admission) -> bool {
    let cluster = input.cluster;
    let mut leaving = cluster.decommissions.iter();
    // A datanode that was given up may come back under a new uuid before its volume is gone.
    let given_up = cluster.loss.as_ref();
    leaving.any(|entry| entry.pod == admission.pod)
        || given_up.is_some_and(|loss| loss.volume.0 == admission.volume)
}

fn member(input: &Input<'_>, open: &OpenTracker, entry: &DatanodeEntry) -> Decision {
    // The address of one that is not heard says nothing about where it is.
    if entry.liveness != Liveness::Live {
        return Decision::Settled;
    }
    let Match::Pod(admission) = matching(input, entry) else {
        return Decision::Settled;
    };
    match in_the_way(open, entry, &admission) {
        None => {}
        Some(InTheWay::OtherVolume(reason)) => return Decision::Conflict(reason),
        Some(InTheWay::StillHeard(reason)) => return Decision::Waiting(reason),
    }
    let id = entry.id;
    if entry.volume.is_none() {
        return Decision::Step(Step::Admit { id, admission });
    }
    let known = (entry.host.as_deref(), &entry.zone, entry.pod.as_deref());
    if known == (Some(&admission.host), &admission.zone, Some(&admission.pod)) {
        Decision::Settled
    } else {
        Decision::Step(Step::Update { id, admission })
    }
}

enum InTheWay {
    OtherVolume(String),
    StillHeard(String),
}

/// What forbids to bind this uuid to this volume.
fn in_the_way(
    open: &OpenTracker,
    entry: &DatanodeEntry,
    admission: &Admission,
) -> Option<InTheWay> {
    let short = entry.id.short();
    if let Some(bound) = &entry.volume
        && *bound != admission.volume
    {
        return Some(InTheWay::OtherVolume(format!(
            "datanode {short} is bound to volume {bound}, and pod {} has volume {}: its directory was copied",
            admission.pod, admission.volume,
        )));
    }
    let mut others = open.nodes.iter();
    let holder = others.find(|other| {
        other.id != entry.id
            && other.volume.as_ref() == Some(&admission.volume)
            && other.admin != AdminState::Tombstoned
            && other.admin != AdminState::Pending
            && other.liveness != Liveness::Dead
    })?;
    Some(InTheWay::StillHeard(format!(
        "datanode {short}: volume {} of pod {} still belongs to datanode {}, which was heard a moment ago",
        admission.volume,
        admission.pod,
        holder.id.short(),
    )))
}

fn matching(input: &Input<'_>, entry: &DatanodeEntry) -> Match {
    let set = names::datanode_set(&input.cluster.key.name);
    let Some(name) = &entry.pod else {
        return Match::Stranger("it announced no pod".to_owned());
    };
    if names::ordinal(&set, name).is_none() {
        return Match::Stranger(format!("pod {name} is no datanode of this cluster"));
    }
    let Some(pod) = input.observed.pod(name) else {
        return Match::NotYet(format!("pod {name} does not exist"));
    };
    let Some(workload) = &input.observed.datanode_set else {
        return Match::NotYet(format!("StatefulSet {set} does not exist yet"));
    };
    if pod.controller.is_none() {
        return Match::NotYet(format!(
            "pod {name} waits for StatefulSet {set} to adopt it"
        ));
    }
    if pod.part != Part::Datanode || pod.controller.as_ref() != Some(&workload.uid) {
        return Match::Stranger(format!("pod {name} is not one of StatefulSet {set}"));
    }
    if pod.deleting {
        return Match::NotYet(format!("pod {name} is being deleted"));
    }
    if let Err(reason) = same_address(entry, pod) {
        return Match::NotYet(reason);
    }
    admission(input.observed, entry, pod).map_or_else(Match::NotYet, Match::Pod)
}

fn same_address(entry: &DatanodeEntry, pod: &PodView) -> Result<(), String> {
    let ip = entry
        .address
        .parse::<SocketAddr>()
        .map(|address| address.ip().to_string())
        .map_err(|_| format!("its address `{}` is no IP:PORT", entry.address))?;
    if pod.ips.is_empty() {
        return Err(format!("pod {} has no address yet", pod.name));
    }
    if !pod.ips.contains(&ip) {
        return Err(format!(
            "it speaks from {ip}, and pod {} has {}",
            pod.name,
            pod.ips.join(", ")
        ));
    }
    Ok(())
}

/// Volume, node and zone of a pod that the entry was matched with.
fn admission(
    observed: &Observed,
    entry: &DatanodeEntry,
    pod: &PodView,
) -> Result<Admission, String> {
    let expected = names::claim(&pod.name);
    if pod.claim.as_ref() != Some(&expected) {
        return Err(format!("pod {} does not use claim {expected}", pod.name));
    }
    let claim = observed
        .claim(&expected)
        .ok_or_else(|| format!("claim {expected} does not exist"))?;
    if claim.deleting || !claim.bound {
        let how = if claim.deleting {
            "is being deleted"
        } else {
            "is not bound"
        };
        return Err(format!("claim {expected} {how}"));
    }
    let host = pod
        .node
        .clone()
        .ok_or_else(|| format!("pod {} has no node yet", pod.name))?;
    let node = observed.nodes.get(&host);
    let zone = pod
        .zone
        .clone()
        .or_else(|| node.and_then(|n| n.zone.clone()));
    // Nodes may be unreadable for a moment: what was known of the same node stays.
    let zone = match (zone, node) {
        (None, None) if entry.host.as_ref() == Some(&host) => entry.zone.clone(),
        (zone, _) => zone,
    };
    Ok(Admission {
        pod: pod.name.clone(),
        volume: claim.uid.0.clone(),
        host,
        zone,
    })
}
