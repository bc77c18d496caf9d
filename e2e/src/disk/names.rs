//! The names of a volume: what the directories hold, and the renames, creations and removals that
//! no directory sync has made durable yet.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// One change of names, by the paths that callers see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameOp {
    /// The real file is made at once, empty; a power cut takes the name away again.
    Create(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
}

impl NameOp {
    fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Create(path) | Self::Remove(path) => vec![path],
            Self::Rename { from, to } => vec![from, to],
        }
    }

    /// Whether syncing `dir` makes it durable.
    fn belongs_to(&self, dir: &Path) -> bool {
        let path = match self {
            Self::Create(path) | Self::Remove(path) => path,
            Self::Rename { to, .. } => to,
        };
        path.parent() == Some(dir)
    }
}

/// A name op that took effect on the real directories; for whoever keys things by real path.
#[derive(Debug)]
pub(super) enum Applied {
    Renamed { from: PathBuf, to: PathBuf },
    Removed(PathBuf),
}

/// Pending name ops, in order, and the view that they make.
#[derive(Debug, Default)]
pub(super) struct Names {
    pending: Vec<NameOp>,
    /// Seen path -> real path, or `None` when the name is gone. Paths not here are as on the disk.
    view: HashMap<PathBuf, Option<PathBuf>>,
}

impl Names {
    /// Where the file seen at `path` really is, when there is one.
    pub(super) fn resolve(&self, path: &Path) -> Option<PathBuf> {
        match self.view.get(path) {
            Some(real) => real.clone(),
            None if path.exists() => Some(path.to_path_buf()),
            None => None,
        }
    }

    /// Whether what is seen at `path` is not what the disk has there.
    pub(super) fn is_overridden(&self, path: &Path) -> bool {
        self.view.contains_key(path)
    }

    /// Names that the view adds or moves within `dir`, with their real places.
    pub(super) fn seen_in(&self, dir: &Path) -> Vec<(PathBuf, PathBuf)> {
        let within = |(seen, real): (&PathBuf, &Option<PathBuf>)| {
            let real = real.clone().filter(|_| seen.parent() == Some(dir))?;
            Some((seen.clone(), real))
        };
        self.view.iter().filter_map(within).collect()
    }

    pub(super) fn add(&mut self, op: NameOp) {
        fold(&mut self.view, &op);
        self.pending.push(op);
    }

    /// Makes the ops of `dir` durable, with the ops before them that they build on.
    pub(super) fn settle_dir(&mut self, dir: &Path) -> io::Result<Vec<Applied>> {
        self.settle(|op| op.belongs_to(dir))
    }

    /// Makes the ops that touch `path` durable: the kernel may write a directory back at any time.
    pub(super) fn settle_path(&mut self, path: &Path) -> io::Result<Vec<Applied>> {
        self.settle(|op| op.paths().contains(&path))
    }

    fn settle(&mut self, wanted: impl Fn(&NameOp) -> bool) -> io::Result<Vec<Applied>> {
        let mut needed: HashSet<PathBuf> = HashSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (index, op) in self.pending.iter().enumerate().rev() {
            let touches = op.paths().iter().any(|path| needed.contains(*path));
            if touches || wanted(op) {
                chosen[index] = true;
                needed.extend(op.paths().into_iter().map(Path::to_path_buf));
            }
        }
        self.apply(&chosen)
    }

    /// Makes a random part of the ops durable, never one without those that it builds on.
    pub(super) fn settle_some(&mut self, rng: &mut fastrand::Rng) -> io::Result<Vec<Applied>> {
        let share = [0.0, 0.5, 1.0][rng.usize(..3)];
        let mut left_out: HashSet<PathBuf> = HashSet::new();
        let mut chosen = Vec::with_capacity(self.pending.len());
        for op in &self.pending {
            let blocked = op.paths().iter().any(|path| left_out.contains(*path));
            let keep = !blocked && rng.f64() < share;
            if !keep {
                left_out.extend(op.paths().into_iter().map(Path::to_path_buf));
            }
            chosen.push(keep);
        }
        self.apply(&chosen)
    }

    /// Forgets every pending op, as a power cut does: un-synced creations lose their names.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.view.clear();
        for op in self.pending.drain(..) {
            if let NameOp::Create(path) = op {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, chosen: &[bool]) -> io::Result<Vec<Applied>> {
        let mut applied = Vec::new();
        let mut left = Vec::new();
        for (op, chosen) in self.pending.drain(..).zip(chosen) {
            if !chosen {
                left.push(op);
                continue;
            }
            match op {
                NameOp::Create(_) => {}
                NameOp::Rename { from, to } => {
                    std::fs::rename(&from, &to)?;
                    applied.push(Applied::Renamed { from, to });
                }
                NameOp::Remove(path) => {
                    std::fs::remove_file(&path)?;
                    applied.push(Applied::Removed(path));
                }
            }
        }
        self.pending = left;
        self.view.clear();
        for op in &self.pending {
            fold(&mut self.view, op);
        }
        Ok(applied)
    }
}

fn fold(view: &mut HashMap<PathBuf, Option<PathBuf>>, op: &NameOp) {
    match op {
        NameOp::Create(path) => {
            view.insert(path.clone(), Some(path.clone()));
        }
        NameOp::Rename { from, to } => {
            let real = view.insert(from.clone(), None);
            let real = real.flatten().unwrap_or_else(|| from.clone());
            view.insert(to.clone(), Some(real));
        }
        NameOp::Remove(path) => {
            view.insert(path.clone(), None);
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
