//! Moves under way: a replica is copied to an emptier datanode, and once the copy is proven the one
//! it was copied for goes as excess. Kept in memory only: after a restart the excess is judged by
//! itself, and no replica is lost for it.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::{ChunkId, DatanodeId};

use crate::model::replicas::ReplicaMap;

/// One replica on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Which chunk.
    pub chunk: ChunkId,
    /// How much.
    pub bytes: u64,
    /// Whose replica goes in the end.
    pub from: DatanodeId,
    /// Who gets one.
    pub to: DatanodeId,
    /// Monotonic time at which it was planned.
    pub started: Duration,
    /// The copy is there; the old replica is still to be deleted.
    pub landed: bool,
}

/// All moves under way, one for a chunk. Bounded by the planner's limits.
#[derive(Debug, Clone, Default)]
pub struct MoveTable(BTreeMap<ChunkId, Move>);

/// Moves that came to an end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndedMoves {
    /// The old replica is gone, the new one is in its place.
    pub done: Vec<Move>,
    /// Given up after the copy had landed: the excess replica is left to repair.
    pub dropped: Vec<Move>,
}

impl MoveTable {
    /// The move of one chunk.
    pub fn get(&self, chunk: ChunkId) -> Option<&Move> {
        self.0.get(&chunk)
    }

    /// All, by chunk.
    pub fn iter(&self) -> impl Iterator<Item = &Move> {
        self.0.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose copy is not there yet.
    pub fn copying(&self) -> impl Iterator<Item = &Move> {
        self.iter().filter(|one| !one.landed)
    }

    /// The copy was made.
    pub fn landed(&mut self, chunk: ChunkId) {
        if let Some(one) = self.0.get_mut(&chunk) {
            one.landed = true;
        }
    }

    /// The copy failed or was given up.
    pub fn forget(&mut self, chunk: ChunkId) {
        self.0.remove(&chunk);
    }

    /// Takes out the moves that are over: the old replica is gone, the chunk is, or it lasted
    /// longer than `patience` since it began.
    pub fn end(&mut self, replicas: &ReplicaMap, patience: Duration, now: Duration) -> EndedMoves {
        let mut ended = EndedMoves::default();
        self.0.retain(|chunk, one| {
            if !one.landed {
                // Its copy is a task, which ends by itself.
                return true;
            }
            let held = |datanode: DatanodeId| {
                replicas.get(*chunk).is_some_and(|view| {
                    let mut replicas = view.replicas.iter();
                    replicas.any(|r| r.present && r.datanode == datanode)
                })
            };
            if held(one.to) && !held(one.from) {
                ended.done.push(*one);
                return false;
            }
            let over = !replicas.is_known(*chunk) || now.saturating_sub(one.started) >= patience;
            if over {
                ended.dropped.push(*one);
            }
            !over
        });
        ended
    }

    pub(super) fn begin(&mut self, one: Move) {
        self.0.insert(one.chunk, one);
    }
}
