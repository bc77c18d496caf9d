//! The one task that writes. It takes every change that waits, decides them one after the other in
//! one transaction, commits it while the batch travels to the journals, and answers all of them
//! when both are durable. No timer: a batch is what gathered while the batch before was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use dfs_protocol::Fence;
use dfs_protocol::datanode::JournalRecord;
use dfs_runtime::clock::SharedClock;

use super::apply::{ApplyContext, apply};
use super::catalog::{CatalogConfig, CatalogLimits, blocking};
use super::codec::{BATCH_FORMAT, encode, push_change};
use super::error::{ApplyRefusal, StoreError, SubmitError};
use super::journal::{JournalError, JournalMode, JournalSink};
use super::keys;
use super::kv::{Direction, Engine, Pair, ReadTxn, Room, Span, Table, WriteTxn};
use super::metrics::{CatalogMetrics, kind};
use super::snapshot::Snapshot;
use crate::model::op::{Op, OpOutcome};

/// Old records that one batch trims: more than one, so that trimming catches up.
const TRIM_PER_BATCH: usize = 8;
/// Records read at a time to be sent again.
const RESEND_PAGE: usize = 16;
/// Pause of the trailing journal after a failure.
const TRAIL_PAUSE: Duration = Duration::from_millis(100);

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
        let committer = Self {
            engine,
            limits,
            mode,
            clock,
            metrics,
            shipper,
            committed,
        };
        tokio::spawn(committer.run(waiting))
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
            blocking(move || {
                let written = write_batch(engine.as_ref(), &ops, limits, confirmed, ready);
                let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
                metrics.commit_seconds.observe(seconds);
                written
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

/// What a transaction left.
struct Written {
    results: Vec<Result<OpOutcome, ApplyRefusal>>,
    /// The last committed sequence.
    sequence: u64,
    fence: Fence,
}

fn write_batch(
    engine: &dyn Engine,
    ops: &[Op],
    limits: CatalogLimits,
    confirmed: u64,
    ready: oneshot::Sender<JournalRecord>,
) -> Result<Written, StoreError> {
    let room = engine.room()?;
    let mut ready = Some(ready);
    let mut written = Written {
        results: Vec::with_capacity(ops.len()),
        sequence: 0,
        fence: Fence::default(),
    };
    let outcome = engine.write(&mut |txn| {
        let before = keys::read_sequence(txn)?;
        let context = ApplyContext {
            sequence: before + 1,
            max_move_files: limits.max_move_files,
        };
        let (results, mut recorder) = decide(txn, ops, context, room)?;
        written.results = results;
        written.fence = keys::read_fence(&recorder)?;
        if recorder.changes.is_empty() {
            written.sequence = before;
            return Err(StoreError::Abandoned);
        }
        keys::put(
            &mut recorder,
            Table::Meta,
            keys::SEQUENCE,
            &context.sequence,
        )?;
        let record = JournalRecord {
            fence: written.fence,
            sequence: context.sequence,
            payload: recorder.into_batch(),
        };
        written.sequence = record.sequence;
        keep_record(txn, &record, confirmed)?;
        if let Some(ready) = ready.take() {
            // Mode async does not listen.
            let _unheard = ready.send(record);
        }
        Ok(())
    });
    match outcome {
        Ok(()) | Err(StoreError::Abandoned) => Ok(written),
        Err(StoreError::Full) => {
            written.results = ops.iter().map(|_| Err(ApplyRefusal::Full)).collect();
            Ok(written)
        }
        Err(error) => Err(error),
    }
}

type Decided<'t> = (Vec<Result<OpOutcome, ApplyRefusal>>, Recorder<'t>);

fn decide<'t>(
    txn: &'t mut dyn WriteTxn,
    ops: &[Op],
    context: ApplyContext,
    room: Room,
) -> Result<Decided<'t>, StoreError> {
    let mut recorder = Recorder {
        txn,
        changes: BTreeMap::new(),
    };
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        let result = if room == Room::Ample || !takes_room(op) {
            apply(op, &mut recorder, context)
        } else {
            Err(ApplyRefusal::Full)
        };
        match result {
            Err(ApplyRefusal::Store(error)) => return Err(error),
            decided => results.push(decided),
        }
    }
    Ok((results, recorder))
}

// Keeps the batch for journals that lack it, and drops what neither journals nor checkpoints need.
fn keep_record(
    txn: &mut dyn WriteTxn,
    record: &JournalRecord,
    confirmed: u64,
) -> Result<(), StoreError> {
    txn.put(
        Table::Journal,
        &keys::sequence(record.sequence),
        &encode(record)?,
    )?;
    txn.put(Table::Journal, keys::CONFIRMED, &encode(&confirmed)?)?;
    let Some(oldest) = keys::read_checkpoints(txn)?.first().map(|c| c.sequence) else {
        return Ok(());
    };
    let floor = oldest.min(confirmed);
    let span = Span {
        start: std::ops::Bound::Unbounded,
        end: std::ops::Bound::Included(keys::sequence(floor).to_vec()),
    };
    for (key, _) in txn.range(Table::Journal, &span, Direction::Forward, TRIM_PER_BATCH)? {
        txn.delete(Table::Journal, &key)?;
    }
    Ok(())
}

// Whether a change may have to wait until the volume has room. What frees room, and what decides
// who acts, goes on as long as the ballast lasts.
fn takes_room(op: &Op) -> bool {
    match op {
        Op::Commit { .. } | Op::Transfer { .. } | Op::Restore { .. } | Op::Adopt { .. } => true,
        Op::BeginEpoch { .. }
        | Op::Delete { .. }
        | Op::Purge { .. }
        | Op::Condemn { .. }
        | Op::Forget { .. }
        | Op::PutDatanode { .. }
        | Op::SetCheckpoints { .. } => false,
    }
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
        Op::Condemn { chunks, .. } => chunks.len() * CHUNK,
        Op::Forget { chunks } => chunks.len() * CHUNK,
        Op::SetCheckpoints { checkpoints } => {
            checkpoints.iter().map(|c| c.chunks.len() * CHUNK).sum()
        }
        Op::BeginEpoch { .. }
        | Op::Delete { .. }
        | Op::Transfer { .. }
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

/// Passes writes through and remembers the last value of each key: the batch.
struct Recorder<'t> {
    txn: &'t mut dyn WriteTxn,
    changes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl Recorder<'_> {
    fn into_batch(self) -> Vec<u8> {
        let mut bytes = vec![BATCH_FORMAT];
        for ((table, key), value) in &self.changes {
            push_change(&mut bytes, *table, key, value.as_deref());
        }
        bytes
    }
}

impl ReadTxn for Recorder<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.txn.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.txn.range(table, span, direction, limit)
    }
}

impl WriteTxn for Recorder<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.txn.put(table, key, value)?;
        self.changes
            .insert((table, key.to_vec()), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.txn.delete(table, key)?;
        self.changes.insert((table, key.to_vec()), None);
        Ok(())
    }
}

/// Sends records to the journals in order, without gaps.
struct Shipper {
    engine: Arc<dyn Engine>,
    journal: Arc<dyn JournalSink>,
    confirmed: watch::Sender<u64>,
    poison: watch::Sender<Option<String>>,
    metrics: CatalogMetrics,
}

#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Shipper {
    // Sends the records that are still missing before this one, then this one.
    async fn ship(&self, record: &JournalRecord) -> Result<(), ShipError> {
        let before = record.sequence.saturating_sub(1);
        self.catch_up(before, record.fence).await?;
        self.append(record).await
    }

    // Sends committed records up to `sequence` that are still missing.
    async fn catch_up(&self, sequence: u64, fence: Fence) -> Result<(), ShipError> {
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

    fn note_lag(&self, committed: u64) {
        let lag = committed.saturating_sub(*self.confirmed.borrow());
        self.metrics
            .journal_lag
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.metrics
            .sequence
            .set(i64::try_from(committed).unwrap_or(i64::MAX));
    }

    fn poison(&self, error: &StoreError) {
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
async fn trail(shipper: Arc<Shipper>, mut committed: watch::Receiver<u64>) {
    while committed.changed().await.is_ok() {
        loop {
            let sequence = *committed.borrow_and_update();
            let engine = Arc::clone(&shipper.engine);
            let fence = blocking(move || keys::read_fence(engine.read()?.as_ref())).await;
            let shipped = match fence {
                Ok(fence) => shipper.catch_up(sequence, fence).await,
                Err(error) => Err(error.into()),
            };
            shipper.note_lag(sequence);
            if shipped.is_ok()
                || shipper.poison.borrow().is_some()
                || committed.has_changed().is_err()
            {
                break;
            }
            tokio::time::sleep(TRAIL_PAUSE).await;
        }
    }
}
