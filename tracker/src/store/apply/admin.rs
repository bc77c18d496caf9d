//! Changes to the catalog's surroundings: epoch, datanodes, checkpoints.

use std::collections::BTreeSet;

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::{ChunkId, DatanodeId, Fence};

use super::ApplyContext;
use super::draft::Draft;
use crate::model::op::{CheckpointRecord, CondemnedRecord, DatanodeRecord, OpOutcome};
use crate::store::datanode_value;
use crate::store::error::ApplyRefusal;
use crate::store::keys;
use crate::store::kv::{Table, WriteTxn};

pub(super) fn begin_epoch(
    txn: &mut dyn WriteTxn,
    offered: Fence,
) -> Result<OpOutcome, ApplyRefusal> {
    let stored = keys::read_fence(txn)?;
    if offered.epoch <= stored.epoch {
        return Err(ApplyRefusal::Fenced { offered, stored });
    }
    keys::put(txn, Table::Meta, keys::FENCE, &offered)?;
    Ok(OpOutcome::Done)
}

pub(super) fn put_datanode(
    txn: &mut dyn WriteTxn,
    id: DatanodeId,
    from: Option<AdminState>,
    record: &DatanodeRecord,
) -> Result<OpOutcome, ApplyRefusal> {
    let key = keys::datanode(id);
    let current: Option<DatanodeRecord> = txn
        .get(Table::Datanodes, &key)?
        .map(|bytes| datanode_value::decode(&bytes))
        .transpose()?;
    if let Some(current) = current {
        if current.admin == AdminState::Tombstoned && record.admin != AdminState::Tombstoned {
            return Err(ApplyRefusal::Tombstoned { datanode: id });
        }
        if current == *record {
            return Ok(OpOutcome::Done);
        }
        if from.is_some_and(|from| from != current.admin) {
            return Err(ApplyRefusal::AdminChanged {
                datanode: id,
                admin: current.admin,
            });
        }
    }
    txn.put(Table::Datanodes, &key, &datanode_value::encode(record)?)?;
    Ok(OpOutcome::Done)
}

/// Replaces the list. The chunks of checkpoints that are not on it any more are condemned with it.
pub(super) fn set_checkpoints(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    checkpoints: &[CheckpointRecord],
) -> Result<OpOutcome, ApplyRefusal> {
    if !checkpoints.is_sorted_by_key(|checkpoint| checkpoint.sequence) {
        return Err(ApplyRefusal::Invalid {
            detail: "the checkpoints are not in order, oldest first".to_owned(),
        });
    }
    let before = keys::read_checkpoints(txn)?;
    if before == checkpoints {
        return Ok(OpOutcome::Done);
    }
    let kept: BTreeSet<ChunkId> = checkpoints
        .iter()
        .flat_map(|checkpoint| checkpoint.chunks.iter().map(|chunk| chunk.id))
        .collect();
    let now = checkpoints.last().map(|checkpoint| checkpoint.created);
    keys::put(txn, Table::Meta, keys::CHECKPOINTS, &checkpoints)?;
    let mut condemned = Vec::new();
    let mut draft = Draft::begin(txn, context)?;
    for old in &before {
        for chunk in old.chunks.iter().filter(|chunk| !kept.contains(&chunk.id)) {
            let record = CondemnedRecord {
                version: chunk.version,
                kind: ChunkKind::Checkpoint,
                sequence: draft.sequence(),
                condemned: now.unwrap_or(old.created),
            };
            draft.put_condemned(chunk.id, &record)?;
            condemned.push(chunk.id);
        }
    }
    draft.finish()?;
    Ok(OpOutcome::Condemned {
        chunks: condemned,
        purged: 0,
        refactored: Vec::new(),
    })
}
