//! New templates under load: pods change one by one, and a bad one stops at the first.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::loss::{busy, goes_on};
use crate::store::Cluster;
use crate::tools::{said_by, text, until};
use crate::world::{DEADLINE, World};

/// Datanodes and tracker: pod and UID.
fn stateful(world: &World) -> Result<BTreeMap<String, String>, String> {
    let selector = "app.kubernetes.io/component in (tracker,datanode)";
    world.each(&["pods", "-l", selector], |pod| {
        text(&pod["metadata"]["uid"])
    })
}

/// The pods that are still those of `before`.
fn kept<'a>(before: &'a BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<&'a str> {
    let kept = before
        .iter()
        .filter(|(pod, uid)| now.get(*pod) == Some(uid));
    kept.map(|(pod, _)| pod.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn i29_a_new_template_rolls_pod_by_pod_under_load() {
    let Some(mut world) = World::start("roll").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let before = stateful(&world).unwrap();
    // Of the datanodes' template one thing, of the tracker's another; the gateways' stays.
    cluster.change(&json!({
        "trashRetention": "23h",
        "dataNodes": {"resources": {"requests": {"cpu": "60m"}}},
    }));
    let (reason, message) = cluster.wait_condition("Progressing", "True").await;
    eprintln!("  Progressing: {reason}: {message}");
    until("every pod was made anew", 3 * DEADLINE, || async {
        let now = stateful(&world)?;
        let old = kept(&before, &now);
        // One datanode at a time, and the tracker last.
        let away = 4 - now.len().min(4);
        assert!(away <= 1, "{now:?}");
        if old.contains(&"store-datanode-0") {
            assert!(old.contains(&"store-tracker-0"), "{old:?}");
        }
        let told = cluster.condition("Progressing")?;
        old.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{old:?} are the old ones; {told:?}"))
    })
    .await;
    cluster.wait_ready().await;
    assert_eq!(
        cluster.resource().unwrap()["status"]["dataNodes"]["updated"],
        3
    );
    goes_on(&load).await;
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
}

/// Waits until every pod of datanodes and tracker is another one than before.
async fn wait_renewed(world: &World, cluster: &Cluster<'_>, before: &BTreeMap<String, String>) {
    until("every pod was made anew", 3 * DEADLINE, || async {
        let now = stateful(world)?;
        let old = kept(before, &now);
        let told = cluster.condition("Progressing")?;
        (old.is_empty() && now.len() == before.len())
            .then_some(())
            .ok_or_else(|| format!("{old:?} are the old ones; {told:?}"))
    })
    .await;
    cluster.wait_ready().await;
    cluster.wait_registered(before.len() - 1).await;
}

/// Another version of the program, and back to the first: pods change one by one, and nobody loses a file.
#[tokio::test(flavor = "multi_thread")]
async fn i29_another_version_rolls_in_under_load_and_out_again() {
    let Some(mut world) = World::start("version").await else {
        return;
    };
    let Some(tag) = said_by("DFS_KUBE_OTHER_TAG") else {
        eprintln!("skipped: another version's tag is needed; set DFS_KUBE_OTHER_TAG");
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    for image in [json!(tag), Value::Null] {
        let before = stateful(&world).unwrap();
        cluster.change(&json!({"image": {"tag": image}}));
        wait_renewed(&world, &cluster, &before).await;
        goes_on(&load).await;
        let versions = cluster.nodes().unwrap().into_iter();
        let versions: Vec<_> = versions.map(|node| node.version).collect();
        eprintln!("  with {image}: datanodes {versions:?}; {}", load.seen());
    }
    load.stop().await.assert_only_the_tracker_was_away();
    cluster.wait_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i29_fault_43_an_image_that_does_not_start_stops_at_the_first_pod_and_goes_back() {
    let Some(mut world) = World::start("badroll").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let before = stateful(&world).unwrap();
    let image = |tag: Value| cluster.change(&json!({"image": {"tag": tag}}));
    image(json!("does-not-exist"));
    until("the roll stops", DEADLINE, || async {
        let (status, reason, message) = cluster.condition("Ready")?;
        let stopped = status == "False" && reason == "RollStopped";
        stopped.then(|| eprintln!("  Ready: {reason}: {message}"));
        stopped
            .then_some(())
            .ok_or_else(|| format!("{status} {reason}: {message}"))
    })
    .await;
    goes_on(&load).await;
    image(Value::Null);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let after = stateful(&world).unwrap();
    assert_eq!(
        kept(&before, &after),
        ["store-datanode-0", "store-datanode-1", "store-tracker-0"],
        "only the first was touched"
    );
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
}
