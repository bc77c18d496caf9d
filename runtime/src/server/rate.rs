//! When a peer is too slow. Time is passed in; only [`Alarm`] touches the runtime's timer, because
//! a connection must be woken when nothing else happens on it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::limits::RateLimit;

/// What [`RateMeter::waiting`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fine until this much more waiting.
    Within(Duration),
    /// Too few bytes in a whole window of waiting.
    TooSlow,
}

/// Sums the time in which we wait for a peer, and the bytes that moved meanwhile.
#[derive(Debug)]
pub(super) struct RateMeter {
    limit: RateLimit,
    waited: Duration,
    bytes: u64,
    waiting_since: Option<Instant>,
}

impl RateMeter {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            bytes: 0,
            waiting_since: None,
        }
    }

    /// Another message begins.
    pub(super) fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
        self.waiting_since = None;
    }

    /// The peer gets another chance now; the time since [`Self::waiting`] counts.
    pub(super) fn resume(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// Bytes moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Nothing moves at this moment: the peer is judged and, if it may go on, watched.
    pub(super) fn waiting(&mut self, now: Instant) -> Verdict {
        if self.waited >= self.limit.window {
            if self.bytes < self.limit.bytes {
                return Verdict::TooSlow;
            }
            self.waited = Duration::ZERO;
            self.bytes = 0;
        }
        self.waiting_since = Some(now);
        Verdict::Within(self.limit.window.saturating_sub(self.waited))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }
}

/// Wakes the connection's task at a moment. Made when first needed.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at or after `deadline`; otherwise the task is woken then, or earlier.
    pub(super) fn poll_at(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            // An earlier moment is kept: it costs one wake-up, moving the timer costs more.
            if sleep.is_elapsed() || deadline < sleep.deadline() {
                if Instant::now() >= deadline {
                    return Poll::Ready(());
                }
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn meter() -> RateMeter {
        RateMeter::new(RateLimit::per_second(1024, WINDOW))
    }

    #[test]
    fn a_trickle_is_too_slow_after_one_window_of_waiting() {
        let start = Instant::now();
        let mut meter = meter();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            meter.resume(now);
            meter.moved(1);
            assert!(matches!(meter.waiting(now), Verdict::Within(_)), "{second}");
        }
        let now = start + WINDOW;
        meter.resume(now);
        assert_eq!(meter.waiting(now), Verdict::TooSlow);
    }

    #[test]
    fn enough_bytes_start_the_next_window() {
        let start = Instant::now();
        let mut meter = meter();
        assert_eq!(meter.waiting(start), Verdict::Within(WINDOW));
        meter.resume(start + WINDOW);
        meter.moved(30 * 1024);
        assert_eq!(meter.waiting(start + WINDOW), Verdict::Within(WINDOW));
        meter.resume(start + WINDOW * 2);
        assert_eq!(meter.waiting(start + WINDOW * 2), Verdict::TooSlow);
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_peer_does_not_count() {
        let start = Instant::now();
        let mut meter = meter();
        meter.waiting(start);
        meter.resume(start + Duration::from_secs(1));
        meter.moved(1);
        // The handler is busy for an hour.
        let later = start + Duration::from_hours(1);
        meter.resume(later);
        let left = Duration::from_secs(29);
        assert_eq!(meter.waiting(later), Verdict::Within(left));
    }
}
