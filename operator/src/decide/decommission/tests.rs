//! Random clusters with random histories: no plan that can be reached takes a datanode away that a
//! chunk depends on, and a cluster at rest is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};
use jiff::Timestamp;
use proptest::prelude::*;

use super::super::tests::{claim, cluster, entry, observed, pod, workload};
use super::super::{Input, Plan, Step, decide};
use crate::observe::{OpenTracker, TrackerView, Verdicts};
use crate::tracker_client::{DatanodeEntry, Verdict};
use crate::validate::{Cluster, Decommissioning};

const FACTOR: usize = 3;

/// What may happen between two passes.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The operator looks and acts; it remembers nothing.
    Pass,
    /// The tracker copies what is due, and calls the emptied decommissioned.
    Copy,
    /// Pods that are no longer wanted end, wanted ones start.
    Kubelet,
    Time(u16),
    Scale(i32),
    Silence(usize),
    Return(usize),
    /// A replica is found damaged.
    Damage(usize, usize),
    Mute(bool),
    Hold(bool),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Pass),
        4 => Just(Event::Copy),
        3 => Just(Event::Kubelet),
        3 => (0..120u16).prop_map(Event::Time),
        1 => (3..7i32).prop_map(Event::Scale),
        1 => (0..7usize).prop_map(Event::Silence),
        1 => (0..7usize).prop_map(Event::Return),
        1 => (0..12usize, 0..4usize).prop_map(|(chunk, at)| Event::Damage(chunk, at)),
        1 => any::<bool>().prop_map(Event::Mute),
        1 => any::<bool>().prop_map(Event::Hold),
    ]
}

/// A cluster in miniature.
struct Model {
    cluster: Cluster,
    set: i32,
    pods: BTreeSet<i32>,
    nodes: Vec<DatanodeEntry>,
    chunks: Vec<BTreeSet<DatanodeId>>,
    now: Timestamp,
    mute: bool,
    uuids: u128,
    beats: u64,
}

impl Model {
    fn new(datanodes: i32) -> Self {
        let mut model = Self {
            cluster: cluster(datanodes),
            set: datanodes,
            pods: BTreeSet::new(),
            nodes: Vec::new(),
            chunks: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
            mute: false,
            uuids: 0,
            beats: 0,
        };
        model.kubelet();
        model.chunks = (0..12)
            .map(|chunk| {
                (0..FACTOR)
                    .map(|at| model.nodes[(chunk + at) % model.nodes.len()].id)
                    .collect()
            })
            .collect();
        model
    }

    fn serves(&self, id: DatanodeId, admins: &[AdminState]) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| {
            node.id == id && node.liveness == Liveness::Live && admins.contains(&node.admin)
        })
    }

    fn needing(&self, without: DatanodeId) -> usize {
        let whole = |held: &BTreeSet<DatanodeId>| {
            let others = held.iter().filter(|id| **id != without);
            others
                .filter(|id| self.serves(**id, &[AdminState::InService]))
                .count()
                >= FACTOR
        };
        self.chunks
            .iter()
            .filter(|held| held.contains(&without) && !whole(held))
            .count()
    }

    /// Pods come and go as the set wants; a tombstoned uuid is given up.
    fn kubelet(&mut self) {
        self.pods.retain(|ordinal| *ordinal < self.set);
        self.pods.extend(0..self.set);
        for node in &mut self.nodes {
            let ordinal = node
                .pod
                .as_deref()
                .and_then(|pod| pod.rsplit('-').next()?.parse().ok());
            if ordinal.is_some_and(|ordinal: i32| !self.pods.contains(&ordinal)) {
                node.liveness = Liveness::Dead;
            }
        }
        for ordinal in self.pods.clone() {
            let pod = format!("a-datanode-{ordinal}");
            let mut known = self.nodes.iter_mut();
            let known = known.find(|node| {
                node.pod.as_ref() == Some(&pod) && node.admin != AdminState::Tombstoned
            });
            match known {
                Some(node) if node.liveness == Liveness::Dead && node.refused.is_none() => {
                    node.liveness = Liveness::Live;
                }
                Some(_) => {}
                None => {
                    self.uuids += 1;
                    let mut node = entry(self.uuids, ordinal, AdminState::InService);
                    node.volume = Some(format!("volume-{ordinal}"));
                    node.host = Some(format!("node-{ordinal}"));
                    self.nodes.push(node);
                }
            }
        }
        self.beats += 1;
        for node in self
            .nodes
            .iter_mut()
            .filter(|node| node.liveness == Liveness::Live)
        {
            node.last_heartbeat = Some(self.beats.to_string());
            node.stats.free_bytes = 1 << 40;
        }
    }

    fn copy(&mut self) {
        for chunk in 0..self.chunks.len() {
            let in_service: Vec<_> = self
                .nodes
                .iter()
                .map(|node| node.id)
                .filter(|id| self.serves(*id, &[AdminState::InService]))
                .collect();
            let held = &mut self.chunks[chunk];
            while held.iter().filter(|id| in_service.contains(id)).count() < FACTOR {
                let Some(target) = in_service.iter().find(|id| !held.contains(id)) else {
                    break;
                };
                held.insert(*target);
            }
        }
        for at in 0..self.nodes.len() {
            let left = self.needing(self.nodes[at].id) as u64;
            let node = &mut self.nodes[at];
            if node.admin == AdminState::Decommissioning {
                node.chunks_remaining = Some(left);
                if left == 0 {
                    node.admin = AdminState::Decommissioned;
                }
            }
        }
    }

    fn plan(&self) -> Plan {
        let mut seen = observed(Vec::new());
        seen.datanode_set = Some(workload(self.set));
        seen.pods = self.pods.iter().map(|ordinal| pod(*ordinal)).collect();
        seen.claims = (0..7)
            .map(|ordinal| claim(ordinal, &format!("volume-{ordinal}")))
            .collect();
        let TrackerView::Open(open) = &seen.tracker else {
            unreachable!()
        };
        let below = self.chunks.iter().filter(|held| {
            let readable = [
                AdminState::InService,
                AdminState::Decommissioning,
                AdminState::Decommissioned,
            ];
            held.iter()
                .filter(|id| self.serves(**id, &readable))
                .count()
                < FACTOR
        });
        let mut status = open.status.clone();
        status
            .chunks
            .insert("under-replicated".into(), below.count() as u64);
        let listed = self
            .nodes
            .iter()
            .filter(|node| node.admin != AdminState::Tombstoned);
        seen.tracker = if self.mute {
            TrackerView::Unreadable("mute".into())
        } else {
            TrackerView::Open(Box::new(OpenTracker {
                status,
                nodes: listed.cloned().collect(),
                refusals: Vec::new(),
            }))
        };
        let asked = self
            .cluster
            .decommissions
            .iter()
            .filter_map(|entry| entry.id);
        let verdicts: BTreeMap<_, _> = asked
            .filter(|_| !self.mute)
            .map(|id| {
                (
                    id,
                    Verdict {
                        safe: self.needing(id) == 0,
                        ..Verdict::default()
                    },
                )
            })
            .collect();
        let verdicts = Verdicts {
            removal: verdicts,
            ..Verdicts::default()
        };
        let waited = BTreeMap::new();
        decide(&Input {
            cluster: &self.cluster,
            observed: &seen,
            verdicts: &verdicts,
            waited: &waited,
            now: self.now,
        })
    }

    /// What the shell does with a plan; panics where the contract is broken.
    fn pass(&mut self) -> Plan {
        let plan = self.plan();
        if !plan.scale.as_is {
            self.set = self.set.max(plan.scale.replicas);
        }
        for step in &plan.steps {
            self.carry_out(step);
        }
        // Status keeps exactly this of them.
        let kept = plan
            .scale
            .decommissions
            .iter()
            .map(Decommissioning::to_status);
        self.cluster.decommissions = kept
            .map(|entry| Decommissioning::read(&entry).unwrap())
            .collect();
        plan
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Decommission { id, .. } => self.set_admin(*id, AdminState::Decommissioning),
            Step::Recommission { id, .. } => self.set_admin(*id, AdminState::InService),
            Step::Deregister { id, .. } => {
                assert_eq!(
                    self.needing(*id),
                    0,
                    "I25: a datanode with chunks was deregistered"
                );
                self.set_admin(*id, AdminState::Tombstoned);
            }
            Step::Lower { from, to, .. } => {
                assert_eq!((*from, *to), (self.set, self.set - 1), "one at a time");
                assert!(*to >= self.cluster.datanodes, "lower than wanted");
                let pod = format!("a-datanode-{to}");
                let leaving = self.nodes.iter().filter(|node| {
                    node.pod.as_ref() == Some(&pod) && node.admin != AdminState::Tombstoned
                });
                for node in leaving {
                    assert_eq!(
                        self.needing(node.id),
                        0,
                        "I25: {pod} was taken away with chunks that need it"
                    );
                }
                self.set = *to;
            }
            Step::DeleteClaim { .. } => panic!("the spec does not say so"),
            Step::Update { .. } | Step::Admit { .. } | Step::Refuse { .. } => {}
            Step::Lost(_)
            | Step::Restart { .. }
            | Step::Orphan { .. }
            | Step::GiveUp(_)
            | Step::ForgetLoss(_)
            | Step::DeletePod { .. }
            | Step::ForceDelete { .. }
            | Step::Rebuild(_)
            | Step::StopWaiting(_)
            | Step::MakeWay(_)
            | Step::ForgetAcknowledgement => panic!("{step:?}"),
        }
    }

    fn set_admin(&mut self, id: DatanodeId, admin: AdminState) {
        for node in self.nodes.iter_mut().filter(|node| node.id == id) {
            assert_ne!(
                node.admin,
                AdminState::Tombstoned,
                "I09: a tombstone is for ever"
            );
            node.admin = admin;
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass => {
                self.pass();
            }
            Event::Copy => self.copy(),
            Event::Kubelet => self.kubelet(),
            Event::Time(seconds) => self.now += Duration::from_secs(u64::from(seconds)),
            Event::Scale(replicas) => self.cluster.datanodes = replicas,
            Event::Silence(at) => {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.liveness = Liveness::Dead;
                    node.refused = Some("silent for the test".into());
                }
            }
            Event::Return(at) => {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.refused = None;
                }
            }
            Event::Damage(chunk, at) => {
                let held = &mut self.chunks[chunk];
                if held.len() > 1
                    && let Some(id) = held.iter().nth(at).copied()
                {
                    held.remove(&id);
                }
            }
            Event::Mute(mute) => self.mute = mute,
            Event::Hold(hold) => self.cluster.removal.hold = hold,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn i25_no_history_leads_to_a_plan_that_takes_away_what_a_chunk_depends_on(
        datanodes in 3..7i32, events in proptest::collection::vec(any_event(), 0..120), last in 3..7i32,
    ) {
        let mut model = Model::new(datanodes);
        for event in events {
            model.happen(event);
        }
        // Everything is well again: it comes to rest at what is wanted.
        model.mute = false;
        model.cluster.removal.hold = false;
        model.cluster.datanodes = last;
        for node in &mut model.nodes {
            node.refused = None;
        }
        for _ in 0..80 {
            model.kubelet();
            model.copy();
            model.now += Duration::from_secs(31);
            model.pass();
        }
        prop_assert_eq!(model.set, last, "{:?}", model.cluster.decommissions);
        prop_assert_eq!(&model.cluster.decommissions, &vec![]);
        let rest = model.plan();
        prop_assert_eq!((rest.scale.replicas, &rest.scale.step, &rest.scale.blocked), (last, &None, &None));
        let members = model.nodes.iter().filter(|node| node.admin == AdminState::InService);
        prop_assert_eq!(members.count(), usize::try_from(last).unwrap());
    }
}
