//! Short words for the tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;

use dfs_protocol::chunk::SealedChunk;
use dfs_protocol::datanode::{AdminState, JournalRecord};
use dfs_protocol::upload::{CommitRequest, Precondition, TransferMode, WrittenChunk};
use dfs_protocol::{
    ChunkId, ChunkVersion, DatanodeId, Epoch, Fence, FileId, FilePath, Incarnation, LeaseId,
    PathPrefix, TrashId, UploadId,
};
use dfs_runtime::clock::SystemClock;
use dfs_runtime::rng::SharedRng;

use crate::model::op::{DatanodeRecord, Op};
use crate::store::kv::{Direction, Engine, Pair, Span, Table};
use crate::store::recount::recount;
use crate::store::{
    Catalog, CatalogConfig, CatalogLimits, CatalogMetrics, JournalError, JournalMode, JournalSink,
    MemoryEngine, NullJournal,
};

pub(super) const NODE: DatanodeId = DatanodeId::from_u128(0xd0);

pub(super) fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

pub(super) fn prefix(text: &str) -> PathPrefix {
    PathPrefix::parse(text).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(super) fn chunk(id: u128) -> SealedChunk {
    SealedChunk {
        id: ChunkId::from_u128(id),
        version: ChunkVersion::FIRST,
        length: 10,
        crc32c: 7,
    }
}

/// An upload of 10-byte chunks, all on [`NODE`].
pub(super) fn request(name: &str, upload: u128, chunks: &[u128]) -> CommitRequest {
    CommitRequest {
        upload: UploadId::from_u128(upload),
        lease: LeaseId::from_u128(1),
        file: FileId::from_u128(upload),
        path: path(name),
        precondition: Precondition::None,
        content_type: "text/plain".to_owned(),
        content_encoding: None,
        metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        size: 10 * chunks.len() as u64,
        crc64nvme: 1,
        md5: None,
        factor: None,
        chunks: chunks
            .iter()
            .map(|id| WrittenChunk {
                chunk: chunk(*id),
                replicas: vec![NODE],
            })
            .collect(),
    }
}

pub(super) fn commit_request(request: CommitRequest, trash: Option<u128>) -> Op {
    Op::Commit {
        request: Box::new(request),
        factor: 3,
        trash: trash.map(TrashId::from_u128),
        now: at(1),
    }
}

pub(super) fn commit(name: &str, upload: u128, chunks: &[u128]) -> Op {
    commit_request(request(name, upload, chunks), None)
}

pub(super) fn delete(name: &str, trash: Option<u128>) -> Op {
    Op::Delete {
        path: path(name),
        precondition: Precondition::None,
        trash: trash.map(TrashId::from_u128),
        now: at(2),
    }
}

pub(super) fn transfer(from: &str, to: &str, mode: TransferMode, upload: u128) -> Op {
    Op::Transfer {
        from: prefix(from),
        to: prefix(to),
        mode,
        precondition: Precondition::None,
        upload: UploadId::from_u128(upload),
        trash: None,
        now: at(3),
    }
}

pub(super) fn set_factor(path: &str, factor: Option<u32>) -> Op {
    Op::SetFactor {
        path: prefix(path),
        after: None,
        precondition: Precondition::None,
        factor,
        cluster: 3,
    }
}

pub(super) fn restore(id: u128, to: Option<&str>, upload: u128) -> Op {
    Op::Restore {
        id: TrashId::from_u128(id),
        to: to.map(path),
        upload: UploadId::from_u128(upload),
        now: at(4),
    }
}

pub(super) fn purge(id: u128) -> Op {
    Op::Purge {
        ids: vec![TrashId::from_u128(id)],
        now: at(5),
    }
}

pub(super) fn put_node(admin: AdminState) -> Op {
    Op::PutDatanode {
        from: None,
        id: NODE,
        record: DatanodeRecord {
            admin,
            zone: None,
            host: None,
            address: "127.0.0.1:1".to_owned(),
            registered: at(0),
            claim: None,
        },
    }
}

pub(super) fn fence(epoch: u64) -> Fence {
    Fence {
        epoch: Epoch(epoch),
        incarnation: Incarnation(epoch * 100),
    }
}

pub(super) fn config(journal: Arc<dyn JournalSink>, mode: JournalMode) -> CatalogConfig {
    CatalogConfig {
        journal,
        mode,
        clock: SystemClock::shared(),
        rng: SharedRng::from_seed(5),
        limits: CatalogLimits::default(),
        metrics: CatalogMetrics::register(&prometheus::Registry::new()).unwrap(),
    }
}

/// An open catalog in memory with [`NODE`] in service.
pub(super) async fn catalog() -> Catalog {
    catalog_on(Arc::new(MemoryEngine::default()), Arc::new(NullJournal)).await
}

pub(super) async fn catalog_on(engine: Arc<dyn Engine>, journal: Arc<dyn JournalSink>) -> Catalog {
    let catalog = Catalog::open(engine, config(journal, JournalMode::Sync))
        .await
        .unwrap();
    catalog
        .submit(put_node(AdminState::InService))
        .await
        .unwrap();
    catalog
}

/// Every key of the state, without the local journal.
pub(super) fn state(engine: &dyn Engine) -> Vec<(Table, Vec<Pair>)> {
    let txn = engine.read().unwrap();
    let all = |table| {
        txn.range(table, &Span::all(), Direction::Forward, usize::MAX)
            .unwrap()
    };
    Table::STATE
        .iter()
        .map(|table| (*table, all(*table)))
        .collect()
}

pub(super) fn assert_consistent(engine: &dyn Engine) {
    let found = recount(engine.read().unwrap().as_ref()).unwrap();
    assert!(found.is_clean(), "{found:?}");
}

pub(super) async fn paths(catalog: &Catalog) -> Vec<String> {
    let files = catalog
        .read(|snapshot| snapshot.scan_files(None, 10_000))
        .await;
    files
        .unwrap()
        .iter()
        .map(|file| file.path.to_string())
        .collect()
}

/// A journal that remembers records and can be made to refuse them.
#[derive(Debug, Default)]
pub(super) struct KeepingJournal {
    pub(super) records: Mutex<Vec<JournalRecord>>,
    pub(super) refusing: AtomicBool,
}

impl KeepingJournal {
    pub(super) fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::SeqCst);
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        self.records
            .lock()
            .unwrap()
            .iter()
            .map(|r| r.sequence)
            .collect()
    }

    pub(super) fn take(&self) -> Vec<JournalRecord> {
        self.records.lock().unwrap().clone()
    }
}

#[async_trait]
impl JournalSink for KeepingJournal {
    async fn append(&self, record: &JournalRecord) -> Result<(), JournalError> {
        if self.refusing.load(Ordering::SeqCst) {
            return Err(JournalError::TooFew {
                confirmed: 1,
                wanted: 2,
                detail: "simulated".to_owned(),
            });
        }
        self.records.lock().unwrap().push(record.clone());
        Ok(())
    }
}
