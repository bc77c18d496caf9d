//! `dfs tree`: directories as they nest. Memory: a page of names for each level that is open.

use dfs_protocol::PathPrefix;
use dfs_protocol::upload::ListEntry;

use super::list::{Pages, find_file, nothing_below, nothing_there};
use crate::args::TreeArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;

/// What was told.
#[derive(Debug, Default)]
struct Count {
    directories: u64,
    files: u64,
    bytes: u64,
    /// Directories that were too deep to be looked at.
    unseen: u64,
}

pub(super) async fn tree(session: &Session, args: &TreeArgs) -> Result<Exit, Failure> {
    let path = RemotePath::parse(&args.path);
    let what = format!("tree {path}");
    let prefix = path
        .prefix()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    let mut top = Pages::new(prefix.clone());
    if top.is_over(session, &what).await? && !path.is_root() {
        if path.is_directory() {
            return Err(nothing_below(&what));
        }
        let Some(file) = find_file(session, &what, &path).await? else {
            return Err(nothing_there(&what));
        };
        tell(session, args, &file, file_path(&file), "")?;
        return Ok(Exit::Done);
    }
    if !session.out.is_json() {
        let name = if path.is_root() { "/" } else { prefix.as_str() };
        session.out.line(name)?;
    }
    let count = walk(session, args, &what, top).await?;
    if !session.out.is_json() {
        session.out.line(&format!("\n{}", summary(&count)))?;
    }
    Ok(Exit::Done)
}

async fn walk(
    session: &Session,
    args: &TreeArgs,
    what: &str,
    top: Pages,
) -> Result<Count, Failure> {
    let mut count = Count::default();
    // Each with what is drawn before its names.
    let mut levels = vec![(top, String::new())];
    while let Some((pages, indent)) = levels.last_mut() {
        let Some(entry) = pages.next(session, what).await? else {
            levels.pop();
            continue;
        };
        let last = pages.is_over(session, what).await?;
        let (branch, below) = if last {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        let name = file_path(&entry);
        let name = name.get(pages.prefix().as_str().len()..).unwrap_or(name);
        tell(session, args, &entry, name, &format!("{indent}{branch}"))?;
        match entry {
            ListEntry::File { size, .. } => {
                count.files += 1;
                count.bytes = count.bytes.saturating_add(size);
            }
            ListEntry::Directory { path } => {
                count.directories += 1;
                let indent = format!("{indent}{below}");
                if goes_deeper(args, levels.len()) {
                    levels.push((Pages::new(path), indent));
                } else {
                    count.unseen += 1;
                }
            }
        }
    }
    Ok(count)
}

fn goes_deeper(args: &TreeArgs, level: usize) -> bool {
    args.depth
        .is_none_or(|depth| level < usize::try_from(depth).unwrap_or(usize::MAX))
}

fn file_path(entry: &ListEntry) -> &str {
    match entry {
        ListEntry::File { path, .. } => path.as_str(),
        ListEntry::Directory { path } => PathPrefix::as_str(path),
    }
}

fn tell(
    session: &Session,
    args: &TreeArgs,
    entry: &ListEntry,
    name: &str,
    before: &str,
) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(entry);
    }
    let size = match entry {
        ListEntry::File { size, .. } if args.bytes => format!("  {size}"),
        ListEntry::File { size, .. } => format!("  {}", human::bytes(*size)),
        ListEntry::Directory { .. } => String::new(),
    };
    session.out.line(&format!("{before}{name}{size}"))
}

fn summary(count: &Count) -> String {
    let directories = match count.directories {
        1 => "1 directory".to_owned(),
        many => format!("{} directories", human::thousands(many)),
    };
    let files = human::count(count.files, "file");
    let unseen = match count.unseen {
        0 => String::new(),
        unseen => format!("; {} not looked into", human::thousands(unseen)),
    };
    format!(
        "{directories}, {files}, {}{unseen}",
        human::bytes(count.bytes)
    )
}
