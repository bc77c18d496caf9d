//! The catalog and its journal: group commit, confirmation, what is sent again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{ErrorCode, Problem};

use super::support::*;
use crate::model::op::{CheckpointRecord, Op};
use crate::store::{Catalog, JournalError, JournalMode, JournalSink, MemoryEngine, SubmitError};

/// Confirms only as often as it is allowed to.
#[derive(Debug)]
struct GatedJournal(Semaphore);

#[async_trait]
impl JournalSink for GatedJournal {
    async fn append(&self, _record: &JournalRecord) -> Result<(), JournalError> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(90);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn changes_that_wait_share_one_transaction_and_one_record() {
    let gate = Arc::new(GatedJournal(Semaphore::new(2)));
    let catalog = catalog_on(Arc::new(MemoryEngine::default()), gate.clone()).await;
    let before = catalog.meta().await.unwrap().sequence;
    let submit = |i: u128| {
        let catalog = catalog.clone();
        tokio::spawn(async move { catalog.submit(commit(&format!("f{i}"), i, &[])).await })
    };
    let first = submit(0);
    // The first batch is committed and hangs in the journal.
    loop {
        if catalog.meta().await.unwrap().sequence > before {
            break;
        }
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (1..100).map(submit).collect();
    tokio::task::yield_now().await;
    assert!(!first.is_finished());
    gate.0.add_permits(100);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    let after = catalog.meta().await.unwrap();
    assert!(
        after.sequence <= before + 3,
        "{} batches",
        after.sequence - before
    );
    assert_eq!(after.counters.files, 100);
}

#[tokio::test]
async fn i02_a_change_that_the_journals_did_not_confirm_is_not_acknowledged_until_they_did() {
    let journal = Arc::new(KeepingJournal::default());
    let catalog = catalog_on(Arc::new(MemoryEngine::default()), journal.clone()).await;
    journal.refuse(true);
    let unconfirmed = catalog.submit(commit("a", 1, &[1])).await.unwrap_err();
    assert!(matches!(unconfirmed, SubmitError::Unconfirmed { .. }));
    let problem = Problem::from(unconfirmed);
    assert!(problem.is(ErrorCode::Unavailable));
    assert!(problem.detail.contains("unknown"));
    // The retry finds its own result in the catalog, and must not trust it.
    let retry = catalog.submit(commit("a", 1, &[1])).await.unwrap_err();
    assert!(matches!(retry, SubmitError::Unconfirmed { .. }));
    journal.refuse(false);
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    catalog.submit(commit("b", 2, &[2])).await.unwrap();
    assert_eq!(journal.sequences(), [1, 2, 3, 4]);
    assert_eq!(catalog.confirmed_sequence(), 4);
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn the_tail_is_sent_again_after_a_restart_under_the_new_fence() {
    let engine = Arc::new(MemoryEngine::default());
    let journal = Arc::new(KeepingJournal::default());
    let catalog = catalog_on(engine.clone(), journal.clone()).await;
    journal.refuse(true);
    for i in 0..3u128 {
        catalog
            .submit(commit(&format!("f{i}"), i, &[]))
            .await
            .unwrap_err();
    }
    catalog.close().await;
    assert!(matches!(
        catalog.submit(commit("late", 9, &[])).await,
        Err(SubmitError::Closed)
    ));
    journal.refuse(false);
    journal.records.lock().unwrap().clear();
    let catalog = Catalog::open(engine, config(journal.clone(), JournalMode::Sync))
        .await
        .unwrap();
    catalog
        .submit(Op::BeginEpoch { fence: fence(7) })
        .await
        .unwrap();
    let sequences = journal.sequences();
    assert!(sequences.ends_with(&[3, 4, 5, 6]), "{sequences:?}");
    assert!(journal.take().iter().all(|record| record.fence == fence(7)));
    catalog.confirm_journal().await.unwrap();
}

#[tokio::test]
async fn i20_a_deposed_tracker_stops() {
    #[derive(Debug)]
    struct Deposing;
    #[async_trait]
    impl JournalSink for Deposing {
        async fn append(&self, _record: &JournalRecord) -> Result<(), JournalError> {
            Err(JournalError::Deposed {
                detail: "epoch 9 acts".to_owned(),
            })
        }
    }
    let engine = Arc::new(MemoryEngine::default());
    let config = config(Arc::new(Deposing), JournalMode::Sync);
    let catalog = Catalog::open(engine, config).await.unwrap();
    catalog.submit(commit("a", 1, &[])).await.unwrap_err();
    assert!(catalog.until_poisoned().await.contains("epoch 9 acts"));
    let later = catalog.submit(commit("b", 2, &[])).await;
    assert!(matches!(later, Err(SubmitError::Poisoned { .. })));
}

#[tokio::test]
async fn in_mode_async_the_journal_trails_and_catches_up() {
    let journal = Arc::new(KeepingJournal::default());
    let config = config(journal.clone(), JournalMode::Async);
    let catalog = Catalog::open(Arc::new(MemoryEngine::default()), config)
        .await
        .unwrap();
    journal.refuse(true);
    for i in 0..5u128 {
        catalog
            .submit(commit(&format!("f{i}"), i, &[]))
            .await
            .unwrap();
    }
    assert_eq!(catalog.confirmed_sequence(), 0);
    journal.refuse(false);
    eventually(|| catalog.confirmed_sequence() == 6).await;
    assert_eq!(journal.sequences(), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn in_mode_async_a_lag_beyond_the_limit_refuses_changes() {
    let journal = Arc::new(KeepingJournal::default());
    journal.refuse(true);
    let mut config = config(journal.clone(), JournalMode::Async);
    config.limits.journal_lag = 3;
    let catalog = Catalog::open(Arc::new(MemoryEngine::default()), config)
        .await
        .unwrap();
    let mut refused = 0;
    for i in 0..10u128 {
        let outcome = catalog.submit(commit(&format!("f{i}"), i, &[])).await;
        refused += u32::from(matches!(outcome, Err(SubmitError::Busy)));
    }
    assert_eq!(refused, 7);
    journal.refuse(false);
    eventually(|| catalog.confirmed_sequence() == 4).await;
    catalog.submit(commit("later", 99, &[])).await.unwrap();
}

#[tokio::test]
async fn i31_a_full_queue_refuses_instead_of_growing() {
    let gate = Arc::new(GatedJournal(Semaphore::new(0)));
    let mut config = config(gate.clone(), JournalMode::Sync);
    config.limits.queue = 4;
    let metrics = config.metrics.clone();
    let catalog = Catalog::open(Arc::new(MemoryEngine::default()), config)
        .await
        .unwrap();
    let submits: Vec<_> = (0..50u128)
        .map(|i| {
            let catalog = catalog.clone();
            tokio::spawn(async move { catalog.submit(commit(&format!("f{i}"), i, &[])).await })
        })
        .collect();
    eventually(|| metrics.queue_full.get() >= 40).await;
    gate.0.add_permits(1000);
    let mut busy = 0;
    for submit in submits {
        match submit.await.unwrap() {
            Ok(_) => {}
            Err(error) => {
                assert!(Problem::from(error).is(ErrorCode::Unavailable));
                busy += 1;
            }
        }
    }
    assert_eq!(busy, metrics.queue_full.get());
}

#[tokio::test]
async fn local_records_are_trimmed_once_checkpoint_and_journals_have_them() {
    let journal = Arc::new(KeepingJournal::default());
    let catalog = catalog_on(Arc::new(MemoryEngine::default()), journal).await;
    for i in 0..20u128 {
        catalog
            .submit(commit(&format!("f{i}"), i, &[]))
            .await
            .unwrap();
    }
    let oldest = |catalog: Catalog| async move {
        let records = catalog
            .read(|snapshot| snapshot.journal_records(0, 1))
            .await;
        records.unwrap()[0].sequence
    };
    assert_eq!(oldest(catalog.clone()).await, 1);
    let checkpoint = |sequence, chunk_id| CheckpointRecord {
        file: dfs_protocol::FileId::from_u128(500),
        sequence,
        chunks: vec![chunk(chunk_id)],
        created: at(1),
    };
    let set = |checkpoints| Op::SetCheckpoints { checkpoints };
    catalog
        .submit(set(vec![checkpoint(15, 600)]))
        .await
        .unwrap();
    for i in 20..25u128 {
        catalog
            .submit(commit(&format!("f{i}"), i, &[]))
            .await
            .unwrap();
    }
    assert_eq!(oldest(catalog.clone()).await, 16);
    // A checkpoint that is dropped from the list takes its chunks along.
    let dropped = catalog
        .submit(set(vec![checkpoint(20, 601)]))
        .await
        .unwrap();
    assert_eq!(
        dropped,
        crate::model::op::OpOutcome::Condemned {
            chunks: vec![chunk(600).id],
            purged: 0,
            refactored: vec![],
        }
    );
    let unordered = catalog
        .submit(set(vec![checkpoint(20, 1), checkpoint(19, 2)]))
        .await;
    assert!(unordered.is_err());
    assert_consistent(catalog.engine().as_ref());
}
