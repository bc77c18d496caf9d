//! Volumes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::StorageSize;
use super::rules;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::storage()))]
pub struct StorageSpec {
    /// Size. May grow where the storage class allows it; never shrinks.
    pub size: StorageSize,
    /// Storage class; the cluster's default if unset. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl StorageSpec {
    /// Room for some ten million files.
    pub(super) fn of_tracker() -> Self {
        Self {
            size: "10Gi".into(),
            storage_class_name: None,
        }
    }
}

/// A StatefulSet that is made anew with a larger template of claims, while its pods go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacementStatus {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub set: String,
    /// UID of the one with the smaller template.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Replicas that it had, and that it is made again with.
    #[schemars(range(min = 0))]
    pub replicas: i32,
}
