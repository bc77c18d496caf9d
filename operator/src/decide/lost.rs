//! Datanodes that never come back: the volume that a uuid is bound to is gone, and its pod has a
//! new one. They are declared lost only after the tracker said that nothing depends on them.

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};

use super::{Input, Step};
use crate::names;
use crate::observe::{Observed, OpenTracker, PodView, Uid};
use crate::tracker_client::DatanodeEntry;
use crate::validate::{ACKNOWLEDGE_DATANODE_LOST, Loss};

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
    /// The tracker copies nothing yet, because it was announced as away for a while.
    pub awaited: bool,
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
        awaited: entry.liveness != Liveness::Live && entry.maintenance_until.is_some(),
    })
}

/// Those that are waited for in vain: a pod that was deleted together with its claim announced a short absence as it
/// ended, and comes back as somebody else.
pub fn in_vain(input: &Input<'_>, open: &OpenTracker) -> impl Iterator<Item = Gone> {
    let gone = gone(&input.cluster.key.name, input.observed, open);
    gone.into_iter().filter(|gone| gone.awaited)
}

/// Those that may be declared lost now, and why the others wait.
pub fn lost(input: &Input<'_>, open: &OpenTracker) -> (Vec<Gone>, Vec<String>) {
    let mut ready = Vec::new();
    let mut waiting = Vec::new();
    for gone in gone(&input.cluster.key.name, input.observed, open) {
        // A human's word goes before the wait for copies.
        if gone.dead && input.cluster.given_up == Some(gone.id) {
            continue;
        }
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
                    "{subject}; its chunks are copied first: {}",
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

/// How far the loss is that a human acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acknowledged {
    /// What status is to hold of it.
    pub record: Option<Loss>,
    /// What is to be done now, if status holds its reason already.
    pub steps: Vec<Step>,
    /// What it waits for.
    pub waiting: Option<String>,
    /// Why the tracker does not let the datanode go.
    pub refused: Option<String>,
}

impl Acknowledged {
    fn waits(why: impl Into<String>) -> Self {
        Self {
            waiting: Some(why.into()),
            ..Self::default()
        }
    }

    fn of(record: &Loss, steps: Vec<Step>, why: impl Into<String>) -> Self {
        Self {
            record: Some(record.clone()),
            steps,
            ..Self::waits(why)
        }
    }
}

/// Decides about the datanode that a human gave up, and about no other: it is deregistered, then its claim and
/// its pod go, so that the pod returns with a new claim and a new uuid.
pub fn acknowledged(input: &Input<'_>, open: &OpenTracker) -> Acknowledged {
    let Some(word) = input.cluster.given_up else {
        return Acknowledged::default();
    };
    let entry = open.nodes.iter().find(|entry| entry.id == word);
    match input.cluster.loss.as_ref().filter(|loss| loss.id == word) {
        Some(loss) => match entry {
            Some(entry) => deregister(loss, entry),
            // Deregistered datanodes are not listed.
            None => discard(input, open, loss),
        },
        None => begin(input, word, entry),
    }
}

/// Nothing is done before status holds whose pod and volume it was: the tracker forgets.
fn begin(input: &Input<'_>, word: DatanodeId, entry: Option<&DatanodeEntry>) -> Acknowledged {
    let short = word.short();
    let set = names::datanode_set(&input.cluster.key.name);
    let Some(entry) = entry.filter(|entry| entry.admin != AdminState::Pending) else {
        return Acknowledged::waits(format!(
            "{ACKNOWLEDGE_DATANODE_LOST} names {word}, which is no datanode of this cluster; remove the annotation"
        ));
    };
    if entry.liveness != Liveness::Dead {
        return Acknowledged::waits(format!(
            "datanode {short} is given up, and was heard lately: only a dead one can be lost"
        ));
    }
    let mut leaving = input.cluster.decommissions.iter();
    if leaving.any(|leaving| leaving.id == Some(word)) {
        return Acknowledged::waits(format!(
            "datanode {short} is given up, and is on its way out already"
        ));
    }
    let pod = entry
        .pod
        .clone()
        .filter(|pod| names::ordinal(&set, pod).is_some());
    let (Some(pod), Some(volume)) = (pod, entry.volume.clone()) else {
        return Acknowledged::waits(format!(
            "datanode {short} is given up, and the tracker does not know its pod and volume"
        ));
    };
    let record = Loss {
        id: word,
        pod,
        volume: Uid(volume),
    };
    Acknowledged::of(&record, Vec::new(), format!("datanode {short} is given up"))
}

fn deregister(loss: &Loss, entry: &DatanodeEntry) -> Acknowledged {
    if entry.liveness != Liveness::Dead {
        let short = loss.id.short();
        return Acknowledged::waits(format!("datanode {short} was given up, and is heard again"));
    }
    let gone = Gone {
        id: loss.id,
        volume: loss.volume.clone(),
        pod: loss.pod.clone(),
        dead: true,
        awaited: false,
    };
    let why = format!("datanode {} is deregistered", loss.id.short());
    Acknowledged::of(loss, vec![Step::GiveUp(gone)], why)
}

/// Its uuid never comes back; what is left is a claim that nothing depends on.
fn discard(input: &Input<'_>, open: &OpenTracker, loss: &Loss) -> Acknowledged {
    let forget = || Acknowledged::of(loss, vec![Step::ForgetLoss(loss.id)], "");
    let mut members = open.nodes.iter();
    let is_used =
        members.any(|entry| entry.is_on(&loss.volume) && entry.admin != AdminState::Pending);
    let name = names::claim(&loss.pod);
    let claim = input.observed.claim(&name);
    let Some(claim) = claim.filter(|claim| claim.uid == loss.volume && !is_used) else {
        return forget();
    };
    let mut steps = Vec::new();
    if !claim.deleting {
        steps.push(Step::DeleteClaim {
            name: name.clone(),
            uid: claim.uid.clone(),
        });
    }
    // A pod without a node holds no volume: it gets the new claim as soon as that is made.
    let holds =
        |pod: &&PodView| pod.node.is_some() && !pod.deleting && pod.claim.as_ref() == Some(&name);
    if let Some(pod) = input.observed.pod(&loss.pod).filter(holds) {
        steps.push(Step::DeletePod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        });
    }
    let why = format!("claim {name} goes as soon as pod {} has ended", loss.pod);
    Acknowledged::of(loss, steps, why)
}
