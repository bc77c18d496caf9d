//! A new template: pods restart one by one, each with the tracker's word, and a bad one stops at the first.

use dfs_operator::error::ReconcileError;
use serde_json::{Value, json};

use crate::tracker::Told;
use crate::world::{BROKEN_IMAGE, World};

pub fn set_image(world: &World, image: &str) {
    let (repository, tag) = image.split_once(':').unwrap();
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["image"] = json!({"repository": repository, "tag": tag});
    });
}

fn pods(world: &World) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pods = world.api.list("pods").into_iter();
    pods.map(|pod| {
        let image = pod["spec"]["containers"][0]["image"].clone();
        (
            text(&pod["metadata"]["name"]),
            text(&pod["metadata"]["uid"]),
            text(&image),
        )
    })
    .collect()
}

/// Names of the pods whose image is this one.
fn with_image(world: &World, image: &str) -> Vec<String> {
    let pods = pods(world).into_iter();
    pods.filter(|(_, _, runs)| runs == image)
        .map(|(name, ..)| name)
        .collect()
}

fn is_going(world: &World, name: &str) -> bool {
    let pod = world.api.get("pods", name);
    pod.is_none_or(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
}

async fn three() -> World {
    let world = World::new();
    world.converge(&world.operator()).await;
    world.fill(12);
    world.tracker.take_told();
    world
}

#[tokio::test]
async fn i29_a_new_image_restarts_datanodes_one_by_one_and_the_tracker_last() {
    let world = three().await;
    let ctx = world.operator();
    set_image(&world, "dfs:next");
    let mut order = Vec::new();
    for _ in 0..40 {
        world.reconcile(&ctx).await.unwrap();
        let missing: Vec<_> = [
            "a-datanode-0",
            "a-datanode-1",
            "a-datanode-2",
            "a-tracker-0",
        ]
        .into_iter()
        .filter(|name| is_going(&world, name))
        .collect();
        assert!(missing.len() <= 1, "{missing:?} are away together");
        order.extend(missing.iter().map(|name| (*name).to_owned()));
        world.settle();
    }
    order.dedup();
    assert_eq!(
        order,
        [
            "a-datanode-2",
            "a-datanode-1",
            "a-datanode-0",
            "a-tracker-0"
        ]
    );
    let maintained = (0..3)
        .rev()
        .map(|at| Told::Maintain(world.uuid(&format!("a-datanode-{at}"))));
    let told = world.tracker.take_told();
    let told = told.iter().filter(|told| matches!(told, Told::Maintain(_)));
    assert!(told.eq(maintained.collect::<Vec<_>>().iter()));
    world.converge(&ctx).await;
    assert_eq!(with_image(&world, "dfs:next").len(), 4);
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("Progressing").0, "False");
    let cluster = world.api.get("dfsclusters", "a").unwrap();
    assert_eq!(cluster["status"]["dataNodes"]["updated"], 3);
    assert!(world.was_told("PodRestarted"), "{:?}", world.events());
}

#[tokio::test]
async fn i29_an_image_that_does_not_start_stops_at_the_first_pod_and_putting_it_back_heals() {
    let world = three().await;
    let ctx = world.operator();
    let before = pods(&world);
    set_image(&world, BROKEN_IMAGE);
    for _ in 0..20 {
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(with_image(&world, BROKEN_IMAGE), ["a-datanode-2"]);
    let (ready, reason, message) = world.condition("Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "RollStopped"));
    assert!(
        message.contains("a-datanode-2") && message.contains("CrashLoopBackOff"),
        "{message}"
    );
    assert_eq!(world.condition("Available").0, "True", "the others serve");
    set_image(&world, "dfs:test");
    world.converge(&ctx).await;
    assert_eq!(world.condition("Ready").0, "True");
    let after = pods(&world);
    let kept = before.iter().filter(|pod| after.contains(pod)).count();
    assert_eq!(kept, 3, "only the one that did not start was replaced");
}

#[tokio::test]
async fn i29_a_datanode_that_chunks_need_is_not_restarted() {
    let world = three().await;
    let ctx = world.operator();
    // Chunks on two datanodes alone: one of them less is one too few.
    world.tracker.with(|state| {
        let held = state.chunks.values_mut().next().unwrap();
        let first = *held.iter().next().unwrap();
        held.remove(&first);
        state.stuck = true;
    });
    set_image(&world, "dfs:next");
    for _ in 0..10 {
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    assert_eq!(with_image(&world, "dfs:next"), Vec::<String>::new());
    let (progressing, reason, message) = world.condition("Progressing");
    assert_eq!((progressing.as_str(), reason.as_str()), ("True", "Rolling"));
    assert!(message.contains("1 chunks lack replicas"), "{message}");
}

#[tokio::test]
async fn i29_a_budget_that_lets_nobody_go_holds_the_roll() -> Result<(), ReconcileError> {
    let world = three().await;
    let ctx = world.operator();
    set_image(&world, "dfs:next");
    // Somebody drains: the API server has just let another one go.
    world
        .api
        .script(|call| (call.subresource == "eviction").then_some(crate::api::Fault::Status(429)));
    for _ in 0..5 {
        world.reconcile(&ctx).await?;
        world.settle();
    }
    assert_eq!(with_image(&world, "dfs:next"), Vec::<String>::new());
    world.api.heal();
    world.converge(&ctx).await;
    assert_eq!(with_image(&world, "dfs:next").len(), 4);
    Ok(())
}

#[tokio::test]
async fn i25_no_datanode_is_removed_while_pods_are_restarted() {
    let world = World::new();
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(4);
    });
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.fill(12);
    set_image(&world, BROKEN_IMAGE);
    for _ in 0..6 {
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(3);
    });
    for _ in 0..6 {
        world.reconcile(&ctx).await.unwrap();
        world.settle();
    }
    let (blocked, _, message) = world.condition("ScaleDownBlocked");
    assert_eq!(blocked, "True", "{message}");
    assert_eq!(
        world.api.get("statefulsets", "a-datanode").unwrap()["spec"]["replicas"],
        4
    );
    set_image(&world, "dfs:test");
    world.converge(&ctx).await;
    assert_eq!(
        world.api.get("statefulsets", "a-datanode").unwrap()["spec"]["replicas"],
        3
    );
}
