//! Numbers of rebalance and of the story.

use dfs_protocol::events::EventKind;
use dfs_runtime::metrics::{counter, gauge};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::counters;

/// Numbers of rebalance.
#[derive(Debug, Clone)]
pub struct RebalanceMetrics {
    /// 1 while replicas move.
    pub running: IntGauge,
    /// Moves under way.
    pub active: IntGauge,
    /// Bytes still to move.
    pub remaining: IntGauge,
    /// Moves that came to an end, by outcome: `done`, `failed`.
    pub moves: IntCounterVec,
    /// Bytes of the moves that were done.
    pub moved: IntCounter,
    /// Plans cut short, by limit: `moves`, `rate`, `scan`.
    pub limited: IntCounterVec,
}

impl RebalanceMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            running: gauge(
                registry,
                "dfs_tracker_rebalance_running",
                "1 while replicas move to emptier datanodes.",
            )?,
            active: gauge(
                registry,
                "dfs_tracker_rebalance_active_moves",
                "Moves under way, until the old replica is deleted.",
            )?,
            remaining: gauge(
                registry,
                "dfs_tracker_rebalance_remaining_bytes",
                "Bytes still to move, those under way included; an estimate.",
            )?,
            moves: counters(
                registry,
                "dfs_tracker_rebalance_moves_total",
                "Moves that came to an end.",
                "outcome",
                &["done", "failed"],
            )?,
            moved: counter(
                registry,
                "dfs_tracker_rebalance_moved_bytes_total",
                "Bytes that were moved.",
            )?,
            limited: counters(
                registry,
                "dfs_tracker_rebalance_limited_total",
                "Plans that a limit cut short.",
                "limit",
                &["moves", "rate", "scan"],
            )?,
        })
    }
}

/// Numbers of the story.
#[derive(Debug, Clone)]
pub struct EventMetrics {
    /// Events told, by kind.
    pub told: IntCounterVec,
    /// Who watches now.
    pub readers: IntGauge,
    /// Readers dropped because they were too slow.
    pub dropped: IntCounter,
    /// Readers refused because too many watch.
    pub refused: IntCounter,
}

impl EventMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            told: counters(
                registry,
                "dfs_tracker_events_total",
                "Events told.",
                "kind",
                &EventKind::ALL.map(EventKind::as_str),
            )?,
            readers: gauge(
                registry,
                "dfs_tracker_event_readers",
                "Streams of GET /events that are open.",
            )?,
            dropped: counter(
                registry,
                "dfs_tracker_event_readers_dropped_total",
                "Streams of GET /events ended because their reader was too slow.",
            )?,
            refused: counter(
                registry,
                "dfs_tracker_event_readers_refused_total",
                "Streams of GET /events refused because too many are open.",
            )?,
        })
    }
}
