//! Kubernetes nodes that are lost, and pods that cannot end because of it.
//!
//! Kubernetes keeps a pod on a silent node for ever, because it may still run there and write. It is taken away by
//! force only where that is ruled out: a person has fenced the node by the taint `out-of-service`, or the Node
//! object is gone. Without the right to read nodes nothing is taken away, and only what pods show is told.

#[cfg(test)]
mod tests;

use jiff::Timestamp;

use super::{Input, Step, growth, waits};
use crate::names;
use crate::observe::{Observed, PodView};

/// What became of a Kubernetes node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its object does not exist any more.
    Gone,
    /// Not Ready for longer than a datanode may be silent.
    Silent,
    /// Nodes may not be read, and a pod on it does not end in time.
    Unread,
}

/// A pod of the store on a node that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPod {
    /// Its name.
    pub pod: String,
    /// The node.
    pub node: String,
    /// What became of that.
    pub fate: Fate,
}

/// What lost nodes mean now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nodes {
    /// Pods of trackers and datanodes that are lost with their node.
    pub lost: Vec<LostPod>,
    /// Pods that may be taken away by force.
    pub steps: Vec<Step>,
    /// Nodes may not be read.
    pub unreadable: bool,
}

/// Decides from pods, claims and nodes.
pub fn nodes(input: &Input<'_>) -> Nodes {
    let observed = input.observed;
    let name = &input.cluster.key.name;
    let mut found = Nodes {
        unreadable: observed.nodes_unreadable,
        ..Nodes::default()
    };
    for (part, set) in growth::sets(name) {
        let replicas = observed.set_of(part).map_or(0, |set| set.wanted);
        let pods = (0..replicas).map(|ordinal| names::pod(&set, ordinal));
        found.lost.extend(pods.filter_map(|pod| lost(input, &pod)));
        let ours = observed
            .pods_of(part)
            .filter(|pod| names::ordinal(&set, &pod.name).is_some());
        let stuck = ours.filter(|pod| is_stuck(pod, input.now));
        found
            .steps
            .extend(stuck.filter_map(|pod| force(input, pod)));
    }
    found
}

/// Whether, and how, a pod is lost with its node. One that is not there, or cannot be scheduled, is held by its volume.
fn lost(input: &Input<'_>, name: &str) -> Option<LostPod> {
    let observed = input.observed;
    let pod = observed.pod(name);
    let holds = || observed.claim(&names::claim(name))?.node.clone();
    let node = pod.and_then(|pod| pod.node.clone()).or_else(holds)?;
    let fate = match fate(input, &node) {
        Some(fate) => fate,
        None if observed.nodes_unreadable && pod.is_some_and(|pod| is_stuck(pod, input.now)) => {
            Fate::Unread
        }
        None => return None,
    };
    Some(LostPod {
        pod: name.to_owned(),
        node,
        fate,
    })
}

fn fate(input: &Input<'_>, node: &str) -> Option<Fate> {
    if input.observed.gone_nodes.contains(node) {
        return Some(Fate::Gone);
    }
    let since = input.observed.nodes.get(node)?.unready_since?;
    let silent = input.now.duration_since(since).unsigned_abs();
    (silent >= input.cluster.node_patience).then_some(Fate::Silent)
}

/// It should have ended by now.
fn is_stuck(pod: &PodView, now: Timestamp) -> bool {
    pod.deadline.is_some_and(|deadline| now >= deadline)
}

/// The force that a stuck pod may be met with.
fn force(input: &Input<'_>, pod: &PodView) -> Option<Step> {
    let node = pod.node.as_ref()?;
    let fence = fence(input.observed, node)?;
    input.cluster.force_deletes.then(|| Step::ForceDelete {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        fence,
    })
}

/// Why nothing on this node can run any more, if that is certain.
fn fence(observed: &Observed, node: &str) -> Option<String> {
    if observed.gone_nodes.contains(node) {
        return Some(format!("node {node} does not exist any more"));
    }
    let is_fenced = observed.nodes.get(node)?.out_of_service;
    is_fenced.then(|| format!("node {node} has the taint node.kubernetes.io/out-of-service"))
}

impl Nodes {
    /// Who is lost, and with which node, at most three of them.
    pub fn sentence(&self) -> String {
        let told = self.lost.iter().map(LostPod::sentence);
        waits::shortened(told.collect(), "").join("; ")
    }
}

impl LostPod {
    fn sentence(&self) -> String {
        let Self { pod, node, fate } = self;
        match fate {
            Fate::Gone => format!("{pod} was on node {node}, which does not exist any more"),
            Fate::Silent => format!("{pod} is on node {node}, which has not been Ready for long"),
            Fate::Unread => format!(
                "{pod} does not end on node {node}, of which nothing is known: nodes may not be read (rbac.readNodes)"
            ),
        }
    }
}
