//! Volumes that are gone, and pods that move.

use dfs_operator::tracker_client::CatalogState;
use serde_json::json;

use crate::tracker::Told;
use crate::world::World;

#[tokio::test]
async fn a_pod_that_comes_back_elsewhere_is_told_to_the_tracker() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    world.api.change("pods", "a-datanode-1", |pod| {
        pod["spec"]["nodeName"] = json!("node-2");
        pod["status"]["podIP"] = json!("10.0.0.77");
    });
    world.converge(&ctx).await;
    let told = world.tracker.take_told();
    let id = world.uuid("a-datanode-1");
    assert!(
        matches!(&told[..], [Told::Admit(moved, to)] if *moved == id && to.host == "node-2"
            && to.zone.as_deref() == Some("z0")),
        "{told:?}"
    );
    assert!(world.was_told("DatanodeMoved"));
}

#[tokio::test]
async fn a_lost_volume_is_told_only_after_its_chunks_are_whole_elsewhere() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    let old = world.uuid("a-datanode-1");
    world.api.remove("pods", "a-datanode-1");
    world
        .api
        .remove("persistentvolumeclaims", "data-a-datanode-1");
    world
        .tracker
        .with(|state| (state.safe, state.under_replicated) = (false, 7));
    world.converge(&ctx).await;
    let new = world.uuid("a-datanode-1");
    assert_ne!(old, new, "a new volume never has the old uuid");
    let told = world.tracker.take_told();
    assert!(
        matches!(&told[..], [Told::Admit(id, _)] if *id == new),
        "{told:?}"
    );
    let (redundant, reason, message) = world.condition("DataRedundant");
    assert_eq!(
        (redundant.as_str(), reason.as_str()),
        ("False", "UnderReplicated")
    );
    assert!(message.contains("7 chunks"), "{message}");
    assert!(
        world.condition("Ready").2.contains("volume of datanode"),
        "{:?}",
        world.condition("Ready")
    );
    assert!(world.was_told("RepairStarted"));
    world
        .tracker
        .with(|state| (state.safe, state.under_replicated) = (true, 0));
    world.converge(&ctx).await;
    assert_eq!(world.tracker.take_told(), [Told::Lost(old)]);
    for reason in ["DatanodeLost", "RepairFinished"] {
        assert!(world.was_told(reason), "{:?}", world.events());
    }
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("Degraded").0, "False");
}

/// A pod that ends announces that it is away for a while, also when its claim goes with it.
#[tokio::test]
async fn a_datanode_whose_volume_is_gone_is_waited_for_no_longer() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    let leave = |ordinal: usize| {
        let pod = format!("a-datanode-{ordinal}");
        let id = world.uuid(&pod);
        world.tracker.with(|state| {
            state.away.insert(id);
            let node = state.nodes.get_mut(&id).unwrap();
            node.maintenance_until = Some("2026-01-31T12:00:00Z".into());
        });
        world.api.remove("pods", &pod);
        id
    };
    leave(0);
    world.converge(&ctx).await;
    assert_eq!(
        world.tracker.take_told(),
        [],
        "its volume is there: it comes back"
    );
    let old = leave(1);
    world
        .api
        .remove("persistentvolumeclaims", "data-a-datanode-1");
    world
        .tracker
        .with(|state| (state.safe, state.under_replicated) = (false, 7));
    world.converge(&ctx).await;
    let told = world.tracker.take_told();
    let ended = told
        .iter()
        .filter(|told| **told == Told::EndMaintenance(old));
    assert_eq!(ended.count(), 1, "{told:?}");
    assert!(world.was_told("VolumeGone"), "{:?}", world.events());
}

#[tokio::test]
async fn a_copied_uuid_is_never_bound_to_a_second_volume() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    // The record of datanode 1 says another volume: its directory was copied onto this claim.
    let id = world.uuid("a-datanode-1");
    world.tracker.with(|state| {
        state.nodes.get_mut(&id).unwrap().volume = Some("another-claim".into());
    });
    world.converge(&ctx).await;
    assert_eq!(world.tracker.take_told(), []);
    let (degraded, reason, message) = world.condition("Degraded");
    assert_eq!(
        (degraded.as_str(), reason.as_str()),
        ("True", "IdentityConflict")
    );
    assert!(message.contains("directory was copied"), "{message}");
    assert!(world.was_told("IdentityConflict"));
}

/// A human's word that the catalog is lost.
pub fn agree(world: &World, word: &str) {
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["metadata"]["annotations"] = json!({"dfs.io/acknowledge-catalog-lost": word});
    });
}

#[tokio::test]
async fn a_lost_catalog_waits_for_a_human_then_for_every_datanode_then_comes_back() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    world
        .tracker
        .with(|state| state.catalog = CatalogState::Lost);
    world.converge(&ctx).await;
    let (lost, reason, message) = world.condition("CatalogLost");
    assert_eq!(
        (lost.as_str(), reason.as_str()),
        ("True", "AwaitingAcknowledgement")
    );
    let id = world.cluster().status.unwrap().cluster_id.unwrap();
    let command = format!("kubectl annotate dfs a dfs.io/acknowledge-catalog-lost={id}");
    assert!(message.contains(&command), "{message}");
    assert!(world.was_told("CatalogLost"));
    assert_eq!(world.tracker.take_told(), []);
    agree(&world, "another-cluster");
    world.converge(&ctx).await;
    assert_eq!(
        world.tracker.take_told(),
        [],
        "an agreement for another cluster is none"
    );
    agree(&world, &id);
    world.api.change("pods", "a-datanode-2", |pod| {
        pod["status"]["podIP"] = json!(null);
    });
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(world.condition("CatalogLost").1, "AwaitingDatanodes");
    assert!(world.condition("CatalogLost").2.contains("a-datanode-2"));
    assert_eq!(world.tracker.take_told(), []);
    world.api.remove("pods", "a-datanode-2");
    world.converge(&ctx).await;
    let told = world.tracker.take_told();
    assert!(
        matches!(&told[..], [Told::Rebuild(from)] if from.len() == 3),
        "{told:?}"
    );
    assert_eq!(world.condition("CatalogLost").1, "Rebuilding");
    world
        .tracker
        .with(|state| state.catalog = CatalogState::Open);
    world.converge(&ctx).await;
    assert_eq!(world.condition("CatalogLost").0, "False");
    assert_eq!(world.condition("Ready").0, "True");
    assert!(world.was_told("CatalogRebuilt"));
    let annotations = &world.api.get("dfsclusters", "a").unwrap()["metadata"]["annotations"];
    assert_eq!(
        *annotations,
        json!({}),
        "the agreement was for that one loss"
    );
}

/// A node that never comes back held the tracker's volume and a datanode's.
#[tokio::test]
async fn a_lost_catalog_is_rebuilt_without_the_datanode_that_a_human_gives_up_and_no_other() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    world
        .tracker
        .with(|state| state.catalog = CatalogState::Lost);
    let id = world.cluster().status.unwrap().cluster_id.unwrap();
    world.api.change("pods", "a-datanode-1", |pod| {
        pod["status"]["podIP"] = json!(null);
    });
    agree(&world, &id);
    world.reconcile(&ctx).await.unwrap();
    let (_, reason, message) = world.condition("CatalogLost");
    assert_eq!(reason, "AwaitingDatanodes");
    let offered = format!("'dfs.io/acknowledge-catalog-lost={id} without a-datanode-1'");
    assert!(message.contains(&offered), "{message}");
    for word in ["without a-datanode-0", "with a-datanode-1", "nonsense"] {
        agree(&world, &format!("{id} {word}"));
        world.reconcile(&ctx).await.unwrap();
        assert_eq!(world.tracker.take_told(), [], "{word}");
    }
    agree(&world, &format!("{id} without a-datanode-1"));
    world.reconcile(&ctx).await.unwrap();
    let told = world.tracker.take_told();
    assert!(
        matches!(&told[..], [Told::Rebuild(from)] if from.len() == 2),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_tracker_of_another_cluster_is_told_nothing() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    world.tracker.with(|state| {
        state.cluster = dfs_protocol::ClusterId::from_u128(0xdead);
        state.nodes.clear();
    });
    world.converge(&ctx).await;
    assert_eq!(world.tracker.take_told(), []);
    assert_eq!(world.condition("Ready").1, "WrongCluster");
    let recorded = world.cluster().status.unwrap().cluster_id.unwrap();
    assert!(
        recorded.ends_with("c1"),
        "the record of the cluster was overwritten"
    );
}

#[tokio::test]
async fn what_a_cluster_waits_for_is_told_in_a_sentence() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.api.change("nodes", "node-0", |node| {
        node["status"]["conditions"][0]["status"] = json!("Unknown");
    });
    world.api.change("pods", "a-tracker-0", |pod| {
        pod["spec"]["nodeName"] = json!(null);
        pod["status"] = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]});
    });
    world
        .api
        .change("persistentvolumeclaims", "data-a-tracker-0", |claim| {
            claim["metadata"]["annotations"] =
                json!({"volume.kubernetes.io/selected-node": "node-0"});
        });
    world.tracker.with(|state| state.mute = true);
    world.reconcile(&ctx).await.unwrap();
    let (_, reason, message) = world.condition("Ready");
    assert_eq!(reason, "TrackerNotReady");
    assert!(
        message
            .starts_with("pod a-tracker-0 is Pending: its volume is on node-0, which is NotReady"),
        "{message}"
    );
}
