//! How long a read waits for a replica's first block before it asks another one as well: longer than replicas
//! usually take, by as much as they usually differ. The estimate is the one of TCP's retransmission timer (RFC 6298:
//! smoothed time plus four times its mean deviation), for the reason that "The Tail at Scale" (Dean, Barroso, 2013) gives:
//! asked when nearly all would have answered, a second replica costs little and cuts what is left.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Times that are seen before they count.
const ENOUGH: u32 = 32;
/// Never sooner than this part of the longest delay: a pause of a process is not a slow datanode.
const LEAST: u32 = 10;

/// What was seen, apart from the lock.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    times: u32,
    /// Smoothed, and its mean deviation; seconds.
    usual: f64,
    deviation: f64,
}

impl Seen {
    fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        if self.times == 0 {
            self.usual = took;
            self.deviation = took / 2.0;
        } else {
            self.deviation += ((self.usual - took).abs() - self.deviation) / 4.0;
            self.usual += (took - self.usual) / 8.0;
        }
        self.times = self.times.saturating_add(1);
    }

    fn delay(&self, most: Duration) -> Duration {
        if self.times < ENOUGH {
            return most;
        }
        let late = Duration::try_from_secs_f64(self.usual + 4.0 * self.deviation);
        late.unwrap_or(most).clamp(most / LEAST, most)
    }
}

/// The delay of one gateway.
#[derive(Debug)]
pub(crate) struct HedgeDelay {
    most: Duration,
    seen: Mutex<Seen>,
}

impl HedgeDelay {
    /// Between a tenth of `most` and `most`.
    pub(crate) fn new(most: Duration) -> Self {
        Self {
            most,
            seen: Mutex::default(),
        }
    }

    /// A replica took so long to its first block. Those that were overtaken are not noted (Karn's rule): how long they
    /// would have taken is not known.
    pub(super) fn note(&self, took: Duration) {
        self.lock().note(took);
    }

    /// How long to wait now.
    pub(super) fn now(&self) -> Duration {
        self.lock().delay(self.most)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(500);

    fn after(millis: impl Iterator<Item = u64>) -> Duration {
        let delay = HedgeDelay::new(MOST);
        millis.for_each(|millis| delay.note(Duration::from_millis(millis)));
        delay.now()
    }

    #[test]
    fn until_enough_was_seen_it_is_the_longest() {
        assert_eq!(after(std::iter::repeat_n(1, 31)), MOST);
        assert_eq!(after(std::iter::repeat_n(1, 32)), MOST / 10);
    }

    #[test]
    fn slow_disks_have_more_time_and_never_more_than_the_longest() {
        let steady = after(std::iter::repeat_n(100, 200));
        assert!((100..110).contains(&steady.as_millis()), "{steady:?}");
        let uneven = after((0..200).map(|number| 60 + 80 * (number % 2)));
        assert!((200..300).contains(&uneven.as_millis()), "{uneven:?}");
        assert_eq!(after(std::iter::repeat_n(2_000, 200)), MOST);
    }

    #[test]
    fn it_follows_when_all_become_slow() {
        let delay = after(std::iter::repeat_n(1, 100).chain(std::iter::repeat_n(200, 20)));
        assert!(delay > Duration::from_millis(200), "{delay:?}");
    }
}
