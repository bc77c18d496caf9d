//! How datanodes go: the wishes, and how far a removal has come.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::Rate;
use super::text::DurationText;

/// Most removals that the status holds.
pub const MAX_DECOMMISSIONS: usize = 16;

/// How a datanode is emptied before it is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecommissionSpec {
    /// Decommission: fewer replicas empty datanodes, one at a time, and then remove them. Hold: they are
    /// kept as they are, and a removal that has begun is taken back.
    #[serde(default)]
    pub mode: DecommissionMode,
    /// Most bytes in a second that are copied off datanodes that leave, like 50Mi. No limit if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<Rate>,
    /// How long an emptied datanode is watched before the tracker is asked a second time.
    #[serde(default = "DurationText::thirty_seconds")]
    pub quiet_period: DurationText,
    /// Without progress for so long, ScaleDownBlocked says why.
    #[serde(default = "DurationText::thirty_minutes")]
    pub stall_timeout: DurationText,
}

impl Default for DecommissionSpec {
    fn default() -> Self {
        Self {
            mode: DecommissionMode::default(),
            bandwidth_limit: None,
            quiet_period: DurationText::thirty_seconds(),
            stall_timeout: DurationText::thirty_minutes(),
        }
    }
}

/// What fewer replicas lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DecommissionMode {
    #[default]
    Decommission,
    Hold,
}

/// What becomes of volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcRetentionSpec {
    /// Of a datanode that was emptied and removed: Retain keeps its claim, whose chunks are never trusted again;
    /// Delete deletes it, after the datanode is deregistered.
    #[serde(default)]
    pub when_scaled: RetentionPolicy,
}

/// Keep or delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RetentionPolicy {
    #[default]
    Retain,
    Delete,
}

/// A datanode that is on its way out. What the operator needs to go on after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecommissionStatus {
    /// Its pod.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Id on its volume; unset for a pod whose datanode was never admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub datanode_id: Option<String>,
    /// UID of its volume's claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub pvc_uid: Option<String>,
    /// How far it is.
    pub state: DecommissionState,
    /// Since when it is on its way.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Time,
    /// When fewer chunks remained than before, or the state changed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_progress_time: Time,
    /// Chunks that still need a copy elsewhere, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub chunks_remaining: Option<i64>,
    /// Its heartbeat at the first verdict: the second one must rest on a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub heard: Option<String>,
    /// What it waits for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// A datanode that a human gave up, until nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LossStatus {
    /// Id on its volume, which never comes back.
    #[schemars(length(min = 1, max = 64))]
    pub datanode_id: String,
    /// Its pod.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// UID of its volume's claim, which is deleted.
    #[schemars(length(min = 1, max = 64))]
    pub pvc_uid: String,
}

/// What is done about pods whose Kubernetes node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum NodeLossPolicy {
    #[default]
    DoNothing,
    ForceDeleteWhenFenced,
}

/// How far a removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecommissionState {
    /// Its chunks are being copied elsewhere; it can still be read.
    Decommissioning,
    /// The tracker said once that every chunk is whole without it.
    Quiet,
    /// The tracker said so again: its pod goes, then its uuid.
    Removing,
    /// Deregistered; only its claim is left to decide about.
    Removed,
}
