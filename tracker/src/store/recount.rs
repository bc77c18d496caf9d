//! The derived numbers of the catalog, counted anew: for fsck and for tests. Derived counters that
//! nobody recounts are wrong one day.

use std::collections::BTreeMap;

use dfs_protocol::ChunkId;
use dfs_protocol::chunk::SealedChunk;

use super::error::StoreError;
use super::keys::{self, Counters};
use super::kv::ReadTxn;
use super::snapshot::Snapshot;

const PAGE: usize = 1000;

/// Where records and derived numbers disagree. Empty means that all is well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recount {
    /// The totals as stored, when a recount gives others.
    pub stored_counters: Option<Counters>,
    /// The totals as counted.
    pub counters: Counters,
    /// Chunks with another number of references than is stored: id, stored, counted. A stored 0 is
    /// a chunk that is named but not known; a counted 0 one that is known but not named.
    pub references: Vec<(ChunkId, u32, u32)>,
    /// Chunks that are condemned and known at once.
    pub condemned_and_known: Vec<ChunkId>,
    /// Paths that lie below a file.
    pub below_files: Vec<String>,
}

impl Recount {
    /// Whether everything agrees.
    pub fn is_clean(&self) -> bool {
        self.stored_counters.is_none()
            && self.references.is_empty()
            && self.condemned_and_known.is_empty()
            && self.below_files.is_empty()
    }
}

/// Recounts a picture of the catalog. Takes memory for one number per chunk.
pub fn recount(txn: &dyn ReadTxn) -> Result<Recount, StoreError> {
    let snapshot = Snapshot::new(txn);
    let mut result = Recount::default();
    let mut named: BTreeMap<ChunkId, u32> = BTreeMap::new();
    count_files(&snapshot, &mut result, &mut named)?;
    count_trash(&snapshot, &mut result, &mut named)?;
    count_chunks(&snapshot, &mut result, &mut named)?;
    result
        .references
        .extend(named.into_iter().map(|(id, counted)| (id, 0, counted)));
    let stored = keys::read_counters(txn)?;
    result.stored_counters = (stored != result.counters).then_some(stored);
    Ok(result)
}

fn count_files(
    snapshot: &Snapshot<'_>,
    result: &mut Recount,
    named: &mut BTreeMap<ChunkId, u32>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = snapshot.scan_files(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        for file in &page {
            result.counters.files += 1;
            result.counters.file_bytes += file.size;
            name_all(named, &file.chunks);
            for parent in file.path.parents() {
                let key = parent.as_bytes();
                if snapshot.txn().get(super::kv::Table::Files, key)?.is_some() {
                    result.below_files.push(file.path.to_string());
                }
            }
        }
        after = Some(last.path.clone());
    }
}

fn count_trash(
    snapshot: &Snapshot<'_>,
    result: &mut Recount,
    named: &mut BTreeMap<ChunkId, u32>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = snapshot.scan_trash(after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for entry in &page {
            result.counters.trash_entries += 1;
            result.counters.trash_bytes += entry.file.size;
            name_all(named, &entry.file.chunks);
        }
    }
}

// Takes what is stored out of `named`: what stays is named but not known.
fn count_chunks(
    snapshot: &Snapshot<'_>,
    result: &mut Recount,
    named: &mut BTreeMap<ChunkId, u32>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = snapshot.scan_chunks(after, PAGE)?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = Some(*last);
        for (id, chunk) in &page {
            result.counters.chunks += 1;
            result.counters.chunk_bytes += chunk.length;
            let counted = named.remove(id).unwrap_or(0);
            if counted != chunk.references {
                result.references.push((*id, chunk.references, counted));
            }
        }
    }
    let mut after = None;
    loop {
        let page = snapshot.scan_condemned(after, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        for (id, _) in &page {
            result.counters.condemned += 1;
            if snapshot.get_chunk(*id)?.is_some() {
                result.condemned_and_known.push(*id);
            }
        }
    }
}

fn name_all(named: &mut BTreeMap<ChunkId, u32>, chunks: &[SealedChunk]) {
    for chunk in chunks {
        *named.entry(chunk.id).or_default() += 1;
    }
}
