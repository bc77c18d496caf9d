//! Which replicas of a known chunk may go (I24): only when what stays is proven, on live
//! in-service datanodes whose chunk sets are known to be right.

use std::cmp::Reverse;

use dfs_protocol::DatanodeId;

use super::repair::Draft;
use super::tasks::{DeleteReason, DeleteTask};
use crate::model::health::{Label, ReplicaClass};
use crate::model::replicas::{ChunkView, ReplicaView};

/// Deletes what is more than wanted: the badly spread first, then the one that a move leaves behind,
/// then the one on the fullest datanode.
pub(super) fn excess(draft: &mut Draft<'_>, chunk: &ChunkView) {
    let id = chunk.expected.chunk.id;
    let factor = chunk.expected.factor as usize;
    if draft.view.tasks.of_chunk(id).next().is_some() {
        return;
    }
    let proven = chunk
        .replicas
        .iter()
        .filter(|r| r.verified() && r.holder.proven());
    let (doubtful, mut sure): (Vec<&ReplicaView>, Vec<&ReplicaView>) =
        proven.partition(|replica| draft.view.tasks.is_doubtful(id, replica.datanode));
    if sure.len() < factor {
        return;
    }
    // Their deletion was ordered before: ordering it again loses nothing that is counted on.
    for replica in doubtful {
        delete(draft, chunk, replica, DeleteReason::Excess);
    }
    while sure.len() > factor && draft.has_delete_room() {
        let Some(victim) = worst(draft, chunk, &sure) else {
            return;
        };
        let replica = sure.swap_remove(victim);
        delete(draft, chunk, replica, DeleteReason::Excess);
    }
}

/// Deletes stale and corrupt replicas once a proven one exists elsewhere. Newer ones stay.
pub(super) fn irregular(draft: &mut Draft<'_>, chunk: &ChunkView) {
    let id = chunk.expected.chunk.id;
    let tasks = draft.view.tasks;
    let proven = chunk.replicas.iter().any(|replica| {
        replica.verified()
            && replica.holder.readable()
            && replica.holder.current
            && !tasks.is_going(id, replica.datanode)
    });
    if !proven {
        return;
    }
    for replica in &chunk.replicas {
        let reason = match replica.class {
            ReplicaClass::Stale => DeleteReason::Stale,
            ReplicaClass::Corrupt => DeleteReason::Corrupt,
            ReplicaClass::Valid | ReplicaClass::Promised | ReplicaClass::Newer => continue,
        };
        let reachable = replica.holder.readable() && replica.holder.current;
        if replica.present && reachable && !tasks.is_deleting(id, replica.datanode) {
            delete(draft, chunk, replica, reason);
        }
    }
}

/// The replica without which the rest is spread best; then the one that a move leaves behind, and
/// its new one last, lest it is moved again; then the one on the fullest datanode.
fn worst(draft: &Draft<'_>, chunk: &ChunkView, replicas: &[&ReplicaView]) -> Option<usize> {
    let rule = draft.view.replicas.rule();
    let moved = draft.view.tasks.moves.get(chunk.expected.chunk.id);
    (0..replicas.len()).min_by_key(|victim| {
        let rest: Vec<(Label, Option<Label>)> = replicas
            .iter()
            .enumerate()
            .filter(|(at, _)| at != victim)
            .map(|(_, replica)| (replica.holder.host, replica.holder.zone))
            .collect();
        let id = replicas[*victim].datanode;
        (
            rule.penalty(chunk.expected.factor, &rest),
            moved.is_none_or(|one| one.from != id),
            moved.is_some_and(|one| one.to == id),
            Reverse(fullness(draft, id)),
            id,
        )
    })
}

/// Used share of what the volume gives to chunks, in millionths.
fn fullness(draft: &Draft<'_>, id: DatanodeId) -> u64 {
    draft.view.datanodes.get(id).map_or(0, |node| {
        let (used, free) = (node.stats.used_bytes, node.stats.free_bytes);
        let share = u128::from(used) * 1_000_000 / (u128::from(used) + u128::from(free)).max(1);
        u64::try_from(share).unwrap_or(u64::MAX)
    })
}

fn delete(draft: &mut Draft<'_>, chunk: &ChunkView, replica: &ReplicaView, reason: DeleteReason) {
    draft.plan.deletes.push(DeleteTask {
        chunk: chunk.expected.chunk.id,
        version: replica.sealed.version,
        kind: chunk.expected.kind,
        datanode: replica.datanode,
        reason,
    });
}
