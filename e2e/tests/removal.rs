//! Datanodes that leave, and acknowledgements while one of them fails: on whole clusters, because
//! only there the tracker's word, the copies and the datanode's return meet.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options};
use dfs_e2e::disk::{CallKind, Fault};
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::{DatanodeStatus, ReplicaState, Verdict};
use http::{Method, StatusCode};

const DEADLINE: Duration = Duration::from_mins(2);
const CHUNK: u64 = 256 * 1024;

fn options(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_secs(1);
            config.heartbeat_interval = CALM_HEARTS;
        },
        // A placement that waits for a chunk counts as one that is being written there.
        gateway: |config| config.pool_max_age = Duration::from_secs(1),
        ..Options::default()
    }
}

type Files = BTreeMap<String, Bytes>;

async fn put_some(cluster: &mut Cluster) -> Files {
    let mut files = Files::new();
    for (path, size) in [("a", 10), ("b", 700_000), ("c", 262_144), ("d", 1)] {
        let bytes = Bytes::from(cluster.bytes(size));
        let stored = cluster.store().put(path, bytes.clone()).await;
        assert_eq!((stored.replica_count, stored.wanted), (3, 3), "{path}");
        files.insert(path.to_owned(), bytes);
    }
    files
}

async fn check(store: &Store, files: &Files) {
    assert_eq!(
        store.list("").await,
        files.keys().cloned().collect::<Vec<_>>()
    );
    for (path, bytes) in files {
        assert!(store.get(path).await == *bytes, "{path} has other bytes");
    }
}

async fn node(store: &Store, id: DatanodeId) -> Result<DatanodeStatus, String> {
    let nodes = store.nodes().await?;
    let found = nodes.iter().find(|node| node.id == id).cloned();
    found.ok_or_else(|| format!("{id} is not in {nodes:?}"))
}

async fn decommission(store: &Store, id: DatanodeId) {
    let path = format!("/nodes/{id}/decommission");
    let empty = serde_json::Value::Null;
    let _accepted = store.door.post_json(&path, &empty).await.unwrap().ok();
}

async fn wait_decommissioned(store: &Store, id: DatanodeId) {
    eventually("it is decommissioned", DEADLINE, || async {
        let node = node(store, id).await?;
        match node.admin {
            AdminState::Decommissioned => Ok(()),
            _ => Err(format!("{:?} {:?}", node, verdict(store, id).await)),
        }
    })
    .await;
}

async fn verdict(store: &Store, id: DatanodeId) -> Verdict {
    let question = format!("/nodes/{id}/safe-to-remove");
    store.door.get(&question).await.unwrap().ok().json()
}

/// Every chunk of every file has its three replicas without this datanode.
async fn whole_without(store: &Store, files: &Files, id: DatanodeId) {
    for path in files.keys() {
        for chunk in store.chunks(path).await.unwrap().chunks {
            let others = chunk
                .replicas
                .iter()
                .filter(|replica| replica.state == ReplicaState::Valid && replica.datanode != id);
            assert!(others.count() >= 3, "{path}: {chunk:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i01_a_hop_that_cannot_take_a_chunk_is_made_up_for_before_the_answer() {
    let mut cluster = Cluster::start(options(4)).await;
    let store = cluster.store();
    let broken = Fault::eio(CallKind::Write).path("packs");
    let fault = cluster.datanodes[0].faults.inject(broken);
    let mut files = Files::new();
    // Until the broken datanode was in a few chains: three others can hold every replica.
    for number in 0..60 {
        let path = format!("f{number:02}");
        let bytes = Bytes::from(cluster.bytes(20_000));
        let stored = store.put(&path, bytes.clone()).await;
        assert_eq!((stored.replica_count, stored.wanted), (3, 3), "{path}");
        files.insert(path, bytes);
        if cluster.datanodes[0].faults.hits(fault) >= 3 {
            break;
        }
    }
    assert!(cluster.datanodes[0].faults.hits(fault) > 0);
    check(&store, &files).await;
    cluster.datanodes[0].faults.heal();
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_a_datanode_is_decommissioned_only_when_every_chunk_is_whole_without_it() {
    let mut cluster = Cluster::start(options(3)).await;
    let store = cluster.store();
    let mut files = put_some(&mut cluster).await;
    let id = store.nodes().await.unwrap()[1].id;
    let leaving = cluster.number_of(id).await;
    decommission(&store, id).await;
    // Nobody else can take its replicas: it stays what it is, however long the tracker looks.
    eventually("the tracker counts what is left", DEADLINE, || async {
        let node = node(&store, id).await?;
        let left = node.chunks_remaining.unwrap_or_default();
        assert_ne!(node.admin, AdminState::Decommissioned, "{node:?}");
        if left > 0 {
            Ok(())
        } else {
            Err(format!("{node:?}"))
        }
    })
    .await;
    for number in 0..5 {
        let path = format!("later{number}");
        let bytes = Bytes::from(cluster.bytes(30_000));
        let stored = store.put(&path, bytes.clone()).await;
        assert_eq!((stored.replica_count, stored.wanted), (2, 3));
        assert!(!stored.replicas.contains(&id));
        files.insert(path, bytes);
    }
    let after = node(&store, id).await.unwrap();
    assert_eq!(after.admin, AdminState::Decommissioning);
    let verdict = verdict(&store, id).await;
    assert!(!verdict.safe && verdict.chunk_count > 0, "{verdict:?}");
    let early = store.door.delete(&format!("/nodes/{id}")).await.unwrap();
    assert_eq!(early.status, StatusCode::CONFLICT);
    cluster.add_datanode().await;
    wait_decommissioned(&store, id).await;
    whole_without(&store, &files, id).await;
    cluster.wipe_datanode(leaving).await;
    check(&store, &files).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_a_removed_datanode_that_comes_back_starts_anew_and_brings_nothing_back() {
    let mut cluster = Cluster::start(options(4)).await;
    let store = cluster.store();
    let mut files = put_some(&mut cluster).await;
    let id = store.chunks("b").await.unwrap().chunks[0].replicas[0].datanode;
    let leaving = cluster.number_of(id).await;
    decommission(&store, id).await;
    wait_decommissioned(&store, id).await;
    cluster.kill_datanode(leaving).await;
    eventually("it is removed", DEADLINE, || async {
        let answer = store.door.delete(&format!("/nodes/{id}")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        answer
            .status
            .is_success()
            .then_some(())
            .ok_or(answer.text())
    })
    .await;
    let _deleted = store.delete("c").await;
    files.remove("c");
    let address = cluster.datanodes[leaving].address.to_string();
    cluster.start_datanode(leaving).await;
    eventually("it is back under another uuid", DEADLINE, || async {
        let nodes = store.nodes().await?;
        assert!(
            nodes.iter().all(|node| node.id != id),
            "the tombstoned uuid is trusted again: {nodes:?}"
        );
        let anew = nodes.iter().find(|node| node.address == address);
        match anew.map(|node| node.admin) {
            Some(AdminState::InService) => Ok(()),
            _ => Err(format!("{nodes:?}")),
        }
    })
    .await;
    store.wait_ready(4, DEADLINE).await;
    check(&store, &files).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_nothing_that_a_datanode_says_after_its_removal_counts_as_a_replica() {
    let mut cluster = Cluster::start(options(4)).await;
    let store = cluster.store();
    let files = put_some(&mut cluster).await;
    let id = store.chunks("b").await.unwrap().chunks[0].replicas[0].datanode;
    decommission(&store, id).await;
    wait_decommissioned(&store, id).await;
    // It runs on, and heartbeats before it hears of it.
    let answer = store.door.delete(&format!("/nodes/{id}")).await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.text());
    eventually("it begins anew", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let anew = nodes.iter().all(|node| node.id != id) && nodes.len() == 4;
        anew.then_some(()).ok_or(format!("{nodes:?}"))
    })
    .await;
    for path in files.keys() {
        for chunk in store.chunks(path).await.unwrap().chunks {
            let named = chunk.replicas.iter().any(|replica| replica.datanode == id);
            assert!(!named, "{path}: {chunk:?}");
        }
    }
    check(&store, &files).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_in_maintenance_is_not_copied_away_before_its_time() {
    let mut cluster = Cluster::start(Options {
        datanodes: 4,
        tracker: |config| {
            config.repair_delay = Duration::from_millis(100);
            // It is dead after ten; the others must not look so for a stall of the machine.
            config.heartbeat_interval = Duration::from_millis(700);
        },
        ..Options::default()
    })
    .await;
    let store = cluster.store();
    for number in 0..12 {
        store.put(&format!("f{number}"), vec![number; 5000]).await;
    }
    cluster.wait_at_rest(DEADLINE).await;
    let address = cluster.datanodes[0].address.to_string();
    let nodes = store.nodes().await.unwrap();
    let id = nodes
        .iter()
        .find(|node| node.address == address)
        .unwrap()
        .id;
    let announce = async |until: &str| {
        let uri = format!("/nodes/{id}/maintenance?until={until}");
        let body = dfs_client::http::empty();
        store
            .door
            .send(Method::POST, &uri, &[], body)
            .await
            .unwrap()
    };
    for bad in ["", "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "soon"] {
        let reply = announce(bad).await;
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    let until = jiff::Timestamp::now() + Duration::from_hours(1);
    let reply = announce(&until.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let copied = |cluster: &Cluster| {
        let copied = "dfs_tracker_repair_copied_bytes_total";
        cluster.tracker.metric(copied)
    };
    let before = copied(&cluster);
    cluster.kill_datanode(0).await;
    store
        .wait_status("it is missed", DEADLINE, |status| {
            status.datanodes.dead == 1
        })
        .await;
    // Other work of the planner goes by: nothing was copied.
    store.put("later", vec![9; 5000]).await;
    assert!(copied(&cluster) < before + 0.5);
    let status = store.status().await.unwrap();
    assert_eq!(status.repair.active, 0, "{status:#?}");
    // It will not come: now it is a silent datanode like any other.
    let ended = store.door.delete(&format!("/nodes/{id}/maintenance")).await;
    assert_eq!(ended.unwrap().status, 200);
    store.wait_repaired(DEADLINE).await;
    assert!(copied(&cluster) > before + 0.5);
    cluster.start_datanode(0).await;
    store.wait_ready(4, DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}
