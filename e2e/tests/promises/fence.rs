//! One acting tracker (I8, I20), old catalogs (I34), late and repeated messages (fault 24).

use std::time::Duration;

use dfs_client::{HttpTracker, http::HttpClient};
use dfs_e2e::cluster::{Cluster, SOON};
use dfs_e2e::net::LinkFault;
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::chunk::SetDigest;
use dfs_protocol::datanode::{ChunkReport, Heartbeat, JournalRecord};
use dfs_protocol::{Epoch, ErrorCode, Fence, Incarnation};
use dfs_tracker::store::rebuild::RebuildOptions;
use http::StatusCode;

use crate::kit::{
    CHUNK_BYTES, DEADLINE, Model, calm_options, chunks_of, holders, options, start_heard,
    with_files,
};
use crate::world::{at, datanodes, digests, id_of, look, node};

/// Waits until nothing is left to be written: the first checkpoint is taken, the journal is full.
async fn quiet(store: &Store) {
    let mut last = 0;
    // Twice the same sequence with a checkpoint in place.
    loop {
        let status = store.status().await.unwrap();
        let now = status.journal.sequence;
        if now == last && status.journal.checkpoint.is_some() && now == status.journal.replicated {
            return;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn calm() -> dfs_e2e::cluster::Options {
    dfs_e2e::cluster::Options {
        tracker: |config| {
            config.chunk_size = crate::kit::CHUNK;
            config.checkpoint_interval = Duration::from_mins(30);
        },
        ..options(3)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i08_i20_fault_20_a_second_tracker_on_a_copy_deposes_the_first_which_stops() {
    let mut cluster = Cluster::start(calm()).await;
    let mut model = Model::default();
    model.put(&mut cluster, "before", CHUNK_BYTES + 5).await;
    let first = cluster.store();
    quiet(&first).await;
    let old_fence = first.status().await.unwrap().fence;
    let copy = cluster.copy_tracker("second");
    let mut second = cluster.rival_tracker(&copy);
    cluster.start_rival(&mut second).await;
    cluster.point_datanodes_to(second.address);
    for number in 0..3 {
        cluster.kill_datanode(number).await;
        cluster.start_datanode(number).await;
    }
    let acting = Store::new(&second.address);
    acting.wait_ready(3, SOON).await;
    // The first may still think that it is heard: what it tries is refused by the datanodes. If not,
    // it asks those that fell silent.
    let refused = first.try_put("from-the-deposed", vec![1; 1000]).await;
    assert!(!refused.is_ok_and(|reply| reply.status.is_success()));
    let refused = first.door.delete("/files/before").await;
    assert!(!refused.is_ok_and(|reply| reply.status.is_success()));
    eventually("the deposed tracker stops", DEADLINE, || async {
        match cluster.tracker.ended() {
            Some(reason) if reason.contains("later") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    model.check(&acting).await;
    acting.put("after", vec![7; 5000]).await;
    // The fence is on the volumes: also after a restart the old one is refused.
    for number in 0..3 {
        cluster.kill_datanode(number).await;
        start_heard(&mut cluster, number).await;
    }
    acting.wait_ready(3, SOON).await;
    let new_fence = acting.status().await.unwrap().fence;
    assert!(new_fence.epoch > old_fence.epoch);
    for number in 0..3 {
        let record = JournalRecord {
            fence: old_fence,
            sequence: 1_000_000,
            payload: vec![1, 2, 3],
        };
        let to = at(&cluster, number).await;
        let answer = datanodes(&cluster).journal_append(&to, &record).await;
        assert!(
            answer.unwrap_err().is(ErrorCode::Fenced),
            "datanode {number}"
        );
        // Nor one that guesses the epoch.
        let guess = Fence {
            epoch: new_fence.epoch,
            incarnation: Incarnation(new_fence.incarnation.0 ^ 1),
        };
        let record = JournalRecord {
            fence: guess,
            ..record
        };
        let answer = datanodes(&cluster).journal_append(&to, &record).await;
        assert!(
            answer.unwrap_err().is(ErrorCode::Fenced),
            "datanode {number}"
        );
    }
    // Started again on its own volume it finds that it is old, and changes nothing.
    cluster.point_datanodes_to(cluster.tracker.address);
    cluster.start_tracker().await;
    cluster.kill_datanode(0).await;
    cluster.start_datanode(0).await;
    let refused = cluster.store().try_put("from-the-old", vec![1; 1000]).await;
    assert!(!refused.is_ok_and(|reply| reply.status.is_success()));
    cluster.kill_tracker().await;
    cluster.point_datanodes_to(second.address);
    cluster.kill_datanode(0).await;
    cluster.start_datanode(0).await;
    let ended = cluster.end_rival(second).await;
    assert_eq!(ended, None, "the acting tracker went on");
}

/// Nobody asks it for anything, and no datanode speaks to it any more.
#[tokio::test(flavor = "multi_thread")]
async fn i20_fault_20_a_tracker_whose_datanodes_went_to_another_finds_out_by_itself() {
    let mut cluster = Cluster::start(calm()).await;
    let mut model = Model::default();
    model.put(&mut cluster, "before", 1000).await;
    quiet(&cluster.store()).await;
    let copy = cluster.copy_tracker("second");
    let mut second = cluster.rival_tracker(&copy);
    cluster.start_rival(&mut second).await;
    cluster.point_datanodes_to(second.address);
    for number in 0..3 {
        cluster.kill_datanode(number).await;
        cluster.start_datanode(number).await;
    }
    eventually("the deposed tracker stops", DEADLINE, || async {
        match cluster.tracker.ended() {
            Some(reason) if reason.contains("later") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let acting = Store::new(&second.address);
    acting.wait_ready(3, SOON).await;
    model.check(&acting).await;
    let ended = cluster.end_rival(second).await;
    assert_eq!(ended, None, "the acting tracker went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn i34_a_restored_old_backup_refuses_to_act_and_a_rebuild_brings_everything_back() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let mut model = Model::default();
    model.put(&mut cluster, "old", CHUNK_BYTES).await;
    quiet(&cluster.store()).await;
    let backup = cluster.copy_tracker("backup");
    model.put(&mut cluster, "new", CHUNK_BYTES + 9).await;
    model.put(&mut cluster, "new2", 100).await;
    let before = look(&cluster.store()).await;
    cluster.store().wait_healthy(DEADLINE).await;
    let newer = chunks_of(&cluster.store(), "new").await;
    cluster.restore_tracker(&backup).await;
    cluster.start_tracker().await;
    let store = cluster.store();
    let status = store
        .wait_status("the old catalog is found out", DEADLINE, |status| {
            let refused = status.writes_refused.as_deref().unwrap_or_default();
            refused.contains("dfs tracker rebuild") && status.datanodes.live == 3
        })
        .await;
    assert!(status.repair_held.unwrap().contains("this catalog is old"));
    for reply in [
        store.try_put("more", vec![1; 10]).await.unwrap(),
        store.door.delete("/files/old").await.unwrap(),
    ] {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reply.text().contains("rebuild"), "{}", reply.text());
    }
    // Longer than an orphan lives: nothing newer is collected.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        newer
            .iter()
            .all(|chunk| holders(&cluster, chunk).len() == 3)
    );
    assert!(store.get("old").await == model.bytes("old"));
    cluster.wipe_tracker().await;
    let rebuilt = cluster
        .rebuild_tracker(&[0, 1, 2], RebuildOptions::default())
        .await
        .unwrap();
    assert_eq!((rebuilt.files, rebuilt.found), (3, 0));
    cluster.start_tracker().await;
    cluster.store().wait_ready(3, SOON).await;
    assert_eq!(look(&cluster.store()).await, before);
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_24_old_repeated_and_foreign_messages_change_nothing() {
    let mut cluster = Cluster::start(calm_options(3)).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", 2 * CHUNK_BYTES).await;
    let store = cluster.store();
    let status = store.wait_healthy(DEADLINE).await;
    let address = cluster.datanodes[0].address.to_string();
    let identity = datanodes(&cluster).identity(&address).await.unwrap();
    let http = HttpClient::new(cluster.links.connector("test"));
    let tracker = HttpTracker::new(http, cluster.tracker.address.to_string());
    let stats = node(&store, identity.datanode).await.unwrap().stats;
    let chunks = chunks_of(&store, "f").await;
    let late = Heartbeat {
        cluster: status.cluster,
        datanode: identity.datanode,
        instance: identity.instance,
        sequence: 1,
        address: "127.0.0.1:1".to_owned(),
        fence: status.fence,
        stats,
        base: SetDigest::default(),
        added: Vec::new(),
        removed: chunks.clone(),
        digest: SetDigest::default(),
        corrupt: Vec::new(),
        finished: Vec::new(),
    };
    for _ in 0..3 {
        let (reply, _terms) = tracker.heartbeat(&late, None).await.unwrap();
        assert!(!reply.full_report);
    }
    let empty_report = |sequence| ChunkReport {
        cluster: status.cluster,
        datanode: identity.datanode,
        instance: identity.instance,
        sequence,
        replicas: Vec::new(),
        digest: SetDigest::default(),
    };
    let encoded = postcard::to_stdvec(&empty_report(1)).unwrap();
    let _late = tracker.chunk_report(encoded).await.unwrap();
    // Another run of the process, and another cluster, are refused outright.
    let mut other = late.clone();
    other.instance.0 ^= 1;
    other.sequence = u64::MAX;
    assert!(
        tracker
            .heartbeat(&other, None)
            .await
            .unwrap_err()
            .is(ErrorCode::NotFound)
    );
    let mut foreign = late;
    foreign.cluster = dfs_protocol::ClusterId::from_u128(1);
    assert!(
        tracker
            .heartbeat(&foreign, None)
            .await
            .unwrap_err()
            .is(ErrorCode::WrongCluster)
    );
    assert!(cluster.tracker.metric("dfs_tracker_late_messages_total") >= 4.0);
    let file = store.chunks("f").await.unwrap();
    assert_eq!(crate::kit::valid_replicas(&file), [3, 3]);
    let listed = node(&store, identity.datanode).await.unwrap();
    assert_eq!(listed.address, address);
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_24_lost_answers_cost_no_full_report_and_slow_links_change_nothing() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    model.put(&mut cluster, "a", CHUNK_BYTES).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    let reports = cluster.tracker.metric("dfs_tracker_chunk_reports_total");
    for round in 0..3 {
        // The heartbeats that tell of the new chunks are answered, and the answers are lost.
        let fault = cluster
            .links
            .inject("datanode-*", "tracker", LinkFault::lose_back());
        model.put(&mut cluster, &format!("b{round}"), 10_000).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.links.remove(fault);
        store.wait_ready(3, DEADLINE).await;
    }
    let after = cluster.tracker.metric("dfs_tracker_chunk_reports_total");
    assert!(after <= reports, "{} full reports", after - reports);
    // Slow and out of step with each other.
    cluster.links.inject(
        "datanode-0",
        "*",
        LinkFault::delay(Duration::from_millis(150)),
    );
    cluster.links.inject(
        "tracker",
        "datanode-1",
        LinkFault::delay(Duration::from_millis(60)),
    );
    for round in 0..6 {
        model
            .put(&mut cluster, &format!("c{round}"), 5000 * round)
            .await;
        model.delete(&store, &format!("b{}", round % 3)).await;
        model
            .put(&mut cluster, &format!("b{}", round % 3), 100)
            .await;
    }
    cluster.links.heal();
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_datanodes_that_swap_addresses_are_told_apart() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", 3 * CHUNK_BYTES).await;
    let (one, two) = (id_of(&cluster, 1).await, id_of(&cluster, 2).await);
    let before = digests(&look(&cluster.store()).await);
    let stale = at(&cluster, 1).await;
    cluster.kill_datanode(1).await;
    cluster.kill_datanode(2).await;
    let (a, b) = (cluster.datanodes[1].address, cluster.datanodes[2].address);
    cluster.datanodes[1].address = b;
    cluster.datanodes[2].address = a;
    cluster.start_datanode(1).await;
    cluster.start_datanode(2).await;
    let store = cluster.store();
    store.wait_ready(3, SOON).await;
    assert_eq!(
        (id_of(&cluster, 1).await, id_of(&cluster, 2).await),
        (one, two)
    );
    // A request for the one that lived there before is refused by the one that lives there now.
    let chunk = chunks_of(&store, "f").await[0];
    let wrong = datanodes(&cluster).chunk_state(&stale, chunk.id).await;
    assert!(wrong.unwrap_err().is(ErrorCode::WrongDatanode));
    let record = JournalRecord {
        fence: Fence {
            epoch: Epoch(999),
            incarnation: Incarnation(1),
        },
        sequence: 1,
        payload: Vec::new(),
    };
    let wrong = datanodes(&cluster).journal_append(&stale, &record).await;
    assert!(wrong.unwrap_err().is(ErrorCode::WrongDatanode));
    assert_eq!(digests(&look(&store).await), before);
    model.put(&mut cluster, "g", CHUNK_BYTES).await;
    model.settle(&cluster).await;
}
