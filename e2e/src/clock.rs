//! A clock whose time of day a test moves (I30, fault 27). Monotonic time is the machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dfs_runtime::clock::{Clock, SharedClock, SystemClock};
use jiff::{SignedDuration, Timestamp};

/// See the module's words.
#[derive(Debug)]
pub struct SkewedClock {
    machine: SharedClock,
    offset_seconds: AtomicI64,
}

impl SkewedClock {
    /// A clock that is right.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            machine: SystemClock::shared(),
            offset_seconds: AtomicI64::new(0),
        })
    }

    /// Puts the time of day off by so many seconds, either way, at once.
    pub fn set_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn wall(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.offset_seconds.load(Ordering::SeqCst));
        self.machine
            .wall()
            .saturating_add(offset)
            .unwrap_or(Timestamp::MAX)
    }
}
