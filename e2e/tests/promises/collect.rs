//! Deletion, the trash and collection: what is gone stays gone (I9), what is named or on its way
//! stays (I10), what nothing names goes (I11).

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_client::HttpTracker;
use dfs_client::http::HttpClient;
use dfs_client::tracker::TrackerApi;
use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options, SOON};
use dfs_protocol::chunk::SealedChunk;
use dfs_protocol::file::TrashReason;
use dfs_protocol::upload::{
    AllocateRequest, CommitRequest, Precondition, RenewRequest, WrittenChunk,
};
use dfs_protocol::{ChunkVersion, ErrorCode, FileId, FilePath, LeaseId, UploadId};
use http::{Method, StatusCode};

use crate::kit::{
    CHUNK, CHUNK_BYTES, DEADLINE, Model, Upload, chunks_of, holders, options, with_files,
};
use crate::world::{copy, id_of, post, purge, records_on, trash, wait_gone, wait_ok_to_stop};

/// Of the slow upload.
const LEASE: Duration = Duration::from_secs(8);

/// No trash; orphans live a second.
fn no_trash(datanodes: usize) -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            // Old ones go by order of a heartbeat: as fast as new ones come.
            config.checkpoint_interval = Duration::from_millis(1500);
            config.trash_retention = Duration::ZERO;
            config.orphan_age = Duration::from_secs(1);
            config.lease = Duration::from_secs(1);
        },
        ..options(datanodes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_a_datanode_that_was_away_at_the_delete_brings_nothing_back() {
    let mut cluster = Cluster::start(with_files(no_trash(4))).await;
    let mut model = Model::default();
    let stored = model.put(&mut cluster, "gone", 2 * CHUNK_BYTES).await;
    model.put(&mut cluster, "kept", CHUNK_BYTES).await;
    let store = cluster.store();
    let chunks = chunks_of(&store, "gone").await;
    let away = cluster.number_of(stored.replicas[0]).await;
    cluster.kill_datanode(away).await;
    model.delete(&store, "gone").await;
    assert_eq!(
        store.try_get("gone").await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    // Everything else starts anew, then the old volume returns.
    cluster.restart_tracker().await;
    for number in (0..4).filter(|number| *number != away) {
        cluster.kill_datanode(number).await;
        cluster.start_datanode(number).await;
    }
    cluster.store().wait_ready(3, SOON).await;
    assert!(
        chunks
            .iter()
            .any(|chunk| holders(&cluster, chunk).contains(&away))
    );
    cluster.start_datanode(away).await;
    cluster.store().wait_ready(4, SOON).await;
    assert_eq!(
        store.try_get("gone").await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    wait_gone(&cluster, &chunks, DEADLINE).await;
    model.settle(&cluster).await;
    cluster.power_cut_all(true).await;
    cluster.start_all().await;
    assert_eq!(store.list("").await, ["kept"]);
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_what_was_purged_from_the_trash_stays_gone() {
    let mut cluster = Cluster::start(with_files(options(4))).await;
    let mut model = Model::default();
    let stored = model.put(&mut cluster, "gone", 2 * CHUNK_BYTES).await;
    let store = cluster.store();
    let chunks = chunks_of(&store, "gone").await;
    model.delete(&store, "gone").await;
    // In the trash the chunks are named: repair and restarts keep them.
    cluster.restart_tracker().await;
    let entries = trash(&store).await;
    assert_eq!(entries.len(), 1);
    let away = cluster.number_of(stored.replicas[1]).await;
    cluster.kill_datanode(away).await;
    purge(&store, &entries[0]).await;
    cluster.restart_tracker().await;
    cluster.start_datanode(away).await;
    cluster.store().wait_ready(4, SOON).await;
    assert!(trash(&store).await.is_empty());
    wait_gone(&cluster, &chunks, DEADLINE).await;
    assert_eq!(
        store.try_get("gone").await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_slow_upload_keeps_its_chunks_longer_than_orphans_live() {
    // A lease that outlives a stall of the machine; the upload outlives the lease.
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            (no_trash(3).tracker)(config);
            config.lease = LEASE;
            config.heartbeat_interval = CALM_HEARTS;
        },
        datanode: |config| config.stream_idle = Duration::from_mins(1),
        chunk_files: true,
        ..no_trash(3)
    })
    .await;
    let mut model = Model::default();
    let store = cluster.store();
    let bytes = cluster.bytes(3 * CHUNK_BYTES + 100);
    let upload = Upload::begin(&store, "slow", None);
    // The first chunk is sealed and reported long before the file is committed.
    assert!(upload.feed(&bytes[..CHUNK_BYTES + 70_000]).await);
    for piece in bytes[CHUNK_BYTES + 70_000..].chunks(70_000) {
        tokio::time::sleep(LEASE / 4).await;
        assert!(upload.feed(piece).await);
    }
    let reply = upload.finish().await.unwrap();
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    model.note("slow", bytes.into());
    // Nothing of it was condemned meanwhile, and nothing is now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let chunks = chunks_of(&store, "slow").await;
    assert!(
        chunks
            .iter()
            .all(|chunk| holders(&cluster, chunk).len() == 3)
    );
    model.settle(&cluster).await;
}

/// A commit may overtake the renewal that still names its chunks.
#[tokio::test(flavor = "multi_thread")]
async fn i29_what_a_file_names_does_not_count_as_being_written_whatever_a_late_renewal_says() {
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            // Longer than anybody waits for the answer.
            config.lease = 10 * DEADLINE;
        },
        ..options(3)
    })
    .await;
    let mut model = Model::default();
    model.put(&mut cluster, "done", 100).await;
    let store = cluster.store();
    let chunks = chunks_of(&store, "done").await;
    let http = HttpClient::new(cluster.links.connector("test"));
    let tracker = HttpTracker::new(http, cluster.tracker.address.to_string());
    let renewal = RenewRequest {
        lease: LeaseId::from_u128(7),
        chunks: chunks.iter().map(|chunk| chunk.id).collect(),
        abandoned: Vec::new(),
    };
    let renewed = tracker.renew(renewal).await.unwrap();
    assert!(renewed.condemned.is_empty());
    let id = id_of(&cluster, 0).await;
    wait_ok_to_stop(&store, &[id]).await;
    model.settle(&cluster).await;
}

/// A gateway that was cut off for so long that its chunks were collected, and their tombstones forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn i10_a_commit_of_chunks_that_no_datanode_has_is_not_believed() {
    let mut cluster = Cluster::start(no_trash(3)).await;
    let store = cluster.store();
    let http = HttpClient::new(cluster.links.connector("test"));
    let tracker = HttpTracker::new(http, cluster.tracker.address.to_string());
    let lease = LeaseId::from_u128(7);
    let room = AllocateRequest {
        lease,
        chunks: 1,
        bytes_each: 100,
        factor: None,
        avoid: Vec::new(),
        prefer: Vec::new(),
    };
    let placed = tracker.allocate(room).await.unwrap().placements.remove(0);
    let (chunk, replicas) = (
        placed.chunk,
        placed.targets.iter().map(|at| at.id).collect(),
    );
    cluster.restart_tracker().await;
    cluster.store().wait_ready(3, SOON).await;
    let sealed = SealedChunk {
        id: chunk,
        version: ChunkVersion::FIRST,
        length: 100,
        crc32c: 0,
    };
    let commit = CommitRequest {
        upload: UploadId::from_u128(8),
        lease,
        file: FileId::from_u128(9),
        path: FilePath::parse("late").unwrap(),
        precondition: Precondition::None,
        content_type: "text/plain".to_owned(),
        content_encoding: None,
        metadata: BTreeMap::new(),
        size: 100,
        crc64nvme: 0,
        md5: None,
        factor: None,
        chunks: vec![WrittenChunk {
            chunk: sealed,
            replicas,
        }],
    };
    // The lease is learned anew; what it is for is not believed.
    let renewal = RenewRequest {
        lease,
        chunks: vec![chunk],
        abandoned: Vec::new(),
    };
    tracker.renew(renewal).await.unwrap();
    for _ in 0..3 {
        dfs_e2e::wait::eventually("the commit is refused", DEADLINE, || async {
            let refused = tracker.commit(commit.clone()).await.unwrap_err();
            let unseen = refused.is(ErrorCode::Unavailable);
            // A machine that stalls may look like a partition for a moment.
            assert!(
                unseen || refused.is(ErrorCode::TooFewDatanodes),
                "{refused}"
            );
            unseen.then_some(()).ok_or_else(|| refused.to_string())
        })
        .await;
    }
    let there = store.try_get("late").await.unwrap();
    assert_eq!(there.status, StatusCode::NOT_FOUND);
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_shared_chunks_stay_until_the_last_name_is_gone() {
    let mut cluster = Cluster::start(with_files(no_trash(3))).await;
    let mut model = Model::default();
    model.put(&mut cluster, "source", 2 * CHUNK_BYTES + 1).await;
    let store = cluster.store();
    let chunks = chunks_of(&store, "source").await;
    let used = records_on(&cluster, 0, "chunks");
    assert_eq!(
        copy(&store, "source", "copy").await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        copy(&store, "source", "copy2").await.status,
        StatusCode::CREATED
    );
    model.note("copy", model.bytes("source"));
    model.note("copy2", model.bytes("source"));
    assert_eq!(chunks_of(&store, "copy").await, chunks, "chunks are shared");
    assert!(
        records_on(&cluster, 0, "chunks") <= used + 4,
        "no bytes were copied"
    );
    model.settle(&cluster).await;
    model.delete(&store, "source").await;
    model.put(&mut cluster, "copy2", 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    model.settle(&cluster).await;
    cluster.restart_tracker().await;
    model.settle(&cluster).await;
    model.delete(&store, "copy").await;
    wait_gone(&cluster, &chunks, DEADLINE).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_a_dead_upload_and_a_replaced_version_are_reclaimed_in_seconds() {
    let mut cluster = Cluster::start(with_files(no_trash(3))).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", 2 * CHUNK_BYTES).await;
    let store = cluster.store();
    let old = chunks_of(&store, "f").await;
    model.put(&mut cluster, "f", CHUNK_BYTES).await;
    let before: usize = (0..3).map(|n| records_on(&cluster, n, "chunks")).sum();
    let bytes = cluster.bytes(3 * CHUNK_BYTES);
    let upload = Upload::begin(&store, "dead", Some(4 * CHUNK_BYTES));
    assert!(upload.feed(&bytes).await);
    dfs_e2e::wait::eventually("chunks of the upload are sealed", SOON, || async {
        let now: usize = (0..3).map(|n| records_on(&cluster, n, "chunks")).sum();
        if now > before + 3 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await;
    upload.cut().await;
    let within = DEADLINE;
    wait_gone(&cluster, &old, within).await;
    let kept = chunks_of(&store, "f").await.len();
    dfs_e2e::wait::eventually("only what is named is left", within, || async {
        let status = store.status().await?;
        let checkpoints = status.journal.checkpoint.as_ref().map_or(0, |_| 2);
        let most = kept + checkpoints + 1;
        let now: Vec<usize> = (0..3).map(|n| records_on(&cluster, n, "chunks")).collect();
        if now.iter().all(|count| *count <= most) {
            Ok(())
        } else {
            Err(format!("{now:?}: {status:?}"))
        }
    })
    .await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trash_lists_restores_and_keeps_replaced_versions() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    let first = model.put(&mut cluster, "f", CHUNK_BYTES + 1).await;
    let old = model.bytes("f");
    model.put(&mut cluster, "f", 10).await;
    let store = cluster.store();
    let entries = trash(&store).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].reason, TrashReason::Replaced);
    assert_eq!(
        entries[0].file.version.to_string(),
        first.etag.trim_matches('"')
    );
    // Its path is taken: back only under another name, as a new version.
    let uri = format!("/trash/{}/restore", entries[0].id);
    assert_eq!(post(&store, &uri).await.status, StatusCode::CONFLICT);
    let back = post(&store, &format!("{uri}?to=g")).await.ok();
    model.note("g", old);
    let etag = store.try_get("g").await.unwrap().header("etag").to_owned();
    assert!(!etag.contains(&first.etag), "{etag} {}", back.text());
    assert!(trash(&store).await.is_empty());
    assert_eq!(post(&store, &uri).await.status, StatusCode::NOT_FOUND);
    model.delete(&store, "g").await;
    let entries = trash(&store).await;
    assert_eq!(entries[0].reason, TrashReason::Deleted);
    cluster.restart_tracker().await;
    let uri = format!("/trash/{}/restore", entries[0].id);
    let bytes = old_bytes(&store, &uri).await;
    model.note("g", bytes);
    model.settle(&cluster).await;
}

async fn old_bytes(store: &dfs_e2e::store::Store, restore: &str) -> bytes::Bytes {
    let reply = store
        .door
        .send(Method::POST, restore, &[], dfs_client::http::empty());
    let _back = reply.await.unwrap().ok();
    let bytes = store.get("g").await;
    assert_eq!(bytes.len(), CHUNK_BYTES + 1);
    bytes
}

/// Two seconds of trash, and clocks that tests move.
fn short_trash() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_millis(500);
            config.trash_retention = Duration::from_secs(4);
            config.orphan_age = Duration::from_secs(1);
        },
        ..options(3)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i30_fault_27_jumping_clocks_neither_empty_the_trash_early_nor_keep_it() {
    let mut cluster = Cluster::start(with_files(short_trash())).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", CHUNK_BYTES).await;
    model.put(&mut cluster, "g", CHUNK_BYTES).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    let chunks = chunks_of(&store, "f").await;
    let start = std::time::Instant::now();
    model.delete(&store, "f").await;
    for offset in [3600, -3600, 7200, -100_000, 100_000, 3600] {
        cluster.tracker.clock.set_offset(offset);
        for (number, role) in cluster.datanodes.iter().enumerate() {
            role.clock
                .set_offset(-offset * i64::try_from(number).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let entries = trash(&store).await;
        let kept = entries.iter().filter(|e| e.file.path.to_string() == "f");
        let kept = kept.count();
        let mut held = chunks.iter().map(|chunk| holders(&cluster, chunk).len());
        let all_held = held.all(|holders| holders == 3);
        // Only now: what was seen was seen before.
        if start.elapsed() < Duration::from_secs(3) {
            assert_eq!(kept, 1, "purged early at {offset}");
            assert!(all_held, "collected early at {offset}");
        }
        let live = format!("nobody is missed at {offset}");
        store
            .wait_status(&live, DEADLINE, |status| status.datanodes.live == 3)
            .await;
        model.put(&mut cluster, "g", 1000).await;
    }
    // The two replaced `g` and what was deleted go in their own time.
    wait_gone(&cluster, &chunks, DEADLINE).await;
    // A start with the clock an hour ahead trusts no stamp: what is in the trash waits.
    model.delete(&store, "g").await;
    model.put(&mut cluster, "h", 10).await;
    cluster.tracker.clock.set_offset(3600 * 5);
    // Longer than the restart of a busy machine may take, shorter than the clock jumps.
    cluster.configure_tracker(|config| {
        (short_trash().tracker)(config);
        config.trash_retention = Duration::from_hours(1);
    });
    cluster.restart_tracker().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let paths: Vec<String> = trash(&store)
        .await
        .iter()
        .map(|e| e.file.path.to_string())
        .collect();
    assert!(paths.contains(&"g".to_owned()), "{paths:?}");
    model.settle(&cluster).await;
}
