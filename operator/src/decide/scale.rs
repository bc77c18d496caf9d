//! How many datanodes the StatefulSet may have. Raising is always allowed: an empty datanode harms
//! nothing. Lowering is always held: nothing empties a datanode yet, and a StatefulSet takes its
//! highest pod away without asking what is on it.

use crate::observe::WorkloadView;

/// Replicas for the StatefulSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// What the StatefulSet gets: never fewer than it has.
    pub replicas: i32,
    /// How many datanodes more than wanted are kept.
    pub held: i32,
}

/// Decides from what is wanted and what is there.
pub fn scale(wanted: i32, set: Option<&WorkloadView>) -> Scale {
    // A pod may exist beyond the set's own number, while someone else's scale-down is under way.
    let present = set.map_or(0, |set| set.wanted.max(set.replicas));
    let replicas = wanted.max(present);
    Scale {
        replicas,
        held: replicas - wanted,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::Uid;

    fn set(wanted: i32, replicas: i32) -> WorkloadView {
        WorkloadView {
            uid: Uid("u".into()),
            wanted,
            replicas,
            ready: 0,
        }
    }

    #[test]
    fn raising_is_allowed_and_lowering_is_held() {
        for (wanted, present, replicas, held) in [
            (3, None, 3, 0),
            (3, Some((3, 3)), 3, 0),
            (5, Some((3, 3)), 5, 0),
            (3, Some((5, 5)), 5, 2),
            (0, Some((3, 2)), 3, 3),
            // Someone lowered the StatefulSet by hand while its pods are still there.
            (3, Some((3, 5)), 5, 2),
        ] {
            let present = present.map(|(wanted, replicas)| set(wanted, replicas));
            let expected = Scale { replicas, held };
            assert_eq!(
                scale(wanted, present.as_ref()),
                expected,
                "{wanted} {present:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_plan_lowers_a_stateful_set(wanted in 0..500i32, asks in 0..500i32, has in 0..500i32) {
            let decided = scale(wanted, Some(&set(asks, has)));
            prop_assert!(decided.replicas >= asks && decided.replicas >= has);
            // A planner on its own result yields nothing new.
            let again = scale(wanted, Some(&set(decided.replicas, has)));
            prop_assert_eq!(again, decided);
        }
    }
}
