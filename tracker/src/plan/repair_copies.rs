//! Which copies a chunk needs now.

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::RepairPriority;

use super::placement::{choose_idlest, labels};
use super::repair::Draft;
use super::tasks::{CopyReason, CopyTask, Work};
use crate::model::health::{Label, SpreadPenalty};
use crate::model::replicas::{ChunkView, ReplicaView};

/// Host and zone of a holder.
type Place = (Label, Option<Label>);

/// Sources named in one order.
const SOURCES: usize = 3;

/// Copies for a chunk that has too few replicas.
pub(super) fn restore(draft: &mut Draft<'_>, chunk: &ChunkView, priority: RepairPriority) {
    let mut coming = copies_under_way(draft, chunk);
    let wanted = missing(draft, chunk, coming.len());
    let emptying = only_leaves(draft, chunk);
    for _ in 0..wanted {
        if !draft.has_copy_room() || emptying && !draft.may_empty() {
            return;
        }
        let mut taken: Vec<Place> = kept(draft, chunk).map(place).collect();
        taken.extend(
            chunk
                .replicas
                .iter()
                .filter(|r| may_return(draft, r))
                .map(place),
        );
        let nodes = coming.iter().filter_map(|id| draft.view.datanodes.get(*id));
        taken.extend(nodes.map(labels));
        let Some(target) = order(draft, chunk, priority, &taken, &coming, |_| true) else {
            return;
        };
        coming.push(target);
        if emptying {
            draft.empties(chunk.expected.chunk.length);
        }
    }
}

/// Whether it has all its replicas, some on datanodes that leave: nothing is lost by waiting.
fn only_leaves(draft: &Draft<'_>, chunk: &ChunkView) -> bool {
    kept(draft, chunk).count() >= chunk.expected.factor as usize
}

/// One more copy for a badly spread chunk, if some datanode makes the spread better.
pub(super) fn spread(draft: &mut Draft<'_>, chunk: &ChunkView) {
    let id = chunk.expected.chunk.id;
    if !draft.settled || draft.view.tasks.of_chunk(id).next().is_some() {
        return;
    }
    let rule = draft.view.replicas.rule();
    let factor = chunk.expected.factor;
    let places: Vec<Place> = kept(draft, chunk)
        .filter(|r| r.holder.counts())
        .map(place)
        .collect();
    let now = rule.penalty(factor, &places);
    let mut without: Vec<(SpreadPenalty, Vec<Place>)> = (0..places.len())
        .map(|victim| {
            let mut rest = places.clone();
            rest.swap_remove(victim);
            (rule.penalty(factor, &rest), rest)
        })
        .collect();
    without.sort_by_key(|(penalty, _)| *penalty);
    for (_, rest) in without {
        let better = |at: Place| {
            let mut with = rest.clone();
            with.push(at);
            rule.penalty(factor, &with) < now
        };
        if order(
            draft,
            chunk,
            RepairPriority::BadlySpread,
            &rest,
            &[],
            better,
        )
        .is_some()
        {
            return;
        }
    }
}

/// Plans one copy; returns its target, or none when a limit or the lack of a datanode forbids it.
fn order(
    draft: &mut Draft<'_>,
    chunk: &ChunkView,
    priority: RepairPriority,
    taken: &[Place],
    coming: &[DatanodeId],
    admits: impl Fn(Place) -> bool,
) -> Option<DatanodeId> {
    let Some(sources) = sources(draft, chunk, priority) else {
        draft.plan.limited.sources += 1;
        return None;
    };
    let sealed = chunk.expected.chunk;
    let mut rng = draft.rng.fork();
    // A doubtful deletion could still take a replica that is written there now.
    let tasks = draft.view.tasks;
    let free = |id: DatanodeId| {
        !coming.contains(&id)
            && !chunk
                .replicas
                .iter()
                .any(|replica| replica.present && replica.datanode == id)
            && !tasks.is_going(sealed.id, id)
            && draft.may_receive(id, priority)
    };
    let admit = |node: &_| admits(labels(node));
    let target = choose_idlest(
        draft.view.datanodes,
        sealed.length,
        taken,
        |node| free(node.id) && admit(node),
        |id| draft.receives(id).bytes,
        draft.now,
        &mut rng,
    );
    let Some(target) = target else {
        draft.plan.limited.targets += 1;
        return None;
    };
    draft.add_copy(CopyTask {
        chunk: sealed,
        reason: CopyReason::Repair(priority),
        sources,
        target,
    });
    Some(target)
}

/// How many copies to order now. A silent datanode's replica counts until the delay is over, and a
/// datanode that has not reported yet may hold one too; a last live copy does not wait.
fn missing(draft: &mut Draft<'_>, chunk: &ChunkView, coming: usize) -> u32 {
    let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    let coming = count(coming);
    let counted = count(kept(draft, chunk).filter(|r| r.holder.counts()).count());
    let readable = count(kept(draft, chunk).filter(|r| r.holder.readable()).count());
    let missing = chunk
        .expected
        .factor
        .saturating_sub(counted.saturating_add(coming));
    let silent = count(
        chunk
            .replicas
            .iter()
            .filter(|r| may_return(draft, r))
            .count(),
    );
    let waiting = silent.saturating_add(draft.unreported);
    let patient = missing.saturating_sub(waiting);
    let last = draft.settled && readable + coming <= 1 && !all_others_in_maintenance(draft, chunk);
    let now = if last {
        patient.max(1).min(missing)
    } else {
        patient
    };
    draft.plan.limited.delayed += u64::from(missing - now);
    now
}

/// Good replicas that nothing is about to delete.
fn kept<'c>(draft: &Draft<'_>, chunk: &'c ChunkView) -> impl Iterator<Item = &'c ReplicaView> {
    let id = chunk.expected.chunk.id;
    let tasks = draft.view.tasks;
    let going: Vec<DatanodeId> = chunk
        .replicas
        .iter()
        .map(|replica| replica.datanode)
        .filter(|node| tasks.is_going(id, *node))
        .collect();
    chunk
        .replicas
        .iter()
        .filter(move |r| r.class.good() && !going.contains(&r.datanode) && r.holder.readable())
}

/// Whether every replica that cannot be read is on a datanode that said when it comes back.
fn all_others_in_maintenance(draft: &Draft<'_>, chunk: &ChunkView) -> bool {
    let mut away = chunk
        .replicas
        .iter()
        .filter(|r| r.class.good() && !r.holder.live);
    let announced = |replica: &ReplicaView| {
        let node = draft.view.datanodes.get(replica.datanode);
        node.is_some_and(|node| draft.view.datanodes.in_maintenance(node, draft.now))
    };
    away.clone().next().is_some() && away.all(announced)
}

fn may_return(draft: &Draft<'_>, replica: &ReplicaView) -> bool {
    let Some(node) = draft.view.datanodes.get(replica.datanode) else {
        return false;
    };
    replica.class.good()
        && !replica.holder.live
        && replica.holder.admin == AdminState::InService
        && !node.loss_acknowledged
        && (draft.view.datanodes.silence(node, draft.now) < draft.limits.delay
            || draft.view.datanodes.in_maintenance(node, draft.now))
}

/// Valid replicas to copy from, least busy first; none when each sends enough already. Stale,
/// corrupt and newer ones are never among them (I7).
fn sources(
    draft: &mut Draft<'_>,
    chunk: &ChunkView,
    priority: RepairPriority,
) -> Option<Vec<DatanodeId>> {
    let mut ranked: Vec<(bool, u64, bool, u32, DatanodeId)> = Vec::new();
    let usable: Vec<_> = kept(draft, chunk).copied().collect();
    for replica in usable {
        let load = draft.sends(replica.datanode);
        ranked.push((
            !draft.may_send(load, priority),
            load.bytes,
            !replica.verified(),
            draft.rng.u32(..),
            replica.datanode,
        ));
    }
    ranked.sort_unstable();
    let (all_busy, ..) = ranked.first()?;
    (!all_busy).then(|| {
        ranked
            .into_iter()
            .take(SOURCES)
            .map(|(.., id)| id)
            .collect()
    })
}

fn copies_under_way(draft: &Draft<'_>, chunk: &ChunkView) -> Vec<DatanodeId> {
    let tasks = draft.view.tasks.of_chunk(chunk.expected.chunk.id);
    let copies = tasks.filter_map(|task| match &task.work {
        Work::Copy(copy) => Some(copy.target),
        Work::Delete(_) | Work::Verify(_) => None,
    });
    // A copy that has landed is a replica already, although its answer is still on the way.
    let landed = |id: &DatanodeId| {
        chunk
            .replicas
            .iter()
            .any(|r| r.present && r.class.good() && r.datanode == *id)
    };
    copies.filter(|id| !landed(id)).collect()
}

fn place(replica: &ReplicaView) -> Place {
    (replica.holder.host, replica.holder.zone)
}
