//! Scaling, deleting and applying again.

use crate::load::Load;
use crate::store::Cluster;
use crate::tools::until;
use crate::world::{DEADLINE, World};

#[tokio::test(flavor = "multi_thread")]
async fn i25_scaling_up_registers_and_scaling_down_is_held() {
    let Some(mut world) = World::start("scaling").await else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let load = Load::start(&door.store, "load");
    world
        .kubectl(&["scale", "dfs/store", "--replicas=5"])
        .unwrap();
    cluster.wait_registered(5).await;
    cluster.wait_ready().await;

    world
        .kubectl(&["scale", "dfs/store", "--replicas=3"])
        .unwrap();
    let (reason, message) = cluster.wait_condition("ScaleDownBlocked", "True").await;
    eprintln!("  ScaleDownBlocked: {reason}: {message}");
    let pods = || world.get(&["statefulset", "store-datanode"]);
    assert_eq!(pods().unwrap()["spec"]["replicas"], 5);
    // What the schema holds, whoever asks.
    let refused = world
        .kubectl(&["scale", "dfs/store", "--replicas=2"])
        .unwrap_err();
    assert!(refused.contains("replicas"), "{refused}");

    world
        .kubectl(&["scale", "dfs/store", "--replicas=5"])
        .unwrap();
    cluster.wait_condition("ScaleDownBlocked", "False").await;
    assert_eq!(pods().unwrap()["spec"]["replicas"], 5);
    let seen = load.stop().await;
    let failed = (seen.failed_writes, seen.failed_reads, seen.wrong_reads);
    assert_eq!(failed, (0, 0, 0), "{seen}");
    cluster.wait_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i26_a_cluster_that_is_deleted_and_applied_again_has_its_data() {
    let Some(mut world) = World::start("again").await else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let stored = door.store.put("kept", vec![7; 3 << 20]).await;
    drop(door);
    world
        .kubectl(&["delete", "dfs", "store", "--timeout=120s"])
        .unwrap();
    until("its pods are gone", DEADLINE, || async {
        match world.kubectl(&["get", "pods", "-o", "name"])?.as_str() {
            "" => Ok(()),
            pods => Err(pods.to_owned()),
        }
    })
    .await;
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let head = door.store.door.head("/files/kept").await.unwrap().ok();
    assert!(
        head.header("etag").contains(&stored.etag),
        "the very version"
    );
    assert!(door.store.get("kept").await[..] == vec![7; 3 << 20]);
    cluster.wait_whole().await;
}
