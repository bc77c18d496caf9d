//! Stand-ins for the tests of this crate: a disk that records and fails, a clock that is set.

pub(crate) mod nodes;
pub(crate) mod sim;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dfs_runtime::clock::Clock;
use dfs_runtime::disk::{
    DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, SharedDisk, Space, check_direct,
};

/// What reached the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskOp {
    Write(PathBuf),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncDir(PathBuf),
    Remove(PathBuf),
}

/// What fails from now on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// fsync of files.
    pub(crate) sync: bool,
    /// fsync of `chunks/` and directories under it, of `packs/` and of `journal/`.
    pub(crate) sync_dir: bool,
    /// Writes of more than a header, and all writes to packs, fail with this error number.
    pub(crate) write: Option<i32>,
    /// Reads past the header fail with this error number.
    pub(crate) read: Option<i32>,
    /// Reads of packs that meet these bytes fail.
    pub(crate) bad: Option<(u64, u64)>,
    /// Nothing is in the page cache.
    pub(crate) cold: bool,
    /// Opening chunks and packs for reading fails with this error number.
    pub(crate) open: Option<i32>,
    /// Room on the file system, total and available.
    pub(crate) space: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct State {
    ops: Mutex<Vec<DiskOp>>,
    faults: Mutex<Faults>,
    held: Mutex<Option<Held>>,
    outcome: Mutex<Option<Outcome>>,
    freed: Condvar,
}

/// What waits until [`TestDisk::release`]: calls about files whose paths have this in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Syncs(&'static str),
    Writes(&'static str),
    /// Removals and renames of what has the path.
    Takes(&'static str),
}

/// What becomes of the call that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fails(i32),
    Panics,
}

/// The real disk with a record of what was done, and faults.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestDisk(Arc<State>);

impl TestDisk {
    pub(crate) fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    pub(crate) fn set(&self, faults: Faults) {
        *self.0.faults.lock().unwrap() = faults;
    }

    /// Everything done so far; the record begins anew.
    pub(crate) fn take_ops(&self) -> Vec<DiskOp> {
        std::mem::take(&mut self.0.ops.lock().unwrap())
    }

    /// From now on fsyncs of files wait until [`TestDisk::release`].
    pub(crate) fn hold(&self) {
        self.hold_at(Held::Syncs(""));
    }

    pub(crate) fn hold_at(&self, held: Held) {
        *self.0.held.lock().unwrap() = Some(held);
    }

    /// Lets what was held go on.
    pub(crate) fn release(&self) {
        *self.0.held.lock().unwrap() = None;
        self.0.freed.notify_all();
    }

    /// Lets what was held go on; the first of it ends like this.
    pub(crate) fn release_to(&self, outcome: Outcome) {
        *self.0.outcome.lock().unwrap() = Some(outcome);
        self.release();
    }

    /// Whether a write to a file below `dir` was begun since the record began.
    pub(crate) fn began_write(&self, dir: &str) -> bool {
        let ops = self.0.ops.lock().unwrap();
        ops.iter()
            .any(|op| matches!(op, DiskOp::Write(path) if path.to_string_lossy().contains(dir)))
    }

    /// Whether an fsync of a file below `dir` was begun since the record began.
    pub(crate) fn began_sync(&self, dir: &str) -> bool {
        let ops = self.0.ops.lock().unwrap();
        ops.iter()
            .any(|op| matches!(op, DiskOp::Sync(path) if path.to_string_lossy().contains(dir)))
    }

    /// Waits as long as calls of this kind about this path are held.
    fn wait_while_held(&self, path: &Path, kind: fn(&'static str) -> Held) -> io::Result<()> {
        let path = path.to_string_lossy();
        let holds = |held: &Held| {
            let (Held::Syncs(part) | Held::Writes(part) | Held::Takes(part)) = *held;
            *held == kind(part) && path.contains(part)
        };
        let mut held = self.0.held.lock().unwrap();
        let mut waited = false;
        while held.as_ref().is_some_and(holds) {
            waited = true;
            held = self.0.freed.wait(held).unwrap();
        }
        drop(held);
        let outcome = waited.then(|| self.0.outcome.lock().unwrap().take());
        match outcome.flatten() {
            Some(Outcome::Fails(error)) => Err(os(error)),
            Some(Outcome::Panics) => panic!("a call that a test made to panic"),
            None => Ok(()),
        }
    }

    fn note(&self, op: DiskOp) {
        self.0.ops.lock().unwrap().push(op);
    }

    fn faults(&self) -> Faults {
        *self.0.faults.lock().unwrap()
    }
}

fn os(error: i32) -> io::Error {
    io::Error::from_raw_os_error(error)
}

pub(crate) const EIO: i32 = 5;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENOSPC: i32 = 28;

impl Disk for TestDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        std::fs::create_dir_all(path)?;
        // Here, so that it is noted and may fail.
        let mut parents = missing.iter().filter_map(|dir| dir.parent());
        parents.try_for_each(|parent| self.sync_dir(parent))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let below = |dir: &str| path.components().any(|part| part.as_os_str() == dir);
        let is_data = below("chunks") || below("packs");
        if let (OpenMode::Read, true, Some(error)) = (mode, is_data, self.faults().open) {
            return Err(os(error));
        }
        let is_direct = mode == OpenMode::Direct;
        // Which file systems can write directly is nobody's promise.
        let mode = if is_direct { OpenMode::ReadWrite } else { mode };
        Ok(Arc::new(TestFile {
            disk: self.clone(),
            path: path.to_path_buf(),
            inner: RealDisk.open(path, mode)?,
            is_direct,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(DiskOp::Rename(from.to_path_buf(), to.to_path_buf()));
        self.wait_while_held(from, Held::Takes)?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(DiskOp::Remove(path.to_path_buf()));
        self.wait_while_held(path, Held::Takes)?;
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(DiskOp::SyncDir(dir.to_path_buf()));
        let named = dir.to_string_lossy();
        let fails = |dir: &&str| named.contains(*dir);
        if self.faults().sync_dir && ["chunks", "packs", "journal"].iter().any(fails) {
            return Err(os(EIO));
        }
        RealDisk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        match self.faults().space {
            Some((total, available)) => Ok(Space { total, available }),
            None => RealDisk.space(dir),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }
}

#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
    is_direct: bool,
}

impl TestFile {
    fn is_pack(&self) -> bool {
        self.path.extension().is_some_and(|end| end == "pack")
    }
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let faults = self.disk.faults();
        let meets = |(from, to): (u64, u64)| offset < to && offset + buffer.len() as u64 > from;
        match faults.read {
            _ if self.is_pack() && faults.bad.is_some_and(meets) => Err(os(EIO)),
            Some(error) if offset >= 4096 || self.is_pack() => Err(os(error)),
            _ => self.inner.read_at(buffer, offset),
        }
    }

    fn read_now_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.disk.faults().cold {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Not the inner one's: which bytes of a test's files the page cache holds is nobody's promise.
        self.read_at(buffer, offset)
    }

    fn is_in_memory(&self, _offset: u64, _length: u64) -> bool {
        !self.disk.faults().cold
    }

    fn send_to(&self, socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        match self.disk.faults().read {
            Some(error) => Err(os(error)),
            None => self.inner.send_to(socket, offset, length),
        }
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.note(DiskOp::Write(self.path.clone()));
        self.disk.wait_while_held(&self.path, Held::Writes)?;
        if self.is_direct {
            check_direct(data, offset)?;
        }
        match self.disk.faults().write {
            Some(error) if offset >= 4096 || self.is_pack() => Err(os(error)),
            _ => self.inner.write_all_at(data, offset),
        }
    }

    fn write_dontcache_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write_parts_at(parts, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.note(DiskOp::Sync(self.path.clone()));
        self.disk.wait_while_held(&self.path, Held::Syncs)?;
        if self.disk.faults().sync {
            return Err(os(EIO));
        }
        self.inner.sync()
    }
}

/// A clock that stands until it is moved.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> jiff::Timestamp {
        let millis = i64::try_from(self.0.load(Ordering::SeqCst)).unwrap();
        jiff::Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
    }
}

/// Waits until `what` holds, or panics after a generous time.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..9000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
