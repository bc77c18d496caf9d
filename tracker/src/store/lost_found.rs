//! Chunks that datanodes hold and that nothing explains after a rebuild. They become files below
//! `lost+found/`, never below a live path: nobody knows whether they were deleted.

use std::collections::BTreeMap;

use jiff::Timestamp;

use dfs_protocol::chunk::{ChunkKind, ChunkOrigin, SealedChunk};
use dfs_protocol::file::{DEFAULT_CONTENT_TYPE, FileRecord};
use dfs_protocol::{ChunkId, FileId, FilePath, InvalidName, VersionId};

use super::error::StoreError;
use super::keys;
use super::kv::{ReadTxn, Table};

/// First segment of the paths of what was found.
pub const LOST_AND_FOUND: &str = "lost+found";

/// A replica's header as a datanode reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChunk {
    /// What it is.
    pub chunk: SealedChunk,
    /// Where it belongs, by its own word.
    pub origin: ChunkOrigin,
}

/// What became of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LostAndFound {
    /// Files to be put in place with `Op::Adopt`, in order of their paths.
    pub files: Vec<FileRecord>,
    /// Chunks that the catalog explains.
    pub explained: u64,
}

/// Groups what nothing explains by the file that it was written for. One chunk per position: with
/// several (a retried write), the longest stays in the file and the others become files of their
/// own. A file whose positions do not run from 0 without a gap is `.partial`. The end of a file may
/// be missing unnoticed: a chunk does not know that it is the last.
///
/// The whole-file checksum of such a file is unknown and recorded as 0; metadata says
/// `dfs-recovered`. `factor` is the cluster's.
pub fn plan(
    txn: &dyn ReadTxn,
    inventory: impl IntoIterator<Item = FoundChunk>,
    factor: u32,
    now: Timestamp,
) -> Result<LostAndFound, StoreError> {
    let mut result = LostAndFound::default();
    let mut newest: BTreeMap<ChunkId, FoundChunk> = BTreeMap::new();
    for found in inventory {
        if found.origin.kind != ChunkKind::Data {
            continue;
        }
        let known = newest.get(&found.chunk.id);
        if known.is_none_or(|known| known.chunk.version < found.chunk.version) {
            newest.insert(found.chunk.id, found);
        }
    }
    let mut files: BTreeMap<FileId, BTreeMap<u32, Vec<FoundChunk>>> = BTreeMap::new();
    for (id, found) in newest {
        if is_explained(txn, id)? {
            result.explained += 1;
            continue;
        }
        let positions = files.entry(found.origin.file).or_default();
        positions.entry(found.origin.index).or_default().push(found);
    }
    for (file, positions) in files {
        for record in records_of(file, positions, factor, now)? {
            if txn.get(Table::Files, keys::file(&record.path))?.is_none() {
                result.files.push(record);
            }
        }
    }
    result.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(result)
}

fn is_explained(txn: &dyn ReadTxn, id: ChunkId) -> Result<bool, StoreError> {
    let key = keys::chunk(id);
    Ok(txn.get(Table::Chunks, &key)?.is_some() || txn.get(Table::Condemned, &key)?.is_some())
}

fn records_of(
    file: FileId,
    positions: BTreeMap<u32, Vec<FoundChunk>>,
    factor: u32,
    now: Timestamp,
) -> Result<Vec<FileRecord>, StoreError> {
    let whole = positions
        .keys()
        .copied()
        .eq(0..u32::try_from(positions.len()).unwrap_or(u32::MAX));
    let suffix = if whole { "" } else { ".partial" };
    let mut main = Vec::new();
    let mut records = Vec::new();
    for (index, mut candidates) in positions {
        candidates.sort_by_key(|found| (found.chunk.length, found.chunk.id));
        main.extend(candidates.pop());
        for other in candidates {
            let directory = format!("{file}.alternate-{index}-{}", other.chunk.id);
            records.push(record(&directory, file, &[other], factor, now)?);
        }
    }
    records.push(record(
        &format!("{file}{suffix}"),
        file,
        &main,
        factor,
        now,
    )?);
    Ok(records)
}

fn record(
    directory: &str,
    file: FileId,
    found: &[FoundChunk],
    factor: u32,
    now: Timestamp,
) -> Result<FileRecord, StoreError> {
    let hint = found
        .first()
        .map_or("", |found| found.origin.path_hint.as_str());
    let chunks: Vec<SealedChunk> = found.iter().map(|found| found.chunk).collect();
    // Two alternates of one file must not share a version: the first chunk's id tells them apart.
    let version = chunks.first().map_or(0, |chunk| chunk.id.as_u128());
    Ok(FileRecord {
        path: place(directory, hint).map_err(|error| StoreError::Engine {
            detail: format!("naming a found file failed: {error}"),
        })?,
        file,
        version: VersionId::from_u128(version),
        size: chunks.iter().map(|chunk| chunk.length).sum(),
        crc64nvme: 0,
        md5: None,
        content_type: DEFAULT_CONTENT_TYPE.to_owned(),
        content_encoding: None,
        metadata: BTreeMap::from([("dfs-recovered".to_owned(), hint.to_owned())]),
        created: now,
        modified: now,
        factor,
        chunks,
        own_factor: false,
    })
}

// A hint is only a hint: one that is no path gives a neutral name.
fn place(directory: &str, hint: &str) -> Result<FilePath, InvalidName> {
    let name = FilePath::parse(hint)
        .map_or_else(|_| "data".to_owned(), |path| path.file_name().to_owned());
    FilePath::parse(&format!("{LOST_AND_FOUND}/{directory}/{name}"))
}
