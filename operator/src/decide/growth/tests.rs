use std::collections::BTreeMap;

use proptest::prelude::*;

use jiff::Timestamp;

use super::*;
use crate::crd::DecommissionState;
use crate::decide::tests::{cluster, leaving, observed};
use crate::decide::{Plan, decide};
use crate::observe::Verdicts;
use crate::validate::Decommissioning;

fn plan(cluster: &Cluster, observed: &crate::observe::Observed) -> Plan {
    let (verdicts, waited) = (Verdicts::default(), BTreeMap::new());
    decide(&Input {
        cluster,
        observed,
        verdicts: &verdicts,
        waited: &waited,
        now: Timestamp::UNIX_EPOCH,
    })
}

fn larger(size: &str) -> Cluster {
    let mut cluster = cluster(3);
    cluster.volumes.datanode = size.into();
    cluster
}

fn record(replicas: i32) -> Replacement {
    Replacement {
        set: "a-datanode".into(),
        uid: Uid("set".into()),
        replicas,
    }
}

#[test]
fn a_claim_is_asked_for_more_but_never_for_less() {
    for (size, asked, expected) in [
        ("20Gi", "10Gi", Some("20Gi")),
        ("21474836480", "10Gi", Some("21474836480")),
        ("20Gi", "20480Mi", None),
        ("20Gi", "30Gi", None),
        ("20Gi", "ten", None),
    ] {
        let mut seen = observed(Vec::new());
        seen.claims.truncate(1);
        seen.claims[0].asked = Some(asked.into());
        let asks = plan(&larger(size), &seen).growth.asks;
        let sizes: Vec<_> = asks.iter().map(|ask| ask.size.as_str()).collect();
        assert_eq!(
            sizes,
            expected.into_iter().collect::<Vec<_>>(),
            "{size} from {asked}"
        );
    }
}

#[test]
fn only_bound_claims_of_the_sets_own_pods_are_asked() {
    let asked = |change: fn(&mut crate::observe::Observed)| {
        let mut seen = observed(Vec::new());
        change(&mut seen);
        let asks = plan(&larger("20Gi"), &seen).growth.asks;
        asks.into_iter().map(|ask| ask.claim).collect::<Vec<_>>()
    };
    let all = [
        "data-a-datanode-0",
        "data-a-datanode-1",
        "data-a-datanode-2",
    ];
    assert_eq!(asked(|_| {}), all);
    assert_eq!(asked(|o| o.claims[0].bound = false), all[1..]);
    assert_eq!(asked(|o| o.claims[0].deleting = true), all[1..]);
    assert_eq!(
        asked(|o| o.claims[2].name = "data-b-datanode-2".into()),
        all[..2]
    );
    // One that was kept after its datanode was removed.
    let one_less = |o: &mut crate::observe::Observed| {
        o.datanode_set.as_mut().unwrap().wanted = 2;
    };
    assert_eq!(asked(one_less), all[..2]);
}

#[test]
fn what_is_waited_for_is_told_until_every_volume_has_its_size() {
    let told = |change: fn(&mut ClaimView)| {
        let mut seen = observed(Vec::new());
        seen.datanode_set.as_mut().unwrap().volume = Some("20Gi".into());
        for claim in &mut seen.claims {
            (claim.asked, claim.capacity) = (Some("20Gi".into()), Some("20Gi".into()));
        }
        change(&mut seen.claims[1]);
        let growth = plan(&larger("20Gi"), &seen).growth;
        (growth.waiting.join("; "), growth.refused)
    };
    assert_eq!(told(|_| {}), (String::new(), None));
    assert_eq!(told(|claim| claim.capacity = None).0, "");
    let (waiting, _) = told(|claim| claim.capacity = Some("10Gi".into()));
    assert_eq!(waiting, "data-a-datanode-1 has 10Gi of 20Gi");
    let (waiting, _) = told(|claim| {
        claim.capacity = Some("10Gi".into());
        claim.resize = Resize::FileSystem;
    });
    assert!(waiting.contains("FileSystemResizePending"), "{waiting}");
    let (_, refused) = told(|claim| claim.resize = Resize::Failed("no room".into()));
    assert_eq!(refused.as_deref(), Some("claim data-a-datanode-1: no room"));
}

#[test]
fn i27_a_set_is_deleted_only_when_status_holds_its_very_replicas() {
    let step = |replacements: Vec<Replacement>, wanted: i32, made: i32| {
        let mut cluster = larger("20Gi");
        cluster.replacements = replacements;
        let mut seen = observed(Vec::new());
        let set = seen.datanode_set.as_mut().unwrap();
        (set.wanted, set.replicas) = (wanted, made);
        let growth = plan(&cluster, &seen).growth;
        assert_eq!(
            growth.replacements,
            [record(wanted)],
            "what is recorded next"
        );
        growth.steps
    };
    assert_eq!(step(Vec::new(), 3, 3), []);
    assert_eq!(step(vec![record(4)], 3, 3), []);
    let other = Replacement {
        uid: Uid("another".into()),
        ..record(3)
    };
    assert_eq!(step(vec![other], 3, 3), []);
    assert_eq!(step(vec![record(3)], 3, 2), [], "a pod is still to be made");
    let orphan = Step::Orphan {
        set: "a-datanode".into(),
        uid: Uid("set".into()),
        replicas: 3,
    };
    assert_eq!(step(vec![record(3)], 3, 3), [orphan]);
}

#[test]
fn i25_a_set_that_is_gone_for_a_moment_is_made_again_with_the_recorded_replicas() {
    for (wanted, recorded, pods, expected) in [
        (3, Some(5), 3, 5),
        (7, Some(5), 5, 5),
        (3, None, 5, 5),
        (3, None, 0, 3),
        (4, None, 2, 4),
    ] {
        let mut cluster = larger("20Gi");
        cluster.datanodes = wanted;
        cluster.replacements = recorded.map(record).into_iter().collect();
        let leaving = Decommissioning {
            pod: "a-datanode-4".into(),
            state: DecommissionState::Quiet,
            ..leaving()
        };
        cluster.decommissions = vec![leaving.clone()];
        let mut seen = observed(Vec::new());
        seen.datanode_set = None;
        seen.pods = (0..pods).map(crate::decide::tests::pod).collect();
        let plan = plan(&cluster, &seen);
        assert_eq!(plan.scale.replicas, expected);
        assert_eq!(plan.scale.decommissions, [leaving], "the removal waits");
        assert_eq!(plan.growth.replacements, cluster.replacements);
        assert_eq!(plan.steps, []);
    }
}

proptest! {
    #[test]
    fn no_set_is_deleted_that_is_not_on_record_as_it_is(
        wanted in 0..6i32, recorded in proptest::option::of(0..6i32), deleting in any::<bool>(),
        template in prop_oneof![Just("5Gi"), Just("10Gi"), Just("20Gi")], same in any::<bool>(),
    ) {
        let mut cluster = larger("10Gi");
        cluster.replacements = recorded.map(record).into_iter().collect();
        let mut seen = observed(Vec::new());
        let set = seen.datanode_set.as_mut().unwrap();
        (set.wanted, set.replicas, set.deleting) = (wanted, wanted, deleting);
        set.volume = Some(template.into());
        if !same {
            set.uid = Uid("another".into());
        }
        let plan = plan(&cluster, &seen);
        for step in &plan.steps {
            if let Step::Orphan { replicas, .. } = step {
                prop_assert!(same && !deleting && template == "5Gi");
                prop_assert_eq!((Some(*replicas), *replicas), (recorded, wanted));
            }
        }
        if deleting {
            prop_assert_eq!(plan.scale.replicas, wanted);
        }
    }
}
