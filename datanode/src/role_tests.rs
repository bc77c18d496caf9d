//! The life of a datanode: restarts, resets, foreign volumes, scrub.

use std::sync::Arc;
use std::time::Duration;

use dfs_protocol::ClusterId;
use dfs_protocol::checksum::crc32c;
use http::StatusCode;

use crate::DatanodeError;
use crate::http::tests::{download, one, send};
use crate::testing::nodes::{CLUSTER, Node, bytes, chunk_file, client, get, put};
use crate::testing::{Faults, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn i09_a_tombstoned_datanode_starts_anew_without_its_chunks() {
    let (tracker, node) = one().await;
    let chunk = put(&[&node], 1, b"abc").await;
    let old = node.address.id;
    let dir = node.stop().await;
    tracker.tell(|s| s.tombstoned = Some(old));
    let node = Node::on(&tracker, dir, |_| {}).await;
    eventually("a newcomer", async || {
        tracker.tell(|s| s.heartbeats.last().is_some_and(|h| h.datanode != old))
    })
    .await;
    let identity = client().identity(&node.address.address).await.unwrap();
    assert_ne!(identity.datanode, old);
    assert_eq!(identity.cluster, Some(CLUSTER));
    let last = tracker.tell(|s| s.heartbeats.last().cloned().unwrap());
    assert_eq!(last.digest.count, 0);
    let gone = send(&node, "GET", &download(&chunk), &[], b"").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(
        std::fs::read_dir(node.root().join("retired"))
            .unwrap()
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_35_a_volume_of_another_cluster_ends_the_datanode_with_what_to_do() {
    let (tracker, node) = one().await;
    let dir = node.stop().await;
    tracker.tell(|s| s.cluster = ClusterId::from_u128(0xbad));
    let node = Node::on(&tracker, dir, |_| {}).await;
    let ended = tokio::time::timeout(Duration::from_secs(90), node.ended).await;
    let error = ended.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, DatanodeError::Volume(_)));
    assert!(error.to_string().contains("belongs to cluster"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrub_finds_damage_that_nobody_reads() {
    let (tracker, node) = one().await;
    let chunk = put(&[&node], 1, &bytes(300_000)).await;
    let dir = node.stop().await;
    std::fs::remove_file(dir.path().join("v/verified.bin")).unwrap();
    let path = chunk_file(&dir.path().join("v"), &chunk);
    let mut record = std::fs::read(&path).unwrap();
    record[4096 + 200_000] ^= 1;
    std::fs::write(&path, record).unwrap();
    let node = Node::on(&tracker, dir, |_| {}).await;
    eventually("the damage is told", async || {
        tracker.tell(|s| s.heartbeats.iter().any(|h| !h.corrupt.is_empty()))
    })
    .await;
    assert!(!chunk_file(&node.root(), &chunk).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_01_a_datanode_that_was_killed_comes_back_with_its_chunks() {
    let (tracker, node) = one().await;
    let data = bytes(100_000);
    let chunk = put(&[&node], 1, &data).await;
    let dir = Arc::clone(&node.dir);
    node.kill().await;
    let node = Node::on(&tracker, dir, |_| {}).await;
    assert_eq!(get(&node, &chunk).await.unwrap(), data);
    let sum = send(&node, "GET", &download(&chunk), &[], b"")
        .await
        .body
        .unwrap();
    assert_eq!(crc32c(&sum), chunk.crc32c);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_14_a_volume_that_grew_is_told_and_takes_chunks_again_without_a_restart() {
    const GIB: u64 = 1 << 30;
    let (tracker, node) = one().await;
    let space = |total, available| {
        node.disk.set(Faults {
            space: Some((total, available)),
            ..Faults::default()
        });
    };
    let told = |wanted: (u64, bool)| {
        tracker.tell(|s| {
            let last = s.heartbeats.last();
            last.is_some_and(|h| (h.stats.capacity_bytes, h.stats.read_only) == wanted)
        })
    };
    space(10 * GIB, 0);
    eventually("a full volume is told", async || told((10 * GIB, true))).await;
    assert_eq!(node.metric("dfs_datanode_read_only"), 1);
    space(20 * GIB, 10 * GIB);
    eventually("the room is told", async || told((20 * GIB, false))).await;
    let metric = |name| node.metric(name);
    let capacity = metric("dfs_datanode_volume_capacity_bytes");
    assert_eq!((capacity, metric("dfs_datanode_read_only")), (20 * GIB, 0));
    let reserve = metric("dfs_datanode_volume_reserve_bytes");
    assert_eq!(metric("dfs_datanode_volume_free_bytes"), 10 * GIB - reserve);
    let chunk = put(&[&node], 1, b"abc").await;
    assert_eq!(get(&node, &chunk).await.unwrap(), b"abc");
}
