//! Which changes of conditions are worth an event.

use dfs_runtime::metrics::Label as _;

use super::{EventReason, Note};
use crate::decide::{Judgement, Kind, Reason, Truth};

/// A condition as it was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Its type.
    pub kind: String,
    /// Its status.
    pub truth: String,
    /// Its reason.
    pub reason: String,
}

/// The events between what was written and what is judged now.
pub fn transitions(before: &[Before], now: &[Judgement]) -> Vec<Note> {
    if before.is_empty() {
        let note = Note::new(EventReason::Created, "the cluster's objects are being made");
        let invalid = now.iter().any(|one| one.reason == Reason::InvalidSpec);
        if !invalid {
            return vec![note];
        }
    }
    let mut notes = Vec::new();
    for judged in now {
        let was = before.iter().find(|one| one.kind == judged.kind.as_str());
        let truth = was.map(|was| was.truth.as_str());
        let reason = was.map(|was| was.reason.as_str());
        let same = truth == Some(judged.truth.as_str());
        if same && reason == Some(judged.reason.as_str()) {
            continue;
        }
        let turned = Turned {
            same,
            was_true: truth == Some("True"),
            was_false: truth == Some("False"),
            reason,
        };
        if let Some(reason) = event(judged, &turned) {
            notes.push(Note::new(reason, judged.message.clone()));
        }
    }
    notes
}

/// How the status changed.
struct Turned<'a> {
    same: bool,
    was_true: bool,
    was_false: bool,
    /// The reason that it had.
    reason: Option<&'a str>,
}

fn event(now: &Judgement, turned: &Turned<'_>) -> Option<EventReason> {
    match (now.kind, now.truth) {
        (Kind::Ready, _) if now.reason == Reason::InvalidSpec => Some(EventReason::InvalidSpec),
        (Kind::Ready, Truth::True) => (!turned.same).then_some(EventReason::Ready),
        (Kind::Ready, _) => match now.reason {
            Reason::Stopped => Some(EventReason::Stopped),
            // Told as movements.
            Reason::Stopping | Reason::Starting => None,
            _ => turned.was_true.then_some(EventReason::NotReady),
        },
        (Kind::Progressing, Truth::True) => match now.reason {
            Reason::ScalingUp => Some(EventReason::ScalingUp),
            Reason::Stopping => Some(EventReason::Stopping),
            Reason::Starting => Some(EventReason::Starting),
            _ => None,
        },
        (Kind::Degraded, Truth::True) => match now.reason {
            Reason::IdentityConflict | Reason::WrongCluster => Some(EventReason::IdentityConflict),
            Reason::ApplyFailed => Some(EventReason::ApplyFailed),
            Reason::VolumesFull => Some(EventReason::VolumesFull),
            _ => None,
        },
        (Kind::Degraded, Truth::False) => (turned.reason == Some(Reason::VolumesFull.as_str()))
            .then_some(EventReason::VolumesRelieved),
        (Kind::DataRedundant, Truth::False) => match now.reason {
            Reason::ChunksMissing => Some(EventReason::ChunksMissing),
            _ => (!turned.same).then_some(EventReason::RepairStarted),
        },
        (Kind::DataRedundant, Truth::True) => {
            turned.was_false.then_some(EventReason::RepairFinished)
        }
        (Kind::ScaleDownBlocked, Truth::True) => {
            (!turned.same).then_some(EventReason::ScaleDownBlocked)
        }
        (Kind::ScaleDownBlocked, Truth::False) => {
            turned.was_true.then_some(EventReason::ScaleDownReleased)
        }
        (Kind::CatalogLost, Truth::True) => match now.reason {
            Reason::Rebuilding => Some(EventReason::CatalogRebuilding),
            _ => Some(EventReason::CatalogLost),
        },
        (Kind::CatalogLost, Truth::False) => turned.was_true.then_some(EventReason::CatalogRebuilt),
        (Kind::StorageResizing, Truth::True) => match now.reason {
            Reason::ExpansionRefused => Some(EventReason::ExpansionRefused),
            _ => Some(EventReason::VolumesGrowing),
        },
        (Kind::StorageResizing, Truth::False) => {
            turned.was_true.then_some(EventReason::VolumesGrown)
        }
        (Kind::NodeLost, Truth::True) => match now.reason {
            Reason::LossNotAccepted => Some(EventReason::LossNotAccepted),
            _ => Some(EventReason::NodeLost),
        },
        (Kind::NodeLost, Truth::False) => turned.was_true.then_some(EventReason::NodeLossOver),
        (Kind::Paused, Truth::True) => Some(EventReason::Paused),
        (Kind::Paused, Truth::False) => turned.was_true.then_some(EventReason::Resumed),
        (
            Kind::Available
            | Kind::Progressing
            | Kind::Degraded
            | Kind::DataRedundant
            | Kind::Decommissioning
            | Kind::ScaleDownBlocked
            | Kind::CatalogLost
            | Kind::StorageResizing
            | Kind::NodeLost
            | Kind::Paused,
            _,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(kind: Kind, truth: Truth, reason: Reason) -> Judgement {
        Judgement {
            kind,
            truth,
            reason,
            message: "m".into(),
        }
    }

    fn reasons(before: &[(&str, &str, &str)], now: &[Judgement]) -> Vec<EventReason> {
        let before: Vec<_> = before
            .iter()
            .map(|(kind, truth, reason)| Before {
                kind: (*kind).into(),
                truth: (*truth).into(),
                reason: (*reason).into(),
            })
            .collect();
        let notes = transitions(&before, now);
        notes.into_iter().map(|note| note.reason).collect()
    }

    #[test]
    fn the_story_of_a_loss_is_told_once_at_each_turn() {
        let redundant = |truth, reason| [judged(Kind::DataRedundant, truth, reason)];
        let under = redundant(Truth::False, Reason::UnderReplicated);
        let full = redundant(Truth::True, Reason::FullyReplicated);
        let unknown = redundant(Truth::Unknown, Reason::SafeMode);
        let was = |truth, reason| [("DataRedundant", truth, reason)];
        for (before, now, told) in [
            (
                was("True", "FullyReplicated"),
                &under,
                vec![EventReason::RepairStarted],
            ),
            (was("False", "UnderReplicated"), &under, vec![]),
            (was("False", "UnderReplicated"), &unknown, vec![]),
            (
                was("False", "UnderReplicated"),
                &full,
                vec![EventReason::RepairFinished],
            ),
            (was("Unknown", "SafeMode"), &full, vec![]),
        ] {
            assert_eq!(reasons(&before, now), told, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_new_cluster_is_told_as_created_and_an_invalid_one_as_invalid() {
        let ready = [judged(Kind::Ready, Truth::False, Reason::TrackerNotReady)];
        assert_eq!(reasons(&[], &ready), [EventReason::Created]);
        let invalid = [judged(Kind::Ready, Truth::False, Reason::InvalidSpec)];
        assert_eq!(reasons(&[], &invalid), [EventReason::InvalidSpec]);
    }
}
