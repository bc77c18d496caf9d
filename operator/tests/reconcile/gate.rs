//! Counts every call that leaves the operator, and stops the operator dead after a number of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// Clones share the count.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    left: AtomicI64,
    /// Calls that change nothing are not counted.
    effects_only: AtomicBool,
    crashed: Notify,
}

impl Gate {
    pub fn open() -> Self {
        Self(Arc::new(Inner {
            left: AtomicI64::new(i64::MAX),
            effects_only: AtomicBool::new(false),
            crashed: Notify::new(),
        }))
    }

    /// Lets `calls` more through; the one after never comes back.
    pub fn crash_after(&self, calls: u64) {
        self.0
            .left
            .store(i64::try_from(calls).unwrap(), Ordering::SeqCst);
    }

    /// As [`Self::crash_after`], counting only calls that change something: to die between two reads is
    /// to die after the last change.
    pub fn crash_after_effects(&self, calls: u64) {
        self.0.effects_only.store(true, Ordering::SeqCst);
        self.crash_after(calls);
    }

    pub fn reopen(&self) {
        self.0.left.store(i64::MAX, Ordering::SeqCst);
    }

    pub async fn pass(&self, has_effect: bool) {
        if !has_effect && self.0.effects_only.load(Ordering::SeqCst) {
            return;
        }
        if self.0.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.0.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub async fn crashed(&self) {
        self.0.crashed.notified().await;
    }
}
