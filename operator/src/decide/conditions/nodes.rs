//! Pods that are lost with their Kubernetes node.

use super::judge::{no, yes};
use super::{Judgement, Kind, Reason, Truth};
use crate::decide::nodes::Fate;
use crate::decide::{Input, Plan};
use crate::names;
use crate::validate::ACKNOWLEDGE_DATANODE_LOST;

/// Who is lost, and what to do.
pub(super) fn lost(input: &Input<'_>, plan: &Plan) -> Judgement {
    let kind = Kind::NodeLost;
    if let (Some(why), Some(loss)) = (&plan.loss.refused, &plan.loss.record) {
        let message = format!(
            "datanode {} was given up, and the tracker keeps it: {why}. Bring its volume back, or give those chunks \
             up: `dfs lost {} --accept-loss`",
            loss.id.short(),
            loss.id
        );
        return yes(kind, Reason::LossNotAccepted, message);
    }
    let Some(first) = plan.nodes.lost.first() else {
        if plan.nodes.unreadable {
            return Judgement {
                kind,
                truth: Truth::Unknown,
                reason: Reason::NodesUnreadable,
                message: "nodes may not be read (rbac.readNodes)".to_owned(),
            };
        }
        let message = "no pod is on a node that is lost";
        return no(kind, Reason::AsWanted, message.to_owned());
    };
    let reason = match first.fate {
        Fate::Gone => Reason::NodeGone,
        Fate::Silent => Reason::NodeNotReady,
        Fate::Unread => Reason::PodStuck,
    };
    let message = format!("{}. {}", plan.nodes.sentence(), advice(input, plan));
    yes(kind, reason, message)
}

fn advice(input: &Input<'_>, plan: &Plan) -> String {
    let mut told = vec!["Bring the node back".to_owned()];
    if let Some(silent) = plan.nodes.lost.iter().find(|one| one.fate != Fate::Gone) {
        let node = &silent.node;
        let then = if input.cluster.force_deletes {
            "its pods that cannot end are then deleted by force"
        } else {
            "with nodeLossPolicy ForceDeleteWhenFenced its pods that cannot end are then deleted by force"
        };
        told.push(format!(
            "or, when it is off for good, `kubectl taint nodes {node} \
             node.kubernetes.io/out-of-service=nodeshutdown:NoExecute` or `kubectl delete node {node}`: {then}"
        ));
    }
    if let Some(id) = given_up_next(input, plan) {
        let name = &input.cluster.key.name;
        told.push(format!(
            "when a datanode's volume is lost with it, `kubectl annotate dfs {name} \
             {ACKNOWLEDGE_DATANODE_LOST}={id}`"
        ));
    }
    told.join("; ")
}

/// The first dead datanode whose volume is lost with its node.
fn given_up_next(input: &Input<'_>, plan: &Plan) -> Option<dfs_protocol::DatanodeId> {
    use dfs_protocol::datanode::Liveness;
    let open = input.observed.tracker.open()?;
    let mut nodes = open.nodes.iter();
    let entry = nodes.find(|entry| {
        let pod = entry.pod.as_ref();
        let claim = pod.and_then(|pod| input.observed.claim(&names::claim(pod)));
        entry.liveness == Liveness::Dead
            && entry.is_member()
            && plan.nodes.lost.iter().any(|lost| Some(&lost.pod) == pod)
            && claim.is_some_and(|claim| entry.is_on(&claim.uid))
    })?;
    Some(entry.id)
}
