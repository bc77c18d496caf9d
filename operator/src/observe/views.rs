//! From API objects to plain values.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::model::{ClaimView, NodeView, Part, PodView, Resize, Uid, WorkloadView};

/// Label that says which part of a store an object is.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Label that says which cluster an object belongs to.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Label of a failure domain, on nodes and (copied by newer API servers) on pods.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Label by which a StatefulSet's controller says from which revision of the template it made a pod.
const REVISION_LABEL: &str = "controller-revision-hash";
/// Annotation by which the scheduler says where a claim's volume is made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

fn uid(metadata: &ObjectMeta) -> Uid {
    Uid(metadata.uid.clone().unwrap_or_default())
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// A pod with a component label of ours; none otherwise.
pub fn pod(pod: &Pod) -> Option<PodView> {
    let metadata = &pod.metadata;
    let part = Part::from_label(label(metadata, COMPONENT_LABEL)?)?;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let owners = metadata.owner_references.iter().flatten();
    let controller = owners
        .filter(|owner| owner.controller == Some(true))
        .map(|owner| Uid(owner.uid.clone()))
        .next();
    let volumes = spec.and_then(|spec| spec.volumes.as_ref());
    let claim = volumes.into_iter().flatten().find_map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref()?;
        (volume.name == "data").then(|| claim.claim_name.clone())
    });
    Some(PodView {
        name: metadata.name.clone()?,
        uid: uid(metadata),
        part,
        ips: addresses(pod),
        node: spec.and_then(|spec| spec.node_name.clone()),
        zone: label(metadata, ZONE_LABEL).map(str::to_owned),
        controller,
        revision: label(metadata, REVISION_LABEL).map(str::to_owned),
        claim,
        phase: status
            .and_then(|status| status.phase.clone())
            .unwrap_or_else(|| "Pending".to_owned()),
        ready: condition(pod, "Ready").is_some_and(|(status, _)| status == "True"),
        deleting: metadata.deletion_timestamp.is_some(),
        deadline: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        unscheduled: condition(pod, "PodScheduled")
            .filter(|(status, _)| status == "False")
            .map(|(_, message)| message),
        waiting: waiting(pod),
    })
}

fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let mut addresses: Vec<String> = status.pod_ip.iter().cloned().collect();
    for ip in status.pod_ips.iter().flatten() {
        if !addresses.contains(&ip.ip) {
            addresses.push(ip.ip.clone());
        }
    }
    addresses
}

fn condition(pod: &Pod, kind: &str) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|one| one.type_ == kind)?;
    let message = found.message.clone().or_else(|| found.reason.clone());
    Some((found.status.clone(), message.unwrap_or_default()))
}

/// Why the first container that does not run does not run.
fn waiting(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        // What every pod passes through is no reason to tell.
        if reason == "ContainerCreating" || reason == "PodInitializing" {
            return None;
        }
        // The kubelet's own words change with each try, and status with them.
        if reason == "CrashLoopBackOff" {
            return Some(format!(
                "{reason}: it ends again and again; `kubectl logs --previous` says why"
            ));
        }
        Some(match &waiting.message {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        })
    })
}

/// A claim.
pub fn claim(claim: &PersistentVolumeClaim) -> Option<ClaimView> {
    let metadata = &claim.metadata;
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.clone());
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    Some(ClaimView {
        name: metadata.name.clone()?,
        uid: uid(metadata),
        bound: phase.as_deref() == Some("Bound"),
        deleting: metadata.deletion_timestamp.is_some(),
        node: metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(SELECTED_NODE).cloned()),
        asked: requests
            .and_then(|all| all.get("storage"))
            .map(|size| size.0.clone()),
        capacity: claim
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref())
            .and_then(|all| all.get("storage"))
            .map(|size| size.0.clone()),
        resize: resize(claim),
    })
}

/// How far a claim says that its growth is. Newer API servers say it twice.
fn resize(claim: &PersistentVolumeClaim) -> Resize {
    let status = claim.status.as_ref();
    let allocated = status
        .and_then(|status| status.allocated_resource_statuses.as_ref())
        .and_then(|all| all.get("storage"))
        .map(String::as_str);
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let holds = |kind: &str| {
        let mut conditions = conditions.into_iter().flatten();
        conditions.find(|one| one.type_ == kind && one.status == "True")
    };
    let failed = ["ControllerResizeError", "NodeResizeError"];
    let failed = failed.into_iter().find_map(holds);
    match allocated {
        Some("ControllerResizeInfeasible" | "NodeResizeInfeasible") => {
            let why = failed.and_then(|one| one.message.clone());
            Resize::Failed(why.unwrap_or_else(|| "the storage cannot make it larger".to_owned()))
        }
        Some("NodeResizePending" | "NodeResizeInProgress") => Resize::FileSystem,
        _ if holds("FileSystemResizePending").is_some() => Resize::FileSystem,
        Some("ControllerResizeInProgress") => Resize::Volume,
        _ if holds("Resizing").is_some() => Resize::Volume,
        _ => Resize::Quiet,
    }
}

/// Taint by which a human says that a node does not run any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A node.
pub fn node(node: &Node) -> Option<NodeView> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|one| one.type_ == "Ready");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let mut taints = taints.into_iter().flatten();
    Some(NodeView {
        name: node.metadata.name.clone()?,
        ready: ready.is_some_and(|one| one.status == "True"),
        unready_since: ready
            .filter(|one| one.status != "True")
            .and_then(|one| Some(one.last_transition_time.as_ref()?.0)),
        out_of_service: taints.any(|taint| taint.key == OUT_OF_SERVICE),
        unschedulable: is_cordoned(node),
        zone: label(&node.metadata, ZONE_LABEL).map(str::to_owned),
    })
}

/// Whether a node is cordoned.
pub fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
}

/// A StatefulSet.
pub fn stateful_set(set: &StatefulSet) -> WorkloadView {
    let status = set.status.as_ref();
    let spec = set.spec.as_ref();
    let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
    let volume = templates.into_iter().flatten().find_map(|claim| {
        let resources = claim.spec.as_ref()?.resources.as_ref()?;
        Some(resources.requests.as_ref()?.get("storage")?.0.clone())
    });
    WorkloadView {
        uid: uid(&set.metadata),
        // The API server's own default is one.
        wanted: spec.and_then(|s| s.replicas).unwrap_or(1),
        replicas: status.map_or(0, |status| status.replicas),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        updated: status.and_then(|s| s.updated_replicas).unwrap_or(0),
        revision: status.and_then(|s| s.update_revision.clone()),
        current: seen(&set.metadata, status.and_then(|s| s.observed_generation)),
        deleting: set.metadata.deletion_timestamp.is_some(),
        volume,
    }
}

/// Whether a controller that has observed this generation has seen the newest spec.
fn seen(metadata: &ObjectMeta, observed: Option<i64>) -> bool {
    observed >= metadata.generation
}

/// A Deployment.
pub fn deployment(deployment: &Deployment) -> WorkloadView {
    let status = deployment.status.as_ref();
    WorkloadView {
        uid: uid(&deployment.metadata),
        wanted: deployment
            .spec
            .as_ref()
            .and_then(|s| s.replicas)
            .unwrap_or(1),
        replicas: status.and_then(|s| s.replicas).unwrap_or(0),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        updated: status.and_then(|s| s.updated_replicas).unwrap_or(0),
        revision: None,
        current: seen(
            &deployment.metadata,
            status.and_then(|s| s.observed_generation),
        ),
        deleting: deployment.metadata.deletion_timestamp.is_some(),
        volume: None,
    }
}
