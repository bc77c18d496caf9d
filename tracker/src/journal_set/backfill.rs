//! How a datanode that is to keep the journal gets the records that it lacks: batch by batch, each within
//! its own limit, and what one try sent is remembered for the next.

use std::sync::PoisonError;
use std::time::Duration;

use dfs_client::ClientError;
use dfs_protocol::backfill::MAX_RECORDS;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{ErrorCode, Fence};

use super::{Attached, JournalSet, decode_journal_page, unreadable};
use crate::store::{JournalError, Snapshot, StoreError};

/// How long one call of a try may take, beyond what its bytes need, and after how long a loop's turn
/// with one datanode begins no further batch.
const TRY_AGAIN_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes per second of the slowest link over which a try sends.
const SLOWEST_LINK: u32 = 512 * 1024;
/// Records of one backfill at most.
const BACKFILL_RECORDS: usize = 256;
const _: () = assert!(BACKFILL_RECORDS <= MAX_RECORDS, "what a datanode takes");
/// Bytes of one backfill, but for a single record that is longer.
const BACKFILL_BYTES: usize = 4 * 1024 * 1024;
/// Records read from the catalog at a time: what a backfill may hold in memory beyond its bytes.
const READ_RECORDS: usize = 16;

/// How far a member was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shipped {
    /// It has everything.
    All,
    /// The turn was over in the middle: the next one goes on there.
    Part,
}

/// What a datanode takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Backfills.
    Batches,
    /// It is older than backfills, as in the middle of a roll: one record.
    Records,
}

/// How long a sending may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// On the monotonic clock; no batch begins later, but for the first one.
    until: Option<Duration>,
    /// Limit of one call without bytes; else the client's limits alone count.
    patience: Option<Duration>,
}

impl Pace {
    /// A change waits for it: on to the end.
    pub(super) const WHOLE: Self = Self {
        until: None,
        patience: None,
    };

    /// A turn of a loop that comes back to it.
    fn turn(now: Duration) -> Self {
        Self {
            until: Some(now + TRY_AGAIN_PATIENCE),
            patience: None,
        }
    }

    /// A turn with a datanode that lately took nothing.
    fn trial(now: Duration) -> Self {
        Self {
            patience: Some(TRY_AGAIN_PATIENCE),
            ..Self::turn(now)
        }
    }

    fn is_over(self, now: Duration) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// One call that carries `bytes`, within its limit.
    async fn within<T>(
        self,
        at: &DatanodeAddress,
        bytes: usize,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let Some(patience) = self.patience else {
            return call.await;
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let limit = patience + Duration::from_secs(1) * bytes / SLOWEST_LINK;
        let timed = tokio::time::timeout(limit, call).await;
        timed.unwrap_or_else(|_| {
            Err(ClientError::TimedOut {
                address: at.address.clone(),
                seconds: limit.as_secs(),
            })
        })
    }
}

impl JournalSet {
    /// Sends a datanode that was left out what it lacks and, once more, the newest stored record: it is
    /// back once it takes that.
    pub(crate) async fn try_again(&self, at: &DatanodeAddress) {
        let pace = Pace::trial(self.clock.monotonic());
        match self.probe(at, pace).await {
            Ok(Shipped::All) => self.took(at.id),
            Ok(Shipped::Part) => {}
            Err(error) => {
                tracing::debug!(datanode = %at.id, %error, "a datanode still takes no journal records");
                drop(self.judge(at, &error));
            }
        }
    }

    async fn probe(&self, at: &DatanodeAddress, pace: Pace) -> Result<Shipped, ClientError> {
        let Some(Attached { catalog, .. }) = self.attached.get() else {
            return Ok(Shipped::Part);
        };
        let meta = catalog.meta().await;
        let meta = meta.map_err(|error| unreadable_for(at, &error))?;
        if self.ship(at, meta.fence, meta.sequence, None, pace).await? == Shipped::Part {
            return Ok(Shipped::Part);
        }
        // Whatever it already has is sent once more, so that its journal is really asked.
        let newest = self.stored(meta.sequence, 1, at).await?;
        let mut wire = Wire::Batches;
        self.send_batch(at, meta.fence, &newest, &mut wire, pace)
            .await?;
        Ok(Shipped::All)
    }

    /// Brings members up to date when nothing is written: a newly chosen one gets the tail.
    ///
    /// Errors: [`JournalError`] as for an append; the next call goes on where this one ended.
    pub(crate) async fn catch_up(&self) -> Result<(), JournalError> {
        let Some(Attached { catalog, .. }) = self.attached.get() else {
            return Ok(());
        };
        let meta = catalog.meta().await.map_err(|error| unreadable(&error))?;
        let roster = self.roster();
        for at in self.choose(&roster, &[]) {
            let pace = Pace::turn(self.clock.monotonic());
            self.ship(&at, meta.fence, meta.sequence, None, pace)
                .await
                .map_err(|error| self.judge(&at, &error))?;
        }
        Ok(())
    }

    /// Sends everything up to `upto` that the member may lack, as far as `pace` lets it; `newest` is the
    /// record `upto` itself when the catalog does not have it yet.
    pub(super) async fn ship(
        &self,
        at: &DatanodeAddress,
        fence: Fence,
        upto: u64,
        newest: Option<&JournalRecord>,
        pace: Pace,
    ) -> Result<Shipped, ClientError> {
        let known = {
            let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            members.get(&at.id).copied()
        };
        let stored_upto = if newest.is_some() {
            upto.saturating_sub(1)
        } else {
            upto
        };
        let (begin, mut wire) = match known {
            Some(next) => (next, Wire::Batches),
            None => self.first_missing(at, stored_upto, pace).await?,
        };
        if known.is_none() && begin <= stored_upto {
            tracing::info!(
                datanode = %at.id, from = begin, upto = stored_upto,
                "a journal member is sent what it lacks"
            );
        }
        let mut next = begin;
        while next <= stored_upto {
            if next > begin && pace.is_over(self.clock.monotonic()) {
                self.paused.inc();
                return Ok(Shipped::Part);
            }
            let batch = self.batch(next, stored_upto, wire, at).await?;
            let Some(last) = self.send_batch(at, fence, &batch, &mut wire, pace).await? else {
                break;
            };
            next = last + 1;
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.insert(at.id, next);
        }
        if let Some(record) = newest {
            self.datanodes.journal_append(at, record).await?;
        }
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let next = members.entry(at.id).or_default();
        *next = (*next).max(upto + 1);
        drop(members);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.remove(&at.id);
        self.require();
        Ok(Shipped::All)
    }

    /// Sends a batch, or where the datanode takes none the first record of it; gives the last sequence that
    /// was sent. By this tracker, so it is part of its history, whoever wrote it first.
    async fn send_batch(
        &self,
        at: &DatanodeAddress,
        fence: Fence,
        batch: &[JournalRecord],
        wire: &mut Wire,
        pace: Pace,
    ) -> Result<Option<u64>, ClientError> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(None);
        };
        if *wire == Wire::Batches {
            let bytes = batch.iter().map(|record| record.payload.len()).sum();
            let sent = self.datanodes.journal_backfill(at, fence, batch);
            match pace.within(at, bytes, sent).await {
                Err(error) if error.is(ErrorCode::NotFound) => *wire = Wire::Records,
                sent => return sent.map(|()| Some(last.sequence)),
            }
        }
        let record = JournalRecord {
            fence,
            ..first.clone()
        };
        let sent = self.datanodes.journal_append(at, &record);
        pace.within(at, record.payload.len(), sent).await?;
        Ok(Some(record.sequence))
    }

    /// Where to begin with a datanode that this tracker has not written to yet: behind what it holds without
    /// a hole, since records are only ever sent in order, if the last of that is of this history. A datanode
    /// before backfills cannot tell where it has a hole: one that has the last record is taken to have all.
    async fn first_missing(
        &self,
        at: &DatanodeAddress,
        last: u64,
        pace: Pace,
    ) -> Result<(u64, Wire), ClientError> {
        let oldest = self.read(at, oldest_wanted).await?;
        let Some(oldest) = oldest.filter(|oldest| *oldest <= last) else {
            // Nothing is kept here that it could need.
            return Ok((last + 1, Wire::Batches));
        };
        let asked = self.datanodes.journal_gap(at, oldest);
        let (held, wire) = match pace.within(at, 0, asked).await {
            Ok(gap) => (last.min(gap.first_missing.saturating_sub(1)), Wire::Batches),
            Err(error) if error.is(ErrorCode::NotFound) => (last, Wire::Records),
            Err(error) => return Err(error),
        };
        let is_ours = held >= oldest && self.holds_ours(at, held, wire, pace).await?;
        let sent = {
            let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.get(&at.id).copied()
        };
        Ok((first_to_send(oldest, held, is_ours, sent), wire))
    }

    /// Whether what counts there as the record `sequence` is the one that is here.
    async fn holds_ours(
        &self,
        at: &DatanodeAddress,
        sequence: u64,
        wire: Wire,
        pace: Pace,
    ) -> Result<bool, ClientError> {
        let Some(ours) = self.stored(sequence, 1, at).await?.into_iter().next() else {
            return Ok(false);
        };
        let asked = self.datanodes.journal_page(at, sequence);
        let answer = match pace.within(at, 0, asked).await {
            // Older than backfills, it could not tell that it is damaged there.
            Err(error) if wire == Wire::Records && error.is(ErrorCode::DataUnavailable) => {
                return Ok(false);
            }
            answer => answer?,
        };
        let theirs = decode_journal_page(&answer).unwrap_or_default();
        Ok(counts_as(&theirs, &ours))
    }

    /// The next backfill: records from `from` to `upto` at most.
    async fn batch(
        &self,
        from: u64,
        upto: u64,
        wire: Wire,
        at: &DatanodeAddress,
    ) -> Result<Vec<JournalRecord>, ClientError> {
        let most = match wire {
            Wire::Batches => BACKFILL_RECORDS,
            Wire::Records => 1,
        };
        self.read(at, move |snapshot| read_batch(snapshot, from, upto, most))
            .await
    }

    async fn stored(
        &self,
        from: u64,
        most: usize,
        at: &DatanodeAddress,
    ) -> Result<Vec<JournalRecord>, ClientError> {
        self.read(at, move |snapshot| snapshot.journal_records(from, most))
            .await
    }

    /// Reads the catalog for `at`; nothing before there is one.
    async fn read<T: Default + Send + 'static>(
        &self,
        at: &DatanodeAddress,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let Some(Attached { catalog, .. }) = self.attached.get() else {
            return Ok(T::default());
        };
        let read = catalog.read(read).await;
        read.map_err(|error| unreadable_for(at, &error))
    }
}

/// The oldest record here that a journal is to have: what every kept checkpoint covers is trimmed there
/// sooner than here.
fn oldest_wanted(snapshot: &Snapshot<'_>) -> Result<Option<u64>, StoreError> {
    let meta = snapshot.meta()?;
    let checkpoint = meta.checkpoints.first().map_or(0, |oldest| oldest.sequence);
    let kept = snapshot.journal_records(checkpoint.saturating_add(1), 1)?;
    Ok(kept.first().map(|record| record.sequence))
}

/// The first record to send to a datanode that holds `oldest` to `held` without a hole, and that was sent all
/// before `sent` by an earlier try.
pub(super) fn first_to_send(oldest: u64, held: u64, is_ours: bool, sent: Option<u64>) -> u64 {
    if held < oldest {
        return oldest;
    }
    if is_ours {
        return held + 1;
    }
    // Another history: ours goes beside it from the beginning. What it lost again does not count as sent.
    let sent = sent.filter(|sent| *sent <= held);
    sent.map_or(oldest, |sent| sent.max(oldest))
}

/// Whether a rebuild from `theirs` would find `ours` in its place: records of earlier epochs do not count, and of
/// rivals within one epoch none is believed.
pub(super) fn counts_as(theirs: &[JournalRecord], ours: &JournalRecord) -> bool {
    let there = || theirs.iter().filter(|one| one.sequence == ours.sequence);
    let highest = there().map(|one| one.fence.epoch).max();
    highest.is_some_and(|epoch| {
        let mut counting = there().filter(|one| one.fence.epoch == epoch);
        counting.all(|one| one.payload == ours.payload)
    })
}

/// `most` records from `from` to `upto`, and no more bytes than one backfill takes; at least one if there is one.
fn read_batch(
    snapshot: &Snapshot<'_>,
    from: u64,
    upto: u64,
    most: usize,
) -> Result<Vec<JournalRecord>, StoreError> {
    let mut batch: Vec<JournalRecord> = Vec::new();
    let (mut next, mut bytes) = (from, 0);
    while batch.len() < most {
        let room = READ_RECORDS.min(most - batch.len());
        let page = snapshot.journal_records(next, room)?;
        let Some(last) = page.last() else { break };
        next = last.sequence + 1;
        for record in page {
            bytes += record.payload.len();
            let is_full = bytes > BACKFILL_BYTES && !batch.is_empty();
            if is_full || record.sequence > upto {
                return Ok(batch);
            }
            batch.push(record);
        }
    }
    Ok(batch)
}

fn unreadable_for(at: &DatanodeAddress, error: &StoreError) -> ClientError {
    ClientError::Malformed {
        address: at.address.clone(),
        detail: format!("the local journal cannot be read: {error}"),
    }
}
