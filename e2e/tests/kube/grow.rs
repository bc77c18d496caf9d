//! Volumes that grow under load, and volumes that are full.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_e2e::ledger::Content;
use serde_json::{Value, json};

use crate::loss::{busy, goes_on};
use crate::store::{Cluster, SMALL_VOLUME, volume};
use crate::tools::{doubled, text, until};
use crate::world::{DEADLINE, World};

/// Bytes of each file that fills the volumes, and so many at the most.
const FILE: usize = 16 << 20;
const FILES: usize = 200;

/// Datanodes' objects.
const DATANODES: &str = "app.kubernetes.io/component=datanode";

/// Asks for larger volumes of the datanodes.
fn grow(cluster: &Cluster<'_>, size: &str) {
    cluster.change(&json!({"dataNodes": {"storage": {"size": size}}}));
}

/// Room that each datanode's claim has.
fn claims(world: &World) -> Result<BTreeMap<String, String>, String> {
    let room = |claim: &Value| text(&claim["status"]["capacity"]["storage"]);
    world.each(&["pvc", "-l", DATANODES], room)
}

/// Waits until so many claims and the set's template have a size; false where the storage class does not allow it.
async fn wait_grown(world: &World, cluster: &Cluster<'_>, count: usize, size: &str) -> bool {
    until("volumes have grown", DEADLINE, || async {
        let resizing = cluster.condition("StorageResizing")?;
        if resizing.1 == "ExpansionRefused" {
            eprintln!("skipped: the storage class cannot expand: {}", resizing.2);
            return Ok(false);
        }
        let claims = claims(world)?;
        let set = world.get(&["statefulset", "store-datanode"])?;
        let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"];
        let grown = claims.values().filter(|has| *has == size).count();
        let is_done = grown == count
            && template["requests"]["storage"] == json!(size)
            && set["metadata"]["deletionTimestamp"].is_null()
            && resizing.0 == "False";
        is_done
            .then_some(true)
            .ok_or_else(|| format!("{resizing:?}, {claims:?}, template {template}"))
    })
    .await
}

/// UID and restarts of each datanode's pod.
fn pods(world: &World) -> Result<BTreeMap<String, (String, i64)>, String> {
    world.each(&["pods", "-l", DATANODES], |pod| {
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        (
            text(&pod["metadata"]["uid"]),
            restarts.as_i64().unwrap_or(-1),
        )
    })
}

/// A file's bytes, and what they are known by.
fn file() -> (Bytes, Content) {
    let mut body = vec![0; FILE];
    fastrand::fill(&mut body);
    let body = Bytes::from(body);
    let content = Content::of(&body);
    (body, content)
}

/// Bytes of all volumes, as the tracker knows them.
fn capacity(cluster: &Cluster<'_>) -> Result<u64, String> {
    Ok(cluster.status()?.capacity.total_bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_grow_under_load_and_no_pod_is_restarted() {
    let Some(mut world) = World::start("grow").await else {
        return;
    };
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, 3).await;
    let before = (pods(&world).unwrap(), capacity(&cluster).unwrap());
    let larger = doubled(&volume());
    grow(&cluster, &larger);
    if !wait_grown(&world, &cluster, 3, &larger).await {
        load.stop().await.assert_nothing_failed();
        return;
    }
    goes_on(&load).await;
    assert_eq!(pods(&world).unwrap(), before.0, "a pod was restarted");
    // File systems take a part for themselves, and local volumes may share one disk.
    let told = until("the tracker knows the room", DEADLINE, || async {
        let now = capacity(&cluster)?;
        let (now_mib, was_mib) = (now >> 20, before.1 >> 20);
        (now_mib * 10 >= was_mib * 18)
            .then(|| format!("{was_mib} MiB, then {now_mib} MiB"))
            .ok_or_else(|| format!("{now_mib} MiB, and {was_mib} MiB before"))
    })
    .await;
    eprintln!("  capacity: {told}");
    let scale = ["scale", "dfs/store", "--replicas=4"];
    world.kubectl(&scale).unwrap();
    cluster.wait_registered(4).await;
    let sizes = claims(&world).unwrap();
    assert_eq!(sizes["data-store-datanode-3"], larger, "{sizes:?}");
    goes_on(&load).await;
    load.stop().await.assert_nothing_failed();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_fault_14_full_volumes_are_told_and_growth_saves_the_writes() {
    let Some(mut world) = World::start("full").await else {
        return;
    };
    world.install_operator(&[]);
    // Filled to the brim: small whatever the others have.
    let small = json!({"dataNodes": {"storage": {"size": SMALL_VOLUME}}});
    let cluster = Cluster::apply_with(&world, "store", 3, &small);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let door = cluster.door().await;
    let mut acked: Vec<(String, Content)> = Vec::new();
    let mut refused = None;
    for number in 0..FILES {
        let ((body, content), path) = (file(), format!("fill/{number}"));
        match door.store.try_put(&path, body).await {
            Ok(answer) if answer.status.is_success() => acked.push((path, content)),
            Ok(answer) => {
                refused = Some((answer.status.as_u16(), answer.text()));
                break;
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }
    let Some((status, words)) = refused else {
        eprintln!(
            "skipped: {FILES} files did not fill the volumes: this storage does not hold claims to their size"
        );
        return;
    };
    eprintln!("  full after {} files: {status} {words}", acked.len());
    assert_eq!(status, 507, "{words}");
    let message = until("the operator tells it", DEADLINE, || async {
        let (truth, reason, message) = cluster.condition("Degraded")?;
        let is_told = truth == "True" && message.contains("are full and take no chunks");
        is_told
            .then_some(message.clone())
            .ok_or_else(|| format!("{truth}: {reason}: {message}"))
    })
    .await;
    eprintln!("  {message}");
    grow(&cluster, "2Gi");
    if !wait_grown(&world, &cluster, 3, "2Gi").await {
        return;
    }
    let content = until("writes are taken again", DEADLINE, || async {
        let (body, content) = file();
        match door.store.try_put("fill/after", body).await {
            Ok(answer) if answer.status.is_success() => Ok(content),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    acked.push(("fill/after".to_owned(), content));
    for (path, content) in &acked {
        let found = door.store.content(path).await;
        assert_eq!(found.as_ref().ok(), Some(&Some(content.clone())), "{path}");
    }
    cluster.wait_condition("Degraded", "False").await;
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}
