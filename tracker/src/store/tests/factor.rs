//! Replication factors in the catalog.

use std::sync::Arc;

use dfs_protocol::upload::{Precondition, TransferMode};
use dfs_protocol::{ChunkId, FileId, UploadId, VersionId};

use super::support::*;
use crate::model::op::{FactoredPage, Op, OpOutcome};
use crate::store::apply::PAGE_CHUNKS;
use crate::store::factor_value::OWN_FACTOR_FORMAT;
use crate::store::kv::{ReadTxn, Table};
use crate::store::{Catalog, MemoryEngine, NullJournal, Snapshot, StoreError, keys};

async fn catalog() -> Catalog {
    catalog_on(Arc::new(MemoryEngine::default()), Arc::new(NullJournal)).await
}

async fn factored(catalog: &Catalog, op: Op) -> FactoredPage {
    match catalog.submit(op).await.unwrap() {
        OpOutcome::Factored(page) => page,
        other => panic!("{other:?}"),
    }
}

fn raw(catalog: &Catalog, table: Table, key: &[u8]) -> Vec<u8> {
    let engine = catalog.engine();
    let txn = engine.read().unwrap();
    txn.get(table, key).unwrap().unwrap()
}

async fn wanted(catalog: &Catalog, chunk: u128, cluster: u32) -> u32 {
    let id = ChunkId::from_u128(chunk);
    let record = catalog.read(move |snapshot| snapshot.get_chunk(id)).await;
    record.unwrap().unwrap().wanted(cluster)
}

#[tokio::test]
async fn files_without_a_factor_of_their_own_follow_the_clusters_others_keep_theirs() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    catalog.submit(commit("b", 2, &[2])).await.unwrap();
    let page = factored(&catalog, set_factor("b", Some(2))).await;
    assert_eq!((page.files, page.changed), (1, 1));
    for cluster in [1, 3, 5] {
        assert_eq!(wanted(&catalog, 1, cluster).await, cluster);
        assert_eq!(wanted(&catalog, 2, cluster).await, 2);
    }
    // Twice is once, and nothing but the factor changed.
    let again = factored(&catalog, set_factor("b", Some(2))).await;
    assert_eq!((again.files, again.changed), (1, 0));
    let file = catalog.get_file(&path("b")).await.unwrap().unwrap();
    assert_eq!(file.version, VersionId::from(UploadId::from_u128(2)));
    factored(&catalog, set_factor("b", None)).await;
    assert_eq!(wanted(&catalog, 2, 5).await, 5);
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn what_nobody_set_a_factor_for_is_written_as_before_and_the_rest_names_its_format() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let key = keys::chunk(ChunkId::from_u128(1));
    let (file, chunk) = (
        raw(&catalog, Table::Files, b"a"),
        raw(&catalog, Table::Chunks, &key),
    );
    assert_eq!((file[0], chunk[0]), (1, 1));
    factored(&catalog, set_factor("a", Some(5))).await;
    assert_eq!(raw(&catalog, Table::Files, b"a")[0], OWN_FACTOR_FORMAT);
    assert_eq!(raw(&catalog, Table::Chunks, &key)[0], OWN_FACTOR_FORMAT);
    factored(&catalog, set_factor("a", None)).await;
    assert_eq!(raw(&catalog, Table::Files, b"a"), file);
    assert_eq!(raw(&catalog, Table::Chunks, &key), chunk);
}

#[tokio::test]
async fn a_format_after_the_second_is_named_and_not_guessed_at() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let mut bytes = raw(&catalog, Table::Files, b"a");
    bytes[0] = OWN_FACTOR_FORMAT + 1;
    let engine = catalog.engine();
    engine
        .write(&mut |txn| txn.put(Table::Files, b"a", &bytes))
        .unwrap();
    let txn: Box<dyn ReadTxn> = engine.read().unwrap();
    let read = Snapshot::new(txn.as_ref()).get_file(&path("a"));
    assert!(matches!(
        read,
        Err(StoreError::FormatUnknown { found: 3, .. })
    ));
}

#[tokio::test]
async fn a_chunk_of_several_files_has_the_largest_factor_until_that_file_is_gone() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let copy = transfer("a", "b", TransferMode::Copy, 2);
    catalog.submit(copy).await.unwrap();
    factored(&catalog, set_factor("a", Some(2))).await;
    assert_eq!(wanted(&catalog, 1, 3).await, 3);
    factored(&catalog, set_factor("b", Some(5))).await;
    assert_eq!(wanted(&catalog, 1, 3).await, 5);
    let OpOutcome::Deleted { refactored, .. } = catalog.submit(delete("b", None)).await.unwrap()
    else {
        panic!("no deletion");
    };
    let (id, record) = &refactored[0];
    assert_eq!((*id, record.wanted(3)), (ChunkId::from_u128(1), 2));
    assert_eq!(wanted(&catalog, 1, 3).await, 2);
}

#[tokio::test]
async fn a_factor_is_for_the_version_that_was_seen_and_a_new_one_has_its_own() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let guarded = |version: u128| Op::SetFactor {
        path: prefix("a"),
        after: None,
        precondition: Precondition::Versions(vec![UploadId::from_u128(version).into()]),
        factor: Some(2),
        cluster: 3,
    };
    factored(&catalog, guarded(1)).await;
    catalog.submit(commit("a", 2, &[2])).await.unwrap();
    assert!(catalog.submit(guarded(1)).await.is_err());
    assert_eq!(wanted(&catalog, 2, 3).await, 3);
    assert!(catalog.submit(set_factor("absent", Some(2))).await.is_err());
    assert!(
        catalog
            .submit(set_factor("absent/", Some(2)))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_directory_is_taken_page_by_page_and_each_page_is_bounded() {
    let catalog = catalog().await;
    for n in 0..1500u128 {
        catalog
            .submit(commit(&format!("d/{n:04}"), n + 1, &[]))
            .await
            .unwrap();
    }
    catalog.submit(commit("e", 9000, &[9000])).await.unwrap();
    let mut after = None;
    let mut sizes = Vec::new();
    loop {
        let op = Op::SetFactor {
            path: prefix("d/"),
            after: after.clone(),
            precondition: Precondition::None,
            factor: Some(2),
            cluster: 3,
        };
        let page = factored(&catalog, op).await;
        assert_eq!(page.files, page.changed);
        sizes.push(page.files);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [1000, 500]);
    assert_eq!(wanted(&catalog, 9000, 3).await, 3);
    // A file of more chunks than a page ends it.
    let many: Vec<u128> = (0..=PAGE_CHUNKS as u128).map(|n| 100_000 + n).collect();
    let mut big = request("f/a", 9001, &many);
    big.file = FileId::from_u128(9001);
    catalog.submit(commit_request(big, None)).await.unwrap();
    catalog.submit(commit("f/b", 9002, &[9002])).await.unwrap();
    let page = factored(&catalog, set_factor("f/", Some(2))).await;
    assert_eq!((page.files, page.next), (1, Some(path("f/a"))));
}
