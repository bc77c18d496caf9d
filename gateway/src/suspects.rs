//! Which datanodes this gateway just saw fail or stall. They come last for reads, and chains are opened
//! without those that were silent, so that one dead datanode costs one wait and not one for each chunk.
//! A doubt passes by itself: the tracker, which hears heartbeats, is the one to judge in the long run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_runtime::clock::SharedClock;

use crate::metrics::{Doubt, GatewayMetrics};

/// How long a doubt lasts.
pub(crate) const LASTS: Duration = Duration::from_secs(10);
/// How long one lasts about a datanode that was only later than others usually are.
pub(crate) const BRIEFLY: Duration = Duration::from_secs(1);
/// Datanodes in doubt at once; the oldest doubts go first.
const MOST: usize = 1024;

/// The doubts, apart from clock and lock.
#[derive(Debug, Default)]
struct Doubts(BTreeMap<DatanodeId, (Doubt, Duration)>);

impl Doubts {
    /// Notes what was seen and until when it counts; says whether it is news. A milder doubt does not replace a worse one, nor
    /// a shorter one a longer one.
    fn note(&mut self, id: DatanodeId, doubt: Doubt, until: Duration, now: Duration) -> bool {
        self.0.retain(|_, (_, until)| now < *until);
        let known = self.0.get(&id).copied();
        let worse = known.map_or(doubt, |(known, _)| doubt.max(known));
        let until = known.map_or(until, |(_, known)| until.max(known));
        if self.0.len() >= MOST && !self.0.contains_key(&id) {
            let oldest = self.0.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(id, (worse, until));
        known.map(|(known, _)| known) != Some(worse)
    }

    /// The doubt about a datanode at `now`.
    fn of(&self, id: DatanodeId, now: Duration) -> Option<Doubt> {
        let (doubt, until) = self.0.get(&id)?;
        (now < *until).then_some(*doubt)
    }
}

/// The doubts of one gateway.
#[derive(Debug)]
pub(crate) struct Suspects {
    clock: SharedClock,
    metrics: GatewayMetrics,
    doubts: Mutex<Doubts>,
}

impl Suspects {
    pub(crate) fn new(clock: SharedClock, metrics: GatewayMetrics) -> Arc<Self> {
        Arc::new(Self {
            clock,
            metrics,
            doubts: Mutex::default(),
        })
    }

    /// A datanode failed or stalled; says whether that is news.
    pub(crate) fn note(&self, id: DatanodeId, doubt: Doubt) -> bool {
        self.note_for(id, doubt, LASTS)
    }

    /// As [`Self::note`], for so long.
    pub(crate) fn note_for(&self, id: DatanodeId, doubt: Doubt, lasts: Duration) -> bool {
        self.metrics.doubts.inc(doubt);
        let now = self.clock.monotonic();
        self.lock().note(id, doubt, now + lasts, now)
    }

    /// A datanode did what it was asked.
    pub(crate) fn clear(&self, id: DatanodeId) {
        self.lock().0.remove(&id);
    }

    /// What is held against a datanode now: none comes before any.
    pub(crate) fn doubt(&self, id: DatanodeId) -> Option<Doubt> {
        self.lock().of(id, self.clock.monotonic())
    }

    /// Puts those in doubt last, the silent behind the slow; otherwise the order stays.
    pub(crate) fn put_last(&self, datanodes: &mut [DatanodeAddress]) {
        datanodes.sort_by_key(|datanode| self.doubt(datanode.id));
    }

    /// Drops the silent ones; all stay when nobody else is left.
    pub(crate) fn leave_out_silent(&self, datanodes: &mut Vec<DatanodeAddress>) {
        let is_heard = |at: &DatanodeAddress| self.doubt(at.id) != Some(Doubt::Silent);
        if datanodes.iter().any(is_heard) {
            datanodes.retain(is_heard);
        }
    }

    /// Every silent one.
    pub(crate) fn silent(&self) -> Vec<DatanodeId> {
        let now = self.clock.monotonic();
        let doubts = self.lock();
        let silent = |id: &&DatanodeId| doubts.of(**id, now) == Some(Doubt::Silent);
        doubts.0.keys().filter(silent).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_doubt_passes_by_itself_and_the_worse_one_stays_until_then() {
        let (mut doubts, id) = (Doubts::default(), DatanodeId::from_u128(1));
        assert_eq!(doubts.of(id, at(0)), None);
        doubts.note(id, Doubt::Silent, at(10), at(0));
        doubts.note(id, Doubt::Slow, at(15), at(5));
        assert_eq!(doubts.of(id, at(14)), Some(Doubt::Silent));
        assert_eq!(doubts.of(id, at(15)), None);
        doubts.note(id, Doubt::Slow, at(26), at(16));
        doubts.note(id, Doubt::Slow, at(17), at(16));
        assert_eq!(doubts.of(id, at(17)), Some(Doubt::Slow));
    }

    #[test]
    fn i31_no_more_than_so_many_doubts_are_kept_and_the_oldest_goes_first() {
        let mut doubts = Doubts::default();
        let id = |number: usize| DatanodeId::from_u128(number as u128);
        for number in 0..=MOST {
            let now = at(0) + Duration::from_millis(number as u64);
            doubts.note(id(number), Doubt::Silent, now + LASTS, now);
        }
        assert_eq!(doubts.0.len(), MOST);
        assert_eq!(doubts.of(id(0), at(2)), None);
        assert_eq!(doubts.of(id(MOST), at(2)), Some(Doubt::Silent));
    }
}
