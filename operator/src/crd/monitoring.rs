//! How the store is looked at.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Switch;

/// How the store is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// Enabled: pods carry the annotations prometheus.io/scrape, port and path, for a Prometheus that finds pods
    /// by them. Disable them where a PodMonitor finds the pods and the annotations are followed too.
    #[serde(default)]
    pub scrape_annotations: Switch,
    /// Traces of requests; none if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSpec>,
}

/// Host, perhaps a port from 1 to 65535, perhaps a path.
const ENDPOINT: &str = r"^http://[A-Za-z0-9.-]+(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/[A-Za-z0-9._/-]*)?$";

/// Traces of requests, over OTLP/HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracingSpec {
    /// The collector, as http://HOST:4318.
    #[schemars(
        length(min = 8, max = 253),
        regex(pattern = ENDPOINT)
    )]
    pub endpoint: String,
    /// Share of the requests from outside that are traced, from 0 to 1: a text, as '0.25'.
    #[serde(default = "default_ratio")]
    #[schemars(length(max = 8), regex(pattern = r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"))]
    pub sampling_ratio: String,
}

fn default_ratio() -> String {
    "0.01".to_owned()
}
