//! Changes to chunks that no file names: condemn, forget.

use std::collections::BTreeSet;

use jiff::Timestamp;

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::{ChunkId, ChunkVersion};

use super::ApplyContext;
use super::draft::{Draft, read_chunk, read_condemned};
use crate::model::op::{CondemnedRecord, OpOutcome};
use crate::store::error::ApplyRefusal;
use crate::store::keys;
use crate::store::kv::WriteTxn;

/// Condemns what nothing names by now: the decision is made here, in the serial order of commits,
/// not where the orphan was seen (I10).
pub(super) fn condemn_orphans(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    chunks: &[(ChunkId, ChunkVersion, ChunkKind)],
    now: Timestamp,
) -> Result<OpOutcome, ApplyRefusal> {
    let kept: BTreeSet<ChunkId> = keys::read_checkpoints(txn)?
        .iter()
        .flat_map(|checkpoint| checkpoint.chunks.iter().map(|chunk| chunk.id))
        .collect();
    let mut condemned = Vec::new();
    let mut draft = Draft::begin(txn, context)?;
    for (id, version, kind) in chunks {
        if kept.contains(id) || read_chunk(draft.read(), *id)?.is_some() {
            continue;
        }
        let known = read_condemned(draft.read(), *id)?;
        if known.is_some_and(|known| known.version >= *version) {
            continue;
        }
        let record = CondemnedRecord {
            version: *version,
            kind: *kind,
            sequence: draft.sequence(),
            condemned: now,
        };
        draft.put_condemned(*id, &record)?;
        condemned.push(*id);
    }
    draft.finish()?;
    Ok(OpOutcome::Condemned {
        chunks: condemned,
        purged: 0,
        refactored: Vec::new(),
    })
}

pub(super) fn forget(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    chunks: &[ChunkId],
) -> Result<OpOutcome, ApplyRefusal> {
    let mut draft = Draft::begin(txn, context)?;
    for id in chunks {
        draft.take_condemned(*id)?;
    }
    draft.finish()?;
    Ok(OpOutcome::Done)
}
