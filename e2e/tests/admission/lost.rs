//! Volumes that are gone for ever: a datanode's, and the tracker's.

use std::sync::Mutex;
use std::time::Duration;

use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::http::Http;
use dfs_e2e::wait::eventually;
use dfs_protocol::ClusterId;
use dfs_protocol::admission::{CatalogState, CatalogStatus, RefusalReason};
use dfs_protocol::status::ChunkHealth;
use serde_json::json;

use crate::{
    CHUNK, DEADLINE, ask, dead, guarded, identity, is_closed, node, post, refused_for, store,
    tokens,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_volume_is_taken_out_and_repaired_at_once() {
    let mut cluster = Cluster::start(Options {
        datanodes: 4,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.repair_delay = Duration::from_hours(1);
        },
        ..Options::default()
    })
    .await;
    let open = cluster.store();
    let bytes = cluster.bytes(500_000);
    let stored = open.put("a", bytes.clone()).await;
    let holder = stored.replicas[0];
    let number = cluster.number_of(holder).await;
    let lost = format!("/nodes/{holder}/lost");
    let reply = ask(&open.door, "POST", &lost, None).await;
    assert_eq!(reply.status, 409, "it is alive: {}", reply.text());
    cluster.kill_datanode(number).await;
    dead(&open, holder).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The tracker's checkpoint may lie on the other three.
    let chunks = open.status().await.unwrap().chunks;
    let ailing = chunks
        .iter()
        .filter(|(how, _)| **how != ChunkHealth::Healthy);
    let ailing: u64 = ailing.map(|(_, count)| count).sum();
    assert!(ailing >= 2, "the file's chunks wait: {chunks:?}");
    let _taken_out = ask(&open.door, "POST", &lost, None).await.ok();
    open.wait_repaired(DEADLINE).await;
    assert!(node(&open, holder).await.is_none());
    assert!(open.get("a").await == bytes);
    // If it comes back after all, it starts anew.
    cluster.start_datanode(number).await;
    open.wait_ready(4, SOON).await;
    assert_ne!(identity(&cluster, number).await.datanode, holder);
    assert!(
        refused_for(&open, RefusalReason::Tombstoned)
            .await
            .is_some()
    );
    open.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i01_the_only_remaining_replica_is_given_up_by_nobody_unasked() {
    let mut cluster = Cluster::start(Options {
        datanodes: 2,
        tracker: |config| config.replication_factor = 1,
        ..Options::default()
    })
    .await;
    let open = cluster.store();
    let holder = open.put("only", vec![1; 5000]).await.replicas[0];
    let number = cluster.number_of(holder).await;
    cluster.kill_datanode(number).await;
    dead(&open, holder).await;
    let lost = format!("/nodes/{holder}/lost");
    for restarted in [false, true] {
        if restarted {
            // This tracker never heard of what the datanode holds.
            cluster.kill_tracker().await;
            cluster.start_tracker().await;
            dead(&open, holder).await;
            open.wait_status("safe mode is over", DEADLINE, |status| {
                status.safe_mode.is_none()
            })
            .await;
        }
        let reply = post(&open, &lost, &json!({})).await;
        assert_eq!(reply.status, 409, "{}", reply.text());
        assert!(reply.text().contains("accept_loss"), "{}", reply.text());
        assert!(node(&open, holder).await.is_some());
    }
    let _given_up = post(&open, &lost, &json!({"accept_loss": true})).await.ok();
    assert!(node(&open, holder).await.is_none());
    assert_eq!(open.try_get("only").await.unwrap().status, 503);
}

/// What trackers of the next test expect.
static EXPECTED: Mutex<Option<ClusterId>> = Mutex::new(None);

async fn catalog(door: &Http) -> CatalogStatus {
    door.get("/catalog").await.unwrap().ok().json()
}

async fn catalog_becomes(door: &Http, state: CatalogState) -> CatalogStatus {
    eventually("the catalog's state", DEADLINE, || async {
        let now = catalog(door).await;
        if now.state == state {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn i34_a_tracker_that_lost_its_catalog_denies_no_file_makes_no_cluster_and_is_rebuilt_in_place()
 {
    let mut options = guarded(3);
    options.tracker = |config| {
        config.chunk_size = CHUNK;
        config.tokens = tokens();
        config.expect_cluster = *EXPECTED.lock().unwrap();
    };
    let mut cluster = Cluster::start(options).await;
    let guarded = store(&cluster);
    let own = guarded.status().await.unwrap().cluster;
    let bytes = cluster.bytes(600_000);
    guarded.put("kept", bytes.clone()).await;
    assert_eq!(catalog(&guarded.door).await.state, CatalogState::Open);
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &json!({"datanodes": ["x:1"]}))
            .await
            .status,
        409
    );
    *EXPECTED.lock().unwrap() = Some(own);
    cluster.wipe_tracker().await;
    cluster.start_tracker().await;
    let status = catalog_becomes(&guarded.door, CatalogState::Lost).await;
    assert_eq!(status.cluster, own);
    for path in [
        "/files/kept",
        "/files/never",
        "/files?list",
        "/download/kept",
        "/status",
        "/nodes",
    ] {
        let reply = guarded.door.get(path).await.unwrap();
        assert_eq!(reply.status, 503, "{path}: {}", reply.text());
        assert!(
            reply.text().contains("catalog-lost"),
            "{path}: {}",
            reply.text()
        );
        assert!(!reply.header("retry-after").is_empty());
    }
    assert_eq!(guarded.try_put("new", vec![1]).await.unwrap().status, 503);
    is_closed(&cluster.store().door, "GET", "/catalog").await;
    is_closed(&cluster.store().door, "POST", "/catalog/rebuild").await;
    assert_eq!(cluster.tracker.metric("dfs_tracker_catalog_lost"), 1.0);
    // A rebuild that fails leaves nothing behind and says why.
    let nobody = json!({"datanodes": ["127.0.0.1:9"]});
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &nobody).await.status,
        202
    );
    let failed = eventually("the rebuild failed", DEADLINE, || async {
        let now = catalog(&guarded.door).await;
        let is_over = now.state == CatalogState::Lost && now.detail.contains("failed");
        is_over
            .then_some(now.clone())
            .ok_or_else(|| format!("{now:?}"))
    })
    .await;
    assert!(failed.detail.contains("127.0.0.1:9"), "{failed:?}");
    assert!(!cluster.tracker.dir.join("catalog.redb").exists());
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &json!({"datanodes": []}))
            .await
            .status,
        400
    );
    // Still lost after another restart, whatever a process that died at once left.
    cluster.kill_tracker().await;
    std::fs::write(cluster.tracker.dir.join("rebuild.unfinished"), "x").unwrap();
    cluster.start_tracker().await;
    catalog_becomes(&guarded.door, CatalogState::Lost).await;
    let all: Vec<String> = cluster
        .datanodes
        .iter()
        .map(|role| role.address.to_string())
        .collect();
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &json!({"datanodes": all}))
            .await
            .status,
        202
    );
    guarded.wait_ready(3, DEADLINE).await;
    assert_eq!(catalog(&guarded.door).await.state, CatalogState::Open);
    assert_eq!(guarded.status().await.unwrap().cluster, own);
    assert!(guarded.get("kept").await == bytes);
    assert_eq!(guarded.try_get("never").await.unwrap().status, 404);
    guarded.put("new", vec![1; 100]).await;
    guarded.wait_fsck_clean(DEADLINE).await;
    assert_eq!(cluster.tracker.metric("dfs_tracker_catalog_lost"), 0.0);
    // A whole catalog that is another cluster's is left alone.
    *EXPECTED.lock().unwrap() = Some(ClusterId::from_u128(1));
    cluster.kill_tracker().await;
    cluster.start_tracker().await;
    let reason = eventually("the tracker refuses to start", DEADLINE, || async {
        cluster.tracker.ended().ok_or_else(|| "it runs".to_owned())
    })
    .await;
    assert!(reason.contains("--expect-cluster"), "{reason}");
}
