//! The tracker's directory is gone: the catalog comes back from the datanodes (Show 7 of issue 3).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options, Role, SOON};
use dfs_e2e::net::LinkFault;
use dfs_e2e::wait::eventually;
use dfs_protocol::ChunkId;
use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::status::ChunkHealth;
use dfs_tracker::store::rebuild::RebuildOptions;

use crate::kit::{CHUNK, CHUNK_BYTES, DEADLINE, Upload, flip, options, with_files};
use crate::world::{Seen, copy, look, post, purge, put_with, rename, trash};

fn with_checkpoints() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_millis(400);
            config.orphan_age = Duration::from_mins(10);
            // What an upload over a hop that only looked lost leaves behind would be found.
            config.heartbeat_interval = CALM_HEARTS;
        },
        ..options(5)
    }
}

fn one_checkpoint() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_hours(1);
            config.orphan_age = Duration::from_mins(10);
            // What an upload over a hop that only looked lost leaves behind would be found.
            config.heartbeat_interval = CALM_HEARTS;
        },
        ..options(5)
    }
}

/// All that can happen to files; what is live at the end.
async fn history(cluster: &mut Cluster) -> BTreeMap<String, Seen> {
    let store = cluster.store();
    let colored = [("content-type", "image/png"), ("x-dfs-meta-color", "blue")];
    for number in 0..6usize {
        let bytes = cluster.bytes(number * 90_000);
        let reply = put_with(&store, &format!("d/f{number}"), &colored, bytes).await;
        let _ = reply.ok();
    }
    store.put("empty", Vec::new()).await;
    store.put("replaced", cluster.bytes(CHUNK_BYTES + 1)).await;
    store.put("replaced", cluster.bytes(10)).await;
    store.put("deleted", cluster.bytes(CHUNK_BYTES)).await;
    let _ = store.delete("deleted").await;
    let _ = copy(&store, "d/f1", "copy-of-f1").await.ok();
    let _ = rename(&store, "d/f2", "moved/f2").await.ok();
    let _ = rename(&store, "d/", "e/").await.ok();
    store.put("restored", cluster.bytes(5000)).await;
    let _ = store.delete("restored").await;
    store.put("purged", cluster.bytes(CHUNK_BYTES)).await;
    let _ = store.delete("purged").await;
    for entry in trash(&store).await {
        match entry.file.path.to_string().as_str() {
            "restored" => {
                let _ = post(&store, &format!("/trash/{}/restore", entry.id))
                    .await
                    .ok();
            }
            "purged" => purge(&store, &entry).await,
            _ => {}
        }
    }
    store.put("last", cluster.bytes(2 * CHUNK_BYTES)).await;
    let all = look(&store).await;
    let paths: Vec<&str> = all.keys().map(String::as_str).collect();
    let wanted = [
        "copy-of-f1",
        "e/f0",
        "e/f1",
        "e/f3",
        "e/f4",
        "e/f5",
        "empty",
        "last",
        "moved/f2",
        "replaced",
        "restored",
    ];
    assert_eq!(paths, wanted);
    assert_eq!(all["e/f3"].color, "blue");
    assert_eq!(all["copy-of-f1"].content_type, "image/png");
    all
}

/// Rebuilds, starts, and compares; files under `lost+found/` must be as many as said.
async fn rebuild_and_compare(
    cluster: &mut Cluster,
    from: &[usize],
    before: &BTreeMap<String, Seen>,
    found: u64,
) {
    cluster.wipe_tracker().await;
    let rebuilt = cluster
        .rebuild_tracker(from, RebuildOptions::default())
        .await
        .unwrap();
    assert_eq!(rebuilt.files, before.len() as u64, "{rebuilt:?}");
    assert_eq!(rebuilt.found, found, "{rebuilt:?}");
    cluster.start_tracker().await;
    let store = cluster.store();
    store.wait_ready(from.len() as u64, SOON).await;
    let mut after = look(&store).await;
    after.retain(|path, _| !path.starts_with("lost+found/"));
    assert_eq!(&after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_7_everything_acknowledged_is_back_and_nothing_gone_is_live_again() {
    for options in [with_checkpoints(), one_checkpoint()] {
        let mut cluster = Cluster::start(options).await;
        let before = history(&mut cluster).await;
        let trashed = trash(&cluster.store()).await;
        rebuild_and_compare(&mut cluster, &[0, 1, 2, 3, 4], &before, 0).await;
        let store = cluster.store();
        assert_eq!(trash(&store).await, trashed, "the trash is back as well");
        store.wait_fsck_clean(DEADLINE).await;
        // It goes on: more changes, and the same once more.
        store.put("more", cluster.bytes(CHUNK_BYTES)).await;
        let _ = store.delete("last").await;
        let before = look(&store).await;
        rebuild_and_compare(&mut cluster, &[4, 3, 2, 1, 0], &before, 0).await;
        let store = cluster.store();
        store.wait_fsck_clean(DEADLINE).await;
        cluster.restart_tracker().await;
        assert_eq!(look(&store).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_7_chunks_that_nothing_explains_are_found_and_never_live() {
    let mut cluster = Cluster::start(with_files(one_checkpoint())).await;
    let before = history(&mut cluster).await;
    // An upload that was never committed: two of its chunks are sealed on the datanodes.
    let store = cluster.store();
    let sealed = |cluster: &Cluster| -> usize {
        let counts = (0..5).map(|n| crate::world::records_on(cluster, n, "chunks"));
        counts.sum()
    };
    let before_it = sealed(&cluster);
    let bytes = cluster.bytes(3 * CHUNK_BYTES);
    let upload = Upload::begin(&store, "never-acked", Some(4 * CHUNK_BYTES));
    assert!(upload.feed(&bytes).await);
    eventually("two chunks are sealed", SOON, || async {
        let now = sealed(&cluster);
        let enough = now >= before_it + 6;
        enough
            .then_some(())
            .ok_or_else(|| format!("{before_it} {now}"))
    })
    .await;
    // With the tracker dead nobody gives the chunks up.
    cluster.kill_tracker().await;
    upload.cut().await;
    cluster.wipe_tracker().await;
    let rebuilt = cluster
        .rebuild_tracker(&[0, 1, 2, 3, 4], RebuildOptions::default())
        .await
        .unwrap();
    assert_eq!(rebuilt.files, before.len() as u64);
    assert_eq!(rebuilt.found, 1, "{rebuilt:?}");
    cluster.start_tracker().await;
    let store = cluster.store();
    store.wait_ready(5, SOON).await;
    let after = look(&store).await;
    let found: Vec<&String> = after
        .keys()
        .filter(|p| p.starts_with("lost+found/"))
        .collect();
    assert_eq!(found.len(), 1, "{after:?}");
    assert!(found[0].ends_with("/never-acked"), "{found:?}");
    let got = store.get(&found[0].replace('+', "%2B")).await;
    assert!(got == bytes[..got.len()] && got.len() >= CHUNK_BYTES);
    assert_eq!(store.content("never-acked").await.unwrap(), None);
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn show_7_any_two_of_five_datanodes_may_be_missing() {
    let mut cluster = Cluster::start(with_files(with_checkpoints())).await;
    let before = history(&mut cluster).await;
    cluster.store().wait_healthy(DEADLINE).await;
    for missing in [[0, 1], [2, 4], [1, 3]] {
        cluster.kill_datanode(missing[0]).await;
        cluster.kill_datanode(missing[1]).await;
        let rest: Vec<usize> = (0..5).filter(|n| !missing.contains(n)).collect();
        cluster.wipe_tracker().await;
        let rebuilt = cluster
            .rebuild_tracker(&rest, RebuildOptions::default())
            .await
            .unwrap();
        assert_eq!((rebuilt.files, rebuilt.found), (before.len() as u64, 0));
        cluster.start_tracker().await;
        cluster.start_datanode(missing[0]).await;
        cluster.start_datanode(missing[1]).await;
        cluster.store().wait_ready(5, SOON).await;
        assert_eq!(look(&cluster.store()).await, before, "without {missing:?}");
    }
    cluster.store().wait_fsck_clean(DEADLINE).await;
}

type Checkpoints = BTreeMap<ChunkId, (SystemTime, Vec<PathBuf>)>;

/// The chunks of checkpoints on the volumes: when they were written, and their records.
async fn checkpoints(cluster: &Cluster) -> Checkpoints {
    let mut found = Checkpoints::new();
    for number in 0..cluster.datanodes.len() {
        let to = crate::world::at(cluster, number).await;
        let bytes = crate::world::datanodes(cluster)
            .inventory(&to, ChunkKind::Checkpoint)
            .await
            .unwrap();
        let entries: Vec<dfs_client::datanode::InventoryEntry> =
            postcard::from_bytes(&bytes).unwrap();
        for (replica, _) in entries {
            let path = crate::kit::record(cluster, number, &replica.chunk);
            // Collected since it was listed.
            let Ok(data) = std::fs::metadata(&path) else {
                continue;
            };
            let written = data.modified().unwrap();
            let of_chunk = found.entry(replica.chunk.id);
            let (_, paths) = of_chunk.or_insert((written, Vec::new()));
            paths.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn show_7_a_damaged_newest_checkpoint_is_passed_over() {
    let mut cluster = Cluster::start(with_files(with_checkpoints())).await;
    let before = history(&mut cluster).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    // Until all that was done is in a checkpoint, and an older one is kept beside it.
    let newest = eventually("two checkpoints are kept", DEADLINE, || async {
        let journal = store.status().await?.journal;
        let kept = checkpoints(&cluster).await;
        // Its own record is always behind it.
        let whole = journal.checkpoint.map(|newest| newest + 1) >= Some(journal.sequence);
        let copied = kept.values().all(|(_, paths)| paths.len() >= 2);
        (whole && copied && kept.len() >= 2)
            .then_some(kept.clone())
            .ok_or(format!("{journal:?}: {kept:?}"))
    })
    .await;
    cluster.kill_tracker().await;
    let last = newest.values().max_by_key(|(written, _)| *written).unwrap();
    for path in &last.1 {
        flip(path, 300);
    }
    rebuild_and_compare(&mut cluster, &[0, 1, 2, 3, 4], &before, 0).await;
    cluster.store().wait_fsck_clean(DEADLINE).await;
}

/// A tracker that looks at its datanodes seldom, and takes no checkpoint before it looks.
fn slow_look() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.tick = Duration::from_secs(2);
            config.checkpoint_interval = Duration::from_hours(1);
        },
        ..options(3)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i02_the_very_first_write_of_a_cluster_is_on_the_journals_when_it_is_answered() {
    for _ in 0..3 {
        let mut cluster = Cluster::launch(slow_look()).await;
        let store = cluster.store();
        let bytes = cluster.bytes(1000);
        eventually("a write is taken", DEADLINE, || async {
            let reply = store.try_put("first", bytes.clone()).await.unwrap();
            let taken = reply.status == 201;
            taken.then_some(()).ok_or_else(|| reply.text())
        })
        .await;
        cluster.wipe_tracker().await;
        let rebuilt = cluster
            .rebuild_tracker(&[0, 1, 2], RebuildOptions::default())
            .await;
        assert_eq!(rebuilt.unwrap().files, 1);
        cluster.start_tracker().await;
        store.wait_ready(3, DEADLINE).await;
        assert!(store.get("first").await == bytes);
        store.wait_fsck_clean(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_checkpoint_never_counts_as_missing() {
    let cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.heartbeat_interval = Duration::from_secs(2);
            config.checkpoint_interval = Duration::from_millis(100);
        },
        ..options(3)
    })
    .await;
    let store = cluster.store();
    // Those of the start may have found two datanodes only, and lack a replica indeed.
    store.wait_ready(3, DEADLINE).await;
    store.put("ready", vec![1; 100]).await;
    let begun = store.status().await.unwrap().journal.sequence;
    store
        .wait_status("a checkpoint on all", DEADLINE, |status| {
            let newest = status.journal.checkpoint;
            // Its own record is always behind it.
            status.healthy && newest.map(|newest| newest + 1) >= Some(begun)
        })
        .await;
    let first = store.status().await.unwrap().journal.checkpoint;
    store.put("some", vec![1; 100]).await;
    let is_newer = |newest: Option<u64>| newest > first && newest.is_some();
    eventually("a checkpoint is taken", DEADLINE, || async {
        let status = store.status().await?;
        let weak = status
            .chunks
            .iter()
            .filter(|(health, _)| **health != ChunkHealth::Healthy);
        assert_eq!(weak.map(|(_, count)| count).sum::<u64>(), 0, "{status:#?}");
        if is_newer(status.journal.checkpoint) {
            Ok(())
        } else {
            Err("none yet".to_owned())
        }
    })
    .await;
}

/// The first journal segment of a datanode.
fn segment(cluster: &Cluster, number: usize) -> std::path::PathBuf {
    let journal = cluster.datanodes[number].dir.join("journal");
    let entries = std::fs::read_dir(journal).unwrap();
    entries.map(|entry| entry.unwrap().path()).min().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_fault_18_journals_that_rot_in_different_places_stop_neither_a_rebuild_nor_writes() {
    let mut cluster = Cluster::start(Options {
        datanodes: 3,
        ..one_checkpoint()
    })
    .await;
    let store = cluster.store();
    for number in 0..30 {
        store.put(&format!("f{number}"), vec![number; 700]).await;
    }
    let before = look(&store).await;
    cluster.wipe_tracker().await;
    for number in 0..3u64 {
        let index = usize::try_from(number).unwrap();
        cluster.kill_datanode(index).await;
        let path = segment(&cluster, index);
        let length = std::fs::metadata(&path).unwrap().len();
        flip(&path, length * (number + 2) / 6);
        cluster.start_datanode(index).await;
    }
    dfs_e2e::wait::eventually("each sees its damage", DEADLINE, || async {
        let damaged = |role: &Role| role.metric("dfs_datanode_journal_damaged_segments");
        let seen: Vec<f64> = cluster.datanodes.iter().map(damaged).collect();
        let all = seen.iter().all(|count| *count > 0.5);
        all.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    let rebuilt = cluster
        .rebuild_tracker(&[0, 1, 2], RebuildOptions::default())
        .await
        .unwrap();
    assert_eq!(rebuilt.files, before.len() as u64, "{rebuilt:?}");
    cluster.start_tracker().await;
    store.wait_ready(3, DEADLINE).await;
    assert_eq!(look(&store).await, before);
    // Three datanodes, three replicas: every damaged journal has to take records again.
    store.put("after", cluster.bytes(10)).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_fault_18_a_datanode_whose_journal_rots_while_it_runs_is_sent_what_it_lost() {
    let mut cluster = Cluster::start(Options {
        datanodes: 3,
        ..one_checkpoint()
    })
    .await;
    let store = cluster.store();
    for number in 0..10 {
        store.put(&format!("f{number}"), vec![number; 700]).await;
    }
    let cut = LinkFault::cut();
    let cut = cluster.links.inject("tracker", "datanode-1", cut);
    let left_out = async || {
        let nodes = store.nodes().await?;
        Ok::<_, String>(nodes.iter().any(|node| node.unreachable))
    };
    for number in 0..400 {
        store.put(&format!("g{number}"), vec![1; 10]).await;
        if left_out().await.unwrap() {
            break;
        }
    }
    assert!(left_out().await.unwrap());
    // Its last record is the one that is compared with the catalog's.
    let path = segment(&cluster, 1);
    flip(&path, std::fs::metadata(&path).unwrap().len() - 1);
    cluster.links.remove(cut);
    eventually("it takes records again", DEADLINE, async || {
        let out = left_out().await?;
        (!out).then_some(()).ok_or("left out".into())
    })
    .await;
    store.wait_healthy(DEADLINE).await;
    let before = look(&store).await;
    // Its journal alone tells all.
    cluster.wipe_tracker().await;
    let rebuilt = cluster.rebuild_tracker(&[1], RebuildOptions::default());
    assert_eq!(rebuilt.await.unwrap().files, before.len() as u64);
    cluster.start_tracker().await;
    store.wait_ready(3, DEADLINE).await;
    assert_eq!(look(&store).await, before);
    store.wait_fsck_clean(DEADLINE).await;
}
