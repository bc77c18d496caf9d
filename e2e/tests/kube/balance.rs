//! New datanodes take their part of what is there.

use std::collections::BTreeMap;

use dfs_protocol::status::DatanodeStatus;
use serde_json::Value;

use crate::loss::nodes;
use crate::measure::MIB;
use crate::store::Cluster;
use crate::tools::{get, kubectl, text, until};
use crate::world::{DEADLINE, World};

/// Bytes of each file, and how many of them: enough that a tenth of a datanode's share is many files.
const FILE: usize = 4 << 20;
const FILES: usize = 60;

/// The label that says in which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// How far a datanode may be from the mean of its zone.
const TOLERANCE: f64 = 0.1;

/// How far the worst datanode is from the mean of its zone, as a share of that mean, and what each has.
fn imbalance(nodes: &[DatanodeStatus]) -> (f64, String) {
    let mut zones: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for node in nodes {
        let zone = node.zone.as_deref().unwrap_or("none");
        #[allow(clippy::cast_precision_loss)] // A percentage for people.
        zones
            .entry(zone)
            .or_default()
            .push(node.stats.used_bytes as f64);
    }
    let mut worst = 0.0_f64;
    for used in zones.values() {
        #[allow(clippy::cast_precision_loss)]
        let mean = used.iter().sum::<f64>() / used.len() as f64;
        for bytes in used {
            worst = worst.max((bytes - mean).abs() / mean.max(1.0));
        }
    }
    let told: Vec<String> = zones
        .iter()
        .map(|(zone, used)| {
            let mib: Vec<String> = used
                .iter()
                .map(|bytes| format!("{:.0}", bytes / MIB))
                .collect();
            format!("{zone}: {} MiB", mib.join(", "))
        })
        .collect();
    (worst, told.join("; "))
}

#[tokio::test(flavor = "multi_thread")]
async fn i22_i23_two_more_datanodes_take_their_part_inside_each_zone() {
    let Some(mut world) = World::start("balance").await else {
        return;
    };
    takes_part(&mut world, "the five are even inside each zone").await;
}

/// Where no node is in a zone, nothing but the Kubernetes nodes keeps replicas apart.
#[tokio::test(flavor = "multi_thread")]
async fn i22_i23_without_zones_two_more_datanodes_take_their_part_overall() {
    let Some(mut world) = World::alone("zoneless").await else {
        return;
    };
    if nodes() < 5 {
        eprintln!("skipped: on fewer than five nodes two datanodes share one, and hold less each");
        return;
    }
    let _zones = Unzoned::all();
    takes_part(&mut world, "the five are even overall").await;
}

/// Three datanodes with files become five; waits until all are as full as the others of their zone.
async fn takes_part(world: &mut World, even: &str) {
    world.install_operator(&[]);
    let cluster = Cluster::apply(world, "store", 3);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let door = cluster.door().await;
    for number in 0..FILES {
        let mut body = vec![0; FILE];
        fastrand::fill(&mut body);
        let _stored = door.store.put(&format!("part/{number}"), body).await;
    }
    let replicas = ["scale", "dfs/store", "--replicas=5"];
    world.kubectl(&replicas).unwrap();
    cluster.wait_registered(5).await;
    let told = until(even, DEADLINE, || async {
        let (worst, told) = imbalance(&cluster.nodes()?);
        let running = cluster.status()?.rebalance.running;
        if worst <= TOLERANCE && !running {
            Ok(format!("{told}; the worst is {:.1} % off", worst * 100.0))
        } else {
            Err(format!("{told}; running: {running}"))
        }
    })
    .await;
    eprintln!("  {told}");
    cluster.wait_condition("DataRedundant", "True").await;
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

/// The cluster's nodes without their zones. Dropping it puts them back.
struct Unzoned(Vec<(String, String)>);

impl Unzoned {
    fn all() -> Self {
        let found = get(&["nodes"]).unwrap();
        let zone_of = |node: &Value| {
            let zone = node["metadata"]["labels"][ZONE].as_str()?;
            Some((text(&node["metadata"]["name"]), zone.to_owned()))
        };
        let nodes = found["items"].as_array().unwrap();
        let unzoned = Self(nodes.iter().filter_map(zone_of).collect());
        for (node, _) in &unzoned.0 {
            kubectl(&["label", "node", node, &format!("{ZONE}-")]).unwrap();
        }
        unzoned
    }
}

impl Drop for Unzoned {
    fn drop(&mut self) {
        for (node, zone) in &self.0 {
            let label = format!("{ZONE}={zone}");
            if let Err(error) = kubectl(&["label", "node", node, &label]) {
                eprintln!("{node} stays without its zone {zone}: {error}");
            }
        }
    }
}
