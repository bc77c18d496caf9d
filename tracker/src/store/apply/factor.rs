//! Setting the replication factor of a file, or of a page of those below a directory. Decided in the
//! serial order of commits on what lives there at that moment: a version that comes later has the
//! factor of its own upload.

use std::ops::Bound;

use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::Precondition;
use dfs_protocol::{FilePath, PathPrefix};

use super::ApplyContext;
use super::draft::Draft;
use super::files::not_found;
use super::paths::{check_precondition, read_file};
use crate::model::op::{FactoredPage, OpOutcome};
use crate::store::error::ApplyRefusal;
use crate::store::factor_value;
use crate::store::kv::{Direction, ReadTxn, Span, Table, WriteTxn};

/// Most files of one page.
pub(super) const PAGE_FILES: usize = 1000;
/// A page ends with the file that reaches this many chunks.
pub const PAGE_CHUNKS: usize = 10_000;

/// What a change of factor asks for.
pub(super) struct FactorChange<'a> {
    pub(super) path: &'a PathPrefix,
    pub(super) after: Option<&'a FilePath>,
    pub(super) precondition: &'a Precondition,
    /// None: the cluster's.
    pub(super) factor: Option<u32>,
    pub(super) cluster: u32,
}

pub(super) fn set(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    change: &FactorChange<'_>,
) -> Result<OpOutcome, ApplyRefusal> {
    let (files, next) = if change.path.is_directory() {
        if *change.precondition != Precondition::None {
            return Err(ApplyRefusal::Invalid {
                detail: "a precondition makes sense for a single file only".to_owned(),
            });
        }
        page_below(txn, change.path, change.after)?
    } else {
        (vec![single(txn, change)?], None)
    };
    let mut page = FactoredPage {
        files: files.len() as u64,
        next,
        ..FactoredPage::default()
    };
    let mut draft = Draft::begin(txn, context)?;
    for before in files {
        page.chunks
            .extend(before.chunks.iter().map(|chunk| chunk.id));
        let own_factor = change.factor.is_some();
        let factor = change.factor.unwrap_or(change.cluster);
        if before.own_factor == own_factor && (!own_factor || before.factor == factor) {
            continue;
        }
        let after = FileRecord {
            factor,
            own_factor,
            ..before.clone()
        };
        draft.refactor(&before, &after)?;
        page.changed += 1;
    }
    page.refactored = draft.take_refactored();
    draft.finish()?;
    Ok(OpOutcome::Factored(page))
}

fn single(txn: &dyn ReadTxn, change: &FactorChange<'_>) -> Result<FileRecord, ApplyRefusal> {
    let path = super::file_path(change.path.as_str())?;
    let current = read_file(txn, &path)?;
    check_precondition(change.precondition, &path, current.as_ref())?;
    current.ok_or_else(|| not_found(path.as_str()))
}

/// Files of one page below a directory, and where the next page begins. A directory without a
/// file is not there; one whose last page was read is.
pub fn page_below(
    txn: &dyn ReadTxn,
    directory: &PathPrefix,
    after: Option<&FilePath>,
) -> Result<(Vec<FileRecord>, Option<FilePath>), ApplyRefusal> {
    let mut span = Span::prefix(directory.as_str().as_bytes());
    if let Some(after) = after {
        if !after.as_str().starts_with(directory.as_str()) {
            return Err(ApplyRefusal::Invalid {
                detail: format!("`{after}` does not lie below `{directory}`"),
            });
        }
        span.start = Bound::Excluded(after.as_str().as_bytes().to_vec());
    }
    // One more than a page holds says whether there is another.
    let pairs = txn.range(Table::Files, &span, Direction::Forward, PAGE_FILES + 1)?;
    if pairs.is_empty() && after.is_none() {
        return Err(not_found(directory.as_str()));
    }
    let mut files: Vec<FileRecord> = Vec::new();
    let mut chunks = 0;
    for (_, value) in &pairs {
        if files.len() == PAGE_FILES || chunks >= PAGE_CHUNKS {
            let next = files.last().map(|file| file.path.clone());
            return Ok((files, next));
        }
        let file: FileRecord = factor_value::decode(value)?;
        chunks += file.chunks.len();
        files.push(file);
    }
    Ok((files, None))
}
