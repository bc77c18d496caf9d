//! Keys of the tables, and the single values of the table `meta`.

use serde::{Deserialize, Serialize};

use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Fence, FilePath, TrashId, UploadId};

use super::codec::{decode, encode};
use super::error::StoreError;
use super::factor_value::Factored;
use super::kv::{ReadTxn, Table, WriteTxn};
use crate::model::op::CheckpointRecord;

/// Key of the cluster's id in `meta`.
pub const CLUSTER: &[u8] = b"cluster";
/// Key of the acting tracker's fence in `meta`.
pub const FENCE: &[u8] = b"fence";
/// Key of the last committed sequence in `meta`.
pub const SEQUENCE: &[u8] = b"sequence";
/// Key of the counters in `meta`.
pub const COUNTERS: &[u8] = b"counters";
/// Key of the kept checkpoints in `meta`.
pub const CHECKPOINTS: &[u8] = b"checkpoints";
/// Present in `meta` while a load or rebuild is under way.
pub const LOADING: &[u8] = b"loading";
/// Key in `journal` of the last sequence that the datanodes' journals confirmed. Sequences stay
/// below 2^63, so it sorts behind all of them.
pub const CONFIRMED: &[u8] = &[0xff];

/// Key in `uploads` of the place that the next one takes: a u64 that only grows.
pub const NEXT_PLACE: &[u8] = &[0];

/// Running totals, changed in the transaction that changes what they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Files.
    pub files: u64,
    /// Bytes of all files, before replication and sharing.
    pub file_bytes: u64,
    /// Chunks that something names.
    pub chunks: u64,
    /// Bytes of those chunks, before replication.
    pub chunk_bytes: u64,
    /// Entries of the trash.
    pub trash_entries: u64,
    /// Bytes of the versions in the trash, before replication and sharing.
    pub trash_bytes: u64,
    /// Condemned chunks.
    pub condemned: u64,
}

/// Key of a file.
pub fn file(path: &FilePath) -> &[u8] {
    path.as_str().as_bytes()
}

/// Key of a chunk, also in `condemned`.
pub fn chunk(id: ChunkId) -> [u8; 16] {
    id.to_bytes()
}

/// Key of a trash entry.
pub fn trash(id: TrashId) -> [u8; 16] {
    id.to_bytes()
}

/// Key of an upload that had its effect.
pub fn upload(id: UploadId) -> [u8; 17] {
    let mut key = [2; 17];
    key[1..].copy_from_slice(&id.to_bytes());
    key
}

/// Key of a place in the ring of uploads.
pub fn upload_place(place: u64) -> [u8; 9] {
    let mut key = [1; 9];
    key[1..].copy_from_slice(&place.to_be_bytes());
    key
}

/// Key of a datanode.
pub fn datanode(id: DatanodeId) -> [u8; 16] {
    id.to_bytes()
}

/// Key of a journal record.
pub fn sequence(sequence: u64) -> [u8; 8] {
    sequence.to_be_bytes()
}

/// The cluster's id; none in an empty store.
pub(crate) fn read_cluster(txn: &dyn ReadTxn) -> Result<Option<ClusterId>, StoreError> {
    let bytes = txn.get(Table::Meta, CLUSTER)?;
    bytes
        .map(|bytes| decode("the cluster id", &bytes))
        .transpose()
}

pub(super) fn read_fence(txn: &dyn ReadTxn) -> Result<Fence, StoreError> {
    let bytes = txn.get(Table::Meta, FENCE)?;
    bytes.map_or(Ok(Fence::default()), |bytes| decode("the fence", &bytes))
}

pub(super) fn read_sequence(txn: &dyn ReadTxn) -> Result<u64, StoreError> {
    let bytes = txn.get(Table::Meta, SEQUENCE)?;
    bytes.map_or(Ok(0), |bytes| decode("the sequence", &bytes))
}

pub(super) fn read_counters(txn: &dyn ReadTxn) -> Result<Counters, StoreError> {
    let bytes = txn.get(Table::Meta, COUNTERS)?;
    bytes.map_or(Ok(Counters::default()), |bytes| {
        decode("the counters", &bytes)
    })
}

pub(super) fn read_checkpoints(txn: &dyn ReadTxn) -> Result<Vec<CheckpointRecord>, StoreError> {
    let bytes = txn.get(Table::Meta, CHECKPOINTS)?;
    bytes.map_or(Ok(Vec::new()), |bytes| {
        decode("the list of checkpoints", &bytes)
    })
}

/// As [`put`], of a record that may have a replication factor of its own.
pub(super) fn put_factored<T: Factored>(
    txn: &mut dyn WriteTxn,
    table: Table,
    key: &[u8],
    value: &T,
) -> Result<(), StoreError> {
    txn.put(table, key, &value.to_value()?)
}

pub(super) fn put<T: Serialize>(
    txn: &mut dyn WriteTxn,
    table: Table,
    key: &[u8],
    value: &T,
) -> Result<(), StoreError> {
    txn.put(table, key, &encode(value)?)
}
