//! Copies and moves.

use std::sync::Arc;

use dfs_protocol::upload::TransferMode;
use dfs_protocol::{ErrorCode, Problem, UploadId, VersionId};

use super::support::*;
use crate::model::op::OpOutcome;
use crate::store::{Catalog, CatalogLimits, JournalMode, MemoryEngine, NullJournal, SubmitError};

async fn label(catalog: &Catalog, from: &str, to: &str) -> &'static str {
    match catalog
        .submit(transfer(from, to, TransferMode::Move, 99))
        .await
    {
        Err(SubmitError::Refused(refusal)) => refusal.label(),
        Ok(_) => "done",
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_move_keeps_the_version_and_a_copy_takes_a_new_one() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    assert_eq!(label(&catalog, "a", "b").await, "done");
    let moved = catalog.get_file(&path("b")).await.unwrap().unwrap();
    assert_eq!(moved.version, VersionId::from_u128(1));
    assert_eq!((moved.created, moved.modified), (at(1), at(1)));
    let copy = || transfer("b", "c", TransferMode::Copy, 7);
    catalog.submit(copy()).await.unwrap();
    catalog.submit(copy()).await.unwrap();
    let copied = catalog.get_file(&path("c")).await.unwrap().unwrap();
    assert_eq!(copied.version, VersionId::from(UploadId::from_u128(7)));
    assert_eq!(copied.chunks, moved.chunks);
    assert_eq!(copied.file, moved.file);
    assert_eq!(paths(&catalog).await, ["b", "c"]);
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn a_move_onto_a_file_replaces_it_and_frees_its_chunks() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    catalog.submit(commit("b", 2, &[2])).await.unwrap();
    let outcome = catalog
        .submit(transfer("a", "b", TransferMode::Move, 9))
        .await;
    let Ok(OpOutcome::File {
        replaced,
        condemned,
        ..
    }) = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(replaced);
    assert_eq!(condemned.len(), 1);
    assert_eq!(paths(&catalog).await, ["b"]);
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn a_directory_moves_as_a_whole_or_not_at_all() {
    let catalog = catalog().await;
    for (i, name) in ["d/a", "d/e/b", "d/e/c", "d0", "x/e/b", "y"]
        .iter()
        .enumerate()
    {
        let id = 10 + i as u128;
        catalog.submit(commit(name, id, &[id])).await.unwrap();
    }
    let before = state(catalog.engine().as_ref());
    assert_eq!(label(&catalog, "d/", "x/").await, "conflict");
    assert_eq!(label(&catalog, "d/", "y/").await, "conflict");
    assert_eq!(label(&catalog, "d/", "d/e/").await, "invalid");
    assert_eq!(label(&catalog, "d/", "d/").await, "invalid");
    assert_eq!(label(&catalog, "d/", "x").await, "invalid");
    assert_eq!(label(&catalog, "", "x/").await, "invalid");
    assert_eq!(label(&catalog, "nothing/", "x/").await, "not-found");
    assert_eq!(state(catalog.engine().as_ref()), before);
    let outcome = catalog
        .submit(transfer("d/", "new/deep/", TransferMode::Move, 9))
        .await;
    assert!(matches!(outcome, Ok(OpOutcome::Moved { files: 3 })));
    assert_eq!(
        paths(&catalog).await,
        [
            "d0",
            "new/deep/a",
            "new/deep/e/b",
            "new/deep/e/c",
            "x/e/b",
            "y"
        ]
    );
    assert_eq!(label(&catalog, "new/deep/", "").await, "done");
    assert_eq!(
        paths(&catalog).await,
        ["a", "d0", "e/b", "e/c", "x/e/b", "y"]
    );
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn a_directory_beyond_the_limit_is_refused_with_the_limit() {
    let mut config = config(Arc::new(NullJournal), JournalMode::Sync);
    config.limits = CatalogLimits {
        max_move_files: 2,
        ..CatalogLimits::default()
    };
    let catalog = Catalog::open(Arc::new(MemoryEngine::default()), config)
        .await
        .unwrap();
    for (i, name) in ["d/a", "d/b", "d/c"].iter().enumerate() {
        catalog.submit(commit(name, i as u128, &[])).await.unwrap();
    }
    let refused = catalog
        .submit(transfer("d/", "e/", TransferMode::Move, 9))
        .await;
    let problem = Problem::from(refused.unwrap_err());
    assert!(problem.is(ErrorCode::BadRequest));
    assert!(problem.detail.contains("more than 2 files"), "{problem}");
    catalog.submit(delete("d/c", None)).await.unwrap();
    let moved = catalog
        .submit(transfer("d/", "e/", TransferMode::Move, 9))
        .await;
    assert!(matches!(moved, Ok(OpOutcome::Moved { files: 2 })));
}

#[tokio::test]
async fn a_directory_moves_when_a_page_ends_at_its_last_file() {
    let catalog = catalog().await;
    for i in 0..1000u128 {
        catalog
            .submit(commit(&format!("d/{i:04}"), i, &[]))
            .await
            .unwrap();
    }
    let moved = catalog
        .submit(transfer("d/", "e/", TransferMode::Move, 9999))
        .await;
    assert!(matches!(moved, Ok(OpOutcome::Moved { files: 1000 })));
    assert_consistent(catalog.engine().as_ref());
}
