//! The one task that writes. It takes every change that waits, decides them one after the other in
//! one transaction, commits it while the batch travels to the journals, and answers all of them
//! when both are durable. No timer: a batch is what gathered while the batch before was written.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use dfs_runtime::clock::SharedClock;

use super::apply::PAGE_CHUNKS;
use super::batch::write_batch;
use super::catalog::{CatalogConfig, CatalogLimits, blocking};
use super::error::{ApplyRefusal, SubmitError};
use super::journal::JournalMode;
use super::keys;
use super::kv::Engine;
use super::metrics::{CatalogMetrics, kind};
use super::shipper::{ShipError, Shipper, trail};
use crate::model::op::{Op, OpOutcome};

/// Hears what every batch changed, in the catalog's serial order, once it is durable there: before
/// the journals confirm, and whether or not anyone still waits for the answer. What is known beside
/// the catalog is brought up to date here and nowhere else; a client that hangs up, or journals that
/// fail, must not leave the two apart.
pub trait CommitObserver: Debug + Send + Sync {
    /// The changes of one batch and what became of each. Must not block for long.
    fn committed(&self, ops: &[Op], results: &[Result<OpOutcome, ApplyRefusal>]);
}

/// Filled in once the observer is there: it may itself hold the catalog.
pub(super) type Observed = Arc<OnceLock<Weak<dyn CommitObserver>>>;

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) op: Op,
    pub(super) answer: oneshot::Sender<Result<OpOutcome, SubmitError>>,
}

/// What reaches the committer.
#[derive(Debug)]
pub(super) enum Message {
    Change(Submission),
    Confirm(oneshot::Sender<Result<(), SubmitError>>),
    Close,
}

pub(super) struct Committer {
    engine: Arc<dyn Engine>,
    limits: CatalogLimits,
    mode: JournalMode,
    clock: SharedClock,
    metrics: CatalogMetrics,
    shipper: Arc<Shipper>,
    observed: Observed,
    /// The last committed sequence, for the trailing journal.
    committed: watch::Sender<u64>,
}

impl Committer {
    pub(super) fn start(
        engine: Arc<dyn Engine>,
        config: CatalogConfig,
        waiting: mpsc::Receiver<Message>,
        poison: watch::Sender<Option<String>>,
        confirmed: watch::Sender<u64>,
        observed: Observed,
    ) -> JoinHandle<()> {
        let CatalogConfig {
            journal,
            mode,
            clock,
            rng: _,
            limits,
            metrics,
        } = config;
        let shipper = Arc::new(Shipper {
            engine: Arc::clone(&engine),
            journal,
            confirmed,
            poison,
            metrics: metrics.clone(),
        });
        let committed = watch::Sender::new(0);
        match mode {
            JournalMode::Sync => {}
            JournalMode::Async => {
                tokio::spawn(trail(Arc::clone(&shipper), committed.subscribe()));
            }
        }
        let this = Self {
            engine,
            limits,
            mode,
            clock,
            metrics,
            shipper,
            observed,
            committed,
        };
        tokio::spawn(this.run(waiting))
    }

    async fn run(self, mut waiting: mpsc::Receiver<Message>) {
        let mut pending = None;
        loop {
            let message = match pending.take() {
                Some(message) => message,
                None => match waiting.recv().await {
                    Some(message) => message,
                    None => return,
                },
            };
            match message {
                Message::Close => return,
                Message::Confirm(answer) => {
                    let _gave_up = answer.send(self.confirm().await);
                }
                Message::Change(first) => {
                    let batch;
                    (batch, pending) = self.gather(first, &mut waiting);
                    self.commit(batch).await;
                }
            }
        }
    }

    // Everything that waits, within the limits, and the first message that is no change.
    fn gather(
        &self,
        first: Submission,
        waiting: &mut mpsc::Receiver<Message>,
    ) -> (Vec<Submission>, Option<Message>) {
        let mut bytes = weight(&first.op);
        let mut batch = vec![first];
        while batch.len() < self.limits.batch_operations && bytes < self.limits.batch_bytes {
            match waiting.try_recv() {
                Ok(Message::Change(next)) => {
                    bytes += weight(&next.op);
                    batch.push(next);
                }
                Ok(other) => return (batch, Some(other)),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    async fn commit(&self, batch: Vec<Submission>) {
        let started = self.clock.monotonic();
        let (ops, answers): (Vec<Op>, Vec<_>) = batch.into_iter().map(|s| (s.op, s.answer)).unzip();
        let kinds: Vec<&'static str> = ops.iter().map(kind).collect();
        self.metrics.batch_operations.observe(ops.len() as f64);
        let results = match self.refuse_all() {
            Some(refuse) => answers.iter().map(|_| Err(refuse())).collect(),
            None => self.write_and_ship(ops, started).await,
        };
        let seconds = (self.clock.monotonic().saturating_sub(started)).as_secs_f64();
        self.metrics.answer_seconds.observe(seconds);
        for ((answer, kind), result) in answers.into_iter().zip(kinds).zip(results) {
            self.metrics
                .operations
                .with_label_values(&[kind, result_label(&result)])
                .inc();
            let _gave_up = answer.send(result);
        }
    }

    // Reasons to refuse a whole batch unseen.
    fn refuse_all(&self) -> Option<Box<dyn Fn() -> SubmitError + Send>> {
        if let Some(detail) = self.shipper.poison.borrow().clone() {
            return Some(Box::new(move || SubmitError::Poisoned {
                detail: detail.clone(),
            }));
        }
        let lag = self
            .committed
            .borrow()
            .saturating_sub(*self.shipper.confirmed.borrow());
        if self.mode == JournalMode::Async && lag > self.limits.journal_lag {
            self.metrics.queue_full.inc();
            return Some(Box::new(|| SubmitError::Busy));
        }
        None
    }

    async fn write_and_ship(
        &self,
        ops: Vec<Op>,
        started: Duration,
    ) -> Vec<Result<OpOutcome, SubmitError>> {
        let count = ops.len();
        let (ready, record) = oneshot::channel();
        let writing = {
            let engine = Arc::clone(&self.engine);
            let limits = self.limits;
            let confirmed = *self.shipper.confirmed.borrow();
            let (clock, metrics) = (Arc::clone(&self.clock), self.metrics.clone());
            let observed = Arc::clone(&self.observed);
            blocking(move || {
                let written = write_batch(engine.as_ref(), &ops, limits, confirmed, ready)?;
                let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
                metrics.commit_seconds.observe(seconds);
                if let Some(observer) = observed.get().and_then(Weak::upgrade) {
                    observer.committed(&ops, &written.results);
                }
                Ok(written)
            })
        };
        let shipping = async {
            match (self.mode, record.await) {
                (JournalMode::Sync, Ok(record)) => self.shipper.ship(&record).await,
                // Trailing, or nothing was written.
                (JournalMode::Async, Ok(_)) | (_, Err(_)) => Ok(()),
            }
        };
        let (written, mut shipped) = tokio::join!(writing, shipping);
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                self.shipper.poison(&error);
                let detail = error.to_string();
                let poisoned = || SubmitError::Poisoned {
                    detail: detail.clone(),
                };
                return (0..count).map(|_| Err(poisoned())).collect();
            }
        };
        self.committed.send_replace(written.sequence);
        self.shipper.note_lag(written.sequence);
        // A repeated change that finds its own result must not be answered before that result is
        // in the journals, which an earlier batch may have failed to reach.
        if self.mode == JournalMode::Sync
            && shipped.is_ok()
            && written.results.iter().any(Result::is_ok)
        {
            shipped = self.shipper.catch_up(written.sequence, written.fence).await;
        }
        answer_with(written.results, shipped.err().as_ref())
    }

    async fn confirm(&self) -> Result<(), SubmitError> {
        let engine = Arc::clone(&self.engine);
        let (sequence, fence) = blocking(move || {
            let txn = engine.read()?;
            Ok((
                keys::read_sequence(txn.as_ref())?,
                keys::read_fence(txn.as_ref())?,
            ))
        })
        .await
        .map_err(ApplyRefusal::from)?;
        let caught_up = self.shipper.catch_up(sequence, fence).await;
        caught_up.map_err(|error| SubmitError::Unconfirmed {
            detail: error.to_string(),
        })
    }
}

fn answer_with(
    results: Vec<Result<OpOutcome, ApplyRefusal>>,
    unconfirmed: Option<&ShipError>,
) -> Vec<Result<OpOutcome, SubmitError>> {
    let answer = |result: Result<OpOutcome, ApplyRefusal>| match (result, unconfirmed) {
        (Ok(outcome), None) => Ok(outcome),
        (Ok(_), Some(error)) => Err(SubmitError::Unconfirmed {
            detail: error.to_string(),
        }),
        (Err(refusal), _) => Err(SubmitError::Refused(refusal)),
    };
    results.into_iter().map(answer).collect()
}

// Roughly the bytes that a change will add to its batch.
fn weight(op: &Op) -> usize {
    const RECORD: usize = 512;
    const CHUNK: usize = 128;
    let variable = match op {
        Op::Commit { request, .. } => {
            let metadata = request.metadata.iter().map(|(k, v)| k.len() + v.len());
            request.chunks.len() * CHUNK + metadata.sum::<usize>()
        }
        Op::Adopt { file } => file.chunks.len() * CHUNK,
        Op::Purge { ids, .. } => ids.len() * RECORD,
        // A page; one file of more chunks has a batch of its own size.
        Op::SetFactor { path, .. } if path.is_directory() => PAGE_CHUNKS * CHUNK,
        Op::Condemn { chunks, .. } => chunks.len() * CHUNK,
        Op::Forget { chunks } => chunks.len() * CHUNK,
        Op::SetCheckpoints { checkpoints } => {
            checkpoints.iter().map(|c| c.chunks.len() * CHUNK).sum()
        }
        Op::BeginEpoch { .. }
        | Op::Delete { .. }
        | Op::Transfer { .. }
        | Op::SetFactor { .. }
        | Op::Restore { .. }
        | Op::PutDatanode { .. } => 0,
    };
    RECORD + variable
}

fn result_label(result: &Result<OpOutcome, SubmitError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(SubmitError::Refused(refusal)) => refusal.label(),
        Err(SubmitError::Busy) => "busy",
        Err(SubmitError::Unconfirmed { .. }) => "unconfirmed",
        Err(SubmitError::Poisoned { .. }) => "poisoned",
        Err(SubmitError::Closed) => "closed",
    }
}
