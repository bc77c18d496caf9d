//! Datanodes that vanish without a word: their machine has no power, the network swallows every packet,
//! the process is stopped (faults 15, 21, 26). No connection breaks, so only whoever waits can notice.

use std::time::Duration;

use dfs_client::{HttpClient, HttpTracker, TrackerApi as _};
use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::net::LinkFault;
use dfs_e2e::store::Stored;
use dfs_e2e::wait::eventually;
use dfs_protocol::FilePath;
use dfs_protocol::status::ClusterStatus;
use dfs_protocol::upload::LocateRequest;

use crate::kit::{CHUNK_BYTES, ChainWatch, DEADLINE, Model, Upload, options};

const MIB: usize = 1024 * 1024;

/// A tracker that misses nobody for minutes: readers have nothing but their own eyes.
fn unaware() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK_BYTES as u64;
            config.heartbeat_interval = Duration::from_mins(5);
        },
        ..Options::default()
    }
}

/// Chains whose hops may owe a confirmation, or a block, for an hour: those limits end no wait here.
fn patient(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = 4 * 1024 * 1024;
            config.heartbeat_interval = Duration::from_secs(1);
        },
        datanode: |config| config.stream_idle = Duration::from_hours(1),
        gateway: |config| config.chain_stall = Duration::from_hours(1),
        ..Options::default()
    }
}

/// Waits that others than `victim` gave up because somebody was silent.
fn silences(cluster: &Cluster, victim: usize) -> f64 {
    let others = cluster.datanodes.iter().enumerate();
    let others = others.filter(|(number, _)| *number != victim);
    let by_hops = others.map(|(_, role)| role.metric("dfs_datanode_silent_peers_total"));
    by_hops.sum::<f64>() + cluster.tracker.metric("dfs_gateway_silent_datanodes_total")
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_no_read_waits_for_a_datanode_that_is_silent() {
    for is_paused in [false, true] {
        let mut cluster = Cluster::start(unaware()).await;
        let store = cluster.store();
        let mut model = Model::default();
        for number in 0..12 {
            let size = CHUNK_BYTES + 1000 * number;
            model.put(&mut cluster, &format!("f{number}"), size).await;
        }
        if is_paused {
            cluster.pause_datanode(1).await;
        } else {
            let _isolated = cluster.isolate_datanode(1, LinkFault::black_hole());
        }
        // Which replica a read begins with is left to chance, so more than once.
        let tracker = &cluster.tracker;
        let won = || tracker.metric("dfs_gateway_read_hedges_total{hedge=\"won\"}");
        eventually("a second replica was faster", DEADLINE, || async {
            let paths = model.paths();
            let reads = paths.iter().map(|path| model.check_file(&store, path));
            futures_util::future::join_all(reads).await;
            (won() >= 1.0).then_some(()).ok_or("none yet".to_owned())
        })
        .await;
        // Its doubt is known now: reads begin elsewhere, so they neither wait nor ask twice.
        let sent = tracker.metric("dfs_gateway_read_hedges_total{hedge=\"sent\"}");
        assert!(
            sent <= 64.0,
            "{sent} hedges for reads that should know better"
        );
        assert_eq!(tracker.metric("dfs_gateway_broken_downloads_total"), 0.0);
        cluster.links.heal();
        cluster.resume_datanode(1);
        model.settle(&cluster).await;
    }
}

async fn acked_without(upload: Upload, cluster: &Cluster, victim: usize) {
    let answer = tokio::time::timeout(DEADLINE, upload.finish());
    let stored: Stored = answer.await.unwrap().unwrap().ok().json();
    assert_eq!((stored.replica_count, stored.wanted), (3, 3));
    for id in &stored.replicas {
        let number = cluster.number_of(*id).await;
        assert_ne!(number, victim, "the answer names a silent datanode");
    }
}

async fn heal(cluster: &Cluster, model: &Model) {
    cluster.links.heal();
    let all = cluster.datanodes.len() as u64;
    cluster.store().wait_ready(all, SOON).await;
    cluster.store().wait_healthy(DEADLINE).await;
    model.check(&cluster.store()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_a_hop_that_falls_silent_amid_a_chunk_is_replaced() {
    let mut cluster = Cluster::start(patient(4)).await;
    let store = cluster.store();
    let mut model = Model::default();
    for hop in 0..3 {
        // With more to come than the window holds, and with the last bytes only.
        for (before, size) in [(2 * MIB, 7 * MIB), (3 * MIB - 100, 3 * MIB)] {
            let path = format!("hop{hop}-{size}");
            let bytes = cluster.bytes(size);
            let watch = ChainWatch::begin(&cluster, 100 * 1024);
            let upload = Upload::begin(&store, &path, Some(size));
            assert!(upload.feed(&bytes[..before]).await);
            let victim = watch.wait(3).await[hop];
            let noticed = silences(&cluster, victim);
            let _isolated = cluster.isolate_datanode(victim, LinkFault::black_hole());
            assert!(upload.feed(&bytes[before..]).await, "it was refused");
            acked_without(upload, &cluster, victim).await;
            assert!(silences(&cluster, victim) > noticed, "{path}: by a limit");
            model.note(&path, bytes.into());
            model.check_file(&store, &path).await;
            heal(&cluster, &model).await;
        }
    }
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_a_hop_that_is_silent_when_a_chunk_is_opened_is_replaced() {
    let mut cluster = Cluster::start(patient(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    for victim in 0..3 {
        // Leaves placements on all three, and streams between them that idle.
        let before = format!("before{victim}");
        model.put(&mut cluster, &before, MIB).await;
        let _isolated = cluster.isolate_datanode(victim, LinkFault::black_hole());
        let bytes = bytes::Bytes::from(cluster.bytes(MIB));
        let path = format!("f{victim}");
        let answer = tokio::time::timeout(DEADLINE, store.put(&path, bytes.clone()));
        let stored = answer.await.unwrap();
        assert_eq!((stored.replica_count, stored.wanted), (2, 3));
        // Over a stream that idled it is noticed as silence, over a new one as a connection that is
        // not answered: which of them depends on the order of the chain.
        let lost = "dfs_gateway_hop_failures_total{fault=\"unreachable\"}";
        assert!(
            cluster.tracker.metric(lost) >= 1.0,
            "{path}: it was not asked"
        );
        model.note(&path, bytes);
        // The next ones know.
        for number in 0..5 {
            let path = format!("more{victim}-{number}");
            model.put(&mut cluster, &path, 1000).await;
        }
        heal(&cluster, &model).await;
    }
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_26_a_hop_that_is_stopped_amid_a_chunk_is_replaced() {
    let mut cluster = Cluster::start(patient(4)).await;
    let store = cluster.store();
    let mut model = Model::default();
    let bytes = cluster.bytes(3 * MIB);
    let watch = ChainWatch::begin(&cluster, 100 * 1024);
    let upload = Upload::begin(&store, "f", Some(bytes.len()));
    assert!(upload.feed(&bytes[..2 * MIB]).await);
    let victim = watch.wait(3).await[1];
    let noticed = silences(&cluster, victim);
    cluster.pause_datanode(victim).await;
    assert!(upload.feed(&bytes[2 * MIB..]).await, "it was refused");
    acked_without(upload, &cluster, victim).await;
    assert!(silences(&cluster, victim) > noticed, "by a limit");
    model.note("f", bytes.into());
    cluster.resume_datanode(victim);
    heal(&cluster, &model).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_21_of_exactly_r_datanodes_one_that_the_tracker_cannot_get_through_to_stops_no_change()
 {
    let mut cluster = Cluster::start(options(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "before", 1000).await;
    // Its heartbeats arrive: only what is sent to it vanishes.
    let links = &cluster.links;
    let rule = links.inject("tracker", "datanode-1", LinkFault::black_hole());
    for number in 0..3 {
        model.put(&mut cluster, &format!("f{number}"), 1000).await;
    }
    model.delete(&store, "before").await;
    model.check(&store).await;
    cluster.links.remove(rule);
    store.wait_ready(3, SOON).await;
    store.wait_healthy(DEADLINE).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_of_suspect_datanodes_last_and_of_them_alone_when_there_is_nobody_else() {
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK_BYTES as u64;
            // Suspect for long enough to be looked at, between three and ten of these.
            config.heartbeat_interval = Duration::from_secs(2);
        },
        ..Options::default()
    })
    .await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "f", 1000).await;
    let suspect = |count: u64| {
        let seen = move |status: &ClusterStatus| status.datanodes.suspect == count;
        store.wait_status("it is suspect", DEADLINE, seen)
    };
    // Nothing is wrong with what they serve: their heartbeats do not arrive.
    let links = &cluster.links;
    links.inject("datanode-1", "tracker", LinkFault::lose_forth());
    suspect(1).await;
    let http = HttpClient::new(links.connector("test"));
    let tracker = HttpTracker::new(http, cluster.tracker.address.to_string());
    for _ in 0..20 {
        let request = LocateRequest {
            path: FilePath::parse("f").unwrap(),
            locations: true,
        };
        let located = tracker.locate(request).await.unwrap();
        let replicas = &located.chunks[0].replicas;
        assert_eq!(replicas.len(), 3);
        assert_eq!(
            replicas[2].address,
            cluster.datanodes[1].address.to_string()
        );
    }
    links.heal();
    store.wait_ready(3, SOON).await;
    links.inject("datanode-*", "tracker", LinkFault::lose_forth());
    suspect(3).await;
    model.check_file(&store, "f").await;
    links.heal();
    store.wait_ready(3, SOON).await;
    model.settle(&cluster).await;
}
