//! The tracker's numbers. Those that describe the present are set by the loops on every tick.

mod checkpoint;
mod hot;
mod limits;
mod shortage;
mod story;
#[cfg(test)]
mod tests;
mod volumes;

pub use checkpoint::{CheckpointAge, CheckpointAgeMetrics};
pub use hot::HotMetrics;
pub use limits::LimitMetrics;
pub use shortage::ShortageMetrics;
pub use story::{EventMetrics, RebalanceMetrics};
pub use volumes::VolumeMetrics;

use dfs_protocol::admission::RefusalReason;
use dfs_protocol::datanode::Damage;
use dfs_protocol::status::{ChunkHealth, RepairPriority};
use dfs_runtime::metrics::{counter, gauge, registered};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::plan::tasks::DeleteReason;

/// Numbers of the tracker beside the catalog's.
#[derive(Debug, Clone)]
pub struct TrackerMetrics {
    /// Damaged replicas that datanodes reported, by damage.
    pub corrupt: IntCounterVec,
    /// Waits given up because the datanode was silent.
    pub silent_datanodes: IntCounter,
    /// Replicas that readers found wanting.
    pub suspects: IntCounter,
    /// Full chunk reports.
    pub chunk_reports: IntCounter,
    /// Heartbeats and reports that came too late to count.
    pub late_messages: IntCounter,
    /// Writes refused because too few datanodes are there.
    pub writes_refused: IntCounter,
    /// Leases refused at a limit.
    pub lease_refusals: IntCounter,
    /// Batches of placements cut short.
    pub placements_withheld: IntCounter,
    /// Registrations refused, by reason.
    pub registrations_refused: IntCounterVec,
    /// Datanodes that wait to be admitted.
    pub pending: IntGauge,
    /// Datanodes that are heard and take no journal records.
    pub unreachable: IntGauge,
    /// Chunks by health.
    pub chunks: IntGaugeVec,
    /// Chunks below their factor.
    pub shortage: ShortageMetrics,
    /// Chunks that wait for repair, by priority.
    pub repair_queue: IntGaugeVec,
    /// Copies under way.
    pub repair_active: IntGauge,
    /// Bytes still to copy.
    pub repair_remaining: IntGauge,
    /// Bytes that repair copied.
    pub repair_copied: IntCounter,
    /// Copies ordered, by priority.
    pub repair_ordered: IntCounterVec,
    /// Orders given up after their timeout.
    pub tasks_expired: IntCounter,
    /// Limits of the loops.
    pub limits: LimitMetrics,
    /// Hot files.
    pub hot: HotMetrics,
    /// Moves to emptier datanodes.
    pub rebalance: RebalanceMetrics,
    /// Replicas whose deletion was ordered, by reason.
    pub deletes: IntCounterVec,
    /// Chunks condemned.
    pub condemned: IntCounter,
    /// Trash entries purged by age or pressure.
    pub purged: IntCounter,
    /// Volumes, by datanode and together.
    pub volumes: VolumeMetrics,
    /// Datanodes, by liveness.
    pub datanodes: IntGaugeVec,
    /// 1 while repair and collection are held.
    pub held: IntGauge,
    /// 1 in safe mode.
    pub safe_mode: IntGauge,
    /// Members of the journal set.
    pub journal_members: IntGauge,
    /// Backfills that ended in the middle because their turn was over.
    pub journal_backfills_paused: IntCounter,
    /// Checkpoints taken.
    pub checkpoints: IntCounter,
    /// Checkpoints that failed.
    pub checkpoint_failures: IntCounter,
    /// How old the newest checkpoint is.
    pub checkpoint_age: CheckpointAgeMetrics,
}

impl TrackerMetrics {
    /// Registers every number; labels of closed sets start at zero.
    // One entry for each number: a list, not logic.
    #[allow(clippy::too_many_lines)]
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let health = ChunkHealth::ALL.map(ChunkHealth::as_str);
        let priorities = RepairPriority::ALL.map(RepairPriority::as_str);
        Ok(Self {
            corrupt: counters(
                registry,
                "dfs_tracker_corrupt_replicas_total",
                "Damaged replicas that datanodes found and set aside.",
                "damage",
                &Damage::ALL.map(Damage::as_str),
            )?,
            silent_datanodes: counter(
                registry,
                "dfs_tracker_silent_datanodes_total",
                "Waits given up because the datanode was silent",
            )?,
            suspects: counter(
                registry,
                "dfs_tracker_suspect_replicas_total",
                "Replicas that readers found wanting.",
            )?,
            chunk_reports: counter(
                registry,
                "dfs_tracker_chunk_reports_total",
                "Full chunk reports received.",
            )?,
            late_messages: counter(
                registry,
                "dfs_tracker_late_messages_total",
                "Heartbeats and reports that came out of order and were ignored.",
            )?,
            writes_refused: counter(
                registry,
                "dfs_tracker_writes_refused_total",
                "Writes refused because too few datanodes are heard or have room.",
            )?,
            lease_refusals: counter(
                registry,
                "dfs_tracker_lease_refusals_total",
                "Write leases refused at a limit.",
            )?,
            placements_withheld: counter(
                registry,
                "dfs_tracker_placements_withheld_total",
                "Batches of placements cut short because the room left was promised to other writers.",
            )?,
            registrations_refused: counters(
                registry,
                "dfs_tracker_registrations_refused_total",
                "Registrations of datanodes that were refused, by reason.",
                "reason",
                &RefusalReason::ALL.map(RefusalReason::as_str),
            )?,
            pending: gauge(
                registry,
                "dfs_tracker_pending_datanodes",
                "Datanodes that wait to be admitted.",
            )?,
            unreachable: gauge(
                registry,
                "dfs_tracker_unreachable_datanodes",
                "Datanodes that are heard but take no journal records: they get no chunks meanwhile.",
            )?,
            chunks: gauges(
                registry,
                "dfs_tracker_chunks",
                "Chunks by health.",
                "health",
                &health,
            )?,
            shortage: ShortageMetrics::register(registry)?,
            repair_queue: gauges(
                registry,
                "dfs_tracker_repair_queue_chunks",
                "Chunks that wait for repair, by priority.",
                "priority",
                &priorities,
            )?,
            repair_active: gauge(
                registry,
                "dfs_tracker_repair_active_copies",
                "Copies under way.",
            )?,
            repair_remaining: gauge(
                registry,
                "dfs_tracker_repair_remaining_bytes",
                "Bytes still to copy, those under way included.",
            )?,
            repair_copied: counter(
                registry,
                "dfs_tracker_repair_copied_bytes_total",
                "Bytes that repair copied.",
            )?,
            repair_ordered: counters(
                registry,
                "dfs_tracker_repair_copies_total",
                "Copies ordered, by priority.",
                "priority",
                &priorities,
            )?,
            tasks_expired: counter(
                registry,
                "dfs_tracker_expired_tasks_total",
                "Orders to datanodes given up after their timeout.",
            )?,
            limits: LimitMetrics::register(registry)?,
            hot: HotMetrics::register(registry)?,
            rebalance: RebalanceMetrics::register(registry)?,
            deletes: counters(
                registry,
                "dfs_tracker_replica_deletes_total",
                "Replica deletions ordered, by reason.",
                "reason",
                &DeleteReason::ALL.map(DeleteReason::as_str),
            )?,
            condemned: counter(
                registry,
                "dfs_tracker_condemned_chunks_total",
                "Chunks condemned.",
            )?,
            purged: counter(
                registry,
                "dfs_tracker_purged_versions_total",
                "Versions purged from the trash by age or pressure.",
            )?,
            volumes: VolumeMetrics::register(registry)?,
            datanodes: gauges(
                registry,
                "dfs_tracker_datanodes",
                "Datanodes by liveness.",
                "liveness",
                &["live", "suspect", "dead"],
            )?,
            held: gauge(
                registry,
                "dfs_tracker_held",
                "1 while repair and collection are held.",
            )?,
            safe_mode: gauge(registry, "dfs_tracker_safe_mode", "1 while in safe mode.")?,
            journal_members: gauge(
                registry,
                "dfs_tracker_journal_members",
                "Datanodes that keep the journal.",
            )?,
            journal_backfills_paused: counter(
                registry,
                "dfs_tracker_journal_backfills_paused_total",
                "Backfills that ended in the middle, for the next turn to go on.",
            )?,
            checkpoints: counter(
                registry,
                "dfs_tracker_checkpoints_total",
                "Checkpoints written to datanodes.",
            )?,
            checkpoint_failures: counter(
                registry,
                "dfs_tracker_checkpoint_failures_total",
                "Checkpoints that could not be written.",
            )?,
            checkpoint_age: CheckpointAgeMetrics::register(registry)?,
        })
    }
}

/// Told also while there is no catalog, and therefore no tracker.
pub fn catalog_lost(registry: &Registry) -> Result<IntGauge, prometheus::Error> {
    gauge(
        registry,
        "dfs_tracker_catalog_lost",
        "1 while the volume holds no catalog although the cluster had one.",
    )
}

/// A number as a gauge takes it.
pub(crate) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = registered(
        registry,
        IntCounterVec::new(Opts::new(name, help), &[label])?,
    )?;
    for value in values {
        counters.with_label_values(&[value]);
    }
    Ok(counters)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = registered(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)?;
    for value in values {
        gauges.with_label_values(&[value]);
    }
    Ok(gauges)
}
