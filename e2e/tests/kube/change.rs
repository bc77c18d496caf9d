//! Scaling, deleting and applying again.

use dfs_protocol::status::DatanodeStatus;
use serde_json::json;

use crate::load::Load;
use crate::store::Cluster;
use crate::tools::until;
use crate::world::{DEADLINE, World};

/// Five, then three: each leaves empty and proved. Then five again, on the claims that were kept and that nobody trusts.
#[tokio::test(flavor = "multi_thread")]
async fn i25_fault_42_datanodes_leave_one_at_a_time_with_a_proof_and_return_as_newcomers() {
    let Some(mut world) = World::start("scaling").await else {
        return;
    };
    world.install_operator(&[]);
    let soon = json!({ "dataNodes": { "decommission": { "quietPeriod": "2s" } } });
    let cluster = Cluster::apply_with(&world, "store", 3, &soon);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let load = Load::start(&door.store, "load");
    let scale = |replicas: u32| {
        let replicas = format!("--replicas={replicas}");
        world.kubectl(&["scale", "dfs/store", &replicas])
    };
    scale(5).unwrap();
    let five = cluster.wait_registered(5).await;
    cluster.wait_ready().await;
    // What the schema holds, whoever asks.
    let refused = scale(2).unwrap_err();
    assert!(refused.contains("replicas"), "{refused}");

    scale(3).unwrap();
    let (reason, message) = cluster.wait_condition("Decommissioning", "True").await;
    eprintln!("  Decommissioning: {reason}: {message}");
    let replicas = || {
        let set = world.get(&["statefulset", "store-datanode"])?;
        Ok::<_, String>((
            set["spec"]["replicas"].clone(),
            set["status"]["replicas"].clone(),
        ))
    };
    until("two have left", 2 * DEADLINE, || async {
        let now = replicas()?;
        let told = cluster.condition("Decommissioning")?;
        let done = now == (json!(3), json!(3)) && told.0 == "False";
        done.then_some(())
            .ok_or_else(|| format!("{now:?}: {told:?}"))
    })
    .await;
    let three = cluster.wait_registered(3).await;
    cluster.wait_ready().await;
    let claims = world.kubectl(&["get", "pvc", "-o", "name"]).unwrap();
    assert_eq!(claims.lines().count(), 6, "claims are kept: {claims}");
    cluster.wait_whole().await;

    scale(5).unwrap();
    let again = cluster.wait_registered(5).await;
    let known = |nodes: &[DatanodeStatus], id| nodes.iter().any(|node| node.id == id);
    let newcomers = again.iter().filter(|node| !known(&three, node.id));
    let returned = newcomers.filter(|node| known(&five, node.id)).count();
    assert_eq!(returned, 0, "a uuid that was deregistered came back");
    cluster.wait_ready().await;
    load.stop().await.assert_nothing_failed();
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
