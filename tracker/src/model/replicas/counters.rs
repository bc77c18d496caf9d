//! Derived state: each chunk's health, the queues and the counters, kept up by
//! [`ReplicaMap::reassess`] and recomputed to compare.

use dfs_protocol::chunk::SetDigest;
use dfs_protocol::file::MAX_FACTOR;
use dfs_protocol::status::{ChunkHealth, RepairPriority, Shortage};

use super::super::health::{Assessment, HolderView, ReplicaClass, assess};
use super::slot::Mark;
use super::{BitSet, Need, Queue, ReplicaMap, Slot};

/// Holders of a chunk that are judged without an allocation.
const FEW: usize = 6;

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
    /// Chunks with too few replicas that count by [`Shortage`], in the order of [`Shortage::ALL`].
    pub shortage: [u64; 4],
    /// The part of [`Self::repair_bytes`] that a raised factor asks for.
    pub raising_bytes: u64,
    /// Chunks by wanted replicas; the last one takes all that want more.
    pub wanted: [u64; MAX_FACTOR as usize + 1],
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

    /// Chunks that fall short for one cause.
    pub fn of_shortage(&self, cause: Shortage) -> u64 {
        self.shortage[cause as usize]
    }

    /// The largest factor that some chunk is to have, and how many chunks.
    pub fn largest_factor(&self) -> (u32, u64) {
        let mut found = (0, 0);
        for (factor, count) in (0..).zip(self.wanted) {
            if count > 0 {
                found = (factor, count);
            }
        }
        found
    }

    fn add(&mut self, slot: &Slot) {
        self.chunks += 1;
        self.health[slot.health() as usize] += 1;
        self.repair_bytes += slot.missing_bytes();
        self.unreported += u64::from(!slot.seen());
        self.wanted[wanted_class(slot)] += 1;
        if let Need::Repair(priority) = slot.need() {
            self.repair[priority as usize] += 1;
        }
        if let Some(cause) = slot.shortage() {
            self.shortage[cause as usize] += 1;
            if cause == Shortage::Raising {
                self.raising_bytes += slot.missing_bytes();
            }
        }
    }

    fn subtract(&mut self, slot: &Slot) {
        self.chunks -= 1;
        self.health[slot.health() as usize] -= 1;
        self.repair_bytes -= slot.missing_bytes();
        self.unreported -= u64::from(!slot.seen());
        self.wanted[wanted_class(slot)] -= 1;
        if let Need::Repair(priority) = slot.need() {
            self.repair[priority as usize] -= 1;
        }
        if let Some(cause) = slot.shortage() {
            self.shortage[cause as usize] -= 1;
            if cause == Shortage::Raising {
                self.raising_bytes -= slot.missing_bytes();
            }
        }
    }

    /// Whether every chunk is healthy.
    pub fn all_healthy(&self) -> bool {
        self.of_health(ChunkHealth::Healthy) == self.chunks
    }
}

impl ReplicaMap {
    /// Judges one chunk anew and moves it between queues and counters.
    pub(super) fn reassess(&mut self, at: u32) {
        self.reassess_marked(at, None);
    }

    /// As [`Self::reassess`]; `mark` says what just happened to the chunk, and counts when it has
    /// too few replicas now.
    pub(super) fn reassess_marked(&mut self, at: u32, mark: Option<Mark>) {
        self.refresh_odd(at);
        self.rejudge(at, mark);
    }

    /// As [`Self::reassess_marked`] of a slot of which the side maps hold what they held before.
    pub(super) fn rejudge(&mut self, at: u32, mark: Option<Mark>) {
        let (found, seen) = self.judge(at);
        let irregular = self.has_irregular(at);
        self.uncount_slot(at);
        let slot = self.slot_mut(at);
        if let Some(mark) = mark {
            slot.mark(mark);
        }
        slot.take_in(&found, seen);
        self.count_slot(at);
        if irregular {
            self.queues[Queue::Irregular.index()].insert(at);
        }
    }

    /// Enters a slot's stored state into counters and queues.
    pub(super) fn count_slot(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        self.counters.add(slot);
        self.short.note(at, slot.shortage());
        match slot.need() {
            Need::Nothing => {}
            Need::Repair(priority) => {
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
        self.counters.subtract(slot);
        match slot.need() {
            Need::Nothing => {}
            Need::Repair(priority) => {
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
        let mut short = Vec::new();
        let mut digests = vec![SetDigest::default(); self.nodes.len()];
        for (at, slot) in self.occupied() {
            let (found, seen) = self.judge(at);
            let mut judged = slot.clone();
            judged.take_in(&found, seen);
            fresh.add(&judged);
            short.extend(judged.shortage().map(|cause| (at, cause)));
            match judged.need() {
                Need::Nothing => {}
                Need::Repair(priority) => {
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
        self.short.check(&short)?;
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
        let present = slot.nodes.as_slice().iter();
        let present = present.map(|node| (self.class(at, *node), self.node(*node).view));
        let aside = self.set_aside(at);
        let aside = aside.map(|node| (ReplicaClass::Corrupt, self.node(node).view));
        let mut few = [(ReplicaClass::Corrupt, HolderView::NOBODY); FEW];
        let mut count = 0;
        let mut all = present.chain(aside);
        for (place, holder) in few.iter_mut().zip(&mut all) {
            *place = holder;
            count += 1;
        }
        let many: Vec<_>;
        let rest: Vec<_> = all.collect();
        let holders = if rest.is_empty() {
            &few[..count]
        } else {
            many = few.iter().copied().chain(rest).collect();
            &many
        };
        let seen = holders.iter().any(|(class, _)| class.good());
        (assess(slot.factor(), self.rule, holders), seen)
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

impl Slot {
    /// Takes over how the chunk was judged.
    fn take_in(&mut self, found: &Assessment, seen: bool) {
        let (need, deficit) = need(found, self.factor());
        self.set_health(found.health, need);
        self.deficit = deficit;
        self.set_seen(seen);
        self.set_enough(found);
    }

    fn missing_bytes(&self) -> u64 {
        u64::from(self.deficit) * self.length()
    }
}

fn wanted_class(slot: &Slot) -> usize {
    slot.factor().min(MAX_FACTOR) as usize
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
