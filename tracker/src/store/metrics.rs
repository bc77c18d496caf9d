//! Numbers of the catalog.

use dfs_runtime::metrics::{counter, gauge, histogram, registered};
use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

use crate::model::op::Op;

/// Numbers of the catalog, shared by its handle and its committer.
#[derive(Debug, Clone)]
pub struct CatalogMetrics {
    /// Changes in one durable transaction.
    pub batch_operations: Histogram,
    /// Seconds from the start of a batch to the end of its local commit.
    pub commit_seconds: Histogram,
    /// Seconds from the start of a batch to its answer, journals included.
    pub answer_seconds: Histogram,
    /// Changes by kind and result.
    pub operations: IntCounterVec,
    /// Changes refused because too many waited.
    pub queue_full: IntCounter,
    /// Batches that the journals did not confirm.
    pub journal_failures: IntCounter,
    /// Records that the journals have not confirmed yet.
    pub journal_lag: IntGauge,
    /// 1 once the catalog failed and takes no changes.
    pub poisoned: IntGauge,
    /// Last committed sequence.
    pub sequence: IntGauge,
    /// The last epoch that was begun.
    pub epoch: IntGauge,
    /// Bytes of the engine's files.
    pub size: IntGauge,
}

impl CatalogMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = exponential_buckets(0.000_25, 2.0, 16)?;
        Ok(Self {
            batch_operations: histogram(
                registry,
                "dfs_tracker_catalog_batch_operations",
                "Changes in one durable transaction of the catalog",
                &exponential_buckets(1.0, 2.0, 12)?,
            )?,
            commit_seconds: histogram(
                registry,
                "dfs_tracker_catalog_commit_seconds",
                "Seconds that the local commit of a batch took",
                &seconds,
            )?,
            answer_seconds: histogram(
                registry,
                "dfs_tracker_catalog_answer_seconds",
                "Seconds until a batch was durable in catalog and journals",
                &seconds,
            )?,
            operations: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "dfs_tracker_catalog_operations_total",
                        "Changes asked of the catalog, by kind and result",
                    ),
                    &["kind", "result"],
                )?,
            )?,
            queue_full: counter(
                registry,
                "dfs_tracker_catalog_queue_full_total",
                "Changes refused because too many waited for the catalog",
            )?,
            journal_failures: counter(
                registry,
                "dfs_tracker_catalog_journal_failures_total",
                "Batches that the datanodes' journals did not confirm",
            )?,
            journal_lag: gauge(
                registry,
                "dfs_tracker_catalog_journal_lag_records",
                "Committed batches that the datanodes' journals have not confirmed yet",
            )?,
            poisoned: gauge(
                registry,
                "dfs_tracker_catalog_poisoned",
                "1 after the catalog's engine failed; the process must restart",
            )?,
            sequence: gauge(
                registry,
                "dfs_tracker_catalog_sequence",
                "Last committed sequence of the catalog",
            )?,
            epoch: gauge(
                registry,
                "dfs_tracker_catalog_epoch",
                "Last epoch that a tracker began: one more with each start",
            )?,
            size: gauge(
                registry,
                "dfs_tracker_catalog_size_bytes",
                "Bytes of the catalog's file on the tracker's volume",
            )?,
        })
    }
}

/// Metric label value of a change.
pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::BeginEpoch { .. } => "begin-epoch",
        Op::Commit { .. } => "commit",
        Op::Delete { .. } => "delete",
        Op::Transfer { .. } => "transfer",
        Op::SetFactor { .. } => "set-factor",
        Op::Restore { .. } => "restore",
        Op::Purge { .. } => "purge",
        Op::Condemn { .. } => "condemn",
        Op::Forget { .. } => "forget",
        Op::PutDatanode { .. } => "put-datanode",
        Op::SetCheckpoints { .. } => "set-checkpoints",
        Op::Adopt { .. } => "adopt",
    }
}
