//! Excess removal, decommission and the verdicts (I23, I24).

use std::time::Duration;

use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::wait::eventually;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::ChunkHealth;
use http::StatusCode;

use crate::kit::{CHUNK, CHUNK_BYTES, DEADLINE, Model, known_replicas, options};
use crate::world::{
    id_of, node, ok_to_stop, post, records_on, verdict, wait_admin, wait_ok_to_stop,
};

#[tokio::test(flavor = "multi_thread")]
async fn i23_i24_a_datanode_that_returns_after_repair_leaves_no_excess_and_no_chunk_below_its_factor()
 {
    let mut cluster = Cluster::start(options(4)).await;
    let mut model = Model::default();
    for number in 0..8 {
        model
            .put(&mut cluster, &format!("f{number}"), CHUNK_BYTES + number)
            .await;
    }
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    for away in [0, 2, 1] {
        cluster.kill_datanode(away).await;
        let what = "it is missed";
        store
            .wait_status(what, DEADLINE, |status| status.datanodes.dead == 1)
            .await;
        store.wait_repaired(DEADLINE).await;
        cluster.start_datanode(away).await;
        store.wait_ready(4, SOON).await;
        // While excess goes, no chunk falls below three.
        eventually("no excess is left", DEADLINE, || async {
            for path in model.paths() {
                let counts = known_replicas(&store.chunks(&path).await?);
                assert!(counts.iter().all(|count| *count >= 3), "{path}: {counts:?}");
            }
            let status = store.status().await?;
            match status.chunks[&ChunkHealth::OverReplicated] {
                0 if status.healthy => Ok(()),
                excess => Err(format!("{excess} over-replicated; {}", status.summary)),
            }
        })
        .await;
    }
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_a_decommissioned_datanode_goes_only_when_proved_and_never_comes_back_as_itself() {
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            // The newcomer at the end must get nothing but by what is tested here.
            config.rebalance_threshold = 0;
        },
        chunk_files: true,
        ..options(4)
    })
    .await;
    let mut model = Model::default();
    for number in 0..8 {
        model
            .put(&mut cluster, &format!("f{number}"), CHUNK_BYTES + number)
            .await;
    }
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    let leaver = (0..4)
        .max_by_key(|n| records_on(&cluster, *n, "chunks"))
        .unwrap();
    let id = id_of(&cluster, leaver).await;
    assert!(records_on(&cluster, leaver, "chunks") > 0);
    let before = verdict(&store, id).await;
    assert!(!before.safe && before.chunk_count > 0, "{before:?}");
    // It cannot be removed outright.
    let removed = store.door.delete(&format!("/nodes/{id}")).await.unwrap();
    assert_eq!(removed.status, StatusCode::CONFLICT);
    let _ = post(&store, &format!("/nodes/{id}/decommission"))
        .await
        .ok();
    wait_admin(&store, id, AdminState::Decommissioned).await;
    assert!(verdict(&store, id).await.safe);
    // The others have everything.
    cluster.kill_datanode(leaver).await;
    for path in model.paths() {
        assert!(store.get(&path).await == model.bytes(&path));
    }
    let _ = store
        .door
        .delete(&format!("/nodes/{id}"))
        .await
        .unwrap()
        .ok();
    assert_eq!(node(&store, id).await, None);
    let held = records_on(&cluster, leaver, "chunks");
    assert!(held > 0, "it kept its bytes");
    cluster.restart_tracker().await;
    cluster.start_datanode(leaver).await;
    store.wait_ready(4, SOON).await;
    assert_ne!(
        id_of(&cluster, leaver).await,
        id,
        "a tombstoned uuid came back"
    );
    assert_eq!(node(&store, id).await, None);
    assert!(
        records_on(&cluster, leaver, "retired") >= held,
        "its chunks are set aside"
    );
    // None of them is counted or served: the newcomer starts empty.
    model.settle(&cluster).await;
    let fresh = id_of(&cluster, leaver).await;
    for path in model.paths() {
        let file = store.chunks(&path).await.unwrap();
        let named = file.chunks.iter().flat_map(|chunk| &chunk.replicas);
        assert!(
            named
                .into_iter()
                .all(|replica| replica.datanode != id && replica.datanode != fresh)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_with_too_few_others_a_decommission_waits_and_can_be_taken_back() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", CHUNK_BYTES).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    let id = id_of(&cluster, 0).await;
    let _ = post(&store, &format!("/nodes/{id}/decommission"))
        .await
        .ok();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        node(&store, id).await.unwrap().admin,
        AdminState::Decommissioning
    );
    assert!(!verdict(&store, id).await.safe);
    let removed = store.door.delete(&format!("/nodes/{id}")).await.unwrap();
    assert_eq!(removed.status, StatusCode::CONFLICT);
    // It still serves what it has, also after a restart of the tracker.
    cluster.restart_tracker_leaving(1).await;
    assert!(store.get("f").await == model.bytes("f"));
    let _ = post(&store, &format!("/nodes/{id}/recommission"))
        .await
        .ok();
    wait_admin(&store, id, AdminState::InService).await;
    store.wait_ready(3, SOON).await;
    model.put(&mut cluster, "g", CHUNK_BYTES).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_one_may_stop_two_may_not_and_nobody_while_one_is_missing() {
    let mut cluster = Cluster::start(Options { ..options(3) }).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", CHUNK_BYTES).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(id_of(&cluster, number).await);
    }
    wait_ok_to_stop(&store, &ids[..1]).await;
    let two = ok_to_stop(&store, &ids[..2]).await;
    assert!(
        !two.safe && two.chunk_count > 0 && !two.reason.is_empty(),
        "{two:?}"
    );
    cluster.kill_datanode(2).await;
    store
        .wait_status("one is missing", DEADLINE, |s| s.datanodes.dead == 1)
        .await;
    assert!(!ok_to_stop(&store, &ids[..1]).await.safe);
    // Unknown means no.
    let unknown = dfs_protocol::DatanodeId::from_u128(7);
    assert!(!ok_to_stop(&store, &[unknown]).await.safe);
    cluster.start_datanode(2).await;
    store.wait_healthy(DEADLINE).await;
    wait_ok_to_stop(&store, &ids[..1]).await;
    model.settle(&cluster).await;
}
