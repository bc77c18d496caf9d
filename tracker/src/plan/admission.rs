//! Who is let in. Pure: the service carries it out.

use dfs_protocol::admission::AdmitRequest;
use dfs_protocol::datanode::{AdminState, RegisterRequest};
use jiff::Timestamp;

use crate::config::AdmissionPolicy;
use crate::model::op::{Claim, DatanodeRecord};
use crate::model::pending::Newcomer;

/// What becomes of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is in, with this record.
    Admit(Box<DatanodeRecord>),
    /// It waits for an administrator.
    Wait,
    /// An administrator said no.
    Refuse {
        /// In his words.
        reason: String,
    },
    /// Its uuid was deregistered.
    Reset,
}

/// Decides on a registration. `known` is the catalog's record, `waiting` what waits under the uuid.
///
/// A known uuid comes back by itself, wherever it lives now; but where an administrator admits, one that
/// is bound to a claim and comes from another pod may be a copy of that volume: it waits.
pub fn decide(
    policy: AdmissionPolicy,
    known: Option<&DatanodeRecord>,
    waiting: Option<&Newcomer>,
    request: &RegisterRequest,
    wall: Timestamp,
) -> Decision {
    let is_tombstoned = known.is_some_and(|record| record.admin == AdminState::Tombstoned);
    if is_tombstoned {
        return Decision::Reset;
    }
    let is_in = match (policy, known) {
        (AdmissionPolicy::Auto, _) => true,
        (AdmissionPolicy::Operator, Some(record)) => is_from_its_pod(record, request),
        (AdmissionPolicy::Operator, None) => false,
    };
    if is_in {
        return Decision::Admit(Box::new(registered(known, request, wall)));
    }
    match waiting.and_then(|newcomer| newcomer.refused.clone()) {
        Some(reason) => Decision::Refuse { reason },
        None => Decision::Wait,
    }
}

fn is_from_its_pod(record: &DatanodeRecord, request: &RegisterRequest) -> bool {
    match (&record.claim, &request.pod) {
        (Some(claim), Some(pod)) => claim.pod == *pod,
        (None, _) | (_, None) => true,
    }
}

/// The record of a datanode that is in and announces itself. What an administrator set stays where the
/// datanode does not know better: it knows the machine that it runs on, not its zone.
fn registered(
    known: Option<&DatanodeRecord>,
    request: &RegisterRequest,
    wall: Timestamp,
) -> DatanodeRecord {
    let claimed = known.filter(|record| record.claim.is_some());
    let (zone, host) = match claimed {
        Some(record) => (
            record.zone.clone().or_else(|| request.zone.clone()),
            request.host.clone().or_else(|| record.host.clone()),
        ),
        None => (request.zone.clone(), request.host.clone()),
    };
    DatanodeRecord {
        admin: known.map_or(AdminState::InService, |record| record.admin),
        zone,
        host,
        address: request.address.clone(),
        registered: known.map_or(wall, |record| record.registered),
        claim: known.and_then(|record| record.claim.clone()),
    }
}

/// Why a datanode cannot be admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmissible {
    /// Nobody of that uuid waits or is in.
    #[error("no datanode of that id announced itself lately")]
    Unknown,
    /// It was deregistered.
    #[error("the uuid was deregistered; the datanode takes a new one by itself")]
    Tombstoned,
    /// The uuid is bound to another volume: one of the two is a copy.
    #[error("the uuid is bound to volume {bound}, and this is volume {offered}: one is a copy")]
    OtherVolume {
        /// As the catalog has it.
        bound: String,
        /// As it was to be admitted.
        offered: String,
    },
}

/// The record of a datanode that an administrator admits, or places anew.
pub fn admit(
    known: Option<&DatanodeRecord>,
    waiting: Option<&Newcomer>,
    request: &AdmitRequest,
    wall: Timestamp,
) -> Result<DatanodeRecord, NotAdmissible> {
    let AdmitRequest {
        pod,
        volume,
        host,
        zone,
    } = request.clone();
    if known.is_none() && waiting.is_none() {
        return Err(NotAdmissible::Unknown);
    }
    if known.is_some_and(|record| record.admin == AdminState::Tombstoned) {
        return Err(NotAdmissible::Tombstoned);
    }
    let bound = known.and_then(|record| record.claim.as_ref());
    if let Some(bound) = bound.filter(|claim| claim.volume != volume) {
        return Err(NotAdmissible::OtherVolume {
            bound: bound.volume.clone(),
            offered: volume,
        });
    }
    let address = match (waiting, known) {
        (Some(newcomer), _) => newcomer.announced.address.clone(),
        (None, Some(record)) => record.address.clone(),
        (None, None) => String::new(),
    };
    Ok(DatanodeRecord {
        admin: known.map_or(AdminState::InService, |record| record.admin),
        zone,
        host: Some(host),
        address,
        registered: known.map_or(wall, |record| record.registered),
        claim: Some(Claim { pod, volume }),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::pending::tests::announcement;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn waiting(refused: Option<&str>) -> Newcomer {
        Newcomer {
            announced: announcement(1, Some("a-0")),
            last_heard: Duration::ZERO,
            last_heartbeat: NOW,
            refused: refused.map(str::to_owned),
        }
    }

    fn claim(pod: &str, volume: &str) -> AdmitRequest {
        AdmitRequest {
            pod: pod.into(),
            volume: volume.into(),
            host: "machine-1".into(),
            zone: Some("zone-1".into()),
        }
    }

    fn admitted() -> DatanodeRecord {
        admit(None, Some(&waiting(None)), &claim("a-0", "v0"), NOW).unwrap()
    }

    #[test]
    fn a_newcomer_waits_for_the_operator_and_is_in_at_once_without_one() {
        let request = announcement(1, None);
        let decided = decide(AdmissionPolicy::Operator, None, None, &request, NOW);
        assert_eq!(decided, Decision::Wait);
        let refused = waiting(Some("foreign pod"));
        let decided = decide(
            AdmissionPolicy::Operator,
            None,
            Some(&refused),
            &request,
            NOW,
        );
        assert_eq!(
            decided,
            Decision::Refuse {
                reason: "foreign pod".into()
            }
        );
        let decided = decide(AdmissionPolicy::Auto, None, None, &request, NOW);
        assert!(
            matches!(decided, Decision::Admit(record) if record.admin == AdminState::InService)
        );
    }

    #[test]
    fn an_admitted_uuid_comes_back_by_itself_from_its_pod_at_any_address_and_keeps_its_claim() {
        let record = admitted();
        let mut request = announcement(7, Some("a-0"));
        request.host = Some("machine-2".into());
        let Decision::Admit(back) = decide(
            AdmissionPolicy::Operator,
            Some(&record),
            None,
            &request,
            NOW,
        ) else {
            panic!("not let in");
        };
        assert_eq!(back.address, "10.0.0.7:6001");
        assert_eq!(back.zone.as_deref(), Some("zone-1"), "the operator set it");
        assert_eq!(back.host.as_deref(), Some("machine-2"), "it knows better");
        assert_eq!(back.claim, record.claim);
    }

    #[test]
    fn a_bound_uuid_from_another_pod_may_be_a_copy_and_waits() {
        let record = admitted();
        let request = announcement(1, Some("a-1"));
        let decided = decide(
            AdmissionPolicy::Operator,
            Some(&record),
            None,
            &request,
            NOW,
        );
        assert_eq!(decided, Decision::Wait);
        let newcomer = waiting(None);
        let copied = admit(Some(&record), Some(&newcomer), &claim("a-1", "v1"), NOW);
        let expected = NotAdmissible::OtherVolume {
            bound: "v0".into(),
            offered: "v1".into(),
        };
        assert_eq!(copied, Err(expected));
        // The same volume under another pod is a move.
        let moved = admit(Some(&record), Some(&newcomer), &claim("a-1", "v0"), NOW).unwrap();
        assert_eq!(moved.claim.unwrap().pod, "a-1");
    }

    #[test]
    fn i09_a_tombstoned_uuid_is_reset_and_never_admitted() {
        let mut record = admitted();
        record.admin = AdminState::Tombstoned;
        for policy in [AdmissionPolicy::Auto, AdmissionPolicy::Operator] {
            let request = announcement(1, Some("a-0"));
            let decided = decide(policy, Some(&record), None, &request, NOW);
            assert_eq!(decided, Decision::Reset);
        }
        let again = admit(Some(&record), None, &claim("a-0", "v0"), NOW);
        assert_eq!(again, Err(NotAdmissible::Tombstoned));
        assert_eq!(
            admit(None, None, &claim("a-0", "v0"), NOW),
            Err(NotAdmissible::Unknown)
        );
    }

    #[test]
    fn an_admin_state_survives_a_change_of_the_claim() {
        let mut record = admitted();
        record.admin = AdminState::Decommissioning;
        let moved = admit(Some(&record), None, &claim("a-0", "v0"), NOW).unwrap();
        assert_eq!(moved.admin, AdminState::Decommissioning);
    }
}
