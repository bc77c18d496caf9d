//! Listings. With a delimiter, a common prefix costs one seek, however many files lie below it.

use std::ops::Bound;

use dfs_protocol::PathPrefix;
use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::{ListEntry, ListRequest, ListResponse, MAX_LIST_LIMIT};

use super::error::StoreError;
use super::factor_value;
use super::kv::{Direction, ReadTxn, Span, Table, successor};

/// Files fetched with one seek while the listing runs along plain files.
const MAX_FETCH: usize = 256;

pub(super) fn list(txn: &dyn ReadTxn, request: &ListRequest) -> Result<ListResponse, StoreError> {
    let limit = request.limit.clamp(1, MAX_LIST_LIMIT) as usize;
    let mut listing = Listing {
        txn,
        prefix: request.prefix.as_str(),
        delimited: request.delimited,
        span: first_span(request),
        entries: Vec::new(),
    };
    // Seeks past directories fetch little, runs of files more and more.
    let mut fetch = 2;
    while listing.entries.len() < limit {
        match listing.fetch(fetch.min(limit - listing.entries.len()))? {
            Fetched::End => {
                return Ok(ListResponse {
                    entries: listing.entries,
                    next: None,
                });
            }
            Fetched::Directory => fetch = 2,
            Fetched::Files => fetch = (fetch * 2).min(MAX_FETCH),
        }
    }
    let more = !txn
        .range(Table::Files, &listing.span, Direction::Forward, 1)?
        .is_empty();
    let next = listing.entries.last().filter(|_| more).map(name_of);
    Ok(ListResponse {
        entries: listing.entries,
        next,
    })
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

enum Fetched {
    End,
    Directory,
    Files,
}

struct Listing<'a> {
    txn: &'a dyn ReadTxn,
    prefix: &'a str,
    delimited: bool,
    span: Span,
    entries: Vec<ListEntry>,
}

impl Listing<'_> {
    fn fetch(&mut self, limit: usize) -> Result<Fetched, StoreError> {
        let pairs = self
            .txn
            .range(Table::Files, &self.span, Direction::Forward, limit)?;
        if pairs.is_empty() {
            return Ok(Fetched::End);
        }
        for (key, value) in pairs {
            if let Some(directory) = self.directory_of(&key)? {
                self.span.start = successor(directory.as_str().as_bytes())
                    .map_or(Bound::Unbounded, Bound::Included);
                self.entries.push(ListEntry::Directory { path: directory });
                return Ok(Fetched::Directory);
            }
            let file: FileRecord = factor_value::decode(&value)?;
            self.entries.push(ListEntry::File {
                path: file.path,
                size: file.size,
                etag: file.version,
                modified: file.modified,
                content_type: file.content_type,
            });
            self.span.start = Bound::Excluded(key);
        }
        Ok(Fetched::Files)
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
