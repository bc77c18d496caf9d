//! Disks that give errors, lie about fsync, or are slow (I14, faults 12, 13, 15).

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use dfs_datanode::DatanodeConfig;
use dfs_datanode::write_stream::durable_within;
use dfs_e2e::cluster::{Cluster, Options};
use dfs_e2e::disk::{CallKind, Effect, Fault};
use dfs_e2e::wait::eventually;
use dfs_gateway::GatewayConfig;

use crate::kit::{
    CHUNK, CHUNK_BYTES, DEADLINE, Model, calm_options, start_heard, wait_valid, with_files,
};

#[tokio::test(flavor = "multi_thread")]
async fn fault_12_a_disk_that_cannot_read_costs_no_reader_anything_and_is_replaced() {
    let mut cluster = Cluster::start(with_files(calm_options(4))).await;
    let store = cluster.store();
    let mut model = Model::default();
    for number in 0..4 {
        model
            .put(&mut cluster, &format!("f{number}"), 3 * CHUNK_BYTES)
            .await;
    }
    let faults = cluster.datanodes[1].faults.clone();
    let fault = faults.inject(Fault::eio(CallKind::Read).path("chunks"));
    eventually("the errors are met", DEADLINE, || async {
        model.check(&store).await;
        let told = cluster
            .tracker
            .metric("dfs_tracker_corrupt_replicas_total{damage=\"read-error\"}");
        (told > 0.0)
            .then_some(())
            .ok_or(format!("{} hits", faults.hits(fault)))
    })
    .await;
    model.check(&store).await;
    faults.remove(fault);
    store.wait_healthy(DEADLINE).await;
    model.settle(&cluster).await;
    for path in model.paths() {
        wait_valid(&store, &path, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_12_a_disk_that_cannot_write_is_left_out_of_every_acknowledgement() {
    let cases = [
        (CallKind::Write, "staging", with_files(calm_options(4))),
        (CallKind::Create, "staging", with_files(calm_options(4))),
        (CallKind::Rename, "staging", with_files(calm_options(4))),
        (CallKind::Write, "packs", calm_options(4)),
        (CallKind::Create, "packs", calm_options(4)),
    ];
    for (kind, path, options) in cases {
        let mut cluster = Cluster::start(options).await;
        let store = cluster.store();
        let mut model = Model::default();
        let faults = cluster.datanodes[2].faults.clone();
        let fault = faults.inject(Fault::eio(kind).path(path));
        for number in 0..6 {
            let size = CHUNK_BYTES / 2 + number * CHUNK_BYTES / 2;
            let stored = model.put(&mut cluster, &format!("f{number}"), size).await;
            assert_eq!(stored.replica_count, 3, "{kind:?}");
            for id in &stored.replicas {
                assert_ne!(cluster.number_of(*id).await, 2, "{kind:?}");
            }
        }
        assert!(faults.hits(fault) > 0, "the disk was never tried");
        model.check(&store).await;
        faults.remove(fault);
        model.settle(&cluster).await;
        assert_eq!(
            cluster.datanodes[2].ended(),
            None,
            "{kind:?} is no reason to stop"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_12_with_only_r_datanodes_one_that_cannot_write_is_missing_from_the_answer() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let store = cluster.store();
    let mut model = Model::default();
    let faults = cluster.datanodes[0].faults.clone();
    let fault = faults.inject(Fault::eio(CallKind::Write).path("staging"));
    // It says itself that it takes nothing now: no writer waits for a third replica.
    for number in 0..3 {
        let size = CHUNK_BYTES + number;
        let stored = model.put(&mut cluster, &format!("f{number}"), size).await;
        assert_eq!((stored.replica_count, stored.wanted), (2, 3));
        for id in &stored.replicas {
            assert_ne!(cluster.number_of(*id).await, 0);
        }
        model.check(&store).await;
    }
    let refuses = |cluster: &Cluster| cluster.datanodes[0].metric("dfs_datanode_refuses_writes");
    assert!(refuses(&cluster) > 0.0);
    store
        .wait_status("the tracker heard of it", DEADLINE, |status| {
            status.datanodes.read_only == 1
        })
        .await;
    faults.remove(fault);
    store.wait_ready(3, DEADLINE).await;
    assert!(refuses(&cluster) == 0.0);
    store.wait_healthy(DEADLINE).await;
    let stored = model.put(&mut cluster, "after", 2 * CHUNK_BYTES).await;
    assert_eq!(stored.replica_count, 3);
    model.settle(&cluster).await;
}

/// One fsync fails, the next ones succeed, and the bytes of the failed one are gone.
async fn failed_fsync(kind: CallKind, path: &str, options: Options) {
    let mut cluster = Cluster::start(options).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "before", CHUNK_BYTES).await;
    let victim = 1;
    let faults = cluster.datanodes[victim].faults.clone();
    let fault = faults.inject(Fault::eio(kind).path(path).times(1));
    let mut number = 0;
    while faults.hits(fault) == 0 {
        number += 1;
        assert!(number < 50, "nothing was written to the datanode");
        let stored = model
            .put(&mut cluster, &format!("f{number}"), CHUNK_BYTES)
            .await;
        if faults.hits(fault) > 0 {
            assert_eq!(stored.replica_count, 3);
            for id in &stored.replicas {
                assert_ne!(
                    cluster.number_of(*id).await,
                    victim,
                    "an ack rests on a failed fsync"
                );
            }
        }
    }
    let reason = eventually("the datanode stops", DEADLINE, || async {
        cluster.datanodes[victim]
            .ended()
            .ok_or("it runs".to_owned())
    })
    .await;
    assert!(reason.contains("fsync"), "{reason}");
    model.check(&store).await;
    // The restart believes the disk alone, and the power cut shows what that holds.
    cluster.power_cut_datanode(victim, false).await;
    start_heard(&mut cluster, victim).await;
    store.wait_ready(4, DEADLINE).await;
    store.wait_healthy(DEADLINE).await;
    model.put(&mut cluster, "after", CHUNK_BYTES).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_fault_13_no_ack_rests_on_a_failed_fsync_and_the_datanode_stops() {
    failed_fsync(CallKind::Sync, "staging", with_files(calm_options(4))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_fault_13_no_ack_rests_on_a_failed_fsync_of_a_directory() {
    failed_fsync(CallKind::SyncDir, "chunks", with_files(calm_options(4))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_fault_13_no_ack_rests_on_a_failed_fsync_of_a_pack() {
    failed_fsync(CallKind::Sync, "packs", calm_options(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_fault_13_no_ack_rests_on_a_failed_fsync_of_the_journal() {
    let mut cluster = Cluster::start(calm_options(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "before", 100).await;
    let faults = cluster.datanodes[1].faults.clone();
    let fault = faults.inject(Fault::eio(CallKind::Sync).path("journal").times(1));
    for number in 0..3 {
        let path = format!("f{number}");
        let bytes = cluster.bytes(100);
        let reply = store.try_put(&path, bytes.clone()).await.unwrap();
        if reply.status.is_success() {
            model.note(&path, bytes.into());
        }
    }
    assert_eq!(faults.hits(fault), 1, "the journal was not written");
    cluster.power_cut_datanode(1, false).await;
    start_heard(&mut cluster, 1).await;
    store.wait_ready(3, DEADLINE).await;
    for path in model.paths() {
        model.check_file(&store, &path).await;
    }
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_a_slow_disk_delays_and_breaks_nothing() {
    let options = Options {
        datanode: |config| config.stream_idle = Duration::from_mins(1),
        ..calm_options(3)
    };
    let mut cluster = Cluster::start(with_files(options)).await;
    let store = cluster.store();
    let mut model = Model::default();
    let faults = cluster.datanodes[0].faults.clone();
    for kind in [
        CallKind::Write,
        CallKind::Read,
        CallKind::Sync,
        CallKind::Rename,
    ] {
        for part in ["staging", "chunks"] {
            faults.inject(Fault::on(kind, Effect::Delay(Duration::from_millis(150))).path(part));
        }
    }
    for number in 0..3 {
        let stored = model
            .put(&mut cluster, &format!("f{number}"), CHUNK_BYTES * 2)
            .await;
        assert_eq!(stored.replica_count, 3, "slow is not missing");
    }
    model.check(&store).await;
    faults.heal();
    model.settle(&cluster).await;
    assert_eq!(
        store.chunks("f0").await.unwrap().chunks[0].chunk.length,
        CHUNK
    );
}

/// A disk that takes longer than any hop waits, and waits that are told apart on a busy machine.
fn hanging() -> Options {
    Options {
        datanode: |config| {
            config.stream_idle = Duration::from_mins(1);
            config.durable_within = Duration::from_secs(16);
        },
        gateway: |config| config.chain_stall = Duration::from_secs(16),
        ..calm_options(4)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_a_disk_that_hangs_at_any_hop_is_the_one_that_is_left_out() {
    let mut cluster = Cluster::start(with_files(hanging())).await;
    let store = cluster.store();
    let faults = cluster.datanodes[0].faults.clone();
    let sync = Fault::on(CallKind::Sync, Effect::Delay(Duration::from_secs(30)));
    let hangs = faults.inject(sync.path("staging"));
    // One block goes whole, more go in steps.
    let sizes = [
        1000, 1000, 1000, 1000, 1000, 100_000, 100_000, 100_000, 100_000,
    ];
    let files = sizes.iter().enumerate().map(|(number, size)| {
        let bytes = Bytes::from(cluster.bytes(*size));
        (format!("f{number}"), bytes)
    });
    let files: Vec<_> = files.collect();
    let puts = files
        .iter()
        .map(|(path, bytes)| store.put(path, bytes.clone()));
    let answers = futures_util::future::join_all(puts).await;
    assert!(faults.hits(hangs) > 0, "no chain had the disk that hangs");
    faults.heal();
    let mut model = Model::default();
    for ((path, bytes), stored) in files.into_iter().zip(answers) {
        assert_eq!((stored.replica_count, stored.wanted), (3, 3), "{path}");
        for id in &stored.replicas {
            assert_ne!(cluster.number_of(*id).await, 0, "{path}: it hangs");
        }
        model.note(&path, bytes);
    }
    model.settle(&cluster).await;
}

#[test]
fn fault_15_the_hop_before_the_one_at_fault_gives_up_first() {
    let longest = DatanodeConfig::new(PathBuf::new(), String::new(), String::new()).durable_within;
    let waits: Vec<_> = (1..=16).map(|hops| durable_within(longest, hops)).collect();
    assert!(
        waits.is_sorted_by(|shorter, longer| shorter < longer),
        "{waits:?}"
    );
    assert!(waits[15] < GatewayConfig::default().chain_stall);
}
