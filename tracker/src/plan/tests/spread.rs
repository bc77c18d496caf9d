//! I22: replicas on distinct hosts and over zones; where that cannot be, the status says so and
//! nothing is copied in vain.

use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::{ChunkHealth, SpreadStatus};

use super::cluster::{Cluster, id, node, sealed};
use crate::plan::placement::{PlacementRequest, choose};
use crate::plan::spread;

/// Datanodes numbered from 1, each with its host and zone.
fn cluster(places: &[(&str, Option<&str>)]) -> Cluster {
    let mut cluster = Cluster::new(0, 0, 3, 4);
    for (n, (host, zone)) in (1u128..).zip(places) {
        let (host, zone) = (Some((*host).to_owned()), zone.map(str::to_owned));
        cluster.add(n, AdminState::InService, zone, host);
    }
    cluster.beat();
    cluster
}

fn status(cluster: &Cluster, factor: u32) -> SpreadStatus {
    let bad = cluster.map.counters().of_health(ChunkHealth::MisReplicated);
    spread::status(&cluster.table, factor, bad, cluster.now)
}

fn placed(cluster: &mut Cluster, factor: u32) -> Vec<u128> {
    let request = PlacementRequest {
        factor,
        bytes: 1,
        avoid: &[],
    };
    let chosen = choose(&cluster.table, &request, cluster.now, &mut cluster.rng);
    chosen
        .into_iter()
        .map(dfs_protocol::DatanodeId::as_u128)
        .collect()
}

#[test]
fn i22_placement_takes_distinct_hosts_and_then_zones() {
    let mut cluster = cluster(&[
        ("a", Some("1")),
        ("a", Some("1")),
        ("b", Some("1")),
        ("c", Some("2")),
        ("d", Some("3")),
    ]);
    for _ in 0..50 {
        let chosen = placed(&mut cluster, 3);
        let in_first = chosen.iter().filter(|n| **n <= 3).count();
        assert_eq!((chosen.len(), in_first), (3, 1), "{chosen:?}");
        let chosen = placed(&mut cluster, 4);
        let on_a = chosen.iter().filter(|n| **n <= 2).count();
        assert_eq!((chosen.len(), on_a), (4, 1), "{chosen:?}");
    }
}

#[test]
fn i22_where_hosts_or_zones_are_too_few_the_status_says_so() {
    let says = |places: &[(&str, Option<&str>)], factor| {
        let status = status(&cluster(places), factor);
        (status.possible, status.sentence)
    };
    assert_eq!(
        says(&[("a", None), ("a", None), ("b", None)], 3),
        (false, "3 replicas wanted, datanodes on 2 hosts".to_owned())
    );
    assert!(says(&[("a", None), ("c", None), ("b", None)], 3).0);
    let zoned = [("a", Some("1")), ("b", Some("1")), ("c", Some("2"))];
    let (possible, sentence) = says(&zoned, 3);
    assert!(
        possible && sentence.contains("at most 2 in each of 2 zones"),
        "{sentence}"
    );
    let lopsided = [
        ("a", Some("1")),
        ("b", Some("2")),
        ("c", Some("2")),
        ("d", Some("2")),
    ];
    let (possible, sentence) = says(&lopsided, 4);
    assert!(!possible && sentence.contains("take 3"), "{sentence}");
    let (possible, sentence) = says(&[("a", Some("1")), ("b", None), ("c", None)], 3);
    assert!(
        possible && sentence.contains("zones do not count"),
        "{sentence}"
    );
    let mut silent = cluster(&[("a", None), ("b", None), ("c", None)]);
    silent.down(3);
    silent.beats(10);
    assert_eq!(
        status(&silent, 3).hosts,
        2,
        "a dead datanode offers no host"
    );
}

#[test]
fn i22_what_cannot_be_spread_better_is_left_alone() {
    let mut cluster = cluster(&[("a", None), ("a", None), ("b", None), ("b", None)]);
    for n in 1..=5 {
        cluster.store(sealed(n, 1), 3, &[1, 2, 3]);
    }
    cluster.settle();
    let made = cluster.plans.iter().map(|plan| plan.copies.len());
    assert_eq!(made.sum::<usize>(), 0);
    let says = status(&cluster, 3);
    assert_eq!((says.possible, says.badly_spread), (false, 5));
    // A third host arrives.
    cluster.add(5, AdminState::InService, None, Some("c".to_owned()));
    cluster.settle();
    let says = status(&cluster, 3);
    assert_eq!((says.possible, says.badly_spread), (true, 0));
    assert!(cluster.map.counters().all_healthy());
}

/// A node of the second zone was lost, and its datanode begins anew there: all that was written or copied
/// meanwhile has two replicas in the first zone.
#[test]
fn i22_a_newcomer_in_an_emptied_zone_gets_each_chunk_once_in_few_rounds() {
    const CHUNKS: u128 = 1500;
    let mut cluster = cluster(&[("a", Some("1")), ("b", Some("3")), ("c", Some("1"))]);
    cluster.weigh = |chunk| chunk.length;
    for n in 1..=CHUNKS {
        cluster.store(sealed(n, 1), 3, &[1, 2, 3]);
    }
    cluster.settle();
    assert_eq!(status(&cluster, 3).badly_spread, 0, "two zones are left");
    cluster.add(4, AdminState::InService, Some("2".into()), Some("d".into()));
    cluster.beat();
    assert_eq!(u128::from(status(&cluster, 3).badly_spread), CHUNKS);
    cluster.plans.clear();
    cluster.settle();
    assert!(cluster.map.counters().all_healthy());
    let copies = || cluster.plans.iter().flat_map(|plan| &plan.copies);
    let deletes = || cluster.plans.iter().flat_map(|plan| &plan.deletes);
    assert_eq!(copies().count() as u128, CHUNKS, "none is copied twice");
    assert!(copies().all(|copy| copy.target == node(4)));
    assert_eq!(deletes().count() as u128, CHUNKS);
    assert!(deletes().all(|delete| [node(1), node(3)].contains(&delete.datanode)));
    let rounds = cluster.plans.len();
    assert!(rounds < 30, "{rounds} rounds of orders for small chunks");
}

#[test]
fn i22_a_datanode_that_changes_its_host_or_zone_is_judged_anew() {
    let zones = [
        ("a", Some("1")),
        ("b", Some("2")),
        ("c", Some("3")),
        ("d", Some("3")),
    ];
    let mut cluster = cluster(&zones);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.beat();
    let health = |cluster: &Cluster| cluster.map.get(id(1)).unwrap().health;
    assert_eq!(health(&cluster), ChunkHealth::Healthy);
    let relabel = |cluster: &mut Cluster, n: u128, host: &str, zone: &str| {
        let mut record = cluster.table.get(node(n)).unwrap().record.clone();
        (record.host, record.zone) = (Some(host.to_owned()), Some(zone.to_owned()));
        cluster.table.put(node(n), record, cluster.now).unwrap();
        cluster.map.sync(&cluster.table, cluster.now);
    };
    relabel(&mut cluster, 2, "a", "2");
    assert_eq!(health(&cluster), ChunkHealth::MisReplicated, "one host");
    relabel(&mut cluster, 2, "b", "1");
    assert_eq!(health(&cluster), ChunkHealth::Healthy, "two zones are left");
    relabel(&mut cluster, 4, "d", "2");
    assert_eq!(
        health(&cluster),
        ChunkHealth::MisReplicated,
        "one zone of three"
    );
    cluster.settle();
    assert_eq!(health(&cluster), ChunkHealth::Healthy);
    assert!(cluster.holders(id(1)).contains(&node(4)));
}
