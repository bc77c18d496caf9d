//! Repair over tables and random histories.

use std::time::Duration;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::{ChunkHealth, RepairPriority};
use jiff::Timestamp;
use proptest::prelude::*;

use super::cluster::{Cluster, SECOND, id, node, sealed};
use crate::model::datanodes::Maintenance;
use crate::plan::Hold;
use crate::plan::repair::RepairPlan;
use crate::plan::tasks::{DeleteReason, Work};

#[test]
fn i23_the_most_endangered_chunk_is_copied_first() {
    let mut cluster = Cluster::new(9, 0, 3, 1);
    cluster.policy.repair.copies_total = 1;
    cluster.policy.repair.small_copy = 0;
    cluster.store(sealed(1, 1), 3, &[1, 2]);
    cluster.store(sealed(2, 1), 7, &[1, 2]);
    cluster.store(sealed(3, 1), 3, &[3]);
    cluster.beat();
    let mut order = Vec::new();
    while order.len() < 4 {
        order.extend(
            cluster
                .start_repair()
                .copies
                .iter()
                .map(|copy| (copy.chunk.id, copy.priority().unwrap())),
        );
        cluster.carry_out();
        cluster.beat();
    }
    assert_eq!(order[0], (id(3), RepairPriority::LastReplica));
    assert_eq!(order[1], (id(2), RepairPriority::UnderThird));
    assert!(
        order[2..]
            .iter()
            .all(|(_, priority)| *priority == RepairPriority::UnderReplicated)
    );
    cluster.settle();
    assert!(cluster.map.counters().all_healthy());
}

#[test]
fn fault_03_a_silent_datanode_is_given_the_repair_delay_but_a_last_copy_is_not() {
    let mut cluster = Cluster::new(5, 0, 3, 2);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.store(sealed(2, 1), 2, &[1, 2]);
    cluster.beat();
    cluster.down(1);
    cluster.beats(4);
    let plan = cluster.start_repair();
    assert_eq!(
        plan.copies.iter().map(|c| c.chunk.id).collect::<Vec<_>>(),
        [id(2)]
    );
    cluster.carry_out();
    cluster.beats(20);
    assert!(cluster.start_repair().is_empty(), "delay not over");
    cluster.beats(10);
    assert_eq!(cluster.start_repair().copies[0].chunk.id, id(1));
    cluster.carry_out();
    cluster.settle();
    assert!(cluster.map.counters().all_healthy());
    cluster.up(1);
    cluster.settle();
    assert!(
        cluster.map.counters().all_healthy(),
        "what the returned one had too much is gone"
    );
    assert_eq!(cluster.holders(id(1)).len(), 3);
}

#[test]
fn a_datanode_in_maintenance_is_waited_for_also_where_one_live_replica_is_left() {
    let mut cluster = Cluster::new(5, 0, 3, 2);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.store(sealed(2, 1), 2, &[1, 2]);
    cluster.beat();
    let away = Maintenance {
        deadline: cluster.now + Duration::from_mins(10),
        until: Timestamp::UNIX_EPOCH,
    };
    assert!(cluster.table.set_maintenance(node(1), Some(away)));
    // A restart within that time does not shorten it.
    let restart = Maintenance {
        deadline: cluster.now + Duration::from_secs(30),
        ..away
    };
    assert!(cluster.table.set_maintenance(node(1), Some(restart)));
    assert!(
        !cluster
            .table
            .placeable(cluster.table.get(node(1)).unwrap(), 1, cluster.now)
    );
    cluster.down(1);
    cluster.beats(60);
    assert!(
        cluster.start_repair().is_empty(),
        "it said when it comes back"
    );
    // A second datanode that just falls silent leaves a last replica: that one does not wait.
    cluster.store(sealed(3, 1), 2, &[3, 4]);
    cluster.beat();
    cluster.down(4);
    cluster.beats(4);
    let copied = |plan: &RepairPlan| plan.copies.iter().map(|c| c.chunk.id).collect::<Vec<_>>();
    assert_eq!(copied(&cluster.start_repair()), [id(3)]);
    cluster.carry_out();
    // The time is over: it is a datanode like any other.
    assert!(cluster.table.set_maintenance(node(1), None));
    cluster.beat();
    let mut due = copied(&cluster.start_repair());
    due.sort_unstable();
    assert_eq!(due, [id(1), id(2)]);
}

#[test]
fn fault_22_nothing_is_copied_or_deleted_while_too_many_are_silent() {
    let mut cluster = Cluster::new(5, 0, 3, 3);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.store(sealed(2, 1), 1, &[4, 5]);
    cluster.beat();
    for n in 1..=3 {
        cluster.down(n);
    }
    cluster.beats(100);
    assert!(matches!(cluster.hold(), Some(Hold::Partition(p)) if p.silent == 3 && p.total == 5));
    assert!(cluster.start_repair().is_empty());
    cluster.table.acknowledge_loss(cluster.now);
    assert_eq!(cluster.hold(), None);
    assert!(!cluster.start_repair().is_empty());
    cluster.up(1);
    cluster.beat();
    assert_eq!(cluster.hold(), None);
}

#[test]
fn i07_stale_replicas_are_no_source_and_go_once_a_valid_one_exists() {
    let mut cluster = Cluster::new(3, 0, 3, 4);
    cluster.store(sealed(1, 2), 3, &[1]);
    cluster.put(2, sealed(1, 1));
    cluster.put(3, sealed(1, 1));
    cluster.store(sealed(2, 2), 3, &[]);
    cluster.put(1, sealed(2, 1));
    cluster.beat();
    let plan = cluster.start_repair();
    assert_eq!(plan.deletes.len(), 2);
    assert!(
        plan.deletes
            .iter()
            .all(|d| d.reason == DeleteReason::Stale && d.chunk == id(1))
    );
    cluster.carry_out();
    cluster.settle();
    assert_eq!(cluster.map.get(id(1)).unwrap().health, ChunkHealth::Healthy);
    assert_eq!(
        cluster.holders(id(2)).len(),
        1,
        "the only trace of a missing chunk stays"
    );
}

#[test]
fn fault_07_a_corrupt_replica_is_replaced_and_only_then_forgotten() {
    let mut cluster = Cluster::new(3, 0, 3, 5);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.beat();
    // Set aside by its datanode: gone from its set.
    cluster.disks.get_mut(&node(2)).unwrap().chunks.clear();
    cluster
        .map
        .mark_corrupt(node(2), id(1), sealed(1, 1).version);
    cluster.beat();
    let view = cluster.map.get(id(1)).unwrap();
    assert_eq!(view.health, ChunkHealth::UnderReplicated);
    assert_eq!(view.replicas.iter().filter(|r| !r.present).count(), 1);
    cluster.settle();
    let view = cluster.map.get(id(1)).unwrap();
    assert_eq!(view.health, ChunkHealth::Healthy);
    assert!(view.replicas.iter().all(|r| r.present && r.verified()));
}

#[test]
fn a_newer_version_than_the_catalogs_is_kept_and_never_counted() {
    let mut cluster = Cluster::new(4, 0, 2, 6);
    cluster.store(sealed(1, 1), 2, &[1]);
    cluster.put(2, sealed(1, 5));
    cluster.settle();
    assert_eq!(cluster.good_copies(&sealed(1, 1)), 2);
    assert_eq!(cluster.disks[&node(2)].chunks[&id(1)], sealed(1, 5));
}

#[test]
fn i24_a_deletion_that_was_never_answered_is_not_followed_by_another() {
    let mut cluster = Cluster::new(4, 0, 3, 7);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3, 4]);
    cluster.beat();
    let plan = cluster.start_repair();
    assert_eq!(plan.deletes.len(), 1);
    let victim = plan.deletes[0].datanode;
    // The order is told and not answered: the task times out.
    tell(&mut cluster, victim);
    cluster.beats(400);
    let given_up = cluster.tasks.expire(&cluster.policy.repair, cluster.now);
    assert!(matches!(given_up[..], [ref task] if matches!(task.work, Work::Delete(_))));
    // Another would be chosen now, being fuller; the old order may still be carried out.
    let other = (1..=4).find(|n| node(*n) != victim).unwrap();
    for n in 100..110 {
        cluster.put(other, sealed(n, 1));
    }
    cluster.beat();
    let again = cluster.start_repair();
    assert_eq!(
        again.deletes.iter().map(|d| d.datanode).collect::<Vec<_>>(),
        [victim]
    );
    cluster.carry_out();
    cluster.settle();
    assert_eq!(cluster.good_copies(&sealed(1, 1)), 3);
}

fn tell(cluster: &mut Cluster, to: dfs_protocol::DatanodeId) -> Vec<dfs_protocol::TaskId> {
    let now = cluster.now;
    let told = cluster
        .tasks
        .commands_for(to, &cluster.table, 10 * SECOND, 100, now);
    assert!(
        cluster
            .tasks
            .commands_for(to, &cluster.table, 10 * SECOND, 100, now)
            .is_empty()
    );
    told.iter()
        .map(dfs_protocol::datanode::Command::task)
        .collect()
}

#[test]
fn i24_no_copy_goes_where_an_old_deletion_may_still_strike_until_it_is_answered() {
    let mut cluster = Cluster::new(3, 0, 2, 14);
    cluster.store(sealed(1, 1), 2, &[1, 2, 3]);
    cluster.beat();
    let victim = cluster.start_repair().deletes[0].datanode;
    let told = tell(&mut cluster, victim);
    cluster.beats(400);
    cluster.tasks.expire(&cluster.policy.repair, cluster.now);
    // It was carried out after all, and then a second replica is lost.
    for n in 1..=3 {
        if node(n) == victim || victim == node(1) && n == 2 || victim != node(1) && n == 1 {
            cluster.disks.get_mut(&node(n)).unwrap().chunks.clear();
        }
    }
    cluster.beat();
    let targets: Vec<_> = cluster
        .plan()
        .copies
        .iter()
        .map(|copy| copy.target)
        .collect();
    assert!(targets.len() == 1 && targets[0] != victim);
    assert!(cluster.tasks.is_doubtful(id(1), victim));
    let stranger = node(9);
    assert!(cluster.tasks.answered(stranger, told[0]).is_none());
    assert!(cluster.tasks.is_doubtful(id(1), victim), "not its task");
    assert!(
        cluster.tasks.answered(victim, told[0]).is_none(),
        "the late answer"
    );
    assert!(!cluster.tasks.is_doubtful(id(1), victim));
}

#[test]
fn an_order_that_was_never_told_leaves_no_doubt() {
    let mut cluster = Cluster::new(3, 0, 2, 15);
    cluster.store(sealed(1, 1), 2, &[1, 2, 3]);
    cluster.beat();
    let victim = cluster.start_repair().deletes[0].datanode;
    assert_eq!(cluster.tasks.restarted(victim).len(), 1);
    assert!(!cluster.tasks.is_doubtful(id(1), victim));
    cluster.start_repair();
    cluster.beats(400);
    assert_eq!(
        cluster
            .tasks
            .expire(&cluster.policy.repair, cluster.now)
            .len(),
        1
    );
    assert!(!cluster.tasks.is_doubtful(id(1), victim));
}

#[test]
fn i24_a_datanode_whose_set_is_not_proven_lends_no_excess() {
    let mut cluster = Cluster::new(4, 0, 3, 8);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3, 4]);
    cluster.beat();
    cluster.table.set_picture(node(1), false);
    cluster.map.sync(&cluster.table, cluster.now);
    assert!(
        cluster.plan().is_empty(),
        "three are proven, the fourth is not to be counted on"
    );
    cluster.beat();
    assert_eq!(cluster.plan().deletes.len(), 1);
}

#[test]
fn i22_a_chunk_on_one_host_twice_is_moved_apart() {
    let mut cluster = Cluster::new(2, 0, 2, 10);
    cluster.add(3, AdminState::InService, None, Some("shared".into()));
    cluster.add(4, AdminState::InService, None, Some("shared".into()));
    cluster.store(sealed(1, 1), 2, &[3, 4]);
    cluster.beat();
    assert_eq!(
        cluster.map.get(id(1)).unwrap().health,
        ChunkHealth::MisReplicated
    );
    cluster.settle();
    assert_eq!(cluster.map.get(id(1)).unwrap().health, ChunkHealth::Healthy);
    assert_eq!(cluster.holders(id(1)).len(), 2);
}

#[test]
fn a_leaving_datanode_is_emptied_at_its_rate_and_what_lacks_replicas_does_not_wait_for_it() {
    let mut cluster = Cluster::new(6, 0, 3, 3);
    let lengths = sealed(1, 1).length;
    // One chunk in ten seconds.
    cluster.policy.repair.decommission_rate = Some(lengths.div_ceil(10).max(1));
    for n in 1..=4 {
        cluster.store(sealed(n, 1), 3, &[1, 2, 3]);
    }
    cluster.store(sealed(5, 1), 3, &[2, 4]);
    cluster.beat();
    cluster.set_admin(1, AdminState::Decommissioning);
    cluster.beat();
    let plan = cluster.start_repair();
    let copied: Vec<_> = plan.copies.iter().map(|copy| copy.chunk.id).collect();
    assert_eq!(copied.len(), 2, "{copied:?}");
    assert!(
        copied.contains(&id(5)),
        "repair waited for the rate: {copied:?}"
    );
    assert!(plan.limited.emptying > 0);
    cluster.carry_out();
    cluster.beat();
    assert_eq!(
        cluster.start_repair().copies.len(),
        0,
        "faster than the rate"
    );
    cluster.beats(11);
    assert_eq!(cluster.start_repair().copies.len(), 1);
    cluster.carry_out();
    for _ in 0..5 {
        cluster.beats(11);
        cluster.start_repair();
        cluster.carry_out();
    }
    cluster.beat();
    assert!(cluster.map.counters().all_healthy());
}

#[test]
fn i25_a_leaving_datanode_is_emptied_by_copies_and_stays_a_source() {
    let mut cluster = Cluster::new(4, 0, 1, 11);
    cluster.store(sealed(1, 1), 1, &[4]);
    cluster.store(sealed(2, 1), 3, &[2, 3, 4]);
    cluster.set_admin(4, AdminState::Decommissioning);
    cluster.settle();
    assert_eq!(cluster.good_copies(&sealed(1, 1)), 1);
    assert_eq!(cluster.good_copies(&sealed(2, 1)), 3);
    assert!(
        cluster.holders(id(1)).contains(&node(4)),
        "never deleted from the leaving one"
    );
}

#[test]
fn after_a_tracker_restart_copies_wait_for_those_who_have_not_reported() {
    let mut cluster = Cluster::new(2, 0, 2, 12);
    cluster.store(sealed(1, 1), 2, &[1]);
    cluster.add(3, AdminState::InService, None, None);
    cluster.put(3, sealed(1, 1));
    cluster.down(3);
    cluster.beat();
    assert!(cluster.start_repair().is_empty(), "datanode 3 may have it");
    cluster.beats(11);
    assert_eq!(
        cluster.plan().copies.len(),
        1,
        "a last live copy waits ten heartbeats only"
    );
}

#[derive(Debug, Clone)]
struct History {
    nodes: u128,
    zones: u128,
    factor: u32,
    chunks: Vec<Vec<(u128, u8)>>,
    lost: Vec<u128>,
    leaving: Option<u128>,
    seed: u64,
}

fn histories() -> impl Strategy<Value = History> {
    (3u128..9, 0u128..4, 1u32..4).prop_flat_map(|(nodes, zones, factor)| {
        let holder = (1..=nodes, 0u8..8);
        let chunks = prop::collection::vec(prop::collection::vec(holder, 1..6), 1..25);
        let lost = prop::collection::vec(1..=nodes, 0..3);
        (chunks, lost, prop::option::of(1..=nodes), any::<u64>()).prop_map(
            move |(chunks, lost, leaving, seed)| History {
                nodes,
                zones,
                factor,
                chunks,
                lost,
                leaving,
                seed,
            },
        )
    })
}

fn build(history: &History) -> Cluster {
    let History {
        nodes,
        zones,
        factor,
        chunks,
        lost,
        leaving,
        seed,
    } = history;
    let mut cluster = Cluster::new(*nodes, *zones, *factor, *seed);
    for (n, holders) in (1..).zip(chunks) {
        cluster.store(sealed(n, 3), *factor, &[]);
        for (at, state) in holders {
            let good = sealed(n, 3);
            let held = match state {
                0 => sealed(n, 2),
                1 => dfs_protocol::chunk::SealedChunk { crc32c: 99, ..good },
                _ => good,
            };
            cluster.put(*at, held);
        }
    }
    cluster.beats(2);
    for n in lost {
        cluster.down(*n);
    }
    if let Some(n) = leaving {
        cluster.set_admin(*n, AdminState::Decommissioning);
    }
    cluster.beats(4);
    cluster.table.acknowledge_loss(cluster.now);
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    // Deletions are checked by the cluster as they happen (I24), sources too (I07).
    #[test]
    fn i23_repair_ends_with_every_chunk_that_can_be_helped_at_its_factor(history in histories()) {
        let mut cluster = build(&history);
        cluster.settle();
        let takers = cluster.table.all_placeable(0, cluster.now).len();
        let chunks: Vec<_> = cluster.map.iter().collect();
        for chunk in chunks {
            let good = chunk.replicas.iter().any(|r| r.class.good() && r.holder.readable());
            let counted = cluster.good_copies(&chunk.expected.chunk);
            if good && takers >= history.factor as usize {
                prop_assert_eq!(counted, history.factor as usize, "{:?}", chunk);
                // Losses may leave zones too few for a good spread; hosts always suffice.
                let spread = history.zones == 0 || history.lost.is_empty();
                let zones = cluster.map.rule().zones;
                if spread && (zones == 0 || history.nodes >= 6 && history.leaving.is_none()) {
                    prop_assert_eq!(chunk.health, ChunkHealth::Healthy, "{:?}", chunk);
                }
            }
        }
    }

    #[test]
    fn i24_returning_datanodes_never_cost_a_chunk_its_factor(history in histories(), returns in 0u32..60) {
        let mut cluster = build(&history);
        for _ in 0..returns {
            cluster.start_repair();
            cluster.carry_out();
            cluster.beat();
        }
        for n in &history.lost {
            cluster.up(*n);
        }
        cluster.settle();
        let takers = cluster.table.all_placeable(0, cluster.now).len();
        for chunk in cluster.map.iter() {
            let readable = chunk.replicas.iter().any(|r| r.class.good() && r.holder.readable());
            if readable && takers >= history.factor as usize {
                prop_assert_eq!(cluster.good_copies(&chunk.expected.chunk), history.factor as usize);
            }
        }
    }
}

#[test]
fn a_failed_copy_is_left_alone_for_a_while() {
    let mut cluster = Cluster::new(2, 0, 2, 13);
    cluster.store(sealed(1, 1), 2, &[1]);
    cluster.beat();
    cluster.tasks.postpone(id(1), cluster.now + 5 * SECOND);
    assert!(cluster.plan().is_empty());
    cluster.beats(5);
    assert_eq!(cluster.plan().copies.len(), 1);
}
