//! Derived state: each chunk's health, the queues and the counters, kept up by
//! [`ReplicaMap::reassess`] and recomputed to compare.

use dfs_protocol::chunk::SetDigest;
use dfs_protocol::status::{ChunkHealth, RepairPriority};

use super::super::health::{Assessment, HolderView, ReplicaClass, assess};
use super::{BitSet, Need, Queue, ReplicaMap};

/// Numbers over all chunks that the catalog knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chunks.
    pub chunks: u64,
    /// By [`ChunkHealth`], in the order of [`ChunkHealth::ALL`].
    pub health: [u64; 6],
    /// By [`RepairPriority`], in the order of [`RepairPriority::ALL`].
    pub repair: [u64; 5],
    /// Bytes of the copies that are missing and possible.
    pub repair_bytes: u64,
    /// Chunks of which no good replica was reported or promised, live or not.
    pub unreported: u64,
}

impl Counters {
    /// Chunks of one health.
    pub fn of_health(&self, health: ChunkHealth) -> u64 {
        self.health[health as usize]
    }

    /// Chunks that wait with one priority.
    pub fn of_priority(&self, priority: RepairPriority) -> u64 {
        self.repair[priority as usize]
    }

    /// Whether every chunk is healthy.
    pub fn all_healthy(&self) -> bool {
        self.of_health(ChunkHealth::Healthy) == self.chunks
    }
}

impl ReplicaMap {
    /// Judges one chunk anew and moves it between queues and counters.
    pub(super) fn reassess(&mut self, at: u32) {
        self.refresh_odd(at);
        let (found, seen) = self.judge(at);
        let slot = self.slot(at);
        let (need, deficit) = need(&found, slot.factor());
        let irregular = self.has_irregular(at);
        self.uncount_slot(at);
        let slot = self.slot_mut(at);
        slot.set_health(found.health, need);
        slot.deficit = deficit;
        slot.set_seen(seen);
        self.count_slot(at);
        if irregular {
            self.queues[Queue::Irregular.index()].insert(at);
        }
    }

    /// Enters a slot's stored state into counters and queues.
    pub(super) fn count_slot(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        let counters = &mut self.counters;
        counters.chunks += 1;
        counters.health[slot.health() as usize] += 1;
        counters.repair_bytes += u64::from(slot.deficit) * slot.length();
        counters.unreported += u64::from(!slot.seen());
        match slot.need() {
            Need::Nothing => {}
            Need::Repair(priority) => {
                counters.repair[priority as usize] += 1;
                self.queues[priority as usize].insert(at);
            }
            Need::Excess => {
                self.queues[Queue::Excess.index()].insert(at);
            }
        }
    }

    /// Takes a slot's stored state out of counters and queues.
    pub(super) fn uncount_slot(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        let counters = &mut self.counters;
        counters.chunks -= 1;
        counters.health[slot.health() as usize] -= 1;
        counters.repair_bytes -= u64::from(slot.deficit) * slot.length();
        counters.unreported -= u64::from(!slot.seen());
        match slot.need() {
            Need::Nothing => {}
            Need::Repair(priority) => {
                counters.repair[priority as usize] -= 1;
                self.queues[priority as usize].remove(at);
            }
            Need::Excess => {
                self.queues[Queue::Excess.index()].remove(at);
            }
        }
        self.queues[Queue::Irregular.index()].remove(at);
    }

    /// Recomputes everything derived and compares; says what differs. Costs a walk over all
    /// chunks: for tests and fsck.
    pub fn check_derived(&self) -> Result<(), String> {
        let mut fresh = Counters::default();
        let mut queues: [BitSet; 7] = Default::default();
        let mut digests = vec![SetDigest::default(); self.nodes.len()];
        for (at, slot) in self.occupied() {
            let (found, seen) = self.judge(at);
            let (need, deficit) = need(&found, slot.factor());
            fresh.chunks += 1;
            fresh.health[found.health as usize] += 1;
            fresh.repair_bytes += u64::from(deficit) * slot.length();
            fresh.unreported += u64::from(!seen);
            match need {
                Need::Nothing => {}
                Need::Repair(priority) => {
                    fresh.repair[priority as usize] += 1;
                    queues[priority as usize].insert(at);
                }
                Need::Excess => {
                    queues[Queue::Excess.index()].insert(at);
                }
            }
            if self.has_irregular(at) {
                queues[Queue::Irregular.index()].insert(at);
            }
            for node in slot.nodes.as_slice() {
                let versions = self.versions(at, *node);
                for sealed in &versions {
                    digests[usize::from(*node)].insert(sealed);
                }
                if versions.is_empty() && !self.promised.contains_key(&(at, *node)) {
                    return Err(format!(
                        "{} lists a datanode that does not list it",
                        slot.id
                    ));
                }
            }
        }
        for unknown in self.unknown.values() {
            for (node, sealed) in &unknown.replicas {
                digests[usize::from(*node)].insert(sealed);
            }
        }
        self.compare(&fresh, &queues, &digests)
    }

    fn compare(
        &self,
        fresh: &Counters,
        queues: &[BitSet; 7],
        digests: &[SetDigest],
    ) -> Result<(), String> {
        if *fresh != self.counters {
            return Err(format!(
                "counters say {:?}, a recount {fresh:?}",
                self.counters
            ));
        }
        for queue in Queue::ALL {
            let (kept, found) = (&self.queues[queue.index()], &queues[queue.index()]);
            if !kept.iter().eq(found.iter()) || kept.len() != found.len() {
                return Err(format!("queue {queue:?} disagrees with a recount"));
            }
        }
        for (node, digest) in self.nodes.iter().zip(digests) {
            let listed = node
                .slots
                .iter()
                .filter(|at| self.slot(*at).occupied())
                .count();
            if node.digest != *digest || node.slots.len() != listed as u64 {
                return Err(format!(
                    "the set of datanode {} disagrees with a recount",
                    node.id
                ));
            }
        }
        Ok(())
    }

    fn judge(&self, at: u32) -> (Assessment, bool) {
        let slot = self.slot(at);
        let mut holders: Vec<(ReplicaClass, HolderView)> = Vec::with_capacity(slot.nodes.len() + 1);
        for node in slot.nodes.as_slice() {
            holders.push((self.class(at, *node), self.node(*node).view));
        }
        for node in self.set_aside(at) {
            holders.push((ReplicaClass::Corrupt, self.node(node).view));
        }
        let seen = holders.iter().any(|(class, _)| class.good());
        (assess(slot.factor(), self.rule, &holders), seen)
    }

    /// Whether some stale, corrupt or newer replica is on a volume.
    fn has_irregular(&self, at: u32) -> bool {
        let slot = self.slot(at);
        let mut nodes = slot.nodes.as_slice().iter();
        slot.odd()
            && (nodes.any(|node| !self.class(at, *node).good())
                || self.further_of(at).next().is_some())
    }

    /// Marks whether the side maps hold anything of this slot, and forgets replicas set aside that
    /// were replaced meanwhile.
    fn refresh_odd(&mut self, at: u32) {
        let range = (at, 0)..=(at, u16::MAX);
        let damaged = self.damaged.range(range.clone()).next().is_some();
        let odd = damaged
            || self.irregular.range(range.clone()).next().is_some()
            || self.further.range(range.clone()).next().is_some()
            || self.promised.range(range.clone()).next().is_some();
        self.slot_mut(at).set_odd(odd);
        if !damaged {
            return;
        }
        let (found, _) = self.judge(at);
        if found.counted >= self.slot(at).factor() {
            for node in self.set_aside(at).collect::<Vec<_>>() {
                self.damaged.remove(&(at, node));
            }
        }
    }
}

fn need(found: &Assessment, factor: u32) -> (Need, u8) {
    let missing = u8::try_from(factor.saturating_sub(found.counted)).unwrap_or(u8::MAX);
    match (found.health, found.priority) {
        (_, Some(RepairPriority::CorruptOnly)) => (Need::Repair(RepairPriority::CorruptOnly), 0),
        (_, Some(RepairPriority::BadlySpread)) => (Need::Repair(RepairPriority::BadlySpread), 1),
        (_, Some(priority)) => (Need::Repair(priority), missing),
        (ChunkHealth::OverReplicated, None) => (Need::Excess, 0),
        (_, None) => (Need::Nothing, 0),
    }
}
