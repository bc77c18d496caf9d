//! Garbage collection over tables and random histories.

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::{FileId, LeaseId};
use jiff::Timestamp;
use proptest::prelude::*;

use super::cluster::{Cluster, SECOND, expected, id, node, sealed};
use crate::model::op::{CheckpointRecord, CondemnedRecord};
use crate::plan::Hold;
use crate::plan::gc::{CondemnedTable, GcCursors, GcPlan, GcView, plan};
use crate::plan::tasks::Work;

#[derive(Debug)]
struct Gc {
    cluster: Cluster,
    condemned: CondemnedTable,
    checkpoints: Vec<CheckpointRecord>,
    checkpoints_enabled: bool,
    cursors: GcCursors,
    sequence: u64,
    hold: Option<Hold>,
}

impl Gc {
    fn new(nodes: u128, seed: u64) -> Self {
        let mut cluster = Cluster::new(nodes, 0, 3, seed);
        cluster.policy.gc.orphan_age = 60 * SECOND;
        cluster.policy.gc.forget_after = 100 * SECOND;
        Self {
            cluster,
            condemned: CondemnedTable::new(),
            checkpoints: Vec::new(),
            checkpoints_enabled: false,
            cursors: GcCursors::default(),
            sequence: 10,
            hold: None,
        }
    }

    fn plan(&self) -> GcPlan {
        let view = GcView {
            datanodes: &self.cluster.table,
            replicas: &self.cluster.map,
            leases: &self.cluster.leases,
            tasks: &self.cluster.tasks,
            condemned: &self.condemned,
            checkpoints: &self.checkpoints,
            checkpoints_enabled: self.checkpoints_enabled,
            hold: self.hold.as_ref(),
        };
        plan(
            &view,
            &self.cursors,
            &self.cluster.policy.gc,
            self.cluster.now,
        )
    }

    /// Plans, records the plan, and carries it out.
    fn tick(&mut self) -> GcPlan {
        self.cluster.beat();
        let plan = self.plan();
        self.cursors = plan.cursors;
        let now = self.cluster.now;
        for (chunk, version, kind) in &plan.condemn {
            self.sequence += 1;
            let record = CondemnedRecord {
                version: *version,
                kind: *kind,
                sequence: self.sequence,
                condemned: Timestamp::UNIX_EPOCH,
            };
            self.condemned.insert(*chunk, &record, now);
        }
        for delete in &plan.deletes {
            self.cluster
                .tasks
                .start(Work::Delete(*delete), now)
                .unwrap();
        }
        for chunk in &plan.forget {
            self.condemned.remove(*chunk);
        }
        let again = self.plan();
        assert!(
            again.condemn.is_empty() && again.forget.is_empty(),
            "{plan:?}, then {again:?}"
        );
        for delete in &plan.deletes {
            assert!(!again.deletes.contains(delete));
            let disk = self.cluster.disks.get_mut(&delete.datanode).unwrap();
            disk.chunks.remove(&delete.chunk);
        }
        let done: Vec<_> = self.cluster.tasks.iter().map(|task| task.id).collect();
        for task in done {
            self.cluster.tasks.finish(task);
        }
        plan
    }

    fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.tick();
        }
    }

    fn checkpoint(&mut self, sequence: u64, chunks: &[u128]) {
        self.checkpoints.push(CheckpointRecord {
            file: FileId::from_u128(1),
            sequence,
            chunks: chunks.iter().map(|n| sealed(*n, 1)).collect(),
            created: Timestamp::UNIX_EPOCH,
        });
    }
}

#[test]
fn i11_an_orphan_is_condemned_after_its_age_then_deleted_then_forgotten() {
    let mut gc = Gc::new(3, 1);
    gc.cluster.put(1, sealed(1, 1));
    gc.cluster.put(2, sealed(1, 2));
    gc.ticks(60);
    assert!(gc.condemned.is_empty() && gc.cluster.holders(id(1)).len() == 2);
    gc.ticks(3);
    assert!(gc.cluster.holders(id(1)).is_empty());
    assert_eq!(gc.condemned.len(), 1);
    gc.ticks(101);
    assert!(gc.condemned.is_empty());
}

#[test]
fn i10_a_leased_chunk_is_safe_and_ages_from_the_last_renewal() {
    let mut gc = Gc::new(3, 2);
    let lease = LeaseId::from_u128(1);
    gc.cluster.put(1, sealed(1, 1));
    for _ in 0..20 {
        gc.cluster
            .leases
            .renew(lease, &[id(1)], gc.cluster.now)
            .unwrap();
        gc.ticks(30);
    }
    assert!(gc.condemned.is_empty(), "600 s old, renewed 30 s ago");
    gc.ticks(29);
    assert!(gc.condemned.is_empty());
    gc.ticks(3);
    assert!(gc.cluster.holders(id(1)).is_empty());
}

#[test]
fn i10_a_lease_outlasts_a_shorter_orphan_age() {
    let mut gc = Gc::new(3, 8);
    gc.cluster.policy.gc.orphan_age = SECOND;
    gc.cluster.put(1, sealed(1, 1));
    let lease = LeaseId::from_u128(1);
    gc.cluster
        .leases
        .renew(lease, &[id(1)], gc.cluster.now)
        .unwrap();
    gc.ticks(59);
    assert!(gc.condemned.is_empty());
    gc.ticks(2);
    assert!(gc.cluster.holders(id(1)).is_empty());
}

#[test]
fn an_abandoned_upload_does_not_wait() {
    let mut gc = Gc::new(3, 3);
    let lease = LeaseId::from_u128(1);
    gc.cluster.put(1, sealed(1, 1));
    gc.cluster
        .leases
        .renew(lease, &[id(1)], gc.cluster.now)
        .unwrap();
    gc.tick();
    gc.cluster.leases.abandon(lease, &[id(1)]);
    gc.ticks(2);
    assert!(gc.cluster.holders(id(1)).is_empty());
}

#[test]
fn condemned_chunks_stay_while_a_kept_checkpoint_is_older() {
    let mut gc = Gc::new(3, 4);
    gc.checkpoints_enabled = true;
    gc.cluster.put(1, sealed(1, 1));
    gc.ticks(80);
    assert_eq!(
        (gc.condemned.len(), gc.cluster.holders(id(1)).len()),
        (1, 1),
        "no checkpoint yet"
    );
    gc.checkpoint(10, &[]);
    gc.checkpoint(100, &[]);
    gc.ticks(2);
    assert_eq!(
        gc.cluster.holders(id(1)).len(),
        1,
        "the oldest kept one still names it"
    );
    gc.checkpoints.remove(0);
    gc.ticks(2);
    assert!(gc.cluster.holders(id(1)).is_empty());
}

#[test]
fn chunks_of_kept_checkpoints_stay_and_others_go() {
    let mut gc = Gc::new(3, 5);
    gc.checkpoints_enabled = true;
    gc.checkpoint(1000, &[1]);
    for n in 1..=2 {
        let kind = ChunkKind::Checkpoint;
        let replica = dfs_protocol::chunk::Replica {
            chunk: sealed(n, 1),
            kind,
        };
        gc.cluster.put(1, sealed(n, 1));
        gc.cluster.map.apply_delta(
            node(1),
            &[replica],
            &[],
            &dfs_protocol::chunk::SetDigest::default(),
            gc.cluster.now,
        );
    }
    gc.ticks(70);
    assert_eq!(gc.cluster.holders(id(1)).len(), 1);
    assert!(gc.cluster.holders(id(2)).is_empty());
}

#[test]
fn fault_21_nothing_is_deleted_on_a_datanode_whose_set_is_not_proven_or_while_held() {
    let mut gc = Gc::new(3, 6);
    gc.cluster.put(1, sealed(1, 1));
    gc.ticks(30);
    gc.cluster.beats(31);
    gc.hold = Some(Hold::Asked("restored from an older backup".into()));
    assert!(gc.plan().is_empty(), "i34");
    gc.hold = None;
    gc.tick();
    gc.cluster.beat();
    gc.cluster.table.set_picture(node(1), false);
    gc.cluster.map.sync(&gc.cluster.table, gc.cluster.now);
    assert!(gc.plan().deletes.is_empty());
    gc.cluster.beat();
    assert_eq!(gc.plan().deletes.len(), 1);
}

#[test]
fn a_condemned_chunk_is_remembered_while_a_datanode_that_may_hold_it_is_away() {
    let mut gc = Gc::new(3, 7);
    gc.cluster.add(4, AdminState::InService, None, None);
    gc.cluster.down(4);
    gc.cluster.put(1, sealed(1, 1));
    gc.ticks(400);
    assert_eq!(gc.condemned.len(), 1);
    gc.cluster.set_admin(4, AdminState::Tombstoned);
    gc.ticks(2);
    assert!(gc.condemned.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn i10_gc_never_touches_what_the_catalog_or_a_lease_names_and_i11_collects_the_rest(
        chunks in prop::collection::vec((0u8..4, 1u128..5, 0u32..90), 1..40),
        seed: u64,
    ) {
        let mut gc = Gc::new(4, seed);
        let lease = LeaseId::from_u128(9);
        for (n, (_, on, _)) in (1..).zip(&chunks) {
            gc.cluster.put(*on, sealed(n, 1));
        }
        for step in 0..200u32 {
            for (n, (fate, _, when)) in (1..).zip(&chunks) {
                match fate {
                    // Referenced from some moment on, under a lease until then.
                    0 if step < *when => gc.cluster.leases.renew(lease, &[id(n)], gc.cluster.now).unwrap(),
                    0 if step == *when => {
                        gc.cluster.map.commit_chunk(expected(sealed(n, 1), 3), &[], gc.cluster.now);
                        gc.cluster.leases.committed([id(n)]);
                    }
                    1 => gc.cluster.leases.renew(lease, &[id(n)], gc.cluster.now).unwrap(),
                    _ => {}
                }
            }
            let plan = gc.tick();
            for (n, (fate, ..)) in (1..).zip(&chunks) {
                if *fate < 2 {
                    prop_assert!(!plan.condemn.iter().any(|(chunk, ..)| *chunk == id(n)));
                    prop_assert!(!plan.deletes.iter().any(|delete| delete.chunk == id(n)));
                }
            }
        }
        for (n, (fate, ..)) in (1..).zip(&chunks) {
            prop_assert_eq!(gc.cluster.holders(id(n)).is_empty(), *fate >= 2, "chunk {}", n);
        }
    }
}
