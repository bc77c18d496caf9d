//! A disk that refuses writes and fails no fsync: an I/O error, a file system gone read-only. The
//! datanode says that it takes no chunks until a trial write succeeds, so that writers go elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time from the first refused write to the first trial.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest time between trials.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A disk that refuses again within this is tried less and less often.
const CALM: Duration = Duration::from_mins(10);

/// Whether the disk refuses writes. Times are monotonic.
#[derive(Debug, Default)]
pub struct Refusal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When to try next, while writes are refused.
    trial: Option<Duration>,
    pause: Duration,
    recovered: Option<Duration>,
}

impl Refusal {
    /// A write failed. True when writes were not known to be refused.
    pub fn note(&self, now: Duration) -> bool {
        let mut state = self.lock();
        if state.trial.is_some() {
            return false;
        }
        let lately = state
            .recovered
            .is_some_and(|at| now.saturating_sub(at) < CALM);
        state.pause = if lately {
            longer(state.pause)
        } else {
            FIRST_PAUSE
        };
        state.trial = Some(now + state.pause);
        true
    }

    /// Whether no chunk should be written here.
    pub fn stands(&self) -> bool {
        self.lock().trial.is_some()
    }

    /// Whether a trial write is due.
    pub fn is_due(&self, now: Duration) -> bool {
        self.lock().trial.is_some_and(|at| now >= at)
    }

    /// A trial ended.
    pub fn tried(&self, succeeded: bool, now: Duration) {
        let mut state = self.lock();
        if succeeded {
            state.trial = None;
            state.recovered = Some(now);
        } else {
            state.pause = longer(state.pause);
            state.trial = Some(now + state.pause);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn fault_12_a_refused_write_stands_until_a_trial_succeeds() {
        let refusal = Refusal::default();
        assert!(!refusal.stands() && !refusal.is_due(SECOND));
        assert!(refusal.note(10 * SECOND));
        assert!(!refusal.note(10 * SECOND), "known already");
        assert!(refusal.stands() && !refusal.is_due(10 * SECOND));
        assert!(refusal.is_due(11 * SECOND));
        refusal.tried(false, 11 * SECOND);
        assert!(refusal.stands() && !refusal.is_due(12 * SECOND));
        assert!(refusal.is_due(13 * SECOND));
        refusal.tried(true, 13 * SECOND);
        assert!(!refusal.stands() && !refusal.is_due(1000 * SECOND));
    }

    #[test]
    fn a_disk_that_refuses_again_and_again_is_tried_less_often_up_to_a_limit() {
        let refusal = Refusal::default();
        let mut now = SECOND;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            refusal.note(now);
            let begin = now;
            while !refusal.is_due(now) {
                now += SECOND;
            }
            pauses.push(now.saturating_sub(begin).as_secs());
            refusal.tried(true, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        now += CALM;
        refusal.note(now);
        assert!(refusal.is_due(now + FIRST_PAUSE), "that is forgotten");
    }
}
