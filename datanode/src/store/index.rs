//! The sealed replicas of this datanode in memory, with what changed since the tracker last heard.
//! The disk is the truth; this is what the start-up scan and every seal and removal made of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_protocol::chunk::{ChunkKind, Replica, SealedChunk, SetDigest};
use dfs_protocol::datanode::CorruptReplica;
use dfs_protocol::{ChunkId, ChunkVersion};
use tokio::sync::Notify;

use super::ChunkRead;
use super::kept::Kept;

/// Changes kept for the next heartbeat. Beyond it the log is dropped and a full report follows.
const MAX_CHANGES: usize = 20_000;
/// Corrupt replicas kept for the next heartbeat. Beyond it only the digest tells.
const MAX_CORRUPT: usize = 10_000;

/// Names one replica on this datanode.
pub type ReplicaKey = (ChunkId, ChunkVersion);

/// Seconds of the process's monotonic clock; negative before its start.
pub type MonotonicSeconds = i64;

/// The set of sealed replicas.
#[derive(Debug, Default)]
pub struct ReplicaIndex {
    state: Mutex<State>,
    urgent: Notify,
}

#[derive(Debug, Default)]
struct State {
    replicas: BTreeMap<ReplicaKey, Entry>,
    digest: SetDigest,
    bytes: u64,
    /// The set that the tracker has after the last answered message.
    base: SetDigest,
    log: VecDeque<Change>,
    /// Position of the log's first change since start.
    log_start: u64,
    corrupt: VecDeque<CorruptReplica>,
    corrupt_start: u64,
    kept: Kept,
    /// Replicas taken out since start.
    taken: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    length: u64,
    crc32c: u32,
    kind: ChunkKind,
    verified: Option<MonotonicSeconds>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Added(Replica),
    Removed(SealedChunk),
}

/// What a heartbeat says of the replica set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The set that the last answered message left the tracker with.
    pub base: SetDigest,
    /// Sealed since then.
    pub added: Vec<Replica>,
    /// Gone since then.
    pub removed: Vec<SealedChunk>,
    /// The set after both.
    pub digest: SetDigest,
    /// Set aside since then.
    pub corrupt: Vec<CorruptReplica>,
    /// For [`ReplicaIndex::confirm`].
    pub mark: Mark,
}

/// How far a message reached in the change log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    changes: u64,
    corrupt: u64,
    digest: SetDigest,
}

impl ReplicaIndex {
    /// The index of a scanned volume. Nothing counts as reported; the first heartbeat's digest
    /// makes the tracker ask for a full report when it does not know the set.
    pub fn new(replicas: impl IntoIterator<Item = Replica>, corrupt: Vec<CorruptReplica>) -> Self {
        let mut state = State::default();
        for replica in replicas {
            state.put(&replica, None);
        }
        state.base = state.digest;
        state.corrupt = corrupt.into();
        state.corrupt.truncate(MAX_CORRUPT);
        Self {
            state: Mutex::new(state),
            urgent: Notify::new(),
        }
    }

    /// Adds a sealed replica; seen as verified at `now`.
    pub fn insert(&self, replica: &Replica, now: MonotonicSeconds) {
        let mut state = self.lock();
        let (old, open) = state.take(key(&replica.chunk));
        if let Some(old) = old {
            state.record(Change::Removed(old.chunk));
        }
        state.put(replica, Some(now));
        state.record(Change::Added(*replica));
        drop(state);
        drop(open);
    }

    /// Takes a replica out.
    pub fn remove(&self, key: ReplicaKey) -> Option<Replica> {
        let mut state = self.lock();
        let (replica, open) = state.take(key);
        let replica = replica?;
        state.record(Change::Removed(replica.chunk));
        drop(state);
        // Closing it gives the room back, which takes time.
        drop(open);
        Some(replica)
    }

    /// Takes a damaged replica out and notes it for the next heartbeat, which goes at once.
    pub fn remove_corrupt(&self, corrupt: CorruptReplica) -> Option<Replica> {
        let removed = self.remove((corrupt.chunk, corrupt.version));
        let mut state = self.lock();
        if removed.is_some() && state.corrupt.len() < MAX_CORRUPT {
            state.corrupt.push_back(corrupt);
        }
        drop(state);
        self.hurry();
        removed
    }

    /// Takes everything out: the datanode becomes a newcomer.
    pub fn clear(&self) {
        let mut state = self.lock();
        let taken = state.taken + 1;
        let before = std::mem::take(&mut *state);
        state.taken = taken;
        drop(state);
        drop(before);
    }

    /// A replica that [`Self::keep`] was given and that is still one.
    pub fn kept(&self, key: ReplicaKey, now: MonotonicSeconds) -> Option<Arc<dyn ChunkRead>> {
        self.lock().kept.get(key, now)
    }

    /// How many are kept open.
    pub fn kept_count(&self) -> usize {
        self.lock().kept.count()
    }

    /// Replicas taken out since start: for [`Self::keep`].
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Keeps an open replica for the next reads, unless any was taken out since `taken`: it may have been this one, and
    /// another file may have its name now.
    pub fn keep(
        &self,
        key: ReplicaKey,
        reader: Arc<dyn ChunkRead>,
        taken: u64,
        now: MonotonicSeconds,
    ) {
        let mut state = self.lock();
        if state.taken == taken {
            let gone = state.kept.put(key, reader, now);
            drop(state);
            drop(gone);
        }
    }

    /// One replica.
    pub fn get(&self, key: ReplicaKey) -> Option<Replica> {
        self.lock().replicas.get(&key).map(|e| e.replica(key))
    }

    /// Every version held of one chunk, oldest first.
    pub fn versions(&self, id: ChunkId) -> Vec<Replica> {
        let range = (id, ChunkVersion(0))..=(id, ChunkVersion(u32::MAX));
        let state = self.lock();
        let found = state.replicas.range(range);
        found.map(|(key, entry)| entry.replica(*key)).collect()
    }

    /// Keys of every replica of a kind.
    pub fn keys(&self, kind: Option<ChunkKind>) -> Vec<ReplicaKey> {
        let state = self.lock();
        let wanted = state.replicas.iter();
        wanted
            .filter(|(_, entry)| kind.is_none_or(|kind| kind == entry.kind))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Replicas and the bytes of their chunks.
    pub fn totals(&self) -> (u64, u64) {
        let state = self.lock();
        (state.digest.count, state.bytes)
    }

    /// What the next heartbeat says.
    pub fn delta(&self) -> Delta {
        let state = self.lock();
        let mut net: BTreeMap<ReplicaKey, (Option<SealedChunk>, Option<Replica>)> = BTreeMap::new();
        for change in &state.log {
            match change {
                Change::Added(replica) => {
                    net.entry(key(&replica.chunk)).or_default().1 = Some(*replica);
                }
                Change::Removed(chunk) => {
                    let entry = net.entry(key(chunk)).or_default();
                    // What came and went between two heartbeats was never known.
                    if entry.1.take().is_none() {
                        entry.0 = Some(*chunk);
                    }
                }
            }
        }
        Delta {
            base: state.base,
            added: net.values().filter_map(|(_, added)| *added).collect(),
            removed: net.values().filter_map(|(removed, _)| *removed).collect(),
            digest: state.digest,
            corrupt: state.corrupt.iter().copied().collect(),
            mark: state.mark(),
        }
    }

    /// Every replica, for a full report.
    pub fn report(&self) -> (Vec<Replica>, Mark) {
        let state = self.lock();
        let replicas = state.replicas.iter().map(|(key, e)| e.replica(*key));
        (replicas.collect(), state.mark())
    }

    /// The tracker answered a message made at `mark`: what it said need not be said again. A
    /// heartbeat tells of corrupt replicas, a full report does not.
    pub fn confirm(&self, mark: Mark, told_corrupt: bool) {
        let mut state = self.lock();
        while state.log_start < mark.changes && state.log.pop_front().is_some() {
            state.log_start += 1;
        }
        while told_corrupt
            && state.corrupt_start < mark.corrupt
            && state.corrupt.pop_front().is_some()
        {
            state.corrupt_start += 1;
        }
        // Of a message made before the log was dropped nothing follows: a full report will.
        if mark.changes >= state.log_start {
            state.base = mark.digest;
        }
    }

    /// Marks a replica as verified.
    pub fn verified(&self, key: ReplicaKey, at: MonotonicSeconds) {
        if let Some(entry) = self.lock().replicas.get_mut(&key) {
            entry.verified = Some(at);
        }
    }

    /// Every replica with the time of its last verification, longest ago first; never verified
    /// ones before all.
    pub fn by_verification(&self) -> Vec<(ReplicaKey, Option<MonotonicSeconds>)> {
        let state = self.lock();
        let mut all: Vec<_> = state
            .replicas
            .iter()
            .map(|(key, entry)| (*key, entry.verified))
            .collect();
        drop(state);
        all.sort_by_key(|(key, verified)| (*verified, *key));
        all
    }

    /// Asks for a heartbeat now.
    pub fn hurry(&self) {
        self.urgent.notify_one();
    }

    /// Waits until a heartbeat is asked for.
    pub async fn hurried(&self) {
        self.urgent.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, replica: &Replica, verified: Option<MonotonicSeconds>) {
        let Replica { chunk, kind } = *replica;
        self.digest.insert(&chunk);
        self.bytes += chunk.length;
        self.replicas.insert(
            key(&chunk),
            Entry {
                length: chunk.length,
                crc32c: chunk.crc32c,
                kind,
                verified,
            },
        );
    }

    /// The replica, and what was open of it.
    fn take(&mut self, key: ReplicaKey) -> (Option<Replica>, Option<Arc<dyn ChunkRead>>) {
        let Some(entry) = self.replicas.remove(&key) else {
            return (None, None);
        };
        let replica = entry.replica(key);
        self.digest.remove(&replica.chunk);
        self.bytes = self.bytes.saturating_sub(replica.chunk.length);
        self.taken += 1;
        (Some(replica), self.kept.take(key))
    }

    fn record(&mut self, change: Change) {
        if self.log.len() >= MAX_CHANGES {
            self.log_start += self.log.len() as u64 + 1;
            self.log.clear();
            // Not what the tracker has: it will ask for everything.
            self.base = self.digest;
            return;
        }
        self.log.push_back(change);
    }

    fn mark(&self) -> Mark {
        Mark {
            changes: self.log_start + self.log.len() as u64,
            corrupt: self.corrupt_start + self.corrupt.len() as u64,
            digest: self.digest,
        }
    }
}

impl Entry {
    fn replica(&self, (id, version): ReplicaKey) -> Replica {
        Replica {
            chunk: SealedChunk {
                id,
                version,
                length: self.length,
                crc32c: self.crc32c,
            },
            kind: self.kind,
        }
    }
}

/// The name of a replica of a chunk.
pub(super) fn key(chunk: &SealedChunk) -> ReplicaKey {
    (chunk.id, chunk.version)
}

#[cfg(test)]
mod tests {
    use dfs_protocol::datanode::Damage;

    use super::*;

    fn replica(id: u128) -> Replica {
        Replica {
            chunk: SealedChunk {
                id: ChunkId::from_u128(id),
                version: ChunkVersion(1),
                length: 10,
                crc32c: 3,
            },
            kind: ChunkKind::Data,
        }
    }

    /// Base, added and removed of a delta must always give its digest.
    fn check(delta: &Delta) {
        let mut digest = delta.base;
        for chunk in &delta.removed {
            digest.remove(chunk);
        }
        for replica in &delta.added {
            digest.insert(&replica.chunk);
        }
        assert_eq!(digest, delta.digest);
    }

    #[test]
    fn a_delta_nets_changes_and_a_confirmed_one_is_not_repeated() {
        let index = ReplicaIndex::new([replica(1)], vec![]);
        index.insert(&replica(2), 0);
        index.insert(&replica(3), 0);
        index.remove((ChunkId::from_u128(3), ChunkVersion(1)));
        index.remove((ChunkId::from_u128(1), ChunkVersion(1)));
        let delta = index.delta();
        check(&delta);
        assert_eq!(delta.added, [replica(2)]);
        assert_eq!(delta.removed, [replica(1).chunk]);
        index.insert(&replica(4), 0);
        index.confirm(delta.mark, true);
        let next = index.delta();
        check(&next);
        assert_eq!(next.base, delta.digest);
        assert_eq!(next.added, [replica(4)]);
        assert!(next.removed.is_empty());
    }

    #[test]
    fn a_replica_that_goes_and_comes_back_adds_up() {
        let index = ReplicaIndex::new([replica(1)], vec![]);
        index.remove((ChunkId::from_u128(1), ChunkVersion(1)));
        index.insert(&replica(1), 0);
        check(&index.delta());
        index.insert(&replica(1), 0);
        check(&index.delta());
    }

    #[test]
    fn a_log_over_its_limit_ends_in_a_base_that_the_tracker_does_not_have() {
        let index = ReplicaIndex::new([], vec![]);
        let before = index.delta();
        for id in 0..=MAX_CHANGES as u128 {
            index.insert(&replica(id), 0);
        }
        index.confirm(before.mark, true);
        index.insert(&replica(1 << 90), 0);
        let delta = index.delta();
        assert!(delta.added.len() < 3);
        assert_ne!(delta.base, SetDigest::default());
    }

    #[test]
    fn corruption_is_told_until_a_heartbeat_is_answered() {
        let index = ReplicaIndex::new([replica(1)], vec![]);
        let corrupt = CorruptReplica {
            chunk: ChunkId::from_u128(1),
            version: ChunkVersion(1),
            damage: Damage::Block,
        };
        assert!(index.remove_corrupt(corrupt).is_some());
        let (replicas, mark) = index.report();
        assert!(replicas.is_empty());
        index.confirm(mark, false);
        let delta = index.delta();
        assert_eq!(delta.corrupt, [corrupt]);
        index.confirm(delta.mark, true);
        assert!(index.delta().corrupt.is_empty());
    }
}
