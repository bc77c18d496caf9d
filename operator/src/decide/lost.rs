//! Datanodes that never come back: the volume that a uuid is bound to is gone, and its pod has a
//! new one. They are declared lost only after the tracker said that nothing depends on them.

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};

use super::Input;
use crate::names;
use crate::observe::{Observed, OpenTracker, Uid};
use crate::tracker_client::DatanodeEntry;

/// A datanode whose volume is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Which.
    pub id: DatanodeId,
    /// The volume that it was bound to.
    pub volume: Uid,
    /// Its pod, which has another volume now.
    pub pod: String,
    /// The tracker counts it as dead.
    pub dead: bool,
}

/// Every datanode whose volume is gone while its pod has a new one.
pub fn gone(cluster: &str, observed: &Observed, open: &OpenTracker) -> Vec<Gone> {
    let nodes = open.nodes.iter();
    nodes
        .filter_map(|entry| one_gone(cluster, observed, entry))
        .collect()
}

fn one_gone(cluster: &str, observed: &Observed, entry: &DatanodeEntry) -> Option<Gone> {
    if matches!(entry.admin, AdminState::Tombstoned | AdminState::Pending) {
        return None;
    }
    let volume = Uid(entry.volume.clone()?);
    let pod = entry.pod.clone()?;
    names::ordinal(&names::datanode_set(cluster), &pod)?;
    if observed.claims.iter().any(|claim| claim.uid == volume) {
        return None;
    }
    // No claim at all may be a list that is not complete yet. A successor under the same name is
    // proof: names are free again only after the old object is gone.
    let successor = observed.claim(&names::claim(&pod))?;
    (!successor.deleting && successor.bound).then_some(Gone {
        id: entry.id,
        volume,
        pod,
        dead: entry.liveness == Liveness::Dead,
    })
}

/// Those that may be declared lost now, and why the others wait.
pub fn lost(input: &Input<'_>, open: &OpenTracker) -> (Vec<Gone>, Vec<String>) {
    let mut ready = Vec::new();
    let mut waiting = Vec::new();
    for gone in gone(&input.cluster.key.name, input.observed, open) {
        let subject = format!(
            "the volume of datanode {} (pod {}) is gone",
            gone.id.short(),
            gone.pod
        );
        match input.verdicts.removal.get(&gone.id) {
            _ if !gone.dead => waiting.push(format!("{subject}; waiting until it counts as dead")),
            Some(verdict) if verdict.safe => ready.push(gone),
            Some(verdict) => {
                waiting.push(format!(
                    "{subject}; its chunks are being copied: {}",
                    verdict.reason
                ));
            }
            None => waiting.push(format!(
                "{subject}; the tracker did not say what depends on it"
            )),
        }
    }
    (ready, waiting)
}
