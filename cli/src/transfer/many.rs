//! Several files at once: bounded, and with one count at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};
use crate::output::{Output, is_closed_output};

/// What became of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Files that arrived.
    pub done: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that did not.
    pub failed: u64,
    /// Files that were not tried, because the store went away.
    pub skipped: u64,
    /// How the command ends.
    pub exit: Exit,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            done: 0,
            bytes: 0,
            failed: 0,
            skipped: 0,
            exit: Exit::Done,
        }
    }
}

impl Tally {
    /// Counts a failure and tells it.
    pub fn fail(&mut self, out: &Output, failure: &Failure) {
        if is_closed_output(failure) {
            return;
        }
        out.failure(failure);
        self.failed += 1;
        self.exit = self.exit.and(failure.exit);
    }

    /// The sum of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            bytes: self.bytes + other.bytes,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            exit: self.exit.and(other.exit),
        }
    }
}

/// Does `act` for every job, at most `width` at a time; it gives back the bytes that travelled.
/// Failures are told as they happen. Once the store is not available, after the retries of one
/// job, the others are skipped: they would only wait as long each.
pub async fn run_all<J>(
    jobs: mpsc::Receiver<Result<J, Failure>>,
    width: u16,
    out: &Output,
    act: impl AsyncFn(J) -> Result<u64, Failure>,
) -> Tally {
    let tally = Mutex::new(Tally::default());
    let gone = AtomicBool::new(false);
    let jobs = stream::unfold(jobs, |mut jobs| async move {
        let job = jobs.recv().await?;
        Some((job, jobs))
    });
    let work = jobs.for_each_concurrent(usize::from(width), |job| async {
        let skipped = job.is_ok() && gone.load(Ordering::Relaxed);
        let result = match job {
            Ok(_) if skipped => Ok(0),
            Ok(job) => act(job).await,
            Err(failure) => Err(failure),
        };
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) if skipped => tally.skipped += 1,
            Ok(bytes) => {
                tally.done += 1;
                tally.bytes += bytes;
            }
            Err(failure) => {
                tally.fail(out, &failure);
                gone.fetch_or(failure.exit == Exit::Unavailable, Ordering::Relaxed);
            }
        }
    });
    work.await;
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Captured;

    async fn run(
        results: Vec<Result<u64, Failure>>,
        act: impl Fn(u64) -> Result<u64, Failure>,
    ) -> (Tally, Captured) {
        let captured = Captured::default();
        let (sender, receiver) = mpsc::channel(64);
        for result in results {
            sender.send(result).await.unwrap();
        }
        drop(sender);
        let act = async |job| act(job);
        let tally = run_all(receiver, 1, &captured.output(), act).await;
        (tally, captured)
    }

    #[tokio::test]
    async fn failures_are_counted_and_told_and_the_others_go_on() {
        let bad = Failure::new(Exit::NotFound, "get b", "Not found");
        let (tally, captured) = run(vec![Ok(1), Err(bad), Ok(2)], Ok).await;
        assert_eq!((tally.done, tally.bytes, tally.failed), (2, 3, 1));
        assert_eq!(tally.exit, Exit::NotFound);
        assert!(captured.stderr().contains("error: get b: Not found"));
    }

    #[tokio::test]
    async fn once_the_store_is_gone_the_rest_is_skipped() {
        let act = |_| Err(Failure::new(Exit::Unavailable, "put", "cannot reach it"));
        let (tally, captured) = run(vec![Ok(1), Ok(2), Ok(3)], act).await;
        assert_eq!((tally.failed, tally.skipped), (1, 2));
        assert_eq!(captured.stderr().lines().count(), 1);
    }
}
