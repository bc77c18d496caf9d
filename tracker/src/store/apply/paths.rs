//! What may live at a path: preconditions, and files against directories.

use std::collections::BTreeSet;

use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::Precondition;
use dfs_protocol::{FilePath, TrashId};

use crate::store::error::{ApplyRefusal, StoreError};
use crate::store::factor_value;
use crate::store::keys;
use crate::store::kv::{Direction, ReadTxn, Span, Table};

pub(super) fn read_file(
    txn: &dyn ReadTxn,
    path: &FilePath,
) -> Result<Option<FileRecord>, StoreError> {
    let bytes = txn.get(Table::Files, keys::file(path))?;
    bytes.map(|bytes| factor_value::decode(&bytes)).transpose()
}

pub(super) fn check_precondition(
    precondition: &Precondition,
    path: &FilePath,
    current: Option<&FileRecord>,
) -> Result<(), ApplyRefusal> {
    let version = current.map(|file| file.version);
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Absent => version.is_none(),
        Precondition::Exists => version.is_some(),
        Precondition::Versions(wanted) => version.is_some_and(|version| wanted.contains(&version)),
        Precondition::NotVersions(unwanted) => {
            version.is_none_or(|version| !unwanted.contains(&version))
        }
    };
    if holds {
        Ok(())
    } else {
        Err(ApplyRefusal::PreconditionFailed {
            path: path.to_string(),
            current: version,
        })
    }
}

/// A file may live at `path`: none of its directories is a file, and it is no directory itself.
pub(super) fn check_place(txn: &dyn ReadTxn, path: &FilePath) -> Result<(), ApplyRefusal> {
    check_parents(txn, path, &mut BTreeSet::new())?;
    check_no_directory(txn, path)
}

/// None of the directories that `path` implies is a file. `known` spares a second look at those
/// that were found good.
pub(super) fn check_parents(
    txn: &dyn ReadTxn,
    path: &FilePath,
    known: &mut BTreeSet<String>,
) -> Result<(), ApplyRefusal> {
    for parent in path.parents() {
        if known.contains(parent) {
            continue;
        }
        if txn.get(Table::Files, parent.as_bytes())?.is_some() {
            return Err(ApplyRefusal::FileInTheWay {
                path: parent.to_owned(),
            });
        }
        known.insert(parent.to_owned());
    }
    Ok(())
}

pub(super) fn check_no_directory(txn: &dyn ReadTxn, path: &FilePath) -> Result<(), ApplyRefusal> {
    let below = Span::prefix(format!("{path}/").as_bytes());
    if txn
        .range(Table::Files, &below, Direction::Forward, 1)?
        .is_empty()
    {
        Ok(())
    } else {
        Err(ApplyRefusal::DirectoryInTheWay {
            path: path.to_string(),
        })
    }
}

pub(super) fn check_trash_id(txn: &dyn ReadTxn, id: Option<TrashId>) -> Result<(), ApplyRefusal> {
    let Some(id) = id else { return Ok(()) };
    if txn.get(Table::Trash, &keys::trash(id))?.is_some() {
        return Err(ApplyRefusal::Invalid {
            detail: format!("the trash holds an entry {id} already"),
        });
    }
    Ok(())
}
