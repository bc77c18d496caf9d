//! The handle of the durable catalog: submit changes, read pictures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::{ListRequest, ListResponse};
use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Fence, FilePath, TrashId};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::rng::SharedRng;

use super::codec::{KeyChange, encode, encode_batch, replay};
use super::committer::{CommitObserver, Committer, Message, Observed, Submission};
use super::error::{StoreError, SubmitError};
use super::journal::{JournalMode, JournalSink};
use super::keys::{self, Counters};
use super::kv::{Direction, Engine, Span, Table, WriteTxn};
use super::metrics::CatalogMetrics;
use super::snapshot::{CatalogMeta, Snapshot};
use super::warm::Warmth;
use crate::metrics::whole;
use crate::model::op::{ChunkRecord, DatanodeRecord, Op, OpOutcome};

/// Limits of the catalog. Each one that is met is counted.
#[derive(Debug, Clone, Copy)]
pub struct CatalogLimits {
    /// Changes that may wait; more are refused with 503.
    pub queue: usize,
    /// Changes in one transaction.
    pub batch_operations: usize,
    /// Bytes (estimated) in one transaction.
    pub batch_bytes: usize,
    /// Files that one directory move takes.
    pub max_move_files: u64,
    /// Reads at the same time; more wait.
    pub concurrent_reads: usize,
    /// Unconfirmed records in mode async; beyond, changes are refused with 503.
    pub journal_lag: u64,
}

impl Default for CatalogLimits {
    fn default() -> Self {
        Self {
            queue: 4096,
            batch_operations: 1024,
            batch_bytes: 4 * 1024 * 1024,
            max_move_files: 100_000,
            concurrent_reads: 64,
            journal_lag: 10_000,
        }
    }
}

/// What the catalog works with.
#[derive(Debug)]
pub struct CatalogConfig {
    /// Where records go besides the engine.
    pub journal: Arc<dyn JournalSink>,
    /// Whether answers wait for it.
    pub mode: JournalMode,
    /// For durations in metrics.
    pub clock: SharedClock,
    /// Draws the cluster's id when the catalog is made.
    pub rng: SharedRng,
    /// Limits.
    pub limits: CatalogLimits,
    /// Numbers.
    pub metrics: CatalogMetrics,
}

/// The durable catalog. Clones share it; one task behind it writes.
#[derive(Debug, Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<dyn Engine>,
    submissions: mpsc::Sender<Message>,
    reads: Arc<Semaphore>,
    warmth: Warmth,
    metrics: CatalogMetrics,
    poison: watch::Sender<Option<String>>,
    confirmed: watch::Receiver<u64>,
    observed: Observed,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Catalog {
    /// Opens the catalog in an engine; makes it when the engine is empty. Must run in a tokio
    /// runtime: it starts the committer.
    pub async fn open(engine: Arc<dyn Engine>, config: CatalogConfig) -> Result<Self, StoreError> {
        let cluster = ClusterId::from_u128(config.rng.u128());
        let opening = Arc::clone(&engine);
        let confirmed = blocking(move || create_or_check(opening.as_ref(), cluster)).await?;
        let (submissions, waiting) = mpsc::channel(config.limits.queue.max(1));
        let (confirmed_sender, confirmed) = watch::channel(confirmed);
        let poison = watch::Sender::new(None);
        let reads = Arc::new(Semaphore::new(config.limits.concurrent_reads.max(1)));
        let metrics = config.metrics.clone();
        let warmth = Warmth::new(config.clock.clone());
        let observed = Observed::default();
        let committer = Committer::start(
            Arc::clone(&engine),
            config,
            waiting,
            poison.clone(),
            confirmed_sender,
            Arc::clone(&observed),
        );
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                submissions,
                reads,
                warmth,
                metrics,
                poison,
                confirmed,
                observed,
                committer: Mutex::new(Some(committer)),
            }),
        })
    }

    /// Tells from now on who hears of every change; set once.
    pub fn observe(&self, observer: Weak<dyn CommitObserver>) {
        // Only the first counts: a catalog belongs to one tracker.
        let _first = self.inner.observed.set(observer);
    }

    /// Submits a change. `Ok` means durable in the engine and, in mode sync, in the journals. The
    /// change goes on when the caller gives up waiting.
    pub async fn submit(&self, op: Op) -> Result<OpOutcome, SubmitError> {
        let (answer, outcome) = oneshot::channel();
        self.send(Message::Change(Submission { op, answer }))?;
        outcome.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Sends the journals what they have not confirmed yet: for a loop that runs when datanodes
    /// came back. `Ok` means that nothing is left.
    pub async fn confirm_journal(&self) -> Result<(), SubmitError> {
        let (answer, outcome) = oneshot::channel();
        self.send(Message::Confirm(answer))?;
        outcome.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Finishes what was submitted before and stops the committer; later changes are refused.
    pub async fn close(&self) {
        // A full queue means waiting for room, not giving up.
        let _closed_already = self.inner.submissions.send(Message::Close).await;
        let task = self
            .inner
            .committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            let _panicked = task.await;
        }
    }

    /// Reads one consistent picture on a blocking thread. Take one page, then call again.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The semaphore is never closed.
        let _permit = self.inner.reads.acquire().await;
        let engine = Arc::clone(&self.inner.engine);
        blocking(move || {
            let txn = engine.read()?;
            read(&Snapshot::new(txn.as_ref()))
        })
        .await
    }

    /// The file at a path: every read of a file asks for it, so it is looked for on this thread while the catalog
    /// is in memory.
    pub async fn get_file(&self, path: &FilePath) -> Result<Option<FileRecord>, StoreError> {
        let here = || {
            let txn = self.inner.engine.read()?;
            Snapshot::new(txn.as_ref()).get_file(path)
        };
        if let Some(found) = self.inner.warmth.look(|| caught(here)) {
            return found;
        }
        let path = path.clone();
        self.read(move |snapshot| snapshot.get_file(&path)).await
    }

    /// One page of a listing.
    pub async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        self.read(move |snapshot| snapshot.list(&request)).await
    }

    /// A chunk that something names.
    pub async fn get_chunk(&self, id: ChunkId) -> Result<Option<ChunkRecord>, StoreError> {
        self.read(move |snapshot| snapshot.get_chunk(id)).await
    }

    /// The single values: cluster, fence, sequence, counters, checkpoints.
    // The method itself is not general enough in its lifetime.
    #[allow(clippy::redundant_closure_for_method_calls)]
    pub async fn meta(&self) -> Result<CatalogMeta, StoreError> {
        self.read(|snapshot: &Snapshot<'_>| snapshot.meta()).await
    }

    /// Every datanode that was ever registered.
    pub async fn datanodes(&self) -> Result<Vec<(DatanodeId, DatanodeRecord)>, StoreError> {
        // A method's path is not general enough over the snapshot's lifetime.
        #[allow(clippy::redundant_closure_for_method_calls)]
        self.read(|snapshot| snapshot.datanodes()).await
    }

    /// Brings the numbers that nothing else sets up to date; gives the single values.
    pub async fn publish(&self) -> Result<CatalogMeta, StoreError> {
        let meta = self.meta().await?;
        let engine = self.engine();
        let size = blocking(move || engine.size_bytes()).await?;
        let metrics = &self.inner.metrics;
        metrics.epoch.set(whole(meta.fence.epoch.0));
        metrics.size.set(whole(size));
        Ok(meta)
    }

    /// The engine, for checkpoints and dumps (blocking).
    pub fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.inner.engine)
    }

    /// Set once the engine failed, to what it said: the process must exit and start over (I14).
    pub fn poisoned(&self) -> watch::Receiver<Option<String>> {
        self.inner.poison.subscribe()
    }

    /// Waits until the catalog is poisoned; gives the reason.
    pub async fn until_poisoned(&self) -> String {
        let mut poison = self.poisoned();
        match poison.wait_for(Option::is_some).await {
            Ok(detail) => detail.clone().unwrap_or_default(),
            // The sender lives as long as this handle.
            Err(_) => String::new(),
        }
    }

    /// The last sequence that the journals confirmed.
    pub fn confirmed_sequence(&self) -> u64 {
        *self.inner.confirmed.borrow()
    }

    fn send(&self, message: Message) -> Result<(), SubmitError> {
        if self.inner.poison.borrow().is_some() {
            return Err(self.gone());
        }
        self.inner
            .submissions
            .try_send(message)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    self.inner.metrics.queue_full.inc();
                    SubmitError::Busy
                }
                mpsc::error::TrySendError::Closed(_) => self.gone(),
            })
    }

    fn gone(&self) -> SubmitError {
        match self.inner.poison.borrow().clone() {
            Some(detail) => SubmitError::Poisoned { detail },
            None => SubmitError::Closed,
        }
    }
}

/// A trash id that sorts by time, so that the trash is emptied oldest first by scanning: 48 bits of
/// milliseconds, 80 random bits. Only order depends on the clock, and only roughly.
pub fn new_trash_id(now: Timestamp, rng: &SharedRng) -> TrashId {
    let millis = u128::try_from(now.as_millisecond()).unwrap_or(0) & ((1 << 48) - 1);
    TrashId::from_u128((millis << 80) | (rng.u128() >> 48))
}

/// Runs blocking work; a panic in it is an error of the engine. A runtime that ends takes back what has not begun.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ended(&error)))
}

/// A panic of the engine is its error here as well.
fn caught<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Engine {
            detail: "a look at the catalog panicked".to_owned(),
        })
    })
}

fn ended(error: &JoinError) -> StoreError {
    if error.is_cancelled() {
        return StoreError::Ending;
    }
    StoreError::Engine {
        detail: format!("a task of the catalog ended early: {error}"),
    }
}

// Gives the last sequence that the journals are known to have confirmed.
fn create_or_check(engine: &dyn Engine, new: ClusterId) -> Result<u64, StoreError> {
    let txn = engine.read()?;
    if txn.get(Table::Meta, keys::LOADING)?.is_some() {
        return Err(StoreError::PartlyLoaded);
    }
    if keys::read_cluster(txn.as_ref())?.is_none() {
        for table in Table::ALL {
            if !txn
                .range(table, &Span::all(), Direction::Forward, 1)?
                .is_empty()
            {
                return Err(StoreError::Corrupt {
                    detail: "the cluster id is absent, but there is data".to_owned(),
                });
            }
        }
        drop(txn);
        engine.write(&mut |txn| create(txn, new))?;
        return Ok(0);
    }
    if let Some(bytes) = txn.get(Table::Journal, keys::CONFIRMED)? {
        return super::codec::decode("the confirmed sequence", &bytes);
    }
    // Loaded or rebuilt: what came before the first local record lies elsewhere already.
    let first = Snapshot::new(txn.as_ref()).journal_records(0, 1)?;
    first.first().map_or_else(
        || keys::read_sequence(txn.as_ref()),
        |first| Ok(first.sequence.saturating_sub(1)),
    )
}

// The first batch: a rebuild from the journal alone starts with it.
fn create(txn: &mut dyn WriteTxn, cluster: ClusterId) -> Result<(), StoreError> {
    let put = |key: &[u8], value| KeyChange {
        table: Table::Meta,
        key: key.to_vec(),
        value: Some(value),
    };
    let changes = [
        put(keys::CLUSTER, encode(&cluster)?),
        put(keys::COUNTERS, encode(&Counters::default())?),
        put(keys::SEQUENCE, encode(&1u64)?),
    ];
    replay(&changes, txn)?;
    let record = JournalRecord {
        fence: Fence::default(),
        sequence: 1,
        payload: encode_batch(&changes),
    };
    txn.put(Table::Journal, &keys::sequence(1), &encode(&record)?)?;
    txn.put(Table::Journal, keys::CONFIRMED, &encode(&0u64)?)
}

#[cfg(test)]
mod tests {
    use dfs_protocol::problem::Problem;

    use super::*;

    #[tokio::test]
    async fn work_that_an_ending_process_takes_back_is_to_be_tried_again() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let problem = Problem::from(ended(&task.await.unwrap_err()));
        assert_eq!(problem.status, 503, "{problem}");
    }
}
