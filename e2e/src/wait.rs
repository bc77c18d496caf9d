//! Waiting for a condition, never for a time.

use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `check` answers `Ok`, and returns what it found.
///
/// # Panics
/// When the deadline has passed, with the last reason.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        match check().await {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= end => {
                panic!("{what}: not within {deadline:?}: {reason}")
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
