//! Which trash entries go. Age is monotonic: time seen by this tracker, plus, for entries older
//! than its start, what the wall clocks said at the start minus a slack, so that clocks that are
//! an hour off never purge early (I30), and a restart does not make every entry young again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::TrashId;
use jiff::Timestamp;

use super::TrashLimits;

/// Every entry of the trash, by age.
#[derive(Debug, Clone, Default)]
pub struct TrashTable {
    entries: BTreeMap<TrashId, Entry>,
    by_birth: BTreeSet<(i128, TrashId)>,
    bytes: u64,
    last_early: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Nanoseconds on the monotonic clock; before zero for entries older than the clock.
    born: i128,
    bytes: u64,
}

/// What the volumes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the volumes of live, in-service datanodes.
    pub capacity_bytes: u64,
    /// Bytes of them that are in use.
    pub used_bytes: u64,
}

/// Entries to purge, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrashPlan {
    /// Their retention is over.
    pub expired: Vec<TrashId>,
    /// Space is needed.
    pub early: Vec<TrashId>,
}

impl TrashPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.early.is_empty()
    }
}

impl TrashTable {
    /// Knows of none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over an entry found in the catalog at start, `now` and `wall` being the clocks then.
    /// `bytes` counts every replica.
    pub fn load(
        &mut self,
        id: TrashId,
        deleted: Timestamp,
        bytes: u64,
        limits: &TrashLimits,
        now: Duration,
        wall: Timestamp,
    ) {
        let said = Duration::try_from(wall.duration_since(deleted)).unwrap_or_default();
        let most = limits.retention.saturating_sub(limits.wait_after_start);
        let credit = said.saturating_sub(limits.clock_slack).min(most);
        self.put(id, nanos(now) - nanos(credit), bytes);
    }

    /// Takes over an entry that was just made. `bytes` counts every replica.
    pub fn insert(&mut self, id: TrashId, bytes: u64, now: Duration) {
        self.put(id, nanos(now), bytes);
    }

    /// An entry was purged or restored.
    pub fn remove(&mut self, id: TrashId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.by_birth.remove(&(entry.born, id));
            self.bytes -= entry.bytes;
        }
    }

    /// Entries were purged early: the next time waits until this shows on the volumes.
    pub fn purged_early(&mut self, now: Duration) {
        self.last_early = Some(now);
    }

    /// Age of an entry as decisions take it.
    pub fn age(&self, id: TrashId, now: Duration) -> Option<Duration> {
        self.entries.get(&id).map(|entry| age(entry.born, now))
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the trash is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all entries, every replica counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, id: TrashId, born: i128, bytes: u64) {
        self.remove(id);
        self.entries.insert(id, Entry { born, bytes });
        self.by_birth.insert((born, id));
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Plans what to purge: what is past its retention, and while the volumes are too full the oldest
/// of the rest, as many as make up the excess.
pub fn plan(trash: &TrashTable, usage: Usage, limits: &TrashLimits, now: Duration) -> TrashPlan {
    let mut plan = TrashPlan::default();
    let paused = trash
        .last_early
        .is_some_and(|at| now.saturating_sub(at) < limits.pressure_pause);
    let mut needed = if paused { 0 } else { excess(usage, limits) };
    for (born, id) in trash.by_birth.iter().take(limits.purge_per_tick) {
        let bytes = trash.entries.get(id).map_or(0, |entry| entry.bytes);
        if age(*born, now) >= limits.retention {
            plan.expired.push(*id);
        } else if needed > 0 {
            plan.early.push(*id);
        } else {
            break;
        }
        needed = needed.saturating_sub(bytes);
    }
    plan
}

// A share of a byte count: positive, and exact enough for a threshold.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn excess(usage: Usage, limits: &TrashLimits) -> u64 {
    let allowed = usage.capacity_bytes as f64 * limits.pressure.clamp(0.0, 1.0);
    usage.used_bytes.saturating_sub(allowed as u64)
}

fn age(born: i128, now: Duration) -> Duration {
    let nanos = (nanos(now) - born).max(0);
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / 2)
}
