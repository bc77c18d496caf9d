//! New datanodes take their part of what is there.

use std::collections::BTreeMap;

use dfs_protocol::status::DatanodeStatus;

use crate::measure::MIB;
use crate::store::Cluster;
use crate::tools::until;
use crate::world::{DEADLINE, World};

/// Bytes of each file, and how many of them: enough that a tenth of a datanode's share is many files.
const FILE: usize = 4 << 20;
const FILES: usize = 60;

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
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
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
    let told = until("the five are even inside each zone", DEADLINE, || async {
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
