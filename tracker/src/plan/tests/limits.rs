//! How much repair orders at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::chunk::SealedChunk;
use dfs_protocol::datanode::Command;
use dfs_protocol::status::RepairPriority;
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};

use super::cluster::{Cluster, sealed};
use crate::plan::RepairLimits;
use crate::plan::tasks::{CopyReason, CopyTask, TaskTable, VerifyTask, Work};

#[test]
fn limits_for_each_datanode_and_in_all_are_kept() {
    let mut cluster = Cluster::new(4, 0, 2, 9);
    cluster.policy.repair.small_copy = 0;
    for n in 1..=100 {
        cluster.store(sealed(n, 1), 2, &[1]);
    }
    cluster.beat();
    let plan = cluster.start_repair();
    assert_eq!(plan.copies.len(), 4, "one source sends four at a time");
    assert!(plan.limited.sources > 0);
    cluster.policy.repair.copies_from = 100;
    let plan = cluster.plan();
    assert_eq!(
        plan.copies.len(),
        8,
        "three targets take four each, four are under way"
    );
    assert!(plan.limited.targets > 0);
    cluster.policy.repair.copies_to = 100;
    let plan = cluster.plan();
    assert_eq!(plan.copies.len(), 60, "64 in all");
    assert!(plan.limited.total > 0);
}

#[test]
fn in_the_place_of_one_large_copy_go_many_small_ones() {
    for (length, at_a_time) in [
        (1000, 256),
        (1 << 18, 256),
        (1 << 20, 64),
        (8 << 20, 8),
        (64 << 20, 4),
    ] {
        let mut cluster = Cluster::new(2, 0, 2, 9);
        for n in 1..=300 {
            let chunk = SealedChunk {
                length,
                ..sealed(n, 1)
            };
            cluster.store(chunk, 2, &[1]);
        }
        cluster.beat();
        let plan = cluster.start_repair();
        assert_eq!(plan.copies.len(), at_a_time, "of {length} bytes");
        assert!(plan.limited.sources > 0);
        assert!(cluster.start_repair().is_empty(), "they are under way");
    }
}

fn large(n: u128) -> SealedChunk {
    SealedChunk {
        length: 64 << 20,
        ..sealed(n, 1)
    }
}

#[test]
fn a_low_rate_keeps_copies_at_the_tracker_where_more_urgent_ones_overtake_them() {
    let mut cluster = Cluster::new(3, 0, 3, 9);
    cluster.policy.repair.rate = 1 << 20;
    for n in 1..=10 {
        cluster.store(large(n), 3, &[1, 2]);
    }
    cluster.beat();
    let plan = cluster.start_repair();
    assert_eq!(
        plan.copies.len(),
        1,
        "more than its rate carries in a while"
    );
    assert!(plan.limited.targets > 0);
    // One that is on its last replica comes now, and waits for none of them.
    cluster.store(large(20), 3, &[1]);
    cluster.beat();
    let plan = cluster.start_repair();
    let urgent: Vec<_> = plan.copies.iter().map(|copy| copy.chunk.id).collect();
    assert_eq!(urgent, [large(20).id; 2]);
    assert!(cluster.start_repair().copies.is_empty());
}

#[test]
fn without_a_rate_only_the_number_of_copies_counts() {
    for rate in [0, 1 << 30] {
        let mut cluster = Cluster::new(3, 0, 3, 9);
        cluster.policy.repair.rate = rate;
        for n in 1..=10 {
            cluster.store(large(n), 3, &[1, 2]);
        }
        cluster.beat();
        assert_eq!(cluster.start_repair().copies.len(), 4, "at {rate}");
    }
}

#[test]
fn a_copy_that_the_rate_makes_slow_is_not_given_up_and_planned_again_for_ever() {
    let mut cluster = Cluster::new(3, 0, 3, 9);
    cluster.policy.repair.rate = 1 << 20;
    let chunk = SealedChunk {
        length: 1 << 30,
        ..sealed(1, 1)
    };
    cluster.weigh = |_| 0;
    cluster.store(chunk, 3, &[1, 2]);
    cluster.beat();
    assert_eq!(cluster.start_repair().copies.len(), 1);
    // Alone it takes 1024 seconds, which is more than a task has otherwise.
    cluster.beats(1100);
    let limits = cluster.policy.repair;
    assert!(cluster.tasks.expire(&limits, cluster.now).is_empty());
    cluster.beats(8000);
    assert_eq!(cluster.tasks.expire(&limits, cluster.now).len(), 1);
}

#[test]
fn copies_of_what_one_datanode_held_are_shared_evenly_by_all_others() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(15, 0, 3, seed);
        cluster.policy.repair.copies_total = 1000;
        let mut rng = fastrand::Rng::with_seed(seed);
        for n in 1..=60 {
            let length = [64 << 10, 1 << 20][rng.usize(..2)];
            let chunk = SealedChunk {
                length,
                ..sealed(n, 1)
            };
            let first = rng.u128(1..=15);
            let second = (first + rng.u128(1..15) - 1) % 15 + 1;
            cluster.store(chunk, 3, &[first, second]);
        }
        cluster.beat();
        let plan = cluster.start_repair();
        assert_eq!(plan.copies.len(), 60);
        let mut received = BTreeMap::new();
        for copy in &plan.copies {
            *received.entry(copy.target).or_insert(0) += copy.chunk.length;
        }
        let (all, most) = (
            received.values().sum::<u64>(),
            received.values().max().unwrap(),
        );
        assert!(*most <= all / 15 + (1 << 20), "seed {seed}: {received:?}");
    }
}

#[test]
fn last_replicas_that_share_the_rate_are_not_given_up_while_they_are_copied() {
    let limits = RepairLimits {
        rate: 1 << 20,
        task_timeout: Duration::ZERO,
        ..RepairLimits::default()
    };
    for bytes in [1, 64 << 20, 4 << 30] {
        // Three quarters of the rate for as many as may be copied to one datanode.
        let one = bytes as f64 / limits.rate as f64;
        let all = one * f64::from(limits.copies_to) * 4.0 / 3.0;
        assert!(
            limits.patience(bytes) > Duration::from_secs_f64(all),
            "{bytes}"
        );
    }
}

#[test]
fn tasks_of_two_lives_of_a_tracker_share_no_id() {
    let ids = |random| {
        let mut table = TaskTable::numbered_anew(random);
        let work = |chunk| {
            Work::Verify(VerifyTask {
                datanode: DatanodeId::from_u128(1),
                chunk: ChunkId::from_u128(chunk),
                version: ChunkVersion::FIRST,
            })
        };
        let started = (0..1000).map(|chunk| table.start(work(chunk), Duration::ZERO).unwrap());
        started.collect::<BTreeSet<_>>()
    };
    let (before, after) = (ids(0x0123_4567_89ab_cdef), ids(u64::MAX));
    assert!(before.is_disjoint(&after));
    assert!(
        after.last().unwrap().0 < 1 << 53,
        "a reader of JSON may round it"
    );
}

#[test]
fn i23_last_replicas_are_told_before_any_backlog_and_find_room_in_a_full_table() {
    let target = DatanodeId::from_u128(1);
    let mut table = TaskTable::new();
    let verify = |chunk| {
        Work::Verify(VerifyTask {
            datanode: target,
            chunk: ChunkId::from_u128(chunk),
            version: ChunkVersion::FIRST,
        })
    };
    let mut chunk = 0;
    while table.start(verify(chunk), Duration::ZERO).is_some() {
        chunk += 1;
    }
    let copy = |priority| {
        Work::Copy(CopyTask {
            chunk: sealed(1_000_000, 1),
            reason: CopyReason::Repair(priority),
            sources: Vec::new(),
            target,
        })
    };
    let other = table.start(copy(RepairPriority::UnderReplicated), Duration::ZERO);
    assert_eq!(other, None, "the table is full");
    let last = table.start(copy(RepairPriority::LastReplica), Duration::ZERO);
    let cluster = Cluster::new(1, 0, 1, 1);
    let told = table.commands_for(
        target,
        &cluster.table,
        Duration::from_secs(1),
        64,
        Duration::ZERO,
    );
    assert_eq!(told.first().map(Command::task), last);
    assert_eq!(told.len(), 64);
}
