//! What would be if datanodes were lost, or if there were another number of them. Pure, an estimate
//! for people: repair and the operator decide by themselves when it comes to it.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::plan::{PlanAnswer, PlannedDatanode, Room};
use dfs_protocol::status::{ChunkHealth, RepairPriority, Shortage};
use dfs_protocol::{ChunkId, DatanodeId};

use super::removal::{NAMED_CHUNKS, held_by};
use super::{Hold, Policy, repair, spread};
use crate::model::datanodes::{Datanode, DatanodeTable, Picture};
use crate::model::replicas::{ChunkView, ReplicaMap};

/// The part of a volume, one in so many, that a datanode still has when it turns read-only; what it
/// says is free goes below that.
const KEPT_FREE: u64 = 20;

/// What an estimate looks at.
#[derive(Debug, Clone, Copy)]
pub struct WhatIfView<'a> {
    /// The datanodes.
    pub datanodes: &'a DatanodeTable,
    /// The replicas, synced with `datanodes`.
    pub replicas: &'a ReplicaMap,
    /// Why what is known may not be all.
    pub hold: Option<&'a Hold>,
    /// The knobs.
    pub policy: &'a Policy,
    /// Bytes a second that repair copies, while it is measured.
    pub copy_rate: Option<u64>,
}

/// How datanodes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// All at once, with what they have.
    Lost,
    /// One after the other, emptied first.
    Emptied,
}

/// Chunks after the datanodes are gone.
#[derive(Debug, Default)]
struct Tally {
    missing: u64,
    missing_chunks: Vec<ChunkId>,
    under_replicated: u64,
    bytes_to_copy: u64,
    /// The largest factor of those that can be read.
    factor: u32,
}

/// Without these datanodes, all at once and for ever.
pub fn lose(view: &WhatIfView<'_>, gone: &BTreeSet<DatanodeId>, now: Duration) -> PlanAnswer {
    let tally = tally(view, gone, Going::Lost, now);
    answer(view, gone, Going::Lost, tally, 0, now)
}

/// With `wanted` datanodes in service. Those with the highest ordinals would go, as the operator does
/// it; where pods have no ordinals, those that have the least to copy.
pub fn scale(view: &WhatIfView<'_>, wanted: u32, now: Duration) -> PlanAnswer {
    let mut there: Vec<&Datanode> = in_service(view).collect();
    let count = u32::try_from(there.len()).unwrap_or(u32::MAX);
    there.sort_by_key(|node| {
        let ordinal = node.pod.as_deref().and_then(ordinal);
        (std::cmp::Reverse(ordinal), node.stats.used_bytes, node.id)
    });
    let fewer = count.saturating_sub(wanted) as usize;
    let gone = there.iter().take(fewer).map(|node| node.id).collect();
    let tally = tally(view, &gone, Going::Emptied, now);
    answer(
        view,
        &gone,
        Going::Emptied,
        tally,
        wanted.saturating_sub(count),
        now,
    )
}

/// All names of a datanode.
pub fn planned(node: &Datanode) -> PlannedDatanode {
    let claim = node.record.claim.as_ref();
    PlannedDatanode {
        id: node.id,
        address: node.record.address.clone(),
        pod: node.pod.clone().or_else(|| Some(claim?.pod.clone())),
        host: node.record.host.clone(),
    }
}

fn ordinal(pod: &str) -> Option<u32> {
    pod.rsplit_once('-')?.1.parse().ok()
}

fn in_service<'a>(view: &WhatIfView<'a>) -> impl Iterator<Item = &'a Datanode> {
    let all = view.datanodes.iter();
    all.filter(|node| node.record.admin == AdminState::InService)
}

fn stays<'a>(
    view: &WhatIfView<'a>,
    gone: &'a BTreeSet<DatanodeId>,
    now: Duration,
) -> impl Iterator<Item = &'a Datanode> {
    let there = view.datanodes.there(now);
    there.filter(move |node| !gone.contains(&node.id))
}

/// Costs a look at each chunk of the datanodes that go; the others are as the counters have them.
fn tally(view: &WhatIfView<'_>, gone: &BTreeSet<DatanodeId>, going: Going, now: Duration) -> Tally {
    let counters = view.replicas.counters();
    let missing = counters.of_health(ChunkHealth::Missing);
    let short: u64 = Shortage::ALL
        .map(|cause| counters.of_shortage(cause))
        .iter()
        .sum();
    let mut tally = Tally {
        missing,
        // Each missing chunk has too few as well.
        under_replicated: short.saturating_sub(missing),
        bytes_to_copy: counters.repair_bytes,
        factor: counters.largest_factor().0,
        ..Tally::default()
    };
    let left = stays(view, gone, now).count();
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    let nodes: Vec<DatanodeId> = gone.iter().copied().collect();
    for chunk in held_by(view.replicas, &nodes) {
        tally.take(&chunk, gone, going, left);
    }
    tally
}

impl Tally {
    /// Replaces what a chunk is now by what it would be.
    fn take(&mut self, chunk: &ChunkView, gone: &BTreeSet<DatanodeId>, going: Going, left: u32) {
        let good = || {
            chunk
                .replicas
                .iter()
                .filter(|r| r.present && r.class.good())
        };
        let counts = |without: bool| {
            let stay = good().filter(|r| !without || !gone.contains(&r.datanode));
            u32::try_from(stay.filter(|r| r.holder.counts()).count()).unwrap_or(u32::MAX)
        };
        let readable = |without: bool| {
            let mut stay = good().filter(|r| !without || !gone.contains(&r.datanode));
            stay.any(|r| r.holder.readable())
        };
        let (factor, bytes) = (chunk.expected.factor, chunk.expected.chunk.length);
        let was_missing = !readable(false);
        let is_missing = was_missing || going == Going::Lost && !readable(true);
        let was_short = !was_missing && counts(false) < factor;
        let is_short = match going {
            Going::Lost => !is_missing && counts(true) < factor,
            // What is copied off can be read where it was.
            Going::Emptied => was_short,
        };
        self.missing = self.missing + u64::from(is_missing) - u64::from(was_missing);
        self.under_replicated = self.under_replicated + u64::from(is_short) - u64::from(was_short);
        let target = factor.min(left.max(counts(true)));
        let copies = if is_missing {
            0
        } else {
            target.saturating_sub(counts(true))
        };
        self.bytes_to_copy += u64::from(copies) * bytes;
        self.bytes_to_copy = self
            .bytes_to_copy
            .saturating_sub(waiting(chunk, counts(false)));
        if is_missing && !was_missing && self.missing_chunks.len() < NAMED_CHUNKS {
            self.missing_chunks.push(chunk.expected.chunk.id);
        }
    }
}

/// Bytes of a chunk's copies that repair has before it now.
fn waiting(chunk: &ChunkView, counted: u32) -> u64 {
    let copies = match chunk.priority {
        None | Some(RepairPriority::CorruptOnly) => 0,
        Some(RepairPriority::BadlySpread) => 1,
        Some(
            RepairPriority::LastReplica
            | RepairPriority::UnderThird
            | RepairPriority::UnderReplicated,
        ) => chunk.expected.factor.saturating_sub(counted),
    };
    u64::from(copies) * chunk.expected.chunk.length
}

fn answer(
    view: &WhatIfView<'_>,
    gone: &BTreeSet<DatanodeId>,
    going: Going,
    tally: Tally,
    added: u32,
    now: Duration,
) -> PlanAnswer {
    let left = u32::try_from(stays(view, gone, now).count()).unwrap_or(u32::MAX);
    let left = left.saturating_add(added);
    let room = room(view, gone, tally.bytes_to_copy, added, now);
    let spread = spread::status_of(
        view.datanodes,
        view.policy.factor,
        view.replicas
            .counters()
            .of_health(ChunkHealth::MisReplicated),
        now,
        |node| !gone.contains(&node.id),
    );
    let copy_rate = rate(view, going);
    let mut obstacles = Vec::new();
    if let Some(hold) = view.hold {
        obstacles.push(format!("not everything is known yet: {hold}"));
    }
    let unsure = gone.iter().filter_map(|id| view.datanodes.get(*id));
    let unsure = unsure
        .filter(|node| node.picture != Picture::Current)
        .count();
    if unsure > 0 {
        obstacles.push(format!(
            "{unsure} of those that go have not told all their chunks"
        ));
    }
    let enough = tally.factor <= left;
    if !enough {
        let factor = tally.factor;
        obstacles.push(format!(
            "{factor} replicas wanted, {left} datanodes would be left"
        ));
    }
    if !room.enough {
        obstacles.push("there is not enough room for the copies".to_owned());
    }
    if !spread.possible && enough && added == 0 {
        obstacles.push(format!(
            "replicas could not be spread as wanted: {}",
            spread.sentence
        ));
    }
    let nodes = gone.iter().filter_map(|id| view.datanodes.get(*id));
    let Tally {
        missing,
        missing_chunks,
        under_replicated,
        bytes_to_copy,
        factor: _,
    } = tally;
    let mut answer = PlanAnswer {
        summary: String::new(),
        gone: nodes.map(planned).collect(),
        left,
        missing,
        missing_chunks,
        missing_files: Vec::new(),
        files_searched: true,
        under_replicated,
        bytes_to_copy,
        full_factor_again: enough && room.enough,
        room,
        spread,
        copy_rate,
        eta_seconds: copy_rate.map(|rate| repair::eta(bytes_to_copy, rate as f64)),
        obstacles,
    };
    answer.summary = summary(&answer, going);
    answer
}

/// Room on those that stay, and on as many newcomers as are added, taken for such as the smallest.
fn room(
    view: &WhatIfView<'_>,
    gone: &BTreeSet<DatanodeId>,
    needed: u64,
    added: u32,
    now: Duration,
) -> Room {
    let takers: Vec<_> = stays(view, gone, now)
        .filter(|node| view.datanodes.placeable(node, 0, now))
        .collect();
    let usable = |node: &&Datanode| {
        let kept = node.stats.capacity_bytes / KEPT_FREE;
        node.stats.free_bytes.saturating_sub(kept)
    };
    let newcomer = takers.iter().map(|node| node.stats.capacity_bytes).min();
    let newcomers = u64::from(added).saturating_mul(newcomer.unwrap_or(0));
    let bytes = takers
        .iter()
        .map(usable)
        .sum::<u64>()
        .saturating_add(newcomers);
    Room {
        datanodes: u32::try_from(takers.len())
            .unwrap_or(u32::MAX)
            .saturating_add(added),
        bytes,
        enough: bytes >= needed,
    }
}

fn rate(view: &WhatIfView<'_>, going: Going) -> Option<u64> {
    let limit = view.policy.repair.decommission_rate;
    match (going, view.copy_rate, limit) {
        (Going::Lost, measured, _) => measured,
        (Going::Emptied, Some(measured), Some(limit)) => Some(measured.min(limit)),
        (Going::Emptied, measured, limit) => measured.or(limit),
    }
}

fn summary(answer: &PlanAnswer, going: Going) -> String {
    let (missing, under) = (answer.missing, answer.under_replicated);
    let first = match (going, missing) {
        (Going::Emptied, _) if answer.gone.is_empty() => "No datanode would have to go.".to_owned(),
        (Going::Emptied, _) => format!(
            "{} datanodes would be emptied first: no chunk would have fewer replicas to read from.",
            answer.gone.len()
        ),
        (Going::Lost, 0) if under == 0 => "Nothing would be missing.".to_owned(),
        (Going::Lost, 0) => format!(
            "Every file could still be read; {under} chunks would have too few replicas until they \
             are copied."
        ),
        (Going::Lost, missing) => {
            format!("{missing} chunks would have no replica that can be read: data would be lost.")
        }
    };
    if answer.full_factor_again {
        format!("{first} Every chunk that can be read would have all its replicas again.")
    } else {
        format!("{first} Not all replicas could be made again.")
    }
}
