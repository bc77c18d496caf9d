//! The start-up scan: reads every header, once, and sorts files into sealed replicas, damaged ones
//! (set aside) and foreign ones (left alone, counted). Nothing found on the disk stops it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_protocol::chunk::Replica;
use dfs_protocol::datanode::{CorruptReplica, Damage};
use dfs_protocol::{ChunkId, ChunkVersion, ClusterId};
use dfs_runtime::disk::{DirEntry, Disk, OpenMode, SharedDisk};

use super::error::is_passing;
use super::layout::{
    CHUNKS_DIR, DIRECTORIES, LOCK_FILE, PACKS_DIR, STAGING_DIR, VERIFIED_FILE, VOLUME_FILE,
    fan_out, parse_chunk_name,
};
use super::record::{HEADER_LEN, HEADER_LEN_U64, HeaderError, RecordHeader, RecordState};

/// Threads that read headers. More than cores: they wait for the disk.
const WORKERS: usize = 8;

/// What the volume holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// Sealed replicas whose headers are whole.
    pub replicas: Vec<Replica>,
    /// Damaged files that bear a chunk's name.
    pub damaged: Vec<Damaged>,
    /// Files that are not ours.
    pub foreign: Vec<PathBuf>,
    /// Leftovers of writes that were cut, now removed.
    pub staged_removed: u64,
}

/// One damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Where it is.
    pub path: PathBuf,
    /// Which chunk its name says, and what is wrong.
    pub replica: CorruptReplica,
}

/// Scans the volume at `root`. `cluster` is the one written on it. Fails only when directories
/// cannot be listed or this process lacks handles or rights.
pub fn scan(disk: &SharedDisk, root: &Path, cluster: Option<ClusterId>) -> io::Result<Scan> {
    let mut result = Scan {
        staged_removed: empty_staging(disk.as_ref(), root)?,
        ..Scan::default()
    };
    for entry in disk.list(root)? {
        if !is_ours(&entry) {
            result.foreign.push(root.join(&entry.name));
        }
    }
    let chunks = root.join(CHUNKS_DIR);
    // A process that was killed while it made a directory may have left a name that goes with the power.
    disk.sync_dir(&chunks)?;
    let mut dirs = Vec::new();
    for entry in disk.list(&chunks)? {
        if entry.is_dir && is_fan_out(&entry.name) {
            dirs.push(entry.name);
        } else {
            result.foreign.push(chunks.join(&entry.name));
        }
    }
    let next = AtomicUsize::new(0);
    let merged = Mutex::new(Ok(result));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(dirs.len()) {
            scope.spawn(|| {
                while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let part = scan_dir(disk.as_ref(), &chunks.join(dir), dir, cluster);
                    merge(&merged, part);
                }
            });
        }
    });
    merged.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn merge(merged: &Mutex<io::Result<Scan>>, part: io::Result<Scan>) {
    let mut merged = merged.lock().unwrap_or_else(PoisonError::into_inner);
    match (merged.as_mut(), part) {
        (Ok(all), Ok(part)) => {
            all.replicas.extend(part.replicas);
            all.damaged.extend(part.damaged);
            all.foreign.extend(part.foreign);
        }
        (Ok(_), Err(error)) => *merged = Err(error),
        (Err(_), _) => {}
    }
}

fn scan_dir(
    disk: &dyn Disk,
    dir: &Path,
    dir_name: &str,
    cluster: Option<ClusterId>,
) -> io::Result<Scan> {
    let mut result = Scan::default();
    // What the page cache names may go with the power.
    disk.sync_dir(dir)?;
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        let named = parse_chunk_name(&entry.name).filter(|_| !entry.is_dir);
        let Some((id, version)) = named else {
            result.foreign.push(path);
            continue;
        };
        let verdict = if fan_out(id) == dir_name {
            examine(disk, &path, entry.length, (id, version), cluster)?
        } else {
            Verdict::Damaged(Damage::Misplaced)
        };
        match verdict {
            Verdict::Sealed(replica) => result.replicas.push(replica),
            Verdict::LaterFormat => result.foreign.push(path),
            Verdict::Damaged(damage) => result.damaged.push(Damaged {
                path,
                replica: CorruptReplica {
                    chunk: id,
                    version,
                    damage,
                },
            }),
        }
    }
    Ok(result)
}

enum Verdict {
    Sealed(Replica),
    /// Made by a later version of the program: not ours to touch.
    LaterFormat,
    Damaged(Damage),
}

fn examine(
    disk: &dyn Disk,
    path: &Path,
    length: u64,
    (id, version): (ChunkId, ChunkVersion),
    cluster: Option<ClusterId>,
) -> io::Result<Verdict> {
    if length < HEADER_LEN_U64 {
        return Ok(Verdict::Damaged(Damage::Length));
    }
    let mut bytes = vec![0; HEADER_LEN];
    let read = disk
        .open(path, OpenMode::Read)
        .and_then(|file| file.read_exact_at(&mut bytes, 0));
    match read {
        Ok(()) => {}
        Err(error) if is_passing(&error) => return Err(error),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Verdict::Damaged(Damage::Length));
        }
        Err(_) => return Ok(Verdict::Damaged(Damage::ReadError)),
    }
    let header = match RecordHeader::decode(&bytes) {
        Ok(header) => header,
        Err(HeaderError::UnknownFormat(_)) => return Ok(Verdict::LaterFormat),
        Err(HeaderError::Damaged) => return Ok(Verdict::Damaged(Damage::Header)),
    };
    let expected = (id, version, cluster.unwrap_or(header.cluster));
    let damage = if (header.chunk.id, header.chunk.version, header.cluster) != expected {
        Damage::Misplaced
    } else if header.state != RecordState::Sealed {
        Damage::Header
    } else if super::record::record_length(header.chunk.length) != length {
        Damage::Length
    } else {
        return Ok(Verdict::Sealed(header.replica()));
    };
    Ok(Verdict::Damaged(damage))
}

/// A write that was cut left no acknowledged byte (fault 2).
fn empty_staging(disk: &dyn Disk, root: &Path) -> io::Result<u64> {
    let staging = root.join(STAGING_DIR);
    let mut removed = 0;
    for entry in disk.list(&staging)? {
        if !entry.is_dir && entry.name.ends_with(super::attempt::STAGED_SUFFIX) {
            disk.remove(&staging.join(&entry.name))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_ours(entry: &DirEntry) -> bool {
    if entry.is_dir {
        // A file system's own directory at the root of a mounted volume.
        return DIRECTORIES.contains(&entry.name.as_str())
            || [PACKS_DIR, "lost+found"].contains(&entry.name.as_str());
    }
    let name = entry.name.strip_suffix(".staged").unwrap_or(&entry.name);
    [VOLUME_FILE, LOCK_FILE, VERIFIED_FILE].contains(&name)
}

fn is_fan_out(name: &str) -> bool {
    name.len() == 2
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
