//! Since when chunks have fallen short, so that the oldest shortage is known at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::status::Shortage;

/// Keeps only chunks that fall short, about 25 bytes each: none of the others costs anything.
#[derive(Debug, Clone, Default)]
pub(super) struct ShortSince {
    watching: bool,
    /// Whole seconds of monotonic time, as of the last message or tick.
    now: u32,
    since: BTreeMap<u32, (Shortage, u32)>,
    /// By [`Shortage`], in the order of [`Shortage::ALL`]: since when, and which slot.
    oldest: [BTreeSet<(u32, u32)>; 4],
}

impl ShortSince {
    /// What falls short from here on does so since `now`.
    pub(super) fn now(&mut self, now: Duration) {
        self.now = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    }

    /// Begins to watch; false when it did already.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.watching, true)
    }

    /// How a slot is now. One that goes on falling short for another cause does so since before.
    pub(super) fn note(&mut self, at: u32, cause: Option<Shortage>) {
        if !self.watching {
            return;
        }
        let Some(cause) = cause else {
            if let Some((cause, since)) = self.since.remove(&at) {
                self.oldest[cause as usize].remove(&(since, at));
            }
            return;
        };
        let (before, since) = *self.since.entry(at).or_insert((cause, self.now));
        if before != cause {
            self.oldest[before as usize].remove(&(since, at));
            self.since.insert(at, (cause, since));
        }
        self.oldest[cause as usize].insert((since, at));
    }

    /// Since when the one that fell short first for this cause has.
    pub(super) fn oldest(&self, cause: Shortage) -> Option<Duration> {
        let (since, _) = self.oldest[cause as usize].first()?;
        Some(Duration::from_secs(u64::from(*since)))
    }

    /// Compares with a recount: the slots that fall short, in their order.
    pub(super) fn check(&self, short: &[(u32, Shortage)]) -> Result<(), String> {
        let kept = self.since.iter().map(|(at, (cause, _))| (*at, *cause));
        let listed: usize = self.oldest.iter().map(BTreeSet::len).sum();
        let whole = self
            .since
            .iter()
            .all(|(at, (cause, since))| self.oldest[*cause as usize].contains(&(*since, *at)));
        if self.watching && !(kept.eq(short.iter().copied()) && whole && listed == short.len()) {
            return Err("the ages of shortages disagree with a recount".to_owned());
        }
        Ok(())
    }
}
