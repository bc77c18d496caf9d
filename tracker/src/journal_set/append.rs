//! One record on its way to the members.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use dfs_client::ClientError;
use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::datanode::JournalRecord;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::JournalSet;
use super::backfill::Pace;
use crate::store::{JournalError, JournalSink};

/// How long a change may wait for its journals before its client hears that the outcome is unknown.
const APPEND_DEADLINE: Duration = Duration::from_secs(20);
/// How long a member is waited for before another datanode, if there is one, is sent the record as well.
const MEMBER_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at the roster and at members that failed.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How far a record got.
#[derive(Debug, Default)]
struct Tally {
    /// Durable on these.
    confirmed: Vec<DatanodeId>,
    /// Refused, or not reached.
    failed: Vec<DatanodeId>,
    /// Sent to, not answered yet, and since when.
    open: Vec<(DatanodeId, Duration)>,
    last_error: String,
}

impl Tally {
    /// Those that another datanode is better than: they failed, or let the change wait.
    fn last(&self, now: Duration) -> Vec<DatanodeId> {
        let is_slow = |sent: Duration| now.saturating_sub(sent) >= MEMBER_PATIENCE;
        let slow = self.open.iter().filter(|(_, sent)| is_slow(*sent));
        let slow = slow.map(|(id, _)| *id);
        self.failed.iter().copied().chain(slow).collect()
    }

    fn is_settled(&self, id: DatanodeId) -> bool {
        self.confirmed.contains(&id) || self.open.iter().any(|(open, _)| *open == id)
    }
}

/// The end of one sending.
struct Sent {
    at: DatanodeAddress,
    since: Duration,
    outcome: Result<(), ClientError>,
}

#[async_trait]
impl JournalSink for JournalSet {
    /// Returns when as many members as are wanted have the record. Who is wanted is looked at again
    /// while members are waited for: one that fell silent leaves the roster, and nobody waits for it.
    async fn append(&self, record: &JournalRecord) -> Result<(), JournalError> {
        let deadline = self.clock.monotonic() + APPEND_DEADLINE;
        let mut tally = Tally::default();
        let mut sending = FuturesUnordered::new();
        loop {
            let roster = self.roster();
            let wanted = roster.wanted().max(self.floor(&roster));
            if tally.confirmed.len() >= wanted {
                self.keep_only(&tally.confirmed);
                return Ok(());
            }
            let now = self.clock.monotonic();
            let closing = self.closing.load(Ordering::Acquire);
            let answered = tally.confirmed.len() + tally.failed.len() > 0;
            let tried = answered || roster.candidates.is_empty();
            // A member that is brought up to date, each backfill within its own limit, may take
            // longer than the deadline: broken off, it would begin anew with the next change.
            let over = now >= deadline || (closing && tried);
            if over && sending.is_empty() {
                return Err(JournalError::TooFew {
                    confirmed: u32::try_from(tally.confirmed.len()).unwrap_or(u32::MAX),
                    wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
                    detail: tally.last_error,
                });
            }
            for at in self.choose(&roster, &tally.last(now)) {
                if !tally.is_settled(at.id) {
                    tally.open.push((at.id, now));
                    sending.push(self.send(at, now, record));
                }
            }
            let look = tokio::time::sleep(LOOK_PAUSE);
            let mut look = std::pin::pin!(look);
            while tally.confirmed.len() < wanted {
                tokio::select! {
                    () = &mut look => break,
                    Some(sent) = sending.next(), if !sending.is_empty() => {
                        self.heard(sent, &mut tally)?;
                    }
                }
            }
        }
    }
}

impl JournalSet {
    async fn send(&self, at: DatanodeAddress, since: Duration, record: &JournalRecord) -> Sent {
        let newest = Some(record);
        let shipped = self.ship(&at, record.fence, record.sequence, newest, Pace::WHOLE);
        let outcome = self.silence.unless_silent(&at, shipped).await;
        Sent {
            at,
            since,
            outcome: outcome.map(drop),
        }
    }

    fn heard(&self, sent: Sent, tally: &mut Tally) -> Result<(), JournalError> {
        let Sent { at, since, outcome } = sent;
        tally.open.retain(|(id, _)| *id != at.id);
        let Err(error) = outcome else {
            self.took(at.id);
            tally.confirmed.push(at.id);
            return Ok(());
        };
        tracing::warn!(datanode = %at.id, %error, "a journal member failed");
        self.failed(at.id, since, &error.to_string());
        let judged = self.judge(&at, &error);
        if matches!(judged, JournalError::Deposed { .. }) {
            return Err(judged);
        }
        tally.last_error = judged.to_string();
        if !tally.failed.contains(&at.id) {
            tally.failed.push(at.id);
        }
        Ok(())
    }
}
