//! What each change does to the tables. Pure: no clock, no randomness, no I/O beyond the
//! transaction. Every precondition is checked before the first write, so that a refused change
//! leaves nothing, and its neighbours in the batch go on.

mod admin;
mod chunks;
mod directory;
mod draft;
mod factor;
mod files;
mod paths;
mod uploads;

pub use factor::{PAGE_CHUNKS, page_below};

use super::error::ApplyRefusal;
use super::kv::WriteTxn;
use crate::model::op::{Op, OpOutcome};

/// What a change may know besides the tables.
#[derive(Debug, Clone, Copy)]
pub struct ApplyContext {
    /// The journal sequence that the batch will have.
    pub sequence: u64,
    /// Most files that one move takes.
    pub max_move_files: u64,
}

/// Decides a change and writes its keys. A refusal other than [`ApplyRefusal::Store`] has written
/// nothing.
pub fn apply(
    op: &Op,
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
) -> Result<OpOutcome, ApplyRefusal> {
    match op {
        Op::BeginEpoch { fence } => admin::begin_epoch(txn, *fence),
        Op::Commit {
            request,
            factor,
            trash,
            now,
        } => files::commit(txn, context, request, *factor, *trash, *now),
        Op::Delete {
            path,
            precondition,
            trash,
            now,
        } => files::delete(txn, context, path, precondition, *trash, *now),
        Op::Transfer {
            from,
            to,
            mode,
            precondition,
            upload,
            trash,
            now,
        } => {
            if from.is_directory() || to.is_directory() {
                directory::move_directory(txn, context, from, to, *mode, precondition)
            } else {
                let request = files::FileTransfer {
                    from: file_path(from.as_str())?,
                    to: file_path(to.as_str())?,
                    mode: *mode,
                    precondition,
                    upload: *upload,
                    trash: *trash,
                    now: *now,
                };
                files::transfer(txn, context, &request)
            }
        }
        Op::SetFactor {
            path,
            after,
            precondition,
            factor,
            cluster,
        } => {
            let change = factor::FactorChange {
                path,
                after: after.as_ref(),
                precondition,
                factor: *factor,
                cluster: *cluster,
            };
            factor::set(txn, context, &change)
        }
        Op::Restore {
            id,
            to,
            upload,
            now,
        } => files::restore(txn, context, *id, to.as_ref(), *upload, *now),
        Op::Purge { ids, now } => files::purge(txn, context, ids, *now),
        Op::Condemn { chunks, now } => chunks::condemn_orphans(txn, context, chunks, *now),
        Op::Forget { chunks } => chunks::forget(txn, context, chunks),
        Op::PutDatanode { id, from, record } => admin::put_datanode(txn, *id, *from, record),
        Op::SetCheckpoints { checkpoints } => admin::set_checkpoints(txn, context, checkpoints),
        Op::Adopt { file } => files::adopt(txn, context, file),
    }
}

fn file_path(text: &str) -> Result<dfs_protocol::FilePath, ApplyRefusal> {
    dfs_protocol::FilePath::parse(text).map_err(|error| ApplyRefusal::Invalid {
        detail: error.to_string(),
    })
}
