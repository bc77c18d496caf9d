//! What a cluster waits for, in sentences that name the pod and the cause that a human can act on.

use crate::names;
use crate::observe::{Observed, Part, PodView};

/// Longest piece of someone else's message that is repeated.
const MAX_QUOTE: usize = 200;

/// Why a pod is not ready; none when it is.
pub fn pod_wait(observed: &Observed, name: &str) -> Option<String> {
    let Some(pod) = observed.pod(name) else {
        return Some(match claim_node_wait(observed, name) {
            Some(why) => format!("pod {name} does not exist: {why}"),
            None => format!("pod {name} does not exist yet"),
        });
    };
    if pod.ready && !pod.deleting {
        return None;
    }
    Some(match cause(observed, pod) {
        Some(cause) => format!("pod {name} is {}: {cause}", state(pod)),
        None => format!("pod {name} is {}", state(pod)),
    })
}

fn state(pod: &PodView) -> String {
    if pod.deleting {
        "being deleted".to_owned()
    } else if pod.phase == "Running" {
        "running, not ready".to_owned()
    } else {
        pod.phase.clone()
    }
}

fn cause(observed: &Observed, pod: &PodView) -> Option<String> {
    if let Some(node) = &pod.node
        && observed.nodes.get(node).is_some_and(|node| !node.ready)
    {
        return Some(format!("it runs on {node}, which is NotReady"));
    }
    if pod.node.is_none()
        && let Some(why) = claim_node_wait(observed, &pod.name)
    {
        return Some(why);
    }
    if let Some(why) = &pod.unscheduled {
        return Some(format!("not scheduled: {}", quote(why)));
    }
    pod.waiting.as_deref().map(quote)
}

/// A volume holds a pod on a node that is not there.
fn claim_node_wait(observed: &Observed, pod: &str) -> Option<String> {
    let node = observed.claim(&names::claim(pod))?.node.as_ref()?;
    let ready = observed.nodes.get(node).map(|node| node.ready);
    (ready == Some(false)).then(|| format!("its volume is on {node}, which is NotReady"))
}

pub(super) fn quote(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= MAX_QUOTE {
        return line.to_owned();
    }
    let cut: String = line.chars().take(MAX_QUOTE).collect();
    format!("{cut}...")
}

/// What the tracker's pod waits for.
pub fn tracker_wait(observed: &Observed, cluster: &str) -> Option<String> {
    pod_wait(observed, &names::pod(&names::tracker_set(cluster), 0))
}

/// What datanodes' pods wait for, at most three of them.
pub fn datanode_waits(observed: &Observed, cluster: &str, replicas: i32) -> Vec<String> {
    let set = names::datanode_set(cluster);
    let waits = (0..replicas).filter_map(|ordinal| pod_wait(observed, &names::pod(&set, ordinal)));
    shortened(waits.collect(), " datanodes wait")
}

/// What gateways' pods wait for, at most three of them.
pub fn gateway_waits(observed: &Observed) -> Vec<String> {
    let waits = observed
        .pods_of(Part::Gateway)
        .filter_map(|pod| pod_wait(observed, &pod.name));
    shortened(waits.collect(), " gateways wait")
}

/// The first three, and how many `more` there are.
pub(super) fn shortened(mut told: Vec<String>, more: &str) -> Vec<String> {
    const TOLD: usize = 3;
    if told.len() > TOLD {
        let rest = told.len() - TOLD;
        told.truncate(TOLD);
        told.push(format!("{rest} more{more}"));
    }
    told
}
