//! Tables for matching, and what must hold of any plan.

use proptest::prelude::*;

use dfs_protocol::datanode::Liveness;

use super::*;
use crate::crd::DecommissionState;
use crate::observe::{
    ClaimView, NodeView, OpenTracker, Part, PodView, Resize, TrackerView, Uid, WorkloadView,
};
use crate::tracker_client::{TrackerStatus, Verdict, VolumeStats};
use crate::validate::{ClusterKey, Decommissioning, RemovalPolicy, Rest, VolumeSizes};

const ID: u128 = 0xc1;

pub(super) fn cluster(datanodes: i32) -> Cluster {
    Cluster {
        key: ClusterKey {
            namespace: "ns".into(),
            name: "a".into(),
        },
        uid: Uid("cluster".into()),
        generation: 1,
        paused: false,
        rest: Rest::None,
        foreign_cluster: None,
        members: Vec::new(),
        factor: 3,
        datanodes,
        gateways: 2,
        cluster_id: Some(ClusterId::from_u128(ID)),
        acknowledged: None,
        removal: RemovalPolicy {
            hold: false,
            quiet: Duration::from_secs(30),
            stall: Duration::from_mins(30),
            deletes_claim: false,
        },
        decommissions: Vec::new(),
        unproved: None,
        chunk_size: 8,
        volumes: VolumeSizes {
            tracker: "10Gi".into(),
            datanode: "10Gi".into(),
        },
        replacements: Vec::new(),
        given_up: None,
        loss: None,
        force_deletes: false,
        node_patience: Duration::from_mins(5),
    }
}

/// Datanode 3 on its way out.
pub(super) fn leaving() -> Decommissioning {
    Decommissioning {
        pod: "a-datanode-3".into(),
        id: None,
        volume: None,
        state: DecommissionState::Decommissioning,
        started: Timestamp::UNIX_EPOCH,
        progressed: Timestamp::UNIX_EPOCH,
        remaining: None,
        heard: None,
        reason: None,
    }
}

pub(super) fn workload(wanted: i32) -> WorkloadView {
    WorkloadView {
        uid: Uid("set".into()),
        wanted,
        replicas: wanted,
        ready: wanted,
        updated: wanted,
        revision: Some("new".into()),
        current: true,
        deleting: false,
        volume: Some("10Gi".into()),
    }
}

pub(super) fn pod(ordinal: i32) -> PodView {
    let name = format!("a-datanode-{ordinal}");
    PodView {
        claim: Some(format!("data-{name}")),
        name,
        uid: Uid(format!("pod-{ordinal}")),
        part: Part::Datanode,
        ips: vec![format!("10.0.0.{ordinal}")],
        node: Some(format!("node-{ordinal}")),
        zone: None,
        controller: Some(Uid("set".into())),
        revision: Some("new".into()),
        phase: "Running".into(),
        ready: true,
        deleting: false,
        deadline: None,
        unscheduled: None,
        waiting: None,
    }
}

pub(super) fn claim(ordinal: i32, uid: &str) -> ClaimView {
    ClaimView {
        name: format!("data-a-datanode-{ordinal}"),
        uid: Uid(uid.into()),
        bound: true,
        deleting: false,
        node: None,
        asked: Some("10Gi".into()),
        capacity: Some("10Gi".into()),
        resize: Resize::Quiet,
    }
}

pub(crate) fn entry(id: u128, ordinal: i32, admin: AdminState) -> DatanodeEntry {
    DatanodeEntry {
        id: DatanodeId::from_u128(id),
        address: format!("10.0.0.{ordinal}:6001"),
        zone: None,
        host: None,
        liveness: Liveness::Live,
        admin,
        pod: Some(format!("a-datanode-{ordinal}")),
        volume: None,
        refused: None,
        stats: VolumeStats::default(),
        chunks_remaining: None,
        last_heartbeat: None,
        maintenance_until: None,
    }
}

fn status() -> TrackerStatus {
    let cluster = ClusterId::from_u128(ID);
    serde_json::from_value(serde_json::json!({"cluster": cluster, "version": "1"})).unwrap()
}

pub(super) fn observed(nodes: Vec<DatanodeEntry>) -> Observed {
    let node = NodeView {
        name: "node-0".into(),
        ready: true,
        unready_since: None,
        out_of_service: false,
        unschedulable: false,
        zone: Some("z0".into()),
    };
    Observed {
        tracker_set: Some(workload(1)),
        datanode_set: Some(workload(3)),
        gateway: Some(workload(2)),
        pods: (0..3).map(pod).collect(),
        claims: (0..3).map(|n| claim(n, &format!("volume-{n}"))).collect(),
        nodes: [("node-0".to_owned(), node)].into(),
        gone_nodes: std::collections::BTreeSet::new(),
        nodes_unreadable: false,
        tracker: TrackerView::Open(Box::new(OpenTracker {
            status: status(),
            nodes,
            refusals: Vec::new(),
        })),
    }
}

fn plan(observed: &Observed, waited: Duration) -> Plan {
    let cluster = cluster(3);
    let pending = observed
        .tracker
        .open()
        .into_iter()
        .flat_map(|open| &open.nodes);
    let waited = pending.map(|entry| (entry.id, waited)).collect();
    let verdicts = Verdicts::default();
    decide(&Input {
        cluster: &cluster,
        observed,
        verdicts: &verdicts,
        waited: &waited,
        now: Timestamp::UNIX_EPOCH,
    })
}

/// What becomes of one newcomer at once, and after the time of grace.
fn newcomer(change: impl Fn(&mut Observed, &mut DatanodeEntry)) -> (&'static str, &'static str) {
    let verdict = |waited| {
        let mut newcomer = entry(1, 0, AdminState::Pending);
        let mut observed = observed(Vec::new());
        change(&mut observed, &mut newcomer);
        if let TrackerView::Open(open) = &mut observed.tracker {
            open.nodes.push(newcomer);
        }
        let plan = plan(&observed, waited);
        match (plan.steps.first(), plan.waiting.first()) {
            (Some(Step::Admit { .. }), _) => "admit",
            (Some(Step::Refuse { .. }), _) => "refuse",
            (None, Some(_)) => "wait",
            (None, None) => "nothing",
            (Some(_), _) => "other",
        }
    };
    (verdict(Duration::ZERO), verdict(admission::GRACE))
}

#[test]
fn a_newcomer_is_admitted_waited_for_or_refused() {
    assert_eq!(newcomer(|_, _| {}), ("admit", "admit"));
    let waits: [fn(&mut Observed, &mut DatanodeEntry); 9] = [
        |o, _| o.pods.clear(),
        |o, _| o.pods[0].ips.clear(),
        |o, _| o.pods[0].deleting = true,
        |o, _| o.pods[0].node = None,
        |o, _| o.claims.clear(),
        |o, _| o.claims[0].bound = false,
        |o, _| o.datanode_set = None,
        |_, e| e.address = "10.9.9.9:6001".into(),
        |o, _| o.pods[0].claim = Some("another".into()),
    ];
    for (index, change) in waits.into_iter().enumerate() {
        assert_eq!(newcomer(change), ("wait", "refuse"), "row {index}");
    }
    let strangers: [fn(&mut Observed, &mut DatanodeEntry); 5] = [
        |_, e| e.pod = None,
        |_, e| e.pod = Some("b-datanode-0".into()),
        |_, e| e.pod = Some("a-datanode-00".into()),
        |o, _| o.pods[0].controller = Some(Uid("stranger".into())),
        |_, e| e.volume = Some("another-volume".into()),
    ];
    for (index, change) in strangers.into_iter().enumerate() {
        assert_eq!(newcomer(change), ("refuse", "refuse"), "row {index}");
    }
    assert_eq!(
        newcomer(|o, e| (o.pods.clear(), e.refused = Some("no".into())).1).1,
        "nothing"
    );
}

#[test]
fn nobody_is_admitted_to_a_volume_whose_holder_is_still_heard() {
    let mut holder = entry(2, 1, AdminState::InService);
    holder.volume = Some("volume-0".into());
    holder.address = "10.0.0.200:6001".into();
    let nodes = vec![entry(1, 0, AdminState::Pending), holder.clone()];
    assert_eq!(plan(&observed(nodes), Duration::ZERO).steps, []);
    holder.liveness = Liveness::Dead;
    let nodes = vec![entry(1, 0, AdminState::Pending), holder];
    assert_eq!(plan(&observed(nodes), Duration::ZERO).steps.len(), 1);
}

#[test]
fn zones_come_from_pods_then_nodes_and_are_not_forgotten_while_nodes_cannot_be_read() {
    let zone = |change: fn(&mut Observed, &mut DatanodeEntry)| {
        let mut member = entry(1, 0, AdminState::InService);
        let mut observed = observed(Vec::new());
        change(&mut observed, &mut member);
        if let TrackerView::Open(open) = &mut observed.tracker {
            open.nodes.push(member);
        }
        match plan(&observed, Duration::ZERO).steps.into_iter().next() {
            Some(Step::Admit { admission, .. } | Step::Update { admission, .. }) => admission.zone,
            _ => Some("settled".into()),
        }
    };
    assert_eq!(zone(|_, _| {}).as_deref(), Some("z0"));
    assert_eq!(
        zone(|o, _| o.pods[0].zone = Some("pod".into())).as_deref(),
        Some("pod")
    );
    assert_eq!(zone(|o, _| o.nodes.clear()), None);
    let known = |o: &mut Observed, e: &mut DatanodeEntry| {
        o.nodes.clear();
        e.volume = Some("volume-0".into());
        (e.host, e.zone) = (Some("node-0".into()), Some("z9".into()));
    };
    assert_eq!(zone(known).as_deref(), Some("settled"));
}

#[test]
fn data_that_can_be_read_in_full_from_leaving_datanodes_is_redundant_and_other_shortage_is_not() {
    let cluster = cluster(3);
    let in_service = |n: u8| entry(n.into(), n.into(), AdminState::InService);
    let nodes: Vec<_> = (0..3).map(in_service).collect();
    for (under, leaving, wanted) in [
        (0, 0, Truth::True),
        (4, 4, Truth::True),
        (5, 4, Truth::False),
        // A tracker from before it told them apart.
        (4, 0, Truth::False),
    ] {
        let mut seen = observed(Vec::clone(&nodes));
        if let TrackerView::Open(open) = &mut seen.tracker {
            open.status.chunks = [("under-replicated".to_owned(), under)].into();
            open.status.shortage.leaving = leaving;
        }
        let (verdicts, waited) = (Verdicts::default(), BTreeMap::new());
        let input = Input {
            cluster: &cluster,
            observed: &seen,
            verdicts: &verdicts,
            waited: &waited,
            now: Timestamp::UNIX_EPOCH,
        };
        let judged = conditions(&input, &decide(&input), None);
        let one = judged.iter().find(|one| one.kind == Kind::DataRedundant);
        let one = one.unwrap();
        assert_eq!(one.truth, wanted, "{under} {leaving}: {}", one.message);
        let degraded = judged
            .iter()
            .any(|one| one.kind == Kind::Degraded && one.reason == Reason::UnderReplicated);
        assert_eq!(degraded, wanted == Truth::False, "{under} {leaving}");
    }
}

fn any_liveness() -> impl Strategy<Value = Liveness> {
    prop_oneof![
        Just(Liveness::Live),
        Just(Liveness::Suspect),
        Just(Liveness::Dead)
    ]
}

fn any_admin() -> impl Strategy<Value = AdminState> {
    prop_oneof![
        Just(AdminState::Pending),
        Just(AdminState::InService),
        Just(AdminState::Decommissioned),
        Just(AdminState::Tombstoned),
    ]
}

prop_compose! {
    fn any_entry(id: u128)(
        ordinal in 0..5i32, spoken in 0..5i32, volume in proptest::option::of(0..5i32),
        liveness in any_liveness(), admin in any_admin(), announces in any::<bool>(),
    ) -> DatanodeEntry {
        DatanodeEntry {
            address: format!("10.0.0.{spoken}:6001"),
            liveness,
            volume: volume.map(|n| format!("volume-{n}")),
            pod: announces.then(|| format!("a-datanode-{ordinal}")),
            ..entry(id, ordinal, admin)
        }
    }
}

fn any_nodes() -> impl Strategy<Value = Vec<DatanodeEntry>> {
    (0..6usize).prop_flat_map(|count| (1..=count as u128).map(any_entry).collect::<Vec<_>>())
}

/// The tracker's list after it was told.
fn told(nodes: &mut [DatanodeEntry], steps: &[Step]) {
    for step in steps {
        for entry in nodes.iter_mut() {
            match step {
                Step::Admit { id, admission } | Step::Update { id, admission }
                    if *id == entry.id =>
                {
                    if entry.admin == AdminState::Pending {
                        entry.admin = AdminState::InService;
                    }
                    entry.volume = Some(admission.volume.clone());
                    entry.host = Some(admission.host.clone());
                    entry.zone.clone_from(&admission.zone);
                    entry.pod = Some(admission.pod.clone());
                }
                Step::Refuse { id, reason } if *id == entry.id => {
                    entry.refused = Some(reason.clone());
                }
                Step::Lost(gone) if gone.id == entry.id => entry.admin = AdminState::Tombstoned,
                _ => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn a_planner_on_its_own_result_yields_nothing_new(nodes in any_nodes(), old in any::<bool>()) {
        let waited = if old { admission::GRACE } else { Duration::ZERO };
        let mut nodes = nodes;
        // One admission may stand in the way of another: two rounds settle everything.
        for _ in 0..2 {
            let steps = plan(&observed(nodes.clone()), waited).steps;
            told(&mut nodes, &steps);
        }
        prop_assert_eq!(plan(&observed(nodes), waited).steps, vec![]);
    }

    #[test]
    fn no_plan_gives_up_a_datanode_that_has_its_volume_or_binds_one_to_another(
        nodes in any_nodes(), safe in any::<bool>(), missing in 0..3usize, replaced in any::<bool>(),
    ) {
        let mut seen = observed(nodes.clone());
        if replaced {
            seen.claims[missing].uid = Uid("new".into());
        } else {
            seen.claims.remove(missing);
        }
        let verdicts = nodes.iter().map(|entry| (entry.id, Verdict { safe, ..Verdict::default() }));
        let verdicts = Verdicts { removal: verdicts.collect(), ..Verdicts::default() };
        let (cluster, waited) = (cluster(3), BTreeMap::new());
        let plan = decide(&Input { cluster: &cluster, observed: &seen, verdicts: &verdicts, waited: &waited, now: Timestamp::UNIX_EPOCH });
        prop_assert!(plan.scale.replicas >= 3, "scaled down");
        for step in &plan.steps {
            match step {
                Step::StopWaiting(gone) => {
                    let entry = nodes.iter().find(|entry| entry.id == gone.id).unwrap();
                    prop_assert!(entry.liveness != Liveness::Live);
                    prop_assert!(seen.claims.iter().all(|claim| claim.uid != gone.volume));
                }
                Step::Lost(gone) => {
                    let entry = nodes.iter().find(|entry| entry.id == gone.id).unwrap();
                    prop_assert!(safe && entry.liveness == Liveness::Dead);
                    prop_assert!(seen.claims.iter().all(|claim| claim.uid != gone.volume));
                }
                Step::Admit { id, admission } | Step::Update { id, admission } => {
                    let entry = nodes.iter().find(|entry| entry.id == *id).unwrap();
                    prop_assert!(entry.volume.iter().all(|bound| *bound == admission.volume));
                    prop_assert!(seen.claims.iter().any(|claim| claim.uid.0 == admission.volume));
                }
                Step::Refuse { .. } => {}
                Step::MakeWay(_) | Step::Rebuild(_) | Step::ForgetAcknowledgement | Step::Decommission { .. }
                | Step::Recommission { .. } | Step::Lower { .. } | Step::Orphan { .. }
                | Step::GiveUp(_) | Step::ForgetLoss(_) | Step::DeletePod { .. } | Step::ForceDelete { .. } | Step::Deregister { .. }
                | Step::DeleteClaim { .. } | Step::Restart { .. } => prop_assert!(false, "{step:?}"),
            }
        }
    }

    #[test]
    fn nothing_is_told_without_a_recorded_id_or_while_paused(nodes in any_nodes(), paused in any::<bool>()) {
        let mut cluster = cluster(3);
        if paused {
            cluster.paused = true;
        } else {
            cluster.cluster_id = None;
        }
        let (seen, waited, verdicts) = (observed(nodes), BTreeMap::new(), Verdicts::default());
        let input = Input { cluster: &cluster, observed: &seen, verdicts: &verdicts, waited: &waited, now: Timestamp::UNIX_EPOCH };
        prop_assert_eq!(decide(&input).steps, vec![]);
    }
}
