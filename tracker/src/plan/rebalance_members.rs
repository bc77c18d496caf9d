//! The datanodes that rebalance evens out, as they will be once the moves under way are done.

use std::cmp::Ordering;
use std::ops::Index;
use std::time::Duration;

use dfs_protocol::DatanodeId;

use super::rebalance::RebalanceView;
use crate::model::datanodes::Datanode;
use crate::model::health::Label;
use crate::plan::moves::Move;

/// One datanode.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: DatanodeId,
    pub(super) zone: Option<Label>,
    /// Bytes that chunks take.
    used: f64,
    /// Bytes that chunks may still take.
    free: f64,
    /// Moves that it sends, and receives.
    pub(super) sends: u32,
    receives: u32,
}

impl Member {
    fn of(node: &Datanode) -> Self {
        Self {
            id: node.id,
            zone: node.record.zone.as_deref().map(Label::of),
            used: node.stats.used_bytes as f64,
            free: node.stats.free_bytes as f64,
            sends: 0,
            receives: 0,
        }
    }

    fn size(&self) -> f64 {
        (self.used + self.free).max(1.0)
    }

    /// Used share of what chunks may take, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        self.used / self.size()
    }

    /// Bytes that, moved to the other one, make both shares equal.
    pub(super) fn evens(&self, other: &Self) -> f64 {
        (self.share() - other.share()) / (self.size().recip() + other.size().recip())
    }

    /// Whether one more move of so many bytes may come here.
    pub(super) fn takes(&self, bytes: u64, most: u32) -> bool {
        self.receives < most && self.free >= bytes as f64
    }

    fn gains(&mut self, bytes: f64) {
        self.used = (self.used + bytes).max(0.0);
        self.free = (self.free - bytes).max(0.0);
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Members {
    all: Vec<Member>,
    /// Every zone holds the same number of replicas of each chunk, so that nothing may leave one.
    pub(super) zoned: bool,
}

impl Members {
    /// Live, in service, and their chunk sets known to be right.
    pub(super) fn of(view: &RebalanceView<'_>, now: Duration) -> Self {
        let proven = |node: &&Datanode| {
            view.datanodes.view(node, now).proven() && node.stats.capacity_bytes > 0
        };
        let all = view.datanodes.iter().filter(proven).map(Member::of);
        let zones = view.replicas.rule().zones;
        let mut members = Self {
            all: all.collect(),
            zoned: zones > 0 && view.factor.is_multiple_of(zones),
        };
        for one in view.tasks.moves.iter() {
            members.project(view, one);
        }
        members
    }

    /// As if the move were over.
    fn project(&mut self, view: &RebalanceView<'_>, one: &Move) {
        let Some(chunk) = view.replicas.get(one.chunk) else {
            return;
        };
        let bytes = one.bytes as f64;
        for member in &mut self.all {
            let holds = chunk
                .replicas
                .iter()
                .any(|replica| replica.present && replica.datanode == member.id);
            if member.id == one.to {
                member.gains(if holds { 0.0 } else { bytes });
                member.receives += u32::from(!one.landed);
            } else if member.id == one.from {
                member.gains(if holds { -bytes } else { 0.0 });
                member.sends += u32::from(!one.landed);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether any two differ by more than this part of the larger share: cheap, and mostly no.
    pub(super) fn differ_by(&self, band: f64) -> bool {
        let shares = || self.all.iter().map(Member::share);
        let most = shares().fold(0.0, f64::max);
        most - shares().fold(1.0, f64::min) > band * most
    }

    /// A move was planned.
    pub(super) fn shift(&mut self, source: usize, target: usize, bytes: u64) {
        if let Some(member) = self.all.get_mut(source) {
            member.gains(-(bytes as f64));
            member.sends += 1;
        }
        if let Some(member) = self.all.get_mut(target) {
            member.gains(bytes as f64);
            member.receives += 1;
        }
    }

    /// By share, then by id, so that the same state has the same order.
    pub(super) fn by_share(&self, a: usize, b: usize) -> Ordering {
        let (a, b) = (&self.all[a], &self.all[b]);
        a.share().total_cmp(&b.share()).then(a.id.cmp(&b.id))
    }

    /// Bytes above the mean share of those that can be evened out with it; negative below.
    pub(super) fn surplus(&self, at: usize) -> f64 {
        let member = &self.all[at];
        let group = || {
            let same = |other: &&Member| !self.zoned || other.zone == member.zone;
            self.all.iter().filter(same)
        };
        let used: f64 = group().map(|other| other.used).sum();
        let size: f64 = group().map(Member::size).sum();
        member.used - member.size() * used / size.max(1.0)
    }

    /// Most bytes that should go from one to the other at once; `evens` at most.
    pub(super) fn cap(&self, source: usize, target: usize, evens: f64) -> f64 {
        // Where the spread keeps the mean out of reach, these say nothing.
        let bounds = [self.surplus(source), -self.surplus(target)];
        let bounds = bounds.into_iter().filter(|bytes| *bytes > 0.0);
        bounds.fold(evens, f64::min)
    }
}

impl Index<usize> for Members {
    type Output = Member;

    fn index(&self, at: usize) -> &Member {
        &self.all[at]
    }
}
