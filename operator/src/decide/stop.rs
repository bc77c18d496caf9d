//! `managementState: Stopped`: everything goes to zero and comes back with its volumes.
//!
//! Doors end first, so that nobody is in the middle of an upload when the chunks go; then the datanodes; the
//! tracker last. What is recorded about datanodes that leave is finished before anything ends, so that a stop
//! is never taken for a removal. At the start tracker and datanodes come at once, as at creation: the tracker's
//! safe mode waits for the datanodes' reports, and would be over before those that are let in later have
//! spoken. Doors open last.
//!
//! Nothing is recorded: how far it is, is seen on workloads and pods.

#[cfg(test)]
mod tests;

use dfs_protocol::ClusterId;
use jiff::{SignedDuration, Timestamp};

use super::{Acknowledged, Input, Plan, Roll, Scale, Step, growth, waits};
use crate::names;
use crate::observe::{Part, PodView, TrackerView, WorkloadView};
use crate::validate::Rest;

/// How long after its deadline a pod is still waited for.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// How far a stop is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It has not begun: something else ends first.
    Held(String),
    /// The tracker that answers is another cluster's, so nobody can be asked about this one's data: all stays as it is.
    /// None where it was so when it was last asked, and nobody answers now: silence is no better an answer.
    Stranger(Option<ClusterId>),
    /// The gateways end: what is being uploaded is finished, nothing new is taken.
    Gateways,
    /// The datanodes end.
    Datanodes,
    /// The tracker ends.
    Tracker,
    /// Pods that do not end in time are left.
    Left(String),
    /// Nothing runs.
    Done,
}

impl Stop {
    /// Whether anything was taken away for it.
    pub const fn is_under_way(&self) -> bool {
        match self {
            Self::Held(_) | Self::Stranger(_) => false,
            Self::Gateways | Self::Datanodes | Self::Tracker | Self::Left(_) | Self::Done => true,
        }
    }

    /// Whether sets keep what they ask for, but for the one whose turn it is.
    pub const fn rests(&self) -> bool {
        match self {
            Self::Held(_) => false,
            Self::Stranger(_)
            | Self::Gateways
            | Self::Datanodes
            | Self::Tracker
            | Self::Left(_)
            | Self::Done => true,
        }
    }

    /// Whether datanodes are to be away by now: what the tracker says of chunks means nothing.
    pub const fn ends_datanodes(&self) -> bool {
        match self {
            Self::Held(_) | Self::Stranger(_) | Self::Gateways => false,
            Self::Datanodes | Self::Tracker | Self::Left(_) | Self::Done => true,
        }
    }

    /// What is waited for, for people.
    pub fn sentence(&self) -> String {
        match self {
            Self::Held(why) => format!("it stops when that is over: {why}"),
            Self::Stranger(Some(other)) => format!(
                "nothing is taken away while the tracker answers for cluster {other}, which is another one: give it its \
                 own volume back"
            ),
            Self::Stranger(None) => {
                "nothing is taken away: the tracker answered for another cluster when it was last asked, and does not \
                 answer now; give it its own volume back"
                    .to_owned()
            }
            Self::Gateways => "gateways end what they are at".to_owned(),
            Self::Datanodes => "no gateway runs, datanodes end".to_owned(),
            Self::Tracker => "no datanode runs, the tracker ends".to_owned(),
            Self::Left(pods) => format!("pods do not end in time: {pods}"),
            Self::Done => "nothing runs, every volume is kept".to_owned(),
        }
    }
}

/// How far the stop is that the spec asks for; none when it asks for none.
pub fn stop(input: &Input<'_>) -> Option<Stop> {
    if input.cluster.rest != Rest::Wanted {
        return None;
    }
    if let Some(why) = held(input) {
        return Some(Stop::Held(why));
    }
    if foreign_cluster(input).is_some() {
        return Some(Stop::Stranger(super::wrong_cluster(input)));
    }
    let observed = input.observed;
    // Who does not end in time, with its node perhaps, keeps nobody else.
    let ending = |part| {
        let mut pods = observed.pods_of(part).filter(|pod| !pod.has_ended());
        pods.any(|pod| !is_late(pod, input.now))
    };
    let left = observed.pods.iter().filter(|pod| !pod.has_ended());
    let left: Vec<_> = left.map(|pod| pod.name.clone()).collect();
    let asks = |workload: Option<&WorkloadView>| workload.is_some_and(|one| one.wanted > 0);
    let gateway = observed.gateway.as_ref();
    let counted = gateway.is_some_and(|gateway| gateway.replicas > 0 || !gateway.current);
    Some(if asks(gateway) || counted || ending(Part::Gateway) {
        Stop::Gateways
    } else if asks(observed.datanode_set.as_ref()) || ending(Part::Datanode) {
        Stop::Datanodes
    } else if asks(observed.tracker_set.as_ref()) || ending(Part::Tracker) {
        Stop::Tracker
    } else if left.is_empty() {
        Stop::Done
    } else {
        Stop::Left(waits::shortened(left, "").join(", "))
    })
}

/// The other cluster whose the tracker is, or was when it was last asked where it cannot be asked now.
pub fn foreign_cluster(input: &Input<'_>) -> Option<String> {
    match &input.observed.tracker {
        TrackerView::Open(_) => super::wrong_cluster(input).map(|other| other.to_string()),
        TrackerView::Absent | TrackerView::Unreadable(_) => input.cluster.foreign_cluster.clone(),
        // It knows whose it is to be, and has nothing.
        TrackerView::NoCatalog(_) => None,
    }
}

/// It should have ended for so long that its kubelet, which ends it by force then, is not there to say so.
fn is_late(pod: &PodView, now: Timestamp) -> bool {
    let late = |deadline| now.duration_since(deadline) >= LATE;
    pod.deadline.is_some_and(late)
}

/// What was begun and must not be taken for a part of the stop, or the stop for a part of it.
fn held(input: &Input<'_>) -> Option<String> {
    let cluster = input.cluster;
    if let Some(entry) = cluster.decommissions.first() {
        return Some(format!(
            "{} is on its way out (as many dataNodes.replicas as there are take that back)",
            entry.pod
        ));
    }
    if let Some(loss) = &cluster.loss {
        return Some(format!("the datanode of {} is given up", loss.pod));
    }
    // A set that is still there is made anew after the start as well.
    let is_gone = |part| input.observed.set_of(part).is_none_or(|set| set.deleting);
    growth::sets(&cluster.key.name)
        .into_iter()
        .find(|(part, set)| is_gone(*part) && growth::recorded(cluster, set).is_some())
        .map(|(_, set)| format!("StatefulSet {set} is made anew"))
}

/// Leaves of a plan what a stop that is under way lets be: sets keep what they ask for, but for the one whose
/// turn it is, and nothing is begun that would hold the stop up.
pub(super) fn rest(input: &Input<'_>, plan: &mut Plan, stop: &Stop) {
    plan.roll = Roll::Settled;
    plan.scale = Scale::at_rest(input);
    plan.trackers = match &input.observed.tracker_set {
        Some(set) => set.wanted,
        None => i32::from(input.observed.pods_of(Part::Tracker).next().is_some()),
    };
    plan.gateways = 0;
    plan.loss = Acknowledged::default();
    plan.growth.replacements.clear();
    plan.growth.steps.clear();
    plan.steps.clear();
    if matches!(stop, Stop::Stranger(_)) {
        // No pod is forced away either: nobody says what depends on it.
        plan.gateways = input.observed.gateway.as_ref().map_or(0, |one| one.wanted);
        return;
    }
    plan.budget.held = None;
    plan.steps.extend(lower(input, stop));
    plan.steps.extend(plan.nodes.steps.clone());
}

fn lower(input: &Input<'_>, stop: &Stop) -> Option<Step> {
    let name = &input.cluster.key.name;
    let (part, set) = match stop {
        Stop::Datanodes => (Part::Datanode, names::datanode_set(name)),
        Stop::Tracker => (Part::Tracker, names::tracker_set(name)),
        Stop::Held(_) | Stop::Stranger(_) | Stop::Gateways | Stop::Left(_) | Stop::Done => {
            return None;
        }
    };
    let live = input.observed.set_of(part)?;
    (live.wanted > 0 && !live.deleting).then(|| Step::Lower {
        set,
        uid: live.uid.clone(),
        from: live.wanted,
        to: 0,
        proof: format!("managementState is Stopped: {}", stop.sentence()),
    })
}

/// Why doors that were closed stay closed for now; none when they open, or are open.
pub fn doors(input: &Input<'_>, datanodes: i32) -> Option<String> {
    let observed = input.observed;
    let closed = observed.gateway.as_ref().is_some_and(|one| one.wanted == 0);
    if !closed || input.cluster.gateways == 0 {
        return None;
    }
    let Some(open) = observed.tracker.open() else {
        return Some("the tracker does not serve yet".to_owned());
    };
    if super::wrong_cluster(input).is_some() {
        return Some("the tracker is another cluster's".to_owned());
    }
    if let Some(why) = &open.status.safe_mode {
        return Some(format!("the tracker is in safe mode: {why}"));
    }
    let refused = open.status.writes_refused.as_ref()?;
    // Whoever cannot come back keeps nobody from reading.
    let set = names::datanode_set(&input.cluster.key.name);
    let comes = |name: String| match observed.pod(&name) {
        Some(pod) => !pod.ready && !pod.cannot_start(),
        None => true,
    };
    let coming = (0..datanodes).any(|ordinal| comes(names::pod(&set, ordinal)));
    coming.then(|| format!("datanodes are coming: {refused}"))
}
