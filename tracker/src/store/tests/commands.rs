//! Single changes, one promise each.

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::upload::{Precondition, TransferMode};
use dfs_protocol::{ChunkId, ChunkVersion, ErrorCode, Problem, TrashId, UploadId, VersionId};

use super::support::*;
use crate::model::op::{Op, OpOutcome};
use crate::store::{ApplyRefusal, Catalog, SubmitError};

async fn refusal(catalog: &Catalog, op: Op) -> ApplyRefusal {
    match catalog.submit(op).await {
        Err(SubmitError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn condemn(id: u128) -> Op {
    Op::Condemn {
        chunks: vec![(ChunkId::from_u128(id), ChunkVersion::FIRST, ChunkKind::Data)],
        now: at(6),
    }
}

#[tokio::test]
async fn i19_a_commit_sent_again_has_one_effect() {
    let catalog = catalog().await;
    let first = catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let OpOutcome::File {
        file, new_chunks, ..
    } = first
    else {
        panic!("{first:?}")
    };
    assert_eq!(new_chunks, [ChunkId::from_u128(1)]);
    let sequence = catalog.meta().await.unwrap().sequence;
    let again = catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let OpOutcome::File {
        file: same,
        replaced,
        ..
    } = again
    else {
        panic!("{again:?}")
    };
    assert_eq!(same, file);
    assert!(!replaced);
    assert_eq!(catalog.meta().await.unwrap().sequence, sequence);
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn i19_a_late_retry_of_a_superseded_upload_does_not_come_back() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let newer = commit_request(request("a", 2, &[2]), Some(9));
    catalog.submit(newer).await.unwrap();
    let late = refusal(&catalog, commit("a", 1, &[1])).await;
    assert!(Problem::from(late).is(ErrorCode::Stale));
    let file = catalog.get_file(&path("a")).await.unwrap().unwrap();
    assert_eq!(file.version, VersionId::from(UploadId::from_u128(2)));
}

#[tokio::test]
async fn i19_a_late_retry_of_a_superseded_empty_upload_does_not_come_back() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[])).await.unwrap();
    let again = catalog.submit(commit("a", 1, &[])).await.unwrap();
    assert!(matches!(
        again,
        OpOutcome::File {
            replaced: false,
            ..
        }
    ));
    catalog.submit(commit("a", 2, &[2])).await.unwrap();
    let late = refusal(&catalog, commit("a", 1, &[])).await;
    assert!(Problem::from(late).is(ErrorCode::Stale));
    let file = catalog.get_file(&path("a")).await.unwrap().unwrap();
    assert_eq!(file.version, VersionId::from(UploadId::from_u128(2)));
    // Nor where it was deleted meanwhile, and under no other name.
    catalog.submit(delete("a", None)).await.unwrap();
    for name in ["a", "b"] {
        let late = refusal(&catalog, commit(name, 1, &[])).await;
        assert!(Problem::from(late).is(ErrorCode::Stale));
    }
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn i17_if_none_match_star_has_exactly_one_winner_of_fifty() {
    let catalog = catalog().await;
    let mut writers = Vec::new();
    for i in 0..50u128 {
        let catalog = catalog.clone();
        writers.push(tokio::spawn(async move {
            let mut request = request("a", 100 + i, &[100 + i]);
            request.precondition = Precondition::Absent;
            catalog.submit(commit_request(request, None)).await
        }));
    }
    let mut winners = 0;
    for writer in writers {
        match writer.await.unwrap() {
            Ok(_) => winners += 1,
            Err(error) => assert!(Problem::from(error).is(ErrorCode::PreconditionFailed)),
        }
    }
    assert_eq!(winners, 1);
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn i17_if_match_replaces_only_that_version_and_keeps_created() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let with = |precondition, upload| {
        let mut request = request("a", upload, &[upload]);
        request.precondition = precondition;
        Op::Commit {
            request: Box::new(request),
            factor: 3,
            trash: None,
            now: at(50),
        }
    };
    let v1 = VersionId::from_u128(1);
    let wrong = with(Precondition::Versions(vec![VersionId::from_u128(9)]), 2);
    assert_eq!(
        refusal(&catalog, wrong).await.label(),
        "precondition-failed"
    );
    let not_v1 = with(Precondition::NotVersions(vec![v1]), 2);
    assert_eq!(
        refusal(&catalog, not_v1).await.label(),
        "precondition-failed"
    );
    let right = with(Precondition::Versions(vec![v1]), 2);
    let outcome = catalog.submit(right).await.unwrap();
    let OpOutcome::File {
        file,
        replaced,
        condemned,
        ..
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(replaced);
    assert_eq!(condemned, [ChunkId::from_u128(1)]);
    assert_eq!((file.created, file.modified), (at(1), at(50)));
}

#[tokio::test]
async fn a_file_and_a_directory_never_share_a_path() {
    let catalog = catalog().await;
    catalog.submit(commit("a/b", 1, &[1])).await.unwrap();
    let up = refusal(&catalog, commit("a", 2, &[2])).await;
    assert!(up.to_string().contains("`a/`"), "{up}");
    let down = refusal(&catalog, commit("a/b/c/d", 3, &[3])).await;
    assert!(down.to_string().contains("`a/b` is a file"), "{down}");
    for refused in [up, down] {
        assert!(Problem::from(refused).is(ErrorCode::Conflict));
    }
    let onto = transfer("a/b", "a/b/c", TransferMode::Copy, 4);
    assert_eq!(refusal(&catalog, onto).await.label(), "conflict");
    catalog.submit(commit("a.txt", 5, &[])).await.unwrap();
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn i10_a_commit_of_a_condemned_chunk_is_refused_and_a_named_chunk_is_spared() {
    let catalog = catalog().await;
    catalog.submit(condemn(1)).await.unwrap();
    let late = refusal(&catalog, commit("a", 1, &[1])).await;
    assert!(Problem::from(late).is(ErrorCode::Stale));
    catalog.submit(commit("b", 2, &[2])).await.unwrap();
    let outcome = catalog.submit(condemn(2)).await.unwrap();
    assert_eq!(
        outcome,
        OpOutcome::Condemned {
            chunks: vec![],
            purged: 0,
            refactored: vec![],
        }
    );
    let spared = catalog.get_chunk(ChunkId::from_u128(2)).await.unwrap();
    assert_eq!(spared.unwrap().references, 1);
    let forget = Op::Forget {
        chunks: vec![ChunkId::from_u128(1), ChunkId::from_u128(77)],
    };
    catalog.submit(forget).await.unwrap();
    assert_eq!(catalog.meta().await.unwrap().counters.condemned, 0);
}

#[tokio::test]
async fn a_replica_on_a_datanode_that_is_not_in_service_is_named() {
    let catalog = catalog().await;
    for admin in [AdminState::Decommissioning, AdminState::Pending] {
        catalog.submit(put_node(admin)).await.unwrap();
        let refused = refusal(&catalog, commit("a", 1, &[1])).await;
        assert!(
            matches!(refused, ApplyRefusal::ReplicaNotInService { datanode, .. } if datanode == NODE)
        );
    }
    catalog
        .submit(put_node(AdminState::Tombstoned))
        .await
        .unwrap();
    let back = refusal(&catalog, put_node(AdminState::InService)).await;
    assert!(matches!(back, ApplyRefusal::Tombstoned { .. }));
    catalog.submit(commit("empty", 2, &[])).await.unwrap();
}

#[tokio::test]
async fn i09_what_was_deleted_comes_back_only_by_restore_and_under_a_new_version() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    catalog.submit(delete("a", Some(9))).await.unwrap();
    assert_eq!(catalog.get_file(&path("a")).await.unwrap(), None);
    assert_eq!(
        refusal(&catalog, delete("a", None)).await.label(),
        "not-found"
    );
    assert_eq!(
        refusal(&catalog, commit("a", 1, &[1])).await.label(),
        "stale"
    );
    catalog.submit(commit("a", 2, &[2])).await.unwrap();
    let taken = refusal(&catalog, restore(9, None, 3)).await;
    assert!(Problem::from(taken).is(ErrorCode::Conflict));
    catalog.submit(restore(9, Some("b"), 3)).await.unwrap();
    // The retry finds its own result.
    catalog.submit(restore(9, Some("b"), 3)).await.unwrap();
    let file = catalog.get_file(&path("b")).await.unwrap().unwrap();
    assert_eq!(file.version, VersionId::from_u128(3));
    assert_eq!(
        refusal(&catalog, restore(9, None, 4)).await.label(),
        "not-found"
    );
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn i11_a_purge_condemns_the_chunks_that_nothing_else_names() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1, 2])).await.unwrap();
    let copied = catalog
        .submit(transfer("a", "b", TransferMode::Copy, 5))
        .await;
    assert!(matches!(
        copied,
        Ok(OpOutcome::File {
            replaced: false,
            ..
        })
    ));
    let shared = catalog.get_chunk(ChunkId::from_u128(1)).await.unwrap();
    assert_eq!(shared.unwrap().references, 2);
    catalog.submit(delete("a", Some(9))).await.unwrap();
    let first = catalog.submit(purge(9)).await.unwrap();
    assert_eq!(
        first,
        OpOutcome::Condemned {
            chunks: vec![],
            purged: 1,
            refactored: vec![],
        }
    );
    let last = catalog.submit(delete("b", None)).await.unwrap();
    let OpOutcome::Deleted { condemned, .. } = last else {
        panic!("{last:?}")
    };
    assert_eq!(condemned, [ChunkId::from_u128(1), ChunkId::from_u128(2)]);
    let again = catalog.submit(purge(9)).await.unwrap();
    assert!(matches!(again, OpOutcome::Condemned { purged: 0, .. }));
    assert_consistent(catalog.engine().as_ref());
}

#[tokio::test]
async fn i20_an_epoch_that_is_not_later_is_refused() {
    let catalog = catalog().await;
    let begin = |epoch| Op::BeginEpoch {
        fence: fence(epoch),
    };
    catalog.submit(begin(4)).await.unwrap();
    for epoch in [0, 3, 4] {
        let refused = refusal(&catalog, begin(epoch)).await;
        assert!(Problem::from(refused).is(ErrorCode::Fenced));
    }
    catalog.submit(begin(5)).await.unwrap();
    assert_eq!(catalog.meta().await.unwrap().fence, fence(5));
}

#[tokio::test]
async fn contradictory_requests_are_refused_and_leave_nothing() {
    let catalog = catalog().await;
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    let before = state(catalog.engine().as_ref());
    let mut wrong_size = request("b", 2, &[2]);
    wrong_size.size += 1;
    let mut no_replica = request("b", 2, &[2]);
    no_replica.chunks[0].replicas.clear();
    let mut foreign = request("b", 2, &[1]);
    foreign.file = dfs_protocol::FileId::from_u128(77);
    for (op, label) in [
        (commit_request(wrong_size, None), "invalid"),
        (commit_request(no_replica, None), "invalid"),
        (commit_request(foreign, None), "invalid"),
        (commit("b", 2, &[2, 2]), "invalid"),
        (transfer("a", "a", TransferMode::Copy, 3), "invalid"),
        (transfer("a", "a/b", TransferMode::Move, 3), "conflict"),
        (transfer("x", "y", TransferMode::Move, 3), "not-found"),
        (delete("x", None), "not-found"),
    ] {
        assert_eq!(refusal(&catalog, op).await.label(), label);
    }
    assert_eq!(state(catalog.engine().as_ref()), before);
}

#[test]
fn trash_ids_sort_by_time() {
    let rng = dfs_runtime::rng::SharedRng::from_seed(1);
    let ids: Vec<TrashId> = (0..100)
        .map(|i| crate::store::new_trash_id(at(i), &rng))
        .collect();
    assert!(ids.is_sorted());
}
