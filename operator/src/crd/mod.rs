//! The resource that users write: types only. `dfs-crd` prints the YAML that is generated from them.
//!
//! A field is here when something is done with it. Every default is the API server's, so that reading
//! an object back shows what runs; only the number of datanodes has none, because a default would turn
//! a forgotten line into a scale-down.
#![allow(
    clippy::duplicated_attributes,
    reason = "each column has a name, a type and a path; the lint takes them for the same attribute"
)]

mod gateway;
mod manifest;
mod monitoring;
mod pods;
mod quantity;
mod removal;
mod rules;
mod scheduling;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod text;

pub use gateway::{
    AllowedClient, GatewaySpec, HttpRouteSpec, IngressSpec, NetworkPolicySpec, ParentRef,
    ServiceSpec, ServiceType, Switch,
};
pub use manifest::{ManifestError, manifest};
pub use monitoring::{MonitoringSpec, TracingSpec};
pub use pods::{ImageSpec, PullPolicy, PullSecret, ResourceAmounts, ResourcesSpec};
pub use quantity::{Amount, ChunkSize, PackLimit, ParseQuantityError, Quantity, Rate, StorageSize};
pub use removal::{
    DecommissionMode, DecommissionSpec, DecommissionState, DecommissionStatus, LossStatus,
    MAX_DECOMMISSIONS, NodeLossPolicy, PvcRetentionSpec, RetentionPolicy,
};
pub use scheduling::{
    DataNodeScheduling, PodScheduling, SpreadRule, TaintEffect, Toleration, TolerationOperator,
    TopologySpread,
};
pub use status::{
    CapacityStatus, CatalogState, ChunkStatus, Condition, ConditionStatus, DataNodeStatus,
    DfsClusterStatus, EndpointStatus, MemberState, MemberStatus, TrackerStatus,
};
pub use storage::{ReplacementStatus, StorageSpec};
pub use text::{Annotations, DurationText, Labels};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name of a cluster: the names of its objects must still fit into labels.
pub const MAX_NAME: usize = 40;
/// Most replicas of a chunk.
pub const MAX_FACTOR: i32 = 7;
/// Most datanodes.
pub const MAX_DATANODES: i32 = 500;
/// Most bytes of a chunk that is packed: what a datanode takes.
pub const MAX_PACK_LIMIT: u64 = 16 << 20;
/// Most gateways.
pub const MAX_GATEWAYS: i32 = 100;

/// What the store is to be.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dfs.io",
    version = "v1alpha1",
    kind = "DfsCluster",
    plural = "dfsclusters",
    singular = "dfscluster",
    shortname = "dfs",
    namespaced,
    status = "DfsClusterStatus",
    derive = "PartialEq",
    doc = "A replicated file store: a tracker, datanodes with a volume each, and gateways as its doors.",
    scale(
        spec_replicas_path = ".spec.dataNodes.replicas",
        status_replicas_path = ".status.dataNodes.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        description = "Datanodes that are ready, of those wanted",
        json_path = ".status.dataNodes.summary"
    ),
    printcolumn(
        name = "Registered",
        type_ = "integer",
        description = "Datanodes that the tracker has admitted",
        json_path = ".status.dataNodes.registered"
    ),
    printcolumn(
        name = "UnderRepl",
        type_ = "integer",
        description = "Chunks with fewer replicas than wanted",
        json_path = ".status.chunks.underReplicated"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why it is or is not ready",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        description = "Bytes of all datanodes' volumes",
        json_path = ".status.capacity.total",
        priority = 1
    ),
    printcolumn(
        name = "Used",
        type_ = "string",
        description = "Bytes that chunks take",
        json_path = ".status.capacity.used",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct DfsClusterSpec {
    /// Image of every pod. The operator's own version by default.
    #[serde(default)]
    pub image: ImageSpec,
    /// How many replicas each chunk has.
    #[serde(default)]
    pub replication: ReplicationSpec,
    /// Size of a full chunk, a multiple of 1Mi from 1Mi to 1Gi. Immutable.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = rules::chunk_size()))]
    pub chunk_size: ChunkSize,
    /// The tracker: keeps the catalog, decides placement and repair.
    #[serde(default)]
    pub tracker: TrackerSpec,
    /// The datanodes: keep the chunks, each on a volume of its own.
    pub data_nodes: DataNodesSpec,
    /// How long a datanode may be silent before its chunks are copied elsewhere.
    #[serde(default = "DurationText::five_minutes")]
    pub repair_delay: DurationText,
    /// Most bytes in a second that one datanode receives to restore or move replicas, and as many that it sends, like
    /// 100Mi. 256Mi if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_bandwidth_limit: Option<Rate>,
    /// What is done about pods that cannot end because their Kubernetes node is lost. ForceDeleteWhenFenced: they are
    /// deleted by force once the node has the taint node.kubernetes.io/out-of-service, or its object is gone.
    #[serde(default)]
    pub node_loss_policy: NodeLossPolicy,
    /// How long deleted and replaced files can be restored; 0 turns the trash off.
    #[serde(default = "DurationText::one_day")]
    pub trash_retention: DurationText,
    /// The gateways: the doors for clients.
    #[serde(default)]
    pub gateway: GatewaySpec,
    /// Who may reach the store's pods.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// How the store is looked at: metrics and traces.
    #[serde(default)]
    pub monitoring: MonitoringSpec,
    /// Managed: the operator acts. Paused: it looks and reports, and changes nothing. Stopped: no pod runs
    /// (gateways end first, then datanodes, then the tracker), and every volume is kept; Managed starts it again.
    #[serde(default)]
    pub management_state: ManagementState,
}

/// How many replicas each chunk has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::replication()))]
pub struct ReplicationSpec {
    /// Wanted replicas of each chunk, on distinct datanodes; not more than there are datanodes.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 1, max = MAX_FACTOR))]
    pub factor: i32,
    /// Fewest replicas that a write is acknowledged with when datanodes are missing; min(2, factor) if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_FACTOR))]
    pub min_write: Option<i32>,
}

const fn default_factor() -> i32 {
    3
}

impl Default for ReplicationSpec {
    fn default() -> Self {
        Self {
            factor: default_factor(),
            min_write: None,
        }
    }
}

/// The tracker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackerSpec {
    /// Volume of the catalog.
    #[serde(default = "StorageSpec::of_tracker")]
    pub storage: StorageSpec,
    /// Requests and limits of the tracker's container.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// Where the tracker may run.
    #[serde(default)]
    pub scheduling: PodScheduling,
}

impl Default for TrackerSpec {
    fn default() -> Self {
        Self {
            storage: StorageSpec::of_tracker(),
            resources: ResourcesSpec::default(),
            scheduling: PodScheduling::default(),
        }
    }
}

/// The datanodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataNodesSpec {
    /// How many datanodes. Required, so that leaving the line out is never a request to scale down.
    #[schemars(range(min = 0, max = MAX_DATANODES))]
    pub replicas: i32,
    /// Volume of each datanode.
    pub storage: StorageSpec,
    /// Chunks up to this size share files on the datanodes' volumes, which makes small files fast to write; at most
    /// 16Mi, 0: each chunk has a file of its own; the datanode's own limit (1Mi) if unset. What is stored stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack_limit: Option<PackLimit>,
    /// Requests and limits of each datanode's container.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// Where datanodes may run, and how they are spread.
    #[serde(default)]
    pub scheduling: DataNodeScheduling,
    /// How fewer replicas become fewer datanodes.
    #[serde(default)]
    pub decommission: DecommissionSpec,
    /// What becomes of the volumes of datanodes that go.
    #[serde(default)]
    pub pvc_retention: PvcRetentionSpec,
}

/// Whether the operator acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ManagementState {
    #[default]
    Managed,
    Paused,
    Stopped,
}
