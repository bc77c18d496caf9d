//! Small chunks over the port: one body of an announced length, and damage before the head.

use std::sync::Arc;

use dfs_protocol::frame::BLOCK_STREAM_MEDIA_TYPE;
use http::header::{ACCEPT, CONTENT_LENGTH};

use super::*;
use crate::store::PackLimits;

async fn packing(tracker: &FakeTracker) -> Node {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    // Writers of these tests ask for room for 8 MiB.
    let packs = PackLimits {
        chunk: 8 << 20,
        ..PackLimits::default()
    };
    let node = Node::on(tracker, dir, |config| config.packs = packs).await;
    node.wait_admitted(tracker).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_chunk_comes_whole_and_in_ranges_out_of_memory_and_from_the_disk() {
    let tracker = FakeTracker::start().await;
    let node = packing(&tracker).await;
    let data = bytes(BLOCK_SIZE + 100);
    let chunk = put(&[&node], 7, &data).await;
    let blocks = [(ACCEPT.as_str(), BLOCK_STREAM_MEDIA_TYPE)];
    // From the disk first: nobody has opened the pack.
    for _ in 0..2 {
        assert_eq!(get(&node, &chunk).await.unwrap(), data);
        let framed = send(&node, "GET", &download(&chunk), &blocks, b"").await;
        let body = framed.body.unwrap();
        assert_eq!(framed.headers[CONTENT_LENGTH], body.len().to_string());
        for (range, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=65535-65536", 65_535..65_537),
            ("bytes=-100", BLOCK_SIZE..data.len()),
        ] {
            let range = [(RANGE.as_str(), range)];
            let part = send(&node, "GET", &download(&chunk), &range, b"").await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range:?}");
            assert_eq!(part.body.unwrap(), data[expected], "{range:?}");
        }
        let outside = [(RANGE.as_str(), "bytes=999999999-")];
        let outside = send(&node, "GET", &download(&chunk), &outside, b"").await;
        assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    }
    assert_eq!(node.metric("dfs_datanode_reads"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_a_small_chunk_that_rots_under_its_readers_is_refused_and_told() {
    let tracker = FakeTracker::start().await;
    let node = packing(&tracker).await;
    let data = bytes(4096);
    let chunk = put(&[&node], 7, &data).await;
    for _ in 0..2 {
        assert_eq!(get(&node, &chunk).await.unwrap(), data);
    }
    let mut packs = std::fs::read_dir(node.root().join("packs")).unwrap();
    let pack = packs.next().unwrap().unwrap().path();
    let mut rotten = std::fs::read(&pack).unwrap();
    rotten[1024 + 100] ^= 1;
    std::fs::write(&pack, rotten).unwrap();
    assert!(get(&node, &chunk).await.is_none());
    let answer = send(&node, "GET", &download(&chunk), &[], b"").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    eventually("the damage is told", async || {
        tracker.tell(|s| {
            let mut corrupt = s.heartbeats.iter().flat_map(|h| &h.corrupt);
            corrupt.any(|told| told.chunk == chunk.id)
        })
    })
    .await;
}
