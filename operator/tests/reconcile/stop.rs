//! `managementState: Stopped`: nothing runs, nothing is lost, and it starts again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_operator::ctx::Ctx;
use serde_json::{Value, json};

use crate::world::World;

pub fn state(world: &World, wanted: &str) {
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["managementState"] = json!(wanted);
    });
}

fn scale(world: &World, replicas: i32) {
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(replicas);
        cluster["spec"]["dataNodes"]["decommission"] = json!({"quietPeriod": "0"});
    });
}

/// Gateways, datanodes and trackers that are asked for.
fn replicas(world: &World) -> (i64, i64, i64) {
    let of = |plural: &str, name: &str| {
        let object = world.api.get(plural, name).unwrap();
        object["spec"]["replicas"].as_i64().unwrap()
    };
    (
        of("deployments", "a-gateway"),
        of("statefulsets", "a-datanode"),
        of("statefulsets", "a-tracker"),
    )
}

const NOTHING: (i64, i64, i64) = (0, 0, 0);

/// The numbers in the order in which they were asked for, until everything rests.
async fn course(world: &World, ctx: &Ctx) -> Vec<(i64, i64, i64)> {
    let mut seen = vec![replicas(world)];
    for _ in 0..16 {
        world.reconcile(ctx).await.unwrap();
        if seen.last() != Some(&replicas(world)) {
            seen.push(replicas(world));
        }
        world.settle();
    }
    world.converge(ctx).await;
    assert_eq!(seen.last(), Some(&replicas(world)), "it goes on and on");
    seen
}

fn claims(world: &World) -> Vec<Value> {
    let claims = world.api.list("persistentvolumeclaims").into_iter();
    claims
        .map(|claim| claim["metadata"]["uid"].clone())
        .collect()
}

fn assert_stopped(world: &World) {
    assert_eq!(replicas(world), NOTHING);
    assert_eq!(world.api.list("pods"), Vec::<Value>::new());
    for (kind, status, reason) in [
        ("Ready", "False", "Stopped"),
        ("Available", "False", "Stopped"),
        ("Progressing", "False", "Stopped"),
        ("Degraded", "False", "Stopped"),
        ("DataRedundant", "Unknown", "Stopped"),
        ("CatalogLost", "Unknown", "Stopped"),
        ("Decommissioning", "False", "NotRequested"),
        ("ScaleDownBlocked", "False", "NotRequested"),
        ("NodeLost", "False", "AsWanted"),
        ("Paused", "False", "Managed"),
    ] {
        let (truth, why, message) = world.condition(kind);
        assert_eq!(
            (truth.as_str(), why.as_str()),
            (status, reason),
            "{kind}: {message}"
        );
    }
}

/// Reasons of the events since `before` were all.
fn told(world: &World, before: &[(String, String)]) -> Vec<String> {
    let mut fresh = world.events();
    for old in before {
        let found = fresh.iter().position(|event| event == old);
        fresh.remove(found.unwrap());
    }
    let mut told: Vec<_> = fresh.into_iter().map(|(reason, _)| reason).collect();
    told.sort();
    told
}

#[tokio::test]
async fn a_stopped_cluster_ends_doors_first_tracker_last_and_starts_again_with_its_volumes() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.fill(9);
    let members = world.tracker.with(|state| state.nodes.clone());
    let volumes = claims(&world);
    let before = world.events();
    state(&world, "Stopped");
    let seen = course(&world, &ctx).await;
    assert_eq!(seen, [(2, 3, 1), (0, 3, 1), (0, 0, 1), NOTHING]);
    assert_stopped(&world);
    let (_, _, message) = world.condition("Ready");
    assert!(message.contains("every volume is kept"), "{message}");
    assert_eq!(claims(&world), volumes, "every volume is kept");
    let status = world.api.get("dfsclusters", "a").unwrap()["status"].clone();
    assert_eq!(status["dataNodes"]["summary"], "0/3");
    assert_eq!(status["dataNodes"]["registered"], 0);
    assert_eq!(status["chunks"]["missing"], 0, "nobody is missing a chunk");
    assert_eq!(status["members"].as_array().unwrap().len(), 3);
    assert_eq!(
        told(&world, &before),
        ["Stopped", "Stopping", "Stopping", "Stopping"]
    );
    world.tracker.take_told();
    // The same event is told again only after a while.
    world.clock.advance(Duration::from_mins(10));
    let before = world.events();
    state(&world, "Managed");
    let seen = course(&world, &ctx).await;
    assert_eq!(seen, [NOTHING, (0, 3, 1), (2, 3, 1)]);
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("Degraded").0, "False");
    let again = world.tracker.with(|state| state.nodes.clone());
    assert!(again.keys().eq(members.keys()), "the same datanodes");
    assert_eq!(claims(&world), volumes);
    assert_eq!(told(&world, &before), ["Ready", "Starting"]);
}

#[tokio::test]
async fn while_it_starts_it_says_so_and_a_pod_that_cannot_start_is_an_alarm() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    state(&world, "Stopped");
    course(&world, &ctx).await;
    for node in ["node-0", "node-1", "node-2"] {
        world.api.change("nodes", node, |node| {
            node["status"]["conditions"][0]["status"] = json!("False");
        });
    }
    state(&world, "Managed");
    world.reconcile(&ctx).await.unwrap();
    for (kind, status) in [
        ("Ready", "False"),
        ("Progressing", "True"),
        ("Degraded", "False"),
    ] {
        let (truth, reason, message) = world.condition(kind);
        assert_eq!(
            (truth.as_str(), reason.as_str()),
            (status, "Starting"),
            "{kind}: {message}"
        );
        assert!(message.contains("gateways wait"), "{message}");
    }
    world.settle();
    let datanode = |world: &World| {
        world.api.change("pods", "a-datanode-0", |pod| {
            pod["status"]["conditions"] =
                json!([{"type": "PodScheduled", "status": "False", "message": "no node"}]);
        });
    };
    datanode(&world);
    world.reconcile(&ctx).await.unwrap();
    let (degraded, reason, message) = world.condition("Degraded");
    assert_eq!(
        (degraded.as_str(), reason.as_str()),
        ("True", "TrackerNotReady"),
        "{message}"
    );
    for node in ["node-0", "node-1", "node-2"] {
        world.api.change("nodes", node, |node| {
            node["status"]["conditions"][0]["status"] = json!("True");
        });
    }
    world.converge(&ctx).await;
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn datanodes_run_for_as_long_as_a_gateway_finishes_an_upload() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    let labels = &world.api.get("deployments", "a-gateway").unwrap()["spec"]["template"]["metadata"]
        ["labels"];
    world.api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-gateway-x", "labels": labels},
            "spec": {"nodeName": "node-0"}, "status": {"phase": "Running"}}),
    );
    state(&world, "Stopped");
    for _ in 0..5 {
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(replicas(&world), (0, 3, 1));
    let (ready, reason, message) = world.condition("Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "Stopping"));
    assert!(
        message.contains("gateways end what they are at"),
        "{message}"
    );
    world.api.remove("pods", "a-gateway-x");
    course(&world, &ctx).await;
    assert_stopped(&world);
}

#[tokio::test]
async fn a_cluster_that_is_made_as_stopped_has_everything_but_pods_and_starts_empty() {
    let world = World::new();
    let ctx = world.operator();
    state(&world, "Stopped");
    world.converge(&ctx).await;
    assert_stopped(&world);
    assert!(world.api.get("secrets", "a-token").is_some());
    assert!(world.api.get("services", "a-gateway").is_some());
    assert_eq!(claims(&world), Vec::<Value>::new());
    state(&world, "Managed");
    let seen = course(&world, &ctx).await;
    assert_eq!(seen, [NOTHING, (0, 3, 1), (2, 3, 1)]);
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn i25_a_removal_under_way_ends_before_the_cluster_stops() {
    let world = World::new();
    let ctx = world.operator();
    scale(&world, 4);
    world.converge(&ctx).await;
    world.fill(9);
    let leaving = world.uuid("a-datanode-3");
    scale(&world, 3);
    world.settle();
    world.reconcile(&ctx).await.unwrap();
    state(&world, "Stopped");
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(
        replicas(&world),
        (2, 4, 1),
        "it is emptied while clients go on"
    );
    let (_, reason, message) = world.condition("Progressing");
    assert_eq!(reason, "Stopping", "{message}");
    assert!(
        message.contains("a-datanode-3 is on its way out"),
        "{message}"
    );
    assert_eq!(world.condition("Available").0, "True");
    let seen = course(&world, &ctx).await;
    assert_eq!(seen, [(2, 4, 1), (2, 3, 1), (0, 3, 1), (0, 0, 1), NOTHING]);
    let tombstoned = world.tracker.with(|state| state.nodes[&leaving].admin);
    assert_eq!(tombstoned, dfs_protocol::datanode::AdminState::Tombstoned);
    state(&world, "Managed");
    world.converge(&ctx).await;
    assert_eq!(replicas(&world), (2, 3, 1));
    assert_eq!(world.worst.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn i25_fewer_datanodes_asked_for_while_stopped_are_emptied_after_the_start() {
    let world = World::new();
    let ctx = world.operator();
    scale(&world, 4);
    world.converge(&ctx).await;
    world.fill(9);
    state(&world, "Stopped");
    world.converge(&ctx).await;
    scale(&world, 3);
    world.converge(&ctx).await;
    assert_stopped(&world);
    state(&world, "Managed");
    let seen = course(&world, &ctx).await;
    assert_eq!(seen[..3], [NOTHING, (0, 4, 1), (2, 4, 1)], "{seen:?}");
    assert_eq!(replicas(&world), (2, 3, 1));
    let needing = world.tracker.with(|state| state.below_factor());
    assert_eq!(needing, 0, "what the fourth held is whole on the others");
    assert_eq!(world.worst.load(Ordering::SeqCst), 0);
    assert!(!world.was_told("ScaleDownBlocked"), "{:?}", world.events());
}

#[tokio::test]
async fn what_changes_while_it_is_stopped_comes_with_the_start() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    state(&world, "Stopped");
    course(&world, &ctx).await;
    crate::growth::grow(&world);
    crate::roll::set_image(&world, "dfs:next");
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["metadata"]["annotations"] = json!({
            "dfs.io/acknowledge-catalog-lost": "x", "dfs.io/acknowledge-datanode-lost": "y",
        });
        cluster["spec"]["gateway"] = json!({"replicas": 3});
    });
    course(&world, &ctx).await;
    assert_stopped(&world);
    // Some storage can grow only what is not in use.
    for ordinal in 0..3 {
        let claim = format!("data-a-datanode-{ordinal}");
        let claim = world.api.get("persistentvolumeclaims", &claim).unwrap();
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "20Gi");
    }
    let (resizing, reason, message) = world.condition("StorageResizing");
    assert_eq!((resizing.as_str(), reason.as_str()), ("True", "Resizing"));
    assert!(message.contains("a-datanode is made anew"), "{message}");
    let kept = world.api.get("dfsclusters", "a").unwrap()["metadata"]["annotations"].clone();
    assert_eq!(
        kept["dfs.io/acknowledge-datanode-lost"], "y",
        "a human's word waits"
    );
    state(&world, "Managed");
    world.converge(&ctx).await;
    assert_eq!(replicas(&world), (3, 3, 1));
    assert_eq!(world.condition("StorageResizing").0, "False");
    let set = world.api.get("statefulsets", "a-datanode").unwrap();
    let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"];
    assert_eq!(template["requests"]["storage"], "20Gi");
    for pod in world.api.list("pods") {
        assert_eq!(pod["spec"]["containers"][0]["image"], "dfs:next");
    }
}

#[tokio::test]
async fn i25_nothing_stops_and_nothing_is_forced_while_the_tracker_answers_for_another_cluster() {
    let world = World::new();
    let ctx = world.operator();
    crate::nodes::policy(&world, "ForceDeleteWhenFenced");
    world.converge(&ctx).await;
    let own = world.tracker.with(|state| state.cluster);
    let other = dfs_protocol::ClusterId::from_u128(0xbad);
    world.tracker.with(|state| state.cluster = other);
    crate::nodes::silence(&world);
    crate::nodes::fence(&world);
    let stuck = world.api.get("pods", "a-datanode-1").unwrap();
    state(&world, "Stopped");
    for _ in 0..5 {
        world.clock.advance(Duration::from_mins(10));
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(replicas(&world), (2, 3, 1));
    let still = world.api.get("pods", "a-datanode-1").unwrap();
    assert_eq!(still["metadata"]["uid"], stuck["metadata"]["uid"]);
    for kind in ["Ready", "Degraded"] {
        assert_eq!(world.condition(kind).1, "WrongCluster", "{kind}");
    }
    let (moves, reason, message) = world.condition("Progressing");
    assert_eq!((moves.as_str(), reason.as_str()), ("True", "Stopping"));
    assert!(message.contains(&other.to_string()), "{message}");
    world.tracker.with(|state| state.cluster = own);
    for _ in 0..12 {
        world.clock.advance(Duration::from_mins(1));
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(replicas(&world), NOTHING);
}

#[tokio::test]
async fn i25_a_stop_beside_anothers_tracker_stays_held_while_that_tracker_is_silent() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    let own = world.tracker.with(|state| state.cluster);
    let other = dfs_protocol::ClusterId::from_u128(0xbad);
    world.tracker.with(|state| state.cluster = other);
    state(&world, "Stopped");
    world.reconcile(&ctx).await.unwrap();
    world.tracker.with(|state| state.mute = true);
    // An operator that starts anew knows no more than status does.
    for ctx in [ctx, world.operator()] {
        for _ in 0..3 {
            world.clock.advance(Duration::from_mins(10));
            world.reconcile(&ctx).await.unwrap();
            world.settle();
        }
        assert_eq!(replicas(&world), (2, 3, 1));
        let (ready, reason, message) = world.condition("Ready");
        assert_eq!((ready.as_str(), reason.as_str()), ("False", "WrongCluster"));
        assert!(message.contains("does not answer now"), "{message}");
    }
    world
        .tracker
        .with(|state| (state.mute, state.cluster) = (false, own));
    let ctx = world.operator();
    for _ in 0..12 {
        world.clock.advance(Duration::from_mins(1));
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(replicas(&world), NOTHING);
}

#[tokio::test]
async fn i25_a_stop_that_is_asked_for_after_anothers_tracker_fell_silent_is_held() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    let other = dfs_protocol::ClusterId::from_u128(0xbad);
    world.tracker.with(|state| state.cluster = other);
    world.reconcile(&ctx).await.unwrap();
    world.tracker.with(|state| state.mute = true);
    for _ in 0..3 {
        world.clock.advance(Duration::from_mins(10));
        world.reconcile(&ctx).await.unwrap();
    }
    state(&world, "Stopped");
    let ctx = world.operator();
    for _ in 0..3 {
        world.clock.advance(Duration::from_mins(10));
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(replicas(&world), (2, 3, 1));
    let (ready, reason, _) = world.condition("Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "WrongCluster"));
}

#[tokio::test]
async fn a_paused_cluster_that_was_stopped_stays_as_it_is() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    state(&world, "Stopped");
    course(&world, &ctx).await;
    state(&world, "Paused");
    course(&world, &ctx).await;
    assert_eq!(replicas(&world), NOTHING);
    assert_eq!(world.condition("Paused").0, "True");
    state(&world, "Managed");
    let seen = course(&world, &ctx).await;
    assert_eq!(seen, [NOTHING, (0, 3, 1), (2, 3, 1)]);
    assert_eq!(world.condition("Ready").0, "True");
}
