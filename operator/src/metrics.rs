//! The operator's metrics.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_runtime::label_enum;
use dfs_runtime::metrics::{CounterBy, DURATION_BUCKETS, counter, gauge, histogram, registered};
use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use crate::error::Category;
use crate::validate::ClusterKey;

/// Most clusters that have a series of their own.
const MAX_CLUSTERS: usize = 500;

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
    last_success: LastSuccess,
}

/// Time of the last success of each cluster, for at most [`MAX_CLUSTERS`].
#[derive(Debug, Clone)]
struct LastSuccess {
    vec: IntGaugeVec,
    known: Arc<Mutex<BTreeSet<ClusterKey>>>,
    left_out: IntGauge,
}

impl Metrics {
    /// Registers every series.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let last = Opts::new(
            "dfs_operator_last_success_timestamp_seconds",
            "When a cluster was last reconciled without an error",
        );
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
            last_success: LastSuccess {
                vec: registered(registry, IntGaugeVec::new(last, &["namespace", "cluster"])?)?,
                known: Arc::default(),
                left_out: gauge(
                    registry,
                    "dfs_operator_last_success_left_out",
                    "Clusters beyond the number that have a series of their own",
                )?,
            },
        })
    }

    /// A cluster was reconciled without an error.
    pub fn succeeded(&self, key: &ClusterKey, at: jiff::Timestamp) {
        let last = &self.last_success;
        let mut known = last.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(key) && known.len() >= MAX_CLUSTERS {
            last.left_out.inc();
            return;
        }
        known.insert(key.clone());
        last.vec
            .with_label_values(&[&key.namespace, &key.name])
            .set(at.as_second());
    }

    /// A cluster is gone: so is its series.
    pub fn forget(&self, key: &ClusterKey) {
        let last = &self.last_success;
        let mut known = last.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.remove(key) {
            let _gone = last.vec.remove_label_values(&[&key.namespace, &key.name]);
        }
    }

    /// A call to a tracker ended.
    pub fn tracker_call(&self, took: Duration, failed: bool) {
        self.tracker_calls.observe(took.as_secs_f64());
        if failed {
            self.tracker_failures.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_beyond_the_limit_get_no_series_and_are_counted() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let key = |n: usize| ClusterKey {
            namespace: "default".into(),
            name: format!("c{n}"),
        };
        for n in 0..MAX_CLUSTERS + 3 {
            metrics.succeeded(&key(n), jiff::Timestamp::UNIX_EPOCH);
        }
        assert_eq!(metrics.last_success.left_out.get(), 3);
        metrics.forget(&key(0));
        metrics.succeeded(&key(MAX_CLUSTERS + 1), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(metrics.last_success.left_out.get(), 3);
    }
}
