//! What every read of a chunk has, however its bytes go: a place among the reads, and steps with the disk kept busy.

use std::ops::Range;
use std::sync::Arc;

use dfs_protocol::{ErrorCode, Problem};
use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

use crate::context::Context;
use crate::store::{Block, StoreError};

/// Blocks that are read, or sent, at once: 1 MiB.
pub(crate) const STEP: u64 = 16;
/// What reading them gave.
pub(crate) type Step = Result<Vec<Block>, StoreError>;
/// Blocks that the disk is asked for beyond those being read: 4 MiB, so that a cold disk is never idle.
const AHEAD: u64 = 64;

/// A place among the reads, until the last byte is sent.
#[derive(Debug)]
pub(crate) struct Place {
    reads: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Refused when too many chunks are being read.
    pub(crate) fn take(ctx: &Context) -> Result<Self, Problem> {
        let permit = Arc::clone(&ctx.reads).try_acquire_owned().map_err(|_| {
            ctx.metrics.refused_busy.inc();
            Problem::new(ErrorCode::Unavailable, "too many chunks are being read")
                .next("read another replica, or try again")
        })?;
        let reads = ctx.metrics.reads.clone();
        reads.inc();
        Ok(Self {
            reads,
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reads.dec();
    }
}

/// Follows a read through its blocks.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Blocks before this one were asked for.
    asked: u64,
    /// After the last one that is wanted.
    end: u64,
}

impl Ahead {
    pub(crate) fn new(end: u64) -> Self {
        Self { asked: 0, end }
    }

    /// What to ask the disk for while the blocks before `next` are read; each block once.
    pub(crate) fn beyond(&mut self, next: u64) -> Range<u64> {
        let from = self.asked.max(next);
        let to = next.saturating_add(AHEAD).min(self.end).max(from);
        self.asked = to;
        from..to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_behind_the_first_step_is_asked_for_once() {
        for (end, step) in (0..200).flat_map(|end| [1, 3, 16, 39, 64].map(|step| (end, step))) {
            let mut ahead = Ahead::new(end);
            let (mut next, mut asked) = (0, Vec::new());
            while next < end {
                next = (next + step).min(end);
                let beyond = ahead.beyond(next);
                assert!(beyond.end <= next + AHEAD, "{end} {step}");
                asked.extend(beyond);
            }
            let wanted: Vec<u64> = (step.min(end)..end).collect();
            assert_eq!(asked, wanted, "{end} {step}");
        }
    }
}
