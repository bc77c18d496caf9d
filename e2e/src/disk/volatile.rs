//! A disk whose un-synced writes live in this process's memory, and die with it.
//!
//! The real directory holds what a power cut would leave: bytes get there on [`DiskFile::sync`],
//! renames, creations and removals on [`Disk::sync_dir`]. So `kill -9` of a process that uses this
//! disk, or [`VolatileDisk::power_cut`] within a test, loses all un-synced state. (A new file is
//! made at once, empty: after `kill -9` it stays, after [`VolatileDisk::power_cut`] it is gone; both are
//! legal ends of a power cut.) Nothing calls the machine's own fsync: it is a disk for tests.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dfs_runtime::disk::{
    DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space, check_direct,
};

use super::lock;
use super::names::{Applied, NameOp, Names};
use super::overlay::Overlay;

/// See the module's words. One object is one boot of the machine: after a power cut every call
/// fails; start the next boot with [`VolatileDisk::new`] over the same directory.
#[derive(Debug)]
pub struct VolatileDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    off: AtomicBool,
    state: Mutex<State>,
    next_lock: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    /// By real path: files that are open, or hold un-synced bytes.
    files: HashMap<PathBuf, Arc<FileState>>,
    locks: HashMap<u64, Box<dyn DiskLock>>,
}

#[derive(Debug)]
struct FileState {
    overlay: Mutex<Overlay>,
    handles: AtomicU64,
}

impl VolatileDisk {
    /// A machine that has just booted over what its real directories hold.
    pub fn new() -> Arc<Self> {
        let shared = Shared {
            off: AtomicBool::new(false),
            state: Mutex::new(State::default()),
            next_lock: AtomicU64::new(0),
        };
        Arc::new(Self {
            shared: Arc::new(shared),
        })
    }

    /// Drops all un-synced state. Every later call through this object or its handles fails.
    pub fn power_cut(&self) -> io::Result<()> {
        self.shared.off.store(true, Ordering::SeqCst);
        let mut state = lock(&self.shared.state);
        state.locks.clear();
        state.wait_for_calls();
        state.files.clear();
        state.names.forget()
    }

    /// As [`VolatileDisk::power_cut`], but a random part of the un-synced state had already
    /// reached the disk: some names, some pages of a file, some pages torn.
    pub fn power_cut_keeping(&self, rng: &mut fastrand::Rng) -> io::Result<()> {
        self.shared.off.store(true, Ordering::SeqCst);
        let mut state = lock(&self.shared.state);
        state.locks.clear();
        // In the order of paths: the same seed must give the same disk.
        let files: BTreeMap<PathBuf, Arc<FileState>> = state.files.drain().collect();
        for file in files.values() {
            lock(&file.overlay).push_some(rng)?;
        }
        state.names.settle_some(rng)?;
        state.names.forget()
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.shared.off.load(Ordering::SeqCst)
    }

    /// As [`Disk::open`], typed.
    pub fn open_volatile(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<VolatileFile>> {
        let path = key(path)?;
        let mut state = self.shared.state()?;
        let real = match (state.names.resolve(&path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(real), _) => real,
            (None, OpenMode::Read | OpenMode::ReadWrite | OpenMode::Direct) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, OpenMode::CreateNew | OpenMode::OpenOrCreate) => {
                state.create(&path)?;
                path
            }
        };
        let file = state.file(&real)?;
        file.handles.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(VolatileFile {
            shared: self.shared.clone(),
            file,
            may_write: mode != OpenMode::Read,
            is_direct: mode == OpenMode::Direct,
        }))
    }
}

impl Shared {
    fn state(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let state = lock(&self.state);
        self.check_power()?;
        Ok(state)
    }

    fn check_power(&self) -> io::Result<()> {
        if self.off.load(Ordering::SeqCst) {
            return Err(io::Error::other("the power of this disk is off"));
        }
        Ok(())
    }
}

impl State {
    fn create(&mut self, path: &Path) -> io::Result<()> {
        // A file whose removal or renaming is pending may still sit at the real path.
        let applied = self.names.settle_path(path)?;
        self.rekey(applied);
        OpenOptions::new().write(true).create_new(true).open(path)?;
        self.names.add(NameOp::Create(path.to_path_buf()));
        Ok(())
    }

    fn file(&mut self, real: &Path) -> io::Result<Arc<FileState>> {
        if let Some(file) = self.files.get(real) {
            return Ok(file.clone());
        }
        let opened = OpenOptions::new().read(true).write(true).open(real)?;
        let file = Arc::new(FileState {
            overlay: Mutex::new(Overlay::new(opened)?),
            handles: AtomicU64::new(0),
        });
        self.files.insert(real.to_path_buf(), file.clone());
        Ok(file)
    }

    /// Follows names that moved on the real disk. A file that lost its name lives on in its handles.
    fn rekey(&mut self, applied: Vec<Applied>) {
        for op in applied {
            match op {
                Applied::Renamed { from, to } => {
                    self.files.remove(&to);
                    if let Some(file) = self.files.remove(&from) {
                        self.files.insert(to, file);
                    }
                }
                Applied::Removed(path) => {
                    self.files.remove(&path);
                }
            }
        }
    }

    /// Bytes of the file at a real path, as its readers see it.
    fn length(&self, real: &Path) -> io::Result<u64> {
        match self.files.get(real) {
            Some(file) => Ok(lock(&file.overlay).length()),
            None => Ok(std::fs::metadata(real)?.len()),
        }
    }

    /// Calls that passed the power check before the cut have ended when this returns.
    fn wait_for_calls(&self) {
        for file in self.files.values() {
            drop(lock(&file.overlay));
        }
    }
}

impl Disk for VolatileDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let _state = self.shared.state()?;
        std::fs::create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.open_volatile(path, mode)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (key(from)?, key(to)?);
        let mut state = self.shared.state()?;
        let real = state.names.resolve(&from).ok_or(io::ErrorKind::NotFound)?;
        if real.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the seam renames files, not directories",
            ));
        }
        if !to.parent().is_some_and(Path::is_dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if from != to {
            state.names.add(NameOp::Rename { from, to });
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = key(path)?;
        let mut state = self.shared.state()?;
        let real = state.names.resolve(&path).ok_or(io::ErrorKind::NotFound)?;
        if real.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.names.add(NameOp::Remove(path));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = key(dir)?;
        let state = self.shared.state()?;
        let mut entries = Vec::new();
        for mut entry in RealDisk.list(&dir)? {
            let path = dir.join(&entry.name);
            if state.names.is_overridden(&path) {
                continue;
            }
            if !entry.is_dir {
                entry.length = state.length(&path)?;
            }
            entries.push(entry);
        }
        for (seen, real) in state.names.seen_in(&dir) {
            let name = seen.file_name().unwrap_or_default();
            entries.push(DirEntry {
                name: name.to_string_lossy().into_owned(),
                is_dir: false,
                length: state.length(&real)?,
            });
        }
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = key(dir)?;
        let mut state = self.shared.state()?;
        if !std::fs::metadata(&dir)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let applied = state.names.settle_dir(&dir)?;
        state.rekey(applied);
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.shared.check_power()?;
        RealDisk.space(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.shared.state()?;
        let held = RealDisk.lock(path)?;
        let id = self.shared.next_lock.fetch_add(1, Ordering::SeqCst);
        state.locks.insert(id, held);
        let shared = self.shared.clone();
        Ok(Box::new(VolatileLock { shared, id }))
    }
}

/// The lock itself is kept by the disk, so that a power cut releases it whoever holds this.
#[derive(Debug)]
struct VolatileLock {
    shared: Arc<Shared>,
    id: u64,
}

impl DiskLock for VolatileLock {}

impl Drop for VolatileLock {
    fn drop(&mut self) {
        lock(&self.shared.state).locks.remove(&self.id);
    }
}

/// An open file of a [`VolatileDisk`].
#[derive(Debug)]
pub struct VolatileFile {
    shared: Arc<Shared>,
    file: Arc<FileState>,
    may_write: bool,
    is_direct: bool,
}

impl VolatileFile {
    /// What a failed fsync does on Linux: un-synced pages are still read, but no later sync pushes
    /// them, unless they are written again.
    pub fn lose_unsynced(&self) {
        lock(&self.file.overlay).lose();
    }

    fn overlay(&self) -> io::Result<std::sync::MutexGuard<'_, Overlay>> {
        let overlay = lock(&self.file.overlay);
        self.shared.check_power()?;
        Ok(overlay)
    }

    fn writable(&self) -> io::Result<std::sync::MutexGuard<'_, Overlay>> {
        if !self.may_write {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "opened for reading",
            ));
        }
        self.overlay()
    }
}

impl DiskFile for VolatileFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.overlay()?.read(buffer, offset)
    }

    fn read_now_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }

    fn is_in_memory(&self, _offset: u64, _length: u64) -> bool {
        true
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.is_direct {
            check_direct(data, offset)?;
        }
        // Also then it is durable only after a sync: the device may have a cache of its own.
        self.writable()?.write(data, offset)
    }

    fn write_dontcache_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write_parts_at(parts, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.overlay()?.length())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.writable()?.set_length(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.overlay()?.push()
    }
}

impl Drop for VolatileFile {
    /// A closed file is forgotten once it holds nothing un-synced.
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if self.file.handles.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        if !lock(&self.file.overlay).is_dirty() {
            state.files.retain(|_, file| !Arc::ptr_eq(file, &self.file));
        }
    }
}

/// The same file under one key, however its path is written.
fn key(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}
