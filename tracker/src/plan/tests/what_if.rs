//! What-if against what then really happens.

use std::collections::BTreeSet;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::plan::PlanAnswer;
use dfs_protocol::status::{ChunkHealth, Shortage};
use proptest::prelude::*;

use super::cluster::*;
use crate::plan::what_if::{WhatIfView, lose, scale};

fn view(cluster: &Cluster) -> WhatIfView<'_> {
    WhatIfView {
        datanodes: &cluster.table,
        replicas: &cluster.map,
        hold: None,
        policy: &cluster.policy,
        copy_rate: Some(100),
    }
}

fn without(cluster: &Cluster, gone: &[u128]) -> PlanAnswer {
    let gone = gone.iter().map(|n| node(*n)).collect();
    lose(&view(cluster), &gone, cluster.now)
}

#[test]
fn losses_are_told_by_what_they_cost() {
    let mut cluster = Cluster::new(4, 0, 2, 1);
    cluster.store(sealed(1, 1), 2, &[1, 2]);
    cluster.store(sealed(2, 1), 2, &[2, 3]);
    cluster.beat();
    for (gone, missing, under, bytes, again) in [
        (&[4][..], 0, 0, 0, true),
        (&[1], 0, 1, 1001, true),
        (&[2], 0, 2, 1001 + 1002, true),
        (&[1, 2], 1, 1, 1002, true),
        // One is left: there is nowhere to copy to.
        (&[2, 3, 4], 1, 1, 0, false),
    ] {
        let answer = without(&cluster, gone);
        let found = (
            answer.missing,
            answer.under_replicated,
            answer.bytes_to_copy,
        );
        assert_eq!(found, (missing, under, bytes), "{gone:?}: {answer:?}");
        assert_eq!(answer.full_factor_again, again, "{gone:?}: {answer:?}");
        assert_eq!(answer.missing_chunks.len() as u64, missing, "{gone:?}");
        assert_eq!(answer.obstacles.is_empty(), again, "{:?}", answer.obstacles);
        assert_eq!(answer.eta_seconds, Some(bytes.div_ceil(100)));
    }
    assert!(
        without(&cluster, &[1, 2])
            .summary
            .contains("data would be lost")
    );
}

#[test]
fn without_room_for_the_copies_the_answer_says_so() {
    let mut cluster = Cluster::new(3, 0, 2, 1);
    cluster.store(sealed(1, 1), 2, &[1, 2]);
    cluster.weigh = |_| GIB - (1 << 20);
    cluster.beat();
    // The third is empty.
    assert!(without(&cluster, &[1]).room.enough);
    let answer = without(&cluster, &[3]);
    assert!(answer.room.enough, "nothing is to be copied");
    let third = without(&cluster, &[1, 3]);
    assert!(!third.full_factor_again, "{third:?}");
    assert_eq!(third.room.bytes, 0);
}

#[test]
fn fewer_are_emptied_first_from_the_highest_ordinal_on_and_more_bring_room() {
    let mut cluster = Cluster::new(4, 0, 3, 1);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.beat();
    for n in 1..=4 {
        let pod = format!("store-datanode-{}", 10 - n);
        cluster.table.set_pod(node(n), Some(pod));
    }
    let told = scale(&view(&cluster), 3, cluster.now);
    assert_eq!(told.gone.len(), 1);
    assert_eq!(told.gone[0].pod.as_deref(), Some("store-datanode-9"));
    assert_eq!((told.missing, told.under_replicated), (0, 0));
    assert_eq!(told.bytes_to_copy, sealed(1, 1).length);
    assert!(told.full_factor_again, "{told:?}");
    let few = scale(&view(&cluster), 2, cluster.now);
    assert!(!few.full_factor_again);
    assert_eq!(
        few.obstacles,
        ["3 replicas wanted, 2 datanodes would be left"]
    );
    let now = scale(&view(&cluster), 4, cluster.now);
    let more = scale(&view(&cluster), 6, cluster.now);
    assert_eq!((more.left, more.gone.len(), more.bytes_to_copy), (6, 0, 0));
    assert!(more.room.bytes > now.room.bytes);
    // Those that leave are limited by their own rate.
    cluster.policy.repair.decommission_rate = Some(10);
    let slow = scale(&view(&cluster), 3, cluster.now);
    assert_eq!(slow.copy_rate, Some(10));
}

#[derive(Debug, Clone)]
struct World {
    chunks: Vec<(u32, BTreeSet<u128>)>,
    down: Option<u128>,
    leaving: Option<u128>,
    gone: BTreeSet<u128>,
}

fn worlds() -> impl Strategy<Value = World> {
    let holders = prop::collection::btree_set(1u128..8, 1..5);
    let chunks = prop::collection::vec((1u32..4, holders), 0..20);
    let one = || prop::option::of(1u128..8);
    let gone = prop::collection::btree_set(1u128..8, 0..4);
    (chunks, one(), one(), gone).prop_map(|(chunks, down, leaving, gone)| World {
        chunks,
        down,
        leaving,
        gone,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_foretold_of_a_loss_is_what_happens(world in worlds()) {
        let World { chunks, down, leaving, gone } = world;
        let mut cluster = Cluster::new(7, 0, 3, 1);
        for (n, (factor, on)) in (1..).zip(&chunks) {
            let on: Vec<u128> = on.iter().copied().collect();
            cluster.store(sealed(n, 1), *factor, &on);
        }
        if let Some(n) = leaving {
            cluster.set_admin(n, AdminState::Decommissioning);
        }
        cluster.beat();
        if let Some(n) = down {
            cluster.down(n);
            cluster.beats(20);
        }
        let gone: Vec<u128> = gone.into_iter().collect();
        let told = without(&cluster, &gone);
        // It happens.
        let before: Vec<_> = cluster.map.iter().filter(|c| c.health == ChunkHealth::Missing).collect();
        for n in &gone {
            cluster.map.clear_datanode(node(*n));
        }
        let counters = cluster.map.counters();
        let short: u64 = Shortage::ALL.map(|cause| counters.of_shortage(cause)).iter().sum();
        let missing = counters.of_health(ChunkHealth::Missing);
        prop_assert_eq!(told.missing, missing);
        prop_assert_eq!(told.under_replicated, short - missing);
        if told.left >= 3 {
            prop_assert_eq!(told.bytes_to_copy, counters.repair_bytes);
        }
        let named: BTreeSet<_> = told.missing_chunks.iter().copied().collect();
        let newly: BTreeSet<_> = cluster
            .map
            .iter()
            .filter(|c| c.health == ChunkHealth::Missing)
            .map(|c| c.expected.chunk.id)
            .filter(|id| before.iter().all(|b| b.expected.chunk.id != *id))
            .collect();
        prop_assert_eq!(named, newly);
    }
}
