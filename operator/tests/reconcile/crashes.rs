//! The operator is killed between any two calls; the next one ends where an undisturbed one does.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::losses::agree;
use crate::roll::set_image;
use crate::world::{BROKEN_IMAGE, World};

/// Which calls count when the operator is killed after a number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Every one.
    All,
    /// Those that change something: in a long story the others would only repeat them.
    Effects,
}

/// Runs a story: `passes` reconciles, killing the operator once, after `calls` calls, then until
/// everything rests. Returns the end, and whether the operator lived long enough to be killed.
async fn end(
    story: impl AsyncFn(&World),
    counted: Counted,
    passes: u32,
    calls: Option<u64>,
) -> (Value, bool) {
    let world = World::new();
    story(&world).await;
    let mut ctx = world.operator();
    match (calls, counted) {
        (None, _) => {}
        (Some(calls), Counted::All) => world.gate.crash_after(calls),
        (Some(calls), Counted::Effects) => world.gate.crash_after_effects(calls),
    }
    let mut killed = false;
    for _ in 0..passes {
        world.settle();
        let pass = tokio::select! {
            ended = world.reconcile(&ctx) => Some(ended),
            () = world.gate.crashed() => None,
        };
        if pass.is_none() {
            killed = true;
            world.gate.reopen();
            ctx = world.operator();
        }
    }
    world.gate.reopen();
    world.converge(&ctx).await;
    assert_eq!(
        world.worst.load(Ordering::SeqCst),
        0,
        "killed after {calls:?} calls, a chunk was below its factor"
    );
    (world.end_state(), killed)
}

async fn killed_whenever(
    story: impl AsyncFn(&World),
    counted: Counted,
    passes: u32,
    least_kills: u32,
) {
    let (undisturbed, _) = end(&story, counted, passes, None).await;
    let mut kills = 0;
    for calls in 0.. {
        let (disturbed, killed) = end(&story, counted, passes, Some(calls)).await;
        if !killed {
            break;
        }
        kills += 1;
        assert_eq!(disturbed, undisturbed, "killed after {calls} calls");
    }
    assert!(
        kills >= least_kills,
        "only {kills} calls: the story tells nothing"
    );
}

async fn same_end_whenever_killed(story: impl AsyncFn(&World)) {
    killed_whenever(story, Counted::All, 8, 20).await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_cluster_is_made() {
    same_end_whenever_killed(async |_| {}).await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_cluster_grows() {
    same_end_whenever_killed(async |world: &World| {
        world.converge(&world.operator()).await;
        world.api.change("dfsclusters", "a", |cluster| {
            cluster["spec"]["dataNodes"]["replicas"] = json!(5);
        });
    })
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_lost_volume_is_told() {
    same_end_whenever_killed(async |world: &World| {
        world.converge(&world.operator()).await;
        world.api.remove("pods", "a-datanode-1");
        world
            .api
            .remove("persistentvolumeclaims", "data-a-datanode-1");
    })
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_lost_catalog_is_rebuilt() {
    same_end_whenever_killed(async |world: &World| {
        world.converge(&world.operator()).await;
        let id = world.tracker.with(|state| {
            state.catalog = dfs_operator::tracker_client::CatalogState::Lost;
            state.cluster.to_string()
        });
        agree(world, &id);
    })
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_datanodes_are_removed() {
    for policy in ["Retain", "Delete"] {
        killed_whenever(
            async |world: &World| {
                world.api.change("dfsclusters", "a", |cluster| {
                    cluster["spec"]["dataNodes"]["replicas"] = json!(4);
                    cluster["spec"]["dataNodes"]["pvcRetention"] = json!({"whenScaled": policy});
                    cluster["spec"]["dataNodes"]["decommission"] = json!({"quietPeriod": "0"});
                });
                world.converge(&world.operator()).await;
                world.fill(5);
                world.api.change("dfsclusters", "a", |cluster| {
                    cluster["spec"]["dataNodes"]["replicas"] = json!(3);
                });
            },
            Counted::Effects,
            20,
            10,
        )
        .await;
    }
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_removal_is_taken_back() {
    killed_whenever(
        async |world: &World| {
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(4);
            });
            world.converge(&world.operator()).await;
            world.fill(5);
            world.tracker.with(|state| state.stuck = true);
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(3);
            });
            world.converge(&world.operator()).await;
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(4);
            });
        },
        Counted::Effects,
        12,
        3,
    )
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_new_image_rolls() {
    for image in ["dfs:next", BROKEN_IMAGE] {
        killed_whenever(
            async |world: &World| {
                world.converge(&world.operator()).await;
                world.fill(5);
                set_image(world, image);
            },
            Counted::Effects,
            12,
            4,
        )
        .await;
    }
}

#[tokio::test]
async fn i27_killed_after_any_call_while_volumes_grow() {
    killed_whenever(
        async |world: &World| {
            world.converge(&world.operator()).await;
            crate::growth::grow(world);
        },
        Counted::Effects,
        8,
        8,
    )
    .await;
}

/// The set is made anew in the middle of a removal: it has the very replicas that it had.
#[tokio::test]
async fn i27_i25_killed_after_any_call_while_volumes_grow_and_a_datanode_leaves() {
    killed_whenever(
        async |world: &World| {
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(4);
                cluster["spec"]["dataNodes"]["decommission"] = json!({"quietPeriod": "0"});
            });
            world.converge(&world.operator()).await;
            world.fill(9);
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(3);
            });
            let ctx = world.operator();
            world.settle();
            world.reconcile(&ctx).await.unwrap();
            crate::growth::grow(world);
        },
        Counted::Effects,
        24,
        12,
    )
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_datanode_is_given_up() {
    killed_whenever(
        async |world: &World| {
            world.converge(&world.operator()).await;
            crate::nodes::vanish(world);
            crate::nodes::give_up(world, "a-datanode-1");
        },
        Counted::Effects,
        12,
        8,
    )
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_stuck_pod_is_taken_away() {
    killed_whenever(
        async |world: &World| {
            crate::nodes::policy(world, "ForceDeleteWhenFenced");
            world.converge(&world.operator()).await;
            crate::nodes::silence(world);
            crate::nodes::fence(world);
        },
        Counted::Effects,
        8,
        4,
    )
    .await;
}

#[tokio::test]
async fn i27_killed_after_any_call_while_a_cluster_stops() {
    killed_whenever(
        async |world: &World| {
            world.converge(&world.operator()).await;
            world.fill(5);
            crate::stop::state(world, "Stopped");
        },
        Counted::Effects,
        8,
        6,
    )
    .await;
}

/// From rest, and from the middle of the stop: after so many passes it is taken back.
#[tokio::test]
async fn i27_killed_after_any_call_while_a_cluster_starts() {
    for passes in [2, 3, 12] {
        killed_whenever(
            async |world: &World| {
                let ctx = world.operator();
                world.converge(&ctx).await;
                world.fill(5);
                crate::stop::state(world, "Stopped");
                for _ in 0..passes {
                    world.reconcile(&ctx).await.unwrap();
                    world.settle();
                }
                crate::stop::state(world, "Managed");
            },
            Counted::Effects,
            10,
            4,
        )
        .await;
    }
}

/// The removal ends first, and what its record says holds whoever goes on from it.
#[tokio::test]
async fn i27_i25_killed_after_any_call_while_a_cluster_stops_and_a_datanode_leaves() {
    killed_whenever(
        async |world: &World| {
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(4);
                cluster["spec"]["dataNodes"]["decommission"] = json!({"quietPeriod": "0"});
            });
            let ctx = world.operator();
            world.converge(&ctx).await;
            world.fill(9);
            world.api.change("dfsclusters", "a", |cluster| {
                cluster["spec"]["dataNodes"]["replicas"] = json!(3);
            });
            world.settle();
            world.reconcile(&ctx).await.unwrap();
            crate::stop::state(world, "Stopped");
        },
        Counted::Effects,
        24,
        12,
    )
    .await;
}
