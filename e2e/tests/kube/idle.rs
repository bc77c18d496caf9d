//! What a store costs while nothing happens, alone and beside many that cannot even start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::{Cost, MIB, cost};
use crate::store::Cluster;
use crate::tools::{kubectl, number, until};
use crate::world::{DEADLINE, World};

/// How long nothing may be written while nothing changes.
const QUIET: Duration = Duration::from_mins(1);
/// Clusters that wait for nodes which do not exist, beside the one that runs.
fn waiting() -> u64 {
    number("DFS_KUBE_IDLE", 4)
}

/// What the operator writes; leases are renewed by design, and other controllers write events about pods and claims
/// that wait, again and again.
const WATCHED: &str = "dfs,statefulsets,deployments,services,configmaps,secrets,persistentvolumeclaims,\
    poddisruptionbudgets,networkpolicies,serviceaccounts";

/// Versions of everything in the stores' namespace that the operator writes.
fn versions(world: &World) -> BTreeMap<String, String> {
    let objects = world.get(&[WATCHED]).unwrap();
    let of_dfs = ["events", "--field-selector=involvedObject.kind=DfsCluster"];
    let events = world.get(&of_dfs).unwrap();
    let items = |all: &Value| all["items"].as_array().unwrap().clone();
    let version = |item: Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!(
            "{}/{}",
            text(&item["kind"]),
            text(&item["metadata"]["name"])
        );
        (name, text(&item["metadata"]["resourceVersion"]))
    };
    let all = items(&objects).into_iter().chain(items(&events));
    all.map(version).collect()
}

/// Waits until nothing was written for a while, and says how often it had to begin anew.
async fn settled(world: &World) {
    let mut before = versions(world);
    let mut since = Instant::now();
    until("nothing is written", 2 * DEADLINE, || {
        let now = versions(world);
        let changed: Vec<&String> = now
            .iter()
            .filter(|(name, version)| before.get(*name) != Some(version))
            .map(|(name, _)| name)
            .collect();
        let told = format!("{changed:?}");
        if !changed.is_empty() || now.len() != before.len() {
            since = Instant::now();
        }
        before = now;
        let quiet = since.elapsed();
        async move {
            if quiet >= QUIET {
                Ok(())
            } else {
                Err(format!("quiet for {quiet:.0?}; last: {told}"))
            }
        }
    })
    .await;
}

/// Shares of a CPU and memory of a pod over the quiet time.
async fn over_a_while(namespace: &str, pod: &str) -> (f64, Cost) {
    let (before, start) = (cost(namespace, pod).await, Instant::now());
    tokio::time::sleep(QUIET / 2).await;
    let after = cost(namespace, pod).await;
    let share = (after.cpu - before.cpu) / start.elapsed().as_secs_f64();
    (share, after)
}

async fn tell(world: &World, what: &str) {
    let operator = ["get", "pods", "-n", &world.system, "-o", "name"];
    let operator = kubectl(&operator).unwrap();
    let operator = operator.lines().next().unwrap().trim_start_matches("pod/");
    for (namespace, pod) in [
        (&world.system, operator),
        (&world.namespace, "store-tracker-0"),
    ] {
        let (share, cost) = over_a_while(namespace, pod).await;
        eprintln!(
            "  {what}: {pod}: {:.1} mCPU, {:.1} MiB",
            share * 1000.0,
            cost.memory / MIB
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_changes_alone_and_beside_many_that_wait() {
    let Some(mut world) = World::start("idle").await else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    settled(&world).await;
    tell(&world, "one cluster").await;

    let nowhere = json!({ "nodeSelector": { "dfs.io/no-such-node": "true" } });
    let nowhere = json!({
        "tracker": { "scheduling": nowhere },
        "dataNodes": { "scheduling": nowhere },
        "gateway": { "replicas": 1, "scheduling": nowhere, "ingress": null },
    });
    for number in 1..=waiting() {
        let _waits = Cluster::apply_with(&world, &format!("waits-{number}"), 3, &nowhere);
    }
    settled(&world).await;
    tell(&world, &format!("{} clusters", waiting() + 1)).await;
    cluster.wait_ready().await;
}
