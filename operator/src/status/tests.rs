use super::*;
use crate::crd::{CapacityStatus, ChunkStatus, Condition, ConditionStatus, MemberState};
use crate::decide::tests::entry;
use crate::tracker_client::DatanodeEntry;
use dfs_protocol::datanode::AdminState;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn status(message: &str, truth: ConditionStatus, under: i64, used: &str) -> DfsClusterStatus {
    DfsClusterStatus {
        conditions: vec![Condition {
            kind: "Ready".into(),
            status: truth,
            reason: "AsWanted".into(),
            message: message.into(),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: Some(1),
        }],
        chunks: Some(ChunkStatus {
            under_replicated: under,
            missing: 0,
        }),
        capacity: Some(CapacityStatus {
            total: Some("30Gi".into()),
            used: Some(used.into()),
        }),
        ..DfsClusterStatus::default()
    }
}

#[test]
fn numbers_and_words_wait_and_turns_do_not() {
    let base = status("a", ConditionStatus::True, 0, "1Gi");
    for (next, expected) in [
        (
            status("a", ConditionStatus::True, 0, "1Gi"),
            Change::Nothing,
        ),
        (status("b", ConditionStatus::True, 0, "1Gi"), Change::Minor),
        (status("a", ConditionStatus::True, 0, "2Gi"), Change::Minor),
        (status("a", ConditionStatus::True, 7, "1Gi"), Change::Major),
        (status("a", ConditionStatus::False, 0, "1Gi"), Change::Major),
    ] {
        assert_eq!(change(Some(&base), &next), expected);
    }
    assert_eq!(change(None, &base), Change::Major);
    let few = status("a", ConditionStatus::True, 7, "1Gi");
    let more = status("a", ConditionStatus::True, 9, "1Gi");
    assert_eq!(change(Some(&few), &more), Change::Minor);
    assert!(!is_due(Change::Nothing, None));
    assert!(!is_due(Change::Minor, Some(Duration::from_secs(29))));
    assert!(is_due(Change::Minor, Some(Duration::from_secs(30))));
    assert!(is_due(Change::Minor, None));
    assert!(is_due(Change::Major, Some(Duration::ZERO)));
}

#[test]
fn bytes_have_two_digits_and_a_unit() {
    for (exact, text) in [
        (0, "0"),
        (999, "1000"),
        (1 << 20, "1.0Mi"),
        (10 << 30, "10Gi"),
        (123 << 30, "120Gi"),
        ((29 << 30) + (900 << 20), "30Gi"),
        (2 << 40, "2.0Ti"),
    ] {
        assert_eq!(compose::bytes(exact), text);
    }
}

/// The API server refuses a list with one key twice, and then no word of the status arrives.
#[test]
fn a_copied_volume_that_asks_to_be_let_in_does_not_stand_beside_who_has_its_uuid() {
    let copy = DatanodeEntry {
        volume: None,
        ..entry(1, 2, AdminState::Pending)
    };
    let member = entry(1, 0, AdminState::InService);
    let newcomer = entry(2, 1, AdminState::Pending);
    for nodes in [
        vec![copy.clone(), member.clone(), newcomer.clone()],
        vec![member, newcomer, copy],
    ] {
        let told = compose::members(&nodes);
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.pod.as_deref(), one.state))
            .collect();
        let expected = [
            (Some("a-datanode-0"), MemberState::InService),
            (Some("a-datanode-1"), MemberState::Pending),
        ];
        assert_eq!(told, expected);
    }
}
