//! Where pods may run. Few fields, each passed on as it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use super::text::Labels;

/// Where a pod may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodScheduling {
    /// Labels that a Kubernetes node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Labels>,
    /// Taints of Kubernetes nodes that do not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// Where datanodes may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataNodeScheduling {
    /// Labels that a Kubernetes node must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Labels>,
    /// Taints of Kubernetes nodes that do not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// How datanodes are spread.
    #[serde(default)]
    pub topology_spread: TopologySpread,
}

impl DataNodeScheduling {
    /// What it has in common with every pod's.
    pub fn pod(&self) -> PodScheduling {
        PodScheduling {
            node_selector: self.node_selector.clone(),
            tolerations: self.tolerations.clone(),
            priority_class_name: self.priority_class_name.clone(),
        }
    }
}

/// What happens to a pod for which no well-spread place is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// Over Kubernetes nodes (kubernetes.io/hostname).
    #[serde(default = "SpreadRule::refuse")]
    pub hostname: SpreadRule,
    /// Over zones (topology.kubernetes.io/zone).
    #[serde(default = "SpreadRule::allow")]
    pub zone: SpreadRule,
}

impl Default for TopologySpread {
    fn default() -> Self {
        Self {
            hostname: SpreadRule::refuse(),
            zone: SpreadRule::allow(),
        }
    }
}

/// DoNotSchedule: it waits. ScheduleAnyway: it runs all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpreadRule {
    DoNotSchedule,
    ScheduleAnyway,
}

impl SpreadRule {
    const fn refuse() -> Self {
        Self::DoNotSchedule
    }

    const fn allow() -> Self {
        Self::ScheduleAnyway
    }

    /// As in a pod.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DoNotSchedule => "DoNotSchedule",
            Self::ScheduleAnyway => "ScheduleAnyway",
        }
    }
}

/// A taint that does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::toleration()))]
pub struct Toleration {
    /// The taint's key; every taint if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// Equal compares the value, Exists does not.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// The taint's effect; all if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a taint with NoExecute does not matter; for ever if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    #[default]
    Equal,
    Exists,
}

impl TolerationOperator {
    /// As in a pod.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::Exists => "Exists",
        }
    }
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl TaintEffect {
    /// As in a pod.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}
