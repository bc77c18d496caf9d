//! Decisions as pure functions: `plan(view, limits, now, rng) -> plan`. Loops carry plans out and
//! record them; a planner that is run on its own recorded result plans nothing more.

pub mod admission;
pub mod copy_load;
pub mod decommission;
pub mod gc;
pub mod loss;
pub mod moves;
pub mod placement;
pub mod rebalance;
mod rebalance_members;
pub mod removal;
pub mod repair;
mod repair_copies;
mod repair_deletes;
pub mod safe_mode;
pub mod shortage;
pub mod spread;
pub mod tasks;
#[cfg(test)]
mod tests;
pub mod trash;
pub mod what_if;

use std::fmt;
use std::time::Duration;

use dfs_protocol::status::RepairPriority;

use crate::model::datanodes::{DatanodeTable, LivenessPolicy};
use crate::model::hearing::Partition;
use crate::model::leases::LeaseLimits;

/// Every knob of the tracker's decisions, with its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When silence means something.
    pub liveness: LivenessPolicy,
    /// The cluster's replication factor.
    pub factor: u32,
    /// Fewest replicas of an acknowledged chunk; min(2, factor) when absent.
    pub min_write: Option<u32>,
    /// Datanodes that fall silent within this time fell silent together.
    pub partition_window: Duration,
    /// Most datanodes that may be known.
    pub datanodes: usize,
    /// How long a replica that a commit named may stay unreported.
    pub promise_patience: Duration,
    /// Write leases.
    pub leases: LeaseLimits,
    /// Repair.
    pub repair: RepairLimits,
    /// Rebalance.
    pub rebalance: RebalanceLimits,
    /// Garbage collection.
    pub gc: GcLimits,
    /// The trash.
    pub trash: TrashLimits,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            liveness: LivenessPolicy::default(),
            factor: 3,
            min_write: None,
            partition_window: Duration::from_mins(1),
            datanodes: 10_000,
            promise_patience: Duration::from_secs(30),
            leases: LeaseLimits::default(),
            repair: RepairLimits::default(),
            rebalance: RebalanceLimits::default(),
            gc: GcLimits::default(),
            trash: TrashLimits::default(),
        }
    }
}

impl Policy {
    /// Fewest replicas of an acknowledged chunk of this factor.
    pub fn min_write(&self, factor: u32) -> u32 {
        self.min_write.unwrap_or(2).min(factor).max(1)
    }
}

/// Of a link of 10 Gbit/s a fifth, of one of 2.5 Gbit/s about all. It bounds what repair takes of a fast
/// network from clients, and is more than one disk that turns can write: there the disk is the limit.
pub const DEFAULT_REPAIR_RATE: u64 = 256 * 1024 * 1024;

/// Bounds of repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairLimits {
    /// How long a datanode must be silent before its chunks are copied; none for a last live copy.
    pub delay: Duration,
    /// Most copies that one datanode receives at a time; of small ones more.
    pub copies_to: u32,
    /// Most copies that one datanode sends at a time; of small ones more.
    pub copies_from: u32,
    /// Most copies at a time in all; of small ones more.
    pub copies_total: u32,
    /// Bytes that several small copies may have together in the place of one, as
    /// [`copy_load::CopyLoad::has_room`] says; 0 counts all copies alike.
    pub small_copy: u64,
    /// Bytes a second that one datanode receives for repair, and as many that it sends, which the
    /// datanodes keep to; 0 for no limit.
    pub rate: u64,
    /// Most bytes a second, on the average, that are copied off datanodes that leave.
    pub decommission_rate: Option<u64>,
    /// Most replica deletions ordered by one plan.
    pub deletes_per_tick: u32,
    /// A task that was not answered for so long is given up; a copy later, as its bytes take at the rate.
    pub task_timeout: Duration,
    /// Most chunks of each queue that one plan looks at.
    pub scan_per_tick: usize,
}

impl Default for RepairLimits {
    fn default() -> Self {
        Self {
            delay: Duration::from_mins(5),
            copies_to: 4,
            copies_from: 4,
            copies_total: 64,
            small_copy: 16 * 1024 * 1024,
            rate: DEFAULT_REPAIR_RATE,
            decommission_rate: None,
            deletes_per_tick: 1000,
            task_timeout: Duration::from_mins(5),
            scan_per_tick: 20_000,
        }
    }
}

impl RepairLimits {
    /// Copies wait at the tracker, where more urgent ones still overtake them, and not at a datanode: one
    /// has as many under way as its rate carries in so long. Long enough for several heartbeats.
    const WINDOW: u64 = 20;
    /// A copy is not given up before its bytes had so many times as long as they take at the rate: others
    /// share it. Four last replicas at a time ([`Self::copies_to`]) share three quarters of it, which is more
    /// than five; the rest is for headers and for a source that is busier than its target.
    const SHARERS: u32 = 8;

    /// Whether a datanode with `load` may begin one more copy, as far as the rate goes. One always may:
    /// a chunk of any size is copied in the end. Nor does a chunk with one replica left wait.
    fn rate_has_room(&self, load: copy_load::CopyLoad, priority: RepairPriority) -> bool {
        self.rate == 0
            || priority == RepairPriority::LastReplica
            || load.bytes < self.rate.saturating_mul(Self::WINDOW)
    }

    /// After how long a task that moves so many bytes is given up.
    pub fn patience(&self, bytes: u64) -> Duration {
        let takes = match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        };
        self.task_timeout
            .saturating_add(takes.saturating_mul(Self::SHARERS))
    }
}

/// Bounds of rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebalanceLimits {
    /// Two datanodes whose used shares differ by more than this many percent of the larger one are
    /// evened out; 0 turns rebalance off.
    pub threshold: u32,
    /// Most bytes that begin to move in a second, on the average.
    pub rate: u64,
    /// Most moves that copy at a time in all.
    pub total: u32,
    /// Most moves that one datanode sends, and that one receives, at a time.
    pub per_datanode: u32,
    /// Datanodes that so many bytes would make alike are alike enough.
    pub slack: u64,
    /// Most chunks that one plan looks at.
    pub scan_per_tick: usize,
    /// Most chunks of one datanode that are looked at for one move.
    pub scan_per_source: usize,
    /// How long nothing is looked at after nothing was found.
    pub idle_pause: Duration,
    /// How long a move may take before it is left to repair.
    pub patience: Duration,
}

impl Default for RebalanceLimits {
    fn default() -> Self {
        Self {
            threshold: 5,
            rate: 64 * 1024 * 1024,
            total: 16,
            per_datanode: 4,
            slack: 1024 * 1024,
            scan_per_tick: 20_000,
            scan_per_source: 2000,
            idle_pause: Duration::from_secs(5),
            patience: Duration::from_mins(10),
        }
    }
}

/// Bounds of garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcLimits {
    /// Age at which a chunk that nothing names is condemned.
    pub orphan_age: Duration,
    /// Most chunks condemned by one plan.
    pub condemn_per_tick: usize,
    /// Most replica deletions ordered by one plan.
    pub deletes_per_tick: usize,
    /// How long a condemned chunk without replicas is remembered, so that late commits are refused.
    pub forget_after: Duration,
    /// Most condemned chunks forgotten by one plan.
    pub forget_per_tick: usize,
    /// Most chunks that one plan looks at.
    pub scan_per_tick: usize,
}

impl Default for GcLimits {
    fn default() -> Self {
        Self {
            orphan_age: Duration::from_hours(1),
            condemn_per_tick: 1000,
            deletes_per_tick: 1000,
            forget_after: Duration::from_hours(24),
            forget_per_tick: 1000,
            scan_per_tick: 20_000,
        }
    }
}

/// Bounds of the trash.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrashLimits {
    /// Age at which an entry goes.
    pub retention: Duration,
    /// Share of the volumes' bytes in use above which the oldest entries go early, 0 to 1.
    pub pressure: f64,
    /// How long the effect of an early purge is awaited before the next.
    pub pressure_pause: Duration,
    /// How far wall clocks are trusted to be off: the age of an entry from before the tracker's
    /// start is taken to be so much less than the clocks say.
    pub clock_slack: Duration,
    /// An entry waits at least so long after a start of the tracker, whatever the clocks say.
    pub wait_after_start: Duration,
    /// Most entries purged by one plan.
    pub purge_per_tick: usize,
}

impl Default for TrashLimits {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(24),
            pressure: 0.85,
            pressure_pause: Duration::from_mins(1),
            clock_slack: Duration::from_hours(2),
            wait_after_start: Duration::from_hours(1),
            purge_per_tick: 100,
        }
    }
}

/// Why repair, gc and removal verdicts are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The tracker still gathers reports; what it waits for.
    SafeMode(String),
    /// Too many datanodes fell silent together.
    Partition(Partition),
    /// The service says so: why.
    Asked(String),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SafeMode(waits) => write!(f, "safe mode: {waits}"),
            Self::Partition(partition) => partition.fmt(f),
            Self::Asked(why) => why.fmt(f),
        }
    }
}

/// Whether repair, gc and removal verdicts are held now. `safe_mode` is what the tracker still
/// waits for, as [`safe_mode::SafeMode::waits_for`] answered.
pub fn hold(
    datanodes: &DatanodeTable,
    safe_mode: Option<String>,
    policy: &Policy,
    now: Duration,
) -> Option<Hold> {
    if let Some(waits) = safe_mode {
        return Some(Hold::SafeMode(waits));
    }
    datanodes
        .partition(policy.factor, policy.partition_window, now)
        .map(Hold::Partition)
}
