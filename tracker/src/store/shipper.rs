//! The way of records to the journals: in order, without gaps, again after a failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use dfs_protocol::Fence;
use dfs_protocol::datanode::JournalRecord;

use super::catalog::blocking;
use super::error::StoreError;
use super::journal::{JournalError, JournalSink};
use super::keys;
use super::kv::Engine;
use super::metrics::CatalogMetrics;
use super::snapshot::Snapshot;

/// Records read at a time to be sent again.
const RESEND_PAGE: usize = 16;
/// Pause of the trailing journal after a failure.
const TRAIL_PAUSE: Duration = Duration::from_millis(100);

/// Sends records to the journals in order, without gaps.
pub(super) struct Shipper {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) journal: Arc<dyn JournalSink>,
    pub(super) confirmed: watch::Sender<u64>,
    pub(super) poison: watch::Sender<Option<String>>,
    pub(super) metrics: CatalogMetrics,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ShipError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Shipper {
    // Sends the records that are still missing before this one, then this one.
    pub(super) async fn ship(&self, record: &JournalRecord) -> Result<(), ShipError> {
        let before = record.sequence.saturating_sub(1);
        self.catch_up(before, record.fence).await?;
        self.append(record).await
    }

    // Sends committed records up to `sequence` that are still missing.
    pub(super) async fn catch_up(&self, sequence: u64, fence: Fence) -> Result<(), ShipError> {
        loop {
            let from = *self.confirmed.borrow() + 1;
            if from > sequence {
                return Ok(());
            }
            let engine = Arc::clone(&self.engine);
            let page = blocking(move || {
                let txn = engine.read()?;
                Snapshot::new(txn.as_ref()).journal_records(from, RESEND_PAGE)
            })
            .await?;
            if page.first().is_none_or(|first| first.sequence != from) {
                return Err(StoreError::Corrupt {
                    detail: format!("journal record {from} is absent"),
                }
                .into());
            }
            for mut record in page {
                if record.sequence > sequence {
                    return Ok(());
                }
                record.fence = fence;
                self.append(&record).await?;
            }
        }
    }

    async fn append(&self, record: &JournalRecord) -> Result<(), ShipError> {
        match self.journal.append(record).await {
            Ok(()) => {
                self.confirmed.send_replace(record.sequence);
                Ok(())
            }
            Err(error) => {
                self.metrics.journal_failures.inc();
                tracing::warn!(sequence = record.sequence, %error, "append to the journals failed");
                match &error {
                    JournalError::Deposed { .. } => self.stop(&error.to_string()),
                    JournalError::TooFew { .. } => {}
                }
                Err(error.into())
            }
        }
    }

    pub(super) fn note_lag(&self, committed: u64) {
        let lag = committed.saturating_sub(*self.confirmed.borrow());
        self.metrics
            .journal_lag
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.metrics
            .sequence
            .set(i64::try_from(committed).unwrap_or(i64::MAX));
    }

    pub(super) fn poison(&self, error: &StoreError) {
        tracing::error!(%error, "the catalog failed: the tracker must restart");
        self.stop(&error.to_string());
    }

    fn stop(&self, detail: &str) {
        self.metrics.poisoned.set(1);
        self.poison.send_if_modified(|poison| {
            let first = poison.is_none();
            if first {
                *poison = Some(detail.to_owned());
            }
            first
        });
    }
}

// Mode async: the journals follow. Ends with the committer.
pub(super) async fn trail(journals: Arc<Shipper>, mut committed: watch::Receiver<u64>) {
    while committed.changed().await.is_ok() {
        loop {
            let sequence = *committed.borrow_and_update();
            let engine = Arc::clone(&journals.engine);
            let fence = blocking(move || keys::read_fence(engine.read()?.as_ref())).await;
            let shipped = match fence {
                Ok(fence) => journals.catch_up(sequence, fence).await,
                Err(error) => Err(error.into()),
            };
            journals.note_lag(sequence);
            if shipped.is_ok()
                || journals.poison.borrow().is_some()
                || committed.has_changed().is_err()
            {
                break;
            }
            tokio::time::sleep(TRAIL_PAUSE).await;
        }
    }
}
