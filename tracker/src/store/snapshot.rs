//! Reads of one consistent picture of the catalog.

use serde::de::DeserializeOwned;

use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::file::{FileRecord, TrashEntry};
use dfs_protocol::upload::{ListRequest, ListResponse};
use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Fence, FilePath, TrashId};
use std::ops::Bound;

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
        let pairs = self.page(Table::Files, after.map(keys::file), limit)?;
        pairs
            .iter()
            .map(|(_, value)| factor_value::decode(value))
            .collect()
    }

    /// Chunks behind `after`, by id.
    pub fn scan_chunks(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, ChunkRecord)>, StoreError> {
        let key = after.map(keys::chunk);
        let pairs = self.page(Table::Chunks, key.as_ref().map(<[u8; 16]>::as_slice), limit)?;
        with_ids(pairs, ChunkId::from_bytes, "a chunk record", |_, bytes| {
            factor_value::decode(bytes)
        })
    }

    /// Condemned chunks behind `after`, by id.
    pub fn scan_condemned(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, CondemnedRecord)>, StoreError> {
        let key = after.map(keys::chunk);
        let key = key.as_ref().map(<[u8; 16]>::as_slice);
        let pairs = self.page(Table::Condemned, key, limit)?;
        with_ids(pairs, ChunkId::from_bytes, "a condemned record", decode)
    }

    /// Entries of the trash behind `after`, by id: oldest first with ids of
    /// [`super::new_trash_id`].
    pub fn scan_trash(
        &self,
        after: Option<TrashId>,
        limit: usize,
    ) -> Result<Vec<TrashEntry>, StoreError> {
        let key = after.map(keys::trash);
        let pairs = self.page(Table::Trash, key.as_ref().map(<[u8; 16]>::as_slice), limit)?;
        pairs
            .iter()
            .map(|(_, value)| factor_value::decode(value))
            .collect()
    }

    /// Every datanode that was ever registered.
    pub fn datanodes(&self) -> Result<Vec<(DatanodeId, DatanodeRecord)>, StoreError> {
        let pairs = self.page(Table::Datanodes, None, usize::MAX)?;
        with_ids(
            pairs,
            DatanodeId::from_bytes,
            "a datanode record",
            |_, bytes| datanode_value::decode(bytes),
        )
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

    fn page(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<super::kv::Pair>, StoreError> {
        self.txn
            .range(table, &Span::after(after), Direction::Forward, limit)
    }
}

fn with_ids<I, T>(
    pairs: Vec<super::kv::Pair>,
    id: impl Fn([u8; 16]) -> I,
    what: &'static str,
    value_of: impl Fn(&'static str, &[u8]) -> Result<T, StoreError>,
) -> Result<Vec<(I, T)>, StoreError> {
    let decode_pair = |(key, value): super::kv::Pair| {
        let key: [u8; 16] = key.try_into().map_err(|_| StoreError::Corrupt {
            detail: format!("the key of {what} is no id"),
        })?;
        Ok((id(key), value_of(what, &value)?))
    };
    pairs.into_iter().map(decode_pair).collect()
}
