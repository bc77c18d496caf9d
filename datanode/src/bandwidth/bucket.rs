//! Who of two queues may send how many bytes when. Pure: time is passed in.

use std::time::Duration;

use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::repair::RepairLane;

/// Bytes that may pass at once after a pause: those of a second, divided by this.
const BURSTS_IN_A_SECOND: u64 = 10;
/// Bytes of last replicas that pass before one block of the others does, while both wait. Others get a
/// quarter: one that got nothing would be broken off by whoever waits for its bytes.
const BEFORE_OTHERS: u64 = 3 * BLOCK_SIZE_U64;
/// A byte's share of the level, so that the refill of a nanosecond is a whole number.
const UNIT: i128 = 1_000_000_000;

/// A token bucket with two queues. Over any time t no more than `rate * t` and one burst pass.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second; 0 for no limit.
    rate: u64,
    /// In units: what may pass now.
    level: i128,
    /// When the level was brought up to date.
    at: Duration,
    /// Whether the first of each queue waits.
    waiting: [bool; 2],
    /// Bytes of last replicas that passed since one of the others did, while one waited.
    overtaken: u64,
}

/// The answer to whoever is first in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The bytes are counted: let them pass.
    Pass,
    /// Ask again after that.
    Wait(Duration),
}

impl Bucket {
    /// Full at `now`.
    pub(super) fn new(rate: u64, now: Duration) -> Self {
        let mut bucket = Self {
            rate,
            level: 0,
            at: now,
            waiting: [false; 2],
            overtaken: 0,
        };
        bucket.level = bucket.burst();
        bucket
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Another limit from now on. What was earned at the old one stays, up to the new burst.
    pub(super) fn set_rate(&mut self, rate: u64, now: Duration) {
        self.refill(now);
        if self.rate == 0 {
            // Nothing was counted without a limit.
            self.level = 0;
        }
        self.rate = rate;
        self.level = self.level.min(self.burst());
    }

    /// The first of `lane` asks to let `bytes` pass, a block's or fewer. It asks until it may, or
    /// [`Self::leave`]s.
    pub(super) fn ask(&mut self, lane: RepairLane, bytes: u64, now: Duration) -> Answer {
        if self.rate == 0 {
            self.leave(lane);
            return Answer::Pass;
        }
        self.refill(now);
        self.waiting[index(lane)] = true;
        let missing = i128::from(bytes) * UNIT - self.level;
        if missing > 0 || lane != self.turn() {
            let nanos = missing.max(0) / i128::from(self.rate) + 1;
            let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            return Answer::Wait(wait);
        }
        self.level -= i128::from(bytes) * UNIT;
        match lane {
            RepairLane::LastReplica if self.waiting[index(RepairLane::Other)] => {
                self.overtaken += bytes;
            }
            RepairLane::LastReplica | RepairLane::Other => self.overtaken = 0,
        }
        self.leave(lane);
        Answer::Pass
    }

    /// The first of `lane` waits no longer.
    pub(super) fn leave(&mut self, lane: RepairLane) {
        self.waiting[index(lane)] = false;
    }

    /// Whose turn it is.
    fn turn(&self) -> RepairLane {
        let [last, other] = self.waiting;
        if last && !(other && self.overtaken >= BEFORE_OTHERS) {
            RepairLane::LastReplica
        } else {
            RepairLane::Other
        }
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_nanos();
        self.at = self.at.max(now);
        let earned = i128::try_from(elapsed).unwrap_or(i128::MAX);
        let earned = earned.saturating_mul(i128::from(self.rate));
        self.level = self.level.saturating_add(earned).min(self.burst());
    }

    /// A block at least: a lower one would let none pass.
    fn burst(&self) -> i128 {
        let bytes = self.rate / BURSTS_IN_A_SECOND;
        i128::from(bytes.max(BLOCK_SIZE_U64)) * UNIT
    }
}

fn index(lane: RepairLane) -> usize {
    match lane {
        RepairLane::LastReplica => 0,
        RepairLane::Other => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn lanes() -> impl Strategy<Value = RepairLane> {
        prop_oneof![Just(RepairLane::LastReplica), Just(RepairLane::Other)]
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_its_share_and_one_burst(
            rate in MIB..400 * MIB,
            asks in vec((lanes(), 1..=BLOCK_SIZE_U64, 0u64..20_000_000), 1..300),
        ) {
            let mut now = Duration::from_secs(5);
            let mut bucket = Bucket::new(rate, now);
            let mut passed = Vec::new();
            for (lane, bytes, nanos) in asks {
                now += Duration::from_nanos(nanos);
                if bucket.ask(lane, bytes, now) == Answer::Pass {
                    passed.push((now, bytes));
                }
            }
            let burst = (rate / 10).max(BLOCK_SIZE_U64);
            for first in 0..passed.len() {
                let mut sum = 0;
                for &(at, bytes) in &passed[first..] {
                    sum += bytes;
                    let window = at.saturating_sub(passed[first].0).as_nanos();
                    let share = u128::from(rate) * window / 1_000_000_000 + 1;
                    prop_assert!(u128::from(sum) <= share + u128::from(burst));
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_reaches_the_limit(
            rate in MIB..400 * MIB,
            blocks in vec((lanes(), 1..=BLOCK_SIZE_U64), 1..200),
        ) {
            let mut now = Duration::ZERO;
            let mut bucket = Bucket::new(rate, now);
            let mut sum = 0;
            for (lane, bytes) in blocks {
                // One waits: it is its turn after one wait.
                if let Answer::Wait(wait) = bucket.ask(lane, bytes, now) {
                    now += wait;
                    prop_assert_eq!(bucket.ask(lane, bytes, now), Answer::Pass);
                    sum += bytes;
                }
            }
            let least = u128::from(sum) * 1_000_000_000 / u128::from(rate);
            // Rounding gives a nanosecond away for each.
            prop_assert!(now.as_nanos() <= least + 400);
        }
    }

    /// Both queues are never empty; what passed of each in `seconds`.
    fn contested(bucket: &mut Bucket, from: Duration, seconds: u64) -> [u64; 2] {
        let mut passed = [0; 2];
        let mut now = from;
        while now < from + Duration::from_secs(seconds) {
            for lane in [RepairLane::Other, RepairLane::LastReplica] {
                if bucket.ask(lane, BLOCK_SIZE_U64, now) == Answer::Pass {
                    passed[index(lane)] += BLOCK_SIZE_U64;
                }
            }
            now += Duration::from_millis(1);
        }
        passed
    }

    #[test]
    fn last_replicas_go_first_and_the_others_do_not_starve() {
        let mut bucket = Bucket::new(4 * MIB, Duration::ZERO);
        let [last, other] = contested(&mut bucket, Duration::ZERO, 10);
        assert!(last + other >= 39 * MIB, "{last} {other}");
        assert!(last >= 2 * other, "{last} {other}");
        assert!(other >= (last + other) / 5, "{last} {other}");
    }

    #[test]
    fn whoever_gives_up_holds_nobody_up() {
        let mut bucket = Bucket::new(MIB, Duration::ZERO);
        let mut now = Duration::ZERO;
        while bucket.ask(RepairLane::LastReplica, BLOCK_SIZE_U64, now) == Answer::Pass {}
        bucket.leave(RepairLane::LastReplica);
        now += Duration::from_secs(1);
        let asked = bucket.ask(RepairLane::Other, BLOCK_SIZE_U64, now);
        assert_eq!(asked, Answer::Pass);
    }

    #[test]
    fn another_limit_counts_at_once_for_who_waits() {
        let mut now = Duration::ZERO;
        let mut bucket = Bucket::new(MIB, now);
        let ask = |bucket: &mut Bucket, now| bucket.ask(RepairLane::Other, BLOCK_SIZE_U64, now);
        while ask(&mut bucket, now) == Answer::Pass {}
        bucket.set_rate(100 * MIB, now);
        now += Duration::from_millis(1);
        assert_eq!(ask(&mut bucket, now), Answer::Pass);
        bucket.set_rate(0, now);
        for _ in 0..1000 {
            assert_eq!(ask(&mut bucket, now), Answer::Pass);
        }
        // No burst is left over from the time without a limit.
        bucket.set_rate(MIB, now);
        assert!(matches!(ask(&mut bucket, now), Answer::Wait(_)));
    }
}
