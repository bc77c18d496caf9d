//! What becomes of spans.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::metrics::{CounterBy, counter, gauge};

crate::label_enum! {
    /// Why a span never reached a collector.
    pub enum Drop: "reason" {
        /// As many as are kept waited already.
        QueueFull = "queue-full",
        /// The collector was not reached, did not answer in time, or refused.
        NotSent = "not-sent",
        /// The process was about to end.
        Ended = "ended",
    }
}

/// `dfs_trace_*`: all zero where nothing is exported.
#[derive(Debug, Clone)]
pub struct TraceMetrics {
    /// Spans that a collector took.
    pub exported: IntCounter,
    /// Spans that none got.
    pub dropped: CounterBy<Drop>,
    /// Batches that failed.
    pub failures: IntCounter,
    /// Most spans that may wait; 0 where nothing is exported.
    pub queue_limit: IntGauge,
    /// 1 where traces were asked for in a way that cannot be followed, so that nothing is exported.
    pub refused: IntGauge,
}

impl TraceMetrics {
    /// Registers the metrics; one set per registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            exported: counter(
                registry,
                "dfs_trace_spans_exported_total",
                "Spans that the collector took",
            )?,
            dropped: CounterBy::register(
                registry,
                "dfs_trace_spans_dropped_total",
                "Spans that no collector got, by reason",
            )?,
            failures: counter(
                registry,
                "dfs_trace_export_failures_total",
                "Batches of spans that the collector did not take",
            )?,
            queue_limit: gauge(
                registry,
                "dfs_trace_queue_limit_spans",
                "Spans that may wait for the exporter; 0 where traces are off",
            )?,
            refused: gauge(
                registry,
                "dfs_trace_settings_refused",
                "1 where traces are off because the collector's address or the share that was given cannot be used",
            )?,
        })
    }
}
