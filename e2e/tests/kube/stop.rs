//! `managementState`: a store that is stopped and started, one that is made as stopped, one that is paused.

use std::collections::BTreeMap;

use dfs_protocol::DatanodeId;
use serde_json::{Value, json};

use crate::loss::{busy, goes_on};
use crate::store::Cluster;
use crate::tools::{text, until};
use crate::world::{DEADLINE, World};

const COMPONENT: &str = "app.kubernetes.io/component";

/// How many pods of each role there are, at one moment.
fn roles(world: &World) -> Result<BTreeMap<String, usize>, String> {
    let mut roles = BTreeMap::new();
    for pod in world.list(&["pods", "-l", "app.kubernetes.io/name=dfs"])? {
        let role = text(&pod["metadata"]["labels"][COMPONENT]);
        *roles.entry(role).or_default() += 1;
    }
    Ok(roles)
}

/// Waits until nothing runs and the status says so. Nobody ends before those who need them.
async fn wait_stopped(world: &World, cluster: &Cluster<'_>, datanodes: usize) {
    until("it is stopped", DEADLINE, || async {
        let roles = roles(world)?;
        let of = |role: &str| roles.get(role).copied().unwrap_or(0);
        if of("gateway") > 0 {
            assert_eq!(
                of("datanode"),
                datanodes,
                "before the doors closed: {roles:?}"
            );
        }
        if of("datanode") > 0 {
            assert_eq!(of("tracker"), 1, "before the datanodes ended: {roles:?}");
        }
        let ready = cluster.condition("Ready")?;
        let is_stopped = ready.0 == "False" && ready.1 == "Stopped" && roles.is_empty();
        is_stopped
            .then_some(())
            .ok_or_else(|| format!("{roles:?}, {ready:?}"))
    })
    .await;
    for kind in ["Available", "Progressing", "Degraded"] {
        let (status, reason, message) = cluster.condition(kind).unwrap();
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "Stopped"),
            "{kind}: {message}"
        );
    }
    let shown = world.kubectl(&["get", "dfs", "-o", "wide"]).unwrap();
    assert!(shown.contains("Stopped"), "{shown}");
}

/// UIDs of claims: the identities of volumes.
fn claims(world: &World) -> BTreeMap<String, String> {
    let uid = |claim: &Value| text(&claim["metadata"]["uid"]);
    world.each(&["pvc"], uid).unwrap()
}

fn ids(cluster: &Cluster<'_>) -> Vec<DatanodeId> {
    let mut ids: Vec<_> = cluster
        .nodes()
        .unwrap()
        .iter()
        .map(|node| node.id)
        .collect();
    ids.sort();
    ids
}

fn set_state(cluster: &Cluster<'_>, state: &str) {
    cluster.change(&json!({"managementState": state}));
}

fn has_event(world: &World, reason: &str) -> bool {
    let events = world.events().unwrap();
    events.iter().any(|event| event["reason"] == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn i26_a_store_that_is_stopped_under_load_starts_again_with_every_acknowledged_file() {
    let Some(mut world) = World::start("stop").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, door, load) = busy(&world, 3).await;
    let before = (claims(&world), ids(&cluster));
    set_state(&cluster, "Stopped");
    // Clients go on for as long as there is a door.
    until("the doors are closed", DEADLINE, || async {
        let left = roles(&world)?.get("gateway").copied();
        left.map_or(Ok(()), |left| Err(format!("{left} gateways")))
    })
    .await;
    let seen = load.halt().await;
    eprintln!("  until the doors closed: {seen}");
    wait_stopped(&world, &cluster, 3).await;
    assert_eq!(claims(&world), before.0, "volumes are kept");
    set_state(&cluster, "Managed");
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    assert_eq!(claims(&world), before.0, "on the same volumes");
    assert_eq!(ids(&cluster), before.1, "the same datanodes");
    let door_again = cluster.door().await;
    let load = crate::load::Load::start(&door_again.store, "after");
    goes_on(&load).await;
    let wrong = seen.wrong_at_the_end(&door.store).await;
    assert!(wrong.is_empty(), "{wrong:?}");
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
    for reason in ["Stopping", "Stopped", "Starting"] {
        assert!(has_event(&world, reason), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_made_as_stopped_runs_nothing_until_it_is_started() {
    let Some(mut world) = World::start("asleep").await else {
        return;
    };
    world.install_operator(&[]);
    let asleep = json!({"managementState": "Stopped"});
    let cluster = Cluster::apply_with(&world, "store", 3, &asleep);
    wait_stopped(&world, &cluster, 3).await;
    assert_eq!(claims(&world), BTreeMap::new());
    world.get(&["service", "store-gateway"]).unwrap();
    set_state(&cluster, "Managed");
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let door = cluster.door().await;
    door.store.put("first", vec![7; 3 << 20]).await;
    set_state(&cluster, "Stopped");
    wait_stopped(&world, &cluster, 3).await;
    set_state(&cluster, "Managed");
    cluster.wait_ready().await;
    let door = cluster.door().await;
    assert!(door.store.get("first").await[..] == vec![7; 3 << 20]);
    cluster.wait_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_while_a_store_is_paused_stays_away_until_it_is_managed_again() {
    let Some(mut world) = World::start("paused").await else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    set_state(&cluster, "Paused");
    cluster.wait_condition("Paused", "True").await;
    let service = ["service", "store-datanode"];
    world
        .kubectl(&["delete", "service", "store-datanode"])
        .unwrap();
    let annotate = [
        "annotate",
        "statefulset",
        "store-datanode",
        "example.com/mark=x",
    ];
    world.kubectl(&annotate).unwrap();
    let args = ["scale", "deployment", "store-gateway", "--replicas=1"];
    world.kubectl(&args).unwrap();
    // The operator has looked again after all of this when it speaks of this spec.
    let scale = ["scale", "dfs/store", "--replicas=4"];
    world.kubectl(&scale).unwrap();
    cluster.wait_condition("Paused", "True").await;
    assert!(world.get(&service).is_err(), "it was made again");
    let asked =
        |kind: &str, name: &str| world.get(&[kind, name]).unwrap()["spec"]["replicas"].clone();
    assert_eq!(asked("deployment", "store-gateway"), 1);
    assert_eq!(asked("statefulset", "store-datanode"), 3);
    set_state(&cluster, "Managed");
    cluster.wait_condition("Paused", "False").await;
    cluster.wait_registered(4).await;
    cluster.wait_ready().await;
    world.get(&service).unwrap();
    assert_eq!(asked("deployment", "store-gateway"), 2);
    let set = world.get(&["statefulset", "store-datanode"]).unwrap();
    let mark = &set["metadata"]["annotations"]["example.com/mark"];
    assert_eq!(mark, "x", "what somebody else wrote is not the operator's");
    for reason in ["Paused", "Resumed"] {
        assert!(has_event(&world, reason), "{reason}");
    }
}
