//! What the tracker's memory learns of a change that the catalog made. Runs in the catalog's serial
//! order for every change, whoever asked for it and whether or not the journals confirmed: a chunk
//! that the catalog names and this memory does not would never be read, repaired or counted in a
//! verdict.

use std::time::Duration;

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::upload::{CommitRequest, WrittenChunk};
use dfs_protocol::{ChunkId, DatanodeId, TrashId};

use super::{State, Tracker};
use crate::model::op::{ChunkRecord, DatanodeRecord, Op, OpOutcome};
use crate::model::replicas::Expected;
use crate::store::{ApplyRefusal, CommitObserver};

impl CommitObserver for Tracker {
    fn committed(&self, ops: &[Op], results: &[Result<OpOutcome, ApplyRefusal>]) {
        let now = self.clock.monotonic();
        let factor = self.config.replication_factor;
        for (op, result) in ops.iter().zip(results) {
            let Ok(outcome) = result else { continue };
            if let Op::BeginEpoch { fence } = op {
                self.set_fence(*fence);
            }
            self.state().apply(op, outcome, factor, now);
        }
    }
}

/// Chunks whose factor may have changed.
fn refactored(outcome: &OpOutcome) -> &[(ChunkId, ChunkRecord)] {
    match outcome {
        OpOutcome::File { refactored, .. }
        | OpOutcome::Deleted { refactored, .. }
        | OpOutcome::Condemned { refactored, .. } => refactored,
        OpOutcome::Factored(page) => &page.refactored,
        OpOutcome::Moved { .. } | OpOutcome::Done => &[],
    }
}

impl State {
    /// Takes one change in; doing it twice changes nothing. `factor` is the cluster's.
    fn apply(&mut self, op: &Op, outcome: &OpOutcome, factor: u32, now: Duration) {
        for (id, record) in refactored(outcome) {
            self.expect(*id, record, factor);
        }
        match op {
            Op::Commit {
                request,
                factor,
                trash,
                now: _,
            } => {
                self.expect_written(request, *factor, now);
                self.moved(outcome, *trash, now);
            }
            Op::Delete { .. } | Op::Purge { .. } | Op::Condemn { .. } | Op::Transfer { .. } => {
                let kept = match op {
                    Op::Transfer { trash, .. } => *trash,
                    _ => None,
                };
                self.moved(outcome, kept, now);
                self.settle(op);
            }
            Op::Restore { .. } | Op::Forget { .. } => self.settle(op),
            Op::PutDatanode {
                id,
                record,
                from: _,
            } => self.know_datanode(*id, record, now),
            Op::SetCheckpoints { checkpoints } => {
                self.expect_checkpoints(checkpoints.clone(), factor, now);
            }
            // The fence is the tracker's; all of a factor is in the records above; a file is adopted
            // only by a rebuild, which runs alone.
            Op::BeginEpoch { .. } | Op::SetFactor { .. } | Op::Adopt { .. } => {}
        }
    }

    fn expect_written(&mut self, request: &CommitRequest, factor: u32, now: Duration) {
        for WrittenChunk { chunk, replicas } in &request.chunks {
            // A commit that is told again knows nothing of a factor that was set since.
            let known = self.replicas.get(chunk.id);
            let expected = Expected {
                chunk: *chunk,
                factor: known.map_or(factor, |known| known.expected.factor),
                kind: ChunkKind::Data,
            };
            self.replicas.commit_chunk(expected, replicas, now);
        }
        let written = request.chunks.iter().map(|written| written.chunk.id);
        self.leases.committed(written);
    }

    /// What a change condemned or put into the trash. `kept` is the trash id that it was given.
    fn moved(&mut self, outcome: &OpOutcome, kept: Option<TrashId>, now: Duration) {
        let condemned: &[ChunkId] = match outcome {
            OpOutcome::File {
                replaced,
                condemned,
                file: _,
                new_chunks: _,
                refactored: _,
            } => {
                self.trashed_lately.extend(kept.filter(|_| *replaced));
                condemned
            }
            OpOutcome::Deleted {
                trash, condemned, ..
            } => {
                self.trashed_lately.extend(*trash);
                condemned
            }
            OpOutcome::Condemned { chunks, .. } => chunks,
            OpOutcome::Moved { .. } | OpOutcome::Factored(_) | OpOutcome::Done => &[],
        };
        self.forget(condemned, now);
    }

    /// What is over: entries that left the trash, chunks that are condemned or forgotten.
    fn settle(&mut self, op: &Op) {
        match op {
            Op::Restore { id, .. } => self.trash.remove(*id),
            Op::Purge { ids, .. } => ids.iter().for_each(|id| self.trash.remove(*id)),
            // Also those that the catalog had condemned before: their records are to be read.
            Op::Condemn { chunks, .. } => {
                let asked = chunks.iter().map(|(chunk, ..)| *chunk);
                self.condemned_lately.extend(asked);
            }
            Op::Forget { chunks } => chunks.iter().for_each(|id| self.condemned.remove(*id)),
            Op::BeginEpoch { .. }
            | Op::Commit { .. }
            | Op::Delete { .. }
            | Op::Transfer { .. }
            | Op::SetFactor { .. }
            | Op::PutDatanode { .. }
            | Op::SetCheckpoints { .. }
            | Op::Adopt { .. } => {}
        }
    }

    fn know_datanode(&mut self, id: DatanodeId, record: &DatanodeRecord, now: Duration) {
        // Over the limit nothing is lost: it was let in by whoever asked for this change.
        let _full = self.datanodes.let_in(id, record.clone(), now);
        if record.admin == AdminState::Tombstoned {
            self.write_off(id);
        }
        self.sync(now);
    }
}
