//! Bad specs sent to a cluster that runs: refused, and nothing of it is touched.

use serde_json::{Value, json};

use crate::load::Load;
use crate::store::Cluster;
use crate::tools::run;
use crate::world::World;

/// How many are sent.
const BAD: usize = 100;

/// Every place of a spec, as a JSON pointer.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let deeper: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), field))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(nth, item)| (nth.to_string(), item))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (name, value) in deeper {
        let place = format!("{at}/{name}");
        places(value, &place, all);
        all.push(place);
    }
}

/// What fits nowhere in a spec.
fn misfits() -> [Value; 6] {
    [
        json!({ "no such field": 1 }),
        json!([[]]),
        json!("\u{0}"),
        json!("x".repeat(5000)),
        json!(-1),
        json!(1e300),
    ]
}

/// UIDs of the pods and generations of what makes them.
fn standing(world: &World) -> Vec<String> {
    let all = world.get(&["pods,statefulsets,deployments"]).unwrap();
    let items = all["items"].as_array().unwrap().iter();
    let told = |item: &Value| {
        let restarts = &item["status"]["containerStatuses"][0]["restartCount"];
        let metadata = &item["metadata"];
        format!(
            "{} {} {} {restarts}",
            metadata["name"], metadata["uid"], metadata["generation"]
        )
    };
    items.map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_41_a_hundred_bad_specs_neither_crash_the_operator_nor_touch_the_running_cluster() {
    let Some(mut world) = World::start("bad").await else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let operator = || {
        let path = "jsonpath={.items[*].metadata.uid} {.items[*].status.containerStatuses[0].restartCount}";
        crate::tools::kubectl(&["get", "pods", "-n", &world.system, "-o", path]).unwrap()
    };
    let before = (standing(&world), operator());
    let door = cluster.door().await;
    let load = Load::start(&door.store, "load");

    let mut good = cluster.resource().unwrap();
    good["metadata"] = json!({ "name": "store" });
    good.as_object_mut().unwrap().remove("status");
    let mut all = Vec::new();
    places(&good["spec"], "/spec", &mut all);
    let picks = fastrand::u64(..);
    eprintln!("  seed {picks}");
    let mut rng = fastrand::Rng::with_seed(picks);
    let mut sent = 0;
    while sent < BAD {
        let place = &all[rng.usize(..all.len())];
        let mut bad = good.clone();
        let misfit = misfits()[rng.usize(..6)].clone();
        *bad.pointer_mut(place).unwrap() = misfit.clone();
        // In turn onto the one that runs, and as a new one.
        if sent % 2 == 1 {
            bad["metadata"]["name"] = json!(format!("new-{sent}"));
        }
        let replaced = [
            "-n",
            &world.namespace,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ];
        let answer = run("kubectl", &replaced, Some(&bad.to_string()));
        assert!(answer.is_err(), "accepted: {place}: {misfit}: {answer:?}");
        sent += 1;
    }
    load.stop().await.assert_nothing_failed();
    assert_eq!((standing(&world), operator()), before);
    let named = world.kubectl(&["get", "dfs", "-o", "name"]).unwrap();
    assert_eq!(named.lines().count(), 1, "{named}");
    cluster.wait_ready().await;
}
