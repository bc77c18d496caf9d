//! Whether the local catalog holds all that the datanodes' journals hold. A catalog put back from an
//! old backup does not: acting on it would overrule, and later collect, what was acknowledged since
//! (I34).

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use dfs_protocol::datanode::{JournalRecord, Liveness};
use dfs_protocol::{DatanodeId, Fence};

use super::datanodes::{Datanode, DatanodeTable};

/// A crash leaves at most this many records in the journals that the catalog does not have: the
/// batch that was on its way to both, which nobody was answered.
const IN_FLIGHT: u64 = 1;

/// A journal that holds what the local catalog does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Whose journal.
    pub datanode: DatanodeId,
    /// Its newest record.
    pub newest: u64,
    /// The last record of the local catalog when this tracker started.
    pub ours: u64,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            datanode,
            newest,
            ours,
        } = self;
        write!(
            f,
            "the catalog ends at record {ours}, the journal on datanode {datanode} at {newest}: \
             this catalog is old; stop the tracker, keep its directory aside and run `dfs tracker \
             rebuild` into an empty one"
        )
    }
}

/// The comparison of one tracker's life: made with each datanode before the tracker writes to any.
#[derive(Debug, Clone)]
pub struct Comparison {
    ours: u64,
    fence: Fence,
    compared: BTreeSet<DatanodeId>,
    ahead: Option<Ahead>,
    /// The tracker acts: what turns up later stops no writes, it only holds gc.
    passed: bool,
    /// Somebody looked at what turned up later and lets gc go on.
    acknowledged: bool,
}

impl Comparison {
    /// Nothing was compared yet. `ours` and `fence` are the catalog's as it was opened.
    pub fn new(ours: u64, fence: Fence) -> Self {
        Self {
            ours,
            fence,
            compared: BTreeSet::new(),
            ahead: None,
            passed: false,
            acknowledged: false,
        }
    }

    /// From where on a datanode's journal is to be read.
    pub fn from(&self) -> u64 {
        self.ours.max(1)
    }

    /// Whether the datanode's journal was looked at.
    pub fn is_compared(&self, datanode: DatanodeId) -> bool {
        self.compared.contains(&datanode)
    }

    /// Takes in the records that a datanode has from [`Self::from`] on; what it says when they go
    /// beyond the catalog. Records of an epoch before the catalog's last one were overruled by it.
    pub fn judge(&mut self, datanode: DatanodeId, records: &[JournalRecord]) -> Option<Ahead> {
        if !self.compared.insert(datanode) {
            return None;
        }
        let newest = records
            .iter()
            .filter(|record| record.fence.epoch >= self.fence.epoch)
            .map(|record| record.sequence)
            .max()?;
        if newest <= self.ours + IN_FLIGHT {
            return None;
        }
        let ahead = Ahead {
            datanode,
            newest,
            ours: self.ours,
        };
        self.acknowledged = false;
        self.ahead.get_or_insert(ahead.clone());
        Some(ahead)
    }

    /// Lets the tracker act once it may; to be called on every tick.
    pub fn tick(&mut self, datanodes: &DatanodeTable, min_write: u32, now: Duration) {
        self.passed |= self.refusal(datanodes, min_write, now).is_none();
    }

    /// Whether this tracker acts.
    pub fn has_passed(&self) -> bool {
        self.passed
    }

    /// Why this tracker must not change anything yet, or at all: each acknowledged record is on at
    /// least `min_write` datanodes, so that one fewer may be left uncompared.
    pub fn refusal(
        &self,
        datanodes: &DatanodeTable,
        min_write: u32,
        now: Duration,
    ) -> Option<String> {
        if self.passed {
            return None;
        }
        if let Some(ahead) = &self.ahead {
            return Some(ahead.to_string());
        }
        let missing = |node: &&Datanode| {
            !self.is_compared(node.id) && datanodes.liveness(node, now) != Liveness::Dead
        };
        let missing = datanodes.serving().filter(missing).count();
        (missing >= min_write.max(1) as usize).then(|| {
            format!("the journals of {missing} datanodes are not yet compared with the catalog")
        })
    }

    /// Why gc, repair and verdicts are held.
    pub fn hold(&self) -> Option<String> {
        let ahead = self.ahead.as_ref().filter(|_| !self.acknowledged)?;
        Some(ahead.to_string())
    }

    /// A human accepts what turned up after the start. What was seen at the start stays: only a
    /// rebuild helps there.
    pub fn acknowledge(&mut self) {
        self.acknowledged |= self.passed;
    }
}

#[cfg(test)]
mod tests {
    use dfs_protocol::{Epoch, Incarnation};

    use super::*;
    use crate::model::datanodes::LivenessPolicy;

    fn record(epoch: u64, sequence: u64) -> JournalRecord {
        JournalRecord {
            fence: fence(epoch),
            sequence,
            payload: Vec::new(),
        }
    }

    fn fence(epoch: u64) -> Fence {
        Fence {
            epoch: Epoch(epoch),
            incarnation: Incarnation(7),
        }
    }

    fn ahead(ours: u64, records: &[JournalRecord]) -> bool {
        let mut comparison = Comparison::new(ours, fence(5));
        comparison
            .judge(DatanodeId::from_u128(1), records)
            .is_some()
    }

    #[test]
    fn i34_a_journal_that_goes_on_beyond_the_catalog_stops_the_tracker() {
        assert!(!ahead(10, &[]));
        assert!(!ahead(10, &[record(5, 10)]));
        // One batch may have been in flight at a crash.
        assert!(!ahead(10, &[record(5, 10), record(5, 11)]));
        assert!(ahead(10, &[record(5, 10), record(5, 11), record(5, 12)]));
        assert!(ahead(10, &[record(9, 12)]));
        // Overruled by the catalog's own epoch.
        assert!(!ahead(10, &[record(4, 11), record(4, 12)]));
    }

    #[test]
    fn i34_what_turns_up_later_holds_gc_until_it_is_acknowledged() {
        let datanodes = DatanodeTable::new(LivenessPolicy::default(), 10);
        let mut comparison = Comparison::new(10, fence(5));
        comparison.tick(&datanodes, 2, Duration::ZERO);
        assert!(comparison.has_passed());
        comparison.judge(DatanodeId::from_u128(1), &[record(5, 20)]);
        assert_eq!(comparison.refusal(&datanodes, 2, Duration::ZERO), None);
        assert!(comparison.hold().is_some());
        comparison.acknowledge();
        assert_eq!(comparison.hold(), None);
    }

    #[test]
    fn i34_what_is_seen_at_the_start_cannot_be_acknowledged_away() {
        let datanodes = DatanodeTable::new(LivenessPolicy::default(), 10);
        let mut comparison = Comparison::new(10, fence(5));
        comparison.judge(DatanodeId::from_u128(1), &[record(5, 20)]);
        comparison.acknowledge();
        comparison.tick(&datanodes, 2, Duration::ZERO);
        assert!(!comparison.has_passed());
        let refusal = comparison.refusal(&datanodes, 2, Duration::ZERO);
        assert!(refusal.is_some_and(|why| why.contains("dfs tracker rebuild")));
        assert!(comparison.hold().is_some());
    }
}
