//! The catalog from what datanodes keep: a checkpoint and the journal behind it.

use std::io::Read;
use std::ops::RangeInclusive;

use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{ClusterId, Fence};

use super::checkpoint::{LoadError, begin_load, end_load, load_pieces};
use super::codec::{decode_batch, replay};
use super::error::StoreError;
use super::keys;
use super::kv::Engine;
use super::lineage::{self, Lineage};

/// Records replayed in one transaction.
const RECORDS_PER_TRANSACTION: usize = 256;

/// How to rebuild.
#[derive(Debug, Clone, Copy, Default)]
pub struct RebuildOptions {
    /// Goes on over missing records: what they changed is lost, and fsck will find the traces.
    pub allow_gap: bool,
}

/// What a rebuild found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildReport {
    /// The cluster that was rebuilt.
    pub cluster: ClusterId,
    /// The last fence in the rebuilt catalog.
    pub fence: Fence,
    /// The sequence of the checkpoint; none when the journal alone was replayed.
    pub checkpoint: Option<u64>,
    /// Records that were replayed.
    pub replayed: u64,
    /// The last sequence of the rebuilt catalog.
    pub sequence: u64,
    /// Records of deposed trackers that were left out.
    pub superseded: u64,
    /// Trackers that shared an epoch with the chosen one.
    pub rivals: Vec<Fence>,
    /// Sequences of which copies disagreed.
    pub disputed: Vec<u64>,
    /// Missing sequences that were skipped (`allow_gap`).
    pub gaps: Vec<RangeInclusive<u64>>,
}

/// Why a rebuild stopped. The engine stays marked as partly loaded: empty it before the next try.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The checkpoint cannot be used: try an older one.
    #[error("the checkpoint cannot be used: {0}")]
    Checkpoint(#[from] LoadError),
    /// Records are missing.
    #[error(
        "the journal lacks the records {} to {}: bring back a datanode that has them, \
         or allow the gap and lose what they changed",
        .missing.start(), .missing.end()
    )]
    Gap {
        /// Which.
        missing: RangeInclusive<u64>,
    },
    /// Neither checkpoint nor journal says which cluster this is.
    #[error("nothing was found to rebuild from: no checkpoint, and no journal from its beginning")]
    Nothing,
    /// A record makes no sense.
    #[error("journal record {sequence} cannot be replayed: {source}")]
    Record {
        /// Which.
        sequence: u64,
        /// Why.
        source: StoreError,
    },
    /// The engine failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Rebuilds the catalog into an empty engine. `checkpoint` is the newest one that [`super::checkpoint::verify`]
/// accepts; `records` are all copies from all datanodes, in any order. Blocking.
pub fn rebuild(
    engine: &dyn Engine,
    checkpoint: Option<&mut dyn Read>,
    records: Vec<JournalRecord>,
    options: RebuildOptions,
) -> Result<RebuildReport, RebuildError> {
    let Lineage {
        records,
        superseded,
        rivals,
        disputed,
    } = lineage::choose(records);
    begin_load(engine)?;
    let checkpoint = checkpoint
        .map(|input| load_pieces(engine, input))
        .transpose()?
        .map(|loaded| loaded.trailer.sequence);
    let start = checkpoint.unwrap_or(0);
    let tail: Vec<JournalRecord> = records
        .into_iter()
        .filter(|record| record.sequence > start)
        .collect();
    let gaps = find_gaps(start, &tail);
    if let (Some(missing), false) = (gaps.first(), options.allow_gap) {
        return Err(RebuildError::Gap {
            missing: missing.clone(),
        });
    }
    for records in tail.chunks(RECORDS_PER_TRANSACTION) {
        replay_records(engine, records)?;
    }
    let txn = engine.read()?;
    let report = RebuildReport {
        cluster: keys::read_cluster(txn.as_ref())?.ok_or(RebuildError::Nothing)?,
        fence: keys::read_fence(txn.as_ref())?,
        checkpoint,
        replayed: tail.len() as u64,
        sequence: keys::read_sequence(txn.as_ref())?,
        superseded,
        rivals,
        disputed,
        gaps,
    };
    drop(txn);
    end_load(engine)?;
    Ok(report)
}

fn find_gaps(start: u64, records: &[JournalRecord]) -> Vec<RangeInclusive<u64>> {
    let mut gaps = Vec::new();
    let mut expected = start + 1;
    for record in records {
        if record.sequence > expected {
            gaps.push(expected..=record.sequence - 1);
        }
        expected = record.sequence + 1;
    }
    gaps
}

fn replay_records(engine: &dyn Engine, records: &[JournalRecord]) -> Result<(), RebuildError> {
    let mut batches = Vec::with_capacity(records.len());
    for record in records {
        let changes = decode_batch(&record.payload).map_err(|source| RebuildError::Record {
            sequence: record.sequence,
            source,
        })?;
        batches.push(changes);
    }
    engine.write(&mut |txn| batches.iter().try_for_each(|changes| replay(changes, txn)))?;
    Ok(())
}
