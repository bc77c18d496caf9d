//! The only part of the pipeline that reads. What it returns are plain values ([`model`]); the API
//! objects themselves are kept only where they are compared before a write.

pub mod inventory;
mod model;
mod tracker;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use serde::de::DeserializeOwned;

pub use inventory::{Inventory, LiveInventory, OwnedKind};
pub use model::{
    ClaimView, NodeView, Observed, OpenTracker, Part, PodView, TrackerView, Uid, WorkloadView,
};
pub use tracker::{Asking, further, read_tracker, verdicts};

use crate::error::ReconcileError;
use crate::names;
use crate::validate::ClusterKey;

/// Looks at the cluster's objects in the API server. The tracker is read afterwards: whether it can
/// be asked depends on what is here.
pub async fn observe(
    inventory: &dyn Inventory,
    key: &ClusterKey,
) -> Result<Observed, ReconcileError> {
    let pods = inventory.pods(key).await?;
    let claims = inventory.claims(key).await?;
    let sets = inventory.owned(OwnedKind::StatefulSet, key).await?;
    let set = |name: String| -> Result<Option<WorkloadView>, ReconcileError> {
        let found = named(&sets, &name);
        Ok(found
            .map(typed::<StatefulSet>)
            .transpose()?
            .map(|set| views::stateful_set(&set)))
    };
    let deployments = inventory.owned(OwnedKind::Deployment, key).await?;
    let gateway = named(&deployments, &names::gateway(&key.name));
    let gateway = gateway.map(typed::<Deployment>).transpose()?;
    let wanted: BTreeSet<String> = pods
        .iter()
        .filter_map(|pod| pod.node.clone())
        .chain(claims.iter().filter_map(|claim| claim.node.clone()))
        .collect();
    let mut nodes = BTreeMap::new();
    for name in wanted {
        if let Some(node) = inventory.node(&name).await? {
            nodes.insert(name, node);
        }
    }
    Ok(Observed {
        tracker_set: set(names::tracker_set(&key.name))?,
        datanode_set: set(names::datanode_set(&key.name))?,
        gateway: gateway.as_ref().map(views::deployment),
        pods,
        claims,
        nodes,
        tracker: TrackerView::Absent,
    })
}

fn named<'a>(
    objects: &'a [kube::api::DynamicObject],
    name: &str,
) -> Option<&'a kube::api::DynamicObject> {
    let mut objects = objects.iter();
    objects.find(|object| object.metadata.name.as_deref() == Some(name))
}

fn typed<K: DeserializeOwned>(object: &kube::api::DynamicObject) -> Result<K, ReconcileError> {
    let internal = |error: serde_json::Error| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        ReconcileError::Internal(format!("cannot read {name}: {error}"))
    };
    let value = serde_json::to_value(object).map_err(internal)?;
    serde_json::from_value(value).map_err(internal)
}
