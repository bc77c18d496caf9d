//! Nodes that are lost, pods that cannot end, datanodes that are given up.

use serde_json::{Value, json};

use crate::api::Fault;
use crate::tracker::Told;
use crate::world::World;

const PAST: &str = "1970-01-01T00:00:01Z";

pub fn policy(world: &World, policy: &str) {
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["nodeLossPolicy"] = json!(policy);
        cluster["spec"]["repairDelay"] = json!("1m");
    });
}

/// Node 1 is silent for long, and its pod does not end.
pub fn silence(world: &World) {
    world.api.change("nodes", "node-1", |node| {
        node["status"]["conditions"][0] =
            json!({"type": "Ready", "status": "Unknown", "lastTransitionTime": PAST});
    });
    world.api.change("pods", "a-datanode-1", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!(PAST);
    });
}

pub fn fence(world: &World) {
    world.api.change("nodes", "node-1", |node| {
        node["spec"]["taints"] =
            json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
    });
}

/// Node 1 does not exist any more, and the volume of its datanode was there: a new pod waits for it.
pub fn vanish(world: &World) {
    world
        .api
        .change("persistentvolumeclaims", "data-a-datanode-1", |claim| {
            claim["metadata"]["annotations"] =
                json!({"volume.kubernetes.io/selected-node": "node-1"});
        });
    world.api.remove("nodes", "node-1");
    world.api.remove("pods", "a-datanode-1");
}

/// A human gives a datanode up.
pub fn give_up(world: &World, pod: &str) {
    let id = world.uuid(pod);
    world.tracker.with(|state| state.given_up = Some(id));
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["metadata"]["annotations"] =
            json!({"dfs.io/acknowledge-datanode-lost": id.to_string()});
    });
}

fn uid(world: &World, plural: &str, name: &str) -> Value {
    world.api.get(plural, name).unwrap()["metadata"]["uid"].clone()
}

async fn passes(world: &World) {
    let ctx = world.operator();
    for _ in 0..6 {
        world.settle();
        world.clock.advance(std::time::Duration::from_secs(31));
        world.reconcile(&ctx).await.unwrap();
    }
}

#[tokio::test]
async fn fault_30_a_pod_on_a_silent_node_stays_until_the_node_is_fenced() {
    let world = World::new();
    policy(&world, "ForceDeleteWhenFenced");
    world.converge(&world.operator()).await;
    let pod = uid(&world, "pods", "a-datanode-1");
    silence(&world);
    passes(&world).await;
    let (lost, reason, message) = world.condition("NodeLost");
    assert_eq!((lost.as_str(), reason.as_str()), ("True", "NodeNotReady"));
    assert!(
        message.contains("a-datanode-1 is on node node-1"),
        "{message}"
    );
    assert!(world.was_told("NodeLost"));
    assert_eq!(
        uid(&world, "pods", "a-datanode-1"),
        pod,
        "it may still run there"
    );
    fence(&world);
    world.converge(&world.operator()).await;
    assert_ne!(uid(&world, "pods", "a-datanode-1"), pod);
    assert!(world.was_told("PodForceDeleted"), "{:?}", world.events());
    assert_eq!(world.condition("NodeLost").0, "False");
    assert!(world.was_told("NodeLossOver"));
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn fault_30_nothing_is_forced_without_the_policy_or_the_right_to_read_nodes() {
    for (loss_policy, readable) in [("DoNothing", true), ("ForceDeleteWhenFenced", false)] {
        let world = World::new();
        policy(&world, loss_policy);
        world.converge(&world.operator()).await;
        let pod = uid(&world, "pods", "a-datanode-1");
        silence(&world);
        fence(&world);
        if !readable {
            world
                .api
                .script(|call| (call.plural == "nodes").then_some(Fault::Status(403)));
        }
        passes(&world).await;
        assert_eq!(uid(&world, "pods", "a-datanode-1"), pod);
        let reason = if readable { "NodeNotReady" } else { "PodStuck" };
        assert_eq!(world.condition("NodeLost").1, reason);
    }
}

#[tokio::test]
async fn fault_32_a_datanode_that_is_given_up_returns_as_a_new_one_on_a_new_volume() {
    let world = World::new();
    world.converge(&world.operator()).await;
    world.tracker.take_told();
    let old = world.uuid("a-datanode-1");
    let claim = uid(&world, "persistentvolumeclaims", "data-a-datanode-1");
    vanish(&world);
    passes(&world).await;
    assert_eq!(world.condition("NodeLost").1, "NodeGone");
    let word = format!("dfs.io/acknowledge-datanode-lost={old}");
    let message = world.condition("NodeLost").2;
    assert!(message.contains(&word), "{message}");
    assert_eq!(world.tracker.take_told(), []);
    // Another's name is no word about this one: it lives.
    give_up(&world, "a-datanode-2");
    passes(&world).await;
    assert_eq!(world.tracker.take_told(), []);
    give_up(&world, "a-datanode-1");
    world.converge(&world.operator()).await;
    let new = world.uuid("a-datanode-1");
    assert_ne!(new, old, "the same uuid on a new disk");
    let told = world.tracker.take_told();
    assert!(
        matches!(&told[..], [Told::Lost(lost), Told::Admit(admitted, _)] if *lost == old && *admitted == new),
        "{told:?}"
    );
    assert_ne!(
        uid(&world, "persistentvolumeclaims", "data-a-datanode-1"),
        claim
    );
    let object = world.api.get("dfsclusters", "a").unwrap();
    assert_eq!(
        object["metadata"]["annotations"],
        json!({}),
        "the word was for this one loss"
    );
    assert_eq!(object["status"]["loss"], Value::Null);
    for reason in ["DatanodeLost", "ClaimDeleted", "LossSettled"] {
        assert!(world.was_told(reason), "{reason}: {:?}", world.events());
    }
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("NodeLost").0, "False");
}

#[tokio::test]
async fn fault_32_the_stuck_pod_of_a_datanode_that_is_given_up_goes_and_its_claim_with_it() {
    let world = World::new();
    policy(&world, "ForceDeleteWhenFenced");
    world.converge(&world.operator()).await;
    let old = world.uuid("a-datanode-1");
    let claim = uid(&world, "persistentvolumeclaims", "data-a-datanode-1");
    silence(&world);
    give_up(&world, "a-datanode-1");
    passes(&world).await;
    let kept = world
        .api
        .get("persistentvolumeclaims", "data-a-datanode-1")
        .unwrap();
    assert_eq!(kept["metadata"]["uid"], claim, "its pod may still write");
    assert!(!kept["metadata"]["deletionTimestamp"].is_null());
    fence(&world);
    world.converge(&world.operator()).await;
    assert_ne!(world.uuid("a-datanode-1"), old);
    assert_ne!(
        uid(&world, "persistentvolumeclaims", "data-a-datanode-1"),
        claim
    );
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn i01_a_datanode_with_the_last_replica_of_a_chunk_is_kept_although_it_is_given_up() {
    let world = World::new();
    world.converge(&world.operator()).await;
    let claim = uid(&world, "persistentvolumeclaims", "data-a-datanode-1");
    let id = world.uuid("a-datanode-1");
    world
        .tracker
        .with(|state| state.chunks.insert(1, [id].into()));
    vanish(&world);
    give_up(&world, "a-datanode-1");
    passes(&world).await;
    let (lost, reason, message) = world.condition("NodeLost");
    assert_eq!(
        (lost.as_str(), reason.as_str()),
        ("True", "LossNotAccepted")
    );
    assert!(message.contains("1 chunks have no replica"), "{message}");
    assert!(message.contains("--accept-loss"), "{message}");
    assert!(world.was_told("LossNotAccepted"));
    assert_eq!(
        uid(&world, "persistentvolumeclaims", "data-a-datanode-1"),
        claim
    );
    let object = world.api.get("dfsclusters", "a").unwrap();
    assert!(
        object["metadata"]["annotations"].as_object().unwrap().len() == 1,
        "{object}"
    );
}

#[tokio::test]
async fn full_volumes_are_told_and_growth_relieves_them() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.with(|state| {
        (state.volume.free_bytes, state.volume.read_only) = (0, true);
    });
    world.converge(&ctx).await;
    assert_eq!(world.condition("Degraded").1, "VolumesFull");
    assert!(world.was_told("VolumesFull"));
    crate::growth::grow(&world);
    world.tracker.with(|state| {
        (state.volume.free_bytes, state.volume.read_only) = (10 << 30, false);
    });
    world.converge(&ctx).await;
    assert_eq!(world.condition("Degraded").0, "False");
    assert!(world.was_told("VolumesRelieved"));
}
