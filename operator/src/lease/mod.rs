//! One acting operator: a lease that is renewed, released at a shutdown, and whose loss ends the
//! process. [`Lock`] and [`Clock`] are arguments, so that the rules are tested without either.
//!
//! A holder counts as gone when its record has not changed for the lease's duration by *our*
//! monotonic clock: clocks of two machines are never compared.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_runtime::clock::SharedClock;
use dfs_runtime::shutdown::Shutdown;
use jiff::Timestamp;
use prometheus::IntGauge;

mod kubernetes;
#[cfg(test)]
mod tests;

pub use kubernetes::LeaseLock;

/// How long a holder may be silent.
pub const LEASE: Duration = Duration::from_secs(15);
/// How long the holder tries to renew before it gives up.
pub const RENEW: Duration = Duration::from_secs(10);
/// Time between tries.
pub const RETRY: Duration = Duration::from_secs(2);

/// The lease as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty after a release.
    pub holder: String,
    /// When it was last renewed, by the holder's clock.
    pub renewed: Timestamp,
    /// Since when it is held.
    pub acquired: Timestamp,
    /// How often it changed hands.
    pub transitions: i32,
}

/// A record, and what a write of it must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The record.
    pub record: Record,
    /// The API server's version of it.
    pub version: String,
}

/// Why the lock could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else wrote first.
    #[error("another process wrote the lease first")]
    Raced,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Where the lease is kept.
#[async_trait]
pub trait Lock: Debug + Send + Sync + 'static {
    /// The record, if there is one.
    async fn read(&self) -> Result<Option<Held>, LockError>;
    /// Writes it: `over` names the version that it replaces, none makes a new one.
    async fn write(&self, record: &Record, over: Option<&str>) -> Result<(), LockError>;
}

/// Takes and keeps the lease.
#[derive(Debug)]
pub struct Elector {
    lock: Arc<dyn Lock>,
    clock: SharedClock,
    identity: String,
    gauge: IntGauge,
    /// The last record that was seen, and when it was first seen.
    seen: Option<(Record, Duration)>,
}

impl Elector {
    /// An elector that holds nothing.
    pub fn new(lock: Arc<dyn Lock>, clock: SharedClock, identity: String, gauge: IntGauge) -> Self {
        Self {
            lock,
            clock,
            identity,
            gauge,
            seen: None,
        }
    }

    /// Waits until the lease is ours; false when the shutdown came first.
    pub async fn acquire(&mut self, shutdown: &Shutdown) -> bool {
        loop {
            match self.attempt().await {
                Ok(true) => {
                    self.gauge.set(1);
                    return true;
                }
                Ok(false) | Err(LockError::Raced) => {}
                Err(error) => tracing::warn!(%error, "cannot read or write the lease"),
            }
            tokio::select! {
                () = shutdown.triggered() => return false,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Renews until the shutdown, then returns true; false when the lease is lost: whoever acts
    /// under it must stop at once.
    pub async fn keep(&mut self, shutdown: &Shutdown) -> bool {
        let mut renewed = self.clock.monotonic();
        loop {
            tokio::select! {
                () = shutdown.triggered() => return true,
                () = tokio::time::sleep(RETRY) => {}
            }
            let left = RENEW.saturating_sub(self.clock.monotonic().saturating_sub(renewed));
            match tokio::time::timeout(left.max(Duration::from_millis(1)), self.attempt()).await {
                Ok(Ok(true)) => renewed = self.clock.monotonic(),
                Ok(Ok(false)) => {
                    tracing::error!("another process holds the lease");
                    self.gauge.set(0);
                    return false;
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease"),
                Err(_) => tracing::warn!("renewing the lease took too long"),
            }
            if self.clock.monotonic().saturating_sub(renewed) >= RENEW {
                tracing::error!("the lease could not be renewed in time");
                self.gauge.set(0);
                return false;
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait for it to expire.
    pub async fn release(&mut self) {
        self.gauge.set(0);
        let Ok(Some(held)) = self.lock.read().await else {
            return;
        };
        if held.record.holder != self.identity {
            return;
        }
        let record = Record {
            holder: String::new(),
            renewed: self.clock.wall(),
            ..held.record
        };
        if let Err(error) = self.lock.write(&record, Some(&held.version)).await {
            tracing::warn!(%error, "cannot release the lease; the next operator waits until it expires");
        }
    }

    /// One try to take or renew it.
    async fn attempt(&mut self) -> Result<bool, LockError> {
        let now = self.clock.wall();
        let Some(held) = self.lock.read().await? else {
            let record = Record {
                holder: self.identity.clone(),
                renewed: now,
                acquired: now,
                transitions: 0,
            };
            self.lock.write(&record, None).await?;
            return Ok(true);
        };
        let monotonic = self.clock.monotonic();
        let since = match &self.seen {
            Some((record, since)) if *record == held.record => *since,
            _ => {
                self.seen = Some((held.record.clone(), monotonic));
                monotonic
            }
        };
        let Held { record, version } = held;
        let ours = record.holder == self.identity;
        let free = record.holder.is_empty() || monotonic.saturating_sub(since) >= LEASE;
        if !ours && !free {
            return Ok(false);
        }
        let next = Record {
            holder: self.identity.clone(),
            renewed: now,
            acquired: if ours { record.acquired } else { now },
            transitions: record.transitions.saturating_add(i32::from(!ours)),
        };
        self.lock.write(&next, Some(&version)).await?;
        Ok(true)
    }
}
