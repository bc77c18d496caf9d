//! `dfs ls` and `dfs stat`.

use std::collections::VecDeque;

use dfs_protocol::upload::ListEntry;
use dfs_protocol::{FilePath, PathPrefix};
use jiff::tz::TimeZone;

use super::expand::{Glob, Source, Want};
use crate::args::ListArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;
use crate::store::FileHead;

/// Calls `act` for everything below `prefix`, page by page.
pub(super) async fn each_entry(
    session: &Session,
    what: &str,
    prefix: &PathPrefix,
    recursive: bool,
    mut act: impl AsyncFnMut(ListEntry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    loop {
        let list = || session.store.list(prefix, recursive, cursor.as_deref());
        let page = session.call(what, list).await?;
        for entry in page.entries {
            act(entry).await?;
        }
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// The names of a directory, or those that begin alike, one level of them: a page in memory.
#[derive(Debug)]
pub(super) struct Pages {
    prefix: PathPrefix,
    /// What was read and not taken yet.
    entries: VecDeque<ListEntry>,
    /// Where the next page begins; none before the first.
    cursor: Option<String>,
    /// Whether there may be more pages.
    more: bool,
}

impl Pages {
    pub(super) fn new(prefix: PathPrefix) -> Self {
        Self {
            prefix,
            entries: VecDeque::new(),
            cursor: None,
            more: true,
        }
    }

    pub(super) fn prefix(&self) -> &PathPrefix {
        &self.prefix
    }

    /// Takes the next name.
    pub(super) async fn next(
        &mut self,
        session: &Session,
        what: &str,
    ) -> Result<Option<ListEntry>, Failure> {
        self.fill(session, what).await?;
        Ok(self.entries.pop_front())
    }

    /// Whether no name is left.
    pub(super) async fn is_over(&mut self, session: &Session, what: &str) -> Result<bool, Failure> {
        self.fill(session, what).await?;
        Ok(self.entries.is_empty())
    }

    async fn fill(&mut self, session: &Session, what: &str) -> Result<(), Failure> {
        while self.entries.is_empty() && self.more {
            let cursor = self.cursor.take();
            let list = || session.store.list(&self.prefix, false, cursor.as_deref());
            let page = session.call(what, list).await?;
            self.entries = page.entries.into();
            self.more = page.cursor.is_some();
            self.cursor = page.cursor;
        }
        Ok(())
    }
}

/// The file of this very name, as listings tell it.
pub(super) async fn find_file(
    session: &Session,
    what: &str,
    path: &RemotePath,
) -> Result<Option<ListEntry>, Failure> {
    let invalid = |error| Failure::invalid_name(what, &error);
    let file = path.file().map_err(invalid)?;
    // It is the first name that starts with its own.
    let itself = PathPrefix::parse(file.as_str()).map_err(invalid)?;
    let first = Pages::new(itself).next(session, what).await?;
    Ok(first.filter(|entry| matches!(entry, ListEntry::File { path, .. } if *path == file)))
}

pub(super) fn nothing_below(what: &str) -> Failure {
    Failure::new(Exit::NotFound, what, "no file is below it").next("`dfs ls` shows what there is")
}

pub(super) fn nothing_there(what: &str) -> Failure {
    let why = "there is no file and no directory by that name";
    Failure::new(Exit::NotFound, what, why).next("`dfs ls` shows what there is")
}

pub(super) async fn ls(session: &Session, args: &ListArgs) -> Result<Exit, Failure> {
    let path = match Source::read(session, "ls", RemotePath::parse(&args.path)).await? {
        Source::Path(path) => path,
        Source::Glob(glob) => return matching(session, args, &glob).await,
    };
    let what = format!("ls {path}");
    let invalid = |error| Failure::invalid_name(&what, &error);
    let prefix = path.prefix().map_err(invalid)?;
    let mut found = false;
    each_entry(session, &what, &prefix, args.recursive, async |entry| {
        found = true;
        tell(session, args, &entry)
    })
    .await?;
    if found || path.is_root() {
        return Ok(Exit::Done);
    }
    if path.is_directory() {
        return Err(nothing_below(&what));
    }
    match find_file(session, &what, &path).await? {
        Some(entry) => tell(session, args, &entry).map(|()| Exit::Done),
        None => Err(nothing_there(&what)),
    }
}

/// What matches, directories as themselves; with -r everything below them.
async fn matching(session: &Session, args: &ListArgs, glob: &Glob) -> Result<Exit, Failure> {
    let want = if args.recursive {
        Want::Whole
    } else {
        Want::Both
    };
    let show = async |entry| match entry {
        ListEntry::Directory { path } if args.recursive => {
            let what = format!("ls {path}");
            let tell = async |entry| tell(session, args, &entry);
            each_entry(session, &what, &path, true, tell).await
        }
        entry => tell(session, args, &entry),
    };
    glob.expand(session, "ls", want, show).await?;
    Ok(Exit::Done)
}

fn tell(session: &Session, args: &ListArgs, entry: &ListEntry) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(entry);
    }
    session.out.line(&row(args, entry, TimeZone::system()))
}

fn row(args: &ListArgs, entry: &ListEntry, zone: TimeZone) -> String {
    let (path, size, modified) = match entry {
        ListEntry::Directory { path } => (path.as_str(), "-".to_owned(), "-".to_owned()),
        ListEntry::File {
            path,
            size,
            modified,
            ..
        } => {
            let size = if args.bytes {
                size.to_string()
            } else {
                human::bytes(*size)
            };
            (path.as_str(), size, human::moment(*modified, zone))
        }
    };
    if args.names {
        path.to_owned()
    } else {
        format!("{size:>12}  {modified:<16}  {path}")
    }
}

pub(super) async fn stat(session: &Session, paths: &[String]) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let shown = stat_argument(session, RemotePath::parse(path)).await;
        if let Err(failure) = shown {
            session.out.failure(&failure);
            exit = exit.and(failure.exit);
        }
    }
    Ok(exit)
}

async fn stat_argument(session: &Session, path: RemotePath) -> Result<(), Failure> {
    match Source::read(session, "stat", path).await? {
        Source::Path(path) => {
            let file = path
                .file()
                .map_err(|error| Failure::invalid_name(format!("stat {path}"), &error))?;
            stat_file(session, &file).await
        }
        Source::Glob(glob) => {
            let show = async |entry| match entry {
                ListEntry::File { path, .. } => stat_file(session, &path).await,
                ListEntry::Directory { .. } => Ok(()),
            };
            glob.expand(session, "stat", Want::Files, show).await
        }
    }
}

async fn stat_file(session: &Session, file: &FilePath) -> Result<(), Failure> {
    let what = format!("stat {file}");
    let head = session.call(&what, || session.store.head(file)).await;
    let head = head.map_err(|failure| {
        // The answer to HEAD has no body, so the server could not say what next.
        if failure.exit == Exit::NotFound {
            Failure::new(Exit::NotFound, &what, "there is no file by that name")
                .next("`dfs ls` shows what there is")
        } else {
            failure
        }
    })?;
    if session.out.is_json() {
        session.out.json(&head)
    } else {
        session.out.line(&describe(&head))
    }
}

fn describe(head: &FileHead) -> String {
    let mut lines = vec![head.path.clone()];
    let mut field = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name:<10} {value}")));
    };
    let size = head
        .size
        .map(|size| format!("{} ({size} bytes)", human::bytes(size)));
    field("size", size);
    field("modified", head.modified.clone());
    field("type", head.content_type.clone());
    field("etag", head.etag.clone());
    field("crc64nvme", head.crc64nvme.clone());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};

    #[test]
    fn rows_line_up_and_can_be_names_or_exact_bytes() {
        let args = |line: &str| {
            let words = line.split(' ').map(Into::into).collect();
            let Command::Ls(args) = parse(words).unwrap().command else {
                unreachable!()
            };
            args
        };
        let file: ListEntry = serde_json::from_value(serde_json::json!({
            "kind": "file", "path": "a/b", "size": 2048, "content_type": "x/y",
            "etag": "00000000000000aa-00000000000000bb", "modified": "2026-05-04T03:02:01Z",
        }))
        .unwrap();
        let directory = ListEntry::Directory {
            path: PathPrefix::parse("a/c/").unwrap(),
        };
        let row = |line, entry| row(&args(line), entry, TimeZone::UTC);
        assert_eq!(row("dfs ls", &file), "     2.0 KiB  2026-05-04 03:02  a/b");
        assert_eq!(
            row("dfs ls -b", &file),
            "        2048  2026-05-04 03:02  a/b"
        );
        assert_eq!(
            row("dfs ls", &directory),
            "           -  -                 a/c/"
        );
        assert_eq!(row("dfs ls -n", &file), "a/b");
    }
}
