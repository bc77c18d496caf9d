//! The budget of the datanodes' pods goes by what the tracker says of their chunks.

use std::time::Duration;

use dfs_runtime::clock::Clock as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use serde_json::json;

use crate::api::Fault;
use crate::tracker::Told;
use crate::world::World;

fn budget(world: &World) -> i64 {
    budget_of(world, "a-datanode")
}

fn budget_of(world: &World, name: &str) -> i64 {
    let budget = world.api.get("poddisruptionbudgets", name).unwrap();
    budget["spec"]["maxUnavailable"].as_i64().unwrap()
}

fn set_pod(world: &World, name: &str, node: Option<&str>, ready: bool) {
    world.api.change("pods", name, |pod| {
        pod["spec"]["nodeName"] = json!(node);
        pod["status"]["conditions"][0]["status"] = json!(if ready { "True" } else { "False" });
    });
}

async fn five() -> World {
    let world = World::new();
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(5);
    });
    world.converge(&world.operator()).await;
    world.fill(20);
    world
}

#[tokio::test]
async fn a_new_cluster_holds_evictions_until_its_tracker_answers() {
    let world = World::new();
    let ctx = world.operator();
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 0);
    world.converge(&ctx).await;
    assert_eq!(budget(&world), 1);
    assert!(!world.condition("Degraded").2.contains("evictions"));
}

#[tokio::test]
async fn the_budget_follows_the_chunks_and_not_the_pods() {
    let world = five().await;
    let ctx = world.operator();
    world.converge(&ctx).await;
    assert_eq!(budget(&world), 1);
    // A replica is damaged; every pod is as ready as before.
    let lost = world.tracker.with(|state| {
        let held = state.chunks.get_mut(&0).unwrap();
        held.pop_first().unwrap()
    });
    let outcome = world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 0);
    assert!(outcome.requeue.unwrap().after <= Duration::from_secs(10));
    let message = world.condition("Degraded").2;
    assert!(
        message.contains("evictions of datanodes wait: 1 chunks"),
        "{message}"
    );
    assert!(world.was_told("EvictionsHeld"), "{:?}", world.events());
    world
        .tracker
        .with(|state| state.chunks.get_mut(&0).unwrap().insert(lost));
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 1);
    assert!(world.was_told("EvictionsAllowed"), "{:?}", world.events());
}

#[tokio::test]
async fn one_that_is_down_holds_the_others_until_its_chunks_are_whole_without_it() {
    let world = five().await;
    let ctx = world.operator();
    world.converge(&ctx).await;
    let id = world.uuid("a-datanode-4");
    // Its node was cordoned, and its volume is there.
    set_pod(&world, "a-datanode-4", None, false);
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(
        budget(&world),
        0,
        "its replicas count, although the tracker still hears it"
    );
    // What it held is copied: one more may go beside it.
    world.tracker.with(|state| {
        let others: Vec<_> = state
            .nodes
            .keys()
            .copied()
            .filter(|other| *other != id)
            .collect();
        for held in state.chunks.values_mut() {
            held.extend(&others);
        }
    });
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 2);
    // It gets a node: it may be ready at any moment, and then two could go.
    set_pod(&world, "a-datanode-4", Some("node-1"), false);
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 1);
    set_pod(&world, "a-datanode-4", Some("node-1"), true);
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 1);
}

#[tokio::test]
async fn a_tracker_that_cannot_be_read_holds_evictions() {
    let world = five().await;
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.with(|state| state.mute = true);
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget(&world), 0);
    assert!(
        world
            .condition("Degraded")
            .2
            .contains("evictions of datanodes wait")
    );
}

fn cordon(world: &World, node: &str, cordoned: bool) {
    world.api.change("nodes", node, |node| {
        node["spec"]["unschedulable"] = json!(cordoned);
    });
}

/// Pods on a node, the tracker first.
fn on_node(world: &World, node: &str) -> Vec<String> {
    let pods = world.api.list("pods").into_iter();
    let pods = pods.filter(|pod| pod["spec"]["nodeName"] == node);
    let mut names: Vec<_> = pods
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort_by_key(|name| !name.contains("tracker"));
    names
}

/// One round of `kubectl drain`; returns who goes.
async fn drain_round(world: &World, node: &str) -> Vec<String> {
    let pods: kube::Api<Pod> = kube::Api::namespaced(world.api.client(), "default");
    let mut gone = Vec::new();
    for pod in on_node(world, node) {
        if pods.evict(&pod, &EvictParams::default()).await.is_ok() {
            gone.push(pod);
        }
    }
    gone
}

/// Three datanodes; the tracker and datanode 0 have their volumes on node 0.
async fn bound() -> World {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    for claim in ["data-a-tracker-0", "data-a-datanode-0"] {
        world.api.change("persistentvolumeclaims", claim, |claim| {
            claim["metadata"]["annotations"] =
                json!({"volume.kubernetes.io/selected-node": "node-0"});
        });
    }
    world.fill(12);
    world.converge(&ctx).await;
    world
}

#[tokio::test]
async fn a_drain_of_the_trackers_node_ends_and_takes_the_tracker_last() {
    let world = bound().await;
    let ctx = world.operator();
    assert_eq!(on_node(&world, "node-0"), ["a-tracker-0", "a-datanode-0"]);
    cordon(&world, "node-0", true);
    let mut order = Vec::new();
    for _ in 0..10 {
        order.extend(drain_round(&world, "node-0").await);
        world.settle();
        world.reconcile(&ctx).await.unwrap();
    }
    assert_eq!(order, ["a-datanode-0", "a-tracker-0"]);
    assert_eq!(on_node(&world, "node-0"), Vec::<String>::new());
    cordon(&world, "node-0", false);
    world.converge(&ctx).await;
    assert_eq!(on_node(&world, "node-0"), ["a-tracker-0", "a-datanode-0"]);
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(budget_of(&world, "a-tracker"), 0);
    assert_eq!(budget(&world), 1);
}

/// What a pod's hook does when the eviction went through.
fn announce(world: &World, pod: &str) {
    let id = world.uuid(pod);
    let until = world.clock.wall() + Duration::from_mins(5);
    world.tracker.with(|state| {
        state.away.insert(id);
        let node = state.nodes.get_mut(&id).unwrap();
        node.maintenance_until = Some(until.to_string());
    });
}

/// Five datanodes whose volumes are bound: 0 and 3 to node 0, 1 and 4 to node 1, 2 to node 2.
async fn five_bound() -> World {
    let world = five().await;
    for ordinal in 0..5 {
        let claim = format!("data-a-datanode-{ordinal}");
        let node = format!("node-{}", ordinal % 3);
        world.api.change("persistentvolumeclaims", &claim, |claim| {
            claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": node});
        });
    }
    world.converge(&world.operator()).await;
    world.tracker.take_told();
    world
}

#[tokio::test]
async fn i29_a_second_drain_that_waits_ends_the_announcement_of_the_first_and_then_goes_on() {
    let world = five_bound().await;
    let ctx = world.operator();
    cordon(&world, "node-2", true);
    assert_eq!(drain_round(&world, "node-2").await, ["a-datanode-2"]);
    announce(&world, "a-datanode-2");
    world.converge(&ctx).await;
    let pod = world.api.get("pods", "a-datanode-2").unwrap();
    assert!(pod["spec"]["nodeName"].is_null(), "it waits for its node");
    assert_eq!(budget(&world), 0);
    assert_eq!(
        world.tracker.take_told(),
        [],
        "one drain alone is waited for"
    );
    let away = world.uuid("a-datanode-2");
    cordon(&world, "node-1", true);
    assert_eq!(drain_round(&world, "node-1").await, Vec::<String>::new());
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(world.tracker.take_told(), [Told::EndMaintenance(away)]);
    let events = world.events();
    let told = events.iter().find(|(why, _)| why == "MaintenanceEnded");
    let (_, note) = told.unwrap_or_else(|| panic!("{events:?}"));
    for part in ["pod a-datanode-2", "drain of node-1", "a-datanode-1"] {
        assert!(note.contains(part), "{note}");
    }
    world.converge(&ctx).await;
    assert_eq!(world.tracker.take_told(), [], "once is enough");
    // Repair: what it held is whole elsewhere, and the other drain goes on.
    world.tracker.with(|state| {
        let others: Vec<_> = state
            .nodes
            .keys()
            .copied()
            .filter(|other| *other != away)
            .collect();
        for held in state.chunks.values_mut() {
            held.extend(&others);
        }
    });
    world.reconcile(&ctx).await.unwrap();
    let gone = drain_round(&world, "node-1").await;
    assert!(gone.contains(&"a-datanode-1".to_owned()), "{gone:?}");
}

#[tokio::test]
async fn an_operator_that_may_not_read_nodes_ends_no_announcement() {
    let world = five_bound().await;
    let ctx = world.operator();
    cordon(&world, "node-2", true);
    drain_round(&world, "node-2").await;
    announce(&world, "a-datanode-2");
    world.converge(&ctx).await;
    cordon(&world, "node-1", true);
    world
        .api
        .script(|call| (call.plural == "nodes").then_some(Fault::Status(403)));
    world.converge(&ctx).await;
    assert_eq!(world.tracker.take_told(), []);
}

#[tokio::test]
async fn a_tracker_without_a_datanode_beside_it_may_be_evicted() {
    let world = bound().await;
    let ctx = world.operator();
    assert_eq!(budget_of(&world, "a-tracker"), 0);
    for plural in ["pods", "persistentvolumeclaims"] {
        for name in world.api.list(plural) {
            let name = name["metadata"]["name"].as_str().unwrap();
            if name.contains("datanode-0") {
                world.api.change(plural, name, |one| {
                    one["spec"]["nodeName"] = json!("node-1");
                    one["metadata"]["annotations"] = json!({});
                });
            }
        }
    }
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(budget_of(&world, "a-tracker"), 1);
}
