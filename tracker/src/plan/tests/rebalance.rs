//! Rebalance over tables and random clusters; every deletion is checked against I24 by the cluster.

use std::collections::BTreeMap;

use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::SealedChunk;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::ChunkHealth;
use proptest::prelude::*;

use super::cluster::{Cluster, GIB, SECOND, id, node, sealed};
use crate::plan::rebalance::{RebalancePace, RebalancePlan, RebalanceView, Waits, plan};
use crate::plan::tasks::Work;
use crate::plan::{Hold, RebalanceLimits};

const MIB: u64 = 1 << 20;

/// A cluster that rebalances, and what it did.
struct Balancer {
    cluster: Cluster,
    pace: RebalancePace,
    moved: u64,
    moves: BTreeMap<dfs_protocol::ChunkId, u32>,
}

fn sized(n: u128, length: u64) -> SealedChunk {
    SealedChunk {
        length,
        ..sealed(n, 1)
    }
}

impl Balancer {
    fn new(mut cluster: Cluster) -> Self {
        cluster.weigh = |chunk| chunk.length;
        // Only the volumes are of interest here: the limits have tests of their own.
        cluster.policy.rebalance = RebalanceLimits {
            rate: u64::MAX,
            total: 1000,
            per_datanode: 1000,
            ..RebalanceLimits::default()
        };
        cluster.beat();
        Self {
            cluster,
            pace: RebalancePace::default(),
            moved: 0,
            moves: BTreeMap::new(),
        }
    }

    fn plan(&mut self, pace: RebalancePace, hold: Option<&Hold>) -> RebalancePlan {
        let cluster = &mut self.cluster;
        let view = RebalanceView {
            datanodes: &cluster.table,
            replicas: &cluster.map,
            tasks: &cluster.tasks,
            hold,
            factor: cluster.policy.factor,
        };
        let limits = cluster.policy.rebalance;
        plan(&view, pace, &limits, cluster.now, &mut cluster.rng)
    }

    /// Plans, records the plan, and checks that planning again yields nothing more.
    fn start(&mut self) -> RebalancePlan {
        let planned = self.plan(self.pace, None);
        self.pace = planned.pace;
        for copy in &planned.moves {
            self.moved += copy.chunk.length;
            *self.moves.entry(copy.chunk.id).or_default() += 1;
            let now = self.cluster.now;
            self.cluster
                .tasks
                .start(Work::Copy(copy.clone()), now)
                .unwrap();
        }
        if planned.limited == crate::plan::rebalance::RebalanceLimited::default() {
            let again = self.plan(self.pace, None);
            assert!(again.moves.is_empty(), "{planned:?}, then {again:?}");
        }
        planned
    }

    /// One second: what rebalance and repair want is done.
    fn step(&mut self) -> RebalancePlan {
        self.cluster.beat();
        let (patience, now) = (self.cluster.policy.rebalance.patience, self.cluster.now);
        let ended = self
            .cluster
            .tasks
            .moves
            .end(&self.cluster.map, patience, now);
        assert!(ended.dropped.is_empty(), "{ended:?}");
        let planned = self.start();
        let repair = self.cluster.start_repair();
        assert!(
            repair.copies.is_empty(),
            "no move makes work for repair: {repair:?}"
        );
        for delete in &repair.deletes {
            let one = self.cluster.tasks.moves.get(delete.chunk).unwrap();
            assert_eq!(
                delete.datanode, one.from,
                "the old replica goes, never the new one"
            );
        }
        self.cluster.carry_out();
        planned
    }

    fn settle(&mut self) {
        for _ in 0..500 {
            let planned = self.step();
            if planned.moves.is_empty() && self.cluster.tasks.moves.is_empty() {
                assert!(!planned.pace.running);
                return;
            }
        }
        panic!("no fixpoint after {} bytes", self.moved);
    }

    fn used(&self, n: u128) -> u64 {
        let disk = &self.cluster.disks[&node(n)];
        disk.chunks.values().map(|chunk| chunk.length).sum()
    }

    fn shares(&self, of: impl Fn(u128) -> bool) -> Vec<f64> {
        let all = self.cluster.disks.iter();
        let all = all.filter(|(id, _)| of(id.as_u128()));
        all.map(|(id, disk)| self.used(id.as_u128()) as f64 / disk.capacity as f64)
            .collect()
    }

    fn is_whole(&self) {
        assert!(self.cluster.map.counters().all_healthy());
    }
}

/// How far apart shares are, as a part of the largest.
fn apart(shares: &[f64]) -> f64 {
    let most = shares.iter().copied().fold(0.0, f64::max);
    let least = shares.iter().copied().fold(1.0, f64::min);
    if most == 0.0 {
        0.0
    } else {
        (most - least) / most
    }
}

/// Three datanodes, factor 3, `count` chunks of `length`; then two more datanodes.
fn scaled_up(zones: bool, count: u128, length: u64) -> Balancer {
    let mut cluster = Cluster::new(0, 0, 3, 1);
    let zone = |n: u128| zones.then(|| format!("zone-{}", (n - 1) % 3 + 1));
    for n in 1..=3 {
        cluster.add(n, AdminState::InService, zone(n), None);
    }
    for n in 1..=count {
        cluster.store(sized(n, length), 3, &[1, 2, 3]);
    }
    for n in 4..=5 {
        cluster.add(n, AdminState::InService, zone(n), None);
    }
    Balancer::new(cluster)
}

#[test]
fn after_three_datanodes_became_five_all_are_within_a_tenth_of_each_other() {
    let mut balancer = scaled_up(false, 90, 4 * MIB);
    let needed: u64 = 2 * 3 * 90 * 4 * MIB / 5;
    balancer.settle();
    balancer.is_whole();
    assert!(apart(&balancer.shares(|_| true)) <= 0.1);
    assert!(balancer.moved <= needed, "{} of {needed}", balancer.moved);
    assert!(balancer.moves.values().all(|moves| *moves <= 2));
}

#[test]
fn i22_with_three_zones_only_the_datanodes_within_each_zone_are_evened_out() {
    let mut balancer = scaled_up(true, 90, 4 * MIB);
    balancer.settle();
    balancer.is_whole();
    for pair in [[1, 4], [2, 5]] {
        assert!(apart(&balancer.shares(|n| pair.contains(&n))) <= 0.1);
    }
    assert_eq!(
        balancer.used(3),
        90 * 4 * MIB,
        "the third zone keeps its replica of each"
    );
    assert_eq!(balancer.moved, 2 * 45 * 4 * MIB);
    let planned = balancer.step();
    assert_eq!((planned.bytes_to_go, planned.waits), (0, None));
    assert!(planned.pace.not_before > balancer.cluster.now, "no hurry");
}

#[test]
fn few_large_chunks_move_only_where_that_helps() {
    let mut balancer = scaled_up(false, 1, 64 * MIB);
    balancer.settle();
    assert_eq!(
        balancer.moved, 0,
        "one chunk of three replicas is even nowhere"
    );
    let mut balancer = scaled_up(false, 5, 64 * MIB);
    balancer.settle();
    balancer.is_whole();
    assert_eq!(balancer.moved, 6 * 64 * MIB);
    assert!(
        apart(&balancer.shares(|_| true)) < 1e-9,
        "three replicas each"
    );
}

#[test]
fn it_gives_way_to_everything_else() {
    let wants = |balancer: &mut Balancer| {
        let hold = balancer.cluster.hold();
        balancer.plan(RebalancePace::default(), hold.as_ref())
    };
    let mut balancer = scaled_up(false, 20, 4 * MIB);
    assert!(!wants(&mut balancer).moves.is_empty());
    let hold = Hold::SafeMode("reports".into());
    let planned = balancer.plan(RebalancePace::default(), Some(&hold));
    assert!(planned.moves.is_empty() && matches!(planned.waits, Some(Waits::Held(_))));

    balancer.cluster.policy.rebalance.threshold = 0;
    assert_eq!(wants(&mut balancer).waits, Some(Waits::Off));
    balancer.cluster.policy.rebalance.threshold = 5;

    balancer.cluster.set_admin(2, AdminState::Decommissioning);
    assert_eq!(wants(&mut balancer).waits, Some(Waits::Leaving(1)));
    balancer.cluster.set_admin(2, AdminState::InService);

    balancer.cluster.store(sized(99, MIB), 3, &[1, 2]);
    balancer.cluster.beat();
    assert_eq!(wants(&mut balancer).waits, Some(Waits::Weak(1)));
    balancer.cluster.put(3, sized(99, MIB));
    balancer.cluster.put(4, sized(99, MIB));
    balancer.cluster.beat();
    assert_eq!(wants(&mut balancer).waits, Some(Waits::Repair));
}

#[test]
fn it_never_moves_to_a_datanode_that_takes_no_chunks() {
    let mut balancer = scaled_up(false, 30, 4 * MIB);
    balancer.cluster.down(4);
    balancer.cluster.beats(4);
    let disk = balancer.cluster.disks.get_mut(&node(5)).unwrap();
    disk.capacity = 3 * MIB;
    balancer.cluster.beat();
    assert!(
        balancer.start().moves.is_empty(),
        "one is silent, one has no room"
    );
    balancer.cluster.up(4);
    balancer.settle();
    balancer.is_whole();
    assert_eq!(balancer.used(5), 0);
    assert!(balancer.used(4) > 0);
}

#[test]
fn the_limits_hold_and_are_counted() {
    let mut balancer = scaled_up(false, 90, 4 * MIB);
    balancer.cluster.policy.rebalance = RebalanceLimits {
        total: 5,
        per_datanode: 2,
        ..RebalanceLimits::default()
    };
    let planned = balancer.start();
    assert_eq!(planned.moves.len(), 4, "two datanodes receive two each");
    assert!(planned.limited.moves > 0 && planned.bytes_to_go > 0);
    for n in 1..=3 {
        assert!(balancer.cluster.tasks.copies().from(node(n)).copies <= 2);
    }
    balancer.cluster.policy.rebalance.rate = MIB;
    balancer.settle_slowly();
    let rate = balancer.cluster.policy.rebalance.rate;
    assert!(balancer.moved > 0 && rate == MIB);
    balancer.is_whole();
}

impl Balancer {
    /// As [`Self::settle`], at a rate: says nothing of the time, checks the pace of each plan.
    fn settle_slowly(&mut self) {
        let mut idle = 0;
        for _ in 0..5000 {
            let before = self.pace.not_before;
            let planned = self.step();
            if !planned.moves.is_empty() {
                assert!(self.cluster.now >= before, "too early");
                let bytes: u64 = planned.moves.iter().map(|copy| copy.chunk.length).sum();
                let rate = self.cluster.policy.rebalance.rate;
                let pause = self.pace.not_before.saturating_sub(self.cluster.now);
                assert!(pause.as_secs_f64() >= bytes as f64 / rate as f64 - 1e-6);
                idle = 0;
            } else if self.cluster.tasks.moves.is_empty() {
                idle += 1;
            }
            if idle > 20 {
                return;
            }
        }
        panic!("no fixpoint");
    }
}

#[test]
fn i24_a_returned_copy_or_a_full_new_datanode_does_not_turn_a_move_round() {
    let mut balancer = scaled_up(false, 30, 4 * MIB);
    let planned = balancer.start();
    let copy = planned.moves[0].clone();
    balancer.cluster.carry_out();
    balancer.cluster.beat();
    // Meanwhile writers fill the target: by fullness alone the new copy would be the one to go.
    let disk = balancer.cluster.disks.get_mut(&copy.target).unwrap();
    disk.capacity = disk.chunks.len() as u64 * 4 * MIB + MIB;
    balancer.cluster.beat();
    let deletes = balancer.cluster.start_repair().deletes;
    let gone = deletes.iter().find(|d| d.chunk == copy.chunk.id).unwrap();
    assert_ne!(gone.datanode, copy.target);
    assert_eq!(Some(gone.datanode), copy.sources.first().copied());
}

#[test]
fn a_move_whose_copy_fails_or_whose_target_dies_is_forgotten() {
    let mut balancer = scaled_up(false, 30, 4 * MIB);
    let planned = balancer.start();
    let lost: DatanodeId = planned.moves[0].target;
    balancer.cluster.down(lost.as_u128());
    balancer.cluster.tasks.fell_silent(lost);
    let tasks = &balancer.cluster.tasks;
    assert!(tasks.moves.iter().all(|one| one.to != lost) && !tasks.moves.is_empty());
    assert_eq!(tasks.copies().all().copies as usize, tasks.moves.len());
    assert_eq!(tasks.repair_copies(), 0);
    balancer.cluster.carry_out();
    balancer.cluster.up(lost.as_u128());
    balancer.settle();
    balancer.is_whole();
}

#[derive(Debug, Clone)]
struct World {
    seed: u64,
    zones: u128,
    factor: u32,
    capacities: Vec<u64>,
    hosts: u128,
    sizes: Vec<u64>,
}

fn worlds() -> impl Strategy<Value = World> {
    (
        any::<u64>(),
        0u128..4,
        1u32..4,
        proptest::collection::vec(1u64..4, 4..9),
        prop_oneof![Just(0u128), 3u128..6],
        proptest::collection::vec(prop_oneof![1u64..MIB, MIB..16 * MIB], 0..80),
    )
        .prop_map(|(seed, zones, factor, capacities, hosts, sizes)| World {
            seed,
            zones,
            factor,
            capacities,
            hosts,
            sizes,
        })
}

/// Chunks on random datanodes, as well spread as placement would have it.
fn build(world: &World) -> Balancer {
    let mut cluster = Cluster::new(0, 0, world.factor, world.seed);
    for (n, capacity) in (1u128..).zip(&world.capacities) {
        let zone = (world.zones > 0).then(|| format!("zone-{}", n % world.zones.max(1)));
        let host = (world.hosts > 0).then(|| format!("host-{}", n % world.hosts.max(1)));
        cluster.add(n, AdminState::InService, zone, host);
        cluster.disks.get_mut(&node(n)).unwrap().capacity = capacity * GIB;
    }
    cluster.beat();
    for (n, length) in (1u128..).zip(&world.sizes) {
        let request = crate::plan::placement::PlacementRequest {
            factor: world.factor,
            bytes: *length,
            avoid: &[],
        };
        let (table, now) = (&cluster.table, cluster.now);
        let on = crate::plan::placement::choose(table, &request, now, &mut cluster.rng);
        let on: Vec<u128> = on.into_iter().map(DatanodeId::as_u128).collect();
        cluster.store(sized(n, *length), world.factor, &on);
    }
    Balancer::new(cluster)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn i22_i24_rebalance_comes_to_rest_moves_little_and_never_worsens_the_spread(world in worlds()) {
        let mut balancer = build(&world);
        // Chunks whose hosts or zones are too few for them are badly spread from the start.
        let bad = balancer.cluster.map.counters().of_health(ChunkHealth::MisReplicated);
        if bad > 0 {
            // Repair may help some; rebalance must not be what repair waits for.
            for _ in 0..100 {
                balancer.cluster.beat();
                balancer.cluster.start_repair();
                balancer.cluster.carry_out();
            }
        }
        let bad = balancer.cluster.map.counters().of_health(ChunkHealth::MisReplicated);
        let before = unevenness(&balancer);
        let needed = surplus(&balancer);
        balancer.settle();
        let after = balancer.cluster.map.counters().of_health(ChunkHealth::MisReplicated);
        prop_assert!(after <= bad, "{after} badly spread, {bad} before");
        prop_assert!(unevenness(&balancer) <= before * (1.0 + 1e-9));
        if world.zones == 0 && world.hosts == 0 {
            let largest = world.sizes.iter().max().copied().unwrap_or(0) as f64;
            let most = needed * 1.5 + 4.0 * largest;
            prop_assert!(balancer.moved as f64 <= most, "{} moved, {needed} needed", balancer.moved);
        }
        for moves in balancer.moves.values() {
            prop_assert!(*moves <= world.factor * 3, "{:?}", balancer.moves);
        }
        // At rest, whatever the dice say.
        for seed in 0..5 {
            balancer.cluster.rng = fastrand::Rng::with_seed(seed);
            let again = balancer.plan(RebalancePace::default(), None);
            prop_assert!(again.moves.is_empty(), "{again:?}");
        }
    }

    #[test]
    fn small_chunks_end_within_a_tenth_and_no_more_moves_than_needed(
        seed in any::<u64>(),
        old in 3u128..6,
        new in 1u128..5,
        count in 150u128..300,
    ) {
        let mut cluster = Cluster::new(old, 0, 3, seed);
        for n in 1..=count {
            let first = n % old;
            let on = [first + 1, (first + 1) % old + 1, (first + 2) % old + 1];
            let length = MIB / 2 + cluster.rng.u64(..MIB);
            cluster.store(sized(n, length), 3, &on);
        }
        for n in old + 1..=old + new {
            cluster.add(n, AdminState::InService, None, None);
        }
        let mut balancer = Balancer::new(cluster);
        let total: u64 = balancer.cluster.disks.keys().map(|id| balancer.used(id.as_u128())).sum();
        let mean = total as f64 / (old + new) as f64;
        let needed: f64 = (old + 1..=old + new).map(|_| mean).sum();
        balancer.settle();
        balancer.is_whole();
        prop_assert!(apart(&balancer.shares(|_| true)) <= 0.1);
        prop_assert!((balancer.moved as f64) < needed * 1.02 + 8.0 * MIB as f64);
    }
}

/// Bytes above the mean, wherever they are.
fn surplus(balancer: &Balancer) -> f64 {
    let disks = || balancer.cluster.disks.iter();
    let used = |id: &DatanodeId| balancer.used(id.as_u128()) as f64;
    let all: f64 = disks().map(|(id, _)| used(id)).sum();
    let size: f64 = disks().map(|(_, disk)| disk.capacity as f64).sum();
    disks()
        .map(|(id, disk)| (used(id) - disk.capacity as f64 * all / size).max(0.0))
        .sum()
}

/// What every move makes smaller.
fn unevenness(balancer: &Balancer) -> f64 {
    let disks = balancer.cluster.disks.iter();
    disks
        .map(|(id, disk)| {
            let used = balancer.used(id.as_u128()) as f64;
            used * used / disk.capacity as f64
        })
        .sum()
}

#[test]
fn a_chunk_is_named_once_in_a_plan_and_its_old_holder_is_the_first_source() {
    let mut balancer = scaled_up(false, 12, 4 * MIB);
    let planned = balancer.start();
    let mut seen = std::collections::BTreeSet::new();
    for copy in &planned.moves {
        assert!(seen.insert(copy.chunk.id));
        assert!(!copy.sources.contains(&copy.target));
    }
    assert!(!seen.contains(&id(0)) && balancer.cluster.now > SECOND);
}
