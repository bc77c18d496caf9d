//! Moving a directory: every file below it, in one transaction.

use std::collections::BTreeSet;
use std::ops::Bound;

use dfs_protocol::PathPrefix;
use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::{Precondition, TransferMode};

use super::ApplyContext;
use super::draft::Draft;
use super::files::not_found;
use super::paths::{check_no_directory, check_parents, read_file};
use crate::model::op::OpOutcome;
use crate::store::error::ApplyRefusal;
use crate::store::factor_value;
use crate::store::kv::{Direction, ReadTxn, Span, Table, WriteTxn, successor};

/// Files read at a time.
const PAGE: usize = 1000;

pub(super) fn move_directory(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    from: &PathPrefix,
    to: &PathPrefix,
    mode: TransferMode,
    precondition: &Precondition,
) -> Result<OpOutcome, ApplyRefusal> {
    check_request(from, to, mode, precondition)?;
    let sources = read_below(txn, from, context.max_move_files)?;
    let moved = rebase_all(&sources, from, to)?;
    // All checks are against what is there before the move: a target inside the source's own
    // parent is refused when it would need a name that the move itself frees.
    let mut known_parents = BTreeSet::new();
    for file in &moved {
        if read_file(txn, &file.path)?.is_some() {
            return Err(ApplyRefusal::PathTaken {
                path: file.path.to_string(),
            });
        }
        check_parents(txn, &file.path, &mut known_parents)?;
        check_no_directory(txn, &file.path)?;
    }
    let mut draft = Draft::begin(txn, context)?;
    for source in &sources {
        draft.take_file(source)?;
    }
    for file in &moved {
        draft.put_file(file)?;
    }
    draft.finish()?;
    Ok(OpOutcome::Moved {
        files: moved.len() as u64,
    })
}

fn check_request(
    from: &PathPrefix,
    to: &PathPrefix,
    mode: TransferMode,
    precondition: &Precondition,
) -> Result<(), ApplyRefusal> {
    let invalid = |detail: String| Err(ApplyRefusal::Invalid { detail });
    if !from.is_directory() || !to.is_directory() {
        return invalid(format!(
            "`{from}` and `{to}` are not both directories (end both in `/`) or both files"
        ));
    }
    match mode {
        TransferMode::Copy => return invalid("directories can be moved, not copied".to_owned()),
        TransferMode::Move => {}
    }
    if *precondition != Precondition::None {
        return invalid("a precondition makes sense for a single target file only".to_owned());
    }
    if from.as_str().is_empty() {
        return invalid("the root cannot be moved".to_owned());
    }
    if to.as_str().starts_with(from.as_str()) {
        return invalid(format!("`{to}` lies in `{from}` itself"));
    }
    Ok(())
}

fn read_below(
    txn: &dyn ReadTxn,
    from: &PathPrefix,
    limit: u64,
) -> Result<Vec<FileRecord>, ApplyRefusal> {
    let prefix = from.as_str().as_bytes();
    let mut span = Span::prefix(prefix);
    span.end = successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
    let mut files: Vec<FileRecord> = Vec::new();
    loop {
        let page = txn.range(Table::Files, &span, Direction::Forward, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        span.start = Bound::Excluded(last.clone());
        let full = page.len() == PAGE;
        for (_key, value) in &page {
            files.push(factor_value::decode(value)?);
        }
        if files.len() as u64 > limit {
            return Err(ApplyRefusal::TooManyFiles {
                path: from.to_string(),
                limit,
            });
        }
        if !full {
            break;
        }
    }
    if files.is_empty() {
        return Err(not_found(from.as_str()));
    }
    Ok(files)
}

fn rebase_all(
    sources: &[FileRecord],
    from: &PathPrefix,
    to: &PathPrefix,
) -> Result<Vec<FileRecord>, ApplyRefusal> {
    let rebase = |source: &FileRecord| {
        let path = source
            .path
            .rebase(from, to)
            .ok_or_else(|| not_found(from.as_str()))?
            .map_err(|error| ApplyRefusal::Invalid {
                detail: format!("`{}` cannot be moved: {error}", source.path),
            })?;
        Ok(FileRecord {
            path,
            ..source.clone()
        })
    };
    sources.iter().map(rebase).collect()
}
