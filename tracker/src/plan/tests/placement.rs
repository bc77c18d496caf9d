//! Placement over tables and random clusters.

use std::collections::{BTreeMap, BTreeSet};

use dfs_protocol::datanode::AdminState;
use proptest::prelude::*;

use super::cluster::{Cluster, GIB, SECOND, node};
use crate::plan::placement::{PlacementRequest, choose};

fn request(factor: u32) -> PlacementRequest<'static> {
    PlacementRequest {
        factor,
        bytes: 1000,
        avoid: &[],
    }
}

proptest! {
    #[test]
    fn i22_replicas_go_to_distinct_hosts_and_zones(
        hosts in prop::collection::vec(0u8..6, 1..10),
        factor in 1u32..6,
        seed: u64,
    ) {
        let mut cluster = Cluster::new(0, 0, factor, seed);
        for (n, host) in (1..).zip(&hosts) {
            // A host lies in one zone.
            let zone = host % 3;
            cluster.add(n, AdminState::InService, Some(zone.to_string()), Some(host.to_string()));
        }
        cluster.beat();
        let targets = choose(&cluster.table, &request(factor), cluster.now, &mut cluster.rng);
        prop_assert_eq!(targets.len(), hosts.len().min(factor as usize));
        prop_assert_eq!(targets.iter().collect::<BTreeSet<_>>().len(), targets.len());
        let label = |id: &dfs_protocol::DatanodeId| cluster.table.get(*id).unwrap().record.clone();
        let used: BTreeSet<_> = targets.iter().map(|id| label(id).host).collect();
        let all_hosts: BTreeSet<_> = hosts.iter().collect();
        prop_assert_eq!(used.len(), all_hosts.len().min(targets.len()), "hosts before all else");
        let zones: BTreeSet<_> = targets.iter().map(|id| label(id).zone).collect();
        let all_zones: BTreeSet<_> = hosts.iter().map(|host| host % 3).collect();
        prop_assert_eq!(zones.len(), all_zones.len().min(targets.len()));
    }
}

#[test]
fn only_placeable_datanodes_are_chosen_and_fewer_when_there_are_fewer() {
    let mut cluster = Cluster::new(6, 0, 3, 1);
    cluster.add(7, AdminState::Pending, None, None);
    cluster.set_admin(1, AdminState::Decommissioning);
    cluster.down(2);
    cluster.beats(3);
    let big = PlacementRequest {
        bytes: GIB + 1,
        ..request(3)
    };
    assert!(choose(&cluster.table, &big, cluster.now, &mut cluster.rng).is_empty());
    let targets = choose(&cluster.table, &request(9), cluster.now, &mut cluster.rng);
    let targets: BTreeSet<_> = targets.into_iter().collect();
    assert_eq!(targets, (3..=6).map(node).collect());
}

#[test]
fn avoided_datanodes_come_last_but_do_come() {
    let mut cluster = Cluster::new(4, 0, 3, 2);
    let avoid = [node(1), node(2)];
    for _ in 0..50 {
        let request = PlacementRequest {
            avoid: &avoid,
            ..request(3)
        };
        let targets = choose(&cluster.table, &request, cluster.now, &mut cluster.rng);
        assert_eq!(targets.len(), 3);
        assert!(!avoid.contains(&targets[0]) && !avoid.contains(&targets[1]));
    }
}

#[test]
fn load_spreads_over_equal_datanodes() {
    let mut cluster = Cluster::new(10, 0, 3, 3);
    let mut hits: BTreeMap<_, u32> = BTreeMap::new();
    for _ in 0..1000 {
        for id in choose(&cluster.table, &request(3), cluster.now, &mut cluster.rng) {
            cluster.table.reserve(id, 1000);
            *hits.entry(id).or_default() += 1;
        }
    }
    assert!(hits.values().all(|n| (200..400).contains(n)), "{hits:?}");
}

/// Where nobody waits for anybody, all are equally good for each chunk, and only chance spreads them.
#[test]
fn a_store_that_is_not_busy_spreads_its_chunks_and_the_company_that_they_keep() {
    const DATANODES: u128 = 10;
    let mut cluster = Cluster::new(DATANODES, 0, 3, 3);
    let mut hits: BTreeMap<_, u32> = BTreeMap::new();
    let mut together: BTreeMap<_, u32> = BTreeMap::new();
    for _ in 0..1000 {
        let targets = choose(&cluster.table, &request(3), cluster.now, &mut cluster.rng);
        for id in &targets {
            *hits.entry(*id).or_default() += 1;
            for other in targets.iter().filter(|other| *other != id) {
                *together.entry((*id, *other)).or_default() += 1;
            }
        }
    }
    // 300 each, and 67 with each other one: whoever is lost is copied from everybody.
    assert!(hits.values().all(|n| (240..360).contains(n)), "{hits:?}");
    assert_eq!(together.len(), 90, "everybody has met everybody");
    assert!(
        together.values().all(|n| (35..105).contains(n)),
        "{together:?}"
    );
}

/// A promise may never be used: it is no reason to refuse what would fit.
#[test]
fn promised_room_is_used_last_and_refuses_nobody() {
    let mut cluster = Cluster::new(3, 0, 2, 4);
    cluster.table.reserve(node(1), GIB);
    for _ in 0..50 {
        let targets = choose(&cluster.table, &request(2), cluster.now, &mut cluster.rng);
        let targets: BTreeSet<_> = targets.into_iter().collect();
        assert_eq!(targets, [node(2), node(3)].into());
    }
    let targets = choose(&cluster.table, &request(3), cluster.now, &mut cluster.rng);
    assert_eq!(targets.len(), 3);
    assert_eq!(targets[2], node(1));
    cluster.table.reserve(node(2), GIB);
    cluster.table.reserve(node(3), GIB);
    let targets = choose(&cluster.table, &request(3), cluster.now, &mut cluster.rng);
    assert_eq!(targets.len(), 3, "nobody is refused for a promise");
}

#[test]
fn room_ahead_of_need_ends_where_a_datanode_of_the_chain_was_promised_away() {
    let mut cluster = Cluster::new(4, 0, 3, 5);
    let roomy = |cluster: &Cluster| cluster.table.has_unpromised_room(1000, 3, cluster.now);
    cluster.table.reserve(node(1), GIB);
    assert!(roomy(&cluster), "three others have room");
    cluster.table.reserve(node(2), GIB);
    assert!(!roomy(&cluster));
    cluster.beats(64);
    assert!(roomy(&cluster), "promises fade");
}

/// One writer, and datanodes that are heard in two groups: half an interval apart.
#[test]
fn who_was_just_heard_does_not_get_the_next_chunks_all_alone() {
    let mut cluster = Cluster::new(10, 0, 3, 6);
    let first: BTreeSet<_> = (1..=5).map(node).collect();
    let mut apart = 0;
    for half in 0..40 {
        cluster.beat_some(SECOND / 2, |id| first.contains(id) == (half % 2 == 0));
        for _ in 0..100 {
            let targets = choose(&cluster.table, &request(3), cluster.now, &mut cluster.rng);
            for id in &targets {
                cluster.table.reserve(*id, 10);
            }
            let of_first = targets.iter().filter(|id| first.contains(id)).count();
            apart += u32::from(matches!(of_first, 0 | 3));
        }
    }
    // By chance 2 * C(5,3) / C(10,3) = one in six.
    assert!(
        apart < 4000 / 4,
        "{apart} of 4000 chunks stayed in one group"
    );
}
