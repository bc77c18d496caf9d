//! A Kubernetes node that never comes back.

use serde_json::json;

use crate::load::Load;
use crate::loss::{goes_on, nodes};
use crate::store::Cluster;
use crate::tools::{hook, kubectl, until};
use crate::world::{DEADLINE, World};

/// The node has no power for good, and a person deletes its object: the datanode is given up by name, and comes
/// back elsewhere, empty and under another uuid.
#[tokio::test(flavor = "multi_thread")]
async fn i23_fault_32_a_datanode_whose_node_is_gone_for_good_is_given_up_and_replaced() {
    let Some(mut world) = World::alone("gone").await else {
        return;
    };
    let Some(hook) = hook("a node's power cut") else {
        return;
    };
    if nodes() < 5 {
        eprintln!("skipped: a spare node is needed, and one for the gateways: five in all");
        return;
    }
    world.install_operator(&["--set", "replicas=2"]);
    let policy = json!({"nodeLossPolicy": "ForceDeleteWhenFenced"});
    let cluster = Cluster::apply_with(&world, "store", 4, &policy);
    cluster.wait_ready().await;
    let before = cluster.wait_registered(4).await;
    let tracker = world.nodes_of("tracker")["store-tracker-0"].clone();
    cluster.gateways_beside(&tracker).await;
    let door = cluster.door().await;
    let load = Load::start_full(&door.store, "load").await;
    goes_on(&load).await;
    let victims = world.nodes_of("datanode");
    let (pod, victim) = victims.iter().find(|(_, node)| **node != tracker).unwrap();
    let claim = world.get(&["pvc", &format!("data-{pod}")]).unwrap();
    let lost = before
        .iter()
        .find(|node| node.pod.as_ref() == Some(pod))
        .unwrap();
    hook.run(&["node-kill", victim]);
    kubectl(&["delete", "node", victim, "--wait=false"]).unwrap();
    let (reason, message) = cluster.wait_condition("NodeLost", "True").await;
    eprintln!("  NodeLost: {reason}: {message}");
    assert!(message.contains(victim), "{message}");
    goes_on(&load).await;
    cluster.wait_one_dead().await;
    cluster.wait_condition("DataRedundant", "True").await;
    let agreed = format!("dfs.io/acknowledge-datanode-lost={}", lost.id);
    world
        .kubectl(&["annotate", "dfs", "store", &agreed])
        .unwrap();
    until("the annotation is taken back", DEADLINE, || async {
        let now = cluster.resource()?;
        let told = &now["metadata"]["annotations"]["dfs.io/acknowledge-datanode-lost"];
        let condition = cluster.condition("NodeLost")?;
        (told.is_null() && now["status"]["loss"].is_null())
            .then_some(())
            .ok_or_else(|| format!("{}: {condition:?}", now["status"]["loss"]))
    })
    .await;
    let after = cluster.wait_registered(4).await;
    assert!(
        after.iter().all(|node| node.id != lost.id),
        "the same uuid on a new disk: {after:?}"
    );
    let now = world.get(&["pvc", &format!("data-{pod}")]).unwrap();
    assert_ne!(now["metadata"]["uid"], claim["metadata"]["uid"]);
    goes_on(&load).await;
    let seen = load.stop().await;
    seen.assert_nothing_failed();
    let told = world.events().unwrap();
    let told: Vec<_> = told.iter().map(|event| &event["reason"]).collect();
    let is_told = |reason: &str| told.iter().any(|one| *one == reason);
    for reason in ["NodeLost", "DatanodeLost", "ClaimDeleted", "LossSettled"] {
        assert!(is_told(reason), "{reason}: {told:?}");
    }
    if is_told("PodForceDeleted") {
        eprintln!("  the operator took the stuck pod away before Kubernetes did");
    }
    cluster.wait_whole().await;
    // The machine is others' as well: its kubelet makes the object anew.
    hook.run(&["node-start", victim]);
    until("the node is back", DEADLINE, || async {
        kubectl(&["get", "node", victim]).map(drop)
    })
    .await;
    cluster.wait_condition("NodeLost", "False").await;
    cluster.wait_ready().await;
}
