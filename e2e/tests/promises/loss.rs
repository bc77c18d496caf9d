//! Datanodes lost for ever (I23, faults 3 to 5), and downloads that lose their source (I5).

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use dfs_e2e::cluster::{Cluster, Options};
use dfs_protocol::status::{ChunkHealth, ClusterStatus, FsckFinding, FsckProblem, RepairPriority};
use http::{Method, StatusCode};
use http_body_util::BodyExt;

use crate::kit::{
    CHUNK, CHUNK_BYTES, DEADLINE, Model, chunks_of, holders, options, start_heard, wait_valid,
    with_files,
};

/// One copy at a time, so slow that the queue can be watched.
fn slow_repair() -> Options {
    Options {
        datanodes: 5,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_secs(1);
            config.repair_delay = Duration::from_secs(4);
            config.repairs_total = 1;
            config.repair_small_copy = 0;
            config.repair_rate = 2 * 1024 * 1024;
        },
        ..Options::default()
    }
}

/// Looks at the repair until it is done; what was seen on the way, in order.
async fn watch_repair(cluster: &Cluster) -> Vec<ClusterStatus> {
    let store = cluster.store();
    let seen: Mutex<Vec<ClusterStatus>> = Mutex::default();
    dfs_e2e::wait::eventually("every chunk is full again", DEADLINE, || async {
        let status = store.status().await?;
        let healthy = status.chunks[&ChunkHealth::Healthy];
        let all: u64 = status.chunks.values().sum();
        let done = status.datanodes.dead == 2 && healthy == all;
        let summary = status.summary.clone();
        seen.lock().unwrap().push(status);
        done.then_some(()).ok_or(summary)
    })
    .await;
    seen.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i23_fault_03_fault_04_two_of_five_datanodes_lost_the_most_endangered_chunks_come_first() {
    let mut cluster = Cluster::start(with_files(slow_repair())).await;
    let store = cluster.store();
    let mut model = Model::default();
    for number in 0..24 {
        model
            .put(
                &mut cluster,
                &format!("f{number}"),
                CHUNK_BYTES / 2 + 5000 * number,
            )
            .await;
    }
    model.put(&mut cluster, "big", 4 * CHUNK_BYTES + 3).await;
    // Both are gone before a slow disk has forgotten either.
    for number in [0, 3] {
        cluster.kill_datanode(number).await;
    }
    for number in [0, 3] {
        cluster.wipe_datanode(number).await;
    }
    // Every file, at once.
    model.check(&store).await;
    let seen = watch_repair(&cluster).await;
    let queued = |status: &ClusterStatus, priority| status.repair.queued[&priority];
    let urgent = |status: &&ClusterStatus| queued(status, RepairPriority::LastReplica) > 1;
    assert!(
        seen.iter().any(|status| urgent(&status)),
        "no chunk had a last replica"
    );
    // Both are missed within a heartbeat's interval, one after the other: what was begun for the first goes on.
    let mut begun: Option<Vec<_>> = None;
    for status in seen.iter().filter(urgent) {
        let tasks = &status.repair.tasks;
        for task in tasks.iter().filter(|_| begun.is_some()) {
            let is_old = begun
                .iter()
                .flatten()
                .any(|old| *old == (task.chunk, task.target));
            let is_urgent = task.priority == RepairPriority::LastReplica;
            assert!(is_urgent || is_old, "{status:#?}");
        }
        begun = Some(tasks.iter().map(|task| (task.chunk, task.target)).collect());
    }
    let later = |status: &ClusterStatus| queued(status, RepairPriority::UnderReplicated) > 0;
    assert!(seen.iter().any(later), "no chunk lacked just one replica");
    let told = |status: &&ClusterStatus| status.repair.eta_seconds.is_some();
    assert!(seen.iter().any(|status| told(&status)), "no ETA was given");
    let copying = |status: &&ClusterStatus| status.repair.active > 0;
    for status in seen.iter().filter(copying) {
        assert!(status.repair.bytes_remaining > 0, "{status:#?}");
    }
    for path in model.paths() {
        wait_valid(&store, &path, 3).await;
    }
    model.settle(&cluster).await;
}

/// The datanodes of a one-chunk file.
async fn home_of(cluster: &Cluster, path: &str) -> BTreeSet<usize> {
    let chunk = chunks_of(&cluster.store(), path).await[0];
    holders(cluster, &chunk).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_05_a_file_without_any_datanode_left_is_unavailable_and_never_absent() {
    let mut cluster = Cluster::start(with_files(options(7))).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "here/lost", CHUNK_BYTES / 3).await;
    model.put(&mut cluster, "here/none", 0).await;
    for number in 0..12 {
        model.put(&mut cluster, &format!("f{number}"), 5000).await;
    }
    for forever in [false, true] {
        // Repair may have moved it since the last round.
        let gone = home_of(&cluster, "here/lost").await;
        assert_eq!(gone.len(), 3);
        for path in model.paths() {
            if path.starts_with('f') && home_of(&cluster, &path).await == gone {
                model.delete(&store, &path).await;
            }
        }
        for number in &gone {
            if forever {
                cluster.wipe_datanode(*number).await;
            } else {
                cluster.kill_datanode(*number).await;
            }
        }
        assert_unavailable(&cluster, &model).await;
        if forever {
            let _deleted = store.delete("here/lost").await;
        }
        for number in &gone {
            start_heard(&mut cluster, *number).await;
        }
        store.wait_ready(7, DEADLINE).await;
        if !forever {
            store.wait_healthy(DEADLINE).await;
            model.settle(&cluster).await;
        }
    }
    assert_eq!(
        store.try_get("here/lost").await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    for path in model.paths().iter().filter(|path| *path != "here/lost") {
        model.check_file(&store, path).await;
    }
}

async fn assert_unavailable(cluster: &Cluster, model: &Model) {
    let store = cluster.store();
    for _ in 0..3 {
        let refused = store.try_get("here/lost").await.unwrap();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        let text = refused.text();
        assert!(
            text.contains("data-unavailable") && text.contains("here/lost"),
            "{text}"
        );
        assert!(!refused.header("retry-after").is_empty());
    }
    assert_eq!(store.list("here/").await, ["here/lost", "here/none"]);
    // A checkpoint of the catalog may have lain there as well.
    store
        .wait_status("it is counted as missing", DEADLINE, |status| {
            status.chunks[&ChunkHealth::Missing] >= 1 && !status.healthy
        })
        .await;
    let chunk = chunks_of(&store, "here/lost").await[0].id;
    let (findings, _) = store.fsck().await.unwrap();
    let is_named = |finding: &FsckFinding| {
        finding.chunk == Some(chunk) && finding.problem == FsckProblem::Missing
    };
    assert!(findings.iter().any(is_named), "{findings:#?}");
    let gauge = "dfs_tracker_chunks{health=\"missing\"}";
    dfs_e2e::wait::eventually("the metric says so", DEADLINE, || async {
        let missing = cluster.tracker.metric(gauge);
        (missing > 0.5).then_some(()).ok_or(missing.to_string())
    })
    .await;
    for path in model.paths().iter().filter(|path| *path != "here/lost") {
        model.check_file(&store, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i05_a_download_that_loses_its_last_source_breaks_and_one_that_loses_some_does_not() {
    // More than the sockets and the doors can hold on the way.
    let options = Options {
        tracker: |config| config.chunk_size = 4 * 1024 * 1024,
        ..options(3)
    };
    let mut cluster = Cluster::start(options).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "f", 32 * 1024 * 1024).await;
    // Each of the three has it.
    store.wait_healthy(DEADLINE).await;
    let bytes = model.bytes("f");
    for losses in [2, 3] {
        let request = store
            .door
            .open(Method::GET, "/files/f", &[], dfs_client::http::empty());
        let response = request.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["content-length"],
            bytes.len().to_string()
        );
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        for number in 0..losses {
            cluster.kill_datanode(number).await;
        }
        let rest = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        if losses == 3 {
            assert!(rest.is_err(), "a clean end without a source");
        } else {
            let whole = Bytes::from([first, rest.unwrap()].concat());
            assert!(whole == bytes, "the last replica was not enough");
        }
        for number in 0..losses {
            cluster.start_datanode(number).await;
        }
        store.wait_ready(3, DEADLINE).await;
    }
    model.settle(&cluster).await;
}
