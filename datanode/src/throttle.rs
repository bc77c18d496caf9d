//! A limit in bytes per second for work in the background.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dfs_runtime::clock::SharedClock;

/// Spreads bytes over time; all holders share the rate.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    clock: SharedClock,
    /// When the bytes let through so far are paid for.
    paid: Mutex<Duration>,
}

impl Throttle {
    /// At most `bytes_per_second` on average; 0 is taken for 1.
    pub fn new(clock: SharedClock, bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            clock,
            paid: Mutex::new(Duration::ZERO),
        }
    }

    /// Waits until `bytes` more may pass.
    pub async fn pass(&self, bytes: u64) {
        let wait = self.book(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn book(&self, bytes: u64) -> Duration {
        let now = self.clock.monotonic();
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = paid.saturating_sub(now);
        *paid = (*paid).max(now) + cost;
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::TestClock;

    #[test]
    fn bytes_are_paid_for_in_time_and_idle_time_is_not_saved_up() {
        let clock = TestClock::default();
        let throttle = Throttle::new(Arc::new(clock.clone()), 1000);
        assert_eq!(throttle.book(500), Duration::ZERO);
        assert_eq!(throttle.book(500), Duration::from_millis(500));
        clock.advance(Duration::from_secs(10));
        assert_eq!(throttle.book(2000), Duration::ZERO);
        assert_eq!(throttle.book(1), Duration::from_secs(2));
    }
}
