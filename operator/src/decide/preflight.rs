//! What must hold before a datanode is asked to leave. All of it is asked again by the tracker's
//! verdicts; this tells early, and in words, why a wish cannot come true.

use std::collections::BTreeSet;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};

use super::Input;
use super::conditions::{Reason, coarse};
use super::decommission::{Blocked, readable};
use super::roll::{self, Roll};
use crate::names;
use crate::observe::{OpenTracker, Uid};
use crate::tracker_client::DatanodeEntry;

/// Room beyond the bytes that move, in percent of them.
const HEADROOM_PERCENT: u64 = 15;

/// Who is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its uuid; none when the pod's datanode was never admitted.
    pub id: Option<DatanodeId>,
    /// UID of its claim, where there is one.
    pub volume: Option<Uid>,
}

/// Whether the datanode of this pod may be asked to leave, `remaining` others staying.
pub(super) fn preflight(
    input: &Input<'_>,
    pod: &str,
    remaining: i32,
) -> Result<Candidate, Blocked> {
    let blocked = |reason, message: String| Err(Blocked::new(reason, message));
    let factor = input.cluster.factor;
    if input.cluster.removal.hold {
        let message = format!("{pod} is kept: dataNodes.decommission.mode is Hold");
        return blocked(Reason::HeldBySpec, message);
    }
    if remaining < factor {
        let message =
            format!("{remaining} datanodes would remain for {factor} replicas of each chunk");
        return blocked(Reason::TooFewDatanodes, message);
    }
    let open = readable(input)?;
    if let Some(why) = &open.status.safe_mode {
        return blocked(
            Reason::SafeMode,
            format!("the tracker is in safe mode: {why}"),
        );
    }
    let node = member(input, open, pod)?;
    let volume = input.observed.claim(&names::claim(pod));
    let volume = volume.map(|claim| claim.uid.clone());
    let Some(node) = node else {
        return Ok(Candidate { id: None, volume });
    };
    let candidate = Candidate {
        id: Some(node.id),
        volume,
    };
    if input.cluster.unproved == Some(node.id) {
        return Ok(candidate);
    }
    if let Roll::Waiting(why) | Roll::Stopped(why) = roll::roll(input) {
        let message = format!("pods are being restarted, one thing at a time: {why}");
        return blocked(Reason::Rolling, message);
    }
    others(open, node)?;
    chunks(open, node)?;
    places(open, node, factor)?;
    room(open, node)?;
    Ok(candidate)
}

/// The one member that is on this pod's volume; none when none ever was.
fn member<'a>(
    input: &Input<'_>,
    open: &'a OpenTracker,
    pod: &str,
) -> Result<Option<&'a DatanodeEntry>, Blocked> {
    let claim = input.observed.claim(&names::claim(pod));
    let on_volume = |node: &&DatanodeEntry| claim.is_some_and(|claim| node.is_on(&claim.uid));
    let members = open.nodes.iter().filter(|node| node.is_member());
    let mut found = members.filter(|node| node.pod.as_deref() == Some(pod) || on_volume(node));
    let first = found.next();
    match (first, found.next()) {
        (None, _) => Ok(None),
        (Some(one), None) if on_volume(&one) => Ok(Some(one)),
        (Some(one), _) => Err(Blocked::new(
            Reason::IdentityConflict,
            format!(
                "the volume of {pod} is not that of datanode {}, which the tracker lists for it",
                one.id.short()
            ),
        )),
    }
}

fn others(open: &OpenTracker, leaving: &DatanodeEntry) -> Result<(), Blocked> {
    let mut nodes = open.nodes.iter();
    let other =
        nodes.find(|node| node.admin == AdminState::Decommissioning && node.id != leaving.id);
    other.map_or(Ok(()), |other| {
        let message = format!(
            "datanode {} is being emptied; one at a time",
            other.id.short()
        );
        Err(Blocked::new(Reason::OtherDecommission, message))
    })
}

fn chunks(open: &OpenTracker, leaving: &DatanodeEntry) -> Result<(), Blocked> {
    let missing = open.status.missing();
    if missing > 0 {
        let message = format!(
            "{} chunks have no replica that can be read",
            coarse(missing)
        );
        return Err(Blocked::new(Reason::ChunksMissing, message));
    }
    let under = open.status.under_replicated();
    // Those of a datanode that is not heard are what its removal puts right.
    if under > 0 && leaving.liveness == Liveness::Live {
        let message = format!(
            "{} chunks have too few replicas; they are copied first",
            coarse(under)
        );
        return Err(Blocked::new(Reason::UnderReplicated, message));
    }
    Ok(())
}

fn staying<'a>(
    open: &'a OpenTracker,
    leaving: &'a DatanodeEntry,
) -> impl Iterator<Item = &'a DatanodeEntry> {
    open.nodes.iter().filter(|node| {
        node.id != leaving.id
            && node.admin == AdminState::InService
            && node.liveness == Liveness::Live
    })
}

/// Enough datanodes on enough distinct Kubernetes nodes. A cluster that never had enough nodes is no worse off.
fn places(open: &OpenTracker, leaving: &DatanodeEntry, factor: i32) -> Result<(), Blocked> {
    let wanted = usize::try_from(factor).unwrap_or(usize::MAX);
    let live = staying(open, leaving).count();
    if live < wanted {
        let message =
            format!("{live} live datanodes would remain for {factor} replicas of each chunk");
        return Err(Blocked::new(Reason::TooFewDatanodes, message));
    }
    // Off a Kubernetes node each datanode is a host of its own.
    let host = |node: &DatanodeEntry| node.host.clone().unwrap_or_else(|| node.id.to_string());
    let after: BTreeSet<_> = staying(open, leaving).map(host).collect();
    let mut before = after.clone();
    before.insert(host(leaving));
    if after.len() < wanted.min(before.len()) {
        let message = format!(
            "the {} Kubernetes nodes that would remain cannot hold {factor} replicas apart",
            after.len()
        );
        return Err(Blocked::new(Reason::TooFewHosts, message));
    }
    Ok(())
}

fn room(open: &OpenTracker, leaving: &DatanodeEntry) -> Result<(), Blocked> {
    let free: u64 = staying(open, leaving)
        .filter(|node| !node.stats.read_only)
        .map(|node| node.stats.free_bytes)
        .sum();
    let moves = leaving.stats.used_bytes;
    let needed = moves.saturating_add(moves / 100 * HEADROOM_PERCENT);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| coarse(bytes >> 20);
    let message = format!(
        "{} MiB and {HEADROOM_PERCENT} % headroom must find room on the others, which have {} MiB free",
        mib(moves),
        mib(free)
    );
    Err(Blocked::new(Reason::NoSpace, message))
}
