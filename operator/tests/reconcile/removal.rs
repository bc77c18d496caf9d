//! Fewer datanodes: each is emptied, proved twice, and only then taken away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use serde_json::{Value, json};

use crate::api::Fault;
use crate::tracker::Told;
use crate::world::World;

fn scale(world: &World, replicas: i32) {
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(replicas);
    });
}

fn replicas(world: &World) -> i64 {
    let set = world.api.get("statefulsets", "a-datanode").unwrap();
    set["spec"]["replicas"].as_i64().unwrap()
}

fn decommissions(world: &World) -> Vec<Value> {
    let cluster = world.api.get("dfsclusters", "a").unwrap();
    let listed = cluster["status"]["decommissions"].as_array();
    listed.cloned().unwrap_or_default()
}

/// A cluster of five with chunks on all of them.
async fn five() -> World {
    let world = World::new();
    scale(&world, 5);
    world.converge(&world.operator()).await;
    world.fill(20);
    world.tracker.take_told();
    world
}

/// Passes until something holds.
async fn pass_until(world: &World, what: &str, holds: impl Fn(&World) -> bool) {
    let ctx = world.operator();
    for _ in 0..80 {
        if holds(world) {
            return;
        }
        world.settle();
        world.clock.advance(Duration::from_secs(7));
        world.reconcile(&ctx).await.unwrap();
    }
    panic!("never: {what}; {:?}", decommissions(world));
}

fn state(world: &World, wanted: &str) -> bool {
    decommissions(world)
        .first()
        .is_some_and(|one| one["state"] == wanted)
}

/// Another replica of a chunk of this datanode is found damaged, and nothing is copied any more.
fn damage_beside(world: &World, id: DatanodeId) {
    world.tracker.with(|state| {
        let held = state
            .chunks
            .values_mut()
            .find(|held| held.contains(&id))
            .unwrap();
        let other = *held.iter().find(|other| **other != id).unwrap();
        held.remove(&other);
        state.stuck = true;
    });
}

#[tokio::test]
async fn i25_five_become_three_one_at_a_time_and_no_chunk_is_ever_below_its_factor() {
    let world = five().await;
    let gone = [world.uuid("a-datanode-4"), world.uuid("a-datanode-3")];
    scale(&world, 3);
    pass_until(&world, "the first is emptied", |world| {
        assert_eq!(replicas(world), 5, "lowered before anything was proved");
        state(world, "Quiet")
    })
    .await;
    let entry = &decommissions(&world)[0];
    assert_eq!(entry["node"], "a-datanode-4");
    assert_eq!(entry["datanodeId"], gone[0].to_string());
    assert_eq!(
        entry["pvcUid"],
        "persistentvolumeclaims-data-a-datanode-4-1"
    );
    assert_eq!(world.condition("Decommissioning").1, "QuietPeriod");
    assert_eq!(world.condition("ScaleDownBlocked").0, "False");
    assert_eq!(world.condition("Progressing").1, "ScalingDown");
    world.converge(&world.operator()).await;
    assert_eq!(replicas(&world), 3);
    assert_eq!(decommissions(&world), Vec::<Value>::new());
    let told = world.tracker.take_told();
    let expected: Vec<_> = gone
        .into_iter()
        .flat_map(|id| [Told::Decommission(id), Told::Deregister(id)])
        .collect();
    assert_eq!(told, expected, "one after the other");
    assert_eq!(
        world.worst.load(Ordering::SeqCst),
        0,
        "a chunk was below its factor"
    );
    for reason in ["DatanodeDecommissioning", "ScalingDown", "DatanodeRemoved"] {
        assert!(world.was_told(reason), "{reason}: {:?}", world.events());
    }
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("Decommissioning").0, "False");
    assert_eq!(
        world.api.list("persistentvolumeclaims").len(),
        6,
        "claims are kept"
    );
}

#[tokio::test]
async fn i25_what_the_first_verdict_said_is_asked_again_after_the_quiet_period() {
    let world = five().await;
    scale(&world, 4);
    pass_until(&world, "the first verdict", |world| state(world, "Quiet")).await;
    // A replica elsewhere is found damaged: what was whole a moment ago is not any more.
    let id = world.uuid("a-datanode-4");
    damage_beside(&world, id);
    let ctx = world.operator();
    for _ in 0..30 {
        world.settle();
        world.clock.advance(Duration::from_secs(31));
        world.reconcile(&ctx).await.unwrap();
        assert_eq!(replicas(&world), 5, "lowered on the first verdict alone");
    }
    assert!(
        state(&world, "Decommissioning"),
        "{:?}",
        decommissions(&world)
    );
    assert_eq!(world.tracker.take_told(), [Told::Decommission(id)]);
}

#[tokio::test]
async fn i25_the_second_verdict_rests_on_a_later_heartbeat() {
    let world = five().await;
    scale(&world, 4);
    pass_until(&world, "the first verdict", |world| state(world, "Quiet")).await;
    let ctx = world.operator();
    for _ in 0..10 {
        // Nobody is heard meanwhile.
        world.clock.advance(Duration::from_secs(31));
        world.reconcile(&ctx).await.unwrap();
    }
    assert!(state(&world, "Quiet"), "{:?}", decommissions(&world));
    world.converge(&ctx).await;
    assert_eq!(replicas(&world), 4);
}

#[tokio::test]
async fn i25_a_proof_that_fails_after_the_pod_is_gone_brings_it_back() {
    let world = five().await;
    scale(&world, 4);
    pass_until(&world, "the set is lowered", |world| replicas(world) == 4).await;
    let id = world.uuid("a-datanode-4");
    damage_beside(&world, id);
    pass_until(&world, "it is wanted again", |world| replicas(world) == 5).await;
    assert!(
        world
            .condition("ScaleDownBlocked")
            .2
            .contains("brought back")
    );
    world.tracker.with(|state| state.stuck = false);
    world.converge(&world.operator()).await;
    assert_eq!(
        replicas(&world),
        4,
        "the removal goes on when it is safe again"
    );
    let node = world.tracker.with(|state| state.nodes[&id].admin);
    assert_eq!(node, AdminState::Tombstoned);
}

#[tokio::test]
async fn i09_a_claim_that_comes_back_is_never_trusted() {
    let world = five().await;
    let old = world.uuid("a-datanode-4");
    scale(&world, 4);
    world.converge(&world.operator()).await;
    scale(&world, 5);
    world.converge(&world.operator()).await;
    let new = world.uuid("a-datanode-4");
    assert_ne!(old, new, "the uuid of a removed datanode serves again");
    let (old, new) = world
        .tracker
        .with(|state| (state.nodes[&old].clone(), state.nodes[&new].clone()));
    assert_eq!(
        (old.admin, new.admin),
        (AdminState::Tombstoned, AdminState::InService)
    );
    assert_eq!(old.volume, new.volume, "it is the same claim");
    assert_eq!(world.worst.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_claim_is_deleted_only_where_the_spec_says_so_and_after_the_uuid_is_deregistered() {
    let world = five().await;
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["pvcRetention"] = json!({"whenScaled": "Delete"});
    });
    scale(&world, 4);
    let id = world.uuid("a-datanode-4");
    let claim = |world: &World| world.api.get("persistentvolumeclaims", "data-a-datanode-4");
    pass_until(&world, "the claim is gone", |world| {
        let admin = world.tracker.with(|state| state.nodes[&id].admin);
        assert!(claim(world).is_some() || admin == AdminState::Tombstoned);
        claim(world).is_none()
    })
    .await;
    assert!(world.was_told("ClaimDeleted"));
    world.converge(&world.operator()).await;
    assert_eq!(world.api.list("persistentvolumeclaims").len(), 5);
}

#[tokio::test]
async fn raising_replicas_again_takes_a_removal_back() {
    for until in ["Decommissioning", "Quiet", "Removing"] {
        let world = five().await;
        let id = world.uuid("a-datanode-4");
        scale(&world, 4);
        pass_until(&world, until, |world| {
            state(world, until)
                && (until != "Decommissioning"
                    || decommissions(world)[0]["chunksRemaining"] != json!(null))
        })
        .await;
        scale(&world, 5);
        world.converge(&world.operator()).await;
        assert_eq!(replicas(&world), 5, "{until}");
        let told = world.tracker.take_told();
        assert_eq!(
            told,
            [Told::Decommission(id), Told::Recommission(id)],
            "{until}"
        );
        assert_eq!(decommissions(&world), Vec::<Value>::new());
        assert!(world.was_told("DatanodeRecommissioned"));
    }
}

#[tokio::test]
async fn fault_42_up_and_down_in_turn_while_it_works_comes_to_rest() {
    for seed in 0..12 {
        let world = five().await;
        let mut rng = fastrand::Rng::with_seed(seed);
        let ctx = world.operator();
        for _ in 0..40 {
            if rng.u32(..4) == 0 {
                scale(&world, 3 + rng.i32(..4));
            }
            world.settle();
            world.clock.advance(Duration::from_secs(rng.u64(..40)));
            let _may_conflict = world.reconcile(&ctx).await;
        }
        scale(&world, 3);
        world.converge(&ctx).await;
        assert_eq!(replicas(&world), 3, "seed {seed}");
        assert_eq!(world.worst.load(Ordering::SeqCst), 0, "seed {seed}");
        scale(&world, 5);
        world.converge(&ctx).await;
        assert_eq!(world.condition("Ready").0, "True", "seed {seed}");
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_and_nothing_is_touched() {
    type Change = fn(&World);
    let rows: [(&str, Change); 5] = [
        ("HeldBySpec", |world| {
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["decommission"] = json!({"mode": "Hold"});
            });
        }),
        ("UnderReplicated", |world| {
            world.tracker.with(|state| state.under_replicated = 7);
        }),
        ("NoSpace", |world| {
            world
                .tracker
                .with(|state| state.volume.free_bytes = 1 << 20);
        }),
        ("TrackerUnreadable", |world| {
            world.tracker.with(|state| state.mute = true);
        }),
        ("TooFewDatanodes", |world| {
            world.tracker.with(|state| {
                let nodes = state
                    .nodes
                    .values_mut()
                    .filter(|node| node.pod.as_deref() < Some("a-datanode-2"));
                nodes.for_each(|node| node.admin = AdminState::Decommissioned);
            });
        }),
    ];
    for (reason, change) in rows {
        let world = five().await;
        change(&world);
        scale(&world, 3);
        world.converge(&world.operator()).await;
        let (blocked, why, message) = world.condition("ScaleDownBlocked");
        assert_eq!(
            (blocked.as_str(), why.as_str()),
            ("True", reason),
            "{message}"
        );
        assert_eq!(
            (replicas(&world), world.tracker.take_told()),
            (5, vec![]),
            "{reason}"
        );
        assert!(world.was_told("ScaleDownBlocked"));
    }
}

#[tokio::test]
async fn a_removal_that_comes_no_nearer_is_told_with_the_chunks_in_the_way_and_a_human_may_name_it()
{
    let world = five().await;
    world.tracker.with(|state| state.stuck = true);
    scale(&world, 4);
    pass_until(&world, "it is emptied", |world| {
        state(world, "Decommissioning")
    })
    .await;
    pass_until(&world, "it is told", |world| {
        world.clock.advance(Duration::from_mins(5));
        world.condition("ScaleDownBlocked").1 == "Stalled"
    })
    .await;
    let message = world.condition("ScaleDownBlocked").2;
    assert!(
        message.contains("chunk-") && message.contains("30 min"),
        "{message}"
    );
    assert_eq!(replicas(&world), 5);
    let annotate = |value: &str| {
        world.api.change("dfsclusters", "a", |cluster| {
            cluster["metadata"]["annotations"] = json!({"dfs.io/remove-without-proof": value});
        });
    };
    let id = world.uuid("a-datanode-4");
    // Not a word about this very datanode.
    for other in ["true", &world.uuid("a-datanode-3").to_string()] {
        annotate(other);
        world.converge(&world.operator()).await;
        assert_eq!(replicas(&world), 5, "{other}");
    }
    annotate(&id.to_string());
    pass_until(&world, "it goes", |world| replicas(world) == 4).await;
    assert!(
        world
            .events()
            .iter()
            .any(|(_, note)| note.contains("a human names")),
        "{:?}",
        world.events()
    );
    world.converge(&world.operator()).await;
    assert!(
        !world
            .tracker
            .take_told()
            .iter()
            .any(|told| matches!(told, Told::Lost(_)))
    );
    // Its chunks are copied from the replicas that are left.
    world.tracker.with(|state| {
        let others: Vec<_> = state
            .nodes
            .values()
            .filter(|node| node.admin == AdminState::InService)
            .map(|node| node.id)
            .collect();
        for held in state.chunks.values_mut() {
            held.extend(&others);
        }
    });
    world.converge(&world.operator()).await;
    assert_eq!(world.tracker.take_told(), [Told::Deregister(id)]);
    assert_eq!(decommissions(&world), Vec::<Value>::new());
}

#[tokio::test]
async fn a_pod_whose_datanode_never_came_is_removed_without_one() {
    let world = World::new();
    world.converge(&world.operator()).await;
    scale(&world, 4);
    let ctx = world.operator();
    world.reconcile(&ctx).await.unwrap();
    // The API server knows the set, no node takes the pod.
    assert_eq!(replicas(&world), 4);
    scale(&world, 3);
    for _ in 0..4 {
        world.clock.advance(Duration::from_secs(31));
        world.reconcile(&ctx).await.unwrap();
    }
    assert_eq!(replicas(&world), 3);
    world.converge(&ctx).await;
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn a_set_that_someone_else_lowered_is_raised_while_its_datanode_holds_chunks() {
    let world = five().await;
    scale(&world, 4);
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["decommission"] = json!({"mode": "Hold"});
    });
    world.api.change("statefulsets", "a-datanode", |set| {
        set["spec"]["replicas"] = json!(4);
    });
    world.reconcile(&world.operator()).await.unwrap();
    assert_eq!(replicas(&world), 5);
    assert_eq!(world.condition("ScaleDownBlocked").1, "ScaledByHand");
}

#[tokio::test]
async fn i28_a_record_that_is_over_lowers_nothing() {
    let world = five().await;
    scale(&world, 4);
    pass_until(&world, "it may go", |world| state(world, "Removing")).await;
    let old = world.cluster();
    world.converge(&world.operator()).await;
    scale(&world, 5);
    world.converge(&world.operator()).await;
    world.tracker.take_told();
    // A watch that is far behind still shows the removal of the first datanode on that volume.
    let _outdated = dfs_operator::reconcile(&world.operator(), &old).await;
    assert_eq!(
        replicas(&world),
        5,
        "the newcomer was taken for the one that was proved empty"
    );
    assert_eq!(world.tracker.take_told(), []);
}

#[tokio::test]
async fn i28_a_set_that_changed_since_is_not_lowered() {
    let world = five().await;
    scale(&world, 4);
    pass_until(&world, "it may go", |world| state(world, "Removing")).await;
    world.api.script(|call| {
        let lowers = call.is_write() && call.plural == "statefulsets";
        lowers.then_some(Fault::Status(409))
    });
    let error = world.reconcile(&world.operator()).await.unwrap_err();
    assert!(error.to_string().contains("StatefulSet"), "{error}");
    assert_eq!(replicas(&world), 5);
    world.api.heal();
    world.converge(&world.operator()).await;
    assert_eq!(replicas(&world), 4);
}
