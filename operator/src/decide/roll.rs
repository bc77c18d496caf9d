//! New templates, pod by pod: datanodes one after the other, each with the tracker's word that every chunk
//! can be read without it, the next one when the last is back and nothing lacks replicas; the tracker last.
//!
//! Nothing is recorded: which pods are outdated is seen on the pods themselves, so an operator that was killed
//! goes on where it was, and a template that is put back turns the roll round.

#[cfg(test)]
mod tests;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::Liveness;

use super::conditions::coarse;
use super::{Input, Step, waits};
use crate::names;
use crate::observe::{Observed, OpenTracker, Part, PodView, WorkloadView};
use crate::tracker_client::DatanodeEntry;
use crate::validate::Cluster;

/// How a change of the template comes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roll {
    /// Every pod runs the newest template, as far as it is known.
    Settled,
    /// It goes on: what it waits for.
    Waiting(String),
    /// A pod did not come back: no other one is touched until somebody acts.
    Stopped(String),
    /// This pod is next.
    Restart(Step),
}

impl Roll {
    /// What there is to do.
    pub fn step(&self) -> Option<&Step> {
        match self {
            Self::Restart(step) => Some(step),
            Self::Settled | Self::Waiting(_) | Self::Stopped(_) => None,
        }
    }
}

enum Next<'a> {
    Settled,
    Wait(String),
    Stopped(String),
    /// No chunk depends on it.
    Free(&'a PodView, String),
    /// Its datanode may serve chunks.
    Ask(&'a PodView, DatanodeId),
}

/// The datanode that is to restart next, if the tracker says that it may.
pub fn candidate(cluster: &Cluster, observed: &Observed) -> Option<DatanodeId> {
    match next(cluster, observed) {
        Next::Ask(_, id) => Some(id),
        Next::Settled | Next::Wait(_) | Next::Stopped(_) | Next::Free(..) => None,
    }
}

/// Decides which pod restarts now, if one does.
pub fn roll(input: &Input<'_>) -> Roll {
    let restart = |pod: &PodView, datanode, proof: String| {
        Roll::Restart(Step::Restart {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            datanode,
            // The tracker's budget keeps it until a drained node is rid of its datanodes: nothing that a roll
            // waits for.
            within_budget: pod.ready && pod.part == Part::Datanode,
            proof,
        })
    };
    match next(input.cluster, input.observed) {
        Next::Settled => Roll::Settled,
        Next::Wait(why) => Roll::Waiting(why),
        Next::Stopped(why) => Roll::Stopped(why),
        Next::Free(pod, why) => restart(pod, None, why),
        Next::Ask(pod, id) if input.cluster.factor == 1 => {
            let why = "with one replica of each chunk its files wait until it is back";
            restart(pod, Some(id), why.to_owned())
        }
        Next::Ask(pod, id) => match input.verdicts.stop.get(&id) {
            Some(verdict) if verdict.safe => restart(pod, Some(id), verdict.reason.clone()),
            Some(verdict) => Roll::Waiting(format!(
                "{} may not stop: {}",
                pod.name,
                verdict.offenders()
            )),
            None => Roll::Waiting(format!("the tracker gave no word about {}", pod.name)),
        },
    }
}

fn next<'a>(cluster: &Cluster, observed: &'a Observed) -> Next<'a> {
    let (Some(tracker), Some(datanodes)) = (&observed.tracker_set, &observed.datanode_set) else {
        return Next::Settled;
    };
    if !tracker.current || !datanodes.current {
        return Next::Settled;
    }
    let old_tracker = outdated(observed, Part::Tracker, tracker).next();
    let mut old: Vec<_> = outdated(observed, Part::Datanode, datanodes).collect();
    if let Some(pod) = old_tracker
        && !pod.ready
        && observed.tracker.open().is_none()
    {
        let why = "the tracker does not serve, and a newer template is there";
        return Next::Free(pod, why.to_owned());
    }
    if old.is_empty() && old_tracker.is_none() {
        return Next::Settled;
    }
    if let Some(entry) = cluster.decommissions.first() {
        return Next::Wait(format!("{} is on its way out", entry.pod));
    }
    let set = names::datanode_set(&cluster.key.name);
    old.sort_by_key(|pod| names::ordinal(&set, &pod.name));
    let runs = |pod: &PodView| pod.phase == "Running" && pod.waiting.is_none();
    if let Some(pod) = old.iter().rev().find(|pod| !runs(pod)) {
        let why = "nothing runs in it, and a newer template is there";
        return Next::Free(pod, why.to_owned());
    }
    if let Some(halt) = newest_not_back(observed, datanodes, &set) {
        return halt;
    }
    let of = |pod: &PodView| member(observed, pod).map(|entry| entry.id);
    if let Some(pod) = old.iter().rev().find(|pod| !pod.ready) {
        return of(pod).map_or_else(
            || Next::Free(pod, "it holds no chunk that is known".to_owned()),
            |id| Next::Ask(pod, id),
        );
    }
    let Some(open) = observed.tracker.open() else {
        return Next::Wait("the tracker cannot be asked".to_owned());
    };
    if let Some(why) = not_whole(open) {
        return Next::Wait(why);
    }
    if let Some(pod) = old.last() {
        return match of(pod) {
            Some(id) => Next::Ask(pod, id),
            None => Next::Wait(format!("{} is not registered", pod.name)),
        };
    }
    let Some(pod) = old_tracker else {
        return Next::Settled;
    };
    gateways_not_done(observed).unwrap_or_else(|| {
        let why = "every datanode and gateway runs the newest template";
        Next::Free(pod, why.to_owned())
    })
}

/// Pods of a set that were made from an older template and are not on their way out already.
fn outdated<'a>(
    observed: &'a Observed,
    part: Part,
    set: &'a WorkloadView,
) -> impl Iterator<Item = &'a PodView> {
    observed.pods_of(part).filter(|pod| {
        !pod.deleting
            && pod.controller.as_ref() == Some(&set.uid)
            && pod.revision.is_some()
            && set.revision.is_some()
            && pod.revision != set.revision
    })
}

/// The member on a pod's own volume.
fn member<'a>(observed: &'a Observed, pod: &PodView) -> Option<&'a DatanodeEntry> {
    let claim = observed.claim(pod.claim.as_ref()?)?;
    let mut nodes = observed.tracker.open()?.nodes.iter();
    nodes.find(|entry| entry.is_on(&claim.uid) && entry.is_member())
}

/// A datanode of the newest template that does not serve yet, or cannot.
fn newest_not_back<'a>(
    observed: &Observed,
    datanodes: &WorkloadView,
    set: &str,
) -> Option<Next<'a>> {
    let mut waiting = None;
    for ordinal in 0..datanodes.wanted {
        let name = names::pod(set, ordinal);
        let pod = observed.pod(&name);
        if pod.is_some_and(|pod| !pod.deleting && pod.revision != datanodes.revision) {
            continue;
        }
        let serves = |pod: &PodView| {
            let entry = member(observed, pod);
            entry.is_some_and(|entry| entry.liveness == Liveness::Live)
        };
        let why = match (waits::pod_wait(observed, &name), pod) {
            (Some(why), Some(pod)) if !pod.deleting && pod.cannot_start() => {
                return Some(Next::Stopped(format!(
                    "{why}; no other pod is restarted until it serves: mend the spec or put the former one back"
                )));
            }
            (Some(why), _) => why,
            (None, Some(pod)) if !serves(pod) => format!("{name} is not registered yet"),
            (None, _) => continue,
        };
        waiting.get_or_insert(why);
    }
    waiting.map(Next::Wait)
}

/// Why no datanode that serves may be missed now.
fn not_whole(open: &OpenTracker) -> Option<String> {
    let status = &open.status;
    if let Some(why) = &status.safe_mode {
        return Some(format!("the tracker is in safe mode: {why}"));
    }
    let lacking = status.missing() + status.under_replicated();
    (lacking > 0).then(|| format!("{} chunks lack replicas", coarse(lacking)))
}

/// Gateways roll by themselves; the tracker waits for them.
fn gateways_not_done<'a>(observed: &Observed) -> Option<Next<'a>> {
    let gateways = observed.gateway.as_ref()?;
    if gateways.current && gateways.updated >= gateways.wanted && gateways.ready >= gateways.wanted
    {
        return None;
    }
    let halted = observed
        .pods_of(Part::Gateway)
        .find(|pod| !pod.ready && pod.cannot_start());
    let why = halted.and_then(|pod| waits::pod_wait(observed, &pod.name));
    Some(match why {
        Some(why) => Next::Stopped(format!(
            "{why}; the tracker is not restarted until it serves: mend the spec or put the former one back"
        )),
        None => Next::Wait(format!(
            "{} of {} gateways run the newest template",
            gateways.updated, gateways.wanted
        )),
    })
}
