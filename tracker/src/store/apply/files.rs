//! Changes to single files: commit, delete, copy, move, restore, purge, adopt.

use std::collections::BTreeSet;

use jiff::Timestamp;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::file::{FileRecord, TrashEntry, TrashReason};
use dfs_protocol::upload::{CommitRequest, Precondition, TransferMode};
use dfs_protocol::{FilePath, TrashId, UploadId, VersionId};

use super::ApplyContext;
use super::draft::{Draft, Leaving, read_chunk, read_condemned};
use super::paths::{check_place, check_precondition, check_trash_id, read_file};
use super::uploads;
use crate::model::op::{DatanodeRecord, OpOutcome};
use crate::store::datanode_value;
use crate::store::error::{ApplyRefusal, StoreError};
use crate::store::factor_value;
use crate::store::keys;
use crate::store::kv::{ReadTxn, Table, WriteTxn};

pub(super) fn commit(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    request: &CommitRequest,
    factor: u32,
    trash: Option<TrashId>,
    now: Timestamp,
) -> Result<OpOutcome, ApplyRefusal> {
    let current = read_file(txn, &request.path)?;
    let version = VersionId::from(request.upload);
    if let Some(current) = &current
        && current.version == version
    {
        return Ok(unchanged(current.clone()));
    }
    check_request(request)?;
    if request.chunks.is_empty() && uploads::had_effect(txn, request.upload)? {
        return Err(superseded(request));
    }
    check_chunks(txn, request)?;
    check_precondition(&request.precondition, &request.path, current.as_ref())?;
    check_place(txn, &request.path)?;
    check_trash_id(txn, trash.filter(|_| current.is_some()))?;
    let file = FileRecord {
        path: request.path.clone(),
        file: request.file,
        version,
        size: request.size,
        crc64nvme: request.crc64nvme,
        md5: request.md5,
        content_type: request.content_type.clone(),
        content_encoding: request.content_encoding.clone(),
        metadata: request.metadata.clone(),
        created: current.as_ref().map_or(now, |current| current.created),
        modified: now,
        factor,
        chunks: request.chunks.iter().map(|w| w.chunk).collect(),
        own_factor: request.factor.is_some(),
    };
    let mut draft = Draft::begin(txn, context)?;
    let new_chunks = draft.reference(&file)?;
    let outcome = put_in_place(&mut draft, file, current, trash, now, new_chunks)?;
    draft.finish()?;
    if request.chunks.is_empty() {
        uploads::remember(txn, request.upload)?;
    }
    Ok(outcome)
}

// The upload had its effect before, and must not have it twice (I19).
fn superseded(request: &CommitRequest) -> ApplyRefusal {
    ApplyRefusal::Superseded {
        path: request.path.to_string(),
    }
}

fn check_request(request: &CommitRequest) -> Result<(), ApplyRefusal> {
    let invalid = |detail: String| Err(ApplyRefusal::Invalid { detail });
    let mut bytes = 0u64;
    let mut seen = BTreeSet::new();
    for written in &request.chunks {
        bytes = bytes.saturating_add(written.chunk.length);
        if !seen.insert(written.chunk.id) {
            return invalid(format!("chunk {} is named twice", written.chunk.id));
        }
        if written.chunk.length == 0 {
            return invalid(format!("chunk {} is empty", written.chunk.id));
        }
        if written.replicas.is_empty() {
            return invalid(format!("chunk {} has no replica", written.chunk.id));
        }
    }
    if bytes != request.size {
        return invalid(format!(
            "the chunks hold {bytes} bytes, the file is said to have {}",
            request.size
        ));
    }
    Ok(())
}

fn check_chunks(txn: &dyn ReadTxn, request: &CommitRequest) -> Result<(), ApplyRefusal> {
    let mut in_service = BTreeSet::new();
    for written in &request.chunks {
        let chunk = written.chunk;
        if read_condemned(txn, chunk.id)?.is_some() {
            return Err(ApplyRefusal::ChunkCondemned { chunk: chunk.id });
        }
        if let Some(known) = read_chunk(txn, chunk.id)? {
            // Its own chunks are known and the path has another version.
            if known.file == request.file {
                return Err(superseded(request));
            }
            return Err(ApplyRefusal::Invalid {
                detail: format!("chunk {} belongs to another upload", chunk.id),
            });
        }
        for datanode in &written.replicas {
            if in_service.contains(datanode) {
                continue;
            }
            let record = txn.get(Table::Datanodes, &keys::datanode(*datanode))?;
            let record: Option<DatanodeRecord> = record
                .map(|bytes| datanode_value::decode(&bytes))
                .transpose()?;
            if record.is_none_or(|record| record.admin != AdminState::InService) {
                return Err(ApplyRefusal::ReplicaNotInService {
                    chunk: chunk.id,
                    datanode: *datanode,
                });
            }
            in_service.insert(*datanode);
        }
    }
    Ok(())
}

// Puts a referenced file at its path; what lived there leaves.
fn put_in_place(
    draft: &mut Draft<'_>,
    file: FileRecord,
    current: Option<FileRecord>,
    trash: Option<TrashId>,
    now: Timestamp,
    new_chunks: Vec<dfs_protocol::ChunkId>,
) -> Result<OpOutcome, StoreError> {
    let replaced = current.is_some();
    let mut condemned = Vec::new();
    if let Some(current) = current {
        draft.take_file(&current)?;
        let leaving = Leaving {
            trash,
            reason: TrashReason::Replaced,
            now,
        };
        condemned = draft.leave(current, leaving)?;
    }
    draft.put_file(&file)?;
    Ok(OpOutcome::File {
        file: Box::new(file),
        replaced,
        new_chunks,
        condemned,
        refactored: draft.take_refactored(),
    })
}

fn unchanged(file: FileRecord) -> OpOutcome {
    OpOutcome::File {
        file: Box::new(file),
        replaced: false,
        new_chunks: Vec::new(),
        condemned: Vec::new(),
        refactored: Vec::new(),
    }
}

pub(super) fn delete(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    path: &FilePath,
    precondition: &Precondition,
    trash: Option<TrashId>,
    now: Timestamp,
) -> Result<OpOutcome, ApplyRefusal> {
    let current = read_file(txn, path)?;
    check_precondition(precondition, path, current.as_ref())?;
    let current = current.ok_or_else(|| not_found(path.as_str()))?;
    check_trash_id(txn, trash)?;
    let version = current.version;
    let mut draft = Draft::begin(txn, context)?;
    draft.take_file(&current)?;
    let leaving = Leaving {
        trash,
        reason: TrashReason::Deleted,
        now,
    };
    let condemned = draft.leave(current, leaving)?;
    let refactored = draft.take_refactored();
    draft.finish()?;
    Ok(OpOutcome::Deleted {
        version,
        trash,
        condemned,
        refactored,
    })
}

/// A copy or move of one file.
pub(super) struct FileTransfer<'a> {
    pub(super) from: FilePath,
    pub(super) to: FilePath,
    pub(super) mode: TransferMode,
    pub(super) precondition: &'a Precondition,
    pub(super) upload: UploadId,
    pub(super) trash: Option<TrashId>,
    pub(super) now: Timestamp,
}

pub(super) fn transfer(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    request: &FileTransfer<'_>,
) -> Result<OpOutcome, ApplyRefusal> {
    let FileTransfer {
        from,
        to,
        mode,
        precondition,
        upload,
        trash,
        now,
    } = request;
    let current = read_file(txn, to)?;
    if let Some(current) = &current
        && *mode == TransferMode::Copy
        && current.version == VersionId::from(*upload)
    {
        return Ok(unchanged(current.clone()));
    }
    let source = read_file(txn, from)?.ok_or_else(|| not_found(from.as_str()))?;
    if from == to {
        return Err(ApplyRefusal::Invalid {
            detail: format!("`{from}` is source and target at once"),
        });
    }
    check_precondition(precondition, to, current.as_ref())?;
    check_place(txn, to)?;
    check_trash_id(txn, trash.filter(|_| current.is_some()))?;
    let mut file = FileRecord {
        path: to.clone(),
        created: current.as_ref().map_or(*now, |current| current.created),
        ..source.clone()
    };
    let mut draft = Draft::begin(txn, context)?;
    match mode {
        TransferMode::Copy => {
            file.version = VersionId::from(*upload);
            file.modified = *now;
            draft.reference(&file)?;
        }
        TransferMode::Move => {
            // The version goes along, and with it the time at which its path came to be.
            file.created = current.as_ref().map_or(source.created, |c| c.created);
            draft.take_file(&source)?;
        }
    }
    let outcome = put_in_place(&mut draft, file, current, *trash, *now, Vec::new())?;
    draft.finish()?;
    Ok(outcome)
}

pub(super) fn restore(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    id: TrashId,
    to: Option<&FilePath>,
    upload: UploadId,
    now: Timestamp,
) -> Result<OpOutcome, ApplyRefusal> {
    let version = VersionId::from(upload);
    let Some(entry) = read_trash(txn, id)? else {
        // A retry after a lost answer finds its own result, when it says where.
        let done = to.map(|to| read_file(txn, to)).transpose()?.flatten();
        return done
            .filter(|file| file.version == version)
            .map(unchanged)
            .ok_or(ApplyRefusal::TrashNotFound { id });
    };
    let path = to.unwrap_or(&entry.file.path).clone();
    if read_file(txn, &path)?.is_some() {
        return Err(ApplyRefusal::PathTaken {
            path: path.to_string(),
        });
    }
    check_place(txn, &path)?;
    let file = FileRecord {
        path,
        version,
        modified: now,
        ..entry.file.clone()
    };
    let mut draft = Draft::begin(txn, context)?;
    draft.take_trash(&entry)?;
    let outcome = put_in_place(&mut draft, file, None, None, now, Vec::new())?;
    draft.finish()?;
    Ok(outcome)
}

pub(super) fn purge(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    ids: &[TrashId],
    now: Timestamp,
) -> Result<OpOutcome, ApplyRefusal> {
    let mut chunks = Vec::new();
    let mut purged = 0;
    let mut draft = Draft::begin(txn, context)?;
    for id in ids {
        // Read one by one: an id that is named twice is gone the second time.
        let Some(entry) = read_trash(draft.read(), *id)? else {
            continue;
        };
        draft.take_trash(&entry)?;
        chunks.extend(draft.dereference(&entry.file, now)?);
        purged += 1;
    }
    let refactored = draft.take_refactored();
    draft.finish()?;
    Ok(OpOutcome::Condemned {
        chunks,
        purged,
        refactored,
    })
}

pub(super) fn adopt(
    txn: &mut dyn WriteTxn,
    context: ApplyContext,
    file: &FileRecord,
) -> Result<OpOutcome, ApplyRefusal> {
    if let Some(current) = read_file(txn, &file.path)? {
        if current.version == file.version {
            return Ok(unchanged(current));
        }
        return Err(ApplyRefusal::PathTaken {
            path: file.path.to_string(),
        });
    }
    check_place(txn, &file.path)?;
    let mut seen = BTreeSet::new();
    for chunk in &file.chunks {
        if read_condemned(txn, chunk.id)?.is_some() {
            return Err(ApplyRefusal::ChunkCondemned { chunk: chunk.id });
        }
        if !seen.insert(chunk.id) {
            return Err(ApplyRefusal::Invalid {
                detail: format!("chunk {} is named twice", chunk.id),
            });
        }
    }
    let mut draft = Draft::begin(txn, context)?;
    let new_chunks = draft.reference(file)?;
    let now = file.modified;
    let outcome = put_in_place(&mut draft, file.clone(), None, None, now, new_chunks)?;
    draft.finish()?;
    Ok(outcome)
}

fn read_trash(txn: &dyn ReadTxn, id: TrashId) -> Result<Option<TrashEntry>, StoreError> {
    let bytes = txn.get(Table::Trash, &keys::trash(id))?;
    bytes.map(|bytes| factor_value::decode(&bytes)).transpose()
}

pub(super) fn not_found(path: &str) -> ApplyRefusal {
    ApplyRefusal::NotFound {
        path: path.to_owned(),
    }
}
