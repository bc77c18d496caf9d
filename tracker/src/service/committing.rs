//! The end of a write: a file becomes visible once every chunk has its replicas.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::file::MAX_FACTOR;
use dfs_protocol::upload::{CommitRequest, CommitResponse, NeededCopy, WrittenChunk};
use dfs_protocol::{ChunkId, DatanodeId, ErrorCode, Problem};

use super::writes::unexpected;
use super::{State, Tracker};
use crate::model::datanodes::Datanode;
use crate::model::op::{Op, OpOutcome};
use crate::plan::placement;
use crate::store::{ApplyRefusal, SubmitError};

impl Tracker {
    /// Makes an upload visible, once every chunk has its replicas.
    ///
    /// Errors: `precondition-failed`, `conflict`, `stale`, `too-few-datanodes`, `unavailable`.
    pub async fn make_visible(
        &self,
        mut request: CommitRequest,
    ) -> Result<CommitResponse, Problem> {
        let factor = self.resolve_factor(request.factor)?;
        check_sizes(&request)?;
        // No room is asked for: the bytes are on the volumes, however full these are by now.
        self.hears_majority()?;
        let copies = self.weigh(&mut request, factor)?;
        if !copies.is_empty() {
            return Ok(CommitResponse::NeedsReplicas {
                fence: self.fence(),
                copies,
            });
        }
        let written = request.chunks.clone();
        let op = Op::Commit {
            request: Box::new(request),
            factor,
            trash: self.trash_id(),
            now: self.clock.wall(),
        };
        match self.catalog.submit(op).await {
            Ok(OpOutcome::File { file, replaced, .. }) => {
                Ok(committed(file, replaced, &written, factor))
            }
            Ok(other) => Err(unexpected(&other)),
            // The datanode left service between the check and the transaction.
            Err(SubmitError::Refused(ApplyRefusal::ReplicaNotInService { .. })) => {
                Err(Problem::new(
                    ErrorCode::Unavailable,
                    "a datanode left service during the commit",
                )
                .next("send the same commit again"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves only replicas that count in the request; says which copies it still needs.
    fn weigh(&self, request: &mut CommitRequest, factor: u32) -> Result<Vec<NeededCopy>, Problem> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let ids: Vec<ChunkId> = request.chunks.iter().map(|c| c.chunk.id).collect();
        // A tracker that restarted learns here what its predecessor leased.
        let _renewed = state.renew(request.lease, &ids, now);
        state.leases.name(&ids);
        for chunk in &mut request.chunks {
            chunk.replicas.retain(|id| counts(&state, *id, now));
            chunk.replicas.sort_unstable();
            chunk.replicas.dedup();
            seen(&state, chunk)?;
        }
        self.missing_copies(&state, &request.chunks, factor, now)
    }

    /// Copies that must be made before the commit: a chunk may have fewer than its factor only
    /// while no further datanode is placeable.
    fn missing_copies(
        &self,
        state: &State,
        chunks: &[WrittenChunk],
        factor: u32,
        now: Duration,
    ) -> Result<Vec<NeededCopy>, Problem> {
        let mut rng = self.rng.fork();
        let mut copies = Vec::new();
        // Whoever holds other chunks of the file comes first: the answer names those who hold all.
        let whole: BTreeSet<DatanodeId> = chunks.iter().flat_map(|c| c.replicas.clone()).collect();
        for WrittenChunk { chunk, replicas } in chunks {
            let have = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
            if have >= factor {
                continue;
            }
            if have == 0 {
                return Err(lost(chunk));
            }
            let targets = further_holders(state, chunk, replicas, &whole, now, &mut rng);
            let possible = u32::try_from(targets.len()).unwrap_or(u32::MAX);
            let missing = (factor - have).min(possible);
            if missing > 0 {
                let targets: Vec<DatanodeAddress> = state.addresses(&targets);
                copies.push(NeededCopy {
                    chunk: *chunk,
                    sources: state.addresses(replicas),
                    targets,
                    missing,
                });
            } else if have < self.config.min_write() {
                return Err(Problem::new(
                    ErrorCode::TooFewDatanodes,
                    format!(
                        "chunk {} has {have} replicas, a write needs {}",
                        chunk.id,
                        self.config.min_write()
                    ),
                ));
            }
        }
        Ok(copies)
    }
}

/// Datanodes that may get one more replica of a chunk, best first.
fn further_holders(
    state: &State,
    chunk: &SealedChunk,
    replicas: &[DatanodeId],
    whole: &BTreeSet<DatanodeId>,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Vec<DatanodeId> {
    let mut taken: Vec<_> = replicas
        .iter()
        .filter_map(|id| state.datanodes.get(*id).map(placement::labels))
        .collect();
    let mut found: Vec<DatanodeId> = Vec::new();
    while found.len() < MAX_FACTOR as usize {
        let next = |known: bool, rng: &mut fastrand::Rng| {
            let admits = |node: &Datanode| {
                !replicas.contains(&node.id)
                    && !found.contains(&node.id)
                    && (!known || whole.contains(&node.id))
            };
            placement::choose_target(&state.datanodes, chunk.length, &taken, admits, now, rng)
        };
        let Some(id) = next(true, rng).or_else(|| next(false, rng)) else {
            break;
        };
        taken.extend(state.datanodes.get(id).map(placement::labels));
        found.push(id);
    }
    found
}

/// Whether a replica there counts for a commit.
fn counts(state: &State, id: DatanodeId, now: Duration) -> bool {
    state.datanodes.get(id).is_some_and(|node| {
        node.record.admin == AdminState::InService
            && state.datanodes.liveness(node, now) != Liveness::Dead
    })
}

/// A chunk that an earlier tracker placed, or that was last heard of long ago, may have been collected since (I10):
/// only what datanodes have reported of it counts.
fn seen(state: &State, written: &WrittenChunk) -> Result<(), Problem> {
    let chunk = written.chunk;
    if state.leases.placed_here(chunk.id) || state.replicas.is_known(chunk.id) {
        return Ok(());
    }
    let reported = state.replicas.unknown(chunk.id);
    let reported = reported.map(|unknown| unknown.replicas).unwrap_or_default();
    let unseen = |id: &&DatanodeId| !reported.contains(&(**id, chunk));
    match written.replicas.iter().find(unseen) {
        None => Ok(()),
        Some(datanode) => Err(Problem::new(
            ErrorCode::Unavailable,
            format!(
                "chunk {} was not reported by datanode {datanode} yet",
                chunk.id
            ),
        )
        .next("send the same commit again, or upload again")
        .retry_after(1)),
    }
}

fn check_sizes(request: &CommitRequest) -> Result<(), Problem> {
    let total: u64 = request
        .chunks
        .iter()
        .map(|written| written.chunk.length)
        .sum();
    let distinct: BTreeSet<ChunkId> = request.chunks.iter().map(|w| w.chunk.id).collect();
    if total == request.size && distinct.len() == request.chunks.len() {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::BadRequest,
        format!("the chunks hold {total} bytes, the file {}", request.size),
    ))
}

fn committed(
    file: Box<dfs_protocol::file::FileRecord>,
    replaced: bool,
    written: &[WrittenChunk],
    factor: u32,
) -> CommitResponse {
    let first = written
        .first()
        .map(|w| w.replicas.clone())
        .unwrap_or_default();
    let holds_all = |id: &DatanodeId| written.iter().all(|w| w.replicas.contains(id));
    let fewest = written.iter().map(|w| w.replicas.len()).min();
    CommitResponse::Committed {
        file,
        replaced,
        replicas: first.into_iter().filter(holds_all).collect(),
        replica_count: fewest.map_or(factor, |count| u32::try_from(count).unwrap_or(u32::MAX)),
        wanted: factor,
    }
}

fn lost(chunk: &SealedChunk) -> Problem {
    Problem::new(
        ErrorCode::Stale,
        format!("no datanode in service holds chunk {} any more", chunk.id),
    )
    .next("upload again")
}
