//! Reads of one consistent picture of the catalog.

use serde::de::DeserializeOwned;

use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::file::{FileRecord, TrashEntry};
use dfs_protocol::upload::{ListRequest, ListResponse};
use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Fence, FilePath, TrashId};
use std::ops::{Bound, ControlFlow};

use super::codec::decode;
use super::datanode_value;
use super::error::StoreError;
use super::factor_value::{self, Factored};
use super::keys::{self, Counters};
use super::kv::{Direction, ReadTxn, Span, Table};
use super::list;
use crate::model::op::{CheckpointRecord, ChunkRecord, CondemnedRecord, DatanodeRecord};

/// The single values of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogMeta {
    /// The cluster.
    pub cluster: ClusterId,
    /// The last epoch that was begun.
    pub fence: Fence,
    /// The last committed sequence.
    pub sequence: u64,
    /// Running totals.
    pub counters: Counters,
    /// Checkpoints on datanodes, oldest first.
    pub checkpoints: Vec<CheckpointRecord>,
}

/// A consistent picture of the catalog. Hold it for one page of results only.
pub struct Snapshot<'t> {
    txn: &'t dyn ReadTxn,
}

impl<'t> Snapshot<'t> {
    /// Reads through a transaction.
    pub fn new(txn: &'t dyn ReadTxn) -> Self {
        Self { txn }
    }

    /// The file at a path.
    pub fn get_file(&self, path: &FilePath) -> Result<Option<FileRecord>, StoreError> {
        self.get_factored(Table::Files, keys::file(path))
    }

    /// One page of a listing; cost is per entry of the page, not per file below a common prefix.
    pub fn list(&self, request: &ListRequest) -> Result<ListResponse, StoreError> {
        list::list(self.txn, request)
    }

    /// A chunk that something names.
    pub fn get_chunk(&self, id: ChunkId) -> Result<Option<ChunkRecord>, StoreError> {
        self.get_factored(Table::Chunks, &keys::chunk(id))
    }

    /// A condemned chunk.
    pub fn get_condemned(&self, id: ChunkId) -> Result<Option<CondemnedRecord>, StoreError> {
        self.get(Table::Condemned, &keys::chunk(id), "a condemned record")
    }

    /// An entry of the trash.
    pub fn get_trash(&self, id: TrashId) -> Result<Option<TrashEntry>, StoreError> {
        self.get_factored(Table::Trash, &keys::trash(id))
    }

    /// A datanode's record.
    pub fn get_datanode(&self, id: DatanodeId) -> Result<Option<DatanodeRecord>, StoreError> {
        let bytes = self.txn.get(Table::Datanodes, &keys::datanode(id))?;
        bytes
            .map(|bytes| datanode_value::decode(&bytes))
            .transpose()
    }

    /// Files behind `after`, in byte order of paths.
    pub fn scan_files(
        &self,
        after: Option<&FilePath>,
        limit: usize,
    ) -> Result<Vec<FileRecord>, StoreError> {
        let read = |_: &[u8], value: &[u8]| factor_value::decode(value);
        self.page(Table::Files, after.map(keys::file), limit, read)
    }

    /// Chunks behind `after`, by id.
    pub fn scan_chunks(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, ChunkRecord)>, StoreError> {
        let after = after.map(keys::chunk);
        let after = after.as_ref().map(<[u8; 16]>::as_slice);
        self.page(Table::Chunks, after, limit, |key, value| {
            let id = ChunkId::from_bytes(id_of("a chunk record", key)?);
            Ok((id, factor_value::decode(value)?))
        })
    }

    /// Condemned chunks behind `after`, by id.
    pub fn scan_condemned(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, CondemnedRecord)>, StoreError> {
        const WHAT: &str = "a condemned record";
        let after = after.map(keys::chunk);
        let after = after.as_ref().map(<[u8; 16]>::as_slice);
        self.page(Table::Condemned, after, limit, |key, value| {
            let id = ChunkId::from_bytes(id_of(WHAT, key)?);
            Ok((id, decode(WHAT, value)?))
        })
    }

    /// Entries of the trash behind `after`, by id: oldest first with ids of
    /// [`super::new_trash_id`].
    pub fn scan_trash(
        &self,
        after: Option<TrashId>,
        limit: usize,
    ) -> Result<Vec<TrashEntry>, StoreError> {
        let after = after.map(keys::trash);
        let after = after.as_ref().map(<[u8; 16]>::as_slice);
        let read = |_: &[u8], value: &[u8]| factor_value::decode(value);
        self.page(Table::Trash, after, limit, read)
    }

    /// Every datanode that was ever registered.
    pub fn datanodes(&self) -> Result<Vec<(DatanodeId, DatanodeRecord)>, StoreError> {
        self.page(Table::Datanodes, None, usize::MAX, |key, value| {
            let id = DatanodeId::from_bytes(id_of("a datanode record", key)?);
            Ok((id, datanode_value::decode(value)?))
        })
    }

    /// The single values.
    pub fn meta(&self) -> Result<CatalogMeta, StoreError> {
        let cluster = keys::read_cluster(self.txn)?.ok_or_else(|| StoreError::Corrupt {
            detail: "the cluster id is absent".to_owned(),
        })?;
        Ok(CatalogMeta {
            cluster,
            fence: keys::read_fence(self.txn)?,
            sequence: keys::read_sequence(self.txn)?,
            counters: keys::read_counters(self.txn)?,
            checkpoints: keys::read_checkpoints(self.txn)?,
        })
    }

    /// Local journal records from a sequence on, ascending, at most `limit`: what a datanode's
    /// journal lacks. Records that every kept checkpoint covers are gone.
    pub fn journal_records(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<JournalRecord>, StoreError> {
        let span = Span {
            start: Bound::Included(keys::sequence(from).to_vec()),
            end: Bound::Excluded(keys::CONFIRMED.to_vec()),
        };
        let pairs = self
            .txn
            .range(Table::Journal, &span, Direction::Forward, limit)?;
        pairs
            .iter()
            .map(|(_, value)| decode("a journal record", value))
            .collect()
    }

    /// The transaction underneath, for whole-table work such as checkpoints.
    pub fn txn(&self) -> &'t dyn ReadTxn {
        self.txn
    }

    fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
        what: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let bytes = self.txn.get(table, key)?;
        bytes.map(|bytes| decode(what, &bytes)).transpose()
    }

    fn get_factored<T: Factored>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        let bytes = self.txn.get(table, key)?;
        bytes.map(|bytes| factor_value::decode(&bytes)).transpose()
    }

    /// What `read` makes of at most `limit` pairs behind a key.
    fn page<T>(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
        read: impl Fn(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut page = Vec::new();
        let span = Span::after(after);
        self.txn
            .walk(table, &span, Direction::Forward, &mut |key, value| {
                if page.len() == limit {
                    return Ok(ControlFlow::Break(()));
                }
                page.push(read(key, value)?);
                Ok(ControlFlow::Continue(()))
            })?;
        Ok(page)
    }
}

/// The id that a key is; `what` names the record in errors.
fn id_of(what: &'static str, key: &[u8]) -> Result<[u8; 16], StoreError> {
    key.try_into().map_err(|_| StoreError::Corrupt {
        detail: format!("the key of {what} is no id"),
    })
}
