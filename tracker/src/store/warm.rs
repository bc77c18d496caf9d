//! Whether looks at the catalog come out of memory: then another thread costs more than the look.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dfs_runtime::clock::SharedClock;

/// A look that takes longer waited for the disk, or for the processor.
const SLOW: Duration = Duration::from_micros(200);
/// So many slow looks in a row are the disk. One now and then is a thread that lost its processor.
const SLOW_LOOKS: u32 = 8;
/// What a quick look takes off a slow one.
const QUICK_SHARE: u32 = 8;
/// Looks are made on other threads for so long. Then they are tried again: at the worst [`SLOW_LOOKS`] of a
/// second wait where requests are served.
const COLD: Duration = Duration::from_secs(1);

/// Watches how long looks take.
#[derive(Debug)]
pub(super) struct Warmth {
    clock: SharedClock,
    slow: AtomicU32,
    /// Monotonic milliseconds.
    cold_until: AtomicU64,
}

impl Warmth {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            slow: AtomicU32::new(0),
            cold_until: AtomicU64::new(0),
        }
    }

    /// Makes a look here and now; none where it should be made on another thread.
    pub(super) fn look<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        let began = self.clock.monotonic();
        if millis(began) < self.cold_until.load(Ordering::Relaxed) {
            return None;
        }
        let seen = look();
        let ended = self.clock.monotonic();
        self.judge(ended.saturating_sub(began) > SLOW, ended);
        Some(seen)
    }

    fn judge(&self, is_slow: bool, now: Duration) {
        let slow = self.slow.load(Ordering::Relaxed);
        // Two threads may lose one another's count: it is a hint.
        if !is_slow {
            if slow > 0 {
                self.slow.store(slow - 1, Ordering::Relaxed);
            }
            return;
        }
        let slow = slow + QUICK_SHARE;
        if slow < SLOW_LOOKS * QUICK_SHARE {
            self.slow.store(slow, Ordering::Relaxed);
            return;
        }
        self.slow.store(0, Ordering::Relaxed);
        self.cold_until.store(millis(now + COLD), Ordering::Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dfs_runtime::clock::Clock;

    use super::*;

    /// Moved by hand, in microseconds.
    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn monotonic(&self) -> Duration {
            Duration::from_micros(self.0.load(Ordering::SeqCst))
        }

        fn wall(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
    }

    fn look(warmth: &Warmth, hand: &Hand, micros: u64) -> bool {
        let look = || hand.0.fetch_add(micros, Ordering::SeqCst);
        warmth.look(look).is_some()
    }

    #[test]
    fn looks_that_wait_for_the_disk_leave_the_threads_of_requests_for_a_second() {
        let hand = Arc::new(Hand::default());
        let warmth = Warmth::new(hand.clone());
        for _ in 0..SLOW_LOOKS {
            assert!(look(&warmth, &hand, 5000));
        }
        assert!(!look(&warmth, &hand, 5000));
        hand.0.fetch_add(1_000_000, Ordering::SeqCst);
        assert!(look(&warmth, &hand, 5));
    }

    #[test]
    fn a_slow_look_now_and_then_changes_nothing() {
        let hand = Arc::new(Hand::default());
        let warmth = Warmth::new(hand.clone());
        for number in 0..2000 {
            let micros = if number % 10 == 0 { 5000 } else { 5 };
            assert!(look(&warmth, &hand, micros), "{number}");
        }
    }
}
