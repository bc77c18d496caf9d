//! A cluster without a network: datanodes are sets of chunks, a second is a step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, Replica, SealedChunk, SetDigest};
use dfs_protocol::datanode::{AdminState, Command, DatanodeStats};
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId, Fence, InstanceId, TaskId};
use jiff::Timestamp;

use crate::model::datanodes::{DatanodeTable, Heard, Message};
use crate::model::leases::LeaseTable;
use crate::model::op::DatanodeRecord;
use crate::model::replicas::{Expected, ReplicaMap};
use crate::plan::repair::{RepairCursors, RepairPlan, RepairView};
use crate::plan::tasks::{TaskTable, Work};
use crate::plan::{Hold, Policy, repair};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const GIB: u64 = 1 << 30;

pub(super) fn node(n: u128) -> DatanodeId {
    DatanodeId::from_u128(n)
}

pub(super) fn id(n: u128) -> ChunkId {
    ChunkId::from_u128(n)
}

pub(super) fn sealed(n: u128, version: u32) -> SealedChunk {
    SealedChunk {
        id: id(n),
        version: ChunkVersion(version),
        length: 1000 + u64::try_from(n).unwrap(),
        crc32c: 7,
    }
}

pub(super) fn replica(chunk: SealedChunk) -> Replica {
    Replica {
        chunk,
        kind: ChunkKind::Data,
    }
}

pub(super) fn expected(chunk: SealedChunk, factor: u32) -> Expected {
    Expected {
        chunk,
        factor,
        kind: ChunkKind::Data,
    }
}

pub(super) fn record(
    n: u128,
    admin: AdminState,
    zone: Option<String>,
    host: Option<String>,
) -> DatanodeRecord {
    DatanodeRecord {
        admin,
        zone,
        host,
        address: format!("node-{n}:6001"),
        registered: Timestamp::UNIX_EPOCH,
        claim: None,
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) capacity: u64,
    pub(super) chunks: BTreeMap<ChunkId, SealedChunk>,
    told: BTreeMap<ChunkId, SealedChunk>,
    sequence: u64,
    pub(super) up: bool,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            capacity: GIB,
            chunks: BTreeMap::new(),
            told: BTreeMap::new(),
            sequence: 0,
            up: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) table: DatanodeTable,
    pub(super) map: ReplicaMap,
    pub(super) tasks: TaskTable,
    pub(super) leases: LeaseTable,
    pub(super) policy: Policy,
    pub(super) now: Duration,
    pub(super) rng: fastrand::Rng,
    pub(super) disks: BTreeMap<DatanodeId, Disk>,
    /// Bytes that a chunk takes: a MiB, unless said otherwise.
    pub(super) weigh: fn(&SealedChunk) -> u64,
    cursors: RepairCursors,
    /// Every plan that was carried out.
    pub(super) plans: Vec<RepairPlan>,
}

impl Cluster {
    /// `nodes` live datanodes in service, numbered from 1; node n is in zone n modulo `zones`.
    pub(super) fn new(nodes: u128, zones: u128, factor: u32, seed: u64) -> Self {
        let mut policy = Policy {
            factor,
            ..Policy::default()
        };
        policy.repair.delay = 30 * SECOND;
        let mut cluster = Self {
            table: DatanodeTable::new(policy.liveness, policy.datanodes),
            map: ReplicaMap::new(),
            tasks: TaskTable::new(),
            leases: LeaseTable::new(policy.leases),
            policy,
            now: 1000 * SECOND,
            rng: fastrand::Rng::with_seed(seed),
            disks: BTreeMap::new(),
            weigh: |_| 1 << 20,
            cursors: RepairCursors::default(),
            plans: Vec::new(),
        };
        for n in 1..=nodes {
            let zone = (zones > 0).then(|| format!("zone-{}", n % zones.max(1)));
            cluster.add(n, AdminState::InService, zone, None);
        }
        cluster.beat();
        cluster
    }

    pub(super) fn add(
        &mut self,
        n: u128,
        admin: AdminState,
        zone: Option<String>,
        host: Option<String>,
    ) {
        self.table
            .put(node(n), record(n, admin, zone, host), self.now)
            .unwrap();
        self.disks.insert(
            node(n),
            Disk {
                up: true,
                ..Disk::default()
            },
        );
    }

    pub(super) fn set_admin(&mut self, n: u128, admin: AdminState) {
        let mut record = self.table.get(node(n)).unwrap().record.clone();
        record.admin = admin;
        self.table.put(node(n), record, self.now).unwrap();
    }

    /// A chunk of the catalog with replicas on these datanodes.
    pub(super) fn store(&mut self, chunk: SealedChunk, factor: u32, on: &[u128]) {
        self.map.load_chunk(expected(chunk, factor));
        for n in on {
            self.put(*n, chunk);
        }
    }

    pub(super) fn put(&mut self, n: u128, chunk: SealedChunk) {
        self.disks
            .get_mut(&node(n))
            .unwrap()
            .chunks
            .insert(chunk.id, chunk);
    }

    pub(super) fn down(&mut self, n: u128) {
        self.disks.get_mut(&node(n)).unwrap().up = false;
    }

    pub(super) fn up(&mut self, n: u128) {
        self.disks.get_mut(&node(n)).unwrap().up = true;
    }

    /// One second passes and every datanode that is up heartbeats.
    pub(super) fn beat(&mut self) {
        self.beat_some(SECOND, |_| true);
    }

    /// So much time passes and those of the datanodes that are up heartbeat whose turn it is.
    pub(super) fn beat_some(&mut self, passes: Duration, turn: impl Fn(&DatanodeId) -> bool) {
        self.now += passes;
        for (id, disk) in &mut self.disks {
            if !disk.up || !turn(id) {
                continue;
            }
            disk.sequence += 1;
            let used = disk.chunks.values().map(self.weigh).sum::<u64>();
            let message = Message {
                instance: InstanceId(1),
                sequence: disk.sequence,
                address: "x:1".to_owned(),
                fence: Fence::default(),
                stats: DatanodeStats {
                    capacity_bytes: disk.capacity,
                    used_bytes: used,
                    free_bytes: disk.capacity - used,
                    ..DatanodeStats::default()
                },
            };
            assert_eq!(
                self.table
                    .heard(*id, message, self.now, Timestamp::UNIX_EPOCH),
                Heard::Fresh
            );
            let in_sync = report(&mut self.map, *id, disk, self.now);
            self.table.set_picture(*id, in_sync);
        }
        self.map.sync(&self.table, self.now);
        self.map.check_derived().unwrap();
    }

    pub(super) fn beats(&mut self, count: u32) {
        for _ in 0..count {
            self.beat();
        }
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        crate::plan::hold(&self.table, None, &self.policy, self.now)
    }

    pub(super) fn plan(&mut self) -> RepairPlan {
        let hold = self.hold();
        let view = RepairView {
            datanodes: &self.table,
            replicas: &self.map,
            tasks: &self.tasks,
            hold: hold.as_ref(),
        };
        repair::plan(
            &view,
            &self.cursors,
            &self.policy.repair,
            self.now,
            &mut self.rng,
        )
    }

    /// Plans, records the plan, and checks that planning again yields nothing more.
    pub(super) fn start_repair(&mut self) -> RepairPlan {
        let plan = self.plan();
        self.cursors = plan.cursors;
        for work in plan.clone().into_work() {
            self.tasks.start(work, self.now).unwrap();
        }
        if plan.limited.total == 0 && plan.limited.sources == 0 && plan.limited.targets == 0 {
            let again = self.plan();
            assert!(again.is_empty(), "planned {plan:?}, then {again:?}");
        }
        self.plans.push(plan.clone());
        plan
    }

    /// Datanodes that are up carry their orders out; each deletion is checked against I24.
    pub(super) fn carry_out(&mut self) {
        let up: Vec<DatanodeId> = self
            .disks
            .iter()
            .filter(|(_, disk)| disk.up)
            .map(|(id, _)| *id)
            .collect();
        for id in up {
            for command in self
                .tasks
                .commands_for(id, &self.table, 10 * SECOND, 100, self.now)
            {
                match command {
                    Command::Copy {
                        task,
                        chunk,
                        sources,
                    } => self.copy(id, task, chunk, &sources),
                    Command::Delete {
                        task,
                        chunk,
                        version,
                        ..
                    } => self.delete(id, task, chunk, version),
                    Command::Verify { .. } => unreachable!("repair verifies nothing"),
                }
            }
        }
        for task in self.tasks.expire(&self.policy.repair, self.now) {
            assert!(matches!(task.work, Work::Copy(_) | Work::Delete(_)));
        }
    }

    fn copy(
        &mut self,
        to: DatanodeId,
        task: TaskId,
        chunk: SealedChunk,
        sources: &[dfs_protocol::chunk::DatanodeAddress],
    ) {
        let good = sources.iter().any(|source| {
            let disk = &self.disks[&source.id];
            assert_eq!(
                disk.chunks.get(&chunk.id),
                Some(&chunk),
                "i07: only a valid replica is a source"
            );
            disk.up
        });
        if good {
            self.disks
                .get_mut(&to)
                .unwrap()
                .chunks
                .insert(chunk.id, chunk);
        } else {
            self.tasks.postpone(chunk.id, self.now + 5 * SECOND);
        }
        self.tasks.finish(task).unwrap();
        if good {
            self.tasks.moves.landed(chunk.id);
        } else {
            self.tasks.moves.forget(chunk.id);
        }
    }

    fn delete(&mut self, on: DatanodeId, task: TaskId, chunk: ChunkId, version: ChunkVersion) {
        let disk = self.disks.get_mut(&on).unwrap();
        if disk
            .chunks
            .get(&chunk)
            .is_some_and(|held| held.version == version)
        {
            let gone = disk.chunks.remove(&chunk).unwrap();
            let view = self.map.get(chunk).unwrap();
            if gone == view.expected.chunk {
                let left = self.good_copies(&view.expected.chunk);
                assert!(
                    left >= view.expected.factor as usize,
                    "i24: {left} left of {view:?}"
                );
            } else {
                let good = |disk: &Disk| disk.chunks.get(&chunk) == Some(&view.expected.chunk);
                let elsewhere = self.disks.values().any(|disk| disk.up && good(disk));
                assert!(elsewhere, "a good one exists elsewhere: {view:?}");
            }
        }
        self.tasks.finish(task).unwrap();
        self.map.remove_replica(on, chunk, version);
    }

    /// Good replicas on datanodes that are up and in service.
    pub(super) fn good_copies(&self, chunk: &SealedChunk) -> usize {
        let counted = self.disks.iter().filter(|(id, disk)| {
            disk.up
                && self.table.get(**id).unwrap().record.admin == AdminState::InService
                && disk.chunks.get(&chunk.id) == Some(chunk)
        });
        counted.count()
    }

    /// Repairs until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..2000 {
            self.beat();
            let plan = self.start_repair();
            let idle = plan.is_empty() && self.tasks.iter().next().is_none();
            if idle && plan.limited.delayed == 0 {
                return;
            }
            self.carry_out();
        }
        panic!(
            "no fixpoint: {:?}, last plan {:?}",
            self.map.counters(),
            self.plans.last()
        );
    }

    pub(super) fn holders(&self, chunk: ChunkId) -> BTreeSet<DatanodeId> {
        self.disks
            .iter()
            .filter(|(_, d)| d.chunks.contains_key(&chunk))
            .map(|(id, _)| *id)
            .collect()
    }
}

fn report(map: &mut ReplicaMap, id: DatanodeId, disk: &mut Disk, now: Duration) -> bool {
    let digest = SetDigest::of(disk.chunks.values());
    let added: Vec<Replica> = disk
        .chunks
        .iter()
        .filter(|(chunk, held)| disk.told.get(chunk) != Some(held))
        .map(|(_, held)| replica(*held))
        .collect();
    let removed: Vec<SealedChunk> = disk
        .told
        .iter()
        .filter(|(chunk, told)| disk.chunks.get(chunk) != Some(told))
        .map(|(_, told)| *told)
        .collect();
    disk.told = disk.chunks.clone();
    map.apply_delta(id, &added, &removed, &digest, now) || {
        let all: Vec<Replica> = disk.chunks.values().map(|held| replica(*held)).collect();
        map.apply_full_report(id, &all, &digest, now)
    }
}
