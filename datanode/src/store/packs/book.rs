//! What the packs hold, in memory: where each live entry lies, and which removals must be kept. Pure:
//! the start-up scan and every durable batch are written into it, in the order of the log.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::format::{PACK_HEADER_LEN, REMOVAL_LEN};
use crate::store::index::ReplicaKey;

/// Closed packs that hold less than a quarter of a pack are joined once there are so many of them:
/// every start closes one.
const SMALL_PACKS: usize = 16;

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The pack's number.
    pub pack: u64,
    /// Its first byte in the pack.
    pub offset: u64,
    /// Bytes of its header; data begins behind it.
    pub header: u64,
    /// Bytes of the whole, to the next boundary.
    pub length: u64,
}

/// One pack.
#[derive(Debug, Default)]
pub struct Pack {
    /// Where the last entry ends.
    pub end: u64,
    /// Bytes of live entries.
    pub live_bytes: u64,
    /// Live entries by their offset.
    pub live: BTreeMap<u64, ReplicaKey>,
    /// Keys that removals in this pack are about, of which no later pack has one.
    pub removals: BTreeSet<ReplicaKey>,
    /// Keys of dead entries, some of them more than once.
    dead: Vec<ReplicaKey>,
    weighing: Weighing,
}

/// How far it is known which removals of a pack are needed.
#[derive(Debug, Clone, Copy, Default)]
struct Weighing {
    /// The last one that was looked at, while not all were.
    last: Option<ReplicaKey>,
    /// Needed ones up to there.
    counted: u64,
    /// Of the book when it began.
    changes: u64,
    drops: u64,
    /// What the last count came to. Of a closed pack it only falls since.
    needed: Option<u64>,
}

impl Pack {
    /// Removals that are needed, at most; `None` while nobody counted them.
    fn needed_removals(&self) -> Option<u64> {
        let all = self.removals.len() as u64;
        let counted = self.weighing.needed.map(|needed| needed.min(all));
        counted.or((all == 0).then_some(0))
    }
}

/// All packs.
#[derive(Debug, Default)]
pub struct Book {
    packs: BTreeMap<u64, Pack>,
    places: BTreeMap<ReplicaKey, Place>,
    /// Packs that still hold a dead entry of a key. While there is one, the key's removal must not
    /// be forgotten: the entry would come back with the next start (I9).
    graves: BTreeMap<ReplicaKey, BTreeSet<u64>>,
    /// The last pack that has a removal of a key which may be needed.
    last_removals: BTreeMap<ReplicaKey, u64>,
    /// Packs that the disk did not give whole at the start: what is there that nobody knows of must not be deleted, nor
    /// come back deleted.
    unread: BTreeSet<u64>,
    /// The pack that takes entries; all others are closed.
    pub open: Option<u64>,
    /// Entries and removals since the start. Each makes one removal needless at most;
    changes: u64,
    /// packs that are gone make many.
    drops: u64,
    /// The pack that is weighed next, or the first above it.
    weigh_next: u64,
}

/// From which share of needed bytes on a pack is left as it is: what is needed must be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// A half.
    WithRoom,
    /// Nine tenths: it may be the only room that there is.
    OnAFullVolume,
}

impl Worth {
    fn thousandths(self) -> u64 {
        match self {
            Self::WithRoom => 500,
            Self::OnAFullVolume => 900,
        }
    }
}

/// What compaction does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Copies these live entries of a pack into the open one.
    Move(Vec<(ReplicaKey, Place)>),
    /// Repeats these removals in the open pack.
    Carry(Vec<ReplicaKey>),
    /// Deletes a pack that nothing needs.
    Unlink(u64),
    /// Asks again: what is needed of a pack is not known yet.
    Weigh,
    /// Takes no more entries into the open pack, and asks again.
    Close(u64),
}

impl Book {
    /// A pack begins.
    pub fn add_pack(&mut self, number: u64, end: u64) {
        let pack = self.packs.entry(number).or_default();
        pack.end = end;
    }

    /// The disk did not give the whole pack: it stays as it is until a later start reads it.
    pub fn keep_unread(&mut self, number: u64) {
        self.unread.insert(number);
    }

    /// The pack takes bytes up to `end`.
    pub fn extend(&mut self, number: u64, end: u64) {
        if let Some(pack) = self.packs.get_mut(&number) {
            pack.end = pack.end.max(end);
        }
    }

    /// A live entry; an earlier one of the same key is dead from here on.
    pub fn put(&mut self, key: ReplicaKey, place: Place) {
        self.changes += 1;
        if let Some(older) = self.places.insert(key, place) {
            self.bury(key, older);
        }
        if let Some(pack) = self.packs.get_mut(&place.pack) {
            pack.live.insert(place.offset, key);
            pack.live_bytes += place.length;
        }
    }

    /// A removal that lies in `pack`.
    pub fn remove(&mut self, key: ReplicaKey, pack: u64) {
        self.changes += 1;
        if let Some(place) = self.places.remove(&key) {
            self.bury(key, place);
        }
        if let Some(found) = self.packs.get_mut(&pack) {
            found.removals.insert(key);
            // The log goes upwards: the earlier one covers nothing that this one does not.
            let earlier = self.last_removals.insert(key, pack);
            if let Some(earlier) = earlier.filter(|earlier| *earlier != pack)
                && let Some(found) = self.packs.get_mut(&earlier)
            {
                found.removals.remove(&key);
            }
        }
    }

    fn bury(&mut self, key: ReplicaKey, place: Place) {
        if let Some(pack) = self.packs.get_mut(&place.pack) {
            if pack.live.remove(&place.offset).is_some() {
                pack.live_bytes = pack.live_bytes.saturating_sub(place.length);
            }
            pack.dead.push(key);
            self.graves.entry(key).or_default().insert(place.pack);
        }
    }

    /// Where a live entry lies.
    pub fn place(&self, key: ReplicaKey) -> Option<Place> {
        self.places.get(&key).copied()
    }

    /// A pack.
    pub fn pack(&self, number: u64) -> Option<&Pack> {
        self.packs.get(&number)
    }

    /// Numbers of all packs, oldest first.
    pub fn numbers(&self) -> Vec<u64> {
        self.packs.keys().copied().collect()
    }

    /// Packs, bytes of live entries, all other bytes, and packs that were not read whole.
    pub fn totals(&self) -> [u64; 4] {
        let bytes = |(number, pack): (&u64, &Pack)| {
            // Of a pack that stays nothing is given back.
            if self.unread.contains(number) {
                pack.live_bytes
            } else {
                pack.end
            }
        };
        let bytes: u64 = self.packs.iter().map(bytes).sum();
        let live: u64 = self.packs.values().map(|pack| pack.live_bytes).sum();
        let unread = self.unread.len() as u64;
        [
            self.packs.len() as u64,
            live,
            bytes.saturating_sub(live),
            unread,
        ]
    }

    /// Whether a removal in `pack` must outlive that pack: a dead entry of the key lies in another
    /// one, or may lie in an earlier one unread, and no later live entry supersedes it.
    pub fn needs_removal(&self, key: ReplicaKey, pack: u64) -> bool {
        let elsewhere = |graves: &BTreeSet<u64>| graves.iter().any(|grave| *grave != pack);
        let is_unread_before = self.unread.range(..pack).next().is_some();
        !self.places.contains_key(&key)
            && (is_unread_before || self.graves.get(&key).is_some_and(elsewhere))
    }

    /// The file of a pack is gone, durably. What is returned is to be dropped where nobody waits.
    pub fn drop_pack(&mut self, number: u64) -> Pack {
        let dropped = self.packs.remove(&number).unwrap_or_default();
        self.unread.remove(&number);
        self.drops += 1;
        for key in &dropped.removals {
            self.last_removals.remove(key);
        }
        for key in &dropped.dead {
            if let Some(packs) = self.graves.get_mut(key) {
                packs.remove(&number);
                if packs.is_empty() {
                    self.graves.remove(key);
                }
            }
        }
        if self.open == Some(number) {
            self.open = None;
        }
        dropped
    }

    /// What to do next about packs of which too little is needed, `pack_bytes` being the size of a pack.
    /// At most about `limit` bytes at once, and no more removals are looked at than fit in there: readers wait meanwhile.
    pub fn next_step(&mut self, worth: Worth, pack_bytes: u64, limit: u64) -> Option<Step> {
        let most = removals_in(limit);
        let number = match self.candidate(worth, pack_bytes, limit) {
            Candidate::Pack(number) if self.open == Some(number) => {
                return Some(Step::Close(number));
            }
            Candidate::Pack(number) => number,
            Candidate::Unknown => return Some(Step::Weigh),
            Candidate::None => return None,
        };
        let pack = self.packs.get(&number)?;
        let mut moved = Vec::new();
        let mut bytes = 0;
        for key in pack.live.values() {
            let Some(place) = self.place(*key) else {
                continue;
            };
            moved.push((*key, place));
            bytes += place.length;
            if bytes >= limit {
                break;
            }
        }
        if !moved.is_empty() {
            return Some(Step::Move(moved));
        }
        let needed = pack.removals.iter().copied();
        let needed: Vec<_> = needed
            .filter(|key| self.needs_removal(*key, number))
            .take(most)
            .collect();
        Some(if needed.is_empty() {
            Step::Unlink(number)
        } else {
            Step::Carry(needed)
        })
    }

    /// The pack with the smallest share of bytes that are needed, if that makes it worth it; or the smallest closed one of
    /// too many small ones.
    fn candidate(&mut self, worth: Worth, pack_bytes: u64, limit: u64) -> Candidate {
        let worth = worth.thousandths();
        let mut small = Vec::new();
        let mut dead_enough = Vec::new();
        for (number, pack) in &self.packs {
            let content = pack.end.saturating_sub(PACK_HEADER_LEN);
            // On a small volume the open one is all there is: what died in it is given back too, once it is much.
            let is_open = self.open == Some(*number);
            if self.unread.contains(number) || is_open && content < limit {
                continue;
            }
            // Repeated behind a pack that nobody read, a removal would be about what was sealed there since.
            let is_unread_behind = self.unread.range(number..).next().is_some();
            if is_unread_behind && !pack.removals.is_empty() {
                continue;
            }
            if pack.live_bytes.saturating_mul(1000) <= content.saturating_mul(worth) {
                dead_enough.push((*number, pack.live_bytes, content));
            }
            if !is_open && content < pack_bytes / 4 {
                small.push((content, *number));
            }
        }
        self.weigh_one(&dead_enough, removals_in(limit));
        let mut best: Option<(u64, u64)> = None;
        for (number, live_bytes, content) in &dead_enough {
            let removals = self.packs.get(number).and_then(Pack::needed_removals);
            let Some(removals) = removals else {
                continue;
            };
            let needed = live_bytes + removals * REMOVAL_LEN;
            let share = needed
                .saturating_mul(1000)
                .checked_div(*content)
                .unwrap_or(0);
            if share < worth && best.is_none_or(|(least, _)| share < least) {
                best = Some((share, *number));
            }
        }
        if best.is_none() && dead_enough.iter().any(|(pack, ..)| self.is_stale(*pack)) {
            return Candidate::Unknown;
        }
        let joined = small.iter().min().filter(|_| small.len() >= SMALL_PACKS);
        best.map(|(_, number)| number)
            .or(joined.map(|(_, number)| *number))
            .map_or(Candidate::None, Candidate::Pack)
    }

    /// Whether it may be that fewer removals of a pack are needed than is known, by more than an eighth.
    fn is_stale(&self, number: u64) -> bool {
        self.packs.get(&number).is_some_and(|pack| {
            let Weighing {
                last,
                changes,
                drops,
                needed,
                ..
            } = pack.weighing;
            let all = pack.removals.len() as u64;
            let is_old = drops != self.drops || self.changes - changes > all / 8;
            all > 0 && (last.is_some() || needed.is_none() || is_old)
        })
    }

    /// Looks at `most` removals of one of these packs, in turn.
    fn weigh_one(&mut self, packs: &[(u64, u64, u64)], most: usize) {
        let stale = || packs.iter().filter(|(pack, ..)| self.is_stale(*pack));
        let next = stale().find(|(pack, ..)| *pack >= self.weigh_next);
        if let Some((number, ..)) = next.or_else(|| stale().next()) {
            let is_done = self.weigh(*number, most);
            self.weigh_next = number + u64::from(is_done);
        }
    }

    /// Looks at `most` removals of a pack; whether all were looked at. Forgets those that are not needed: none of them
    /// is ever needed again, because what dies later has a later removal.
    fn weigh(&mut self, number: u64, most: usize) -> bool {
        let Some(pack) = self.packs.get(&number) else {
            return true;
        };
        let mut weighing = pack.weighing;
        if weighing.last.is_none() {
            weighing.counted = 0;
            weighing.changes = self.changes;
            weighing.drops = self.drops;
        }
        let from = weighing.last.map_or(Bound::Unbounded, Bound::Excluded);
        let removals = pack.removals.range((from, Bound::Unbounded));
        let mut part: Vec<_> = removals.take(most).copied().collect();
        let count = part.len();
        let is_done = count < most;
        weighing.last = part.last().copied().filter(|_| !is_done);
        part.retain(|key| !self.needs_removal(*key, number));
        weighing.counted += (count - part.len()) as u64;
        if is_done {
            weighing.needed = Some(weighing.counted);
        }
        if let Some(pack) = self.packs.get_mut(&number) {
            for key in part {
                pack.removals.remove(&key);
                self.last_removals.remove(&key);
            }
            pack.weighing = weighing;
        }
        is_done
    }
}

/// Removals that fill so many bytes.
fn removals_in(bytes: u64) -> usize {
    usize::try_from(bytes / REMOVAL_LEN).unwrap_or(1).max(1)
}

/// Which pack is to be compacted.
enum Candidate {
    Pack(u64),
    /// The removals of one are not weighed yet.
    Unknown,
    None,
}
