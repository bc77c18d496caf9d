//! A disk in memory that can lose power: unsynced writes may then be there, torn, or gone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dfs_runtime::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, Space};

/// What happens at the step that was chosen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Power is gone: this step and all later ones fail.
    PowerCut,
    /// This step fails, later ones succeed: the trap of a retried fsync.
    Once,
}

#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let start = usize::try_from(*offset).unwrap();
                let end = start + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        }
    }
}

#[derive(Debug, Default, Clone)]
struct FileState {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, FileState>,
    steps: u64,
    syncs: u64,
    fail: Option<(u64, Failure)>,
    fail_next_sync: bool,
    dead: bool,
    available: u64,
}

impl State {
    fn step(&mut self, sync: bool) -> io::Result<()> {
        self.steps += 1;
        self.syncs += u64::from(sync);
        if sync && self.fail_next_sync {
            self.fail_next_sync = false;
            return Err(io::Error::other("simulated fsync error"));
        }
        match self.fail {
            Some((at, Failure::PowerCut)) if self.steps >= at => self.dead = true,
            Some((at, Failure::Once)) if self.steps == at => {
                return Err(io::Error::other("simulated error"));
            }
            _ => {}
        }
        self.alive()
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("simulated power cut"));
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(super) fn new() -> Self {
        let disk = Self(Arc::default());
        disk.set_available(1 << 40);
        disk
    }

    pub(super) fn fail_at(&self, step: u64, failure: Failure) {
        self.0.lock().unwrap().fail = Some((step, failure));
    }

    pub(super) fn fail_next_sync(&self) {
        self.0.lock().unwrap().fail_next_sync = true;
    }

    pub(super) fn failed(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.fail.is_some_and(|(at, _)| state.steps >= at)
    }

    pub(super) fn steps(&self) -> u64 {
        self.0.lock().unwrap().steps
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub(super) fn set_available(&self, bytes: u64) {
        self.0.lock().unwrap().available = bytes;
    }

    /// The disk as it is found after the power came back: synced bytes, and each unsynced write
    /// whole, torn or not at all.
    pub(super) fn after_power_cut(&self, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = Self::new();
        let old = self.0.lock().unwrap();
        let mut new = disk.0.lock().unwrap();
        for (path, file) in &old.files {
            let mut bytes = file.durable.clone();
            for pending in &file.pending {
                match (rng.u8(0..4), pending) {
                    (0, _) => {}
                    (1, Pending::Write(offset, data)) => {
                        let kept = rng.usize(0..=data.len());
                        Pending::Write(*offset, data[..kept].to_vec()).apply(&mut bytes);
                    }
                    (_, pending) => pending.apply(&mut bytes),
                }
            }
            let state = FileState {
                current: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
            };
            new.files.insert(path.clone(), state);
        }
        drop(new);
        disk
    }

    /// Flips one bit of a file.
    pub(super) fn flip(&self, path: &Path, byte: u64) {
        let mut state = self.0.lock().unwrap();
        let file = state.files.get_mut(path).unwrap();
        let at = usize::try_from(byte).unwrap();
        file.current[at] ^= 0x10;
        file.durable[at] ^= 0x10;
    }

    /// Cuts a file.
    pub(super) fn cut(&self, path: &Path, length: u64) {
        let mut state = self.0.lock().unwrap();
        let file = state.files.get_mut(path).unwrap();
        file.current.truncate(usize::try_from(length).unwrap());
        file.durable = file.current.clone();
    }

    pub(super) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.files.get(path).map(|file| file.current.clone())
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().alive()
    }

    // Names are durable at once: what is tested is bytes.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        let known = state.files.contains_key(path);
        match mode {
            OpenMode::Read | OpenMode::ReadWrite | OpenMode::Direct if !known => {
                return Err(io::ErrorKind::NotFound.into());
            }
            OpenMode::CreateNew if known => return Err(io::ErrorKind::AlreadyExists.into()),
            _ => {}
        }
        state.files.entry(path.to_owned()).or_default();
        Ok(Arc::new(SimFile {
            state: Arc::clone(&self.0),
            path: path.to_owned(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step(false)?;
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step(false)?;
        let file = state.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.available += file.current.len() as u64;
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.0.lock().unwrap();
        state.alive()?;
        let inside = state
            .files
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside
            .map(|(path, file)| DirEntry {
                name: path.file_name().unwrap().to_string_lossy().into_owned(),
                is_dir: false,
                length: file.current.len() as u64,
            })
            .collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.0.lock().unwrap().step(true)
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = self.0.lock().unwrap();
        state.alive()?;
        Ok(Space {
            total: 1 << 41,
            available: state.available,
        })
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn DiskLock>> {
        Ok(Box::new(SimLock))
    }
}

#[derive(Debug)]
struct SimLock;

impl DiskLock for SimLock {}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl SimFile {
    fn change(&self, pending: Pending) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let step = state.step(false);
        let file = state.files.entry(self.path.clone()).or_default();
        // A failing write may still have reached the disk.
        if step.is_ok() {
            pending.apply(&mut file.current);
        }
        file.pending.push(pending);
        step
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        state.alive()?;
        let file = state.files.get(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap().min(file.current.len());
        let count = buffer.len().min(file.current.len() - start);
        buffer[..count].copy_from_slice(&file.current[start..start + count]);
        Ok(count)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(Pending::Write(offset, data.to_vec()))
    }

    fn length(&self) -> io::Result<u64> {
        let state = self.state.lock().unwrap();
        state.alive()?;
        let file = state.files.get(&self.path).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.current.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(Pending::Length(length))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.step(true)?;
        let file = state.files.entry(self.path.clone()).or_default();
        file.durable = file.current.clone();
        file.pending.clear();
        Ok(())
    }
}
