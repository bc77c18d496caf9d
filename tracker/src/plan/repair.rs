//! Repair: copies by urgency, deletions of stale, corrupt and excess replicas only after proof.
//! A badly spread chunk gets one more copy first; its worst replica then goes as excess.

use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::status::{RepairPriority, RepairStatus, RepairTaskStatus};

use super::copy_load::{CopyLoad, CopyLoads};
use super::tasks::{CopyTask, DeleteTask, TaskTable, Work};
use super::{Hold, RepairLimits, repair_copies, repair_deletes};
use crate::model::datanodes::DatanodeTable;
use crate::model::replicas::{ChunkView, Cursor, Queue, ReplicaMap};

/// What repair looks at.
#[derive(Debug, Clone, Copy)]
pub struct RepairView<'a> {
    /// The datanodes.
    pub datanodes: &'a DatanodeTable,
    /// The replicas, synced with `datanodes`.
    pub replicas: &'a ReplicaMap,
    /// Work under way.
    pub tasks: &'a TaskTable,
    /// Why repair is held.
    pub hold: Option<&'a Hold>,
}

/// Where and when the next plan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairCursors {
    /// In each queue, so that chunks that cannot be helped do not starve those behind them.
    queues: [Cursor; Queue::ALL.len()],
    /// Before that time nothing more is copied off datanodes that leave: their rate is used up.
    emptying: Duration,
}

/// Limits that a plan ran into; to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairLimited {
    /// Copies not planned because the total is reached.
    pub total: u64,
    /// Copies not planned because every source sends enough already.
    pub sources: u64,
    /// Copies not planned because no datanode can take them now.
    pub targets: u64,
    /// Copies not planned because a silent datanode may return.
    pub delayed: u64,
    /// Deletions left for the next plan.
    pub deletes: u64,
    /// Copies off leaving datanodes not planned because their rate is used up.
    pub emptying: u64,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairPlan {
    /// Copies, most urgent first.
    pub copies: Vec<CopyTask>,
    /// Deletions.
    pub deletes: Vec<DeleteTask>,
    /// For the next plan.
    pub cursors: RepairCursors,
    /// Limits that were hit.
    pub limited: RepairLimited,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.deletes.is_empty()
    }

    /// Everything planned, copies first; for [`TaskTable::start`].
    pub fn into_work(self) -> impl Iterator<Item = Work> {
        let copies = self.copies.into_iter().map(Work::Copy);
        copies.chain(self.deletes.into_iter().map(Work::Delete))
    }
}

/// Plans repair. Nothing is planned while held.
pub fn plan(
    view: &RepairView<'_>,
    cursors: &RepairCursors,
    limits: &RepairLimits,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> RepairPlan {
    let mut draft = Draft::new(*view, *limits, now, rng);
    draft.plan.cursors = *cursors;
    if view.hold.is_some() {
        return draft.plan;
    }
    for queue in Queue::ALL {
        draft.walk(queue);
    }
    draft.plan
}

/// What people want to know of repair. `rate` is the measured rate in bytes per second.
pub fn status(replicas: &ReplicaMap, tasks: &TaskTable, rate: Option<f64>) -> RepairStatus {
    let mut copies: Vec<RepairTaskStatus> = tasks
        .iter()
        .filter_map(|task| match &task.work {
            Work::Copy(copy) => Some(RepairTaskStatus {
                chunk: copy.chunk.id,
                priority: copy.priority()?,
                source: *copy.sources.first()?,
                target: copy.target,
                bytes: copy.chunk.length,
            }),
            Work::Delete(_) | Work::Verify(_) => None,
        })
        .collect();
    copies.sort_by_key(|copy| copy.priority);
    copies.truncate(100);
    let counters = replicas.counters();
    let queued = RepairPriority::ALL.map(|priority| (priority, counters.of_priority(priority)));
    RepairStatus {
        queued: queued.into_iter().collect(),
        active: u64::from(tasks.repair_copies()),
        bytes_remaining: counters.repair_bytes,
        eta_seconds: rate.map(|rate| eta(counters.repair_bytes, rate)),
        tasks: copies,
    }
}

/// Seconds that bytes take at a rate of at least one byte a second.
// Positive and below 2^64: bytes over at least one byte a second.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn eta(bytes: u64, rate: f64) -> u64 {
    (bytes as f64 / rate.max(1.0)).ceil() as u64
}

/// A plan in the making, with the room that is left.
pub(super) struct Draft<'a> {
    pub(super) view: RepairView<'a>,
    pub(super) limits: RepairLimits,
    pub(super) now: Duration,
    pub(super) rng: &'a mut fastrand::Rng,
    pub(super) plan: RepairPlan,
    /// Datanodes whose replicas may yet turn up.
    pub(super) unreported: u32,
    /// No datanode is about to report for the first time.
    pub(super) settled: bool,
    planned: CopyLoads,
}

impl<'a> Draft<'a> {
    fn new(
        view: RepairView<'a>,
        limits: RepairLimits,
        now: Duration,
        rng: &'a mut fastrand::Rng,
    ) -> Self {
        let soon = view.datanodes.policy().dead_window().min(limits.delay);
        Self {
            view,
            limits,
            now,
            rng,
            plan: RepairPlan::default(),
            unreported: view.datanodes.awaiting_report(limits.delay, now),
            settled: view.datanodes.awaiting_report(soon, now) == 0,
            planned: CopyLoads::default(),
        }
    }

    fn walk(&mut self, queue: Queue) {
        let replicas = self.view.replicas;
        let from = self.plan.cursors.queues[queue.index()];
        let head = replicas
            .queue(queue, Cursor::default())
            .take_while(|(next, _)| *next <= from);
        let chunks = replicas.queue(queue, from).chain(head);
        for (next, chunk) in chunks.take(self.limits.scan_per_tick) {
            if !self.look_at(queue, &chunk) {
                break;
            }
            self.plan.cursors.queues[queue.index()] = next;
        }
    }

    /// Whether there is room to look at more of this queue.
    fn look_at(&mut self, queue: Queue, chunk: &ChunkView) -> bool {
        if self
            .view
            .tasks
            .is_postponed(chunk.expected.chunk.id, self.now)
        {
            return true;
        }
        match queue {
            // Nothing is left to copy: a human must act.
            Queue::Repair(RepairPriority::CorruptOnly) => false,
            Queue::Repair(RepairPriority::BadlySpread) => {
                self.has_copy_room() && {
                    repair_copies::spread(self, chunk);
                    true
                }
            }
            Queue::Repair(
                priority @ (RepairPriority::LastReplica
                | RepairPriority::UnderThird
                | RepairPriority::UnderReplicated),
            ) => {
                self.has_copy_room() && {
                    repair_copies::restore(self, chunk, priority);
                    true
                }
            }
            Queue::Excess => {
                self.has_delete_room() && {
                    repair_deletes::excess(self, chunk);
                    true
                }
            }
            Queue::Irregular => {
                self.has_delete_room() && {
                    repair_deletes::irregular(self, chunk);
                    true
                }
            }
        }
    }

    pub(super) fn has_copy_room(&mut self) -> bool {
        let load = self.view.tasks.copies().all() + self.planned.all();
        let room = load.has_room(self.limits.copies_total, self.limits.small_copy);
        self.plan.limited.total += u64::from(!room);
        room
    }

    /// Whether more may be copied off datanodes that leave.
    pub(super) fn may_empty(&mut self) -> bool {
        let room = self.now >= self.plan.cursors.emptying;
        self.plan.limited.emptying += u64::from(!room);
        room
    }

    /// So many bytes leave: later ones wait until that fits the rate.
    pub(super) fn empties(&mut self, bytes: u64) {
        if let Some(rate) = self.limits.decommission_rate {
            let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            let from = self.plan.cursors.emptying.max(self.now);
            self.plan.cursors.emptying = from.saturating_add(takes);
        }
    }

    pub(super) fn has_delete_room(&mut self) -> bool {
        let room = self.plan.deletes.len() < self.limits.deletes_per_tick as usize;
        self.plan.limited.deletes += u64::from(!room);
        room
    }

    pub(super) fn sends(&self, id: DatanodeId) -> CopyLoad {
        self.view.tasks.copies().from(id) + self.planned.from(id)
    }

    /// What the datanode is to receive, under way and planned.
    pub(super) fn receives(&self, id: DatanodeId) -> CopyLoad {
        self.view.tasks.copies().to(id) + self.planned.to(id)
    }

    /// Whether the datanode may receive one more copy now.
    pub(super) fn may_receive(&self, id: DatanodeId, priority: RepairPriority) -> bool {
        let load = self.receives(id);
        load.has_room(self.limits.copies_to, self.limits.small_copy)
            && self.limits.rate_has_room(load, priority)
    }

    /// Whether a datanode with this load may send one more copy now.
    pub(super) fn may_send(&self, load: CopyLoad, priority: RepairPriority) -> bool {
        load.has_room(self.limits.copies_from, self.limits.small_copy)
            && self.limits.rate_has_room(load, priority)
    }

    pub(super) fn add_copy(&mut self, copy: CopyTask) {
        self.planned.begin(&copy);
        self.plan.copies.push(copy);
    }
}
