//! Where replicas go. Distinct host first, then zone spread, then room that nobody was promised, then
//! free space and load by the better of two random choices, so that load spreads. Of two that are equally good the first
//! is taken: by their ids, a store that is not busy would fill from one end (`docs/decisions/placement-ties.md`).

use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};

use crate::model::datanodes::{Datanode, DatanodeTable, Picture};
use crate::model::health::Label;

/// A new chunk to be placed.
#[derive(Debug, Clone, Copy)]
pub struct PlacementRequest<'a> {
    /// Wanted replicas.
    pub factor: u32,
    /// Bytes that the chunk may take.
    pub bytes: u64,
    /// Datanodes that just failed this writer: placed last.
    pub avoid: &'a [DatanodeId],
}

/// How good a target is; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacementScore {
    /// It just failed the writer.
    pub avoided: bool,
    /// Its host has a replica already.
    pub host_taken: bool,
    /// Replicas in its zone; 0 when zones are unknown.
    pub in_zone: u32,
    /// All its room was promised to other writers, who may or may not use it.
    pub promised: bool,
    /// Used share of its volume in tenths.
    pub fullness: u64,
    /// Streams being written there.
    pub load: u32,
}

impl PlacementScore {
    /// What must not be traded for balance.
    fn spread(&self) -> (bool, bool, u32, bool) {
        let Self {
            avoided,
            host_taken,
            in_zone,
            promised,
            ..
        } = *self;
        (avoided, host_taken, in_zone, promised)
    }
}

/// Chooses the chain of a new chunk: `factor` distinct datanodes, fewer only when fewer are
/// placeable.
pub fn choose(
    datanodes: &DatanodeTable,
    request: &PlacementRequest<'_>,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Vec<DatanodeId> {
    let candidates = datanodes.all_placeable(request.bytes, now);
    chain(datanodes, candidates, request, rng)
}

/// As [`choose`], among all that are heard, however full: for what they keep a reserve for.
pub fn choose_last(
    datanodes: &DatanodeTable,
    request: &PlacementRequest<'_>,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Vec<DatanodeId> {
    let heard = |node: &&Datanode| {
        node.record.admin == AdminState::InService
            && node.picture != Picture::Unknown
            && datanodes.liveness(node, now) == Liveness::Live
    };
    let candidates = datanodes.iter().filter(heard).collect();
    chain(datanodes, candidates, request, rng)
}

fn chain(
    datanodes: &DatanodeTable,
    mut candidates: Vec<&Datanode>,
    request: &PlacementRequest<'_>,
    rng: &mut fastrand::Rng,
) -> Vec<DatanodeId> {
    let mut taken: Vec<(Label, Option<Label>)> = Vec::new();
    let mut targets = Vec::new();
    while targets.len() < request.factor as usize {
        let Some(best) = pick(datanodes, &candidates, &taken, request, rng) else {
            break;
        };
        let chosen = candidates.swap_remove(best);
        taken.push(labels(chosen));
        targets.push(chosen.id);
    }
    targets
}

/// Chooses one more holder for a chunk whose replicas are on `taken`, among the placeable
/// datanodes that `admits` lets through. None when there is no such datanode.
pub fn choose_target(
    datanodes: &DatanodeTable,
    bytes: u64,
    taken: &[(Label, Option<Label>)],
    admits: impl Fn(&Datanode) -> bool,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Option<DatanodeId> {
    choose_idlest(datanodes, bytes, taken, admits, |_| 0, now, rng)
}

/// As [`choose_target`], but of those that spread the chunk equally well one for which the fewest bytes are `queued`: whoever
/// orders all copies knows how busy each target will be, and repair is over when the busiest one is.
pub fn choose_idlest(
    datanodes: &DatanodeTable,
    bytes: u64,
    taken: &[(Label, Option<Label>)],
    admits: impl Fn(&Datanode) -> bool,
    queued: impl Fn(DatanodeId) -> u64,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Option<DatanodeId> {
    let mut candidates = datanodes.all_placeable(bytes, now);
    candidates.retain(|node| admits(node));
    let request = PlacementRequest {
        factor: 1,
        bytes,
        avoid: &[],
    };
    let zoned = datanodes.spread_rule().zones > 0;
    let rank = |node: &Datanode| {
        let spread = score(node, taken, &request, zoned).spread();
        (spread, queued(node.id))
    };
    let best = candidates.iter().map(|node| rank(node)).min()?;
    candidates.retain(|node| rank(node) == best);
    let best = pick(datanodes, &candidates, taken, &request, rng)?;
    candidates.get(best).map(|node| node.id)
}

/// Host and zone of a datanode.
pub fn labels(node: &Datanode) -> (Label, Option<Label>) {
    (
        Label::of(&node.host()),
        node.record.zone.as_deref().map(Label::of),
    )
}

fn pick(
    datanodes: &DatanodeTable,
    candidates: &[&Datanode],
    taken: &[(Label, Option<Label>)],
    request: &PlacementRequest<'_>,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let zoned = datanodes.spread_rule().zones > 0;
    let scores: Vec<PlacementScore> = candidates
        .iter()
        .map(|node| score(node, taken, request, zoned))
        .collect();
    let spread = scores.iter().map(PlacementScore::spread).min()?;
    let equal: Vec<usize> = (0..scores.len())
        .filter(|at| scores[*at].spread() == spread)
        .collect();
    let first = rng.usize(..equal.len());
    // The second choice is another one wherever there is another one.
    let second = (first + 1 + rng.usize(..equal.len().max(2) - 1)) % equal.len();
    [equal[first], equal[second]]
        .into_iter()
        .min_by_key(|at| scores[*at])
}

fn score(
    node: &Datanode,
    taken: &[(Label, Option<Label>)],
    request: &PlacementRequest<'_>,
    zoned: bool,
) -> PlacementScore {
    let (host, zone) = labels(node);
    let in_zone = taken
        .iter()
        .filter(|(_, other)| zoned && *other == zone)
        .count();
    let free = node.unpromised_bytes();
    let used = node.stats.capacity_bytes.saturating_sub(free);
    PlacementScore {
        avoided: request.avoid.contains(&node.id),
        host_taken: taken.iter().any(|(other, _)| *other == host),
        in_zone: u32::try_from(in_zone).unwrap_or(u32::MAX),
        promised: free < request.bytes,
        fullness: used.saturating_mul(10) / node.stats.capacity_bytes.max(1),
        load: node.write_load(),
    }
}
