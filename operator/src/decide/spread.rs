//! Whether replicas can sit on distinct nodes and in distinct zones.

use std::collections::BTreeSet;

use dfs_protocol::datanode::{AdminState, Liveness};

use crate::observe::OpenTracker;
use crate::tracker_client::Spread;

/// One sentence when replicas cannot all sit on distinct nodes, or zones are fewer than replicas.
pub(super) fn spread(open: &OpenTracker, factor: i32) -> Option<String> {
    if let Some(Spread {
        possible: false,
        sentence,
    }) = &open.status.spread
    {
        return Some(sentence.clone());
    }
    let placeable = open
        .nodes
        .iter()
        .filter(|entry| entry.liveness == Liveness::Live && entry.admin == AdminState::InService);
    let placeable: Vec<_> = placeable.collect();
    let wanted = usize::try_from(factor).unwrap_or(0);
    let hosts: BTreeSet<_> = placeable.iter().filter_map(|e| e.host.as_ref()).collect();
    if placeable.len() >= wanted && !hosts.is_empty() && hosts.len() < wanted {
        return Some(format!(
            "{factor} replicas cannot sit on distinct nodes: {} datanodes run on {} node{}",
            placeable.len(),
            hosts.len(),
            if hosts.len() == 1 { "" } else { "s" },
        ));
    }
    let zones: BTreeSet<_> = placeable.iter().filter_map(|e| e.zone.as_ref()).collect();
    (zones.len() > 1 && zones.len() < wanted).then(|| {
        format!(
            "{factor} replicas share {} zones: {} zones would be needed for distinct ones",
            zones.len(),
            wanted
        )
    })
}
