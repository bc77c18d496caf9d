//! Rebalance: evens out the used share of live in-service datanodes, by bytes. A move is a copy
//! whose old replica then goes as excess, with the proof that excess needs (I24).
//!
//! Wanted: the spread never gets worse; nothing moves while anything else needs the datanodes;
//! a move always makes its two datanodes more alike, so that the sum over all datanodes of
//! share² · size falls with each and nothing ever moves back; a plan whose moves are recorded, or
//! done, plans nothing more. Where the spread allows no move (three zones, three replicas: each
//! zone keeps its one), none is planned, however uneven the zones are.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::ChunkHealth;

use super::placement::labels;
use super::rebalance_members::Members;
use super::tasks::{CopyReason, CopyTask, TaskTable};
use super::{Hold, RebalanceLimits};
use crate::model::datanodes::DatanodeTable;
use crate::model::replicas::{ChunkView, ReplicaMap};

/// Sources named in one order.
const SOURCES: usize = 3;
/// A move may overshoot what makes two datanodes alike by half: they differ by at most half as
/// much afterwards, the other way round.
const OVERSHOOT: f64 = 1.5;

/// What rebalance looks at.
#[derive(Debug, Clone, Copy)]
pub struct RebalanceView<'a> {
    /// The datanodes.
    pub datanodes: &'a DatanodeTable,
    /// The replicas, synced with `datanodes`.
    pub replicas: &'a ReplicaMap,
    /// Work under way.
    pub tasks: &'a TaskTable,
    /// Why repair is held.
    pub hold: Option<&'a Hold>,
    /// The cluster's replication factor.
    pub factor: u32,
}

/// What one plan leaves to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RebalancePace {
    /// Once begun, it goes on until datanodes differ by half the threshold: else it would begin
    /// anew with every few writes.
    pub running: bool,
    /// Nothing is planned before this monotonic time.
    pub not_before: Duration,
}

/// Why nothing is moved although it might be wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// The threshold is 0.
    Off,
    /// Repair and gc are held.
    Held(String),
    /// Datanodes are being emptied.
    Leaving(u64),
    /// Chunks lack replicas, or have none.
    Weak(u64),
    /// Repair has copies or deletions under way.
    Repair,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("it is turned off"),
            Self::Held(why) => f.write_str(why),
            Self::Leaving(count) => write!(f, "{count} datanodes are being decommissioned"),
            Self::Weak(count) => write!(f, "{count} chunks have too few replicas"),
            Self::Repair => f.write_str("repair has work under way"),
        }
    }
}

/// Limits that a plan ran into; to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RebalanceLimited {
    /// Moves left because the total, or a datanode's share of it, is reached.
    pub moves: u64,
    /// Moves left because the rate is reached.
    pub rate: u64,
    /// The plan looked at as many chunks as it may.
    pub scan: u64,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebalancePlan {
    /// Copies whose old replica goes afterwards.
    pub moves: Vec<CopyTask>,
    /// For the next plan.
    pub pace: RebalancePace,
    /// Bytes that are still to move, those under way included; an estimate.
    pub bytes_to_go: u64,
    /// Why nothing is moved.
    pub waits: Option<Waits>,
    /// Limits that were hit.
    pub limited: RebalanceLimited,
}

/// Plans rebalance. To be called on every tick.
pub fn plan(
    view: &RebalanceView<'_>,
    pace: RebalancePace,
    limits: &RebalanceLimits,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> RebalancePlan {
    let copying: u64 = view.tasks.moves.copying().map(|one| one.bytes).sum();
    let mut plan = RebalancePlan {
        pace,
        bytes_to_go: copying,
        waits: waits(view, limits),
        ..RebalancePlan::default()
    };
    if plan.waits.is_some() {
        plan.pace.running &= !view.tasks.moves.is_empty();
        return plan;
    }
    let mut draft = Draft {
        members: Members::of(view, now),
        view: *view,
        limits: *limits,
        now,
        rng,
        bytes: 0,
        scanned: 0,
        plan,
    };
    if now < pace.not_before {
        if pace.running {
            draft.plan.bytes_to_go += draft.surplus();
        }
        return draft.plan;
    }
    draft.fill();
    draft.finish()
}

/// Rebalance gives way to everything else.
fn waits(view: &RebalanceView<'_>, limits: &RebalanceLimits) -> Option<Waits> {
    if limits.threshold == 0 {
        return Some(Waits::Off);
    }
    if let Some(hold) = view.hold {
        return Some(Waits::Held(hold.to_string()));
    }
    let leaving = view
        .datanodes
        .iter()
        .filter(|node| node.record.admin == AdminState::Decommissioning)
        .count();
    if leaving > 0 {
        return Some(Waits::Leaving(leaving as u64));
    }
    let of = |health| view.replicas.counters().of_health(health);
    let weak =
        of(ChunkHealth::Missing) + of(ChunkHealth::AtRisk) + of(ChunkHealth::UnderReplicated);
    if weak > 0 {
        return Some(Waits::Weak(weak));
    }
    // The excess that moves make is their own.
    let excess = of(ChunkHealth::OverReplicated) > view.tasks.moves.len() as u64;
    (excess || view.tasks.repair_copies() > 0).then_some(Waits::Repair)
}

struct Draft<'a> {
    view: RebalanceView<'a>,
    limits: RebalanceLimits,
    now: Duration,
    rng: &'a mut fastrand::Rng,
    members: Members,
    bytes: u64,
    scanned: usize,
    plan: RebalancePlan,
}

/// A chunk that may move.
struct Candidate {
    chunk: ChunkView,
    target: usize,
    /// It does not overshoot; then its bytes, else as small as may be.
    rank: (bool, i128),
}

impl Draft<'_> {
    fn fill(&mut self) {
        if self.members.differ_by(self.band()) {
            self.fill_up();
        }
        if !self.plan.pace.running && !self.plan.moves.is_empty() {
            self.plan.pace.running = true;
            self.fill_up();
        }
    }

    /// Where nothing may leave its zone, moves within zones first: the search for others would be
    /// in vain. Each move may make others worth while again.
    fn fill_up(&mut self) {
        loop {
            let before = self.plan.moves.len();
            if self.members.zoned {
                self.fill_pass(false);
            }
            self.fill_pass(true);
            if self.plan.moves.len() == before {
                return;
            }
        }
    }

    fn fill_pass(&mut self, across: bool) {
        let mut fruitless = BTreeSet::new();
        while let Some(source) = self.next_source(&fruitless, across)
            && self.has_room()
        {
            match self.candidate(source, across) {
                Some(candidate) => self.add(source, candidate),
                None => {
                    fruitless.insert(source);
                }
            }
        }
    }

    fn finish(mut self) -> RebalancePlan {
        let limited = self.plan.limited != RebalanceLimited::default();
        let goes_on = !self.plan.moves.is_empty() || !self.view.tasks.moves.is_empty();
        self.plan.pace.running = goes_on || limited && self.plan.pace.running;
        if self.plan.pace.running {
            self.plan.bytes_to_go += self.bytes + self.surplus();
        } else if self.scanned > 0 {
            // Uneven, and nothing can be done: no hurry to look again.
            self.plan.pace.not_before = self.now + self.limits.idle_pause;
        }
        if self.bytes > 0 {
            let seconds = self.bytes as f64 / self.limits.rate.max(1) as f64;
            self.plan.pace.not_before = self.now + Duration::from_secs_f64(seconds.min(3600.0));
        }
        self.plan
    }

    fn has_room(&mut self) -> bool {
        let limited = &mut self.plan.limited;
        let planned = self.plan.moves.len() + self.view.tasks.moves.copying().count();
        if planned >= self.limits.total as usize {
            limited.moves += 1;
        } else if self.bytes >= self.limits.rate.max(1) {
            limited.rate += 1;
        } else if self.scanned >= self.limits.scan_per_tick {
            limited.scan += 1;
        } else {
            return true;
        }
        false
    }

    /// The fullest datanode that has an emptier partner and was not tried in vain.
    fn next_source(&mut self, fruitless: &BTreeSet<usize>, across: bool) -> Option<usize> {
        let mut open: Vec<usize> = (0..self.members.len())
            .filter(|at| !fruitless.contains(at))
            .collect();
        open.sort_by(|a, b| self.members.by_share(*b, *a));
        let mut blocked = false;
        let found = open.into_iter().find(|at| {
            if !self.has_target(*at, across) {
                return false;
            }
            let busy = self.members[*at].sends >= self.limits.per_datanode;
            blocked |= busy;
            !busy
        });
        self.plan.limited.moves += u64::from(blocked && found.is_none());
        found
    }

    /// Datanodes that are so much emptier than this one that it matters, the emptiest first.
    fn targets(&self, source: usize, across: bool) -> Vec<usize> {
        let mut targets: Vec<usize> = self.emptier(source, across).collect();
        targets.sort_by(|a, b| self.members.by_share(*a, *b));
        targets
    }

    fn has_target(&self, source: usize, across: bool) -> bool {
        self.emptier(source, across).next().is_some()
    }

    fn emptier(&self, source: usize, across: bool) -> impl Iterator<Item = usize> + '_ {
        let zone = self.members[source].zone;
        (0..self.members.len())
            .filter(move |at| across || self.members[*at].zone == zone)
            .filter(move |at| self.uneven(source, *at))
    }

    fn uneven(&self, source: usize, target: usize) -> bool {
        let (from, to) = (&self.members[source], &self.members[target]);
        let gap = from.share() - to.share();
        gap > self.band() * from.share() && from.evens(to) >= self.limits.slack.max(1) as f64
    }

    /// Difference of two shares, as a part of the larger one, that is let be.
    fn band(&self) -> f64 {
        let threshold = f64::from(self.limits.threshold) / 100.0;
        if self.plan.pace.running {
            threshold / 2.0
        } else {
            threshold
        }
    }

    /// The chunk of this datanode that evens most, among those that the spread lets go.
    fn candidate(&mut self, source: usize, across: bool) -> Option<Candidate> {
        let targets = self.targets(source, across);
        let from = self.members[source].id;
        let start = self.rng.u32(..);
        let mut best: Option<Candidate> = None;
        let room = self.limits.scan_per_tick - self.scanned;
        let window = self.limits.scan_per_source.min(room);
        let mut looked = 0;
        for chunk in self
            .view
            .replicas
            .of_datanode_from(from, start)
            .take(window)
        {
            looked += 1;
            if !self.is_free(&chunk) {
                continue;
            }
            let fit = targets.iter().find_map(|target| {
                let rank = self.rank(source, *target, &chunk)?;
                Some((*target, rank))
            });
            if let Some((target, rank)) = fit
                && best.as_ref().is_none_or(|best| rank > best.rank)
            {
                best = Some(Candidate {
                    chunk,
                    target,
                    rank,
                });
            }
        }
        self.scanned += looked;
        best
    }

    /// Whole, at rest, and nothing about any replica is unsure.
    fn is_free(&self, chunk: &ChunkView) -> bool {
        let id = chunk.expected.chunk.id;
        let tasks = self.view.tasks;
        let whole = match chunk.health {
            ChunkHealth::Healthy | ChunkHealth::MisReplicated => true,
            ChunkHealth::AtRisk
            | ChunkHealth::UnderReplicated
            | ChunkHealth::OverReplicated
            | ChunkHealth::Missing => false,
        };
        // Checkpoints are replaced every few minutes anyway.
        whole
            && chunk.expected.kind == ChunkKind::Data
            && chunk.expected.chunk.length > 0
            && !self.is_planned(chunk)
            && tasks.moves.get(id).is_none()
            && tasks.of_chunk(id).next().is_none()
            && !tasks.is_postponed(id, self.now)
            && chunk.replicas.iter().all(|replica| {
                replica.verified()
                    && replica.holder.proven()
                    && !tasks.is_going(id, replica.datanode)
            })
    }

    fn is_planned(&self, chunk: &ChunkView) -> bool {
        let planned = |copy: &CopyTask| copy.chunk.id == chunk.expected.chunk.id;
        self.plan.moves.iter().any(planned)
    }

    /// How good it is to move this chunk there; none when it must not or would not help.
    fn rank(&self, source: usize, target: usize, chunk: &ChunkView) -> Option<(bool, i128)> {
        let (from, to) = (&self.members[source], &self.members[target]);
        let bytes = chunk.expected.chunk.length;
        let evens = from.evens(to);
        if bytes as f64 >= evens * OVERSHOOT || !to.takes(bytes, self.limits.per_datanode) {
            return None;
        }
        let id = chunk.expected.chunk.id;
        let node = self.view.datanodes.get(to.id)?;
        let held = chunk.replicas.iter().any(|r| r.datanode == to.id);
        if held
            || self.view.tasks.is_going(id, to.id)
            || !self.view.datanodes.placeable(node, bytes, self.now)
        {
            return None;
        }
        let place = |r: &crate::model::replicas::ReplicaView| (r.holder.host, r.holder.zone);
        let before: Vec<_> = chunk.replicas.iter().map(place).collect();
        let stays = chunk.replicas.iter().filter(|r| r.datanode != from.id);
        let mut after: Vec<_> = stays.map(place).collect();
        after.push(labels(node));
        let (rule, factor) = (self.view.replicas.rule(), chunk.expected.factor);
        if rule.penalty(factor, &after) > rule.penalty(factor, &before) {
            return None;
        }
        // Never more than what this datanode has too much, or that one too little: bytes that go
        // beyond would have to move again.
        let fits = bytes as f64 <= self.members.cap(source, target, evens);
        let bytes = i128::from(bytes);
        Some((fits, if fits { bytes } else { -bytes }))
    }

    fn add(&mut self, source: usize, candidate: Candidate) {
        let Candidate { chunk, target, .. } = candidate;
        let sealed = chunk.expected.chunk;
        let from = self.members[source].id;
        let others = chunk.replicas.iter().map(|r| r.datanode);
        let others = others.filter(|id| *id != from);
        self.plan.moves.push(CopyTask {
            chunk: sealed,
            reason: CopyReason::Move(from),
            sources: std::iter::once(from).chain(others).take(SOURCES).collect(),
            target: self.members[target].id,
        });
        self.bytes += sealed.length;
        self.members.shift(source, target, sealed.length);
    }

    /// Bytes above the mean of the datanodes that have them, where these differ enough.
    fn surplus(&self) -> u64 {
        let sources = (0..self.members.len()).filter(|at| self.has_target(*at, true));
        let surplus = sources.map(|at| self.members.surplus(at).max(0.0));
        // Positive, and far below 2^64: bytes of volumes.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        surplus.map(|bytes| bytes as u64).sum()
    }
}
