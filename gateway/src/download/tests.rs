//! Downloads from replicas that fail on order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::TrackerApi as _;
use dfs_protocol::upload::{LocateRequest, Precondition};
use dfs_protocol::{ErrorCode, FilePath, Problem};
use http_body_util::BodyExt as _;

use super::open;
use crate::config::GatewayConfig;
use crate::headers::digests::WantedDigests;
use crate::testing::{CHUNK, ReadFault, World, content, eventually};
use crate::upload::{NewFile, Upload};

pub(super) const LENGTH: u64 = 2 * CHUNK + 70_000;

pub(crate) async fn stored() -> (World, Vec<u8>) {
    stored_in(World::new(3, CHUNK).await).await
}

/// A store whose datanodes send blocks as they lie on the disk, and one whose frame each.
async fn stored_in_both() -> [(World, Vec<u8>); 2] {
    let older = stored().await;
    older.0.chain.without_read_streams();
    [stored().await, older]
}

pub(super) async fn stored_in(world: World) -> (World, Vec<u8>) {
    let bytes = content(LENGTH);
    let file = NewFile {
        path: path(),
        precondition: Precondition::None,
        content_type: "text/plain".into(),
        content_encoding: None,
        metadata: std::collections::BTreeMap::new(),
        digests: WantedDigests::default(),
        expected: Some(LENGTH),
    };
    let mut upload = Upload::begin(world.gateway.clone(), file).await.unwrap();
    upload.write(Bytes::from(bytes.clone())).await.unwrap();
    upload.finish().await.unwrap();
    (world, bytes)
}

pub(crate) fn path() -> FilePath {
    FilePath::parse("a").unwrap()
}

/// The outer error: no answer; the inner one: broken after so many bytes.
pub(super) async fn read(
    world: &World,
    range: Range<u64>,
) -> Result<Result<Vec<u8>, usize>, Problem> {
    let request = LocateRequest {
        path: path(),
        locations: true,
    };
    let located = world.tracker.locate(request).await.unwrap();
    let mut body = open(world.gateway.clone(), located, range).await?;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => return Ok(Err(bytes.len())),
        }
    }
    Ok(Ok(bytes))
}

#[tokio::test]
async fn any_range_is_read_across_blocks_and_chunks() {
    for (world, bytes) in stored_in_both().await {
        for range in [
            0..LENGTH,
            0..1,
            LENGTH - 1..LENGTH,
            65_535..65_537,
            CHUNK - 1..CHUNK + 1,
            CHUNK..2 * CHUNK,
            3..2 * CHUNK + 5,
        ] {
            let part = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            let read = read(&world, range.clone()).await.unwrap().unwrap();
            assert!(read == bytes[part], "{range:?}");
        }
        assert_eq!(world.gateway.metrics.failovers.get(), 0);
    }
}

#[tokio::test]
async fn i04_a_damaged_block_is_replaced_in_mid_stream_and_reported() {
    for (world, bytes) in stored_in_both().await {
        for fault in [
            ReadFault::Flip(0),
            ReadFault::Flip(3),
            ReadFault::CutBefore(2),
        ] {
            world.chain.order_read(0, Some(fault));
            let before = world.gateway.metrics.failovers.get();
            let read = read(&world, 0..LENGTH).await.unwrap().unwrap();
            assert!(read == bytes, "{fault:?}");
            assert!(world.gateway.metrics.failovers.get() > before, "{fault:?}");
        }
        eventually("the replica is reported", || {
            !world.tracker.suspects().is_empty()
        })
        .await;
        let first = crate::testing::id(0);
        assert!(
            world
                .tracker
                .suspects()
                .iter()
                .all(|suspect| *suspect == first)
        );
    }
}

#[tokio::test]
async fn i04_bytes_of_another_chunk_with_fitting_checksums_are_not_served_as_a_whole() {
    for (world, _) in stored_in_both().await {
        for datanode in 0..3 {
            world
                .chain
                .order_read(datanode, Some(ReadFault::OtherBytes));
        }
        // The last of its blocks is held back when the whole does not add up.
        let end = read(&world, CHUNK..2 * CHUNK).await.unwrap();
        assert_eq!(end, Err(5 * 65_536));
        // What is read whole before it is answered is refused.
        let small = read(&world, 2 * CHUNK..LENGTH).await;
        assert!(small.unwrap_err().is(ErrorCode::DataUnavailable));
    }
}

#[tokio::test]
async fn i04_a_small_range_is_read_from_another_replica_when_one_is_damaged_or_breaks_off() {
    for fault in [
        ReadFault::Flip(0),
        ReadFault::Flip(1),
        ReadFault::CutBefore(0),
        ReadFault::CutBefore(1),
    ] {
        // A new one each time: datanodes that failed come last for a while.
        let (world, bytes) = stored().await;
        world.chain.order_read(0, Some(fault));
        let read = read(&world, 2 * CHUNK..LENGTH).await.unwrap().unwrap();
        assert!(
            read == bytes[usize::try_from(2 * CHUNK).unwrap()..],
            "{fault:?}"
        );
        let metrics = &world.gateway.metrics;
        assert_eq!(metrics.failovers.get(), 1, "{fault:?}");
        assert_eq!(metrics.broken_downloads.get(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn fault_01_a_dead_datanode_is_not_noticed_by_readers() {
    for (world, bytes) in stored_in_both().await {
        let request = LocateRequest {
            path: path(),
            locations: true,
        };
        let located = world.tracker.locate(request).await.unwrap();
        // It dies after the locations were given out.
        world.chain.kill(0);
        let body = open(world.gateway.clone(), located, 0..LENGTH)
            .await
            .unwrap();
        let read = body.collect().await.unwrap().to_bytes();
        assert!(read == bytes);
    }
}

#[tokio::test]
async fn i05_bytes_that_are_lost_midway_break_the_download_and_never_end_it_cleanly() {
    for (world, bytes) in stored_in_both().await {
        for datanode in 0..3 {
            world.chain.order_read(datanode, Some(ReadFault::Flip(3)));
        }
        let broken = read(&world, 0..LENGTH).await.unwrap();
        assert_eq!(broken, Err(3 * 65_536));
        assert_eq!(world.gateway.metrics.broken_downloads.get(), 1);
        // Each replica is tried twice: before and after locations were asked for anew.
        assert!((0..3).all(|datanode| world.chain.reads(datanode) <= 2));
        // One good replica is enough.
        world.chain.order_read(1, None);
        assert_eq!(read(&world, 0..LENGTH).await.unwrap().unwrap(), bytes);
    }
}

#[tokio::test]
async fn fault_05_data_that_cannot_be_read_at_all_is_an_answer_that_names_the_file() {
    let (world, _) = stored().await;
    for datanode in 0..3 {
        world.chain.kill(datanode);
    }
    let problem = read(&world, 0..LENGTH).await.unwrap_err();
    assert_eq!(problem.code(), Some(ErrorCode::DataUnavailable));
    assert!(problem.detail.contains("`a`"), "{problem}");
    world.tracker.safe_mode.store(true, Ordering::SeqCst);
    let problem = read(&world, 0..LENGTH).await.unwrap_err();
    assert_eq!(problem.code(), Some(ErrorCode::SafeMode));
    assert!(problem.retry_after.is_some());
    world.tracker.safe_mode.store(false, Ordering::SeqCst);
    world.chain.revive(2);
    assert!(read(&world, 0..LENGTH).await.unwrap().is_ok());
}

#[tokio::test]
async fn fault_05_a_read_waits_while_the_tracker_gathers_reports_and_no_known_replica_answers() {
    let config = GatewayConfig {
        tracker_patience: Duration::from_mins(5),
        ..crate::testing::config()
    };
    let (world, bytes) = stored_in(World::with(3, CHUNK, config).await).await;
    for datanode in 0..3 {
        world
            .chain
            .order_read(datanode, Some(ReadFault::CutBefore(0)));
    }
    world.tracker.gathers.store(true, Ordering::SeqCst);
    let world = Arc::new(world);
    let reading = tokio::spawn({
        let world = world.clone();
        async move { read(&world, 0..LENGTH).await }
    });
    let retries = world.gateway.metrics.tracker_retries.clone();
    eventually("it waits", || retries.get() > 1).await;
    assert!(!reading.is_finished());
    world.chain.order_read(1, None);
    assert_eq!(reading.await.unwrap().unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn i31_a_reader_that_goes_away_gives_its_place_back() {
    let (world, _) = stored().await;
    let request = LocateRequest {
        path: path(),
        locations: true,
    };
    let located = world.tracker.locate(request).await.unwrap();
    let places = world.gateway.config.max_downloads;
    for _ in 0..=places {
        let body = open(world.gateway.clone(), located.clone(), 0..LENGTH).await;
        drop(body.unwrap());
    }
}
