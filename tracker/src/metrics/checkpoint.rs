//! How old the newest checkpoint is, in time and in changes.

use std::time::Duration;

use dfs_runtime::metrics::gauge;
use jiff::Timestamp;
use prometheus::{IntGauge, Registry};

use super::whole;
use crate::model::op::CheckpointRecord;

/// What the catalog says of its checkpoints.
#[derive(Debug)]
pub struct CheckpointAge<'a> {
    /// The newest; there is none until the first was taken.
    pub newest: Option<&'a CheckpointRecord>,
    /// The last committed sequence.
    pub sequence: u64,
    /// For how long this tracker has acted.
    pub up: Duration,
}

/// Numbers of the newest checkpoint.
#[derive(Debug, Clone)]
pub struct CheckpointAgeMetrics {
    age: IntGauge,
    behind: IntGauge,
}

impl CheckpointAgeMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            age: gauge(
                registry,
                "dfs_tracker_checkpoint_age_seconds",
                "Age of the newest checkpoint; without one, how long this tracker has acted",
            )?,
            behind: gauge(
                registry,
                "dfs_tracker_checkpoint_behind_records",
                "Batches since the newest checkpoint: what a rebuild has to replay from the journal",
            )?,
        })
    }

    /// How it is now. The age comes from the wall clock, as checkpoints outlive processes: only people
    /// look at it.
    pub fn set(&self, of: &CheckpointAge<'_>, now: Timestamp) {
        let CheckpointAge {
            newest,
            sequence,
            up,
        } = *of;
        let age = newest.map_or(whole(up.as_secs()), |newest| {
            now.as_second().saturating_sub(newest.created.as_second())
        });
        self.age.set(age.max(0));
        let covered = newest.map_or(0, |newest| newest.sequence);
        self.behind.set(whole(sequence.saturating_sub(covered)));
    }
}

#[cfg(test)]
mod tests {
    use dfs_protocol::FileId;

    use super::*;

    #[test]
    fn the_age_counts_from_the_newest_checkpoint_or_else_from_the_start() {
        let metrics = CheckpointAgeMetrics::register(&Registry::new()).unwrap();
        let shown = |newest: Option<&CheckpointRecord>, now: i64| {
            let of = CheckpointAge {
                newest,
                sequence: 50,
                up: Duration::from_secs(7),
            };
            metrics.set(&of, Timestamp::from_second(now).unwrap());
            (metrics.age.get(), metrics.behind.get())
        };
        let newest = CheckpointRecord {
            file: FileId::from_u128(1),
            sequence: 48,
            chunks: Vec::new(),
            created: Timestamp::from_second(1000).unwrap(),
        };
        assert_eq!(shown(None, 2000), (7, 50));
        assert_eq!(shown(Some(&newest), 1090), (90, 2));
        assert_eq!(
            shown(Some(&newest), 990),
            (0, 2),
            "a clock that was set back"
        );
    }
}
