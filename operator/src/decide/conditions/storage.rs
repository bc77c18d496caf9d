//! Volumes that grow.

use super::judge::{no, yes};
use super::{Judgement, Kind, Reason};
use crate::decide::Plan;

/// Whether volumes are still to become as large as the spec asks for.
pub(super) fn resizing(plan: &Plan) -> Judgement {
    let kind = Kind::StorageResizing;
    let growth = &plan.growth;
    let waiting = growth.waiting.join("; ");
    if let Some(why) = &growth.refused {
        let message = format!(
            "volumes stay as they are: {why}; use a storage class with allowVolumeExpansion, or add datanodes"
        );
        return yes(kind, Reason::ExpansionRefused, message);
    }
    if growth.waiting.is_empty() {
        let message = "every volume is as large as the spec asks for";
        return no(kind, Reason::AsWanted, message.to_owned());
    }
    yes(kind, Reason::Resizing, waiting)
}
