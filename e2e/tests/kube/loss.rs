//! Pods, volumes and nodes go away while clients write and read.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::status::DatanodeStatus;
use serde_json::{Value, json};

use crate::load::{Load, Seen};
use crate::store::{Cluster, REPAIR_DELAY};
use crate::tools::{hook, kubectl, text, until};
use crate::world::{DEADLINE, World};

/// A store of `datanodes` datanodes under load, with enough in it to lose.
pub(crate) async fn busy(world: &World, datanodes: u32) -> (Cluster<'_>, crate::door::Door, Load) {
    let cluster = Cluster::apply(world, "store", datanodes);
    cluster.wait_ready().await;
    cluster.wait_registered(datanodes as usize).await;
    let door = cluster.door().await;
    let load = Load::start_full(&door.store, "load").await;
    goes_on(&load).await;
    (cluster, door, load)
}

/// Waits until clients have done another fifty writes and reads.
pub(crate) async fn goes_on(load: &Load) {
    let before = load.seen();
    until("writes and reads go on", DEADLINE, || async {
        let seen = load.seen();
        if seen.acked.len() >= before.acked.len() + 50 && seen.reads >= before.reads + 50 {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_a_deleted_datanode_pod_comes_back_on_its_volume() {
    let Some(mut world) = World::start("pod").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let mut before: Vec<_> = cluster
        .nodes()
        .unwrap()
        .iter()
        .map(|node| node.id)
        .collect();
    cluster.replace_pod("store-datanode-1").await;
    let after = cluster.wait_registered(3).await;
    let mut after: Vec<_> = after.iter().map(|node| node.id).collect();
    before.sort();
    after.sort();
    assert_eq!(before, after, "the same datanodes, by their ids");
    goes_on(&load).await;
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

/// Nobody waits for the kubelet: the name is free while the program may still run. The volume has one holder all the
/// same, and the uuid on it is the old one.
#[tokio::test(flavor = "multi_thread")]
async fn i21_a_datanode_pod_that_is_deleted_by_force_while_it_runs_comes_back_on_its_volume() {
    let Some(mut world) = World::start("force").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let pod = "store-datanode-1";
    let ids = |nodes: Vec<DatanodeStatus>| {
        let mut ids: Vec<_> = nodes.into_iter().map(|node| (node.pod, node.id)).collect();
        ids.sort();
        ids
    };
    let before = ids(cluster.nodes().unwrap());
    let old = cluster.ready_pod(pod).unwrap();
    let force = ["delete", "pod", pod, "--grace-period=0", "--force"];
    world.kubectl(&force).unwrap();
    until("another pod has its place", DEADLINE, || async {
        let uid = cluster.ready_pod(pod)?;
        (uid != old)
            .then_some(())
            .ok_or_else(|| "it is still the old one".to_owned())
    })
    .await;
    let after = ids(cluster.wait_registered(3).await);
    assert_eq!(before, after, "the same datanodes, by their ids");
    goes_on(&load).await;
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i23_a_datanode_whose_volume_is_gone_is_replaced_by_a_new_one() {
    let Some(mut world) = World::start("volume").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let before: Vec<_> = cluster
        .nodes()
        .unwrap()
        .iter()
        .map(|node| node.id)
        .collect();
    let claim = ["delete", "pvc", "data-store-datanode-2", "--wait=false"];
    world.kubectl(&claim).unwrap();
    cluster.replace_pod("store-datanode-2").await;
    let after = cluster.wait_registered(3).await;
    let kept = after
        .iter()
        .filter(|node| before.contains(&node.id))
        .count();
    assert_eq!(
        kept, 2,
        "an empty volume is a new datanode: {before:?}, {after:?}"
    );
    goes_on(&load).await;
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

/// When each gateway's pod became what it is: ready, or not.
fn gateways_ready_since(world: &World) -> BTreeMap<String, (String, String)> {
    let gateways = ["pods", "-l", "app.kubernetes.io/component=gateway"];
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready");
        let ready = ready.cloned().unwrap_or_default();
        (text(&ready["status"]), text(&ready["lastTransitionTime"]))
    };
    world.each(&gateways, ready).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tracker_and_operator_restart_under_load() {
    let Some(mut world) = World::start("restart").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    kubectl(&[
        "-n",
        &world.system,
        "delete",
        "pod",
        "--all",
        "--wait=false",
    ])
    .unwrap();
    goes_on(&load).await;
    load.seen().assert_nothing_failed();
    let ready_since = gateways_ready_since(&world);
    cluster.replace_pod("store-tracker-0").await;
    goes_on(&load).await;
    let seen = load.stop().await;
    assert_eq!(
        ready_since,
        gateways_ready_since(&world),
        "without a gateway the ingress answers itself, and as if files were gone"
    );
    seen.assert_only_the_tracker_was_away();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

/// Kubernetes nodes on which pods may run.
pub(crate) fn nodes() -> usize {
    kubectl(&["get", "nodes", "-o", "name"])
        .unwrap()
        .lines()
        .count()
}

/// A datanode's node has no power: nobody notices. With a spare node its replicas are made anew, and what is too
/// much when it returns goes.
#[tokio::test(flavor = "multi_thread")]
async fn i23_a_datanodes_node_without_power_costs_no_read_and_no_write() {
    let Some(mut world) = World::alone("node").await else {
        return;
    };
    let Some(hook) = hook("a node's power cut") else {
        return;
    };
    world.install_operator(&["--set", "replicas=2"]);
    let has_spare = nodes() >= 5;
    let datanodes: u32 = if has_spare { 5 } else { 3 };
    let cluster = Cluster::apply(&world, "store", datanodes);
    cluster.wait_ready().await;
    cluster.wait_registered(datanodes as usize).await;
    // Gateways stay where the tracker is, so that a datanode alone is lost.
    let tracker = world.nodes_of("tracker")["store-tracker-0"].clone();
    cluster.gateways_beside(&tracker).await;
    let door = cluster.door().await;
    let load = Load::start_full(&door.store, "load").await;
    goes_on(&load).await;
    let members = cluster.nodes().unwrap();
    // Where repair is to end, not the only one of its zone: without it no spread is good.
    let leaves_a_zone = |node: &DatanodeStatus| {
        let of_zone = members.iter().filter(|other| other.zone == node.zone);
        !has_spare || of_zone.count() > 1
    };
    let victim = members
        .iter()
        .find(|node| node.host.as_deref() != Some(&tracker) && leaves_a_zone(node))
        .and_then(|node| node.host.as_deref())
        .unwrap();
    hook.run(&["node-kill", victim]);
    tokio::time::sleep(REPAIR_DELAY).await;
    goes_on(&load).await;
    cluster.wait_one_dead().await;
    if has_spare {
        cluster.wait_whole().await;
        let (_, message) = cluster.wait_condition("DataRedundant", "True").await;
        eprintln!("  redundant without the node: {message}");
    } else {
        let (_, message) = cluster.wait_condition("DataRedundant", "False").await;
        eprintln!("  DataRedundant is False: {message}");
    }
    let during = load.seen();
    hook.run(&["node-start", victim]);
    cluster.wait_registered(datanodes as usize).await;
    goes_on(&load).await;
    let seen = load.stop().await;
    eprintln!("  while the node was away: {during}");
    seen.assert_nothing_failed();
    // Neither too few replicas nor too many.
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

/// The node of a gateway and a datanode has no power: what was under way through that gateway is lost, and what the
/// ingress sends there until it knows.
#[tokio::test(flavor = "multi_thread")]
async fn i23_a_gateways_node_without_power_costs_only_what_went_through_it() {
    let Some(mut world) = World::alone("gateway-node").await else {
        return;
    };
    let Some(hook) = hook("a node's power cut") else {
        return;
    };
    world.install_operator(&["--set", "replicas=2"]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let tracker = world.nodes_of("tracker")["store-tracker-0"].clone();
    let gateways = world.nodes_of("gateway");
    let (gateway, victim) = gateways
        .iter()
        .find(|(_, node)| **node != tracker)
        .expect("two gateways are on two nodes");
    hook.run(&["node-kill", victim]);
    // The ingress sends nothing there any more.
    until("the gateway is no endpoint any more", DEADLINE, || async {
        let slices = world.list(&[
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=store-gateway",
        ])?;
        let endpoints = |slice: &'_ Value| slice["endpoints"].as_array().cloned();
        let mut endpoints = slices.iter().filter_map(endpoints).flatten();
        let serves = endpoints.any(|endpoint| {
            endpoint["targetRef"]["name"] == json!(gateway)
                && endpoint["conditions"]["ready"] != json!(false)
        });
        if serves {
            Err(format!("{gateway} is one"))
        } else {
            Ok(())
        }
    })
    .await;
    goes_on(&load).await;
    let until_known = load.seen();
    goes_on(&load).await;
    hook.run(&["node-start", victim]);
    cluster.wait_registered(3).await;
    goes_on(&load).await;
    let seen = load.stop().await;
    eprintln!("  until the ingress knew: {until_known}");
    assert_eq!(seen.wrong_reads, 0, "{seen}");
    let later = |seen: &Seen| (seen.failed_reads, seen.failed_writes);
    assert_eq!(later(&seen), later(&until_known), "{seen}");
    // As many as there are clients that write.
    cluster.wait_whole_but_for_orphans(1).await;
    cluster.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_path_does_not_notice_that_the_api_server_is_away() {
    let Some(mut world) = World::alone("apiserver").await else {
        return;
    };
    let Some(hook) = hook("an API server that can be stopped") else {
        return;
    };
    if world.ingress.is_none() {
        eprintln!("skipped: a port-forward goes through the API server; set INGRESS");
        return;
    }
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    hook.run(&["apiserver-stop"]);
    let outage = std::time::Instant::now();
    while outage.elapsed() < Duration::from_mins(1) {
        goes_on(&load).await;
    }
    hook.run(&["apiserver-start"]);
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

/// I34, and the loss matrix: the tracker's volume is gone. Nothing is made up, nothing is denied, and a
/// person's word brings everything back from the datanodes.
#[tokio::test(flavor = "multi_thread")]
async fn i34_a_catalog_lost_under_load_waits_for_a_persons_word_and_is_rebuilt() {
    let Some(mut world) = World::start("catalog").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, door, load) = busy(&world, 3).await;
    let before = load.seen();
    let claim = ["delete", "pvc", "data-store-tracker-0", "--wait=false"];
    world.kubectl(&claim).unwrap();
    world
        .kubectl(&["delete", "pod", "store-tracker-0", "--wait=false"])
        .unwrap();
    let (reason, message) = cluster.wait_condition("CatalogLost", "True").await;
    eprintln!("  the catalog is lost: {reason}: {message}");
    let (path, _) = before.acked.first_key_value().unwrap();
    let answer = door.store.try_get(path).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let id = cluster.resource().unwrap()["status"]["clusterId"].clone();
    let agreed = format!("dfs.io/acknowledge-catalog-lost={}", id.as_str().unwrap());
    world
        .kubectl(&["annotate", "dfs", "store", &agreed])
        .unwrap();
    cluster.wait_condition("CatalogLost", "False").await;
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    goes_on(&load).await;
    // Refused for as long as it was lost; what was acknowledged before, and since, is there.
    let seen = load.stop().await;
    assert_eq!(seen.wrong_reads, 0, "{seen}");
    let now = cluster.resource().unwrap();
    assert_eq!(now["status"]["clusterId"], id);
    assert!(now["metadata"]["annotations"]["dfs.io/acknowledge-catalog-lost"].is_null());
    cluster.wait_whole().await;
}
