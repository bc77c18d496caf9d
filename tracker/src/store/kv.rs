//! The ordered key-value engine under the catalog, as a trait: one embedded engine today, others
//! later, one conformance suite over all of them.

use std::fmt::Debug;
use std::ops::{Bound, ControlFlow};

use super::error::StoreError;

/// The tables of the catalog. The number is the one on disk and in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Names of single values: cluster, fence, sequence, counters, checkpoints.
    Meta = 0,
    /// Path bytes to file record.
    Files = 1,
    /// Chunk id to chunk record.
    Chunks = 2,
    /// Trash id to trash entry.
    Trash = 3,
    /// Chunk id to condemned record.
    Condemned = 4,
    /// Datanode id to datanode record.
    Datanodes = 5,
    /// Sequence to the batch that was committed under it. Local: never in a batch itself.
    Journal = 6,
    /// Uploads of empty files that had their effect, the newest of them.
    Uploads = 7,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 8] = [
        Self::Meta,
        Self::Files,
        Self::Chunks,
        Self::Trash,
        Self::Condemned,
        Self::Datanodes,
        Self::Journal,
        Self::Uploads,
    ];
    /// The tables that make up the catalog's state: all but the local journal.
    pub const STATE: [Self; 7] = [
        Self::Meta,
        Self::Files,
        Self::Chunks,
        Self::Trash,
        Self::Condemned,
        Self::Datanodes,
        Self::Uploads,
    ];

    /// The table's name in an engine.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Files => "files",
            Self::Chunks => "chunks",
            Self::Trash => "trash",
            Self::Condemned => "condemned",
            Self::Datanodes => "datanodes",
            Self::Journal => "journal",
            Self::Uploads => "uploads",
        }
    }

    /// The number in batches, as an index.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads a table's number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// A range of keys in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start: Bound<Vec<u8>>,
    /// Where it ends.
    pub end: Bound<Vec<u8>>,
}

impl Span {
    /// Every key.
    pub fn all() -> Self {
        Self {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        }
    }

    /// Every key behind `key`, or every key at all.
    pub fn after(key: Option<&[u8]>) -> Self {
        Self {
            start: key.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec())),
            end: Bound::Unbounded,
        }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self {
            start: Bound::Included(prefix.to_vec()),
            end: successor(prefix).map_or(Bound::Unbounded, Bound::Excluded),
        }
    }

    /// Whether no key can lie in it. Engines answer such a range with nothing; maps of the standard
    /// library panic on it.
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        }
    }

    /// The bounds as slices.
    pub fn as_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.start.as_ref().map(Vec::as_slice),
            self.end.as_ref().map(Vec::as_slice),
        )
    }
}

/// The smallest key behind every key that begins with `prefix`; none when there is no such key.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(key);
        }
        key.pop();
    }
    None
}

/// What looks at a key and its value where they lie, and says whether to go on.
pub type See<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

/// A consistent picture of the store: later commits do not show in it.
pub trait ReadTxn {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows the pairs of a range, in order, for as long as `see` says to go on.
    fn walk(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        see: &mut See<'_>,
    ) -> Result<(), StoreError>;

    /// At most `limit` pairs of a range, in order.
    fn range(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        if limit > 0 {
            self.walk(table, span, direction, &mut |key, value| {
                pairs.push((key.to_vec(), value.to_vec()));
                Ok(if pairs.len() < limit {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })?;
        }
        Ok(pairs)
    }
}

/// A transaction that sees its own writes.
pub trait WriteTxn: ReadTxn {
    /// Sets a key.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Removes a key; absent is fine.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
}

/// What a transaction does.
pub type Change<'a> = dyn FnMut(&mut dyn WriteTxn) -> Result<(), StoreError> + 'a;

/// How much room the volume has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Any change may go on.
    Ample,
    /// Only what frees room, or must not wait, may go on; the ballast is there for it.
    Low,
    /// Nothing may be written: the ballast is spent as well.
    Exhausted,
}

/// An ordered key-value engine. All calls block: run them on a blocking thread.
pub trait Engine: Debug + Send + Sync + 'static {
    /// A picture of what is committed. Keep it for one page of results, never longer: it pins the
    /// space of what is replaced meanwhile.
    fn read(&self) -> Result<Box<dyn ReadTxn + '_>, StoreError>;

    /// Runs `change` in a transaction and makes it durable. An error of `change` leaves nothing
    /// behind and is handed back. Any other error leaves the outcome unknown: the caller must not
    /// write again ([`StoreError::is_fatal`], I14).
    fn write(&self, change: &mut Change<'_>) -> Result<(), StoreError>;

    /// How much room there is. Asked before each transaction, so that a full volume is refused
    /// before the engine meets it (I15).
    fn room(&self) -> Result<Room, StoreError> {
        Ok(Room::Ample)
    }

    /// Bytes of the files that it keeps; 0 for one that keeps none.
    fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}
