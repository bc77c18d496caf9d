//! How long chunks were below their factor, and why: chunk-seconds by cause. What repair hides within
//! minutes stays visible, and what an administrator brought about apart from what failed.

use std::time::Duration;

use dfs_protocol::status::Shortage;

use super::replicas::Counters;

/// Adds up on every tick. Costs the same however many chunks there are.
#[derive(Debug, Default)]
pub struct BelowFactor {
    /// When it was looked last, and how many chunks fell short then.
    last: Option<(Duration, [u64; 4])>,
}

impl BelowFactor {
    /// Chunk-seconds since the tick before, in the order of [`Shortage::ALL`]: what fell short then
    /// is taken to have done so until now. `counters` are absent while nobody knows: the time until the
    /// next tick is not counted. `now` is monotonic.
    pub fn tick(&mut self, counters: Option<&Counters>, now: Duration) -> [f64; 4] {
        let before = self.last.take();
        self.last = counters.map(|counters| (now, counters.shortage));
        let Some((since, short)) = before else {
            return [0.0; 4];
        };
        let seconds = now.saturating_sub(since).as_secs_f64();
        Shortage::ALL.map(|cause| short[cause as usize] as f64 * seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counters(shortage: [u64; 4]) -> Counters {
        Counters {
            shortage,
            ..Counters::default()
        }
    }

    #[test]
    fn chunks_times_seconds_are_counted_by_cause_and_unknown_time_is_not() {
        let mut below = BelowFactor::default();
        let mut told = |counters: Option<&Counters>, second| {
            format!("{:?}", below.tick(counters, Duration::from_secs(second)))
        };
        let short = counters([1, 2, 0, 4]);
        assert_eq!(told(Some(&short), 10), "[0.0, 0.0, 0.0, 0.0]");
        assert_eq!(told(Some(&short), 13), "[3.0, 6.0, 0.0, 12.0]");
        assert_eq!(told(None, 14), "[1.0, 2.0, 0.0, 4.0]");
        assert_eq!(told(Some(&short), 99), "[0.0, 0.0, 0.0, 0.0]");
        assert_eq!(told(Some(&short), 99), "[0.0, 0.0, 0.0, 0.0]");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn more_ticks_count_the_same(chunks in 0u64..1_000_000, ticks in prop::collection::vec(0u64..10_000, 1..20)) {
            let short = counters([0, 0, 0, chunks]);
            let mut below = BelowFactor::default();
            below.tick(Some(&short), Duration::ZERO);
            let (mut now, mut sum) = (Duration::ZERO, 0.0);
            for millis in &ticks {
                now += Duration::from_millis(*millis);
                let [_, _, _, absence] = below.tick(Some(&short), now);
                prop_assert!(absence >= 0.0);
                sum += absence;
            }
            let wanted = chunks as f64 * now.as_secs_f64();
            prop_assert!((sum - wanted).abs() <= wanted * 1e-9 + 1e-9, "{sum} {wanted}");
        }
    }
}
