//! From a spec to the objects of a cluster: pure, without a client. What comes out depends on nothing
//! but what goes in, so building twice yields the same and applying it twice changes nothing.
//!
//! Two things are not made here. The token's Secret is random: it is made once by whoever applies.
//! Claims are made by the StatefulSets, and nobody here ever names one to delete it.

mod budgets;
mod datanode;
mod doors;
mod gateway;
mod image;
mod labels;
mod network;
mod pod;
pub mod ports;
mod services;
#[cfg(test)]
pub(crate) mod tests;
mod tracker;

pub use image::image;
pub use labels::{Component, selector_labels};

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::DynamicObject;

use crate::crd::{DfsCluster, DfsClusterSpec, MAX_PACK_LIMIT, ParseQuantityError, Rate, Switch};

/// Key of the cluster's id in its ConfigMap.
pub const CLUSTER_ID_KEY: &str = "clusterId";

/// What the objects are made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The resource.
    pub cluster: &'a DfsCluster,
    /// Image of a cluster that names none.
    pub default_image: &'a str,
    /// Id of the store, once it is known.
    pub cluster_id: Option<&'a str>,
    /// Datanodes that there are to be: the spec's number, or more while some are emptied or kept.
    pub datanodes: i32,
    /// Trackers that there are to be.
    pub trackers: i32,
    /// Gateways that there are to be.
    pub gateways: i32,
    /// Datanodes' pods that may be unavailable at a time.
    pub datanodes_away: i32,
    /// The tracker's pods that may be.
    pub tracker_away: i32,
    /// Namespace of the operator; any if unknown.
    pub operator_namespace: Option<&'a str>,
}

/// Every object of a cluster. Take it apart without `..`, so that none is forgotten.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    /// Who the pods are; none of them may do anything.
    pub service_accounts: Vec<ServiceAccount>,
    /// The store's id, from which a tracker knows that an empty volume is a loss. None before it is known.
    pub config_map: Option<ConfigMap>,
    /// Addresses.
    pub services: Vec<Service>,
    /// The tracker.
    pub tracker: StatefulSet,
    /// The datanodes.
    pub datanodes: StatefulSet,
    /// The gateways.
    pub gateway: Deployment,
    /// How many pods may be evicted.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Who may talk to whom.
    pub network_policies: Vec<NetworkPolicy>,
    /// A door.
    pub ingress: Option<Ingress>,
    /// A door.
    pub http_route: Option<DynamicObject>,
}

/// Why no objects can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// It was not read from an API server.
    #[error("the DfsCluster has no {0}; it was not read from an API server")]
    NotStored(&'static str),
    /// The CRD's rules refuse it, but an older CRD may have let it pass.
    #[error("spec.{field}: {source}")]
    Quantity {
        /// Path of the field.
        field: &'static str,
        /// What is wrong.
        source: ParseQuantityError,
    },
    /// Datanodes would not start.
    #[error(
        "spec.dataNodes.packLimit is {0} bytes; at most {MAX_PACK_LIMIT} are taken, 0 packs nothing"
    )]
    PackLimit(u64),
}

/// What all objects of a cluster share.
struct Frame<'a> {
    name: &'a str,
    namespace: &'a str,
    owner: OwnerReference,
    spec: &'a DfsClusterSpec,
    image: String,
    version: String,
    chunk_size: u64,
    /// Bytes a second.
    repair_rate: Option<u64>,
    decommission_rate: Option<u64>,
    /// Bytes; the datanodes' own where there is none.
    pack_limit: Option<u64>,
    datanodes: i32,
    trackers: i32,
    gateways: i32,
    datanodes_away: i32,
    tracker_away: i32,
    operator_namespace: Option<&'a str>,
}

impl<'a> Frame<'a> {
    fn of(inputs: &Inputs<'a>) -> Result<Self, BuildError> {
        let metadata = &inputs.cluster.metadata;
        let spec = &inputs.cluster.spec;
        let image = image(&spec.image, inputs.default_image);
        Ok(Self {
            name: metadata
                .name
                .as_deref()
                .ok_or(BuildError::NotStored("name"))?,
            namespace: metadata
                .namespace
                .as_deref()
                .ok_or(BuildError::NotStored("namespace"))?,
            owner: inputs
                .cluster
                .controller_owner_ref(&())
                .ok_or(BuildError::NotStored("uid"))?,
            spec,
            version: labels::version(&image),
            image,
            chunk_size: spec
                .chunk_size
                .0
                .bytes()
                .map_err(|source| BuildError::Quantity {
                    field: "chunkSize",
                    source,
                })?,
            repair_rate: rate(spec.repair_bandwidth_limit.as_ref(), "repairBandwidthLimit")?,
            decommission_rate: rate(
                spec.data_nodes.decommission.bandwidth_limit.as_ref(),
                "dataNodes.decommission.bandwidthLimit",
            )?,
            pack_limit: pack_limit(spec)?,
            datanodes: inputs.datanodes,
            trackers: inputs.trackers,
            gateways: inputs.gateways,
            datanodes_away: inputs.datanodes_away,
            tracker_away: inputs.tracker_away,
            operator_namespace: inputs.operator_namespace,
        })
    }
}

fn pack_limit(spec: &DfsClusterSpec) -> Result<Option<u64>, BuildError> {
    let limit = spec.data_nodes.pack_limit.as_ref();
    let limit = limit.map(|limit| limit.0.bytes()).transpose();
    let limit = limit.map_err(|source| BuildError::Quantity {
        field: "dataNodes.packLimit",
        source,
    })?;
    match limit {
        Some(bytes) if bytes > MAX_PACK_LIMIT => Err(BuildError::PackLimit(bytes)),
        taken => Ok(taken),
    }
}

/// Bytes a second, where they are limited.
fn rate(limit: Option<&Rate>, field: &'static str) -> Result<Option<u64>, BuildError> {
    let bytes = limit.map(|limit| limit.0.bytes()).transpose();
    bytes.map_err(|source| BuildError::Quantity { field, source })
}

/// Makes the objects.
pub fn build(inputs: &Inputs<'_>) -> Result<Objects, BuildError> {
    let frame = Frame::of(inputs)?;
    Ok(Objects {
        service_accounts: Component::ALL
            .into_iter()
            .map(|component| service_account(&frame, component))
            .collect(),
        config_map: inputs.cluster_id.map(|id| config_map(&frame, id)),
        services: services::services(&frame),
        tracker: tracker::stateful_set(&frame),
        datanodes: datanode::stateful_set(&frame),
        gateway: gateway::deployment(&frame),
        budgets: budgets::budgets(&frame),
        network_policies: match frame.spec.network_policy.mode {
            Switch::Enabled => network::policies(&frame),
            Switch::Disabled => Vec::new(),
        },
        ingress: frame
            .spec
            .gateway
            .ingress
            .as_ref()
            .map(|door| doors::ingress(&frame, door)),
        http_route: frame
            .spec
            .gateway
            .http_route
            .as_ref()
            .map(|door| doors::http_route(&frame, door)),
    })
}

fn service_account(frame: &Frame<'_>, component: Component) -> ServiceAccount {
    ServiceAccount {
        metadata: labels::metadata(frame, component),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Name of the ConfigMap with the store's id.
fn config_map_name(cluster: &str) -> String {
    format!("{cluster}-cluster")
}

/// A ConfigMap and not a value in the tracker's template: the id becomes known when the tracker runs
/// already, and a changed template would restart it.
fn config_map(frame: &Frame<'_>, id: &str) -> ConfigMap {
    let mut metadata = labels::metadata(frame, Component::Tracker);
    metadata.name = Some(config_map_name(frame.name));
    ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(CLUSTER_ID_KEY.to_owned(), id.to_owned())])),
        ..ConfigMap::default()
    }
}
