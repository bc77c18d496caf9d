//! The operator's metrics.

mod api;
mod clusters;

pub use api::{ApiMetrics, ApiResult, ApiVerb};
pub use clusters::{ClusterMetrics, MAX_CLUSTERS};

use std::time::Duration;

use dfs_runtime::label_enum;
use dfs_runtime::metrics::{CounterBy, DURATION_BUCKETS, counter, gauge, histogram};
use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use crate::error::Category;

label_enum! {
    /// How a reconcile ended.
    pub enum ReconcileResult: "result" {
        /// Everything was tried and succeeded.
        Ok = "ok",
        /// It ended with an error.
        Error = "error",
        /// The spec makes no sense.
        Invalid = "invalid",
        /// The object cannot be read.
        Poisoned = "poisoned",
    }
}

label_enum! {
    /// What became of an object that was to be applied.
    pub enum ApplyResult: "result" {
        /// It was made.
        Created = "created",
        /// It was changed.
        Changed = "changed",
        /// It was written and nothing changed.
        Repeated = "repeated",
        /// It was as it should be: nothing was written.
        Unchanged = "unchanged",
        /// It was removed because the spec no longer asks for it.
        Pruned = "pruned",
    }
}

label_enum! {
    /// Why a cluster is looked at again at a certain time, although nothing happens to it.
    pub enum RequeueReason: "reason" {
        /// The tracker was just told something.
        Told = "told",
        /// Something moves.
        Moving = "moving",
        /// Evictions of datanodes wait.
        EvictionsHeld = "evictions-held",
        /// Now and then, in case a watch missed something.
        Resync = "resync",
        /// It had changed while it was looked at.
        Conflict = "conflict",
        /// The pass failed.
        Failure = "failure",
    }
}

/// Handed down to whoever counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Reconciles by result.
    pub reconciles: CounterBy<ReconcileResult>,
    /// Failures by category.
    pub failures: CounterBy<Category>,
    /// Time of a reconcile.
    pub duration: Histogram,
    /// Reconciles under way.
    pub in_flight: IntGauge,
    /// Objects applied, by result.
    pub applies: CounterBy<ApplyResult>,
    /// Writes of status.
    pub status_writes: IntCounter,
    /// Writes refused because the object had changed.
    pub conflicts: IntCounter,
    /// Time of a call to a tracker.
    pub tracker_calls: Histogram,
    /// Calls to a tracker that failed.
    pub tracker_failures: IntCounter,
    /// Whether this process holds the lease.
    pub leader: IntGauge,
    /// Events written.
    pub events: IntCounter,
    /// Events left out: a limit, or the same one a moment ago.
    pub events_dropped: IntCounter,
    /// Of single clusters.
    pub clusters: ClusterMetrics,
    /// Calls to the API server.
    pub api: ApiMetrics,
    /// Clusters that wait for a pass.
    pub waiting: IntGauge,
    /// Passes that set a time for the next one.
    pub requeues: CounterBy<RequeueReason>,
}

impl Metrics {
    /// Registers every series.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            reconciles: CounterBy::register(
                registry,
                "dfs_operator_reconciles_total",
                "Reconciles by result",
            )?,
            failures: CounterBy::register(
                registry,
                "dfs_operator_reconcile_failures_total",
                "Failed reconciles by category",
            )?,
            duration: histogram(
                registry,
                "dfs_operator_reconcile_duration_seconds",
                "Time of a reconcile",
                DURATION_BUCKETS,
            )?,
            in_flight: gauge(
                registry,
                "dfs_operator_reconciles_in_flight",
                "Reconciles under way",
            )?,
            applies: CounterBy::register(
                registry,
                "dfs_operator_applies_total",
                "Objects that were looked at for applying, by result",
            )?,
            status_writes: counter(
                registry,
                "dfs_operator_status_writes_total",
                "Writes of a status",
            )?,
            conflicts: counter(
                registry,
                "dfs_operator_apply_conflicts_total",
                "Writes that the API server refused because the object had changed",
            )?,
            tracker_calls: histogram(
                registry,
                "dfs_operator_tracker_call_duration_seconds",
                "Time of a call to a tracker",
                DURATION_BUCKETS,
            )?,
            tracker_failures: counter(
                registry,
                "dfs_operator_tracker_call_failures_total",
                "Calls to a tracker that failed",
            )?,
            leader: gauge(
                registry,
                "dfs_operator_leader",
                "1 while this process holds the lease",
            )?,
            events: counter(registry, "dfs_operator_events_total", "Events written")?,
            events_dropped: counter(
                registry,
                "dfs_operator_events_dropped_total",
                "Events left out because the same one was written a moment ago, or by a failed write",
            )?,
            clusters: ClusterMetrics::register(registry)?,
            api: ApiMetrics::register(registry)?,
            waiting: gauge(
                registry,
                "dfs_operator_waiting_clusters",
                "Clusters that something happened to and whose next pass has not begun",
            )?,
            requeues: CounterBy::register(
                registry,
                "dfs_operator_requeues_total",
                "Passes that set a time for the next one, by reason",
            )?,
        })
    }

    /// A call to a tracker ended.
    pub fn tracker_call(&self, took: Duration, failed: bool) {
        self.tracker_calls.observe(took.as_secs_f64());
        if failed {
            self.tracker_failures.inc();
        }
    }
}
