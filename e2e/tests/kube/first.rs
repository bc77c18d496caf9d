//! What a new user does, in this order.

use std::time::Instant;

use serde_json::json;

use crate::door::Door;
use crate::image::curl_in_and_out;
use crate::store::Cluster;
use crate::tools::{run, tree};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_installs_applies_waits_and_curls() {
    let Some(mut world) = World::start("first").await else {
        return;
    };
    world.install_operator(&[]);
    let sample = std::fs::read_to_string(tree().join("deploy/samples/small.yaml")).unwrap();
    let start = Instant::now();
    world.apply(&sample);
    let cluster = Cluster::named(&world, "small");
    cluster.wait_ready().await;
    eprintln!("  from apply to Ready: {:.1?}", start.elapsed());
    cluster.wait_registered(3).await;
    if world.ingress.is_some() {
        let ingress = json!({"host": world.host("small")});
        cluster.change(&json!({"gateway": {"ingress": ingress}}));
    }
    let door = cluster.door().await;
    curl_in_and_out(&door, 1);
    curl_in_and_out(&door, 64);
    cluster.wait_whole().await;
}

/// I26: the release goes and comes back, and the data with it.
#[tokio::test(flavor = "multi_thread")]
async fn i26_the_clusters_chart_tests_itself_and_its_data_outlives_the_release() {
    let Some(mut world) = World::start("chart").await else {
        return;
    };
    world.install_operator(&["--set", "replicas=2"]);
    let host = world.host("store");
    let door = format!(
        "ingress.enabled={},ingress.host={host}",
        world.ingress.is_some()
    );
    let namespace = world.namespace.clone();
    let helm = |args: &[&str]| {
        let told = run("helm", &[args, &["-n", &namespace]].concat(), None);
        told.unwrap()
    };
    let size = "dataNodes.storage.size=1Gi,spec.tracker.storage.size=1Gi";
    let install = [
        "install",
        "store",
        "charts/dfs-cluster",
        "--wait",
        "--timeout",
        "5m",
        "--set",
        &door,
        "--set",
        size,
    ];
    helm(&install);
    let cluster = Cluster::named(&world, "store");
    cluster.wait_ready().await;
    helm(&["test", "store", "--logs"]);
    let body = b"outlives the release";
    let door = cluster.door().await;
    let _stored = door.store.put("kept", &body[..]).await;
    drop(door);

    helm(&["uninstall", "store", "--wait"]);
    let claims = world.kubectl(&["get", "pvc", "-o", "name"]).unwrap();
    assert_eq!(claims.lines().count(), 4, "{claims}");
    helm(&install);
    cluster.wait_ready().await;
    let door: Door = cluster.door().await;
    assert_eq!(&door.store.get("kept").await[..], body);
    cluster.wait_whole().await;
}
