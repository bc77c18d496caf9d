//! The set still has the datanode: it is emptied, watched, and proved twice before the set is lowered.

use std::time::Duration;

use dfs_protocol::datanode::{AdminState, Liveness};

use super::{Blocked, Scale, begin, find, is_unproved, moved, readable, verdict};
use crate::crd::DecommissionState;
use crate::decide::conditions::{Reason, coarse};
use crate::decide::preflight;
use crate::decide::{Input, Step};
use crate::names;
use crate::observe::{OpenTracker, WorkloadView};
use crate::tracker_client::{DatanodeEntry, Verdict};
use crate::validate::Decommissioning;

/// Decides the next step of a removal whose pod is still wanted by its set.
pub(super) fn emptying(input: &Input<'_>, set: &WorkloadView, entry: &Decommissioning) -> Scale {
    let kept = |entry| Scale::with(set.wanted, entry);
    let open = match readable(input) {
        Ok(open) => open,
        Err(why) => return kept(entry.clone()).because(why),
    };
    if is_another(input, open, entry) {
        // Whoever is in the pod now is not who was proved to be empty.
        return begin(input, set);
    }
    let Some(id) = entry.id else {
        return lower(input, set, entry);
    };
    let pod = entry.pod.clone();
    match find(open, entry) {
        Some(node) if node.admin == AdminState::InService => {
            match preflight::preflight(input, &entry.pod, set.wanted - 1) {
                Err(why) => Scale::blocked(set.wanted, why),
                Ok(_) if entry.state == DecommissionState::Decommissioning => {
                    kept(entry.clone()).step(Step::Decommission { id, pod })
                }
                Ok(_) => kept(moved(input, entry, DecommissionState::Decommissioning)),
            }
        }
        Some(node) if node.admin == AdminState::Decommissioning => {
            copying(input, set, open, entry, node)
        }
        node => proved(input, set, entry, node),
    }
}

/// Another datanode than the recorded one is a member on that pod or volume, or its volume was replaced.
fn is_another(input: &Input<'_>, open: &OpenTracker, entry: &Decommissioning) -> bool {
    let claim = input.observed.claim(&names::claim(&entry.pod));
    let replaced = match (claim, &entry.volume) {
        (Some(claim), Some(recorded)) => claim.uid != *recorded,
        (Some(_), None) => entry.id.is_some(),
        (None, _) => false,
    };
    let mut nodes = open.nodes.iter();
    replaced
        || nodes.any(|node| {
            Some(node.id) != entry.id
                && node.is_member()
                && (node.pod.as_deref() == Some(&entry.pod)
                    || entry.volume.as_ref().is_some_and(|uid| node.is_on(uid)))
        })
}

/// Chunks are being copied off it.
fn copying(
    input: &Input<'_>,
    set: &WorkloadView,
    open: &OpenTracker,
    entry: &Decommissioning,
    node: &DatanodeEntry,
) -> Scale {
    if is_unproved(input, entry) {
        return match entry.state {
            DecommissionState::Removing => lower(input, set, entry),
            _ => Scale::with(set.wanted, moved(input, entry, DecommissionState::Removing)),
        };
    }
    let remaining = node.chunks_remaining.map(coarse);
    let came_nearer = match (remaining, entry.remaining) {
        (Some(now), Some(before)) => now < before,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let mut next = match entry.state {
        DecommissionState::Decommissioning if !came_nearer => entry.clone(),
        _ => moved(input, entry, DecommissionState::Decommissioning),
    };
    next.remaining = remaining.or(entry.remaining);
    next.heard = None;
    let repair = &open.status.repair;
    let eta = repair.eta_seconds.map_or_else(String::new, |seconds| {
        format!(", about {} left", spoken(Duration::from_secs(seconds)))
    });
    let told = format!(
        "{} chunks need a copy elsewhere; {} MiB are to be copied in all{eta}",
        coarse(node.chunks_remaining.unwrap_or(0)),
        coarse(repair.bytes_remaining >> 20),
    );
    stalled(input, next, set, &node.id.short(), told)
}

/// The tracker calls it decommissioned, or no longer lists it: its word decides.
fn proved(
    input: &Input<'_>,
    set: &WorkloadView,
    entry: &Decommissioning,
    node: Option<&DatanodeEntry>,
) -> Scale {
    let Some(verdict) = verdict(input, entry) else {
        let why = Blocked::new(
            Reason::TrackerUnreadable,
            format!("the tracker did not say whether {} may go", entry.pod),
        );
        return Scale::with(set.wanted, entry.clone()).because(why);
    };
    if !verdict.safe {
        return overtaken(input, set, entry, verdict);
    }
    match entry.state {
        DecommissionState::Decommissioning | DecommissionState::Removed => {
            let mut next = moved(input, entry, DecommissionState::Quiet);
            next.heard = node.and_then(|node| node.last_heartbeat.clone());
            next.remaining = Some(0);
            Scale::with(set.wanted, next).waiting("emptied; it is watched before it is removed")
        }
        DecommissionState::Quiet => quiet(input, set, entry, node),
        DecommissionState::Removing => lower(input, set, entry),
    }
}

/// The proof does not hold any more, or not yet.
fn overtaken(
    input: &Input<'_>,
    set: &WorkloadView,
    entry: &Decommissioning,
    verdict: &Verdict,
) -> Scale {
    if is_unproved(input, entry) && entry.state == DecommissionState::Removing {
        return lower(input, set, entry);
    }
    let next = match entry.state {
        DecommissionState::Decommissioning => entry.clone(),
        _ => moved(input, entry, DecommissionState::Decommissioning),
    };
    let who = entry
        .id
        .map_or_else(String::new, dfs_protocol::DatanodeId::short);
    stalled(input, next, set, &who, verdict.offenders())
}

/// The second verdict counts after the quiet period, and after a heartbeat that is not the first one's.
fn quiet(
    input: &Input<'_>,
    set: &WorkloadView,
    entry: &Decommissioning,
    node: Option<&DatanodeEntry>,
) -> Scale {
    let waited = since(input, entry);
    let fresh = node.is_none_or(|node| {
        // A dead one says nothing any more, and nothing rests on what it says.
        node.liveness == Liveness::Dead || node.last_heartbeat != entry.heard
    });
    let Some(waited) = waited else {
        // The clock was set back: the period begins anew.
        return Scale::with(set.wanted, moved(input, entry, DecommissionState::Quiet));
    };
    if waited >= input.cluster.removal.quiet && fresh {
        return Scale::with(set.wanted, moved(input, entry, DecommissionState::Removing));
    }
    Scale::with(set.wanted, entry.clone()).waiting("emptied; it is watched before it is removed")
}

fn lower(input: &Input<'_>, set: &WorkloadView, entry: &Decommissioning) -> Scale {
    let kept = Scale::with(set.wanted, entry.clone());
    if entry.state != DecommissionState::Removing {
        return Scale::with(set.wanted, moved(input, entry, DecommissionState::Removing));
    }
    kept.waiting("its pod is taken away").step(Step::Lower {
        set: names::datanode_set(&input.cluster.key.name),
        uid: set.uid.clone(),
        from: set.wanted,
        to: set.wanted - 1,
        proof: match entry.id {
            None => "its datanode was never admitted".to_owned(),
            Some(id) if is_unproved(input, entry) => format!("a human names {id}"),
            Some(_) => "the tracker said twice that every chunk is whole without it".to_owned(),
        },
    })
}

/// Nothing came nearer for too long: that is told, with what is in the way.
fn stalled(
    input: &Input<'_>,
    mut next: Decommissioning,
    set: &WorkloadView,
    who: &str,
    told: String,
) -> Scale {
    let waited = since(input, &next);
    if waited.is_none() {
        next.progressed = input.now;
    }
    let pod = next.pod.clone();
    let verdict = verdict(input, &next).map(Verdict::offenders);
    let kept = Scale::with(set.wanted, next);
    if waited.is_some_and(|waited| waited >= input.cluster.removal.stall) {
        let why = format!(
            "{pod} (datanode {who}) made no progress for {}: {told}; {}",
            spoken(input.cluster.removal.stall),
            verdict.unwrap_or_default()
        );
        return kept.because(Blocked::new(Reason::Stalled, why));
    }
    kept.waiting(told)
}

/// How long it has been as it is; none when the clock was set back.
fn since(input: &Input<'_>, entry: &Decommissioning) -> Option<Duration> {
    Duration::try_from(input.now.duration_since(entry.progressed)).ok()
}

/// A duration in its largest unit.
pub(super) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
