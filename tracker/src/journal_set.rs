//! The datanodes that keep the journal: who they are now, and how far each one is.
//!
//! R of them are wanted, as many as replicas of a chunk. A member that fails is replaced by another
//! datanode, which first gets every record since the oldest kept checkpoint, so that "has the
//! newest record" implies "has all that a rebuild needs".

mod append;
mod backfill;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;

use dfs_client::datanode::DatanodeClient;
use dfs_client::silence::SilenceWatch;
use dfs_client::{ClientError, HttpClient};
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{DatanodeId, ErrorCode};
use dfs_runtime::clock::SharedClock;
use prometheus::IntCounter;
use tokio::sync::watch;

use crate::store::{Catalog, JournalError, StoreError};

/// How long a member may fail before it is left out although it is heard: longer than a restart.
const FAILING_PATIENCE: Duration = Duration::from_secs(5);

/// Says who may keep the journal, at the moment of the question: an answer of the last tick would let
/// the first writes of a cluster pass while nobody kept a journal.
pub(crate) trait RosterSource: std::fmt::Debug + Send + Sync {
    /// As the tracker sees it now.
    fn roster(&self) -> Roster;
    /// A datanode that is heard took no record for a while: it is to be left out.
    fn unreachable(&self, id: DatanodeId, detail: &str);
    /// It took one again.
    fn reachable(&self, id: DatanodeId);
}

/// Who may keep the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    /// Live, in service; full ones last, otherwise in a stable order, so that members stay.
    pub candidates: Vec<DatanodeAddress>,
    /// Datanodes in service, heard or not.
    pub in_service: u32,
    /// Wanted members.
    pub factor: u32,
    /// Fewest members that must confirm once datanodes are in service.
    pub min_write: u32,
}

impl Roster {
    /// As many members as replicas of a chunk; fewer only when fewer datanodes are there.
    fn wanted(&self) -> usize {
        (self.factor as usize).min(self.candidates.len())
    }
}

/// What the set learns once the catalog is open.
#[derive(Debug)]
struct Attached {
    /// Where older records come from.
    catalog: Catalog,
    /// The tracker that owns this set.
    roster: Weak<dyn RosterSource>,
}

/// Ships the journal to its members.
#[derive(Debug)]
pub(crate) struct JournalSet {
    datanodes: DatanodeClient,
    silence: SilenceWatch,
    clock: SharedClock,
    attached: OnceLock<Attached>,
    /// Each member and the first sequence that it may lack.
    members: std::sync::Mutex<BTreeMap<DatanodeId, u64>>,
    /// How far those that are not members yet were brought: the first sequence that this tracker did
    /// not send them. What ended in the middle goes on there.
    sent: std::sync::Mutex<BTreeMap<DatanodeId, u64>>,
    /// Since when a datanode takes no record.
    failing: std::sync::Mutex<BTreeMap<DatanodeId, Duration>>,
    /// Set once a member took a record in this tracker's life, or a client's change was let in.
    required: AtomicBool,
    /// Set when the tracker stops: members that fail now are not waited for.
    closing: AtomicBool,
    deposed: watch::Sender<Option<String>>,
    /// Backfills that ended in the middle because their turn was over.
    paused: IntCounter,
}

impl JournalSet {
    /// A set without members; they come from the roster of [`Self::attach`].
    pub(crate) fn new(
        http: HttpClient,
        silence: SilenceWatch,
        clock: SharedClock,
        deposed: watch::Sender<Option<String>>,
        paused: IntCounter,
    ) -> Arc<Self> {
        Arc::new(Self {
            datanodes: DatanodeClient::new(http),
            silence,
            clock,
            attached: OnceLock::new(),
            members: std::sync::Mutex::default(),
            sent: std::sync::Mutex::default(),
            failing: std::sync::Mutex::default(),
            required: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            deposed,
            paused,
        })
    }

    /// Where older records and the roster come from; set once, when the catalog is open.
    pub(crate) fn attach(&self, catalog: Catalog, roster: Weak<dyn RosterSource>) {
        // Only the first one counts: the set belongs to one tracker.
        let _first = self.attached.set(Attached { catalog, roster });
    }

    /// A client's change is let in: from here on nothing is confirmed without members.
    pub(crate) fn require(&self) {
        self.required.store(true, Ordering::Release);
    }

    fn source(&self) -> Option<Arc<dyn RosterSource>> {
        self.attached.get().and_then(|at| at.roster.upgrade())
    }

    fn roster(&self) -> Roster {
        let source = self.source();
        source.map_or_else(Roster::default, |source| source.roster())
    }

    fn took(&self, id: DatanodeId) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.remove(&id).is_none() {
            return;
        }
        drop(failing);
        if let Some(source) = self.source() {
            source.reachable(id);
        }
    }

    /// A member did not take what was sent to it at `sent`: since then, at the latest, it takes nothing.
    fn failed(&self, id: DatanodeId, sent: Duration, detail: &str) {
        let now = self.clock.monotonic();
        let since = {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            *failing.entry(id).or_insert(sent)
        };
        if now.saturating_sub(since) >= FAILING_PATIENCE
            && let Some(source) = self.source()
        {
            source.unreachable(id, detail);
        }
    }

    /// Drops what is remembered of datanodes that are not among `serving` any more.
    pub(crate) fn forget_others(&self, serving: &BTreeSet<DatanodeId>) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|id, _| serving.contains(id));
        drop(sent);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.retain(|id, _| serving.contains(id));
    }

    /// The tracker stops: an append that its members do not confirm at once is given up. Its record
    /// stays in the catalog and is sent after the next start.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Members that are up to date.
    pub(crate) fn members(&self) -> Vec<DatanodeId> {
        self.members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }

    /// The members to write to: those that stand, then others, as many as are wanted; `last` ones,
    /// which failed or are waited for already, only when nobody else is left.
    fn choose(&self, roster: &Roster, last: &[DatanodeId]) -> Vec<DatanodeAddress> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<&DatanodeAddress> = roster.candidates.iter().collect();
        order.sort_by_key(|at| (last.contains(&at.id), !members.contains_key(&at.id)));
        order
            .into_iter()
            .take(roster.factor as usize)
            .cloned()
            .collect()
    }

    fn judge(&self, at: &DatanodeAddress, error: &ClientError) -> JournalError {
        if error.is(ErrorCode::Fenced) {
            let detail = format!("datanode {} obeys a later tracker", at.id);
            self.deposed.send_replace(Some(detail.clone()));
            return JournalError::Deposed { detail };
        }
        self.members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&at.id);
        JournalError::TooFew {
            confirmed: 0,
            wanted: 1,
            detail: error.to_string(),
        }
    }
}

impl JournalSet {
    /// Members are those that confirmed last: anyone else is behind from now on.
    fn keep_only(&self, confirmed: &[DatanodeId]) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|id, _| confirmed.contains(id));
    }

    /// The fewest confirmations whatever is reachable. Before the first datanode was heard, and as
    /// long as no client's change was let in, nothing can be confirmed: the tracker's own records
    /// stay in the catalog and are sent to the first members.
    fn floor(&self, roster: &Roster) -> usize {
        if roster.candidates.is_empty() && !self.required.load(Ordering::Acquire) {
            return 0;
        }
        roster.min_write.min(roster.in_service) as usize
    }
}

fn unreadable(error: &StoreError) -> JournalError {
    JournalError::TooFew {
        confirmed: 0,
        wanted: 1,
        detail: error.to_string(),
    }
}

/// Reads a page of [`DatanodeClient::journal_page`]: entries of postcard, each preceded by its
/// length as u32 little-endian. `None` when the bytes are not that.
pub fn decode_journal_page(mut page: &[u8]) -> Option<Vec<JournalRecord>> {
    let mut records = Vec::new();
    while let Some((length, rest)) = page.split_first_chunk::<4>() {
        let entry = rest.get(..u32::from_le_bytes(*length) as usize)?;
        records.push(postcard::from_bytes(entry).ok()?);
        page = &rest[entry.len()..];
    }
    page.is_empty().then_some(records)
}
