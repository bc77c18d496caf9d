//! What the operator saw. Numbers here are coarse and change rarely; those that move are metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::removal::{DecommissionStatus, LossStatus, MAX_DECOMMISSIONS};
use super::storage::ReplacementStatus;

/// What the operator saw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DfsClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version that the tracker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// Label selector of the datanodes' pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Id of the store. A tracker whose volume has no catalog, or another one, is not let near the chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cluster_id: Option<String>,
    /// What is true of the cluster; Ready is the summary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// The tracker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracker: Option<TrackerStatus>,
    /// Counts of datanodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_nodes: Option<DataNodeStatus>,
    /// Each datanode: whose pod, volume and Kubernetes node it was matched with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 500),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["datanodeId"])
    )]
    pub members: Vec<MemberStatus>,
    /// Datanodes on their way out, one at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_DECOMMISSIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"])
    )]
    pub decommissions: Vec<DecommissionStatus>,
    /// StatefulSets that are made anew because their volumes grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 4),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["set"])
    )]
    pub replacements: Vec<ReplacementStatus>,
    /// A datanode that a human gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossStatus>,
    /// Health of the chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<ChunkStatus>,
    /// Room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacityStatus>,
    /// Where clients go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointStatus>,
}

/// One thing that is true of the cluster, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is spoken of.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Z][A-Za-z]*$"))]
    pub kind: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, for programs.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Z][A-Za-z0-9]*$"))]
    pub reason: String,
    /// Why, and what to do, for people.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When the status last changed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_transition_time: Time,
    /// Generation of the spec that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// As in YAML and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The tracker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackerStatus {
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The catalog on its volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<CatalogState>,
    /// The other store whose tracker answered here last; gone once this store's own answers. While it stands,
    /// nothing is stopped: nobody can be asked about this store's chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub foreign_cluster: Option<String>,
}

/// The catalog on the tracker's volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CatalogState {
    Open,
    Lost,
    Rebuilding,
    Unknown,
}

/// Counts of datanodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataNodeStatus {
    /// How many the spec asks for.
    #[serde(default)]
    pub desired: i32,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready: i32,
    /// Admitted by the tracker and heard of.
    #[serde(default)]
    pub registered: i32,
    /// Pods that run the newest template.
    #[serde(default)]
    pub updated: i32,
    /// Ready of desired, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub summary: Option<String>,
}

/// One datanode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Id on its volume.
    #[schemars(length(min = 1, max = 64))]
    pub datanode_id: String,
    /// Its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// UID of its volume's claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pvc_uid: Option<String>,
    /// Its Kubernetes node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,
    /// How it is.
    pub state: MemberState,
}

/// How a datanode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberState {
    Pending,
    InService,
    Suspect,
    Dead,
    Decommissioning,
    Decommissioned,
    Refused,
}

/// Health of the chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChunkStatus {
    /// With fewer replicas than wanted.
    #[serde(default)]
    pub under_replicated: i64,
    /// With none.
    #[serde(default)]
    pub missing: i64,
}

/// Room on the datanodes' volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityStatus {
    /// All of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub total: Option<String>,
    /// What chunks take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub used: Option<String>,
}

/// Where clients go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Inside the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub gateway: Option<String>,
    /// Through the Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub ingress: Option<String>,
    /// Through the HTTPRoute: its host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub http_route: Vec<String>,
}
