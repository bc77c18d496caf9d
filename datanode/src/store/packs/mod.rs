//! Small chunks, many to a file. A pack is a log: sealed chunks and removals are appended, each batch
//! with one write and one fsync, for all who wait. No timer: what arrives while a batch is being made
//! durable is the next one.
//!
//! The book is changed only after a batch is durable, in the order of the log; so what a restart makes
//! of the packs is what was answered.

mod batch;
mod book;
mod compact;
pub mod format;
mod lead;
mod plan;
mod recover;
mod retire;
mod tail;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dfs_protocol::chunk::Replica;
use dfs_runtime::disk::{DiskFile, OpenMode, SharedDisk};
use dfs_runtime::rng::SharedRng;

pub use book::Place;
pub use recover::{Recovered, Ruin, recover};

use batch::Queue;
use book::Book;

use super::index::ReplicaKey;
use super::layout::pack_path;
use super::record::RecordHeader;
use super::volume::Identity;

/// Open packs kept for readers.
const MAX_HANDLES: usize = 128;

/// Which chunks go into packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackLimits {
    /// Chunks up to this are packed; 0 packs none.
    pub chunk: u64,
    /// A new pack begins at about this many bytes.
    pub pack: u64,
}

impl PackLimits {
    /// The largest [`PackLimits::chunk`]: chunks to be packed are kept in memory while they stream.
    pub const MAX_CHUNK: u64 = 16 * 1024 * 1024;

    /// Every chunk has a file of its own.
    pub const NONE: Self = Self {
        chunk: 0,
        pack: 256 * 1024 * 1024,
    };
}

impl Default for PackLimits {
    fn default() -> Self {
        Self {
            chunk: 1024 * 1024,
            ..Self::NONE
        }
    }
}

/// A sealed chunk on its way into a pack.
#[derive(Debug)]
pub struct Body {
    /// What it says of itself.
    pub header: RecordHeader,
    /// Its bytes.
    pub data: Vec<u8>,
    /// CRC32C of each block.
    pub blocks: Vec<u32>,
}

/// What is to be appended.
#[derive(Debug)]
pub enum Job {
    /// A chunk that was not here.
    Seal(Body),
    /// The word that what lies there is gone, if it still lies there. What was taken out of the
    /// index goes back when it fails.
    Forget(ReplicaKey, Place, Option<Replica>),
    /// The same of an entry whose chunk has a file of its own too, which stays in the index.
    Shadow(ReplicaKey, Place),
    /// A chunk that lies elsewhere in the packs, for compaction.
    Move(Place, Body),
    /// A removal again, for compaction.
    Carry(ReplicaKey),
}

/// The packs of a volume.
#[derive(Debug)]
pub struct Packs {
    disk: SharedDisk,
    root: PathBuf,
    limits: PackLimits,
    rng: SharedRng,
    identity: Arc<Identity>,
    state: Mutex<State>,
    done: Condvar,
    /// The name of the packs' directory is known to be durable.
    named: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    queue: Queue,
    /// A batch is being made durable, or the packs are being moved away.
    busy: bool,
    open: Option<OpenPack>,
    /// The next pack's number.
    next: u64,
    salts: BTreeMap<u64, u128>,
    handles: Handles,
}

/// The pack that takes entries.
#[derive(Debug, Clone)]
struct OpenPack {
    number: u64,
    salt: u128,
    file: Arc<dyn DiskFile>,
    /// Durable bytes; the next batch begins here.
    tail: u64,
}

/// A packed replica that needs no look at the disk to be found.
#[derive(Debug)]
pub struct AtHand {
    /// Where it lies.
    pub place: Place,
    /// The pack.
    pub file: Arc<dyn DiskFile>,
    /// The pack's salt.
    pub salt: Option<u128>,
}

/// Open files for readers, the ones used lately.
#[derive(Debug, Default)]
struct Handles {
    files: BTreeMap<u64, (u64, Arc<dyn DiskFile>)>,
    uses: u64,
    /// Taken out: to be closed by somebody who does not hold the lock.
    out: Vec<Arc<dyn DiskFile>>,
}

impl Handles {
    fn get(&mut self, number: u64) -> Option<Arc<dyn DiskFile>> {
        self.uses += 1;
        let (used, file) = self.files.get_mut(&number)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    fn keep(&mut self, number: u64, file: &Arc<dyn DiskFile>) {
        self.uses += 1;
        let before = self.files.insert(number, (self.uses, Arc::clone(file)));
        self.out.extend(before.map(|(_, file)| file));
        if self.files.len() > MAX_HANDLES {
            let oldest = self.files.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = oldest.map(|(number, _)| *number);
            let oldest = oldest.and_then(|number| self.files.remove(&number));
            self.out.extend(oldest.map(|(_, file)| file));
        }
    }
}

impl Packs {
    /// The packs as they were found.
    pub(super) fn new(
        disk: SharedDisk,
        root: PathBuf,
        limits: PackLimits,
        rng: SharedRng,
        identity: Arc<Identity>,
        found: (Book, BTreeMap<u64, u128>, u64),
    ) -> Self {
        let (book, salts, next) = found;
        let state = State {
            book,
            next,
            salts,
            ..State::default()
        };
        Self {
            disk,
            root,
            limits,
            rng,
            identity,
            state: Mutex::new(state),
            done: Condvar::new(),
            named: AtomicBool::new(false),
        }
    }

    /// Whether a chunk of so many bytes belongs into a pack.
    pub(super) fn takes(&self, length: u64) -> bool {
        self.limits.chunk > 0 && length <= self.limits.chunk
    }

    /// Where a packed replica lies.
    pub(super) fn place(&self, key: ReplicaKey) -> Option<Place> {
        self.lock().book.place(key)
    }

    /// Whether there is such a pack.
    pub(super) fn knows(&self, number: u64) -> bool {
        self.lock().book.pack(number).is_some()
    }

    /// Packs, live bytes and dead bytes.
    pub(super) fn totals(&self) -> [u64; 4] {
        self.lock().book.totals()
    }

    /// Where a packed replica lies, and its pack, if that is open for readers.
    pub(super) fn at_hand(&self, key: ReplicaKey) -> Option<AtHand> {
        let mut state = self.lock();
        let place = state.book.place(key)?;
        Some(AtHand {
            place,
            file: state.handles.get(place.pack)?,
            salt: state.salts.get(&place.pack).copied(),
        })
    }

    /// An open pack and its salt. Blocks.
    pub(super) fn file(&self, number: u64) -> io::Result<(Arc<dyn DiskFile>, Option<u128>)> {
        let mut state = self.lock();
        let salt = state.salts.get(&number).copied();
        if let Some(file) = state.handles.get(number) {
            return Ok((file, salt));
        }
        // Who looks for a chunk takes the lock on threads that must not wait for a disk: it is not held here.
        drop(state);
        let path = pack_path(&self.root, number);
        let file = self.disk.open(&path, OpenMode::Read)?;
        let mut state = self.lock();
        if state.book.pack(number).is_some() {
            state.handles.keep(number, &file);
        }
        let out = std::mem::take(&mut state.handles.out);
        drop(state);
        drop(out);
        Ok((file, salt))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
