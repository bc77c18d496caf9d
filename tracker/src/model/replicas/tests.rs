//! The replica map against tables and random histories.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, Replica, SealedChunk, SetDigest};
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::{ChunkHealth, Shortage};
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};
use proptest::prelude::*;

use super::super::datanodes::{DatanodeTable, LivenessPolicy};
use super::super::health::{HolderView, Label, ReplicaClass, SpreadRule};
use super::{Expected, Queue, ReplicaMap};

const SECOND: Duration = Duration::from_secs(1);

fn node(n: u128) -> DatanodeId {
    DatanodeId::from_u128(n)
}

fn id(n: u128) -> ChunkId {
    ChunkId::from_u128(n)
}

fn chunk(n: u128, version: u32) -> SealedChunk {
    SealedChunk {
        id: id(n),
        version: ChunkVersion(version),
        length: 10,
        crc32c: 1,
    }
}

fn replica(chunk: SealedChunk) -> Replica {
    Replica {
        chunk,
        kind: ChunkKind::Data,
    }
}

fn expected(chunk: SealedChunk, factor: u32) -> Expected {
    Expected {
        chunk,
        factor,
        kind: ChunkKind::Data,
    }
}

fn view(n: u128, live: bool) -> HolderView {
    HolderView {
        live,
        admin: AdminState::InService,
        host: Label::of(&n.to_string()),
        zone: None,
        current: true,
    }
}

fn map(nodes: u128) -> ReplicaMap {
    let mut map = ReplicaMap::new();
    for n in 1..=nodes {
        map.set_view(node(n), view(n, true));
    }
    map
}

fn report(map: &mut ReplicaMap, n: u128, chunks: &[SealedChunk]) -> bool {
    let all: Vec<Replica> = chunks.iter().copied().map(replica).collect();
    map.apply_full_report(node(n), &all, &SetDigest::of(chunks), SECOND)
}

fn classes(map: &ReplicaMap, n: u128) -> Vec<ReplicaClass> {
    map.get(id(n))
        .unwrap()
        .replicas
        .iter()
        .map(|r| r.class)
        .collect()
}

#[test]
fn a_replica_is_judged_by_version_then_length_and_checksum() {
    let mut map = map(5);
    map.load_chunk(expected(chunk(1, 2), 3));
    let good = chunk(1, 2);
    report(&mut map, 1, &[good]);
    report(&mut map, 2, &[chunk(1, 1)]);
    report(&mut map, 3, &[chunk(1, 3)]);
    report(&mut map, 4, &[SealedChunk { length: 9, ..good }]);
    report(&mut map, 5, &[SealedChunk { crc32c: 2, ..good }]);
    use ReplicaClass::{Corrupt, Newer, Stale, Valid};
    assert_eq!(classes(&map, 1), [Valid, Stale, Newer, Corrupt, Corrupt]);
    assert_eq!(map.get(id(1)).unwrap().health, ChunkHealth::AtRisk);
    map.check_derived().unwrap();
}

#[test]
fn a_repeated_heartbeat_is_harmless_and_a_missed_one_shows_in_the_digest() {
    let mut map = map(1);
    let (a, b, c) = (chunk(1, 1), chunk(2, 1), chunk(3, 1));
    map.load_chunk(expected(a, 1));
    let add = |map: &mut ReplicaMap, added: &[SealedChunk], all: &[SealedChunk]| {
        let added: Vec<Replica> = added.iter().copied().map(replica).collect();
        map.apply_delta(node(1), &added, &[], &SetDigest::of(all), SECOND)
    };
    assert!(add(&mut map, &[a], &[a]));
    assert!(
        add(&mut map, &[a, b], &[a, b]),
        "the answer was lost: sent again with more"
    );
    assert!(!add(&mut map, &[], &[a, b, c]), "a delta was lost");
    assert!(report(&mut map, 1, &[a, c]));
    assert!(map.unknown(b.id).is_none() && map.unknown(c.id).is_some());
    map.check_derived().unwrap();
}

#[test]
fn i16_a_committed_chunk_is_found_before_its_datanodes_report_it() {
    let mut map = map(3);
    report(&mut map, 1, &[chunk(1, 1)]);
    map.commit_chunk(
        expected(chunk(1, 1), 3),
        &[node(1), node(2), node(3)],
        SECOND,
    );
    assert_eq!(map.get(id(1)).unwrap().health, ChunkHealth::Healthy);
    use ReplicaClass::{Promised, Valid};
    assert_eq!(classes(&map, 1), [Valid, Promised, Promised]);
    assert!(
        report(&mut map, 2, &[]),
        "drawn up before the chunk was sealed"
    );
    assert_eq!(classes(&map, 1), [Valid, Promised, Promised]);
    assert!(report(&mut map, 2, &[chunk(1, 1)]));
    assert_eq!(map.expire_promises(30 * SECOND, 30 * SECOND), 0);
    assert_eq!(map.expire_promises(30 * SECOND, 31 * SECOND), 1);
    assert_eq!(map.get(id(1)).unwrap().health, ChunkHealth::UnderReplicated);
    map.check_derived().unwrap();
}

#[test]
fn fault_22_what_a_silent_datanode_sealed_last_is_awaited_when_it_is_back() {
    let mut map = map(2);
    report(&mut map, 1, &[chunk(1, 1)]);
    map.commit_chunk(expected(chunk(1, 1), 2), &[node(1), node(2)], SECOND);
    map.set_view(node(2), view(2, false));
    assert_eq!(map.expire_promises(30 * SECOND, 60 * SECOND), 0);
    map.set_view(node(2), view(2, true));
    assert_eq!(map.expire_promises(30 * SECOND, 61 * SECOND), 0);
    assert_eq!(map.get(id(1)).unwrap().health, ChunkHealth::Healthy);
    assert_eq!(map.expire_promises(30 * SECOND, 69 * SECOND), 0);
    assert_eq!(map.expire_promises(30 * SECOND, 70 * SECOND), 1);
    assert_eq!(map.get(id(1)).unwrap().health, ChunkHealth::AtRisk);
    map.check_derived().unwrap();
}

#[test]
fn i04_a_damaged_replica_does_not_become_good_by_being_reported_again() {
    let mut map = map(2);
    map.load_chunk(expected(chunk(1, 1), 2));
    report(&mut map, 1, &[chunk(1, 1)]);
    report(&mut map, 2, &[chunk(1, 1)]);
    assert!(map.mark_corrupt(node(2), id(1), ChunkVersion(1)));
    assert!(!map.mark_corrupt(node(1), id(1), ChunkVersion(9)));
    report(&mut map, 2, &[chunk(1, 1)]);
    assert_eq!(
        classes(&map, 1),
        [ReplicaClass::Valid, ReplicaClass::Corrupt]
    );
    report(&mut map, 2, &[]);
    report(&mut map, 2, &[chunk(1, 1)]);
    assert_eq!(
        classes(&map, 1),
        [ReplicaClass::Valid; 2],
        "gone and written anew"
    );
    map.check_derived().unwrap();
}

#[test]
fn a_forgotten_chunk_becomes_unknown_and_comes_back_when_loaded() {
    let mut map = map(2);
    map.load_chunk(expected(chunk(1, 1), 1));
    report(&mut map, 1, &[chunk(1, 1)]);
    map.forget_chunk(id(1), 5 * SECOND);
    assert_eq!(map.unknown(id(1)).unwrap().first_seen, 5 * SECOND);
    assert!(!map.is_known(id(1)));
    map.check_derived().unwrap();
    map.load_chunk(expected(chunk(1, 1), 1));
    assert!(map.counters().all_healthy() && map.unknown(id(1)).is_none());
    map.clear_datanode(node(1));
    assert_eq!(map.digest(node(1)), SetDigest::default());
    assert_eq!(map.counters().of_health(ChunkHealth::Missing), 1);
    map.check_derived().unwrap();
}

/// What a report names is mostly known already and not looked at further: that must not hide what it
/// leaves out.
#[test]
fn i02_a_full_report_that_names_nothing_new_takes_back_what_it_leaves_out() {
    let mut map = map(1);
    let all: Vec<SealedChunk> = (0..9).map(|n| chunk(n, 1)).collect();
    for known in &all[..6] {
        map.load_chunk(expected(*known, 1));
    }
    assert!(report(&mut map, 1, &all));
    assert!(report(&mut map, 1, &all), "the same again");
    assert_eq!(map.counters().of_health(ChunkHealth::Healthy), 6);
    let left: Vec<SealedChunk> = all.iter().copied().filter(|c| c.id != id(2)).collect();
    assert!(report(&mut map, 1, &left));
    assert_eq!(map.get(id(2)).unwrap().health, ChunkHealth::Missing);
    assert!(report(&mut map, 1, &left[..5]));
    assert_eq!(map.counters().of_health(ChunkHealth::Missing), 1);
    assert!(map.unknown(id(8)).is_none(), "unknown ones as well");
    map.check_derived().unwrap();
}

/// A writer that did not hear of a seal goes on under the next version: both lie on the volume.
#[test]
fn i07_two_versions_of_a_chunk_on_one_volume_are_both_known_and_the_expected_one_counts() {
    let mut map = map(1);
    let (old, good) = (chunk(1, 1), chunk(1, 2));
    for order in [[old, good], [good, old]] {
        assert!(report(&mut map, 1, &order), "before the commit");
        assert_eq!(map.unknown(id(1)).unwrap().replicas.len(), 2);
        map.commit_chunk(expected(good, 1), &[node(1)], SECOND);
        assert_eq!(classes(&map, 1), [ReplicaClass::Valid, ReplicaClass::Stale]);
        assert!(report(&mut map, 1, &order), "after it");
        assert_eq!(map.get(id(1)).unwrap().health, ChunkHealth::Healthy);
        assert_eq!(map.queue_len(Queue::Irregular), 1);
        map.check_derived().unwrap();
        map.remove_replica(node(1), id(1), ChunkVersion(1));
        assert_eq!(classes(&map, 1), [ReplicaClass::Valid]);
        assert_eq!(map.queue_len(Queue::Irregular), 0);
        assert!(report(&mut map, 1, &order));
        map.remove_replica(node(1), id(1), ChunkVersion(2));
        assert_eq!(classes(&map, 1), [ReplicaClass::Stale]);
        assert!(report(&mut map, 1, &order));
        map.forget_chunk(id(1), SECOND);
        assert_eq!(
            map.unknown(id(1)).unwrap().replicas.len(),
            2,
            "gc sees both"
        );
        map.check_derived().unwrap();
        assert!(report(&mut map, 1, &[]));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Load(u128, u32, u32),
    Commit(u128, Vec<u128>),
    Forget(u128),
    Add(u128, u128, u32, bool),
    Remove(u128, u128, u32),
    Report(u128, Vec<(u128, u32)>),
    Corrupt(u128, u128),
    Live(u128, bool),
    Admin(u128, bool),
    Rule(u32),
    Clear(u128),
    Expire,
    Deleted(u128, u128, u32),
    Watch,
}

fn steps() -> impl Strategy<Value = Step> {
    let (n, c, v) = (1u128..9, 0u128..12, 1u32..4);
    prop_oneof![
        (c.clone(), v.clone(), 1u32..4).prop_map(|(c, v, f)| Step::Load(c, v, f)),
        (c.clone(), prop::collection::vec(n.clone(), 0..4)).prop_map(|(c, n)| Step::Commit(c, n)),
        c.clone().prop_map(Step::Forget),
        (n.clone(), c.clone(), v.clone(), any::<bool>())
            .prop_map(|(n, c, v, b)| Step::Add(n, c, v, b)),
        (n.clone(), c.clone(), v.clone()).prop_map(|(n, c, v)| Step::Remove(n, c, v)),
        (
            n.clone(),
            prop::collection::vec((c.clone(), v.clone()), 0..10)
        )
            .prop_map(|(n, r)| Step::Report(n, r)),
        (n.clone(), c.clone()).prop_map(|(n, c)| Step::Corrupt(n, c)),
        (n.clone(), any::<bool>()).prop_map(|(n, b)| Step::Live(n, b)),
        (n.clone(), any::<bool>()).prop_map(|(n, b)| Step::Admin(n, b)),
        (0u32..4).prop_map(Step::Rule),
        n.clone().prop_map(Step::Clear),
        Just(Step::Expire),
        Just(Step::Watch),
        (n, c, v).prop_map(|(n, c, v)| Step::Deleted(n, c, v)),
    ]
}

/// What each datanode truly reported: its volume holds every version in a file of its own.
type Truth = BTreeMap<u128, BTreeMap<(ChunkId, ChunkVersion), SealedChunk>>;

fn take(
    map: &mut ReplicaMap,
    truth: &mut Truth,
    views: &mut BTreeMap<u128, HolderView>,
    step: Step,
) {
    match step {
        Step::Load(c, v, f) => map.load_chunk(expected(chunk(c, v), f)),
        Step::Commit(c, nodes) => {
            let nodes: Vec<_> = nodes.into_iter().map(node).collect();
            map.commit_chunk(expected(chunk(c, 2), 2), &nodes, SECOND);
        }
        Step::Forget(c) => map.forget_chunk(id(c), SECOND),
        Step::Add(n, c, v, odd) => {
            let sealed = SealedChunk {
                crc32c: 1 + u32::from(odd),
                ..chunk(c, v)
            };
            let held = truth.entry(n).or_default();
            held.insert((id(c), sealed.version), sealed);
            let digest = SetDigest::of(held.values());
            assert!(map.apply_delta(node(n), &[replica(sealed)], &[], &digest, SECOND));
        }
        Step::Remove(n, c, v) => {
            let held = truth.entry(n).or_default();
            let gone = held.remove(&(id(c), ChunkVersion(v)));
            let gone: Vec<_> = gone.into_iter().collect();
            let digest = SetDigest::of(held.values());
            assert!(map.apply_delta(node(n), &[], &gone, &digest, SECOND));
        }
        Step::Report(n, replicas) => {
            let held: BTreeMap<_, _> = replicas
                .into_iter()
                .map(|(c, v)| ((id(c), ChunkVersion(v)), chunk(c, v)))
                .collect();
            let all: Vec<_> = held.values().copied().collect();
            assert!(report(map, n, &all));
            truth.insert(n, held);
        }
        Step::Corrupt(n, c) => {
            map.mark_corrupt(node(n), id(c), ChunkVersion(2));
        }
        Step::Live(n, live) => {
            let view = views.entry(n).or_insert_with(|| view(n, true));
            view.live = live;
            map.set_view(node(n), *view);
        }
        Step::Admin(n, leaving) => {
            let view = views.entry(n).or_insert_with(|| view(n, true));
            view.admin = if leaving {
                AdminState::Decommissioning
            } else {
                AdminState::InService
            };
            view.zone = Some(Label::of(if leaving { "a" } else { "b" }));
            map.set_view(node(n), *view);
        }
        Step::Rule(zones) => map.set_rule(SpreadRule { zones }),
        Step::Clear(n) => {
            truth.remove(&n);
            map.clear_datanode(node(n));
        }
        Step::Expire => {
            map.expire_promises(SECOND, 9 * SECOND);
        }
        Step::Watch => map.watch_shortages(),
        Step::Deleted(n, c, v) => {
            let held = truth.entry(n).or_default();
            if let Some(sealed) = held.remove(&(id(c), ChunkVersion(v))) {
                map.remove_replica(node(n), id(c), sealed.version);
            }
        }
    }
}

#[test]
fn the_oldest_shortage_ages_until_its_chunk_is_whole_whatever_its_cause_becomes() {
    let mut map = map(3);
    let table = DatanodeTable::new(LivenessPolicy::default(), 9);
    let ages = |map: &ReplicaMap| Shortage::ALL.map(|cause| map.short_since(cause));
    let second = |n| Some(n * SECOND);
    for n in [1, 2] {
        map.load_chunk(expected(chunk(n, 1), 2));
        report(&mut map, n, &[chunk(1, 1), chunk(2, 1)]);
    }
    map.load_chunk(expected(chunk(3, 1), 2));
    assert_eq!(ages(&map), [None; 4], "nobody watches yet");
    map.sync(&table, 5 * SECOND);
    map.watch_shortages();
    assert_eq!(ages(&map), [None, None, None, second(5)]);
    map.sync(&table, 7 * SECOND);
    map.set_view(node(2), view(2, false));
    report(&mut map, 1, &[chunk(1, 1), chunk(2, 1), chunk(3, 1)]);
    report(&mut map, 3, &[chunk(3, 1)]);
    assert_eq!(
        ages(&map),
        [None, None, None, second(7)],
        "the oldest is whole"
    );
    map.sync(&table, 9 * SECOND);
    map.watch_shortages();
    map.clear_datanode(node(1));
    assert_eq!(
        ages(&map),
        [None, None, second(7), None],
        "the same ones, for another cause"
    );
    map.sync(&table, 11 * SECOND);
    map.forget_chunk(id(1), SECOND);
    map.forget_chunk(id(2), SECOND);
    assert_eq!(ages(&map), [None, None, second(9), None]);
    map.forget_chunk(id(3), SECOND);
    assert_eq!(ages(&map), [None; 4]);
    map.check_derived().unwrap();
}

proptest! {
    #[test]
    fn counters_queues_and_digests_equal_a_recount_after_any_history(
        history in prop::collection::vec(steps(), 1..120)
    ) {
        let mut map = map(8);
        let (mut truth, mut views) = (Truth::new(), BTreeMap::new());
        for step in history {
            let said = format!("{step:?}");
            take(&mut map, &mut truth, &mut views, step);
            if let Err(problem) = map.check_derived() {
                return Err(TestCaseError::fail(format!("after {said}: {problem}")));
            }
            for (n, held) in &truth {
                prop_assert_eq!(map.digest(node(*n)), SetDigest::of(held.values()), "after {}", said);
            }
        }
    }
}
