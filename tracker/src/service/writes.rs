//! The way of a write: room for chunks, the lease on them, the commit.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::upload::{
    AllocateRequest, AllocateResponse, CommitRequest, CommitResponse, DeleteRequest,
    DeleteResponse, NeededCopy, Placement, RenewRequest, RenewResponse, TransferRequest,
    TransferResponse, WrittenChunk,
};
use dfs_protocol::{ChunkId, DatanodeId, ErrorCode, Problem};

use super::{State, Tracker, millis};
use crate::model::datanodes::Datanode;
use crate::model::op::{Op, OpOutcome};
use crate::model::replicas::Expected;
use crate::plan::placement::{self, PlacementRequest};
use crate::store::{ApplyRefusal, SubmitError};

/// Most chunks that one call may ask room for.
const MAX_ALLOCATION: u32 = 64;
/// Largest replication factor.
pub const MAX_FACTOR: u32 = 7;

impl Tracker {
    /// Places new chunks.
    ///
    /// Errors: `too-few-datanodes`, `insufficient-storage`, `unavailable`, `safe-mode` as the
    /// write gate says; `too-many-requests` when lease limits are met.
    pub fn place(&self, request: AllocateRequest) -> Result<AllocateResponse, Problem> {
        let AllocateRequest {
            lease,
            chunks,
            bytes_each,
            factor,
            avoid,
            prefer,
        } = request;
        if chunks == 0 || chunks > MAX_ALLOCATION {
            return Err(Problem::new(
                ErrorCode::InvalidParameter,
                format!("room is given for 1 to {MAX_ALLOCATION} chunks at a time"),
            ));
        }
        // A gateway learns the chunk size from the answer: before, it may ask for more.
        let bytes_each = bytes_each.min(self.config.chunk_size);
        let wanted = self.resolve_factor(factor)?;
        let now = self.clock.monotonic();
        let mut rng = self.rng.fork();
        let mut state = self.state();
        self.gate(&state, bytes_each, now)?;
        let mut placements = Vec::with_capacity(chunks as usize);
        let mut leased = Vec::with_capacity(chunks as usize);
        for _ in 0..chunks {
            let request = PlacementRequest {
                factor: wanted,
                bytes: bytes_each,
                avoid: &avoid,
            };
            let targets = chain(&state, &request, &prefer, now, &mut rng);
            let chunk = ChunkId::from_u128(self.rng.u128());
            for target in &targets {
                state.datanodes.reserve(*target, bytes_each);
            }
            leased.push((chunk, targets.clone()));
            let targets = state.addresses(&targets);
            placements.push(Placement {
                chunk,
                targets,
                wanted,
            });
        }
        state
            .leases
            .extend(lease, leased, wanted, now)
            .map_err(|refused| {
                self.metrics.lease_refusals.inc();
                Problem::new(ErrorCode::TooManyRequests, refused.to_string())
            })?;
        drop(state);
        Ok(AllocateResponse {
            fence: self.fence(),
            placements,
            chunk_size: self.config.chunk_size,
            lease_ms: millis(self.config.lease),
        })
    }

    /// Renews a lease; tells which of its chunks are lost to it.
    pub async fn keep(&self, request: RenewRequest) -> Result<RenewResponse, Problem> {
        let RenewRequest {
            lease,
            chunks,
            abandoned,
        } = request;
        let asked = chunks.clone();
        let condemned = self
            .catalog
            .read(move |snapshot| {
                let mut condemned = Vec::new();
                for chunk in asked {
                    if snapshot.get_condemned(chunk)?.is_some() {
                        condemned.push(chunk);
                    }
                }
                Ok(condemned)
            })
            .await?;
        let lost: BTreeSet<ChunkId> = condemned.iter().copied().collect();
        let kept: Vec<ChunkId> = chunks.into_iter().filter(|c| !lost.contains(c)).collect();
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.leases.abandon(lease, &abandoned);
        state.leases.renew(lease, &kept, now).map_err(|refused| {
            self.metrics.lease_refusals.inc();
            Problem::new(ErrorCode::TooManyRequests, refused.to_string())
        })?;
        drop(state);
        Ok(RenewResponse {
            fence: self.fence(),
            lease_ms: millis(self.config.lease),
            condemned,
        })
    }

    /// Makes an upload visible, once every chunk has its replicas.
    ///
    /// Errors: `precondition-failed`, `conflict`, `stale`, `too-few-datanodes`, `unavailable`.
    pub async fn make_visible(
        &self,
        mut request: CommitRequest,
    ) -> Result<CommitResponse, Problem> {
        let factor = self.resolve_factor(request.factor)?;
        check_sizes(&request)?;
        let now = self.clock.monotonic();
        {
            let mut state = self.state();
            self.gate(&state, 0, now)?;
            let ids: Vec<ChunkId> = request.chunks.iter().map(|c| c.chunk.id).collect();
            // A tracker that restarted learns here what its predecessor leased.
            let _renewed = state.leases.renew(request.lease, &ids, now);
            for chunk in &mut request.chunks {
                chunk.replicas.retain(|id| counts(&state, *id, now));
                chunk.replicas.sort_unstable();
                chunk.replicas.dedup();
            }
            let copies = self.missing_copies(&state, &request.chunks, factor, now)?;
            if !copies.is_empty() {
                return Ok(CommitResponse::NeedsReplicas {
                    fence: self.fence(),
                    copies,
                });
            }
        }
        let written = request.chunks.clone();
        let trash = self.trash_id();
        let op = Op::Commit {
            request: Box::new(request),
            factor,
            trash,
            now: self.clock.wall(),
        };
        match self.catalog.submit(op).await {
            Ok(OpOutcome::File {
                file,
                replaced,
                new_chunks: _,
                condemned,
            }) => {
                let now = self.clock.monotonic();
                let mut state = self.state();
                for WrittenChunk { chunk, replicas } in &written {
                    let expected = Expected {
                        chunk: *chunk,
                        factor,
                        kind: ChunkKind::Data,
                    };
                    state.replicas.commit_chunk(expected, replicas, now);
                }
                state.leases.committed(written.iter().map(|c| c.chunk.id));
                state.forget(&condemned, now);
                state.trashed_lately.extend(trash.filter(|_| replaced));
                drop(state);
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

    /// Deletes a file.
    ///
    /// Errors: `not-found`, `precondition-failed`.
    pub async fn remove(&self, request: DeleteRequest) -> Result<DeleteResponse, Problem> {
        let DeleteRequest { path, precondition } = request;
        self.hears_majority()?;
        let op = Op::Delete {
            path,
            precondition,
            trash: self.trash_id(),
            now: self.clock.wall(),
        };
        match self.catalog.submit(op).await? {
            OpOutcome::Deleted {
                version,
                trash,
                condemned,
            } => {
                let mut state = self.state();
                state.forget(&condemned, self.clock.monotonic());
                state.trashed_lately.extend(trash);
                Ok(DeleteResponse { version, trash })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Copies or moves.
    ///
    /// Errors: `not-found`, `conflict`, `precondition-failed`.
    pub async fn relocate(&self, request: TransferRequest) -> Result<TransferResponse, Problem> {
        let TransferRequest {
            from,
            to,
            mode,
            precondition,
            upload,
        } = request;
        self.hears_majority()?;
        let (trash, now) = (self.trash_id(), self.clock.wall());
        let op = Op::Transfer {
            from,
            to,
            mode,
            precondition,
            upload,
            trash,
            now,
        };
        match self.catalog.submit(op).await? {
            OpOutcome::File {
                file,
                replaced,
                new_chunks: _,
                condemned,
            } => {
                let mut state = self.state();
                state.forget(&condemned, self.clock.monotonic());
                state.trashed_lately.extend(trash.filter(|_| replaced));
                Ok(TransferResponse {
                    files: 1,
                    version: Some(file.version),
                    replaced,
                })
            }
            OpOutcome::Moved { files } => Ok(TransferResponse {
                files,
                version: None,
                replaced: false,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether new bytes are taken now.
    fn gate(&self, state: &State, bytes: u64, now: Duration) -> Result<(), Problem> {
        if let Some((code, reason)) = self.write_refusal(state, bytes, now) {
            self.metrics.writes_refused.inc();
            return Err(Problem::new(code, reason).next(match code {
                ErrorCode::InsufficientStorage => "delete files, or add datanodes",
                _ => "start datanodes, or wait until they are heard; see dfs status",
            }));
        }
        Ok(())
    }

    /// Why writes are refused now, if they are.
    pub(super) fn write_refusal(
        &self,
        state: &State,
        bytes: u64,
        now: Duration,
    ) -> Option<(ErrorCode, String)> {
        if let Some(unheard) = state.datanodes.writes_refused(now) {
            return Some((ErrorCode::TooFewDatanodes, unheard.to_string()));
        }
        if let Some(why) = state.comparison_refusal(now) {
            return Some((ErrorCode::SafeMode, why));
        }
        let placeable = state.datanodes.all_placeable(bytes, now).len();
        let needed = self.config.min_write() as usize;
        if placeable >= needed {
            return None;
        }
        let live = |node: &&Datanode| {
            state.datanodes.liveness(node, now) == Liveness::Live
                && node.record.admin == AdminState::InService
        };
        let without_room = |node: &&Datanode| node.stats.read_only || node.free_bytes() < bytes;
        let live_ones = state.datanodes.iter().filter(live);
        let full = placeable + live_ones.filter(without_room).count() >= needed;
        if full {
            return Some((
                ErrorCode::InsufficientStorage,
                format!("{placeable} datanodes have room, a write needs {needed}"),
            ));
        }
        Some((
            ErrorCode::TooFewDatanodes,
            format!("{placeable} datanodes take writes now, a write needs {needed}"),
        ))
    }

    /// Whether the catalog may be changed at all: nothing newer is known to lie on datanodes.
    pub(super) fn may_act(&self) -> Result<(), Problem> {
        let refused = self.state().comparison_refusal(self.clock.monotonic());
        match refused {
            Some(why) => {
                self.metrics.writes_refused.inc();
                Err(Problem::new(ErrorCode::SafeMode, why).next("see dfs status"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn hears_majority(&self) -> Result<(), Problem> {
        self.may_act()?;
        let refused = self
            .state()
            .datanodes
            .writes_refused(self.clock.monotonic());
        match refused {
            Some(unheard) => {
                self.metrics.writes_refused.inc();
                Err(
                    Problem::new(ErrorCode::TooFewDatanodes, unheard.to_string())
                        .next("start datanodes, or wait until they are heard; see dfs status"),
                )
            }
            None => {
                self.journal.require();
                Ok(())
            }
        }
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

    fn resolve_factor(&self, factor: Option<u32>) -> Result<u32, Problem> {
        let factor = factor.unwrap_or(self.config.replication_factor);
        if factor == 0 || factor > MAX_FACTOR {
            return Err(Problem::new(
                ErrorCode::InvalidParameter,
                format!("the replication factor must be 1 to {MAX_FACTOR}"),
            ));
        }
        Ok(factor)
    }
}

/// The chain of a new chunk: preferred datanodes first, as far as they are placeable.
fn chain(
    state: &State,
    request: &PlacementRequest<'_>,
    prefer: &[DatanodeId],
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Vec<DatanodeId> {
    let placeable = |id: &&DatanodeId| {
        state
            .datanodes
            .get(**id)
            .is_some_and(|node| state.datanodes.placeable(node, request.bytes, now))
            && !request.avoid.contains(id)
    };
    let mut chain: Vec<DatanodeId> = prefer
        .iter()
        .filter(placeable)
        .take(request.factor as usize)
        .copied()
        .collect();
    if chain.is_empty() {
        return placement::choose(&state.datanodes, request, now, rng);
    }
    while chain.len() < request.factor as usize {
        let taken: Vec<_> = chain
            .iter()
            .filter_map(|id| state.datanodes.get(*id).map(placement::labels))
            .collect();
        let fresh = |avoided: bool, rng: &mut fastrand::Rng| {
            let admits = |node: &Datanode| {
                !chain.contains(&node.id) && (avoided || !request.avoid.contains(&node.id))
            };
            placement::choose_target(&state.datanodes, request.bytes, &taken, admits, now, rng)
        };
        let Some(id) = fresh(false, rng).or_else(|| fresh(true, rng)) else {
            break;
        };
        chain.push(id);
    }
    chain
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

pub(super) fn unexpected(outcome: &OpOutcome) -> Problem {
    Problem::new(
        ErrorCode::Internal,
        format!("the catalog answered a change with {outcome:?}"),
    )
}
