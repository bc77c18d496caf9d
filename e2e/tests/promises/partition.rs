//! Partitions and pauses: silence is not loss (faults 21, 22, 26).

use std::time::{Duration, Instant};

use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::net::LinkFault;
use dfs_e2e::store::says_later;
use dfs_e2e::wait::eventually;
use dfs_protocol::datanode::Liveness;
use dfs_protocol::status::DatanodeStatus;
use http::{Method, StatusCode};

use crate::kit::{CHUNK, CHUNK_BYTES, DEADLINE, Model, options};
use crate::world::records_on;

const REPAIR_DELAY: Duration = Duration::from_millis(1500);
/// Slower than elsewhere: a machine that stalls for a second or two must not look like a silence.
const HEARTBEAT: Duration = Duration::from_millis(300);

async fn filled(datanodes: usize) -> (Cluster, Model) {
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            // A checkpoint that is replaced is deleted by order: none is, while orders are counted.
            config.checkpoint_interval = Duration::from_hours(1);
            config.heartbeat_interval = HEARTBEAT;
            config.repair_delay = REPAIR_DELAY;
        },
        chunk_files: true,
        ..options(datanodes)
    })
    .await;
    let mut model = Model::default();
    for number in 0..8 {
        model
            .put(&mut cluster, &format!("f{number}"), CHUNK_BYTES + number)
            .await;
    }
    cluster.wait_at_rest(DEADLINE).await;
    (cluster, model)
}

/// Orders that datanodes carried out, or tried to.
fn carried_out(cluster: &Cluster) -> f64 {
    let roles = cluster.datanodes.iter();
    roles.map(|role| role.metric("dfs_datanode_commands")).sum()
}

/// Looks that nothing was carried out since.
///
/// # Panics
/// When datanodes carried out more orders than `before`, with what the tracker ordered.
fn assert_idle_since(before: f64, cluster: &Cluster, what: &str) {
    let ordered = [
        cluster.tracker.samples("dfs_tracker_repair_copies_total"),
        cluster.tracker.samples("dfs_tracker_replica_deletes_total"),
    ];
    assert_eq!(carried_out(cluster), before, "{what}: {ordered:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_22_a_tracker_cut_off_from_all_datanodes_repairs_and_deletes_nothing() {
    let (mut cluster, mut model) = filled(4).await;
    let store = cluster.store();
    for fault in [LinkFault::cut(), LinkFault::black_hole()] {
        let before = carried_out(&cluster);
        // Also what the doors on the tracker open.
        cluster.links.isolate("tracker", fault);
        let status = store
            .wait_status("all are silent", DEADLINE, |s| s.datanodes.dead == 4)
            .await;
        assert!(status.repair_held.is_some() && status.writes_refused.is_some());
        for reply in [
            store.try_put("more", vec![1; 10]).await.unwrap(),
            store.door.delete("/files/f0").await.unwrap(),
        ] {
            assert!(says_later(&reply), "{}: {}", reply.status, reply.text());
        }
        // Longer than the delay of repair.
        tokio::time::sleep(2 * REPAIR_DELAY).await;
        assert_idle_since(before, &cluster, "something was ordered");
        cluster.links.heal();
        store.wait_ready(4, SOON).await;
        store.wait_healthy(DEADLINE).await;
        tokio::time::sleep(2 * HEARTBEAT).await;
        assert_idle_since(before, &cluster, "a storm after the return");
    }
    model.put(&mut cluster, "after", CHUNK_BYTES).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_22_three_of_five_at_once_are_held_until_a_human_acknowledges_the_loss() {
    let (mut cluster, model) = filled(5).await;
    let store = cluster.store();
    let kept: Vec<usize> = (0..2).collect();
    for number in 2..5 {
        cluster.kill_datanode(number).await;
    }
    let status = store
        .wait_status("the loss is held", DEADLINE, |s| s.datanodes.dead == 3)
        .await;
    let held = status.repair_held.unwrap();
    assert!(held.contains("acknowledged"), "{held}");
    let before = carried_out(&cluster);
    tokio::time::sleep(2 * REPAIR_DELAY).await;
    assert_idle_since(before, &cluster, "the loss was not acknowledged");
    let uri = "/repair/acknowledge-partition";
    let reply = store
        .door
        .send(Method::POST, uri, &[], dfs_client::http::empty());
    assert_eq!(reply.await.unwrap().status, StatusCode::NO_CONTENT);
    store
        .wait_status("repair goes on", DEADLINE, |s| s.repair_held.is_none())
        .await;
    assert!(kept.iter().all(|n| records_on(&cluster, *n, "chunks") > 0));
    for number in 2..5 {
        cluster.start_datanode(number).await;
    }
    store.wait_ready(5, SOON).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_21_one_datanode_cut_off_either_way_comes_back_without_a_storm() {
    let (mut cluster, mut model) = filled(4).await;
    let store = cluster.store();
    let faults = [
        ("datanode-1", "tracker", LinkFault::lose_forth()),
        ("datanode-1", "tracker", LinkFault::lose_back()),
        ("tracker", "datanode-1", LinkFault::cut()),
    ];
    for (round, (from, to, fault)) in faults.into_iter().enumerate() {
        let rule = cluster.links.inject(from, to, fault);
        // Writes and deletes go on meanwhile.
        for number in 0..3 {
            let path = format!("r{round}-{number}");
            model.put(&mut cluster, &path, CHUNK_BYTES / 2).await;
        }
        model.delete(&store, &format!("f{round}")).await;
        model.check(&store).await;
        cluster.links.remove(rule);
        store.wait_ready(4, SOON).await;
    }
    store.wait_healthy(DEADLINE).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_21_of_exactly_r_datanodes_one_that_only_heartbeats_stops_no_change() {
    let (mut cluster, mut model) = filled(3).await;
    let store = cluster.store();
    let rule = cluster
        .links
        .inject("tracker", "datanode-1", LinkFault::cut());
    for number in 0..3 {
        model.put(&mut cluster, &format!("n{number}"), 1000).await;
    }
    model.delete(&store, "f1").await;
    model.check(&store).await;
    // A heartbeat alone is not health, and the status says so.
    let cut_off = cluster.datanodes[1].address.to_string();
    eventually("one is live and unreachable", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let told = |node: &DatanodeStatus| {
            node.liveness == Liveness::Live && node.unreachable == (node.address == cut_off)
        };
        let placeable = store.status().await?.datanodes.placeable;
        let all = nodes.iter().all(told) && placeable == 2;
        all.then_some(())
            .ok_or_else(|| format!("{placeable} placeable: {nodes:?}"))
    })
    .await;
    cluster.links.remove(rule);
    store.wait_ready(3, SOON).await;
    store.wait_healthy(DEADLINE).await;
    model.settle(&cluster).await;
}

/// It is brought up to date from where its journal ends, many records at once: one after the other, from the first on
/// at every try, it would never have them all.
#[tokio::test(flavor = "multi_thread")]
async fn fault_21_a_datanode_that_lacks_many_records_takes_part_again_over_a_slow_link() {
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.heartbeat_interval = Duration::from_millis(300);
            config.repair_delay = REPAIR_DELAY;
        },
        ..options(3)
    })
    .await;
    let mut model = Model::default();
    let store = cluster.store();
    let (from, to) = ("tracker", "datanode-1");
    let cut = cluster.links.inject(from, to, LinkFault::cut());
    let left_out = async || {
        let nodes = store.nodes().await?;
        let left_out = nodes.into_iter().find(|node| node.unreachable);
        Ok::<_, String>(left_out)
    };
    // On a busy machine it may look dead for a while, which is not being left out.
    let mut number = 0;
    let mut put = async |model: &mut Model| {
        model.put(&mut cluster, &format!("n{number}"), 0).await;
        number += 1;
    };
    for _ in 0..400 {
        put(&mut model).await;
    }
    let enough = Instant::now();
    while left_out().await.unwrap().is_none() {
        assert!(enough.elapsed() < DEADLINE, "it was never left out");
        put(&mut model).await;
    }
    cluster.links.remove(cut);
    let slow = LinkFault::delay(Duration::from_millis(10));
    let slow = cluster.links.inject(from, to, slow);
    eventually("it takes records again", DEADLINE, || async {
        let left_out = left_out().await?;
        left_out.map_or(Ok(()), |node| Err(format!("{node:?}")))
    })
    .await;
    cluster.links.remove(slow);
    store.wait_healthy(DEADLINE).await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_26_a_paused_tracker_or_datanode_goes_on_as_if_nothing_had_been() {
    let (mut cluster, mut model) = filled(3).await;
    let store = cluster.store();
    let before = carried_out(&cluster);
    cluster.pause_tracker().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.resume_tracker();
    // It heard nobody for longer than its window: it must not act on that.
    store.wait_ready(3, SOON).await;
    store.wait_healthy(DEADLINE).await;
    assert_idle_since(before, &cluster, "it acted on its own pause");
    model.put(&mut cluster, "a", CHUNK_BYTES).await;
    cluster.pause_datanode(1).await;
    store
        .wait_status("it is missed", DEADLINE, |s| s.datanodes.dead == 1)
        .await;
    model.put(&mut cluster, "b", CHUNK_BYTES).await;
    model.delete(&store, "a").await;
    cluster.resume_datanode(1);
    store.wait_ready(3, SOON).await;
    model.settle(&cluster).await;
}
