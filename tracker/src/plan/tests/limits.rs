//! How much repair orders at a time.

use dfs_protocol::chunk::SealedChunk;

use super::cluster::{Cluster, sealed};

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
fn in_the_place_of_one_large_copy_go_sixteen_small_ones() {
    for (length, at_a_time) in [(1000, 64), (1 << 20, 64), (8 << 20, 8), (64 << 20, 4)] {
        let mut cluster = Cluster::new(2, 0, 2, 9);
        for n in 1..=100 {
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
