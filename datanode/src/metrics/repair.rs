//! Repair traffic of a datanode against its limit.

use std::time::Duration;

use dfs_runtime::label_enum;
use dfs_runtime::metrics::{Label, gauge, registered};
use prometheus::{CounterVec, IntCounterVec, IntGauge, Opts, Registry};

label_enum! {
    /// Which way bytes go.
    pub enum Direction: "direction" {
        /// From another datanode.
        Received = "received",
        /// To another datanode.
        Sent = "sent",
    }
}

/// What repair moves here, and how long it was held back.
#[derive(Debug, Clone)]
pub struct RepairMetrics {
    bytes: IntCounterVec,
    throttled: CounterVec,
    /// Bytes a second in each direction; 0 for no limit.
    pub limit: IntGauge,
}

impl RepairMetrics {
    /// Registers every metric.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let bytes = registered(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "dfs_datanode_repair_bytes_total",
                    "Bytes of repair copies, received and sent",
                ),
                &[Direction::NAME],
            )?,
        )?;
        let throttled = registered(
            registry,
            CounterVec::new(
                Opts::new(
                    "dfs_datanode_repair_throttled_seconds_total",
                    "Time that repair copies waited for their limit, summed over copies",
                ),
                &[Direction::NAME],
            )?,
        )?;
        for direction in Direction::ALL {
            bytes.with_label_values(&[direction.as_str()]);
            throttled.with_label_values(&[direction.as_str()]);
        }
        Ok(Self {
            bytes,
            throttled,
            limit: gauge(
                registry,
                "dfs_datanode_repair_limit_bytes",
                "Most bytes of repair copies a second in each direction; 0 for no limit",
            )?,
        })
    }

    /// So many bytes passed after that wait.
    pub fn passed(&self, direction: Direction, bytes: u64, waited: Duration) {
        let label = &[direction.as_str()];
        self.bytes.with_label_values(label).inc_by(bytes);
        self.throttled
            .with_label_values(label)
            .inc_by(waited.as_secs_f64());
    }
}
