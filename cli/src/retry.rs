//! Trying again what failed for the moment: bounded, ever more slowly, and never sooner than the
//! server asked for.

use std::time::Duration;

use dfs_client::ClientError;

/// How often and how fast.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub retries: u32,
    /// Pause before the first of them; doubled from one to the next.
    pub first_pause: Duration,
    /// Longest pause, whatever the server asks for.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// For a person or a script that waits: about half a minute in all with six retries.
    pub const fn new(retries: u32) -> Self {
        Self {
            retries,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(15),
        }
    }

    /// The pause before the `done + 1`th retry; none when there is no further one, or when trying
    /// again cannot help.
    pub fn pause(
        &self,
        error: &ClientError,
        done: u32,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        if done >= self.retries || !error.is_transient() {
            return None;
        }
        let doubled = self.first_pause.saturating_mul(1 << done.min(16));
        // Clients that were refused together should not come back together.
        let jittered = doubled.mul_f64(0.5 + rng.f64() / 2.0);
        Some(jittered.max(asked_pause(error)).min(self.longest_pause))
    }
}

/// What the server asked for (`Retry-After`).
fn asked_pause(error: &ClientError) -> Duration {
    match error {
        ClientError::Refused(problem) => {
            Duration::from_secs(u64::from(problem.retry_after.unwrap_or(0)))
        }
        ClientError::NotConnected { .. }
        | ClientError::Unreachable { .. }
        | ClientError::TimedOut { .. }
        | ClientError::BrokenOff { .. }
        | ClientError::Malformed { .. } => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use dfs_protocol::{ErrorCode, Problem};

    use super::*;

    fn refusal(code: ErrorCode, seconds: u32) -> ClientError {
        Problem::new(code, "x").retry_after(seconds).into()
    }

    #[test]
    fn pauses_grow_are_bounded_and_end() {
        let policy = RetryPolicy::new(8);
        let mut rng = fastrand::Rng::with_seed(1);
        let error = refusal(ErrorCode::Unavailable, 0);
        let pauses: Vec<_> = (0..8)
            .map(|done| policy.pause(&error, done, &mut rng).unwrap())
            .collect();
        assert!(pauses[0] <= Duration::from_millis(250));
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1] * 2));
        assert!(pauses.iter().all(|pause| *pause <= policy.longest_pause));
        assert_eq!(policy.pause(&error, 8, &mut rng), None);
    }

    #[test]
    fn the_servers_wish_counts_within_limits_and_final_errors_are_final() {
        let policy = RetryPolicy::new(3);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pause = |error| policy.pause(&error, 0, &mut rng);
        assert_eq!(
            pause(refusal(ErrorCode::TooManyRequests, 7)),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            pause(refusal(ErrorCode::Unavailable, 600)),
            Some(policy.longest_pause)
        );
        assert_eq!(pause(refusal(ErrorCode::NotFound, 1)), None);
    }
}
