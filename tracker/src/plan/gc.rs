//! Garbage collection: condemn first, durably and in the serial order of commits; delete only what
//! is condemned, no kept checkpoint needs, and a full fresh report shows; forget last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::{ChunkId, ChunkVersion};

use super::tasks::{DeleteReason, DeleteTask, TaskTable};
use super::{GcLimits, Hold};
use crate::model::datanodes::{DatanodeTable, Picture};
use crate::model::leases::LeaseTable;
use crate::model::op::{CheckpointRecord, CondemnedRecord};
use crate::model::replicas::{ReplicaMap, UnknownChunk};

/// A condemned chunk, as the catalog has it, and since when this tracker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condemned {
    /// Replicas up to this version go.
    pub version: ChunkVersion,
    /// What the bytes are for.
    pub kind: ChunkKind,
    /// Journal sequence of the condemnation.
    pub sequence: u64,
    /// Monotonic time at which this tracker learned of it.
    pub seen: Duration,
}

/// Every condemned chunk of the catalog.
#[derive(Debug, Clone, Default)]
pub struct CondemnedTable(BTreeMap<ChunkId, Condemned>);

impl CondemnedTable {
    /// Knows of none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the catalog's record: at start, and whenever an operation condemned a chunk.
    pub fn insert(&mut self, chunk: ChunkId, record: &CondemnedRecord, now: Duration) {
        let CondemnedRecord {
            version,
            kind,
            sequence,
            condemned: _,
        } = record;
        let seen = self.0.get(&chunk).map_or(now, |known| known.seen);
        let known = Condemned {
            version: *version,
            kind: *kind,
            sequence: *sequence,
            seen,
        };
        self.0.insert(chunk, known);
    }

    /// The catalog forgot it.
    pub fn remove(&mut self, chunk: ChunkId) {
        self.0.remove(&chunk);
    }

    /// One chunk.
    pub fn get(&self, chunk: ChunkId) -> Option<&Condemned> {
        self.0.get(&chunk)
    }

    /// Whether the deletion of some replicas waits for a checkpoint beyond this sequence.
    pub fn has_newer_than(&self, sequence: u64) -> bool {
        self.0
            .values()
            .any(|condemned| condemned.sequence > sequence)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is condemned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What gc looks at.
#[derive(Debug, Clone, Copy)]
pub struct GcView<'a> {
    /// The datanodes.
    pub datanodes: &'a DatanodeTable,
    /// The replicas, synced with `datanodes`.
    pub replicas: &'a ReplicaMap,
    /// The write leases. A checkpoint that is being written must be under one too.
    pub leases: &'a LeaseTable,
    /// Work under way.
    pub tasks: &'a TaskTable,
    /// Condemned chunks.
    pub condemned: &'a CondemnedTable,
    /// Kept checkpoints, oldest first.
    pub checkpoints: &'a [CheckpointRecord],
    /// Whether checkpoints are made at all: while none exists yet, nothing is deleted.
    pub checkpoints_enabled: bool,
    /// Why gc is held.
    pub hold: Option<&'a Hold>,
}

/// Where the next plan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcCursors {
    unknown: Option<ChunkId>,
    condemned: Option<ChunkId>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcPlan {
    /// For `Op::Condemn`, with the newest version reported.
    pub condemn: Vec<(ChunkId, ChunkVersion, ChunkKind)>,
    /// Replicas of condemned chunks to delete.
    pub deletes: Vec<DeleteTask>,
    /// For `Op::Forget`.
    pub forget: Vec<ChunkId>,
    /// For the next plan.
    pub cursors: GcCursors,
    /// Whether a limit cut the plan short.
    pub limited: bool,
}

impl GcPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.condemn.is_empty() && self.deletes.is_empty() && self.forget.is_empty()
    }
}

/// Plans garbage collection. Nothing is planned while held.
pub fn plan(view: &GcView<'_>, cursors: &GcCursors, limits: &GcLimits, now: Duration) -> GcPlan {
    let mut plan = GcPlan {
        cursors: *cursors,
        ..GcPlan::default()
    };
    if view.hold.is_some() {
        return plan;
    }
    let kept: BTreeSet<ChunkId> = view
        .checkpoints
        .iter()
        .flat_map(|checkpoint| checkpoint.chunks.iter().map(|chunk| chunk.id))
        .collect();
    collect(view, &kept, limits, now, &mut plan);
    forget(view, &kept, limits, now, &mut plan);
    plan
}

fn collect(
    view: &GcView<'_>,
    kept: &BTreeSet<ChunkId>,
    limits: &GcLimits,
    now: Duration,
    plan: &mut GcPlan,
) {
    let start = plan.cursors.unknown.map_or(ChunkId::from_u128(0), after);
    let head = view
        .replicas
        .unknown_from(ChunkId::from_u128(0))
        .take_while(|chunk| chunk.id < start);
    let chunks = view.replicas.unknown_from(start).chain(head);
    for chunk in chunks.take(limits.scan_per_tick) {
        if plan.condemn.len() >= limits.condemn_per_tick
            || plan.deletes.len() >= limits.deletes_per_tick
        {
            plan.limited = true;
            return;
        }
        plan.cursors.unknown = Some(chunk.id);
        if kept.contains(&chunk.id) || view.leases.is_leased(chunk.id, now) {
            continue;
        }
        let newest = chunk
            .replicas
            .iter()
            .map(|(_, sealed)| sealed.version)
            .max();
        let condemned = view.condemned.get(chunk.id);
        if let Some(version) = newest.filter(|v| condemned.is_none_or(|c| *v > c.version))
            && old_enough(view, &chunk, limits, now)
        {
            plan.condemn.push((chunk.id, version, chunk.kind));
        }
        if let Some(condemned) = condemned.filter(|condemned| deletable(view, condemned)) {
            delete(view, &chunk, condemned, now, plan);
        }
    }
}

/// Age counts from the last lease renewal; an abandoned upload does not wait (I10, I11).
fn old_enough(view: &GcView<'_>, chunk: &UnknownChunk, limits: &GcLimits, now: Duration) -> bool {
    let renewed = view.leases.last_renewal(chunk.id).unwrap_or_default();
    let since = chunk.first_seen.max(renewed);
    view.leases.is_abandoned(chunk.id) || now.saturating_sub(since) >= limits.orphan_age
}

/// A rebuild from the oldest kept checkpoint must not miss a chunk that it still names.
fn deletable(view: &GcView<'_>, condemned: &Condemned) -> bool {
    match view
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.sequence)
        .min()
    {
        Some(oldest) => condemned.sequence <= oldest,
        None => !view.checkpoints_enabled,
    }
}

fn delete(
    view: &GcView<'_>,
    chunk: &UnknownChunk,
    condemned: &Condemned,
    now: Duration,
    plan: &mut GcPlan,
) {
    for (datanode, sealed) in &chunk.replicas {
        let fresh = view.datanodes.get(*datanode).is_some_and(|node| {
            let holder = view.datanodes.view(node, now);
            holder.readable() && holder.current
        });
        if fresh
            && sealed.version <= condemned.version
            && !view.tasks.is_deleting(chunk.id, *datanode)
        {
            plan.deletes.push(DeleteTask {
                chunk: chunk.id,
                version: sealed.version,
                kind: chunk.kind,
                datanode: *datanode,
                reason: DeleteReason::Condemned,
            });
        }
    }
}

/// A condemned chunk is forgotten when no registered datanode has a replica of it and none can
/// turn up: every datanode that is not tombstoned has reported.
fn forget(
    view: &GcView<'_>,
    kept: &BTreeSet<ChunkId>,
    limits: &GcLimits,
    now: Duration,
    plan: &mut GcPlan,
) {
    let blind = view.datanodes.iter().any(|node| match node.record.admin {
        AdminState::InService | AdminState::Decommissioning | AdminState::Decommissioned => {
            node.picture != Picture::Current
        }
        AdminState::Pending | AdminState::Tombstoned => false,
    });
    if blind {
        return;
    }
    let start = plan.cursors.condemned.map_or(ChunkId::from_u128(0), after);
    let table = &view.condemned.0;
    let chunks = table.range(start..).chain(table.range(..start));
    for (chunk, condemned) in chunks.take(limits.scan_per_tick) {
        if plan.forget.len() >= limits.forget_per_tick {
            plan.limited = true;
            return;
        }
        plan.cursors.condemned = Some(*chunk);
        let gone = view.replicas.unknown(*chunk).is_none()
            && !view.replicas.is_known(*chunk)
            && !kept.contains(chunk)
            && !view.leases.is_leased(*chunk, now)
            && view.tasks.of_chunk(*chunk).next().is_none();
        if gone
            && deletable(view, condemned)
            && now.saturating_sub(condemned.seen) >= limits.forget_after
        {
            plan.forget.push(*chunk);
        }
    }
}

fn after(chunk: ChunkId) -> ChunkId {
    ChunkId::from_u128(chunk.as_u128().wrapping_add(1))
}
