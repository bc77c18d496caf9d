use std::collections::BTreeMap;

use dfs_protocol::datanode::AdminState;
use jiff::Timestamp;
use proptest::prelude::*;

use super::super::tests::{cluster, entry, leaving, observed, pod, workload};
use super::super::{Plan, decide};
use super::*;
use crate::observe::{Observed, TrackerView, Uid, Verdicts};
use crate::validate::{Cluster, Replacement};

fn with_input<T>(spec: &Cluster, seen: &Observed, ask: impl FnOnce(&Input<'_>) -> T) -> T {
    let (verdicts, waited) = (Verdicts::default(), BTreeMap::new());
    ask(&Input {
        cluster: spec,
        observed: seen,
        verdicts: &verdicts,
        waited: &waited,
        now: Timestamp::UNIX_EPOCH,
    })
}

fn planned(spec: &Cluster, seen: &Observed) -> Plan {
    with_input(spec, seen, decide)
}

fn stopped() -> Cluster {
    Cluster {
        rest: Rest::Wanted,
        ..cluster(3)
    }
}

fn of(part: Part, name: &str) -> PodView {
    PodView {
        name: name.into(),
        part,
        ..pod(0)
    }
}

/// So many that each workload asks for, and so many pods of it.
fn seen(gateways: (i32, i32), datanodes: (i32, i32), trackers: (i32, i32)) -> Observed {
    let mut pods: Vec<_> = (0..datanodes.1).map(pod).collect();
    pods.extend((0..trackers.1).map(|_| of(Part::Tracker, "a-tracker-0")));
    pods.extend((0..gateways.1).map(|n| of(Part::Gateway, &format!("a-gateway-{n}"))));
    Observed {
        gateway: Some(workload(gateways.0)),
        datanode_set: Some(workload(datanodes.0)),
        tracker_set: Some(workload(trackers.0)),
        pods,
        ..observed(Vec::new())
    }
}

fn lowered(plan: &Plan) -> Vec<&str> {
    let steps = plan.steps.iter().filter_map(|step| match step {
        Step::Lower { set, to: 0, .. } => Some(set.as_str()),
        _ => None,
    });
    steps.collect()
}

#[test]
fn each_part_ends_when_the_one_before_it_has() {
    for (gateways, datanodes, trackers, stage, lowers) in [
        ((2, 2), (3, 3), (1, 1), Stop::Gateways, None),
        // Asked for none, and an upload is still being finished.
        ((0, 1), (3, 3), (1, 1), Stop::Gateways, None),
        ((0, 0), (3, 3), (1, 1), Stop::Datanodes, Some("a-datanode")),
        ((0, 0), (3, 0), (1, 1), Stop::Datanodes, Some("a-datanode")),
        ((0, 0), (0, 1), (1, 1), Stop::Datanodes, None),
        ((0, 0), (0, 0), (1, 1), Stop::Tracker, Some("a-tracker")),
        ((0, 0), (0, 0), (0, 1), Stop::Tracker, None),
        ((0, 0), (0, 0), (0, 0), Stop::Done, None),
    ] {
        let plan = planned(&stopped(), &seen(gateways, datanodes, trackers));
        assert_eq!(plan.stop, Some(stage), "{gateways:?} {datanodes:?}");
        assert_eq!(lowered(&plan), Vec::from_iter(lowers), "{:?}", plan.stop);
        assert_eq!(
            (plan.gateways, plan.scale.replicas, plan.trackers),
            (0, datanodes.0, trackers.0)
        );
    }
}

#[test]
fn the_deployments_own_word_is_waited_for() {
    let mut unseen = seen((0, 0), (3, 3), (1, 1));
    unseen.gateway.as_mut().unwrap().current = false;
    assert_eq!(planned(&stopped(), &unseen).stop, Some(Stop::Gateways));
    let mut counted = seen((0, 0), (3, 3), (1, 1));
    counted.gateway.as_mut().unwrap().replicas = 1;
    assert_eq!(planned(&stopped(), &counted).stop, Some(Stop::Gateways));
}

#[test]
fn a_pod_that_does_not_end_in_time_holds_nobody_up_and_is_told() {
    let mut late = seen((0, 1), (3, 3), (1, 1));
    let gateway = late.pods.last_mut().unwrap();
    (gateway.deleting, gateway.deadline) = (true, Some(Timestamp::UNIX_EPOCH));
    assert_eq!(planned(&stopped(), &late).stop, Some(Stop::Gateways));
    let gateway = late.pods.last_mut().unwrap();
    gateway.deadline = Some(Timestamp::UNIX_EPOCH - LATE);
    assert_eq!(planned(&stopped(), &late).stop, Some(Stop::Datanodes));
    let gateway = late.pods.pop().unwrap();
    let mut alone = seen((0, 0), (0, 0), (0, 0));
    alone.pods.push(gateway);
    let left = Stop::Left("a-gateway-0".into());
    assert_eq!(planned(&stopped(), &alone).stop, Some(left));
    // What is only the record of a pod runs nothing.
    alone.pods[0] = PodView {
        phase: "Failed".into(),
        ..of(Part::Gateway, "a-gateway-0")
    };
    assert_eq!(planned(&stopped(), &alone).stop, Some(Stop::Done));
}

fn remade(spec: &mut Cluster) {
    spec.replacements.push(Replacement {
        set: "a-datanode".into(),
        uid: Uid("old".into()),
        replicas: 3,
    });
}

#[test]
fn i25_what_was_begun_ends_before_anything_stops() {
    let mut spec = stopped();
    spec.decommissions.push(leaving());
    let plan = planned(&spec, &seen((2, 2), (4, 4), (1, 1)));
    assert!(matches!(&plan.stop, Some(Stop::Held(why)) if why.contains("a-datanode-3")));
    assert_eq!((plan.gateways, plan.trackers), (2, 1));
    assert_eq!(plan.scale.decommissions.len(), 1);

    let mut spec = stopped();
    remade(&mut spec);
    let mut none = seen((2, 2), (3, 3), (1, 1));
    none.datanode_set = None;
    let plan = planned(&spec, &none);
    assert!(matches!(&plan.stop, Some(Stop::Held(why)) if why.contains("made anew")));
    assert_eq!(plan.scale.replicas, 3);
}

#[test]
fn nothing_is_begun_that_would_hold_the_stop_up() {
    let mut spec = stopped();
    spec.datanodes = 5;
    remade(&mut spec);
    spec.volumes.datanode = "20Gi".into();
    for datanodes in [3, 0] {
        let plan = planned(&spec, &seen((0, 0), (datanodes, datanodes), (1, 1)));
        assert!(plan.stop.as_ref().is_some_and(Stop::is_under_way));
        assert_eq!(plan.growth.replacements, []);
        assert_eq!(plan.scale.decommissions, []);
        assert_eq!(plan.loss.record, None);
        assert_eq!(plan.budget.held, None);
        assert_eq!(plan.scale.replicas, datanodes);
    }
}

#[test]
fn whoever_has_chunks_comes_back_also_when_fewer_are_wanted_by_now() {
    let mut spec = cluster(3);
    spec.members = ["a-datanode-0", "a-datanode-4", "b-datanode-9"]
        .map(str::to_owned)
        .to_vec();
    let mut seen = seen((0, 0), (0, 0), (0, 0));
    seen.tracker = TrackerView::Absent;
    assert_eq!(planned(&spec, &seen).scale.replicas, 5);
    spec.members.clear();
    assert_eq!(planned(&spec, &seen).scale.replicas, 3);
}

#[test]
fn closed_doors_open_when_the_tracker_has_heard_enough() {
    let spec = cluster(3);
    let closed = || {
        let nodes = (0..3).map(|n| entry(10, n, AdminState::InService));
        Observed {
            tracker: observed(nodes.collect()).tracker,
            ..seen((0, 0), (3, 3), (1, 1))
        }
    };
    let why = |seen: &Observed| with_input(&spec, seen, |input| doors(input, 3));
    let change = |seen: &mut Observed, key: &str| {
        let TrackerView::Open(open) = &mut seen.tracker else {
            panic!("it is open")
        };
        let said = Some("so".to_owned());
        match key {
            "safe mode" => open.status.safe_mode = said,
            _ => open.status.writes_refused = said,
        }
    };
    assert_eq!(why(&closed()), None);
    let mut mute = closed();
    mute.tracker = TrackerView::Unreadable("no".into());
    assert!(why(&mute).is_some());
    assert_eq!(planned(&spec, &mute).gateways, 0);
    // Doors that are open stay open.
    mute.gateway = Some(workload(2));
    assert_eq!(why(&mute), None);
    assert_eq!(planned(&spec, &mute).gateways, 2);
    let mut counting = closed();
    change(&mut counting, "safe mode");
    assert!(why(&counting).is_some_and(|why| why.contains("safe mode")));
    let mut full = closed();
    change(&mut full, "refused");
    assert_eq!(
        why(&full),
        None,
        "everyone is there: no writes are better than nothing"
    );
    full.pods[1].ready = false;
    assert!(why(&full).is_some_and(|why| why.contains("coming")));
    full.pods[1].unscheduled = Some("no node".into());
    assert_eq!(why(&full), None, "it cannot come");
}

proptest! {
    /// Whatever is seen: one set at a time is lowered, and only when nothing before it may run.
    #[test]
    fn i25_the_order_holds_whatever_is_seen(
        gateways in (0..3i32, 0..3i32), datanodes in (0..4i32, 0..4i32), trackers in (0..2i32, 0..2i32),
        is_leaving: bool,
    ) {
        let mut spec = stopped();
        if is_leaving {
            spec.decommissions.push(leaving());
        }
        let plan = planned(&spec, &seen(gateways, datanodes, trackers));
        for set in lowered(&plan) {
            prop_assert!(!is_leaving);
            prop_assert_eq!(gateways, (0, 0));
            if set == "a-tracker" {
                prop_assert_eq!(datanodes, (0, 0));
            }
        }
        prop_assert!(lowered(&plan).len() <= 1);
        if plan.stop == Some(Stop::Done) {
            prop_assert_eq!((gateways, datanodes, trackers), ((0, 0), (0, 0), (0, 0)));
        }
    }
}
