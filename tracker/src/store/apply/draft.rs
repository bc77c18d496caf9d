//! A transaction with the running totals at hand: what moves between files, trash and condemned
//! moves through here, so that references and totals cannot disagree with the records.

use jiff::Timestamp;

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::file::{FileRecord, TrashEntry, TrashReason};
use dfs_protocol::{ChunkId, TrashId};

use super::ApplyContext;
use crate::model::op::{ChunkRecord, CondemnedRecord, OwnFactors};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::factor_value;
use crate::store::keys::{self, Counters};
use crate::store::kv::{ReadTxn, Table, WriteTxn};

/// Where a version goes that leaves its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// The trash, or nowhere.
    pub(super) trash: Option<TrashId>,
    pub(super) reason: TrashReason,
    pub(super) now: Timestamp,
}

pub(super) struct Draft<'t> {
    txn: &'t mut dyn WriteTxn,
    before: Counters,
    pub(super) counters: Counters,
    sequence: u64,
    refactored: Vec<(ChunkId, ChunkRecord)>,
}

impl<'t> Draft<'t> {
    pub(super) fn begin(
        txn: &'t mut dyn WriteTxn,
        context: ApplyContext,
    ) -> Result<Self, StoreError> {
        let before = keys::read_counters(txn)?;
        Ok(Self {
            txn,
            before,
            counters: before,
            sequence: context.sequence,
            refactored: Vec::new(),
        })
    }

    /// Writes the totals.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        if self.counters != self.before {
            keys::put(self.txn, Table::Meta, keys::COUNTERS, &self.counters)?;
        }
        Ok(())
    }

    pub(super) fn put_file(&mut self, record: &FileRecord) -> Result<(), StoreError> {
        self.rewrite_file(record)?;
        self.counters.files += 1;
        self.counters.file_bytes += record.size;
        Ok(())
    }

    /// Writes a record over that of the same version.
    pub(super) fn rewrite_file(&mut self, record: &FileRecord) -> Result<(), StoreError> {
        keys::put_factored(self.txn, Table::Files, keys::file(&record.path), record)
    }

    /// Takes a version off its path; its chunks stay referenced until [`Self::leave`].
    pub(super) fn take_file(&mut self, record: &FileRecord) -> Result<(), StoreError> {
        self.txn.delete(Table::Files, keys::file(&record.path))?;
        self.counters.files = self.counters.files.saturating_sub(1);
        self.counters.file_bytes = self.counters.file_bytes.saturating_sub(record.size);
        Ok(())
    }

    /// Sends a version that left its path to the trash, or dereferences its chunks. Gives the
    /// chunks that were condemned by it.
    pub(super) fn leave(
        &mut self,
        record: FileRecord,
        leaving: Leaving,
    ) -> Result<Vec<ChunkId>, StoreError> {
        let Leaving { trash, reason, now } = leaving;
        let Some(id) = trash else {
            return self.dereference(&record, now);
        };
        self.counters.trash_entries += 1;
        self.counters.trash_bytes += record.size;
        let entry = TrashEntry {
            id,
            deleted: now,
            reason,
            file: record,
        };
        keys::put_factored(self.txn, Table::Trash, &keys::trash(id), &entry)?;
        Ok(Vec::new())
    }

    /// Takes an entry out of the trash; its chunks stay referenced.
    pub(super) fn take_trash(&mut self, entry: &TrashEntry) -> Result<(), StoreError> {
        self.txn.delete(Table::Trash, &keys::trash(entry.id))?;
        self.counters.trash_entries = self.counters.trash_entries.saturating_sub(1);
        self.counters.trash_bytes = self.counters.trash_bytes.saturating_sub(entry.file.size);
        Ok(())
    }

    /// Counts one more reference to each chunk of a file. Gives those that were unknown before.
    pub(super) fn reference(&mut self, record: &FileRecord) -> Result<Vec<ChunkId>, StoreError> {
        let mut new = Vec::new();
        for (index, chunk) in record.chunks.iter().enumerate() {
            let known = read_chunk(self.txn, chunk.id)?;
            let counted = if let Some(mut known) = known {
                known.references += 1;
                known.own.add(record);
                known
            } else {
                new.push(chunk.id);
                self.counters.chunks += 1;
                self.counters.chunk_bytes += chunk.length;
                let mut own = OwnFactors::default();
                own.add(record);
                ChunkRecord {
                    version: chunk.version,
                    length: chunk.length,
                    crc32c: chunk.crc32c,
                    file: record.file,
                    // Bounded: a request of 2^32 chunks fits no body limit.
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    references: 1,
                    factor: record.factor,
                    own,
                }
            };
            keys::put_factored(self.txn, Table::Chunks, &keys::chunk(chunk.id), &counted)?;
        }
        Ok(new)
    }

    /// Counts one reference less to each chunk, and condemns those that nothing names any more.
    pub(super) fn dereference(
        &mut self,
        record: &FileRecord,
        now: Timestamp,
    ) -> Result<Vec<ChunkId>, StoreError> {
        let mut condemned = Vec::new();
        for chunk in &record.chunks {
            let key = keys::chunk(chunk.id);
            let mut known = self.named_chunk(chunk.id)?;
            if known.references > 1 {
                known.references -= 1;
                known.own.remove(record);
                keys::put_factored(self.txn, Table::Chunks, &key, &known)?;
                if record.own_factor {
                    self.refactored.push((chunk.id, known));
                }
                continue;
            }
            self.txn.delete(Table::Chunks, &key)?;
            self.counters.chunks = self.counters.chunks.saturating_sub(1);
            self.counters.chunk_bytes = self.counters.chunk_bytes.saturating_sub(known.length);
            let record = CondemnedRecord {
                version: known.version,
                kind: ChunkKind::Data,
                sequence: self.sequence,
                condemned: now,
            };
            self.put_condemned(chunk.id, &record)?;
            condemned.push(chunk.id);
        }
        Ok(condemned)
    }

    /// Counts a file's factor anew in each of its chunks.
    pub(super) fn refactor(
        &mut self,
        before: &FileRecord,
        after: &FileRecord,
    ) -> Result<(), StoreError> {
        for chunk in &after.chunks {
            let mut known = self.named_chunk(chunk.id)?;
            known.own.remove(before);
            known.own.add(after);
            keys::put_factored(self.txn, Table::Chunks, &keys::chunk(chunk.id), &known)?;
            self.refactored.push((chunk.id, known));
        }
        self.rewrite_file(after)
    }

    /// Chunks whose factor may have changed and that are still named.
    pub(super) fn take_refactored(&mut self) -> Vec<(ChunkId, ChunkRecord)> {
        std::mem::take(&mut self.refactored)
    }

    fn named_chunk(&self, id: ChunkId) -> Result<ChunkRecord, StoreError> {
        read_chunk(self.txn, id)?.ok_or_else(|| StoreError::Corrupt {
            detail: format!("chunk {id} is named but not known"),
        })
    }

    pub(super) fn put_condemned(
        &mut self,
        id: ChunkId,
        record: &CondemnedRecord,
    ) -> Result<(), StoreError> {
        if self.txn.get(Table::Condemned, &keys::chunk(id))?.is_none() {
            self.counters.condemned += 1;
        }
        keys::put(self.txn, Table::Condemned, &keys::chunk(id), record)
    }

    pub(super) fn take_condemned(&mut self, id: ChunkId) -> Result<(), StoreError> {
        if self.txn.get(Table::Condemned, &keys::chunk(id))?.is_some() {
            self.counters.condemned = self.counters.condemned.saturating_sub(1);
            self.txn.delete(Table::Condemned, &keys::chunk(id))?;
        }
        Ok(())
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn read(&self) -> &dyn ReadTxn {
        &*self.txn
    }
}

pub(super) fn read_chunk(
    txn: &dyn ReadTxn,
    id: ChunkId,
) -> Result<Option<ChunkRecord>, StoreError> {
    let bytes = txn.get(Table::Chunks, &keys::chunk(id))?;
    bytes.map(|bytes| factor_value::decode(&bytes)).transpose()
}

pub(super) fn read_condemned(
    txn: &dyn ReadTxn,
    id: ChunkId,
) -> Result<Option<CondemnedRecord>, StoreError> {
    let bytes = txn.get(Table::Condemned, &keys::chunk(id))?;
    bytes
        .map(|bytes| decode("a condemned record", &bytes))
        .transpose()
}
