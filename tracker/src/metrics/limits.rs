//! How often a limit of the loops was reached.

use dfs_runtime::metrics::counter;
use prometheus::{IntCounter, IntCounterVec, Registry};

use super::counters;
use crate::plan::repair::RepairLimited;

/// Numbers of the limits that hold for every plan.
#[derive(Debug, Clone)]
pub struct LimitMetrics {
    /// Copies and deletions that a repair plan left for later, by limit.
    repair: IntCounterVec,
    /// Plans of collection cut short.
    pub gc: IntCounter,
    /// Orders not given because the table of orders is full.
    pub orders: IntCounter,
}

impl LimitMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let limits = named(RepairLimited::default()).map(|(limit, _)| limit);
        Ok(Self {
            repair: counters(
                registry,
                "dfs_tracker_repair_limited_total",
                "Copies and deletions that a repair plan left for later, by limit.",
                "limit",
                &limits,
            )?,
            gc: counter(
                registry,
                "dfs_tracker_gc_limited_total",
                "Plans of collection that a limit cut short.",
            )?,
            orders: counter(
                registry,
                "dfs_tracker_orders_refused_total",
                "Orders to datanodes not given because too many are under way.",
            )?,
        })
    }

    /// Counts the limits that a repair plan ran into.
    pub fn repair(&self, limited: RepairLimited) {
        for (limit, hits) in named(limited) {
            self.repair.with_label_values(&[limit]).inc_by(hits);
        }
    }
}

fn named(limited: RepairLimited) -> [(&'static str, u64); 6] {
    let RepairLimited {
        total,
        sources,
        targets,
        delayed,
        deletes,
        emptying,
    } = limited;
    [
        ("total", total),
        ("sources", sources),
        ("targets", targets),
        ("delayed", delayed),
        ("deletes", deletes),
        ("emptying", emptying),
    ]
}
