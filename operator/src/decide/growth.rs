//! Volumes that are to grow. Claims that exist are asked for more, one by one; nothing here makes one smaller. A
//! StatefulSet's template of claims cannot change, so the set is made anew around its pods: status first holds
//! how many replicas it has, then the set alone is deleted (its pods are orphaned), then it is applied again
//! with those very replicas and adopts them.
//!
//! ```text
//! (template too small) --recorded--> status.replacements --deleted, orphans--> (no set) --applied--> (adopted)
//! ```

#[cfg(test)]
mod tests;

use super::{Input, Step, waits};
use crate::crd::Quantity;
use crate::names;
use crate::observe::{ClaimView, Part, Resize, Uid};
use crate::validate::{Cluster, Replacement};

/// A claim that is to be asked for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which.
    pub claim: String,
    /// Exactly this one.
    pub uid: Uid,
    /// How much it is to ask for.
    pub size: String,
}

/// What growing volumes need now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Growth {
    /// Claims that are to be asked for more.
    pub asks: Vec<Ask>,
    /// StatefulSets that are made anew, as status is to hold them.
    pub replacements: Vec<Replacement>,
    /// What is to be done now, if status holds its reason already.
    pub steps: Vec<Step>,
    /// What has not the wanted size yet, in words.
    pub waiting: Vec<String>,
    /// Why some of it never comes, in the words of the API server or of the storage.
    pub refused: Option<String>,
}

/// Decides from the spec, the claims, the StatefulSets and the record.
pub fn growth(input: &Input<'_>) -> Growth {
    let mut growth = Growth::default();
    let name = &input.cluster.key.name;
    for (part, set) in sets(name) {
        claims(input, part, &set, &mut growth);
        template(input, part, set, &mut growth);
    }
    growth.waiting = waits::shortened(growth.waiting, "");
    growth
}

/// The parts that have claims, each with its StatefulSet.
pub(super) fn sets(cluster: &str) -> [(Part, String); 2] {
    [
        (Part::Tracker, names::tracker_set(cluster)),
        (Part::Datanode, names::datanode_set(cluster)),
    ]
}

/// The replicas with which a StatefulSet that is gone for a moment is made again.
pub fn recorded<'a>(cluster: &'a Cluster, set: &str) -> Option<&'a Replacement> {
    cluster.replacements.iter().find(|one| one.set == set)
}

/// The size that the volumes of a part are to have, as written.
fn wanted(cluster: &Cluster, part: Part) -> Option<&Quantity> {
    match part {
        Part::Tracker => Some(&cluster.volumes.tracker),
        Part::Datanode => Some(&cluster.volumes.datanode),
        Part::Gateway => None,
    }
}

/// Bytes of a size that may be missing or nonsense: then nothing is known.
fn bytes(size: Option<&String>) -> Option<u64> {
    Quantity::from(size?.as_str()).bytes().ok()
}

fn is_larger(wanted: &Quantity, size: Option<&String>) -> bool {
    match (wanted.bytes(), bytes(size)) {
        (Ok(wanted), Some(size)) => wanted > size,
        _ => false,
    }
}

/// The claims of a set's own pods: those of datanodes that are gone keep the size that they have.
fn claims(input: &Input<'_>, part: Part, set: &str, growth: &mut Growth) {
    let Some(wanted) = wanted(input.cluster, part) else {
        return;
    };
    for claim in &input.observed.claims {
        if !is_of(input, part, set, claim) {
            continue;
        }
        if is_larger(wanted, claim.asked.as_ref()) {
            growth.asks.push(Ask {
                claim: claim.name.clone(),
                uid: claim.uid.clone(),
                size: wanted.to_string(),
            });
        }
        if let Some(why) = smaller(wanted, claim) {
            growth.waiting.push(why);
        }
        if let Resize::Failed(why) = &claim.resize {
            let why = format!("claim {}: {why}", claim.name);
            growth.refused.get_or_insert(why);
        }
    }
}

fn is_of(input: &Input<'_>, part: Part, set: &str, claim: &ClaimView) -> bool {
    let ordinal = claim
        .name
        .strip_prefix("data-")
        .and_then(|pod| names::ordinal(set, pod));
    // What is stopped comes back.
    let planned = match part {
        Part::Tracker => 1,
        Part::Datanode => input.cluster.datanodes,
        Part::Gateway => 0,
    };
    let replicas = input
        .observed
        .set_of(part)
        .map(|set| if set.wanted == 0 { planned } else { set.wanted })
        .or_else(|| recorded(input.cluster, set).map(|one| one.replicas));
    claim.bound && !claim.deleting && ordinal.is_some_and(|n| replicas.is_some_and(|all| n < all))
}

/// Why a claim has not the size that it is to have.
fn smaller(wanted: &Quantity, claim: &ClaimView) -> Option<String> {
    let capacity = bytes(claim.capacity.as_ref())?;
    let asked = bytes(claim.asked.as_ref()).unwrap_or(0);
    let aim = asked.max(wanted.bytes().unwrap_or(0));
    if capacity >= aim {
        return None;
    }
    let how = match claim.resize {
        Resize::FileSystem => ", FileSystemResizePending: its file system follows in a running pod",
        Resize::Volume => ", its volume is being made larger",
        Resize::Quiet | Resize::Failed(_) => "",
    };
    let has = claim.capacity.as_deref().unwrap_or_default();
    Some(format!("{} has {has} of {wanted}{how}", claim.name))
}

/// The template from which new claims are made.
fn template(input: &Input<'_>, part: Part, set: String, growth: &mut Growth) {
    let record = recorded(input.cluster, &set);
    let Some(live) = input.observed.set_of(part).filter(|live| !live.deleting) else {
        // Between the two writes: the record says how it is made again.
        growth.replacements.extend(record.cloned());
        if record.is_some() {
            growth
                .waiting
                .push(format!("StatefulSet {set} is made anew"));
        }
        return;
    };
    let Some(wanted) = wanted(input.cluster, part) else {
        return;
    };
    if !is_larger(wanted, live.volume.as_ref()) {
        return;
    }
    let now = Replacement {
        set,
        uid: live.uid.clone(),
        replicas: live.wanted,
    };
    growth
        .waiting
        .push(format!("StatefulSet {} is made anew", now.set));
    // Not while its controller is still to make pods, or to end some: nobody would for a moment.
    if record == Some(&now) && live.current && live.replicas == live.wanted {
        growth.steps.push(Step::Orphan {
            set: now.set.clone(),
            uid: now.uid.clone(),
            replicas: now.replicas,
        });
    }
    growth.replacements.push(now);
}
