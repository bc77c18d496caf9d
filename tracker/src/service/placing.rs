//! Where new chunks go: placements ahead of need, under the gateway's lease.

use std::time::Duration;

use dfs_protocol::upload::{AllocateRequest, AllocateResponse, Placement};
use dfs_protocol::{ChunkId, DatanodeId, ErrorCode, Problem};

use super::{State, Tracker, millis};
use crate::model::datanodes::Datanode;
use crate::plan::placement::{self, PlacementRequest};

/// Most chunks that one call may ask room for.
const MAX_ALLOCATION: u32 = 64;

impl Tracker {
    /// Places new chunks: the first wherever there is room, the others, which are asked for ahead of
    /// need, only where no other writer was promised it.
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
            let ahead = !placements.is_empty();
            if ahead && !state.datanodes.has_unpromised_room(bytes_each, wanted, now) {
                self.metrics.placements_withheld.inc();
                break;
            }
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
