//! Where a file goes: the rules of `put SRC... DEST`, `get SRC... DEST`, `cp` and `mv`. Pure: the
//! caller looks at disks and servers.
//!
//! One rule: a DEST that ends in a slash is a directory and takes each SRC under its own name;
//! any other DEST is the very path of the one SRC. What exists in the store is never looked at, so
//! that the same command always means the same.

use std::path::{Component, Path, PathBuf};

use dfs_protocol::{FilePath, InvalidName, PathPrefix};

use crate::exit::Failure;

/// A path in the store as a person wrote it: the leading slash is gone, the one at the end is told
/// apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePath {
    /// Without slashes at either end; empty for the top of the store.
    name: String,
    /// Whether it was written as a directory.
    directory: bool,
}

impl RemotePath {
    /// Reads `docs/a.txt`, `/docs/a.txt`, `docs/` or `/`.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('/').unwrap_or(text);
        match text.strip_suffix('/') {
            Some(name) => Self {
                name: name.to_owned(),
                directory: true,
            },
            None => Self {
                name: text.to_owned(),
                directory: text.is_empty(),
            },
        }
    }

    /// Reads what came as an operating system string.
    pub fn from_path(path: &Path) -> Result<Self, InvalidName> {
        Ok(Self::parse(path.to_str().ok_or(InvalidName::NotUtf8)?))
    }

    /// Whether it ends in a slash, or is the top of the store.
    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// Whether it is the top of the store.
    pub fn is_root(&self) -> bool {
        self.name.is_empty()
    }

    /// Without slashes at either end.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last segment; none for the top of the store.
    pub fn file_name(&self) -> Option<&str> {
        self.name.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// As a file. A slash at the end makes it none.
    pub fn file(&self) -> Result<FilePath, InvalidName> {
        if self.directory {
            return Err(if self.is_root() {
                InvalidName::Empty
            } else {
                InvalidName::EmptySegment
            });
        }
        FilePath::parse(&self.name)
    }

    /// As a directory: ends in `/`, or is empty for the top.
    pub fn prefix(&self) -> Result<PathPrefix, InvalidName> {
        if self.is_root() {
            return Ok(PathPrefix::default());
        }
        PathPrefix::parse(&format!("{}/", self.name))
    }

    /// The path of `relative` below this.
    pub fn join(&self, relative: &str) -> Result<FilePath, InvalidName> {
        if self.is_root() {
            FilePath::parse(relative)
        } else {
            FilePath::parse(&format!("{}/{relative}", self.name))
        }
    }

    /// The directory `name` below this.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let name = if self.is_root() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.name)
        };
        Self {
            name,
            directory: true,
        }
    }
}

impl std::fmt::Display for RemotePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.directory { "/" } else { "" };
        write!(f, "{}{slash}", self.name)
    }
}

/// Splits `SRC... DEST`; a single path has no DEST.
pub fn split_destination<T>(mut paths: Vec<T>) -> (Vec<T>, Option<T>) {
    let destination = if paths.len() > 1 { paths.pop() } else { None };
    (paths, destination)
}

/// Several sources need a directory to go to.
pub fn check_destination(
    verb: &str,
    sources: usize,
    is_directory: bool,
    destination: &str,
) -> Result<(), Failure> {
    if sources > 1 && !is_directory {
        return Err(Failure::usage(
            verb,
            format!("{sources} sources cannot all become `{destination}`"),
        )
        .next(format!(
            "write `{destination}/` if it is meant as a directory"
        )));
    }
    Ok(())
}

/// The name under which a local path goes into a directory; none for `.`, `..` and `/`, whose
/// content goes in directly.
pub fn local_name(path: &Path) -> Option<&std::ffi::OsStr> {
    match path.components().next_back() {
        Some(Component::Normal(name)) if !ends_in_dot(path) => Some(name),
        _ => None,
    }
}

/// Whether a local DEST is meant as a directory whatever exists: `dir/`, `.`, `..`, `a/..`.
pub fn is_local_directory_spelling(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text.is_empty() || text.ends_with(b"/") || local_name(path).is_none()
}

// `Path::components` drops a `.` at the end: `dir/.` means the content of `dir`.
fn ends_in_dot(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text == b"." || text.ends_with(b"/.")
}

/// Where a path of the store lands below a local directory. Segments of a [`FilePath`] are never
/// empty, `.` or `..`, so the result stays below `directory`.
pub fn local_target(directory: &Path, relative: &str) -> PathBuf {
    let mut target = directory.to_path_buf();
    target.extend(relative.split('/'));
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> RemotePath {
        RemotePath::parse(text)
    }

    #[test]
    fn a_slash_at_the_end_means_a_directory_and_one_at_the_start_means_nothing() {
        assert_eq!(remote("/docs/a").file().unwrap().as_str(), "docs/a");
        assert!(remote("docs/").is_directory());
        assert!(!remote("docs").is_directory());
        assert!(remote("/").is_root());
        assert!(remote("").is_directory());
        assert_eq!(remote("docs/").prefix().unwrap().as_str(), "docs/");
        assert_eq!(remote("docs").prefix().unwrap().as_str(), "docs/");
        assert_eq!(remote("/").prefix().unwrap().as_str(), "");
        assert!(remote("docs/").file().is_err());
    }

    #[test]
    fn bad_input_01_dot_segments_and_double_slashes_are_refused_not_resolved() {
        assert!(remote("a/../b").file().is_err());
        assert!(remote("//a").file().is_err());
        assert!(remote("a//").prefix().is_err());
        assert!(remote("a").join("../b").is_err());
    }

    #[test]
    fn names_are_joined_below_directories() {
        assert_eq!(remote("/").join("a").unwrap().as_str(), "a");
        assert_eq!(remote("x/").join("a/b").unwrap().as_str(), "x/a/b");
        assert_eq!(remote("x").below("d").to_string(), "x/d/");
        assert_eq!(remote("/").below("d").to_string(), "d/");
    }

    #[test]
    fn the_last_of_several_paths_is_the_destination() {
        assert_eq!(split_destination(vec![1, 2, 3]), (vec![1, 2], Some(3)));
        assert_eq!(split_destination(vec![1]), (vec![1], None));
        assert!(check_destination("put", 2, false, "x").is_err());
        assert!(check_destination("put", 2, true, "x").is_ok());
        assert!(check_destination("put", 1, false, "x").is_ok());
    }

    #[test]
    fn local_paths_give_their_last_name_unless_they_mean_a_place() {
        let name = |path: &'static str| local_name(Path::new(path)).map(|n| n.to_str().unwrap());
        assert_eq!(name("a/b"), Some("b"));
        assert_eq!(name("a/b/"), Some("b"));
        for place in [".", "..", "/", "a/..", "a/.", "./"] {
            assert_eq!(name(place), None, "{place}");
            assert!(is_local_directory_spelling(Path::new(place)), "{place}");
        }
        assert!(is_local_directory_spelling(Path::new("a/")));
        assert!(!is_local_directory_spelling(Path::new("a")));
    }

    #[test]
    fn targets_stay_below_their_directory() {
        assert_eq!(local_target(Path::new("out"), "a/b"), Path::new("out/a/b"));
    }
}
