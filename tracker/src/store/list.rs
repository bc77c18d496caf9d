//! Listings. With a delimiter, a common prefix costs one seek, however many files lie below it.

use std::ops::{Bound, ControlFlow};

use dfs_protocol::PathPrefix;
use dfs_protocol::upload::{ListEntry, ListRequest, ListResponse, MAX_LIST_LIMIT};

use super::error::StoreError;
use super::file_head;
use super::kv::{Direction, ReadTxn, Span, Table, successor};

pub(super) fn list(txn: &dyn ReadTxn, request: &ListRequest) -> Result<ListResponse, StoreError> {
    let limit = request.limit.clamp(1, MAX_LIST_LIMIT) as usize;
    let mut listing = Listing {
        prefix: request.prefix.as_str(),
        delimited: request.delimited,
        limit,
        entries: Vec::new(),
    };
    let mut span = first_span(request);
    loop {
        let mut stop = Stop::End;
        txn.walk(
            Table::Files,
            &span,
            Direction::Forward,
            &mut |key, value| {
                Ok(match listing.take(key, value)? {
                    None => ControlFlow::Continue(()),
                    Some(why) => {
                        stop = why;
                        ControlFlow::Break(())
                    }
                })
            },
        )?;
        match stop {
            Stop::Directory(behind) => span.start = behind,
            Stop::Full => {
                let next = listing.entries.last().map(name_of);
                let entries = listing.entries;
                return Ok(ListResponse { entries, next });
            }
            Stop::End => {
                let entries = listing.entries;
                return Ok(ListResponse {
                    entries,
                    next: None,
                });
            }
        }
    }
}

fn name_of(entry: &ListEntry) -> String {
    match entry {
        ListEntry::File { path, .. } => path.to_string(),
        ListEntry::Directory { path } => path.to_string(),
    }
}

fn first_span(request: &ListRequest) -> Span {
    let mut span = Span::prefix(request.prefix.as_str().as_bytes());
    let Some(after) = &request.after else {
        return span;
    };
    let after = after.as_bytes();
    if after < request.prefix.as_str().as_bytes() {
        return span;
    }
    span.start = if request.delimited && after.ends_with(b"/") {
        successor(after).map_or(Bound::Unbounded, Bound::Included)
    } else {
        Bound::Excluded(after.to_vec())
    };
    span
}

/// Why a walk along the names ended.
enum Stop {
    /// There are no more.
    End,
    /// There are more, and the page is full.
    Full,
    /// At a common prefix: what lies below it is passed over. The next name is there.
    Directory(Bound<Vec<u8>>),
}

struct Listing<'a> {
    prefix: &'a str,
    delimited: bool,
    limit: usize,
    entries: Vec<ListEntry>,
}

impl Listing<'_> {
    /// Takes the next name in, or says why the walk ends here.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Stop>, StoreError> {
        if self.entries.len() == self.limit {
            return Ok(Some(Stop::Full));
        }
        if let Some(directory) = self.directory_of(key)? {
            let behind =
                successor(directory.as_str().as_bytes()).map_or(Bound::Unbounded, Bound::Included);
            self.entries.push(ListEntry::Directory { path: directory });
            return Ok(Some(Stop::Directory(behind)));
        }
        self.entries.push(file_head::entry(value)?);
        Ok(None)
    }

    fn directory_of(&self, key: &[u8]) -> Result<Option<PathPrefix>, StoreError> {
        let rest = key.get(self.prefix.len()..).unwrap_or_default();
        let slash = rest.iter().position(|byte| *byte == b'/');
        let Some(slash) = slash.filter(|_| self.delimited) else {
            return Ok(None);
        };
        PathPrefix::from_bytes(&key[..=self.prefix.len() + slash])
            .map(Some)
            .map_err(|error| StoreError::Corrupt {
                detail: format!("a key of the files is no path: {error}"),
            })
    }
}
