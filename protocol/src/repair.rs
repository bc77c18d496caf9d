//! What datanodes are told of repair beside its orders: how fast, and what goes first.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::TaskId;

/// The terms of the copies that a datanode makes and gives.
///
/// They ride as JSON in [`crate::routes::REPAIR_HEADER`] on the answers to heartbeats and reports, and not in
/// the body, because the body's readers refuse fields that they do not know: a datanode of an earlier version
/// hears a newer tracker all the same. For the same reason later versions may add fields here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairTerms {
    /// Bytes a second that one datanode receives for repair, and as many that it sends; 0 for no limit.
    pub rate: u64,
    /// Which of the answer's copies are of chunks with one replica left.
    pub last_replicas: BTreeSet<TaskId>,
}

/// Which of two queues for the bandwidth a copy stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairLane {
    /// Of a chunk with one replica left: goes first.
    LastReplica,
    /// Of any other.
    Other,
}

impl RepairLane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::LastReplica, Self::Other];

    /// Value of [`crate::routes::REPAIR_LANE_HEADER`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastReplica => "last-replica",
            Self::Other => "other",
        }
    }

    /// From a header's value. What is not known waits with the others: no word makes a copy free.
    pub fn from_header(value: &[u8]) -> Self {
        if value == Self::LastReplica.as_str().as_bytes() {
            Self::LastReplica
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_not_known_is_the_slower_one() {
        for lane in RepairLane::ALL {
            assert_eq!(RepairLane::from_header(lane.as_str().as_bytes()), lane);
        }
        for unknown in [&b""[..], b"first", b"\xff"] {
            assert_eq!(RepairLane::from_header(unknown), RepairLane::Other);
        }
    }

    #[test]
    fn terms_of_a_later_version_are_understood() {
        let terms = r#"{"rate":5,"last_replicas":[7],"colour":"blue"}"#;
        let terms: RepairTerms = serde_json::from_str(terms).unwrap();
        assert_eq!(terms.rate, 5);
        assert_eq!(terms.last_replicas.len(), 1);
    }
}
