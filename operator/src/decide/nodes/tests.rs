use std::collections::BTreeMap;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};
use proptest::prelude::*;

use super::*;
use crate::decide::conditions::{Judgement, Kind, Reason, Truth, conditions};
use crate::decide::tests::{cluster, entry, observed};
use crate::decide::{Plan, decide};
use crate::observe::{NodeView, TrackerView, Uid, Verdicts};
use crate::tracker_client::DatanodeEntry;
use crate::validate::{Cluster, Loss};

const NOW: i64 = 10_000;

fn plan(cluster: &Cluster, observed: &Observed) -> (Plan, Vec<Judgement>) {
    let (verdicts, waited) = (Verdicts::default(), BTreeMap::new());
    let input = Input {
        cluster,
        observed,
        verdicts: &verdicts,
        waited: &waited,
        now: Timestamp::from_second(NOW).unwrap(),
    };
    let plan = decide(&input);
    let judged = conditions(&input, &plan, None);
    (plan, judged)
}

fn node(unready_for: Option<i64>, out_of_service: bool) -> NodeView {
    NodeView {
        name: "node-1".into(),
        ready: unready_for.is_none(),
        unready_since: unready_for.map(|ago| Timestamp::from_second(NOW - ago).unwrap()),
        out_of_service,
        unschedulable: false,
        zone: None,
    }
}

/// Pod 1 does not end, and its node is as `change` makes it.
fn stuck(change: impl Fn(&mut Observed)) -> Observed {
    let mut seen = observed(Vec::new());
    seen.pods[1].deleting = true;
    seen.pods[1].deadline = Some(Timestamp::from_second(NOW - 1).unwrap());
    seen.nodes.insert("node-1".into(), node(Some(600), false));
    change(&mut seen);
    seen
}

fn forced(plan: &Plan) -> Vec<&str> {
    let steps = plan.steps.iter().filter_map(|step| match step {
        Step::ForceDelete { pod, .. } => Some(pod.as_str()),
        _ => None,
    });
    steps.collect()
}

fn gone(o: &mut Observed) {
    o.nodes.remove("node-1");
    o.gone_nodes.insert("node-1".into());
}

fn fenced(o: &mut Observed) {
    o.nodes.insert("node-1".into(), node(Some(600), true));
}

#[test]
fn fault_30_a_stuck_pod_is_taken_away_by_force_only_where_its_node_is_fenced() {
    type Change = fn(&mut Observed);
    let rows: [(&str, Change, bool); 8] = [
        ("silent", |_| {}, false),
        ("taint", fenced, true),
        ("no such node", gone, true),
        ("nothing known", |o| drop(o.nodes.remove("node-1")), false),
        (
            "may not be read",
            |o| {
                o.nodes.remove("node-1");
                o.nodes_unreadable = true;
            },
            false,
        ),
        (
            "time left",
            |o| {
                gone(o);
                o.pods[1].deadline = Some(Timestamp::from_second(NOW + 1).unwrap());
            },
            false,
        ),
        (
            "not ending",
            |o| {
                gone(o);
                (o.pods[1].deleting, o.pods[1].deadline) = (false, None);
            },
            false,
        ),
        (
            "another's pod",
            |o| {
                gone(o);
                o.pods[1].name = "b-datanode-1".into();
            },
            false,
        ),
    ];
    for (name, change, expected) in rows {
        let seen = stuck(change);
        let mut cluster = cluster(3);
        assert_eq!(
            forced(&plan(&cluster, &seen).0),
            Vec::<&str>::new(),
            "{name}: DoNothing"
        );
        cluster.force_deletes = true;
        let plan = plan(&cluster, &seen).0;
        let wanted: &[&str] = if expected { &["a-datanode-1"] } else { &[] };
        assert_eq!(forced(&plan), wanted, "{name}");
        for step in &plan.steps {
            assert!(step.is_final(), "{name}: {step:?}");
        }
    }
}

#[test]
fn a_lost_node_is_told_with_what_to_do() {
    let told = |seen: &Observed| {
        let judged = plan(&cluster(3), seen).1;
        let lost = judged.into_iter().find(|one| one.kind == Kind::NodeLost);
        let lost = lost.unwrap();
        (lost.truth, lost.reason, lost.message)
    };
    let (truth, reason, message) = told(&stuck(|_| {}));
    assert_eq!((truth, reason), (Truth::True, Reason::NodeNotReady));
    assert!(message.contains("kubectl delete node node-1"), "{message}");
    assert_eq!(told(&stuck(gone)).1, Reason::NodeGone);
    let not_for_long = stuck(|o| drop(o.nodes.insert("node-1".into(), node(Some(60), false))));
    assert_eq!(told(&not_for_long).0, Truth::False);
    let unreadable = |o: &mut Observed| {
        o.nodes.clear();
        o.nodes_unreadable = true;
    };
    assert_eq!(told(&stuck(unreadable)).1, Reason::PodStuck);
    let mut calm = observed(Vec::new());
    unreadable(&mut calm);
    let (truth, reason, _) = told(&calm);
    assert_eq!((truth, reason), (Truth::Unknown, Reason::NodesUnreadable));
    // A pod that no node takes, because its volume is on the lost one.
    let mut held = stuck(gone);
    let pod = &mut held.pods[1];
    (pod.node, pod.deleting, pod.deadline) = (None, false, None);
    held.claims[1].node = Some("node-1".into());
    let mut dead = entry(7, 1, AdminState::InService);
    (dead.liveness, dead.volume) = (Liveness::Dead, Some("volume-1".into()));
    if let TrackerView::Open(open) = &mut held.tracker {
        open.nodes.push(dead);
    }
    let (_, reason, message) = told(&held);
    assert_eq!(reason, Reason::NodeGone);
    let word = format!(
        "dfs.io/acknowledge-datanode-lost={}",
        DatanodeId::from_u128(7)
    );
    assert!(message.contains(&word), "{message}");
}

/// Datanode 7 of pod 1 on `volume-1`.
fn dead() -> DatanodeEntry {
    DatanodeEntry {
        liveness: Liveness::Dead,
        volume: Some("volume-1".into()),
        ..entry(7, 1, AdminState::InService)
    }
}

fn loss(id: u128) -> Loss {
    Loss {
        id: DatanodeId::from_u128(id),
        pod: "a-datanode-1".into(),
        volume: Uid("volume-1".into()),
    }
}

fn steps(cluster: &Cluster, nodes: Vec<DatanodeEntry>) -> (Vec<&'static str>, Option<Loss>) {
    let plan = plan(cluster, &observed(nodes)).0;
    let names = plan.steps.iter().filter_map(|step| match step {
        Step::GiveUp(_) => Some("give up"),
        Step::DeleteClaim { .. } => Some("claim"),
        Step::DeletePod { .. } => Some("pod"),
        Step::ForgetLoss(_) => Some("forget"),
        _ => None,
    });
    (names.collect(), plan.loss.record)
}

#[test]
fn a_datanode_that_was_given_up_goes_step_by_step() {
    let mut given_up = cluster(3);
    given_up.given_up = Some(DatanodeId::from_u128(7));
    assert_eq!(
        steps(&given_up, vec![dead()]),
        (vec![], Some(loss(7))),
        "first the record"
    );
    let alive = DatanodeEntry {
        liveness: Liveness::Suspect,
        ..dead()
    };
    assert_eq!(steps(&given_up, vec![alive.clone()]), (vec![], None));
    given_up.loss = Some(loss(7));
    assert_eq!(
        steps(&given_up, vec![dead()]),
        (vec!["give up"], Some(loss(7)))
    );
    assert_eq!(
        steps(&given_up, vec![alive]),
        (vec![], None),
        "it came back"
    );
    assert_eq!(
        steps(&given_up, vec![]),
        (vec!["claim", "pod"], Some(loss(7)))
    );
    let mut on_another = given_up.clone();
    on_another.loss.as_mut().unwrap().volume = Uid("old".into());
    assert_eq!(steps(&on_another, vec![]).0, ["forget"]);
    let newcomer = DatanodeEntry {
        liveness: Liveness::Live,
        ..entry(8, 1, AdminState::Pending)
    };
    assert_eq!(steps(&given_up, vec![newcomer.clone()]).0, ["claim", "pod"]);
    let admits = plan(&given_up, &observed(vec![newcomer])).0.steps;
    assert!(
        !admits.iter().any(|step| matches!(step, Step::Admit { .. })),
        "onto a volume that goes"
    );
    let member = DatanodeEntry {
        volume: Some("volume-1".into()),
        ..entry(8, 1, AdminState::InService)
    };
    assert_eq!(
        steps(&given_up, vec![member]).0,
        ["forget"],
        "somebody else uses the volume"
    );
    given_up.given_up = None;
    assert_eq!(
        steps(&given_up, vec![]),
        (vec![], None),
        "the word was taken back"
    );
}

#[test]
fn i26_a_claim_goes_only_while_the_annotation_names_its_own_datanode() {
    let mut other = cluster(3);
    other.loss = Some(loss(7));
    for word in [None, Some(8), Some(9)] {
        other.given_up = word.map(DatanodeId::from_u128);
        let alive = entry(8, 2, AdminState::InService);
        let (steps, record) = steps(&other, vec![alive]);
        assert_eq!((steps, record), (vec![], None), "{word:?}");
    }
}

prop_compose! {
    fn any_entry(id: u128)(
        ordinal in 0..3i32, volume in proptest::option::of(0..3i32), dead in any::<bool>(),
        admin in prop_oneof![Just(AdminState::Pending), Just(AdminState::InService), Just(AdminState::Decommissioned)],
    ) -> DatanodeEntry {
        DatanodeEntry {
            liveness: if dead { Liveness::Dead } else { Liveness::Live },
            volume: volume.map(|n| format!("volume-{n}")),
            ..entry(id, ordinal, admin)
        }
    }
}

proptest! {
    #[test]
    fn i26_i28_nothing_is_forced_without_a_fence_and_no_claim_goes_without_its_own_word(
        nodes in (0..4usize).prop_flat_map(|n| (1..=n as u128).map(any_entry).collect::<Vec<_>>()),
        word in proptest::option::of(1..4u128), recorded in proptest::option::of((1..4u128, 0..3i32)),
        taint in any::<bool>(), away in any::<bool>(), policy in any::<bool>(), ending in any::<bool>(),
    ) {
        let mut cluster = cluster(3);
        cluster.force_deletes = policy;
        cluster.given_up = word.map(DatanodeId::from_u128);
        cluster.loss = recorded.map(|(id, n)| Loss {
            id: DatanodeId::from_u128(id),
            pod: format!("a-datanode-{n}"),
            volume: Uid(format!("volume-{n}")),
        });
        let mut seen = observed(nodes.clone());
        seen.nodes.insert("node-1".into(), node(Some(600), taint));
        if away {
            gone(&mut seen);
        }
        if ending {
            seen.pods[1].deleting = true;
            seen.pods[1].deadline = Some(Timestamp::UNIX_EPOCH);
        }
        for step in plan(&cluster, &seen).0.steps {
            match step {
                Step::ForceDelete { pod, .. } => {
                    prop_assert!(policy && ending && (taint || away) && pod == "a-datanode-1");
                }
                Step::DeleteClaim { uid, .. } => {
                    let loss = cluster.loss.clone().unwrap();
                    prop_assert_eq!((Some(loss.id), loss.volume), (cluster.given_up, uid));
                    prop_assert!(nodes.iter().all(|entry| entry.id != loss.id), "not deregistered");
                }
                Step::DeletePod { name, .. } => {
                    prop_assert_eq!(Some(name), cluster.loss.clone().map(|loss| loss.pod));
                }
                Step::GiveUp(gone) => {
                    prop_assert_eq!(Some(gone.id), cluster.given_up);
                    let entry = nodes.iter().find(|entry| entry.id == gone.id).unwrap();
                    prop_assert_eq!(entry.liveness, Liveness::Dead);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn full_volumes_are_named_with_what_to_do() {
    let full = |free, capacity, read_only| {
        let mut member = entry(7, 1, AdminState::InService);
        member.stats.free_bytes = free;
        member.stats.capacity_bytes = capacity;
        member.stats.read_only = read_only;
        let healthy = entry(8, 2, AdminState::InService);
        let judged = plan(&cluster(2), &observed(vec![member, healthy])).1;
        let degraded = judged.into_iter().find(|one| one.kind == Kind::Degraded);
        degraded.unwrap()
    };
    let told = full(0, 100, true);
    assert_eq!(
        (told.truth, told.reason),
        (Truth::True, Reason::VolumesFull)
    );
    for part in ["1 of 2 datanodes", "a-datanode-1", "dataNodes.storage.size"] {
        assert!(told.message.contains(part), "{}", told.message);
    }
    // Less than a chunk is no room: uploads of unknown length are refused.
    assert_eq!(full(7, 100, false).reason, Reason::VolumesFull);
    // Room is left, nothing is known of the volume, or it is sick.
    for (free, capacity, read_only) in [(10, 100, false), (0, 0, true), (10, 100, true)] {
        assert_ne!(full(free, capacity, read_only).reason, Reason::VolumesFull);
    }
}
