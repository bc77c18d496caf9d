//! Volumes that are full, and volumes that grow.

use dfs_protocol::datanode::Liveness;

use super::judge::{no, yes};
use super::{Judgement, Kind, Reason};
use crate::decide::{Input, Plan, waits};

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

/// Whose volumes are full, and what to do; none when every datanode takes chunks, or is not heard.
pub(super) fn full(input: &Input<'_>) -> Option<String> {
    let open = input.observed.tracker.open()?;
    let members = open.nodes.iter();
    let members = members.filter(|entry| entry.liveness != Liveness::Dead && entry.is_member());
    let members: Vec<_> = members.collect();
    let full: Vec<_> = members
        .iter()
        .filter(|entry| entry.stats.is_full(input.cluster.chunk_size))
        .collect();
    if full.is_empty() {
        return None;
    }
    let named = full.iter().map(|entry| {
        let pod = entry.pod.as_ref().map(|pod| format!(" ({pod})"));
        format!("{}{}", entry.id.short(), pod.unwrap_or_default())
    });
    Some(format!(
        "the volumes of {} of {} datanodes are full and take no chunks: {}; raise dataNodes.storage.size (now {}), \
         add datanodes, or delete files",
        full.len(),
        members.len(),
        waits::shortened(named.collect(), "").join(", "),
        input.cluster.volumes.datanode
    ))
}
