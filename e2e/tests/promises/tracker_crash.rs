//! The tracker's volume: crashes at every step (I12, faults 16 and 19), rot (I13, fault 18), a full
//! disk (bad input 44).

use std::time::Duration;

use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::ledger::sha256_hex;
use dfs_e2e::store::{patiently, says_later};
use dfs_e2e::wait::eventually;
use dfs_tracker::store::rebuild::RebuildOptions;
use http::StatusCode;

use crate::kit::{CHUNK, DEADLINE, Model, flip, options};
use crate::world::{Change, Files, look, trash};

/// Everything that the tracker writes by itself happens all the time.
fn busy() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_millis(300);
            config.orphan_age = Duration::from_millis(500);
            // Longer than a busy machine stalls: an upload under way keeps its chunks.
            config.lease = Duration::from_secs(10);
            config.trash_retention = Duration::from_secs(5);
        },
        gateway: |config| config.commit_deadline = Duration::from_millis(500),
        ..options(3)
    }
}

async fn matches(cluster: &Cluster, files: &Files) -> Result<(), String> {
    let found = look(&cluster.store()).await;
    let found: Vec<(String, String)> = found.into_iter().map(|(p, s)| (p, s.sha256)).collect();
    let wanted: Vec<(String, String)> = files
        .iter()
        .map(|(path, bytes)| (path.clone(), sha256_hex(bytes)))
        .collect();
    if found == wanted {
        return Ok(());
    }
    Err(format!("found {found:?}, wanted {wanted:?}"))
}

/// Changes until one is not acknowledged; what the store may be then.
async fn change_until_stopped(
    cluster: &mut Cluster,
    files: &mut Files,
    most: usize,
) -> Option<Files> {
    let store = cluster.store();
    for _ in 0..most {
        let change = loop {
            let change = Change::random(&mut cluster.rng);
            // What a restore brings back is not in this model: it is tried by the rebuild's tests.
            if !matches!(change, Change::Restore(_)) {
                break change;
            }
        };
        let next = change.apply(files, &[]);
        let status = change.ask(&store).await;
        match (status, next) {
            (Ok(status), Some(next)) if status.is_success() => *files = next,
            (Ok(status), None) if status.is_client_error() => {}
            (Ok(StatusCode::NOT_FOUND), _) if matches!(change, Change::PurgeAny) => {}
            (Ok(status), None) if status.is_success() => {
                panic!("{change:?} was acknowledged: {status}")
            }
            (Ok(status), Some(_)) if status.is_client_error() => {
                panic!("{change:?} was refused: {status}")
            }
            // Not acknowledged: done or not done.
            (_, next) => return Some(next.unwrap_or_else(|| files.clone())),
        }
        if cluster.tracker.faults.has_stopped() {
            return Some(files.clone());
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_fault_16_fault_19_a_tracker_that_dies_at_any_write_keeps_every_acknowledged_change() {
    let mut cluster = Cluster::start(busy()).await;
    let mut files = Files::new();
    let (mut stopped, mut visible) = (0, 0);
    for round in 0..24u64 {
        let nth = 1 + round * 3 + cluster.rng.u64(..3);
        cluster.tracker.faults.stop_at_nth_mutation(nth);
        let open = change_until_stopped(&mut cluster, &mut files, 30).await;
        stopped += usize::from(open.is_some());
        cluster.power_cut_tracker(round % 2 == 1).await;
        cluster.tracker.faults.heal();
        cluster.start_tracker().await;
        cluster.store().wait_ready(3, SOON).await;
        if let Err(why) = matches(&cluster, &files).await {
            let open = open.unwrap_or_else(|| panic!("round {round}, write {nth}: {why}"));
            let other = matches(&cluster, &open).await;
            other.unwrap_or_else(|other| panic!("round {round}, write {nth}: {why}; {other}"));
            files = open;
            visible += 1;
        }
    }
    assert!(
        stopped > 12,
        "only {stopped} crashes hit a change; {visible} were visible"
    );
    cluster.store().wait_fsck_clean(DEADLINE).await;
    matches(&cluster, &files).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_16_a_tracker_that_dies_while_it_starts_starts_again() {
    let mut cluster = Cluster::start(busy()).await;
    let mut files = Files::new();
    // A machine that stalls may leave a change unacknowledged: then it is done or not.
    while let Some(open) = change_until_stopped(&mut cluster, &mut files, 20).await {
        if matches(&cluster, &files).await.is_err() {
            matches(&cluster, &open).await.unwrap();
            files = open;
        }
    }
    for nth in [1, 2, 3, 5, 8, 12, 17, 23] {
        cluster.power_cut_tracker(false).await;
        cluster.tracker.faults.stop_at_nth_mutation(nth);
        cluster.start_tracker().await;
        let stopped = eventually("the start is cut short", DEADLINE, || async {
            let stopped = cluster.tracker.faults.has_stopped();
            if stopped {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        });
        stopped.await;
        cluster.power_cut_tracker(true).await;
        cluster.tracker.faults.heal();
        cluster.start_tracker().await;
        cluster.store().wait_ready(3, SOON).await;
        matches(&cluster, &files).await.unwrap();
    }
    cluster.store().wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_fault_18_a_tracker_with_a_rotten_catalog_refuses_and_names_the_rebuild() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    for number in 0..40 {
        model.put(&mut cluster, &format!("f{number}"), 100).await;
    }
    let good = cluster.copy_tracker("good");
    let mut refused = 0;
    for round in 0..12u64 {
        cluster.restore_tracker(&good).await;
        let catalog = cluster.tracker.dir.join("catalog.redb");
        let length = std::fs::metadata(&catalog).unwrap().len();
        // The first page holds the engine's own header; the others trees and free space.
        let at = if round == 0 {
            20
        } else {
            cluster.rng.u64(..length)
        };
        for offset in 0..64.min(length - at) {
            flip(&catalog, at + offset);
        }
        cluster.start_tracker().await;
        let store = cluster.store();
        let ended = eventually("it serves or it refuses", DEADLINE, || async {
            if let Some(reason) = cluster.tracker.ended() {
                return Ok(Some(reason));
            }
            let status = store.status().await?;
            // A backup of its own moment: nothing is newer than it but what starts wrote.
            if status.datanodes.live == 3 {
                Ok(None)
            } else {
                Err(status.summary)
            }
        })
        .await;
        if let Some(reason) = ended {
            assert!(reason.contains("dfs tracker rebuild"), "{reason}");
            refused += 1;
            continue;
        }
        // Rot where nothing lies: nothing may be missing, once the datanodes have reported.
        store.wait_fsck_clean(DEADLINE).await;
        let found = look(&store).await;
        assert_eq!(found.len(), 40, "rot at {at} was skipped over");
        for path in model.paths() {
            assert_eq!(found[&path].sha256, sha256_hex(&model.bytes(&path)));
        }
    }
    assert!(refused > 0, "no rot was seen");
    cluster.wipe_tracker().await;
    let rebuilt = cluster
        .rebuild_tracker(&[0, 1, 2], RebuildOptions::default())
        .await
        .unwrap();
    assert_eq!((rebuilt.files, rebuilt.found), (40, 0));
    cluster.start_tracker().await;
    cluster.store().wait_ready(3, SOON).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_44_fault_14_a_tracker_with_a_full_disk_answers_507_and_still_deletes() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    for number in 0..5 {
        model.put(&mut cluster, &format!("f{number}"), 1000).await;
    }
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    // Less than the reserve is left.
    let dir = cluster.tracker.dir.clone();
    let used: u64 = crate::kit::files_below(&dir)
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    cluster
        .tracker
        .disk()
        .limit_room(&dir, used + 300_000)
        .unwrap();
    let refused = patiently("more", || store.try_put("more", vec![1; 10])).await;
    assert_eq!(
        refused.status,
        StatusCode::INSUFFICIENT_STORAGE,
        "{}",
        refused.text()
    );
    assert!(store.get("f0").await == model.bytes("f0"));
    model.delete(&store, "f0").await;
    cluster.tracker.faults.heal();
    model.put(&mut cluster, "more", 10).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_44_without_tracker_or_quorum_the_answer_is_503_with_a_time_to_come_again() {
    let mut cluster = Cluster::start(options(3)).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", 1000).await;
    cluster.store().wait_healthy(DEADLINE).await;
    let gateway = crate::consistency::Gateway::start(&cluster, "gateway").await;
    let through = gateway.store();
    assert!(through.get("f").await == model.bytes("f"));
    cluster.kill_tracker().await;
    let reply = through.try_get("f").await.unwrap();
    assert!(says_later(&reply), "{}: {}", reply.status, reply.text());
    let reply = through.door.delete("/files/f").await.unwrap();
    assert!(says_later(&reply), "{}: {}", reply.status, reply.text());
    cluster.start_tracker().await;
    cluster.store().wait_ready(3, SOON).await;
    cluster.kill_datanode(0).await;
    cluster.kill_datanode(1).await;
    let store = cluster.store();
    store
        .wait_status("writes are refused", DEADLINE, |status| {
            status.writes_refused.is_some() && status.datanodes.dead == 2
        })
        .await;
    for reply in [
        through.try_put("g", vec![1; 10]).await.unwrap(),
        through.door.delete("/files/f").await.unwrap(),
        store.try_put("g", vec![1; 10]).await.unwrap(),
        crate::world::rename(&store, "f", "g").await,
    ] {
        assert!(says_later(&reply), "{}: {}", reply.status, reply.text());
    }
    assert!(through.get("f").await == model.bytes("f"));
    cluster.start_datanode(0).await;
    cluster.start_datanode(1).await;
    store.wait_ready(3, SOON).await;
    assert!(trash(&store).await.is_empty());
    model.settle(&cluster).await;
}
