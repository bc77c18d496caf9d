//! A disk that fails on demand, over any other disk.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use dfs_runtime::disk::{
    DirEntry, Disk, DiskFile, DiskLock, OpenMode, SharedDisk, Space, check_direct,
};
use rustix::io::Errno;

use super::faults::{CallKind, DiskCall, DiskFaults, Effect, Room, io_error};
use super::lock;
use super::volatile::{VolatileDisk, VolatileFile};

/// One boot of a role sees its disk through one of these; the faults are the test's to change.
#[derive(Debug)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Inner,
    faults: DiskFaults,
    /// True once revoked. Calls hold it for reading, so that revoking waits for those in flight.
    revoked: RwLock<bool>,
    locks: Mutex<Locks>,
    /// Growth of files is counted one write at a time when the room is limited.
    growing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Locks {
    next: u64,
    held: HashMap<u64, Box<dyn DiskLock>>,
}

/// An opened file, and the same again where its disk is volatile.
type Opened = (Arc<dyn DiskFile>, Option<Arc<VolatileFile>>);

#[derive(Debug)]
enum Inner {
    Any(SharedDisk),
    Volatile(Arc<VolatileDisk>),
}

impl FaultyDisk {
    /// Over any disk.
    pub fn over(inner: SharedDisk, faults: DiskFaults) -> Arc<Self> {
        Self::new(Inner::Any(inner), faults)
    }

    /// Over a volatile disk. Here a failed sync also loses the bytes that it should have pushed, as
    /// on Linux: a later sync that succeeds proves nothing about them (I14).
    pub fn over_volatile(inner: Arc<VolatileDisk>, faults: DiskFaults) -> Arc<Self> {
        Self::new(Inner::Volatile(inner), faults)
    }

    fn new(inner: Inner, faults: DiskFaults) -> Arc<Self> {
        let shared = Shared {
            inner,
            faults,
            revoked: RwLock::new(false),
            locks: Mutex::default(),
            growing: Mutex::new(()),
        };
        Arc::new(Self {
            shared: Arc::new(shared),
        })
    }

    /// The handle to its faults.
    pub fn faults(&self) -> &DiskFaults {
        &self.shared.faults
    }

    /// Ends this boot, as the death of a process does: waits for the calls in flight, releases the
    /// locks, and fails every later call through this object. What was written stays.
    pub fn revoke(&self) {
        let mut revoked = self
            .shared
            .revoked
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *revoked = true;
        lock(&self.shared.locks).held.clear();
    }

    /// Lets the volume hold `total` bytes; what lies under `root` already counts. Writes beyond it
    /// put down what fits, then fail with ENOSPC. [`DiskFaults::grow_to`] changes the size.
    pub fn limit_room(&self, root: &Path, total: u64) -> io::Result<()> {
        let used = tree_bytes(self.shared.disk(), root)?;
        self.shared.faults.set_room(Some(Room { total, used }));
        Ok(())
    }
}

fn tree_bytes(disk: &dyn Disk, dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in disk.list(dir)? {
        bytes += if entry.is_dir {
            tree_bytes(disk, &dir.join(&entry.name))?
        } else {
            entry.length
        };
    }
    Ok(bytes)
}

/// The room of a volume without a limit.
const AMPLE: Space = Space {
    total: 1 << 40,
    available: 1 << 40,
};

impl Shared {
    fn disk(&self) -> &dyn Disk {
        match &self.inner {
            Inner::Any(disk) => disk.as_ref(),
            Inner::Volatile(disk) => disk.as_ref(),
        }
    }

    /// Keeps the boot alive for the length of one call.
    fn boot(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        if *revoked {
            return Err(io::Error::other("this boot of the disk has ended"));
        }
        Ok(revoked)
    }

    /// Counts, delays, and perhaps fails a call. The effects that are left are the caller's to do.
    fn admit(&self, kind: CallKind, path: &Path) -> io::Result<Option<Effect>> {
        let verdict = self.faults.judge(kind, path);
        if !verdict.delay.is_zero() {
            std::thread::sleep(verdict.delay);
        }
        match verdict.effect {
            Some(Effect::Fail(errno)) => Err(io_error(errno)),
            Some(Effect::Torn(_)) if kind != CallKind::Write => Err(io_error(Errno::IO)),
            left => Ok(left),
        }
    }

    fn run<T>(
        &self,
        call: DiskCall,
        work: impl FnOnce(&dyn Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        let boot = self.boot()?;
        let result = self
            .admit(call.kind, &call.path)
            .and_then(|_| work(self.disk()));
        drop(boot);
        self.log(call, result)
    }

    fn log<T>(&self, mut call: DiskCall, result: io::Result<T>) -> io::Result<T> {
        call.succeeded = result.is_ok();
        self.faults.record(call);
        result
    }

    /// Bytes that would be free again if the name at `path` went.
    fn bytes_at(&self, path: &Path) -> u64 {
        if self.faults.room().is_none() {
            return 0;
        }
        let file = self.disk().open(path, OpenMode::Read);
        file.and_then(|file| file.length()).unwrap_or(0)
    }
}

fn call(kind: CallKind, path: &Path) -> DiskCall {
    DiskCall {
        kind,
        path: path.to_path_buf(),
        to: None,
        offset: 0,
        length: 0,
        succeeded: false,
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let call = call(CallKind::CreateDir, path);
        self.shared.run(call, |disk| disk.create_dir_all(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let kind = match mode {
            OpenMode::Read | OpenMode::ReadWrite | OpenMode::Direct => CallKind::Open,
            OpenMode::CreateNew | OpenMode::OpenOrCreate => CallKind::Create,
        };
        let is_direct = mode == OpenMode::Direct;
        // What is direct is checked here: a torn write is not aligned.
        let mode = if is_direct { OpenMode::ReadWrite } else { mode };
        let open = |_: &dyn Disk| -> io::Result<Opened> {
            match &self.shared.inner {
                Inner::Any(disk) => Ok((disk.open(path, mode)?, None)),
                Inner::Volatile(disk) => {
                    let file = disk.open_volatile(path, mode)?;
                    Ok((file.clone(), Some(file)))
                }
            }
        };
        let (inner, volatile) = self.shared.run(call(kind, path), open)?;
        Ok(Arc::new(FaultyFile {
            shared: self.shared.clone(),
            path: path.to_path_buf(),
            inner,
            volatile,
            is_direct,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut call = call(CallKind::Rename, from);
        call.to = Some(to.to_path_buf());
        self.shared.run(call, |disk| {
            let replaced = if from == to {
                0
            } else {
                self.shared.bytes_at(to)
            };
            disk.rename(from, to)?;
            self.shared.faults.give_room(replaced);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.shared.run(call(CallKind::Remove, path), |disk| {
            let freed = self.shared.bytes_at(path);
            disk.remove(path)?;
            self.shared.faults.give_room(freed);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared
            .run(call(CallKind::List, dir), |disk| disk.list(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let boot = self.shared.boot()?;
        let result = match self.shared.admit(CallKind::SyncDir, dir) {
            Ok(Some(Effect::SkipSync)) => Ok(()),
            Ok(_) => self.shared.disk().sync_dir(dir),
            Err(error) => Err(error),
        };
        drop(boot);
        self.shared.log(call(CallKind::SyncDir, dir), result)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let call = call(CallKind::Space, dir);
        self.shared
            .run(call, |disk| match self.shared.faults.room() {
                // The machine's own disk may be so full that trash gives way, and other work fills it.
                None if matches!(self.shared.inner, Inner::Volatile(_)) => Ok(AMPLE),
                None => disk.space(dir),
                Some(Room { total, used }) => Ok(Space {
                    total,
                    available: total.saturating_sub(used),
                }),
            })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let call = call(CallKind::Lock, path);
        let held = self.shared.run(call, |disk| disk.lock(path))?;
        let mut locks = lock(&self.shared.locks);
        locks.next += 1;
        let id = locks.next;
        locks.held.insert(id, held);
        let shared = self.shared.clone();
        Ok(Box::new(FaultyLock { shared, id }))
    }
}

/// The lock itself is kept by the disk, so that revoking releases it whoever holds this.
#[derive(Debug)]
struct FaultyLock {
    shared: Arc<Shared>,
    id: u64,
}

impl DiskLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let held = lock(&self.shared.locks).held.remove(&self.id);
        drop(held);
    }
}

#[derive(Debug)]
struct FaultyFile {
    shared: Arc<Shared>,
    /// As it was opened; renames do not change it.
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
    volatile: Option<Arc<VolatileFile>>,
    is_direct: bool,
}

impl FaultyFile {
    fn run<T>(
        &self,
        call: DiskCall,
        work: impl FnOnce(Option<Effect>) -> io::Result<T>,
    ) -> io::Result<T> {
        let boot = self.shared.boot()?;
        let result = self.shared.admit(call.kind, &self.path).and_then(work);
        drop(boot);
        self.shared.log(call, result)
    }

    fn call(&self, kind: CallKind, offset: u64, length: u64) -> DiskCall {
        let mut call = call(kind, &self.path);
        call.offset = offset;
        call.length = length;
        call
    }

    fn read(
        &self,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        let call = self.call(CallKind::Read, offset, buffer.len() as u64);
        self.run(call, |effect| {
            let read = read(buffer)?;
            if effect == Some(Effect::FlipBit)
                && let Some(first) = buffer[..read].first_mut()
            {
                *first ^= 1;
            }
            Ok(read)
        })
    }

    /// Writes what the room allows; the rest is ENOSPC.
    fn write_within_room(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.shared.faults.room().is_none() {
            return self.inner.write_all_at(data, offset);
        }
        let _growing = lock(&self.shared.growing);
        let end = offset + data.len() as u64;
        let growth = end.saturating_sub(self.inner.length()?);
        let granted = self.shared.faults.take_room(growth);
        let missing = usize::try_from(growth - granted).map_err(io::Error::other)?;
        let fits = data.len().saturating_sub(missing);
        self.inner.write_all_at(&data[..fits], offset)?;
        if missing > 0 {
            return Err(io_error(Errno::NOSPC));
        }
        Ok(())
    }

    fn set_length_within_room(&self, length: u64) -> io::Result<()> {
        if self.shared.faults.room().is_none() {
            return self.inner.set_length(length);
        }
        let _growing = lock(&self.shared.growing);
        let before = self.inner.length()?;
        let growth = length.saturating_sub(before);
        let granted = self.shared.faults.take_room(growth);
        if granted < growth {
            self.shared.faults.give_room(granted);
            return Err(io_error(Errno::NOSPC));
        }
        self.inner.set_length(length)?;
        self.shared.faults.give_room(before.saturating_sub(length));
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buffer, |buffer| self.inner.read_at(buffer, offset), offset)
    }

    /// A disk whose reads are delayed has nothing in memory.
    fn read_now_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.shared.faults.delays(CallKind::Read, &self.path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read_now = |buffer: &mut [u8]| self.inner.read_now_at(buffer, offset);
        self.read(buffer, read_now, offset)
    }

    /// What is sent to a socket then is read as everything else, and fails as ordered.
    fn is_in_memory(&self, offset: u64, length: u64) -> bool {
        !self.shared.faults.delays(CallKind::Read, &self.path)
            && self.inner.is_in_memory(offset, length)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.is_direct {
            check_direct(data, offset)?;
        }
        let call = self.call(CallKind::Write, offset, data.len() as u64);
        self.run(call, |effect| match effect {
            Some(Effect::Torn(keep)) => {
                self.write_within_room(&data[..keep.min(data.len())], offset)?;
                Err(io_error(Errno::IO))
            }
            Some(Effect::SilentlyTorn(keep)) => {
                self.write_within_room(&data[..keep.min(data.len())], offset)
            }
            Some(Effect::Fail(_) | Effect::FlipBit | Effect::SkipSync | Effect::Delay(_))
            | None => self.write_within_room(data, offset),
        })
    }

    /// A write like any other: faults and limits count it once, whatever the machine's own disk can do.
    fn write_dontcache_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write_parts_at(parts, offset)
    }

    fn length(&self) -> io::Result<u64> {
        let _boot = self.shared.boot()?;
        self.inner.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let call = self.call(CallKind::SetLength, 0, length);
        self.run(call, |_| self.set_length_within_room(length))
    }

    fn sync(&self) -> io::Result<()> {
        let call = self.call(CallKind::Sync, 0, 0);
        let boot = self.shared.boot()?;
        let result = match self.shared.admit(CallKind::Sync, &self.path) {
            Ok(Some(Effect::SkipSync)) => Ok(()),
            Ok(_) => self.inner.sync(),
            Err(error) => {
                if let Some(file) = &self.volatile {
                    file.lose_unsynced();
                }
                Err(error)
            }
        };
        drop(boot);
        self.shared.log(call, result)
    }
}
