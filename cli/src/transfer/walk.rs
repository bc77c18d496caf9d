//! The files below a local directory, in order of names. Symbolic links are followed; a directory
//! that is its own ancestor is a cycle.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::vec;

use dfs_protocol::InvalidName;

/// One regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the directory that was walked, with `/` between names.
    pub relative: String,
    /// Bytes.
    pub length: u64,
}

/// Something that is not copied.
#[derive(Debug)]
pub enum WalkProblem {
    /// A socket, a pipe, a device: skipped.
    Special(PathBuf),
    /// A symbolic link to a directory above it: skipped.
    Cycle(PathBuf),
    /// A name that is not UTF-8.
    Name(PathBuf, InvalidName),
    /// Cannot be read; or a link that leads nowhere.
    Unreadable(PathBuf, std::io::Error),
}

/// Calls `found` for each file and each problem below `root`, until it returns false. Blocks.
/// Memory grows with the names in the directories on the way, not with the tree.
pub fn walk(root: &Path, found: &mut dyn FnMut(Result<Found, WalkProblem>) -> bool) {
    let mut levels = Vec::new();
    match Level::open(root, String::new(), None) {
        Ok(level) => levels.push(level),
        Err(error) => {
            found(Err(WalkProblem::Unreadable(root.to_path_buf(), error)));
            return;
        }
    }
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        let path = level.path.join(&name);
        let next = match name.to_str() {
            Some(name) => {
                let relative = level.relative(name);
                look(&path, relative, &levels)
            }
            None => Err(WalkProblem::Name(path, InvalidName::NotUtf8)),
        };
        let go_on = match next {
            Ok(Next::Enter(level)) => {
                levels.push(level);
                true
            }
            Ok(Next::File(file)) => found(Ok(file)),
            Err(problem) => found(Err(problem)),
        };
        if !go_on {
            return;
        }
    }
}

enum Next {
    File(Found),
    Enter(Level),
}

fn look(path: &Path, relative: String, levels: &[Level]) -> Result<Next, WalkProblem> {
    let unreadable = |error| WalkProblem::Unreadable(path.to_path_buf(), error);
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_file() {
        return Ok(Next::File(Found {
            path: path.to_path_buf(),
            relative,
            length: metadata.len(),
        }));
    }
    if !metadata.is_dir() {
        return Err(WalkProblem::Special(path.to_path_buf()));
    }
    if levels
        .iter()
        .any(|level| level.identity == identity(&metadata))
    {
        return Err(WalkProblem::Cycle(path.to_path_buf()));
    }
    Level::open(path, relative, Some(&metadata))
        .map(Next::Enter)
        .map_err(unreadable)
}

/// A directory that is being walked.
struct Level {
    path: PathBuf,
    /// Below the root; empty for the root itself.
    relative: String,
    identity: (u64, u64),
    names: vec::IntoIter<OsString>,
}

impl Level {
    fn open(path: &Path, relative: String, known: Option<&Metadata>) -> std::io::Result<Self> {
        let identity = match known {
            Some(metadata) => identity(metadata),
            None => identity(&fs::metadata(path)?),
        };
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(Self {
            path: path.to_path_buf(),
            relative,
            identity,
            names: names.into_iter(),
        })
    }

    fn relative(&self, name: &str) -> String {
        if self.relative.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.relative)
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn all(root: &Path) -> (Vec<String>, Vec<WalkProblem>) {
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        walk(root, &mut |found| {
            match found {
                Ok(file) => files.push(file.relative),
                Err(problem) => problems.push(problem),
            }
            true
        });
        (files, problems)
    }

    #[test]
    fn files_come_in_order_and_links_to_files_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["z", "b/c/x", "a"] {
            fs::write(root.join(name), name).unwrap();
        }
        symlink(root.join("a"), root.join("link")).unwrap();
        let (files, problems) = all(root);
        assert_eq!(files, ["a", "b/c/x", "link", "z"]);
        assert!(problems.is_empty());
    }

    #[test]
    fn cycles_special_files_dead_links_and_odd_names_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("d")).unwrap();
        symlink(root, root.join("d/up")).unwrap();
        symlink(root.join("nowhere"), root.join("dead")).unwrap();
        let _socket = UnixListener::bind(root.join("s")).unwrap();
        fs::write(root.join(OsString::from_vec(vec![0xff])), "x").unwrap();
        let (files, problems) = all(root);
        assert!(files.is_empty());
        let kinds: Vec<_> = problems
            .iter()
            .map(|problem| match problem {
                WalkProblem::Special(_) => "special",
                WalkProblem::Cycle(_) => "cycle",
                WalkProblem::Name(..) => "name",
                WalkProblem::Unreadable(..) => "unreadable",
            })
            .collect();
        assert_eq!(kinds, ["cycle", "unreadable", "special", "name"]);
    }

    #[test]
    fn the_walk_ends_when_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut seen = 0;
        walk(dir.path(), &mut |_| {
            seen += 1;
            false
        });
        assert_eq!(seen, 1);
    }
}
