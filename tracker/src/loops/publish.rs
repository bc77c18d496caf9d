//! The numbers that describe the present, as of each tick.

use std::time::Duration;

use dfs_protocol::datanode::Liveness;
use dfs_protocol::status::{ChunkHealth, RepairPriority};

use crate::metrics::{CheckpointAge, whole};
use crate::service::Tracker;

/// Sets them all; those of the catalog keep their last values when it cannot be read.
pub(super) async fn publish(tracker: &Tracker, now: Duration) {
    publish_state(tracker, now);
    match tracker.catalog.publish().await {
        Ok(meta) => {
            let age = CheckpointAge {
                newest: meta.checkpoints.last(),
                sequence: meta.sequence,
                up: now.saturating_sub(tracker.started),
            };
            tracker
                .metrics
                .checkpoint_age
                .set(&age, tracker.clock.wall());
        }
        Err(error) => tracing::debug!(%error, "the catalog's numbers are not known now"),
    }
}

fn publish_state(tracker: &Tracker, now: Duration) {
    let state = tracker.state();
    let metrics = &tracker.metrics;
    let counters = state.replicas.counters();
    for health in ChunkHealth::ALL {
        let count = whole(counters.of_health(health));
        metrics
            .chunks
            .with_label_values(&[health.as_str()])
            .set(count);
    }
    metrics.shortage.set(counters);
    metrics.shortage.set_oldest(&state.replicas, now);
    for priority in RepairPriority::ALL {
        let count = whole(counters.of_priority(priority));
        metrics
            .repair_queue
            .with_label_values(&[priority.as_str()])
            .set(count);
    }
    metrics
        .repair_active
        .set(i64::from(state.tasks.repair_copies()));
    metrics.repair_remaining.set(whole(counters.repair_bytes));
    metrics.held.set(i64::from(state.hold(now).is_some()));
    metrics.pending.set(whole(state.pending.len() as u64));
    metrics.safe_mode.set(i64::from(state.in_safe_mode()));
    let mut by_liveness = [0; 3];
    for node in state.datanodes.serving() {
        by_liveness[state.datanodes.liveness(node, now) as usize] += 1;
    }
    for (liveness, label) in [
        (Liveness::Live, "live"),
        (Liveness::Suspect, "suspect"),
        (Liveness::Dead, "dead"),
    ] {
        metrics
            .datanodes
            .with_label_values(&[label])
            .set(by_liveness[liveness as usize]);
    }
    metrics.volumes.set(&state.datanodes, &state.capacity(now));
}
