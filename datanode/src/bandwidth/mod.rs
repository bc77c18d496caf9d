//! The limit of repair traffic in bytes a second, one for what is received and one for what is sent:
//! every copy of this datanode takes its part of it, those of last replicas first. The tracker says how much,
//! with each heartbeat; a copy that is under way goes on at the new pace.

mod bucket;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::repair::RepairLane;
use dfs_runtime::clock::SharedClock;

use self::bucket::{Answer, Bucket};
use crate::metrics::{Direction, RepairMetrics};

/// Nobody sleeps longer without a look at the limit, which may have changed.
const LOOK: Duration = Duration::from_millis(500);

/// Both limits.
#[derive(Debug)]
pub struct RepairBandwidth {
    received: Throttled,
    sent: Throttled,
    metrics: RepairMetrics,
}

impl RepairBandwidth {
    /// At most `rate` bytes a second in each direction; 0 for no limit.
    pub fn new(clock: &SharedClock, rate: u64, metrics: RepairMetrics) -> Self {
        metrics.limit.set(i64::try_from(rate).unwrap_or(i64::MAX));
        Self {
            received: Throttled::new(clock.clone(), rate),
            sent: Throttled::new(clock.clone(), rate),
            metrics,
        }
    }

    /// Another limit.
    pub fn set_rate(&self, rate: u64) {
        let before = self.received.set_rate(rate);
        self.sent.set_rate(rate);
        if before != rate {
            self.metrics
                .limit
                .set(i64::try_from(rate).unwrap_or(i64::MAX));
            tracing::info!(before, rate, "the limit of repair traffic is another");
        }
    }

    /// Waits until so many bytes may be received, or sent.
    pub async fn pass(&self, direction: Direction, lane: RepairLane, bytes: u64) {
        let throttled = match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        };
        let waited = throttled.pass(lane, bytes).await;
        self.metrics.passed(direction, bytes, waited);
    }
}

/// One direction.
#[derive(Debug)]
struct Throttled {
    clock: SharedClock,
    bucket: Mutex<Bucket>,
    /// Whoever holds one is the first of its queue. Served in the order of arrival.
    queues: [tokio::sync::Mutex<()>; 2],
}

impl Throttled {
    fn new(clock: SharedClock, rate: u64) -> Self {
        let bucket = Mutex::new(Bucket::new(rate, clock.monotonic()));
        Self {
            clock,
            bucket,
            queues: Default::default(),
        }
    }

    /// Says what the limit was.
    fn set_rate(&self, rate: u64) -> u64 {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let before = bucket.rate();
        if before != rate {
            bucket.set_rate(rate, self.clock.monotonic());
        }
        before
    }

    /// Says how long it took.
    async fn pass(&self, lane: RepairLane, bytes: u64) -> Duration {
        let began = self.clock.monotonic();
        let queue = match lane {
            RepairLane::LastReplica => &self.queues[0],
            RepairLane::Other => &self.queues[1],
        };
        let _first = queue.lock().await;
        let _leaves = Leaves { of: self, lane };
        let mut left = bytes;
        while left > 0 {
            let part = left.min(BLOCK_SIZE_U64);
            match self.ask(lane, part) {
                Answer::Pass => left -= part,
                // The runtime's timer counts whole milliseconds; less would come back too soon.
                Answer::Wait(wait) => {
                    let wait = wait.clamp(Duration::from_millis(1), LOOK);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        self.clock.monotonic().saturating_sub(began)
    }

    fn ask(&self, lane: RepairLane, bytes: u64) -> Answer {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.ask(lane, bytes, self.clock.monotonic())
    }
}

/// Leaves the queue, also when the copy is broken off.
struct Leaves<'a> {
    of: &'a Throttled,
    lane: RepairLane,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        let mut bucket = self
            .of
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        bucket.leave(self.lane);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Registry;

    use super::*;
    use crate::testing::TestClock;

    #[tokio::test]
    async fn a_copy_that_waits_survives_another_limit_and_a_neighbour_that_breaks_off() {
        let clock = TestClock::default();
        let metrics = RepairMetrics::register(&Registry::new()).unwrap();
        let shared: SharedClock = Arc::new(clock.clone());
        let bandwidth = Arc::new(RepairBandwidth::new(&shared, 1 << 20, metrics.clone()));
        let copy = |lane| {
            let bandwidth = Arc::clone(&bandwidth);
            tokio::spawn(async move { bandwidth.pass(Direction::Received, lane, 8 << 20).await })
        };
        // The clock stands still: neither can end.
        let (waits, breaks_off) = (copy(RepairLane::Other), copy(RepairLane::LastReplica));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waits.is_finished() && !breaks_off.is_finished());
        breaks_off.abort();
        assert!(breaks_off.await.is_err());
        bandwidth.set_rate(0);
        waits.await.unwrap();
        assert_eq!(metrics.limit.get(), 0);
    }
}
