//! Factors that change while the store runs: copies and deletions follow, never below the new one.

use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Shortage;
use proptest::prelude::*;

use super::cluster::*;
use crate::plan::shortage;

/// The catalog wants another number of replicas of a chunk.
fn want(cluster: &mut Cluster, n: u128, factor: u32) {
    cluster.map.load_chunk(expected(sealed(n, 1), factor));
    cluster.map.check_derived().unwrap();
}

#[test]
fn i24_a_lowered_factor_takes_only_what_fresh_reports_show_to_be_too_much() {
    let mut cluster = Cluster::new(3, 0, 3, 65);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    // A writer's word that a fourth datanode has it is no report.
    cluster.add(4, AdminState::InService, None, None);
    cluster.beat();
    let (chunk, now) = (expected(sealed(1, 1), 3), cluster.now);
    cluster.map.commit_chunk(chunk, &[node(4)], now);
    cluster.table.set_picture(node(1), false);
    cluster.map.sync(&cluster.table, cluster.now);
    want(&mut cluster, 1, 2);
    let plan = cluster.plan();
    assert!(plan.is_empty(), "two are proven, two are wanted: {plan:?}");
    cluster.beat();
    assert_eq!(cluster.plan().deletes.len(), 1);
    cluster.start_repair();
    cluster.carry_out();
    assert_eq!(cluster.good_copies(&sealed(1, 1)), 2);
}

#[test]
fn a_raised_factor_is_told_apart_from_a_loss_until_it_is_reached() {
    let mut cluster = Cluster::new(4, 0, 3, 1);
    cluster.store(sealed(1, 1), 2, &[1, 2]);
    cluster.store(sealed(2, 1), 2, &[3, 4]);
    cluster.beat();
    want(&mut cluster, 1, 3);
    let counters = cluster.map.counters();
    assert_eq!(counters.of_shortage(Shortage::Raising), 1);
    assert_eq!(counters.raising_bytes, sealed(1, 1).length);
    assert_eq!(counters.raising_bytes, counters.repair_bytes);
    cluster.down(3);
    cluster.beats(4);
    let counters = cluster.map.counters();
    assert_eq!(counters.of_shortage(Shortage::Raising), 1);
    assert_eq!(counters.of_shortage(Shortage::Absence), 1);
    cluster.up(3);
    cluster.settle();
    assert_eq!(cluster.map.counters().shortage, [0; 4]);
    // Once reached, what is lost later is a loss.
    let holder = *cluster.holders(id(1)).first().unwrap();
    cluster
        .disks
        .get_mut(&holder)
        .unwrap()
        .chunks
        .remove(&id(1));
    cluster.beat();
    assert_eq!(cluster.map.counters().of_shortage(Shortage::Absence), 1);
}

#[test]
fn what_can_be_read_on_a_leaving_datanode_is_leaving_not_lost() {
    let mut cluster = Cluster::new(4, 0, 3, 2);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.set_admin(3, AdminState::Decommissioning);
    cluster.beat();
    assert_eq!(cluster.map.counters().shortage, [1, 0, 0, 0]);
    cluster.down(3);
    cluster.beats(4);
    assert_eq!(cluster.map.counters().of_shortage(Shortage::Absence), 1);
    cluster.up(3);
    cluster.settle();
    assert_eq!(cluster.map.counters().shortage, [0; 4]);
}

#[test]
fn a_datanode_that_is_taken_away_too_early_is_the_cause_and_one_in_time_is_not() {
    for (early, wanted) in [(false, 0), (true, 1)] {
        let mut cluster = Cluster::new(4, 0, 3, 3);
        cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
        cluster.set_admin(3, AdminState::Decommissioning);
        cluster.beat();
        if !early {
            cluster.settle();
        }
        cluster.set_admin(3, AdminState::Decommissioned);
        cluster.beat();
        // Deregistered, or just gone since it was said to be empty: the same.
        let mut stopped = cluster.map.clone();
        cluster.map.clear_datanode(node(3));
        cluster.map.check_derived().unwrap();
        assert_eq!(
            cluster.map.counters().of_shortage(Shortage::Removal),
            wanted
        );
        cluster.down(3);
        cluster.now += 100 * SECOND;
        for n in [1, 2, 4] {
            let mut view = cluster
                .table
                .view(cluster.table.get(node(n)).unwrap(), cluster.now);
            view.live = true;
            stopped.set_view(node(n), view);
        }
        let view = cluster
            .table
            .view(cluster.table.get(node(3)).unwrap(), cluster.now);
        stopped.set_view(node(3), view);
        stopped.check_derived().unwrap();
        assert_eq!(stopped.counters().of_shortage(Shortage::Removal), wanted);
    }
}

#[test]
fn a_factor_beyond_the_datanodes_is_said_to_be_out_of_reach() {
    let mut cluster = Cluster::new(3, 0, 3, 4);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.beat();
    let status = |cluster: &Cluster| {
        shortage::status(&cluster.table, &cluster.map, Some(500.0), cluster.now)
    };
    assert_eq!(status(&cluster).unreachable, None);
    want(&mut cluster, 1, 5);
    let told = status(&cluster);
    assert_eq!(
        told.unreachable.as_deref(),
        Some("5 replicas wanted, 3 datanodes are in service")
    );
    assert_eq!(
        (told.raising, told.raising_bytes),
        (1, 2 * sealed(1, 1).length)
    );
    assert_eq!(told.raising_eta_seconds, Some(5));
}

#[derive(Debug, Clone)]
enum Step {
    Want(u128, u32),
    Down(u128),
    Up(u128),
    Beat,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u128..6, 1u32..6).prop_map(|(n, factor)| Step::Want(n, factor)),
        1 => (1u128..7).prop_map(Step::Down),
        1 => (1u128..7).prop_map(Step::Up),
        3 => Just(Step::Beat),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    // Each deletion is checked by the cluster as it happens: as many good ones stay as are wanted then.
    #[test]
    fn i23_i24_whatever_factors_come_and_go_every_chunk_ends_at_the_last_one(steps in steps(), seed: u64) {
        let mut cluster = Cluster::new(6, 0, 3, seed);
        for n in 1..6 {
            cluster.store(sealed(n, 1), 2, &[n, n + 1]);
        }
        cluster.beat();
        for step in steps {
            match step {
                // An order that was given under another factor is carried out first.
                Step::Want(n, factor) if cluster.tasks.of_chunk(id(n)).next().is_none() => {
                    want(&mut cluster, n, factor);
                }
                Step::Want(..) => {}
                // Nobody can know of it before it missed its heartbeats.
                Step::Down(n) => {
                    cluster.down(n);
                    cluster.beats(4);
                }
                Step::Up(n) => cluster.up(n),
                Step::Beat => {
                    cluster.start_repair();
                    cluster.carry_out();
                    cluster.beat();
                }
            }
        }
        for n in 1..7 {
            cluster.up(n);
        }
        cluster.beats(15);
        cluster.table.acknowledge_loss(cluster.now);
        cluster.settle();
        for chunk in cluster.map.iter() {
            let good = cluster.good_copies(&chunk.expected.chunk);
            prop_assert_eq!(good, chunk.expected.factor as usize, "{:?}", chunk);
        }
        prop_assert_eq!(cluster.map.counters().shortage, [0; 4]);
    }
}
