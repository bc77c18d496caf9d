//! One batch: changes decided one after the other in one durable transaction, and the keys that they
//! wrote, as they travel to the journals.

use std::collections::BTreeMap;
use std::ops::Bound;

use tokio::sync::oneshot;

use dfs_protocol::Fence;
use dfs_protocol::datanode::JournalRecord;

use super::apply::{ApplyContext, apply};
use super::catalog::CatalogLimits;
use super::codec::{BATCH_FORMAT, encode, push_change};
use super::error::{ApplyRefusal, StoreError};
use super::keys;
use super::kv::{Direction, Engine, ReadTxn, Room, See, Span, Table, WriteTxn};
use crate::model::op::{Op, OpOutcome};

/// Old records that one batch trims: more than one, so that trimming catches up.
const TRIM_PER_BATCH: usize = 8;

/// What a transaction left.
pub(super) struct Written {
    pub(super) results: Vec<Result<OpOutcome, ApplyRefusal>>,
    /// The last committed sequence.
    pub(super) sequence: u64,
    pub(super) fence: Fence,
}

pub(super) fn write_batch(
    engine: &dyn Engine,
    ops: &[Op],
    limits: CatalogLimits,
    confirmed: u64,
    ready: oneshot::Sender<JournalRecord>,
) -> Result<Written, StoreError> {
    let room = engine.room()?;
    let mut ready = Some(ready);
    let mut written = Written {
        results: Vec::with_capacity(ops.len()),
        sequence: 0,
        fence: Fence::default(),
    };
    let outcome = engine.write(&mut |txn| {
        let before = keys::read_sequence(txn)?;
        let context = ApplyContext {
            sequence: before + 1,
            max_move_files: limits.max_move_files,
        };
        let (results, mut recorder) = decide(txn, ops, context, room)?;
        written.results = results;
        written.fence = keys::read_fence(&recorder)?;
        if recorder.changes.is_empty() {
            written.sequence = before;
            return Err(StoreError::Abandoned);
        }
        keys::put(
            &mut recorder,
            Table::Meta,
            keys::SEQUENCE,
            &context.sequence,
        )?;
        let record = JournalRecord {
            fence: written.fence,
            sequence: context.sequence,
            payload: recorder.into_batch(),
        };
        written.sequence = record.sequence;
        keep_record(txn, &record, confirmed)?;
        if let Some(ready) = ready.take() {
            // Mode async does not listen.
            let _unheard = ready.send(record);
        }
        Ok(())
    });
    match outcome {
        Ok(()) | Err(StoreError::Abandoned) => Ok(written),
        Err(StoreError::Full) => {
            written.results = ops.iter().map(|_| Err(ApplyRefusal::Full)).collect();
            Ok(written)
        }
        Err(error) => Err(error),
    }
}

type Decided<'t> = (Vec<Result<OpOutcome, ApplyRefusal>>, Recorder<'t>);

fn decide<'t>(
    txn: &'t mut dyn WriteTxn,
    ops: &[Op],
    context: ApplyContext,
    room: Room,
) -> Result<Decided<'t>, StoreError> {
    let mut recorder = Recorder {
        txn,
        changes: BTreeMap::new(),
    };
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        let result = if room == Room::Ample || !takes_room(op) {
            apply(op, &mut recorder, context)
        } else {
            Err(ApplyRefusal::Full)
        };
        match result {
            Err(ApplyRefusal::Store(error)) => return Err(error),
            decided => results.push(decided),
        }
    }
    Ok((results, recorder))
}

// Keeps the batch for journals that lack it, and drops what neither journals nor checkpoints need.
fn keep_record(
    txn: &mut dyn WriteTxn,
    record: &JournalRecord,
    confirmed: u64,
) -> Result<(), StoreError> {
    txn.put(
        Table::Journal,
        &keys::sequence(record.sequence),
        &encode(record)?,
    )?;
    txn.put(Table::Journal, keys::CONFIRMED, &encode(&confirmed)?)?;
    let Some(oldest) = keys::read_checkpoints(txn)?.first().map(|c| c.sequence) else {
        return Ok(());
    };
    let floor = oldest.min(confirmed);
    let span = Span {
        start: Bound::Unbounded,
        end: Bound::Included(keys::sequence(floor).to_vec()),
    };
    for (key, _) in txn.range(Table::Journal, &span, Direction::Forward, TRIM_PER_BATCH)? {
        txn.delete(Table::Journal, &key)?;
    }
    Ok(())
}

// Whether a change may have to wait until the volume has room. What frees room, and what decides
// who acts, goes on as long as the ballast lasts.
fn takes_room(op: &Op) -> bool {
    match op {
        Op::Commit { .. }
        | Op::Transfer { .. }
        | Op::SetFactor { .. }
        | Op::Restore { .. }
        | Op::Adopt { .. } => true,
        Op::BeginEpoch { .. }
        | Op::Delete { .. }
        | Op::Purge { .. }
        | Op::Condemn { .. }
        | Op::Forget { .. }
        | Op::PutDatanode { .. }
        | Op::SetCheckpoints { .. } => false,
    }
}

/// Passes writes through and remembers the last value of each key: the batch.
struct Recorder<'t> {
    txn: &'t mut dyn WriteTxn,
    changes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl Recorder<'_> {
    fn into_batch(self) -> Vec<u8> {
        let mut bytes = vec![BATCH_FORMAT];
        for ((table, key), value) in &self.changes {
            push_change(&mut bytes, *table, key, value.as_deref());
        }
        bytes
    }
}

impl ReadTxn for Recorder<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.txn.get(table, key)
    }

    fn walk(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        see: &mut See<'_>,
    ) -> Result<(), StoreError> {
        self.txn.walk(table, span, direction, see)
    }
}

impl WriteTxn for Recorder<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.txn.put(table, key, value)?;
        self.changes
            .insert((table, key.to_vec()), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.txn.delete(table, key)?;
        self.changes.insert((table, key.to_vec()), None);
        Ok(())
    }
}
