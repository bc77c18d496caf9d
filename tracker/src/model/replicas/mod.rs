//! Where every chunk's replicas are, as the datanodes report them, judged against the catalog.
//! Never persisted. 60 to 75 bytes a chunk with three replicas, however many datanodes hold them; health, queues and counters are
//! kept as changes come in and can be recomputed to compare ([`ReplicaMap::check_derived`]).

mod bits;
mod changes;
mod counters;
mod index;
mod short;
mod slot;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, SealedChunk, SetDigest};
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::{ChunkHealth, RepairPriority, Shortage};
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};

use super::datanodes::DatanodeTable;
use super::health::{HolderView, Label, ReplicaClass, SpreadRule};
use bits::BitSet;
pub use counters::Counters;
use index::Index;
use short::ShortSince;
use slot::{Need, Slot};

/// What the catalog expects of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Id, version, length, checksum.
    pub chunk: SealedChunk,
    /// Wanted replicas.
    pub factor: u32,
    /// Part of a file, or of a kept checkpoint.
    pub kind: ChunkKind,
}

/// A chunk and its replicas, copied out for a decision or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkView {
    /// What the catalog expects.
    pub expected: Expected,
    /// How it is.
    pub health: ChunkHealth,
    /// How urgent its repair is.
    pub priority: Option<RepairPriority>,
    /// Every replica known.
    pub replicas: Vec<ReplicaView>,
}

/// One replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaView {
    /// Whose.
    pub datanode: DatanodeId,
    /// How its holder is to be judged.
    pub holder: HolderView,
    /// How it is.
    pub class: ReplicaClass,
    /// What was reported; the expectation for a promised one.
    pub sealed: SealedChunk,
    /// Still on the volume. A corrupt one that the datanode set aside is not.
    pub present: bool,
}

impl ReplicaView {
    /// Reported and exactly what the catalog expects; a promise is not enough.
    pub fn verified(&self) -> bool {
        self.class == ReplicaClass::Valid
    }
}

/// A chunk that was reported and that the catalog does not know: part of an upload, condemned, or
/// an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownChunk {
    /// Which.
    pub id: ChunkId,
    /// What its bytes are for.
    pub kind: ChunkKind,
    /// Monotonic time of the first report, or of the moment the catalog dropped it.
    pub first_seen: Duration,
    /// Who holds what.
    pub replicas: Vec<(DatanodeId, SealedChunk)>,
}

/// A queue of chunks that a planner should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Needs a copy.
    Repair(RepairPriority),
    /// Has more replicas than wanted.
    Excess,
    /// Has a stale, corrupt or newer replica on some volume.
    Irregular,
}

impl Queue {
    /// Every queue, most urgent first.
    pub const ALL: [Self; 7] = [
        Self::Repair(RepairPriority::LastReplica),
        Self::Repair(RepairPriority::UnderThird),
        Self::Repair(RepairPriority::UnderReplicated),
        Self::Repair(RepairPriority::BadlySpread),
        Self::Repair(RepairPriority::CorruptOnly),
        Self::Excess,
        Self::Irregular,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Repair(priority) => priority as usize,
            Self::Excess => 5,
            Self::Irregular => 6,
        }
    }
}

/// Where a planner goes on in a queue; the default starts at its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(u32);

/// Every chunk and its replicas.
#[derive(Debug, Clone, Default)]
pub struct ReplicaMap {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    index: Index,
    nodes: Vec<Node>,
    node_index: BTreeMap<DatanodeId, u16>,
    /// Reported replicas that are not what the catalog expects.
    irregular: BTreeMap<(u32, u16), SealedChunk>,
    /// What a datanode reported beside the version that is judged: a writer that did not hear of a
    /// seal goes on under the next version, and then both are on the volume.
    further: BTreeMap<(u32, u16), Vec<SealedChunk>>,
    /// Replicas of the expected version that their datanode found bad.
    damaged: BTreeSet<(u32, u16)>,
    /// Replicas that a commit named and no report has shown yet, and since when.
    promised: BTreeMap<(u32, u16), Duration>,
    unknown: BTreeMap<ChunkId, Unknown>,
    queues: [BitSet; 7],
    rule: SpreadRule,
    counters: Counters,
    short: ShortSince,
}

#[derive(Debug, Clone)]
struct Node {
    id: DatanodeId,
    view: HolderView,
    /// Of everything it reported.
    digest: SetDigest,
    /// Slots of which it holds, or is promised to hold, a replica.
    slots: BitSet,
    /// Chunks unknown to the catalog that it reported.
    unknown: BTreeSet<ChunkId>,
}

#[derive(Debug, Clone)]
struct Unknown {
    kind: ChunkKind,
    first_seen: Duration,
    replicas: Vec<(u16, SealedChunk)>,
}

impl ReplicaMap {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One chunk; none when the catalog does not know it.
    pub fn get(&self, chunk: ChunkId) -> Option<ChunkView> {
        let slot = self.slot_of(chunk)?;
        Some(self.view_of(slot))
    }

    /// Whether the catalog knows the chunk.
    pub fn is_known(&self, chunk: ChunkId) -> bool {
        self.slot_of(chunk).is_some()
    }

    /// Every chunk that the catalog knows, in no particular but a stable order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkView> + '_ {
        self.occupied().map(|(at, _)| self.view_of(at))
    }

    /// Chunks of which the datanode holds a replica of any kind, or is promised to.
    pub fn of_datanode(&self, datanode: DatanodeId) -> impl Iterator<Item = ChunkView> + '_ {
        let node = self
            .node_index
            .get(&datanode)
            .and_then(|n| self.nodes.get(usize::from(*n)));
        node.into_iter()
            .flat_map(|n| n.slots.iter())
            .map(|slot| self.view_of(slot))
    }

    /// As [`Self::of_datanode`], from some place on and once around: the same `start` begins at the
    /// same chunk.
    pub fn of_datanode_from(
        &self,
        datanode: DatanodeId,
        start: u32,
    ) -> impl Iterator<Item = ChunkView> + '_ {
        let node = self
            .node_index
            .get(&datanode)
            .and_then(|n| self.nodes.get(usize::from(*n)));
        let slots = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let start = start % slots.max(1);
        node.into_iter()
            .flat_map(move |n| {
                let head = n.slots.iter().take_while(move |at| *at < start);
                n.slots.iter_from(start).chain(head)
            })
            .map(|slot| self.view_of(slot))
    }

    /// Chunks in a queue from the cursor on, each with the cursor that goes on behind it.
    pub fn queue(
        &self,
        queue: Queue,
        from: Cursor,
    ) -> impl Iterator<Item = (Cursor, ChunkView)> + '_ {
        self.queues[queue.index()]
            .iter_from(from.0)
            .map(|slot| (Cursor(slot.saturating_add(1)), self.view_of(slot)))
    }

    /// Chunks in a queue.
    pub fn queue_len(&self, queue: Queue) -> u64 {
        self.queues[queue.index()].len()
    }

    /// Chunks that were reported and that the catalog does not know, from one id on.
    pub fn unknown_from(&self, start: ChunkId) -> impl Iterator<Item = UnknownChunk> + '_ {
        self.unknown
            .range(start..)
            .map(|(id, unknown)| self.unknown_view(*id, unknown))
    }

    /// One chunk that was reported and that the catalog does not know.
    pub fn unknown(&self, chunk: ChunkId) -> Option<UnknownChunk> {
        self.unknown
            .get(&chunk)
            .map(|unknown| self.unknown_view(chunk, unknown))
    }

    /// Digest of everything that the datanode reported and did not take back.
    pub fn digest(&self, datanode: DatanodeId) -> SetDigest {
        let node = self
            .node_index
            .get(&datanode)
            .and_then(|n| self.nodes.get(usize::from(*n)));
        node.map(|node| node.digest).unwrap_or_default()
    }

    /// The derived numbers.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Remembers from now on since when chunks fall short: to be called once enough was reported,
    /// as before that chunks seem to fall short that do not. Calling it again changes nothing.
    pub fn watch_shortages(&mut self) {
        if self.short.begin() {
            for (at, slot) in (0..).zip(&self.slots).filter(|(_, slot)| slot.occupied()) {
                self.short.note(at, slot.shortage());
            }
        }
    }

    /// Since when the chunk that fell short first for this cause, of those that still do, has fallen
    /// short, whatever the cause was at first; none when there is none, or nobody watches.
    pub fn short_since(&self, cause: Shortage) -> Option<Duration> {
        self.short.oldest(cause)
    }

    /// When replicas are badly spread.
    pub fn rule(&self) -> SpreadRule {
        self.rule
    }

    /// Takes over liveness, admin states and labels: to be called on every tick and after every
    /// message, so that health follows. Costs one comparison for each datanode that did not
    /// change, and one judgement for each chunk of those that did.
    pub fn sync(&mut self, datanodes: &DatanodeTable, now: Duration) {
        self.short.now(now);
        self.set_rule(datanodes.spread_rule());
        for node in datanodes.iter() {
            self.set_view(node.id, datanodes.view(node, now));
        }
    }

    /// As [`Self::sync`] of one datanode: to be called after a message of its own that changed neither
    /// admin states nor labels. Its cost does not grow with the number of datanodes; what the others
    /// have become meanwhile shows at the next tick.
    pub fn sync_one(&mut self, datanodes: &DatanodeTable, id: DatanodeId, now: Duration) {
        self.short.now(now);
        if let Some(node) = datanodes.get(id) {
            self.set_view(id, datanodes.view(node, now));
        }
    }

    fn occupied(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.occupied())
    }

    fn slot_of(&self, chunk: ChunkId) -> Option<u32> {
        self.index.find(&self.slots, chunk)
    }

    fn slot(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }

    fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }

    fn node(&self, at: u16) -> &Node {
        &self.nodes[usize::from(at)]
    }

    fn node_mut(&mut self, at: u16) -> &mut Node {
        &mut self.nodes[usize::from(at)]
    }

    /// The small number of a datanode; none when there are too many to number.
    fn intern(&mut self, id: DatanodeId) -> Option<u16> {
        if let Some(at) = self.node_index.get(&id) {
            return Some(*at);
        }
        let at = u16::try_from(self.nodes.len()).ok()?;
        self.node_index.insert(id, at);
        self.nodes.push(Node {
            id,
            view: HolderView {
                live: false,
                admin: AdminState::Pending,
                host: Label::of(&id.to_string()),
                zone: None,
                current: false,
            },
            digest: SetDigest::default(),
            slots: BitSet::default(),
            unknown: BTreeSet::new(),
        });
        Some(at)
    }

    fn class(&self, at: u32, node: u16) -> ReplicaClass {
        let slot = self.slot(at);
        if !slot.odd() {
            return ReplicaClass::Valid;
        }
        if self.damaged.contains(&(at, node)) {
            return ReplicaClass::Corrupt;
        }
        if self.promised.contains_key(&(at, node)) {
            return ReplicaClass::Promised;
        }
        match self.irregular.get(&(at, node)) {
            None => ReplicaClass::Valid,
            Some(sealed) => other_than(slot.version, sealed.version),
        }
    }

    /// Damaged replicas that their datanode no longer has.
    fn set_aside(&self, at: u32) -> impl Iterator<Item = u16> + '_ {
        let slot = self.slot(at);
        let range = slot
            .odd()
            .then(|| self.damaged.range((at, 0)..=(at, u16::MAX)));
        range
            .into_iter()
            .flatten()
            .map(|(_, node)| *node)
            .filter(|node| !slot.nodes.as_slice().contains(node))
    }

    /// What the datanode reported of a slot; none when it is only promised.
    fn reported(&self, at: u32, node: u16) -> Option<SealedChunk> {
        let held = self.node(node).slots.contains(at) && !self.promised.contains_key(&(at, node));
        held.then(|| {
            let irregular = self.irregular.get(&(at, node)).copied();
            irregular.unwrap_or_else(|| self.slot(at).expected())
        })
    }

    /// Every version that the datanode reported of a slot.
    fn versions(&self, at: u32, node: u16) -> Vec<SealedChunk> {
        let judged = self.reported(at, node);
        let further = self.further.get(&(at, node)).into_iter().flatten().copied();
        judged.into_iter().chain(further).collect()
    }

    /// See [`Self::further`]. One of the expected version is never among them.
    fn further_of(&self, at: u32) -> impl Iterator<Item = ReplicaView> + '_ {
        let slot = self.slot(at);
        let range = slot
            .odd()
            .then(|| self.further.range((at, 0)..=(at, u16::MAX)));
        let all = range.into_iter().flatten();
        all.flat_map(|((_, node), versions)| versions.iter().map(move |sealed| (*node, *sealed)))
            .map(move |(node, sealed)| ReplicaView {
                datanode: self.node(node).id,
                holder: self.node(node).view,
                class: other_than(slot.version, sealed.version),
                sealed,
                present: true,
            })
    }

    fn view_of(&self, at: u32) -> ChunkView {
        let slot = self.slot(at);
        let expected = slot.expected();
        let present = slot.nodes.as_slice().iter().map(|node| (*node, true));
        let replicas = present.chain(self.set_aside(at).map(|node| (node, false)));
        ChunkView {
            expected: Expected {
                chunk: expected,
                factor: slot.factor(),
                kind: slot.kind(),
            },
            health: slot.health(),
            priority: match slot.need() {
                Need::Repair(priority) => Some(priority),
                Need::Nothing | Need::Excess => None,
            },
            replicas: replicas
                .map(|(node, present)| ReplicaView {
                    datanode: self.node(node).id,
                    holder: self.node(node).view,
                    class: self.class(at, node),
                    sealed: self.irregular.get(&(at, node)).copied().unwrap_or(expected),
                    present,
                })
                .chain(self.further_of(at))
                .collect(),
        }
    }

    fn unknown_view(&self, id: ChunkId, unknown: &Unknown) -> UnknownChunk {
        let Unknown {
            kind,
            first_seen,
            replicas,
        } = unknown;
        UnknownChunk {
            id,
            kind: *kind,
            first_seen: *first_seen,
            replicas: replicas
                .iter()
                .map(|(n, sealed)| (self.node(*n).id, *sealed))
                .collect(),
        }
    }
}

/// The class of a replica that is not what the catalog expects.
fn other_than(expected: ChunkVersion, version: ChunkVersion) -> ReplicaClass {
    match version.cmp(&expected) {
        Ordering::Less => ReplicaClass::Stale,
        Ordering::Greater => ReplicaClass::Newer,
        Ordering::Equal => ReplicaClass::Corrupt,
    }
}
