//! Numbers of the sketch of hot files.

use dfs_runtime::metrics::{counter, gauge};
use prometheus::{IntCounter, IntGauge, Registry};

/// How the sketch is filled.
#[derive(Debug, Clone)]
pub struct HotMetrics {
    /// Files that are counted.
    pub files: IntGauge,
    /// Files that lost their place to another one.
    pub evicted: IntCounter,
}

impl HotMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            files: gauge(
                registry,
                "dfs_tracker_hot_files",
                "Files whose accesses are counted for GET /hot.",
            )?,
            evicted: counter(
                registry,
                "dfs_tracker_hot_files_evicted_total",
                "Files that lost their place among those counted for GET /hot: the limit was reached.",
            )?,
        })
    }
}
