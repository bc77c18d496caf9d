//! Tables for what is next, and random histories: the last readable replica never restarts, and every roll
//! ends when pods come back.

use std::collections::{BTreeMap, BTreeSet};

use dfs_protocol::datanode::AdminState;
use proptest::prelude::*;

use super::super::tests::{claim, cluster, entry, leaving, observed, pod};
use super::super::{Input, decide};
use super::*;
use crate::observe::{TrackerView, Uid, Verdicts};
use crate::tracker_client::Verdict;
use jiff::Timestamp;

/// Three datanodes, the tracker and two gateways, all of the newest template.
fn settled() -> Observed {
    let members = (0..3).map(|ordinal| {
        let mut member = entry(
            u128::try_from(ordinal).unwrap() + 1,
            ordinal,
            AdminState::InService,
        );
        member.volume = Some(format!("volume-{ordinal}"));
        member
    });
    let mut seen = observed(members.collect());
    let mut tracker = pod(0);
    tracker.name = "a-tracker-0".into();
    tracker.uid = Uid("tracker-0".into());
    tracker.part = Part::Tracker;
    seen.pods.push(tracker);
    seen
}

fn change(seen: &mut Observed, name: &str, change: impl FnOnce(&mut PodView)) {
    change(seen.pods.iter_mut().find(|pod| pod.name == name).unwrap());
}

fn outdate(seen: &mut Observed, names: &[&str]) {
    for name in names {
        change(seen, name, |pod| pod.revision = Some("old".into()));
    }
}

fn crash(pod: &mut PodView) {
    pod.ready = false;
    pod.waiting = Some("CrashLoopBackOff".into());
}

fn says(safe: bool) -> Verdicts {
    let verdict = Verdict {
        safe,
        reason: "because".into(),
        chunks: Vec::new(),
    };
    let stop = (1..4).map(|id| (DatanodeId::from_u128(id), verdict.clone()));
    Verdicts {
        stop: stop.collect(),
        ..Verdicts::default()
    }
}

fn decided(seen: &Observed, verdicts: &Verdicts) -> Roll {
    let (cluster, waited) = (cluster(3), BTreeMap::new());
    roll(&Input {
        cluster: &cluster,
        observed: seen,
        verdicts,
        waited: &waited,
        now: Timestamp::UNIX_EPOCH,
    })
}

fn told(roll: &Roll) -> String {
    match roll {
        Roll::Settled => "settled".into(),
        Roll::Waiting(why) => format!("waits: {why}"),
        Roll::Stopped(why) => format!("stopped: {why}"),
        Roll::Restart(Step::Restart {
            pod, within_budget, ..
        }) => format!("restart {pod}, within the budget: {within_budget}"),
        Roll::Restart(other) => panic!("{other:?}"),
    }
}

const ALL: [&str; 4] = [
    "a-datanode-0",
    "a-datanode-1",
    "a-datanode-2",
    "a-tracker-0",
];

#[test]
fn i29_the_highest_datanode_is_first_and_the_tracker_last() {
    let mut seen = settled();
    assert_eq!(decided(&seen, &says(true)), Roll::Settled);
    outdate(&mut seen, &ALL);
    for name in [
        "a-datanode-2",
        "a-datanode-1",
        "a-datanode-0",
        "a-tracker-0",
    ] {
        // The tracker's budget may keep it on its node; its restart is no drain.
        let within = name != "a-tracker-0";
        assert_eq!(
            told(&decided(&seen, &says(true))),
            format!("restart {name}, within the budget: {within}")
        );
        change(&mut seen, name, |pod| pod.revision = Some("new".into()));
    }
    assert_eq!(decided(&seen, &says(true)), Roll::Settled);
}

#[test]
fn i29_no_datanode_restarts_without_the_trackers_word() {
    let mut seen = settled();
    outdate(&mut seen, &ALL);
    assert!(told(&decided(&seen, &says(false))).starts_with("waits: a-datanode-2 may not stop"));
    assert!(told(&decided(&seen, &Verdicts::default())).contains("gave no word"));
    seen.tracker = TrackerView::Unreadable("silent".into());
    assert!(matches!(decided(&seen, &says(true)), Roll::Waiting(_)));
}

#[test]
fn i29_the_next_one_waits_until_the_last_is_ready_registered_and_nothing_lacks_replicas() {
    type Change = fn(&mut Observed);
    let rows: [(&str, Change); 8] = [
        ("waits: pod a-datanode-2 is running, not ready", |seen| {
            change(seen, "a-datanode-2", |pod| pod.ready = false);
        }),
        ("waits: pod a-datanode-2 is being deleted", |seen| {
            change(seen, "a-datanode-2", |pod| pod.deleting = true);
        }),
        ("waits: pod a-datanode-2 does not exist yet", |seen| {
            seen.pods.retain(|pod| pod.name != "a-datanode-2");
        }),
        ("waits: a-datanode-2 is not registered yet", |seen| {
            let TrackerView::Open(open) = &mut seen.tracker else {
                panic!()
            };
            open.nodes[2].liveness = Liveness::Dead;
        }),
        ("waits: 4 chunks lack replicas", |seen| {
            let TrackerView::Open(open) = &mut seen.tracker else {
                panic!()
            };
            open.status.chunks.insert("under-replicated".into(), 4);
        }),
        ("waits: the tracker is in safe mode: it gathers", |seen| {
            let TrackerView::Open(open) = &mut seen.tracker else {
                panic!()
            };
            open.status.safe_mode = Some("it gathers".into());
        }),
        (
            "stopped: pod a-datanode-2 is running, not ready: CrashLoopBackOff",
            |seen| {
                change(seen, "a-datanode-2", crash);
            },
        ),
        (
            "stopped: pod a-datanode-2 is Pending: not scheduled: no node",
            |seen| {
                change(seen, "a-datanode-2", |pod| {
                    pod.ready = false;
                    pod.phase = "Pending".into();
                    pod.unscheduled = Some("no node".into());
                });
            },
        ),
    ];
    for (expected, change) in rows {
        let mut seen = settled();
        outdate(&mut seen, &["a-datanode-0", "a-datanode-1", "a-tracker-0"]);
        change(&mut seen);
        let roll = told(&decided(&seen, &says(true)));
        assert!(roll.starts_with(expected), "{roll}, not {expected}");
    }
}

#[test]
fn i29_a_template_that_is_put_back_first_replaces_what_does_not_run() {
    let mut seen = settled();
    outdate(&mut seen, &["a-datanode-1"]);
    change(&mut seen, "a-datanode-1", crash);
    // Nobody must be asked: nothing runs in it.
    assert_eq!(
        told(&decided(&seen, &Verdicts::default())),
        "restart a-datanode-1, within the budget: false"
    );
    // One that runs and does not serve may still hold what others need.
    change(&mut seen, "a-datanode-1", |pod| pod.waiting = None);
    assert!(matches!(decided(&seen, &says(false)), Roll::Waiting(_)));
    assert_eq!(
        told(&decided(&seen, &says(true))),
        "restart a-datanode-1, within the budget: false"
    );
    let mut seen = settled();
    outdate(&mut seen, &ALL);
    change(&mut seen, "a-tracker-0", crash);
    seen.tracker = TrackerView::Unreadable("silent".into());
    assert_eq!(
        told(&decided(&seen, &Verdicts::default())),
        "restart a-tracker-0, within the budget: false",
        "nobody else can be asked before it serves"
    );
}

#[test]
fn the_tracker_waits_for_the_gateways_and_stops_with_them() {
    let mut seen = settled();
    outdate(&mut seen, &["a-tracker-0"]);
    seen.gateway.as_mut().unwrap().updated = 1;
    assert_eq!(
        told(&decided(&seen, &says(true))),
        "waits: 1 of 2 gateways run the newest template"
    );
    let mut gateway = pod(7);
    gateway.part = Part::Gateway;
    gateway.name = "a-gateway-x".into();
    crash(&mut gateway);
    seen.pods.push(gateway);
    assert!(told(&decided(&seen, &says(true))).starts_with("stopped: pod a-gateway-x"));
}

#[test]
fn a_set_whose_controller_is_behind_and_a_removal_under_way_hold_the_roll() {
    let mut seen = settled();
    outdate(&mut seen, &ALL);
    let mut shrinking = cluster(3);
    shrinking.decommissions.push(leaving());
    assert_eq!(candidate(&shrinking, &seen), None);
    assert!(candidate(&cluster(3), &seen).is_some());
    seen.datanode_set.as_mut().unwrap().current = false;
    assert_eq!(decided(&seen, &says(true)), Roll::Settled);
}

/// A store in miniature: pods with a revision each, chunks on them.
struct Model {
    seen: Observed,
    chunks: Vec<BTreeSet<usize>>,
}

#[derive(Debug, Clone)]
enum Event {
    Pass,
    /// Pods that are gone or asleep come up, unless the template is broken.
    Kubelet,
    /// Another template.
    Template(u8),
    Silence(usize),
    Return(usize),
}

const NODES: usize = 5;

impl Model {
    fn new(placed: Vec<[usize; 3]>) -> Self {
        let members = (0..NODES).map(|at| {
            let ordinal = i32::try_from(at).unwrap();
            let mut member = entry(at as u128 + 1, ordinal, AdminState::InService);
            member.volume = Some(format!("volume-{at}"));
            member
        });
        let mut seen = observed(members.collect());
        let ordinals = 0..i32::try_from(NODES).unwrap();
        seen.pods = ordinals.clone().map(pod).collect();
        seen.claims = ordinals.map(|n| claim(n, &format!("volume-{n}"))).collect();
        let mut tracker = pod(0);
        tracker.name = "a-tracker-0".into();
        tracker.part = Part::Tracker;
        seen.pods.push(tracker);
        seen.datanode_set.as_mut().unwrap().wanted = i32::try_from(NODES).unwrap();
        Self {
            seen,
            chunks: placed
                .into_iter()
                .map(|at| at.into_iter().collect())
                .collect(),
        }
    }

    fn live(&self, at: usize) -> bool {
        self.seen.tracker.open().unwrap().nodes[at].liveness == Liveness::Live
    }

    fn hear(&mut self) {
        let ready: Vec<bool> = self.seen.pods.iter().map(|pod| pod.ready).collect();
        let TrackerView::Open(open) = &mut self.seen.tracker else {
            panic!()
        };
        for (node, ready) in open.nodes.iter_mut().zip(ready) {
            node.liveness = if ready {
                Liveness::Live
            } else {
                Liveness::Dead
            };
        }
        let live = |at: &&usize| open.nodes[**at].liveness == Liveness::Live;
        let whole = |held: &&BTreeSet<usize>| held.iter().filter(live).count() >= 3;
        let lacking = self.chunks.iter().filter(|held| !whole(held)).count();
        let name = "under-replicated".to_owned();
        open.status.chunks.insert(name, lacking as u64);
    }

    /// Whether two replicas of every chunk are left without this one.
    fn may_stop(&self, without: usize) -> bool {
        self.chunks.iter().all(|held| {
            let left = held.iter().filter(|at| **at != without && self.live(**at));
            left.count() >= 2
        })
    }

    /// One pass of the operator; returns whether it did something.
    fn pass(&mut self) -> bool {
        self.hear();
        let stop = (0..NODES).map(|at| {
            let safe = self.may_stop(at);
            (
                DatanodeId::from_u128(at as u128 + 1),
                Verdict {
                    safe,
                    ..Verdict::default()
                },
            )
        });
        let verdicts = Verdicts {
            stop: stop.collect(),
            ..Verdicts::default()
        };
        let (cluster, waited) = (cluster(i32::try_from(NODES).unwrap()), BTreeMap::new());
        let plan = decide(&Input {
            cluster: &cluster,
            observed: &self.seen,
            verdicts: &verdicts,
            waited: &waited,
            now: Timestamp::UNIX_EPOCH,
        });
        let restarts = plan.steps.iter().filter_map(|step| match step {
            Step::Restart { pod, .. } => Some(pod.clone()),
            _ => None,
        });
        let restarts: Vec<String> = restarts.collect();
        assert!(restarts.len() <= 1, "I29: more than one at a time");
        for name in &restarts {
            let at = names::ordinal("a-datanode", name);
            if let Some(at) = at.and_then(|at| usize::try_from(at).ok())
                && self.live(at)
            {
                assert!(
                    self.may_stop(at),
                    "I29: {name} restarted though chunks need it"
                );
                let others = (0..NODES).filter(|other| *other != at);
                for other in others {
                    let pod = &self.seen.pods[other];
                    let is_newest =
                        pod.revision == self.seen.datanode_set.as_ref().unwrap().revision;
                    assert!(
                        pod.ready || !is_newest,
                        "I29: restarted while {} is not back",
                        pod.name
                    );
                }
            }
            let revision = self.seen.datanode_set.as_ref().unwrap().revision.clone();
            change(&mut self.seen, name, |pod| {
                pod.ready = false;
                pod.waiting = None;
                pod.revision = revision;
                pod.uid = Uid(format!("{}+", pod.uid));
            });
        }
        !restarts.is_empty()
    }

    fn kubelet(&mut self) {
        for pod in &mut self.seen.pods {
            let broken = pod.revision.as_deref() == Some("broken");
            pod.ready = !broken;
            pod.waiting = broken.then(|| "CrashLoopBackOff".into());
        }
    }

    fn template(&mut self, revision: &str) {
        for set in [&mut self.seen.datanode_set, &mut self.seen.tracker_set] {
            set.as_mut().unwrap().revision = Some(revision.to_owned());
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Pass),
        4 => Just(Event::Kubelet),
        2 => (0..3u8).prop_map(Event::Template),
        1 => (0..NODES).prop_map(Event::Silence),
        1 => (0..NODES).prop_map(Event::Return),
    ]
}

proptest! {
    #[test]
    fn i29_no_history_restarts_what_a_chunk_needs_and_every_roll_ends(
        placed in prop::collection::vec(Just((0..NODES).collect::<Vec<_>>()).prop_shuffle(), 1..8),
        events in prop::collection::vec(any_event(), 1..60),
    ) {
        let placed = placed.into_iter().map(|all| [all[0], all[1], all[2]]).collect();
        let mut model = Model::new(placed);
        for event in events {
            match event {
                Event::Pass => drop(model.pass()),
                Event::Kubelet => model.kubelet(),
                Event::Template(which) => model.template(["new", "other", "broken"][usize::from(which)]),
                Event::Silence(at) => model.seen.pods[at].ready = false,
                Event::Return(at) => model.seen.pods[at].ready = model.seen.pods[at].waiting.is_none(),
            }
        }
        model.template("last");
        for _ in 0..4 * NODES {
            model.kubelet();
            model.pass();
        }
        prop_assert!(!model.pass(), "it does not come to rest");
        for pod in &model.seen.pods {
            prop_assert_eq!(pod.revision.as_deref(), Some("last"), "{}", &pod.name);
        }
    }
}
