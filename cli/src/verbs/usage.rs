//! `dfs du`: sums of sizes in one pass over a listing. Names come in byte order, so a directory is
//! over when the first name behind it comes: memory is one sum for each level.

use dfs_protocol::PathPrefix;
use dfs_protocol::upload::ListEntry;
use serde::Serialize;

use super::expand::{Source, Want};
use super::list::{each_entry, find_file, nothing_below, nothing_there};
use crate::args::DiskUsageArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Sum {
    bytes: u64,
    files: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files += other.files;
    }
}

/// A directory and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Total {
    /// With a slash at the end; `/` is the top. A file's is plain.
    path: String,
    #[serde(flatten)]
    sum: Sum,
    /// Levels below where the count began.
    #[serde(skip)]
    level: usize,
}

/// The directories that are not over yet, outermost first.
#[derive(Debug)]
struct Sums {
    open: Vec<Total>,
}

impl Sums {
    fn new(start: &str) -> Self {
        let first = Total {
            path: start.to_owned(),
            sum: Sum::default(),
            level: 0,
        };
        Self { open: vec![first] }
    }

    /// Counts a file; gives the directories that are over, innermost first.
    fn file(&mut self, path: &str, bytes: u64) -> Vec<Total> {
        let mut over = Vec::new();
        while self.open.len() > 1
            && self
                .open
                .last()
                .is_some_and(|last| !path.starts_with(&last.path))
        {
            over.extend(self.close());
        }
        let from = self.open.last().map_or(0, |last| last.path.len());
        let deeper = path.match_indices('/').filter(|(at, _)| *at >= from);
        for (at, _) in deeper {
            self.open.push(Total {
                path: path[..=at].to_owned(),
                sum: Sum::default(),
                level: self.open.len(),
            });
        }
        if let Some(last) = self.open.last_mut() {
            last.sum.add(Sum { bytes, files: 1 });
        }
        over
    }

    /// Everything that is left, innermost first.
    fn end(mut self) -> Vec<Total> {
        std::iter::from_fn(|| self.close()).collect()
    }

    fn close(&mut self) -> Option<Total> {
        let total = self.open.pop()?;
        if let Some(parent) = self.open.last_mut() {
            parent.sum.add(total.sum);
        }
        Some(total)
    }
}

pub(super) async fn du(session: &Session, args: &DiskUsageArgs) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &args.paths {
        let told = argument(session, args, RemotePath::parse(path)).await;
        if let Err(failure) = told {
            if crate::output::is_closed_output(&failure) {
                return Err(failure);
            }
            session.out.failure(&failure);
            exit = exit.and(failure.exit);
        }
    }
    Ok(exit)
}

async fn argument(
    session: &Session,
    args: &DiskUsageArgs,
    path: RemotePath,
) -> Result<(), Failure> {
    match Source::read(session, "du", path).await? {
        Source::Path(path) => one(session, args, &path).await,
        Source::Glob(glob) => {
            glob.expand(session, "du", Want::Whole, async |entry| match entry {
                ListEntry::Directory { path } => {
                    directory(session, args, &path).await?;
                    Ok(())
                }
                ListEntry::File { path, size, .. } => file(session, args, path.as_str(), size),
            })
            .await
        }
    }
}

async fn one(session: &Session, args: &DiskUsageArgs, path: &RemotePath) -> Result<(), Failure> {
    let what = format!("du {path}");
    let prefix = path
        .prefix()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    if directory(session, args, &prefix).await? {
        return Ok(());
    }
    if path.is_root() {
        return tell(session, args, &Sums::new("").end());
    }
    if path.is_directory() {
        return Err(nothing_below(&what));
    }
    match find_file(session, &what, path).await? {
        Some(ListEntry::File { path, size, .. }) => file(session, args, path.as_str(), size),
        _ => Err(nothing_there(&what)),
    }
}

/// Whether anything is below it.
async fn directory(
    session: &Session,
    args: &DiskUsageArgs,
    prefix: &PathPrefix,
) -> Result<bool, Failure> {
    let what = format!("du {prefix}");
    let mut sums = Sums::new(prefix.as_str());
    let mut found = false;
    each_entry(session, &what, prefix, true, async |entry| {
        if let ListEntry::File { path, size, .. } = entry {
            found = true;
            tell(session, args, &sums.file(path.as_str(), size))?;
        }
        Ok(())
    })
    .await?;
    if found {
        tell(session, args, &sums.end())?;
    }
    Ok(found)
}

fn file(session: &Session, args: &DiskUsageArgs, path: &str, bytes: u64) -> Result<(), Failure> {
    let total = Total {
        path: path.to_owned(),
        sum: Sum { bytes, files: 1 },
        level: 0,
    };
    tell(session, args, &[total])
}

fn tell(session: &Session, args: &DiskUsageArgs, totals: &[Total]) -> Result<(), Failure> {
    for total in totals.iter().filter(|total| total.level <= args.levels()) {
        let mut shown = total.clone();
        if shown.path.is_empty() {
            shown.path.push('/');
        }
        if session.out.is_json() {
            session.out.json(&shown)?;
        } else {
            let size = if args.bytes {
                shown.sum.bytes.to_string()
            } else {
                human::bytes(shown.sum.bytes)
            };
            session.out.line(&format!("{size:>12}  {}", shown.path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_close_with_everything_below_them_in_one_pass() {
        // In byte order: `a.txt` is before `a/`, `a0` behind it.
        let files = [
            ("a.txt", 1),
            ("a/b/c/1", 10),
            ("a/b/c/2", 20),
            ("a/bb", 40),
            ("a0/x", 100),
            ("z", 1000),
        ];
        let mut sums = Sums::new("");
        let mut over = Vec::new();
        for (path, size) in files {
            over.extend(sums.file(path, size));
        }
        over.extend(sums.end());
        let seen: Vec<_> = over
            .iter()
            .map(|total| {
                (
                    total.path.as_str(),
                    total.sum.bytes,
                    total.sum.files,
                    total.level,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("a/b/c/", 30, 2, 3),
                ("a/b/", 30, 2, 2),
                ("a/", 70, 3, 1),
                ("a0/", 100, 1, 1),
                ("", 1171, 6, 0)
            ]
        );
    }

    #[test]
    fn levels_count_from_where_the_sum_begins() {
        let mut sums = Sums::new("a/b/");
        assert_eq!(sums.file("a/b/c/1", 1), []);
        let levels: Vec<_> = sums.end().iter().map(|total| total.level).collect();
        assert_eq!(levels, [1, 0]);
    }
}
