//! Uploads against a chain that fails on order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::frame::{HopFault, PROGRESS_STEP};
use dfs_protocol::upload::Precondition;
use dfs_protocol::{ErrorCode, FilePath, Problem};

use super::{Committed, NewFile, Upload};
use crate::error::UploadError;
use crate::headers::digests::WantedDigests;
use crate::metrics::UploadEnd;
use crate::testing::{CHUNK, Fault, World, config, content, eventually};

const MIB: u64 = 1024 * 1024;

fn named(path: &str) -> NewFile {
    NewFile {
        path: FilePath::parse(path).unwrap(),
        precondition: Precondition::None,
        content_type: "text/plain".into(),
        content_encoding: None,
        metadata: std::collections::BTreeMap::new(),
        digests: WantedDigests::default(),
        expected: None,
    }
}

async fn store(world: &World, path: &str, bytes: &[u8]) -> Result<Committed, UploadError> {
    let mut upload = Upload::begin(world.gateway.clone(), named(path)).await?;
    // Pieces that fit neither blocks nor chunks.
    for piece in bytes.chunks(50_001) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish().await
}

/// Every datanode that the answer names holds every chunk, and they add up to the bytes.
fn assert_stored(world: &World, committed: &Committed, bytes: &[u8]) {
    assert_eq!(committed.file.size, bytes.len() as u64);
    let crc = dfs_protocol::checksum::crc64nvme(bytes);
    assert_eq!(committed.file.crc64nvme, crc);
    for datanode in &committed.replicas {
        let mut whole = Vec::new();
        for chunk in &committed.file.chunks {
            whole.extend(world.chain.bytes(*datanode, chunk.id).unwrap());
        }
        assert!(whole == bytes, "replica on {datanode}");
    }
}

#[tokio::test]
async fn i01_an_answer_names_the_datanodes_that_hold_every_byte() {
    let world = World::new(4, CHUNK).await;
    // Around the ends of blocks and chunks.
    for length in [
        1,
        65_535,
        65_536,
        65_537,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        3 * CHUNK,
        3 * CHUNK + 70_000,
    ] {
        let bytes = content(length);
        let committed = store(&world, "a/b", &bytes).await.unwrap();
        assert_eq!(committed.replicas.len(), 3, "{length}");
        assert_eq!(committed.replica_count, 3);
        let chunks = length.div_ceil(CHUNK);
        assert_eq!(committed.file.chunks.len() as u64, chunks);
        assert_stored(&world, &committed, &bytes);
    }
    assert_eq!(world.gateway.metrics.window_bytes.get(), 0);
}

#[tokio::test]
async fn bad_input_20_a_zero_byte_file_has_no_chunk() {
    let world = World::new(3, CHUNK).await;
    let committed = store(&world, "empty", b"").await.unwrap();
    assert!(committed.file.chunks.is_empty());
    assert_eq!(committed.file.crc64nvme, 0);
    assert_eq!(world.tracker.abandoned(), 0);
}

#[tokio::test]
async fn a_small_file_costs_one_chunk_write_and_one_commit() {
    let world = World::new(3, CHUNK).await;
    for name in ["a", "b", "c"] {
        store(&world, name, b"small").await.unwrap();
    }
    assert_eq!(world.tracker.allocations().len(), 1);
    assert_eq!(world.tracker.commits.load(Ordering::SeqCst), 3);
    assert_eq!(world.chain.opens(0), 3);
}

#[tokio::test]
async fn later_chunks_prefer_the_datanodes_of_the_first() {
    let world = World::new(5, CHUNK).await;
    store(&world, "a", &content(2 * CHUNK)).await.unwrap();
    let allocations = world.tracker.allocations();
    assert_eq!(allocations.last().unwrap().prefer.len(), 3);
}

#[tokio::test]
async fn later_chunks_stay_clear_of_a_datanode_that_failed_an_earlier_one() {
    let world = World::new(4, CHUNK).await;
    world.chain.order(1, Fault::RefuseOpen(HopFault::Disk));
    store(&world, "a", &content(4 * CHUNK)).await.unwrap();
    let last = world.tracker.allocations().pop().unwrap();
    let failed = crate::testing::id(1);
    assert_eq!(last.avoid, [failed]);
    assert!(!last.prefer.is_empty() && !last.prefer.contains(&failed));
}

#[tokio::test]
async fn i31_a_hop_that_was_only_busy_at_the_seal_is_not_avoided_by_later_chunks() {
    for (cause, is_avoided) in [
        (HopFault::Disk, true),
        (HopFault::Busy, false),
        (HopFault::Fenced, false),
        (HopFault::AlreadySealed, false),
    ] {
        let world = World::new(4, CHUNK).await;
        world.chain.order(1, Fault::FailSeal(cause));
        let bytes = content(4 * CHUNK);
        let committed = store(&world, "a", &bytes).await.unwrap();
        assert_stored(&world, &committed, &bytes);
        assert_eq!(committed.replica_count, 3);
        let last = world.tracker.allocations().pop().unwrap();
        let avoided = last.avoid.contains(&crate::testing::id(1));
        assert_eq!(avoided, is_avoided, "{cause:?}");
    }
}

#[tokio::test]
async fn fault_02_a_hop_that_refuses_to_open_is_left_out_and_its_replica_made_up() {
    for hop in 0..3 {
        let world = World::new(4, CHUNK).await;
        world.chain.order(hop, Fault::RefuseOpen(HopFault::NoSpace));
        let bytes = content(CHUNK + 5);
        let committed = store(&world, "a", &bytes).await.unwrap();
        assert_eq!(committed.replica_count, 3, "hop {hop}");
        assert_stored(&world, &committed, &bytes);
        let count = world
            .gateway
            .metrics
            .hop_failures
            .get(HopFault::NoSpace.into());
        assert_eq!(count, 1);
        assert!(world.gateway.metrics.completed_replicas.get() >= 1);
    }
}

#[tokio::test]
async fn i31_a_hop_that_has_no_place_for_a_write_now_is_waited_for() {
    for hop in 0..3 {
        let world = World::new(3, CHUNK).await;
        world.chain.order(hop, Fault::RefuseOpen(HopFault::Busy));
        let bytes = content(CHUNK + 5);
        let committed = store(&world, "a", &bytes).await.unwrap();
        assert_stored(&world, &committed, &bytes);
        assert_eq!(committed.replica_count, 3, "hop {hop}");
        // By its chain, and not by a copy.
        assert_eq!(world.gateway.metrics.completed_replicas.get(), 0);
    }
}

#[tokio::test]
async fn fault_02_a_hop_that_dies_mid_body_is_not_noticed_by_the_client() {
    for hop in 0..3 {
        // Before anything was confirmed, between confirmations, at the last byte.
        for at in [1, PROGRESS_STEP + 70_000, 3 * MIB + 5] {
            let world = World::new(4, 4 * MIB).await;
            world.chain.order(hop, Fault::DieAt(at));
            let bytes = content(3 * MIB + 5);
            let committed = store(&world, "a", &bytes).await.unwrap();
            assert_eq!(committed.replica_count, 3, "hop {hop} at {at}");
            assert!(committed.file.chunks[0].version.0 > 1);
            assert_stored(&world, &committed, &bytes);
        }
    }
}

#[tokio::test]
async fn fault_02_two_hops_that_die_one_after_the_other_leave_the_last() {
    let world = World::new(3, 4 * MIB).await;
    world.chain.order(0, Fault::DieAt(MIB + 1));
    world.chain.order(2, Fault::DieAt(2 * MIB + 1));
    let bytes = content(3 * MIB);
    let committed = store(&world, "a", &bytes).await.unwrap();
    // One datanode is left, so one replica is all that can be: the answer says so.
    assert_eq!((committed.replica_count, committed.wanted), (1, 3));
    assert_stored(&world, &committed, &bytes);
}

#[tokio::test]
async fn fault_02_a_hop_that_dies_at_the_seal() {
    for hop in 0..3 {
        let failed = Fault::FailSeal(HopFault::Disk);
        for fault in [Fault::DieAtSeal, Fault::SealThenDie, failed] {
            let world = World::new(4, 4 * MIB).await;
            world.chain.order(hop, fault);
            let bytes = content(2 * MIB + 9);
            let committed = store(&world, "a", &bytes).await.unwrap();
            assert_eq!(committed.replica_count, 3, "hop {hop} {fault:?}");
            assert_stored(&world, &committed, &bytes);
            if fault == Fault::SealThenDie {
                // What was sealed counts: nothing is written twice.
                assert_eq!(committed.file.chunks[0].version.0, 1);
            }
        }
    }
}

#[tokio::test]
async fn fault_02_a_chain_that_is_lost_early_is_replaced_whole() {
    let world = World::new(6, 4 * MIB).await;
    for hop in 0..3 {
        world
            .chain
            .order(hop, Fault::DieAt(65_536 * (hop as u64 + 1)));
    }
    let bytes = content(3 * MIB);
    let committed = store(&world, "a", &bytes).await.unwrap();
    assert_eq!(committed.replica_count, 3);
    assert_stored(&world, &committed, &bytes);
    // The chunk that was begun is given up.
    eventually("the first chunk is given up", || {
        world.tracker.abandoned() > 0
    })
    .await;
    assert!(!world.tracker.is_abandoned(committed.file.chunks[0].id));
}

#[tokio::test]
async fn i03_a_chain_that_is_lost_late_fails_the_upload_and_nothing_is_visible() {
    let world = World::new(6, 4 * MIB).await;
    for hop in 0..3 {
        let at = 2 * MIB + 65_536 * (hop as u64 + 1);
        world.chain.order(hop, Fault::DieAt(at));
    }
    let error = store(&world, "a", &content(3 * MIB)).await.unwrap_err();
    assert!(matches!(error, UploadError::ChainLost { .. }), "{error}");
    assert_eq!(Problem::from(error).status, 503);
    assert!(world.tracker.file("a").is_none());
    eventually("the chunk is given up", || world.tracker.abandoned() > 0).await;
    assert_eq!(world.gateway.metrics.window_bytes.get(), 0);
    assert_eq!(world.gateway.metrics.uploads.get(UploadEnd::Failed), 1);
}

#[tokio::test]
async fn i20_a_chain_that_obeys_a_newer_tracker_goes_on_under_its_fence() {
    let world = World::new(3, CHUNK).await;
    let begun = Upload::begin(world.gateway.clone(), named("a")).await;
    let mut upload = begun.unwrap();
    world.tracker.restart();
    world.chain.order(0, Fault::RefuseOpen(HopFault::Fenced));
    let bytes = content(1000);
    upload.write(Bytes::from(bytes.clone())).await.unwrap();
    let committed = upload.finish().await.unwrap();
    assert_eq!(committed.replica_count, 3);
    assert_stored(&world, &committed, &bytes);
    // Nothing had to be copied: the hop was kept.
    assert_eq!(world.gateway.metrics.completed_replicas.get(), 0);
}

#[tokio::test]
async fn fault_15_a_datanode_that_was_silent_is_left_out_of_new_chains_and_gets_its_replica_by_a_copy()
 {
    let world = World::new(3, CHUNK).await;
    store(&world, "before", b"fills the pool").await.unwrap();
    let opens = world.chain.opens(0);
    world.gateway.note_silent(crate::testing::id(0));
    let bytes = content(CHUNK - 7);
    let committed = store(&world, "a", &bytes).await.unwrap();
    assert_eq!(world.chain.opens(0), opens, "nobody waited for it");
    // The tracker counts on it, and it lives: the copy shows that.
    assert_eq!(committed.replica_count, 3);
    assert_stored(&world, &committed, &bytes);
    assert_eq!(world.gateway.metrics.completed_replicas.get(), 1);
    store(&world, "b", &bytes).await.unwrap();
    assert_eq!(world.chain.opens(0), opens + 1);
}

#[tokio::test]
async fn i31_an_upload_holds_no_more_than_its_window() {
    let world = World::new(3, 64 * MIB).await;
    world.chain.order(1, Fault::Silent);
    let mut upload = Upload::begin(world.gateway.clone(), named("a"))
        .await
        .unwrap();
    let window = world.gateway.config.window();
    let piece = Bytes::from(vec![7; 65_536]);
    let mut taken = 0;
    // The chain takes everything and confirms nothing: the body must stop at the window.
    loop {
        let short = Duration::from_millis(300);
        let mut write = std::pin::pin!(upload.write(piece.clone()));
        let mut written = tokio::time::timeout(short, &mut write).await;
        // A busy machine may be slow long before.
        for _ in 0..200 {
            if written.is_ok() || taken >= window {
                break;
            }
            written = tokio::time::timeout(short, &mut write).await;
        }
        let Ok(written) = written else {
            break;
        };
        written.unwrap();
        taken += piece.len();
        assert!(taken <= window + piece.len(), "{taken}");
        let held = usize::try_from(world.gateway.metrics.window_bytes.get()).unwrap();
        assert!(held <= window, "{held}");
    }
    assert!(taken >= window, "{taken}");
    drop(upload);
    let gateway = world.gateway.clone();
    eventually("the window is given back", || {
        gateway.metrics.window_bytes.get() == 0
    })
    .await;
}

#[tokio::test]
async fn fault_15_a_chain_that_confirms_nothing_is_given_up_in_time() {
    let impatient = crate::GatewayConfig {
        chain_stall: Duration::from_secs(2),
        ..config()
    };
    let world = World::with(4, 64 * MIB, impatient).await;
    world.chain.order(0, Fault::Silent);
    let bytes = content(6 * MIB);
    let committed = store(&world, "a", &bytes).await.unwrap();
    assert_stored(&world, &committed, &bytes);
    assert!(!committed.replicas.is_empty());
    let lost = world
        .gateway
        .metrics
        .hop_failures
        .get(HopFault::Unreachable.into());
    assert_eq!(lost, 1);
}

#[tokio::test]
async fn bad_input_22_an_upload_cut_at_any_place_leaves_nothing() {
    let world = World::new(3, CHUNK).await;
    for length in [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1] {
        let mut upload = Upload::begin(world.gateway.clone(), named("a"))
            .await
            .unwrap();
        upload.write(Bytes::from(content(length))).await.unwrap();
        drop(upload);
        assert!(world.tracker.names().is_empty(), "{length}");
    }
    eventually("all chunks are given up", || world.tracker.abandoned() >= 8).await;
    assert_eq!(world.tracker.commits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn i06_bytes_that_do_not_match_their_digest_are_not_committed() {
    let world = World::new(3, CHUNK).await;
    for (body, expected) in [
        (&b"hello"[..], None),
        (b"hellp", Some(ErrorCode::BadDigest)),
    ] {
        let md5 = ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==");
        let headers = [(md5.0.parse().unwrap(), md5.1.parse().unwrap())];
        let file = NewFile {
            digests: WantedDigests::read(&headers.into_iter().collect()).unwrap(),
            ..named("a")
        };
        let mut upload = Upload::begin(world.gateway.clone(), file).await.unwrap();
        upload.write(Bytes::from_static(body)).await.unwrap();
        let outcome = upload.finish().await.map_err(Problem::from);
        assert_eq!(outcome.err().and_then(|problem| problem.code()), expected);
    }
    assert_eq!(world.tracker.commits.load(Ordering::SeqCst), 1);
    assert!(world.tracker.file("a").unwrap().md5.is_some());
    assert_eq!(world.gateway.metrics.digest_mismatches.get(), 1);
}

#[tokio::test]
async fn i19_a_commit_whose_answer_is_lost_is_repeated_and_has_one_effect() {
    let world = World::new(3, CHUNK).await;
    world.tracker.lost_answers.store(1, Ordering::SeqCst);
    let committed = store(&world, "a", b"once").await.unwrap();
    assert!(!committed.replaced);
    assert_eq!(world.tracker.commits.load(Ordering::SeqCst), 2);
    assert_eq!(
        world.tracker.file("a").unwrap().version,
        committed.file.version
    );
}

#[tokio::test]
async fn a_commit_without_any_answer_is_unknown_and_its_chunks_are_not_given_up() {
    let world = World::new(3, CHUNK).await;
    world.tracker.lost_answers.store(1000, Ordering::SeqCst);
    let error = store(&world, "a", b"who knows").await.unwrap_err();
    let problem = Problem::from(error);
    assert_eq!(problem.status, 503);
    assert!(problem.detail.contains("unknown"), "{problem}");
    let chunk = world.tracker.file("a").unwrap().chunks[0].id;
    world.gateway.lease.renew().await.unwrap();
    assert!(!world.tracker.is_abandoned(chunk));
}

#[tokio::test]
async fn bad_input_44_without_the_tracker_an_upload_is_refused_before_its_body() {
    let world = World::new(3, CHUNK).await;
    world.tracker.unreachable.store(1, Ordering::SeqCst);
    let refused = Upload::begin(world.gateway.clone(), named("a")).await;
    assert_eq!(Problem::from(refused.unwrap_err()).status, 503);
    for datanode in 0..3 {
        world.chain.kill(datanode);
    }
    let refused = Upload::begin(world.gateway.clone(), named("a")).await;
    let problem = Problem::from(refused.unwrap_err());
    assert_eq!(problem.code(), Some(ErrorCode::TooFewDatanodes));
}

#[tokio::test]
async fn i31_more_uploads_than_allowed_are_refused_and_counted() {
    let limited = crate::GatewayConfig {
        max_uploads: 1,
        max_file_bytes: 10,
        ..config()
    };
    let world = World::with(3, CHUNK, limited).await;
    let first = Upload::begin(world.gateway.clone(), named("a"))
        .await
        .unwrap();
    let second = Upload::begin(world.gateway.clone(), named("b")).await;
    let problem = Problem::from(second.unwrap_err());
    assert_eq!((problem.status, problem.retry_after), (503, Some(1)));
    drop(first);
    let error = store(&world, "b", b"01234567890").await.unwrap_err();
    assert_eq!(Problem::from(error).status, 413);
    assert!(store(&world, "b", b"0123456789").await.is_ok());
    let refusals = &world.gateway.metrics.refusals;
    assert_eq!(refusals.get(crate::Refusal::Uploads), 1);
    assert_eq!(refusals.get(crate::Refusal::FileBytes), 1);
}

#[tokio::test]
async fn fault_16_a_tracker_that_restarts_amid_an_upload_is_waited_for() {
    let world = World::new(3, CHUNK).await;
    let begun = Upload::begin(world.gateway.clone(), named("a")).await;
    let mut upload = begun.unwrap();
    let bytes = content(3 * CHUNK);
    let (first, rest) = bytes.split_at(1000);
    upload.write(Bytes::copy_from_slice(first)).await.unwrap();
    world.tracker.unreachable.store(3, Ordering::SeqCst);
    world.tracker.restart();
    upload.write(Bytes::copy_from_slice(rest)).await.unwrap();
    let committed = upload.finish().await.unwrap();
    assert_stored(&world, &committed, &bytes);
}

#[tokio::test]
async fn the_lease_holds_the_chunks_of_running_uploads_and_no_others() {
    let world = World::new(3, CHUNK).await;
    let begun = Upload::begin(world.gateway.clone(), named("a")).await;
    let mut upload = begun.unwrap();
    upload.write(Bytes::from(content(CHUNK))).await.unwrap();
    eventually("the lease is renewed in the background", || {
        world.tracker.renewed() > 0
    })
    .await;
    let committed = upload.finish().await.unwrap();
    let chunk = committed.file.chunks[0].id;
    assert!(world.tracker.was_renewed(chunk));
    assert!(!world.tracker.is_abandoned(chunk));
}

#[tokio::test]
async fn i25_placements_that_nobody_takes_are_given_up_by_an_idle_gateway() {
    let impatient = crate::GatewayConfig {
        pool_max_age: Duration::from_millis(200),
        ..config()
    };
    let batch = impatient.pool_size as usize;
    let world = World::with(3, CHUNK, impatient).await;
    let committed = store(&world, "a", b"hello").await.unwrap();
    eventually("the rest of the batch is given up", || {
        world.tracker.abandoned() == batch - 1
    })
    .await;
    assert!(!world.tracker.is_abandoned(committed.file.chunks[0].id));
}
