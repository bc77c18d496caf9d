//! What changes the catalog must pass before it is tried, the lease on chunks being written, and the
//! changes that need no chunk: delete, copy, move. See `placing` and `committing` for the way of a write.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::file::MAX_FACTOR;
use dfs_protocol::upload::{
    DeleteRequest, DeleteResponse, RenewRequest, RenewResponse, TransferRequest, TransferResponse,
};
use dfs_protocol::{ChunkId, ErrorCode, Problem};

use super::{State, Tracker, millis};
use crate::model::datanodes::Datanode;
use crate::model::op::{Op, OpOutcome};

impl Tracker {
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
        state.renew(lease, &kept, now).map_err(|refused| {
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
            OpOutcome::Deleted { version, trash, .. } => Ok(DeleteResponse { version, trash }),
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
            OpOutcome::File { file, replaced, .. } => Ok(TransferResponse {
                files: 1,
                version: Some(file.version),
                replaced,
            }),
            OpOutcome::Moved { files } => Ok(TransferResponse {
                files,
                version: None,
                replaced: false,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether new chunks of `bytes` are taken now.
    pub(super) fn gate(&self, state: &State, bytes: u64, now: Duration) -> Result<(), Problem> {
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
        // One that is read-only and has room has a disk that refuses writes.
        let without_room = |node: &&Datanode| {
            let free = node.stats.free_bytes;
            free < bytes || free == 0 && node.stats.read_only
        };
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
        if let Some(unheard) = refused {
            self.metrics.writes_refused.inc();
            return Err(
                Problem::new(ErrorCode::TooFewDatanodes, unheard.to_string())
                    .next("start datanodes, or wait until they are heard; see dfs status"),
            );
        }
        self.journal.require();
        Ok(())
    }

    pub(super) fn resolve_factor(&self, factor: Option<u32>) -> Result<u32, Problem> {
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

pub(super) fn unexpected(outcome: &OpOutcome) -> Problem {
    Problem::new(
        ErrorCode::Internal,
        format!("the catalog answered a change with {outcome:?}"),
    )
}
