//! Scaling, deleting and applying again.

use std::time::Duration;

use dfs_protocol::status::DatanodeStatus;
use serde_json::{Value, json};

use crate::load::Load;
use crate::loss::goes_on;
use crate::measure::assert_no_early_removal;
use crate::store::Cluster;
use crate::tools::{load_mib, text, until};
use crate::world::{DEADLINE, World};

/// Datanodes' objects.
const DATANODES: &str = "app.kubernetes.io/component=datanode";

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
    let load = Load::start_full(&door.store, "load").await;
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
    let patience = 2 * DEADLINE + Duration::from_secs(load_mib());
    until("two have left", patience, || async {
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
    assert_no_early_removal(&world.namespace).await;
}

/// What the operator is at with the newest spec: `true` once datanodes are on their way out.
fn at_work(cluster: &Cluster<'_>) -> Result<(bool, String), String> {
    let (leaving, why, message) = cluster.condition("Decommissioning")?;
    let (blocked, _, because) = cluster.condition("ScaleDownBlocked")?;
    let is_begun = leaving == "True" || blocked == "True";
    Ok((is_begun, format!("{why}: {message}; {because}")))
}

/// Pods of the datanodes, and how often what there is to be of them was changed.
fn shape(world: &World) -> Result<(Value, Value), String> {
    let pods = world.each(&["pods", "-l", DATANODES], |pod| {
        text(&pod["metadata"]["uid"])
    })?;
    let set = world.get(&["statefulset", "store-datanode"])?;
    Ok((json!(pods), set["metadata"]["generation"].clone()))
}

/// Three, five, three, five, three, five: each wish while the operator is at the last one.
#[tokio::test(flavor = "multi_thread")]
async fn i25_fault_42_minds_that_change_all_the_time_converge_and_no_removal_is_early() {
    let Some(mut world) = World::start("minds").await else {
        return;
    };
    world.install_operator(&[]);
    let soon = json!({ "dataNodes": { "decommission": { "quietPeriod": "2s" } } });
    let cluster = Cluster::apply_with(&world, "store", 5, &soon);
    cluster.wait_ready().await;
    cluster.wait_registered(5).await;
    let door = cluster.door().await;
    let load = Load::start_full(&door.store, "load").await;
    goes_on(&load).await;
    for wish in [3, 5, 3, 5, 3, 5] {
        let replicas = format!("--replicas={wish}");
        world.kubectl(&["scale", "dfs/store", &replicas]).unwrap();
        let told = until(&format!("it is at work for {wish}"), DEADLINE, || async {
            let (leaves, told) = at_work(&cluster)?;
            (leaves || wish == 5).then(|| told.clone()).ok_or(told)
        })
        .await;
        eprintln!("  {wish}: {told}");
    }
    let patience = 2 * DEADLINE + Duration::from_secs(load_mib());
    until("nobody leaves", patience, || async {
        let (leaves, told) = at_work(&cluster)?;
        (!leaves).then_some(()).ok_or(told)
    })
    .await;
    cluster.wait_registered(5).await;
    cluster.wait_ready().await;
    cluster.wait_whole().await;
    let before = shape(&world).unwrap();
    goes_on(&load).await;
    assert_eq!(shape(&world).unwrap(), before, "it does not come to rest");
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    assert_no_early_removal(&world.namespace).await;
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
