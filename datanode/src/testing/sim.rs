//! A disk in memory that loses its power: names and bytes are volatile until they are synced, and a
//! seed says which un-synced ones had reached the platter all the same, sector by sector. A process
//! that dies alone leaves the page cache to the next one; what a failed fsync was about stays in it,
//! and no later fsync brings it to the platter unless it is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dfs_runtime::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, SharedDisk, Space};

const SECTOR: usize = 512;

#[derive(Debug, Default, Clone)]
struct Node {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that a failed fsync left in the page cache, and that count as clean.
    stuck: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct State {
    dirs: BTreeSet<PathBuf>,
    /// Directories whose names are on the platter.
    durable_dirs: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    nodes: Vec<Node>,
    /// Changes that are still carried out; the power goes with the one after them.
    left: Option<u64>,
    changes: u64,
    /// The change of this number fails if it is an fsync.
    failing: Option<u64>,
}

/// One boot of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(crate) fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    /// The power goes with the change of this number, from 1 on.
    pub(crate) fn cut_after(&self, changes: u64) {
        self.0.lock().unwrap().left = Some(changes);
    }

    /// Whether the power went.
    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().unwrap().left == Some(0)
    }

    /// Changes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().unwrap().changes
    }

    /// The change of this number, counted from the first, fails if it is an fsync.
    pub(crate) fn fail_sync_at(&self, change: u64) {
        self.0.lock().unwrap().failing = Some(change);
    }

    /// What the next process finds when this one died and the power stayed.
    pub(crate) fn after_death(&self) -> Self {
        let state = self.0.lock().unwrap();
        Self(Arc::new(Mutex::new(State {
            dirs: state.dirs.clone(),
            durable_dirs: state.durable_dirs.clone(),
            seen: state.seen.clone(),
            durable: state.durable.clone(),
            nodes: state.nodes.clone(),
            ..State::default()
        })))
    }

    /// What the next boot finds.
    pub(crate) fn after_power_cut(&self, rng: &mut fastrand::Rng) -> Self {
        let state = self.0.lock().unwrap();
        let mut next = State {
            dirs: state.settle_dirs(rng),
            ..State::default()
        };
        next.durable_dirs = next.dirs.clone();
        let paths: BTreeSet<_> = state.seen.keys().chain(state.durable.keys()).collect();
        let has_dir = |path: &Path| path.parent().is_none_or(|dir| next.dirs.contains(dir));
        for path in paths.into_iter().filter(|path| has_dir(path)) {
            let durable = state.durable.get(path);
            let seen = state.seen.get(path);
            let Some(node) = (if rng.bool() { durable } else { seen }) else {
                continue;
            };
            let bytes = settle(&state.nodes[*node], rng);
            next.durable.insert(path.clone(), next.nodes.len());
            next.nodes.push(Node {
                seen: bytes.clone(),
                durable: bytes,
                stuck: BTreeSet::new(),
            });
        }
        next.seen = next.durable.clone();
        Self(Arc::new(Mutex::new(next)))
    }

    /// As if a directory had been made by a process that was killed before it made the name durable.
    pub(crate) fn unsync_dir(&self, dir: &Path) {
        self.0.lock().unwrap().durable_dirs.remove(dir);
    }

    /// Paths of the files below `dir`.
    pub(crate) fn files(&self, dir: &Path) -> Vec<PathBuf> {
        let state = self.0.lock().unwrap();
        let below = state.seen.keys().filter(|path| path.starts_with(dir));
        below.cloned().collect()
    }

    /// Changes a file at rest.
    pub(crate) fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock().unwrap();
        let node = state.seen[path];
        change(&mut state.nodes[node].seen);
        state.nodes[node].durable = state.nodes[node].seen.clone();
    }

    fn read<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        if state.left == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        work(&mut state)
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.read(|state| {
            state.changes += 1;
            if let Some(left) = &mut state.left {
                *left -= 1;
                if *left == 0 {
                    return Err(io::Error::other("the power goes"));
                }
            }
            work(state)
        })
    }
}

impl State {
    /// Each directory with a durable name, and some of the others, if it is in one of those.
    fn settle_dirs(&self, rng: &mut fastrand::Rng) -> BTreeSet<PathBuf> {
        let mut left = BTreeSet::new();
        for dir in &self.dirs {
            let has_parent = dir.parent().is_none_or(|parent| left.contains(parent));
            if has_parent && (self.durable_dirs.contains(dir) || rng.bool()) {
                left.insert(dir.clone());
            }
        }
        left
    }
}

/// Each sector as it was, or as it was to be.
fn settle(node: &Node, rng: &mut fastrand::Rng) -> Vec<u8> {
    let Node {
        seen,
        durable,
        stuck,
    } = node;
    if seen == durable {
        return durable.clone();
    }
    let length = if rng.bool() { seen } else { durable }.len();
    let mut bytes = vec![0; length];
    for at in (0..length).step_by(SECTOR) {
        let lost = stuck.contains(&(at / SECTOR));
        let from = if rng.bool() && !lost { seen } else { durable };
        let end = length.min(at + SECTOR);
        for (place, byte) in bytes[at..end].iter_mut().zip(from.iter().skip(at)) {
            *place = *byte;
        }
    }
    bytes
}

fn sector(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..bytes.len().min(at + SECTOR)).unwrap_or(&[])
}

fn missing<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing = self.change(|state| {
            let dirs = path.ancestors().map(Path::to_path_buf);
            let missing: Vec<_> = dirs.filter(|dir| !state.dirs.contains(dir)).collect();
            state.dirs.extend(missing.iter().cloned());
            Ok(missing)
        })?;
        for dir in missing {
            match dir.parent() {
                Some(parent) => self.sync_dir(parent)?,
                None => self.read(|state| {
                    state.durable_dirs.insert(dir);
                    Ok(())
                })?,
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let known = self.read(|state| Ok(state.seen.get(path).copied()))?;
        let node = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(node), _) => node,
            (None, OpenMode::Read | OpenMode::ReadWrite | OpenMode::Direct) => return missing(),
            (None, OpenMode::CreateNew | OpenMode::OpenOrCreate) => self.change(|state| {
                state.nodes.push(Node::default());
                let node = state.nodes.len() - 1;
                state.seen.insert(path.to_path_buf(), node);
                Ok(node)
            })?,
        };
        let disk = self.clone();
        Ok(Arc::new(SimFile { disk, node }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| match state.seen.remove(from) {
            Some(node) => {
                state.seen.insert(to.to_path_buf(), node);
                Ok(())
            }
            None => missing(),
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| match state.seen.remove(path) {
            Some(_) => Ok(()),
            None => missing(),
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.read(|state| {
            if !state.dirs.contains(dir) {
                return missing();
            }
            let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
            let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
            let mut entries: Vec<_> = dirs
                .map(|path| DirEntry {
                    name: name(path),
                    is_dir: true,
                    length: 0,
                })
                .collect();
            let files = state
                .seen
                .iter()
                .filter(|(path, _)| path.parent() == Some(dir));
            entries.extend(files.map(|(path, node)| DirEntry {
                name: name(path),
                is_dir: false,
                length: state.nodes[*node].seen.len() as u64,
            }));
            Ok(entries)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| {
            if state.failing == Some(state.changes) {
                return Err(io::Error::other("the fsync fails"));
            }
            let made = state.dirs.iter().filter(|path| path.parent() == Some(dir));
            state.durable_dirs.extend(made.cloned());
            state.durable.retain(|path, _| path.parent() != Some(dir));
            let seen = state
                .seen
                .iter()
                .filter(|(path, _)| path.parent() == Some(dir));
            let seen: Vec<_> = seen.map(|(path, node)| (path.clone(), *node)).collect();
            state.durable.extend(seen);
            Ok(())
        })
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space {
            total: 1 << 40,
            available: 1 << 40,
        })
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn DiskLock>> {
        Ok(Box::new(SimLock))
    }
}

#[derive(Debug)]
struct SimLock;

impl DiskLock for SimLock {}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read(|state| {
            let bytes = &state.nodes[self.node].seen;
            let from = usize::try_from(offset).unwrap().min(bytes.len());
            let count = buffer.len().min(bytes.len() - from);
            buffer[..count].copy_from_slice(&bytes[from..from + count]);
            Ok(count)
        })
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.change(|state| {
            let node = &mut state.nodes[self.node];
            let bytes = &mut node.seen;
            let from = usize::try_from(offset).unwrap();
            if bytes.len() < from + data.len() {
                bytes.resize(from + data.len(), 0);
            }
            bytes[from..from + data.len()].copy_from_slice(data);
            let sectors = from / SECTOR..(from + data.len()).div_ceil(SECTOR);
            node.stuck.retain(|sector| !sectors.contains(sector));
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.disk
            .read(|state| Ok(state.nodes[self.node].seen.len() as u64))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.change(|state| {
            let length = usize::try_from(length).unwrap();
            state.nodes[self.node].seen.resize(length, 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(|state| {
            let node = &mut state.nodes[self.node];
            let changed: Vec<_> = (0..node.seen.len())
                .step_by(SECTOR)
                .filter(|at| sector(&node.seen, *at) != sector(&node.durable, *at))
                .collect();
            if state.failing == Some(state.changes) {
                node.stuck.extend(changed.iter().map(|at| at / SECTOR));
                return Err(io::Error::other("the fsync fails"));
            }
            node.durable.resize(node.seen.len(), 0);
            for at in changed {
                if !node.stuck.contains(&(at / SECTOR)) {
                    let end = node.seen.len().min(at + SECTOR);
                    node.durable[at..end].copy_from_slice(&node.seen[at..end]);
                }
            }
            Ok(())
        })
    }
}
