//! The operator is killed between any two calls; the next one ends where an undisturbed one does.

use serde_json::{Value, json};

use crate::world::World;

/// Runs a story: reconciles until everything rests, killing the operator once, after `calls` calls.
/// Returns the end, and whether the operator lived long enough to be killed.
async fn end(story: impl AsyncFn(&World), calls: Option<u64>) -> (Value, bool) {
    let world = World::new();
    story(&world).await;
    let mut ctx = world.operator();
    if let Some(calls) = calls {
        world.gate.crash_after(calls);
    }
    let mut killed = false;
    for _ in 0..8 {
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
    (world.end_state(), killed)
}

async fn same_end_whenever_killed(story: impl AsyncFn(&World)) {
    let (undisturbed, _) = end(&story, None).await;
    let mut kills = 0;
    for calls in 0.. {
        let (disturbed, killed) = end(&story, Some(calls)).await;
        if !killed {
            break;
        }
        kills += 1;
        assert_eq!(disturbed, undisturbed, "killed after {calls} calls");
    }
    assert!(kills > 20, "only {kills} calls: the story tells nothing");
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
        world.api.change("dfsclusters", "a", |cluster| {
            cluster["metadata"]["annotations"] = json!({"dfs.io/acknowledge-catalog-lost": id});
        });
    })
    .await;
}
