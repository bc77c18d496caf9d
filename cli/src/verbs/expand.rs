//! What an argument with wildcards names: looked up in the store with listings, page by page, told
//! one after the other. Memory: a page for each segment with wildcards.

use dfs_protocol::PathPrefix;
use dfs_protocol::upload::ListEntry;

use super::list::{Pages, each_entry, find_file};
use crate::exit::{Exit, Failure};
use crate::glob::{Pattern, Segment, matches_path};
use crate::paths::RemotePath;
use crate::session::Session;

/// What an argument names.
#[derive(Debug)]
pub(super) enum Source {
    /// One path: without wildcards, or there is a file or directory by the very name.
    Path(RemotePath),
    /// Whatever matches.
    Glob(Glob),
}

/// A pattern as it was written.
#[derive(Debug)]
pub(super) struct Glob {
    text: String,
    pattern: Pattern,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Files.
    Files,
    /// Files and directories.
    Both,
    /// Files and directories, and not again what lies below a directory that was told.
    Whole,
}

impl Want {
    /// Of a verb that takes whole directories with `-r` only.
    pub(super) fn of(recursive: bool) -> Self {
        if recursive { Self::Whole } else { Self::Files }
    }
}

impl Source {
    /// Reads an argument. A name that exists wins over what it would match.
    pub(super) async fn read(
        session: &Session,
        verb: &str,
        path: RemotePath,
    ) -> Result<Self, Failure> {
        let text = path.to_string();
        let what = format!("{verb} {text}");
        let pattern = Pattern::parse(&text)
            .map_err(|error| Failure::usage(&what, error.to_string()).next("write it shorter"))?;
        match pattern {
            Some(pattern) if !exists(session, &what, &path).await? => {
                Ok(Self::Glob(Glob { text, pattern }))
            }
            _ => Ok(Self::Path(path)),
        }
    }

    /// Reads several.
    pub(super) async fn read_all(
        session: &Session,
        verb: &str,
        paths: impl IntoIterator<Item = RemotePath>,
    ) -> Result<Vec<Self>, Failure> {
        let mut sources = Vec::new();
        for path in paths {
            sources.push(Self::read(session, verb, path).await?);
        }
        Ok(sources)
    }

    pub(super) fn is_glob(&self) -> bool {
        matches!(self, Self::Glob(_))
    }
}

/// Whether there is a file or a directory by the very name. One that cannot be a name is not there.
async fn exists(session: &Session, what: &str, path: &RemotePath) -> Result<bool, Failure> {
    if path.file().is_ok() && find_file(session, what, path).await?.is_some() {
        return Ok(true);
    }
    let Ok(directory) = path.prefix() else {
        return Ok(false);
    };
    Ok(!Pages::new(directory).is_over(session, what).await?)
}

impl Glob {
    /// The directory below which everything that matches lies: empty, or with a slash at the end.
    pub(super) fn base(&self) -> &str {
        self.pattern.base()
    }

    /// Nothing but stars.
    pub(super) fn is_everything(&self) -> bool {
        self.pattern.is_everything()
    }

    /// Tells everything that matches, in the order of listings. Nothing is a failure.
    pub(super) async fn expand(
        &self,
        session: &Session,
        verb: &str,
        want: Want,
        mut act: impl AsyncFnMut(ListEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let what = format!("{verb} {}", self.text);
        if want == Want::Files && self.pattern.is_directory() {
            return Err(Failure::usage(what, "it is written as a directory").next("add -r"));
        }
        let walk = Walk {
            session,
            what: &what,
            pattern: &self.pattern,
            want,
        };
        let mut found = false;
        let told = async |entry| {
            found = true;
            act(entry).await
        };
        walk.run(told).await?;
        if found {
            return Ok(());
        }
        let (why, next) = if want == Want::Files {
            (
                "no file matches",
                "`dfs ls` shows what there is; -r takes directories too",
            )
        } else {
            ("nothing matches", "`dfs ls` shows what there is")
        };
        Err(Failure::new(Exit::NotFound, &what, why).next(next))
    }
}

struct Walk<'a> {
    session: &'a Session,
    what: &'a str,
    pattern: &'a Pattern,
    want: Want,
}

/// A directory whose names are held against a segment.
struct Level {
    /// Empty, or with a slash at the end.
    directory: String,
    /// Index of the segment.
    segment: usize,
    /// Its names that begin as the segment does.
    pages: Pages,
}

impl Walk<'_> {
    async fn run(
        &self,
        mut act: impl AsyncFnMut(ListEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let base = self.pattern.base().to_owned();
        let mut levels = vec![self.level(base, self.pattern.base_len())?];
        while let Some(level) = levels.last_mut() {
            let segment = &self.pattern.segments()[level.segment];
            if *segment == Segment::Any {
                let (directory, from) = (level.directory.clone(), level.segment);
                levels.pop();
                self.below(&directory, from, &mut act).await?;
                continue;
            }
            let Some(entry) = level.pages.next(self.session, self.what).await? else {
                levels.pop();
                continue;
            };
            let path = path_of(&entry);
            let name = path.get(level.directory.len()..).unwrap_or("");
            if !segment.matches(name.trim_end_matches('/')) {
                continue;
            }
            if level.segment + 1 == self.pattern.segments().len() {
                if self.wants(&entry) {
                    act(entry).await?;
                }
            } else if matches!(entry, ListEntry::Directory { .. }) {
                let next = self.level(path.to_owned(), level.segment + 1)?;
                levels.push(next);
            }
        }
        Ok(())
    }

    fn wants(&self, entry: &ListEntry) -> bool {
        match entry {
            ListEntry::File { .. } => !self.pattern.is_directory(),
            ListEntry::Directory { .. } => self.want != Want::Files,
        }
    }

    fn level(&self, directory: String, segment: usize) -> Result<Level, Failure> {
        let start = self.pattern.segments()[segment].start();
        let prefix = PathPrefix::parse(&format!("{directory}{start}"))
            .map_err(|error| Failure::invalid_name(self.what, &error))?;
        Ok(Level {
            directory,
            segment,
            pages: Pages::new(prefix),
        })
    }

    /// From a `**` on: everything below, one listing without a delimiter. Directories are told when
    /// the first file below them comes.
    async fn below(
        &self,
        directory: &str,
        from: usize,
        act: &mut impl AsyncFnMut(ListEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let segments = &self.pattern.segments()[from..];
        let invalid = |error| Failure::invalid_name(self.what, &error);
        let prefix = PathPrefix::parse(directory).map_err(invalid)?;
        let mut before = String::new();
        let mut told: Option<String> = None;
        each_entry(self.session, self.what, &prefix, true, async |entry| {
            let path = path_of(&entry).to_owned();
            if told
                .as_ref()
                .is_some_and(|told| path.starts_with(told.as_str()))
            {
                return Ok(());
            }
            if self.want != Want::Files {
                for at in new_directories(&before, &path, directory.len()) {
                    let matched = matches_path(segments, &path[directory.len()..at]);
                    if !matched {
                        continue;
                    }
                    let below = format!("{}/", &path[..at]);
                    let found = PathPrefix::parse(&below).map_err(invalid)?;
                    act(ListEntry::Directory { path: found }).await?;
                    if self.want == Want::Whole {
                        told = Some(below);
                        return Ok(());
                    }
                }
            }
            let matched = matches_path(segments, path.get(directory.len()..).unwrap_or(""));
            before = path;
            if matched && self.wants(&entry) {
                act(entry).await?;
            }
            Ok(())
        })
        .await
    }
}

fn path_of(entry: &ListEntry) -> &str {
    match entry {
        ListEntry::Directory { path } => path.as_str(),
        ListEntry::File { path, .. } => path.as_str(),
    }
}

/// Where the directories of `path` end that `before`, which a listing told right before it, was not
/// below; from the byte `from` on, outermost first.
fn new_directories(before: &str, path: &str, from: usize) -> Vec<usize> {
    path.match_indices('/')
        .map(|(at, _)| at)
        .filter(|at| *at >= from && before.get(..=*at) != path.get(..=*at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_new_once() {
        assert_eq!(new_directories("", "a/b/c", 0), [1, 3]);
        assert!(new_directories("a/b/c", "a/b/d", 0).is_empty());
        assert_eq!(new_directories("a/b/c", "a/bb/d", 0), [4]);
        assert_eq!(new_directories("", "a/b/c", 2), [3]);
        assert_eq!(new_directories("é/x", "e/x", 0), [1]);
    }
}
