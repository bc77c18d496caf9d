//! When to look again.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(5);
/// At most.
const LAST: Duration = Duration::from_mins(5);
/// After a conflict: the object's newer version is on its way already.
const CONFLICT: Duration = Duration::from_secs(1);

/// Doubles with each failure in a row.
pub fn backoff(failures: u32, conflict: bool) -> Duration {
    if conflict && failures <= 3 {
        return CONFLICT;
    }
    let doublings = failures.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LAST)
}

/// Up to a fifth later, so that many clusters are not looked at in step.
pub fn with_jitter(after: Duration, random: u64) -> Duration {
    let fraction = (random % 1024) as f64 / 1024.0;
    after.mul_f64(1.0 + fraction / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_to_five_minutes_and_conflicts_are_tried_at_once() {
        let seconds = |failures| backoff(failures, false).as_secs();
        assert_eq!([1, 2, 3, 4].map(seconds), [5, 10, 20, 40]);
        assert_eq!(backoff(7, false), LAST);
        assert_eq!(backoff(u32::MAX, false), LAST);
        assert_eq!(backoff(1, true), CONFLICT);
        assert!(
            backoff(4, true) > CONFLICT,
            "a conflict that stays is a failure"
        );
    }

    #[test]
    fn jitter_only_ever_delays_and_by_a_fifth_at_most() {
        let base = Duration::from_secs(10);
        for random in [0, 1, 512, 1023, u64::MAX] {
            let jittered = with_jitter(base, random);
            assert!(
                jittered >= base && jittered <= base.mul_f64(1.2),
                "{jittered:?}"
            );
        }
    }
}
