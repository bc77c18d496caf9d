//! What changes the replica map: the catalog, the datanodes' messages, liveness.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_protocol::chunk::{Replica, SealedChunk, SetDigest};
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Shortage;
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};

use super::super::health::{HolderView, SpreadRule};
use super::slot::Mark;
use super::{BitSet, Expected, ReplicaMap, Slot, Unknown};

impl ReplicaMap {
    /// Tells what the catalog expects: at start for every chunk, later when a factor changes.
    /// Replicas that were reported before count from now on.
    pub fn load_chunk(&mut self, expected: Expected) {
        let Expected {
            chunk,
            factor,
            kind,
        } = expected;
        if let Some(at) = self.slot_of(chunk.id) {
            self.expect_anew(at, expected);
            return;
        }
        let slot = Slot::new(&chunk, factor, kind);
        let at = if let Some(at) = self.vacant.pop() {
            self.slots[at as usize] = slot;
            at
        } else if let Ok(at) = u32::try_from(self.slots.len()) {
            self.slots.push(slot);
            at
        } else {
            return;
        };
        self.index.insert(&self.slots, at);
        self.count_slot(at);
        for (node, sealed) in self.take_unknown(chunk.id) {
            self.attach(at, node, sealed);
        }
        self.reassess(at);
    }

    /// A commit made the chunk part of the catalog. Its writers' datanodes fsynced it: they are
    /// read from at once, and must report it before [`expire_promises`](Self::expire_promises).
    pub fn commit_chunk(&mut self, expected: Expected, holders: &[DatanodeId], now: Duration) {
        self.load_chunk(expected);
        let Some(at) = self.slot_of(expected.chunk.id) else {
            return;
        };
        for id in holders {
            let Some(node) = self.intern(*id) else {
                continue;
            };
            if self.node_mut(node).slots.insert(at) {
                self.slot_mut(at).nodes.push(node);
                self.promised.insert((at, node), now);
            }
        }
        self.reassess(at);
    }

    /// Drops promises that no report confirmed within `patience`; returns how many. A datanode that is not heard cannot
    /// keep its promise: when it is back it has a third of the patience at least, ten heartbeats (fault 22).
    pub fn expire_promises(&mut self, patience: Duration, now: Duration) -> usize {
        let grace = now.saturating_sub(patience).saturating_add(patience / 3);
        for ((_, node), since) in &mut self.promised {
            if !self.nodes[usize::from(*node)].view.live {
                *since = grace.max(*since);
            }
        }
        let late: Vec<(u32, u16)> = self
            .promised
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= patience)
            .map(|(key, _)| *key)
            .collect();
        for (at, node) in &late {
            self.detach(*at, *node);
            self.reassess(*at);
        }
        late.len()
    }

    /// The catalog names the chunk no longer: what was reported of it waits for gc.
    pub fn forget_chunk(&mut self, chunk: ChunkId, now: Duration) {
        let Some(at) = self.index.remove(&self.slots, chunk) else {
            return;
        };
        self.uncount_slot(at);
        self.short.note(at, None);
        let kind = self.slot(at).kind();
        let mut replicas = Vec::new();
        for node in self.slot(at).nodes.as_slice().to_vec() {
            for sealed in self.versions(at, node) {
                replicas.push((node, sealed));
                self.node_mut(node).unknown.insert(chunk);
            }
            self.node_mut(node).slots.remove(at);
            self.irregular.remove(&(at, node));
            self.further.remove(&(at, node));
            self.promised.remove(&(at, node));
        }
        for node in self.damaged_of(at) {
            self.damaged.remove(&(at, node));
        }
        self.slot_mut(at).vacate();
        self.vacant.push(at);
        if !replicas.is_empty() {
            self.unknown.insert(
                chunk,
                Unknown {
                    kind,
                    first_seen: now,
                    replicas,
                },
            );
        }
    }

    /// Takes in what a heartbeat says. Sending the same again is harmless. Returns whether the
    /// tracker's picture equals the datanode's digest; a full report is needed otherwise.
    pub fn apply_delta(
        &mut self,
        datanode: DatanodeId,
        added: &[Replica],
        removed: &[SealedChunk],
        digest: &SetDigest,
        now: Duration,
    ) -> bool {
        let Some(node) = self.intern(datanode) else {
            return false;
        };
        for sealed in removed {
            self.take_back(node, sealed);
        }
        for replica in added {
            self.put_replica(node, replica, now);
        }
        self.node(node).digest == *digest
    }

    /// Takes in a full chunk report: what it does not name is gone, promised replicas apart, which
    /// may have been sealed after it was drawn up. Returns whether the digests agree.
    pub fn apply_full_report(
        &mut self,
        datanode: DatanodeId,
        replicas: &[Replica],
        digest: &SetDigest,
        now: Duration,
    ) -> bool {
        let Some(node) = self.intern(datanode) else {
            return false;
        };
        // Nearly all of a report is known already, and costs a look at its slot. Slots stay where they
        // are while a report is taken in.
        let mut known = BitSet::default();
        let mut others = Vec::new();
        for replica in replicas {
            match self.slot_of(replica.chunk.id) {
                Some(at) if self.holds_exactly(at, node, &replica.chunk) => {
                    known.insert(at);
                }
                slot => others.push((slot, replica)),
            }
        }
        self.drop_unnamed(node, &known, &others);
        for (slot, replica) in others {
            self.put_replica_at(slot, node, replica, now);
        }
        self.node(node).digest == *digest
    }

    /// A datanode found its replica bad. Only the expected version matters: an older one is not
    /// read anyway. Returns whether it mattered.
    pub fn mark_corrupt(
        &mut self,
        datanode: DatanodeId,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> bool {
        let (Some(node), Some(at)) = (self.intern(datanode), self.slot_of(chunk)) else {
            return false;
        };
        if self.slot(at).version != version {
            return false;
        }
        if self.promised.contains_key(&(at, node)) {
            self.detach(at, node);
        }
        self.damaged.insert((at, node));
        self.reassess(at);
        true
    }

    /// A delete was carried out; the heartbeat that says so may come later.
    pub fn remove_replica(&mut self, datanode: DatanodeId, chunk: ChunkId, version: ChunkVersion) {
        let Some(node) = self.node_index.get(&datanode).copied() else {
            return;
        };
        let held = match self.slot_of(chunk) {
            Some(at) => self.versions(at, node),
            None => self.unknown_versions(chunk, node),
        };
        if let Some(sealed) = held.iter().find(|sealed| sealed.version == version) {
            self.take_back(node, sealed);
        }
    }

    /// Drops everything of a datanode: it was tombstoned, or told to start anew.
    pub fn clear_datanode(&mut self, datanode: DatanodeId) {
        let Some(node) = self.node_index.get(&datanode).copied() else {
            return;
        };
        let lost = self.readable_on(node);
        let promised: Vec<u32> = self
            .promised
            .keys()
            .filter(|(_, n)| *n == node)
            .map(|(at, _)| *at)
            .collect();
        for at in promised {
            self.detach(at, node);
            self.reassess(at);
        }
        self.drop_unnamed(node, &BitSet::default(), &[]);
        let damaged: Vec<_> = self
            .damaged
            .iter()
            .filter(|(_, n)| *n == node)
            .copied()
            .collect();
        for key in damaged {
            self.damaged.remove(&key);
            self.reassess(key.0);
        }
        self.mark_short(&lost, Mark::Removed);
    }

    /// The factor of these chunks may have risen before they were loaded.
    pub fn note_raised(&mut self, chunk: ChunkId) {
        if let Some(at) = self.slot_of(chunk) {
            self.mark_short(&[at], Mark::Raised);
        }
    }

    fn mark_short(&mut self, slots: &[u32], mark: Mark) {
        for at in slots {
            let short = self.slot(*at).shortage();
            if short.is_some_and(|cause| cause != Shortage::Leaving) {
                self.reassess_marked(*at, Some(mark));
            }
        }
    }

    /// Slots of which the datanode has a replica that can be read now.
    fn readable_on(&self, node: u16) -> Vec<u32> {
        if !self.node(node).view.readable() {
            return Vec::new();
        }
        let slots = self.node(node).slots.iter();
        slots.filter(|at| self.class(*at, node).good()).collect()
    }

    /// Changes how a datanode's replicas are judged.
    pub fn set_view(&mut self, datanode: DatanodeId, view: HolderView) {
        let Some(node) = self.intern(datanode) else {
            return;
        };
        let old = std::mem::replace(&mut self.node_mut(node).view, view);
        // `current` matters to planners only: health does not depend on it.
        if (HolderView {
            current: view.current,
            ..old
        }) == view
        {
            return;
        }
        let slots: Vec<u32> = self.node(node).slots.iter().collect();
        // It was said to be empty: what falls short with it was not copied away in time.
        let said_empty =
            old.readable() && old.admin == AdminState::Decommissioned && !view.readable();
        for at in &slots {
            self.reassess(*at);
        }
        if said_empty {
            self.mark_short(&slots, Mark::Removed);
        }
    }

    /// Changes when replicas are badly spread: every chunk is judged anew.
    pub fn set_rule(&mut self, rule: SpreadRule) {
        if self.rule == rule {
            return;
        }
        self.rule = rule;
        let slots: Vec<u32> = self.occupied().map(|(at, _)| at).collect();
        for at in slots {
            self.reassess(at);
        }
    }

    fn expect_anew(&mut self, at: u32, expected: Expected) {
        let Expected {
            chunk,
            factor,
            kind,
        } = expected;
        let nodes = self.slot(at).nodes.as_slice().to_vec();
        let held = nodes.iter().map(|node| (*node, self.versions(at, *node)));
        // One that is only promised holds nothing to be arranged.
        let held: Vec<_> = held.filter(|(_, versions)| !versions.is_empty()).collect();
        let raised = factor > self.slot(at).factor();
        // What is counted now is taken out as it was entered.
        self.uncount_slot(at);
        self.slot_mut(at).expect(&chunk, factor, kind);
        self.count_slot(at);
        for (node, versions) in held {
            self.arrange(at, node, versions);
        }
        self.reassess_marked(at, raised.then_some(Mark::Raised));
    }

    /// Whether all that the datanode reported of the slot is exactly what the catalog expects.
    fn holds_exactly(&self, at: u32, node: u16, sealed: &SealedChunk) -> bool {
        let slot = self.slot(at);
        !slot.odd() && slot.nodes.as_slice().contains(&node) && slot.expected() == *sealed
    }

    fn put_replica(&mut self, node: u16, replica: &Replica, now: Duration) {
        let slot = self.slot_of(replica.chunk.id);
        self.put_replica_at(slot, node, replica, now);
    }

    /// As [`Self::put_replica`] of a chunk whose slot, if it has one, was looked up.
    fn put_replica_at(&mut self, slot: Option<u32>, node: u16, replica: &Replica, now: Duration) {
        let Replica {
            chunk: sealed,
            kind,
        } = *replica;
        if let Some(at) = slot {
            if self.holds_exactly(at, node, &sealed) {
                return;
            }
            if self.attach_first(at, node, &sealed) {
                return;
            }
            let held = self.versions(at, node);
            if held.contains(&sealed) {
                return;
            }
            // A volume holds one file of each version.
            if let Some(old) = held.iter().find(|held| held.version == sealed.version) {
                self.take_back(node, old);
            }
            self.node_mut(node).digest.insert(&sealed);
            self.attach(at, node, sealed);
            self.reassess(at);
            return;
        }
        let held = self.unknown_versions(sealed.id, node);
        if held.contains(&sealed) {
            return;
        }
        let unknown = self.unknown.entry(sealed.id).or_insert_with(|| Unknown {
            kind,
            first_seen: now,
            replicas: Vec::new(),
        });
        let old = held.iter().find(|held| held.version == sealed.version);
        let replaced = |(n, other): &(u16, SealedChunk)| *n == node && Some(other) == old;
        unknown.replicas.retain(|replica| !replaced(replica));
        unknown.replicas.push((node, sealed));
        let node = self.node_mut(node);
        node.unknown.insert(sealed.id);
        if let Some(old) = old {
            node.digest.remove(old);
        }
        node.digest.insert(&sealed);
    }

    /// The common case of [`Self::attach`]: the datanode had nothing of the slot, no side map has
    /// either, and what it reports is what the catalog expects. False when it is another case.
    fn attach_first(&mut self, at: u32, node: u16, sealed: &SealedChunk) -> bool {
        let slot = self.slot(at);
        if slot.odd() || slot.expected() != *sealed || slot.nodes.as_slice().contains(&node) {
            return false;
        }
        let holder = self.node_mut(node);
        holder.digest.insert(sealed);
        holder.slots.insert(at);
        self.slot_mut(at).nodes.push(node);
        self.rejudge(at, None);
        true
    }

    /// Removes exactly this replica; another version stays.
    fn take_back(&mut self, node: u16, sealed: &SealedChunk) {
        if let Some(at) = self.slot_of(sealed.id) {
            let mut versions = self.versions(at, node);
            if versions.contains(sealed) {
                self.node_mut(node).digest.remove(sealed);
                versions.retain(|held| held != sealed);
                self.arrange(at, node, versions);
                self.reassess(at);
            } else if self.promised.contains_key(&(at, node)) && self.slot(at).expected() == *sealed
            {
                self.detach(at, node);
                self.reassess(at);
            }
            return;
        }
        let Some(unknown) = self.unknown.get_mut(&sealed.id) else {
            return;
        };
        if !unknown.replicas.contains(&(node, *sealed)) {
            return;
        }
        unknown.replicas.retain(|held| *held != (node, *sealed));
        let last = unknown.replicas.iter().all(|(n, _)| *n != node);
        if unknown.replicas.is_empty() {
            self.unknown.remove(&sealed.id);
        }
        let node = self.node_mut(node);
        node.digest.remove(sealed);
        if last {
            node.unknown.remove(&sealed.id);
        }
    }

    /// Takes back every reported replica of a datanode that is neither in the `known` slots nor named by
    /// the `others`.
    fn drop_unnamed(&mut self, node: u16, known: &BitSet, others: &[(Option<u32>, &Replica)]) {
        let slots = self.node(node).slots.iter();
        let slots = slots.filter(|at| !known.contains(*at));
        let slots = slots.flat_map(|at| self.versions(at, node));
        let unknown = self.node(node).unknown.iter();
        let unknown = unknown.flat_map(|id| self.unknown_versions(*id, node));
        let mut gone: Vec<SealedChunk> = slots.chain(unknown).collect();
        if gone.is_empty() {
            return;
        }
        let named = others.iter().map(|(_, replica)| &replica.chunk);
        let named: BTreeSet<_> = named.map(|chunk| (chunk.id, chunk.version)).collect();
        gone.retain(|sealed| !named.contains(&(sealed.id, sealed.version)));
        for sealed in gone {
            self.take_back(node, &sealed);
        }
    }

    /// Puts a reported replica into a slot; its digest is already counted. A replica that was gone
    /// and is back was written anew: damage of the old one is no longer its own.
    fn attach(&mut self, at: u32, node: u16, sealed: SealedChunk) {
        let promised = self.promised.remove(&(at, node)).is_some();
        let mut versions = Vec::new();
        if self.node_mut(node).slots.insert(at) {
            self.slot_mut(at).nodes.push(node);
            self.damaged.remove(&(at, node));
        } else if promised {
            self.damaged.remove(&(at, node));
        } else {
            if self.irregular.contains_key(&(at, node)) {
                self.damaged.remove(&(at, node));
            }
            versions = self.versions(at, node);
        }
        versions.push(sealed);
        self.arrange(at, node, versions);
    }

    /// Of the versions that a datanode holds the expected one is judged, else the newest.
    fn arrange(&mut self, at: u32, node: u16, mut versions: Vec<SealedChunk>) {
        let expected = self.slot(at).expected();
        versions.sort_by_key(|held| (*held == expected, held.version));
        let Some(judged) = versions.pop() else {
            self.detach(at, node);
            return;
        };
        if judged == expected {
            self.irregular.remove(&(at, node));
        } else {
            self.irregular.insert((at, node), judged);
        }
        if versions.is_empty() {
            self.further.remove(&(at, node));
        } else {
            self.further.insert((at, node), versions);
        }
    }

    fn detach(&mut self, at: u32, node: u16) {
        self.promised.remove(&(at, node));
        self.irregular.remove(&(at, node));
        self.further.remove(&(at, node));
        self.node_mut(node).slots.remove(at);
        self.slot_mut(at).nodes.remove(node);
    }

    fn unknown_versions(&self, chunk: ChunkId, node: u16) -> Vec<SealedChunk> {
        let unknown = self.unknown.get(&chunk);
        let replicas = unknown.iter().flat_map(|unknown| &unknown.replicas);
        let own = replicas.filter(|(holder, _)| *holder == node);
        own.map(|(_, sealed)| *sealed).collect()
    }

    fn take_unknown(&mut self, chunk: ChunkId) -> Vec<(u16, SealedChunk)> {
        let replicas = self.unknown.remove(&chunk).map(|unknown| unknown.replicas);
        let replicas = replicas.unwrap_or_default();
        for (node, _) in &replicas {
            self.node_mut(*node).unknown.remove(&chunk);
        }
        replicas
    }

    pub(super) fn damaged_of(&self, at: u32) -> Vec<u16> {
        self.damaged
            .range((at, 0)..=(at, u16::MAX))
            .map(|(_, node)| *node)
            .collect()
    }
}
