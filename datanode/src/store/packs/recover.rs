//! The start-up scan of packs: reads the header of every entry, once, and replays them in the order
//! of the log. Damage costs the entry that it is in, never the rest of the pack.
//!
//! What was written after the last byte that is known to be durable may be torn, and was not
//! acknowledged: there every entry is read through, and what is not whole never was.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dfs_protocol::ClusterId;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, Replica};
use dfs_protocol::datanode::{CorruptReplica, Damage};
use dfs_runtime::disk::{Disk, DiskFile, OpenMode, SharedDisk};

use super::book::{Book, Place};
use super::format::{ALIGN, Entry, EntryKind, MAX_ENTRY_HEADER, PACK_HEADER_LEN, PackHeader};
use crate::store::error::is_passing;
use crate::store::index::ReplicaKey;
use crate::store::layout::{PACKS_DIR, pack_path, parse_pack_name};
use crate::store::record::{HeaderError, block_count, decode_footer, footer_length};

/// Packs read at once. More than cores: they wait for the disk.
const WORKERS: usize = 8;
/// Bytes read at once: the headers of a dozen small entries, little of a large one.
const WINDOW: u64 = 64 * 1024;
/// Reads of one pack that may fail before its rest is given up.
const MAX_READ_ERRORS: usize = 64;

/// What the packs hold.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Everything that is live, all packs closed.
    pub book: Book,
    /// Each pack's salt.
    pub salts: BTreeMap<u64, u128>,
    /// Live replicas.
    pub replicas: BTreeMap<ReplicaKey, Replica>,
    /// Entries whose headers are whole, but not of this volume, or that cannot be read.
    pub damaged: Vec<CorruptReplica>,
    /// Acknowledged bytes in which no entry can be read.
    pub ruins: Vec<Ruin>,
    /// Files that are not ours.
    pub foreign: Vec<PathBuf>,
    /// Entries that a crash cut.
    pub unfinished: u64,
    /// The next pack's number.
    pub next: u64,
}

/// Damaged bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruin {
    /// The pack's number.
    pub pack: u64,
    /// First damaged byte.
    pub from: u64,
    /// First byte behind the damage.
    pub to: u64,
}

/// One pack as read.
#[derive(Debug, Default)]
struct Contents {
    salt: u128,
    entries: Vec<(u64, Entry)>,
    ruins: Vec<(u64, u64)>,
    /// Entries that may be torn, and that the disk does not give.
    unreadable: Vec<ReplicaKey>,
    unfinished: u64,
    end: u64,
}

enum Verdict {
    Pack(Contents),
    /// Nothing in it was ever acknowledged.
    Leftover,
    /// Another program's, or a copy under another number.
    Foreign,
    /// No entry of it can be read.
    Ruined,
}

/// Reads the packs of the volume at `root`. `cluster` is the one written on it. Fails only when the
/// directory cannot be listed or this process lacks handles or rights.
pub fn recover(
    disk: &SharedDisk,
    root: &Path,
    cluster: Option<ClusterId>,
) -> io::Result<Recovered> {
    let mut found = Recovered {
        next: 1,
        ..Recovered::default()
    };
    let dir = root.join(PACKS_DIR);
    let entries = match disk.list(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let mut packs = Vec::new();
    for entry in entries {
        match parse_pack_name(&entry.name).filter(|_| !entry.is_dir) {
            Some(number) => packs.push((number, entry.length)),
            None => found.foreign.push(dir.join(&entry.name)),
        }
    }
    packs.sort_unstable();
    for ((number, length), verdict) in packs.iter().zip(read_all(disk.as_ref(), root, &packs)) {
        found.next = found.next.max(number + 1);
        match verdict? {
            Verdict::Pack(contents) => {
                trim(
                    disk.as_ref(),
                    &pack_path(root, *number),
                    contents.end,
                    *length,
                );
                found.replay(*number, contents, cluster);
            }
            Verdict::Leftover => disk.remove(&pack_path(root, *number))?,
            Verdict::Foreign => found.foreign.push(pack_path(root, *number)),
            Verdict::Ruined => found.ruins.push(Ruin {
                pack: *number,
                from: 0,
                to: *length,
            }),
        }
    }
    Ok(found)
}

fn read_all(disk: &dyn Disk, root: &Path, packs: &[(u64, u64)]) -> Vec<io::Result<Verdict>> {
    let next = AtomicUsize::new(0);
    let read = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(packs.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((number, length)) = packs.get(at) else {
                        break;
                    };
                    let verdict = read_pack(disk, &pack_path(root, *number), *number, *length);
                    let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                    read.insert(at, verdict);
                }
            });
        }
    });
    let read = read.into_inner().unwrap_or_else(PoisonError::into_inner);
    read.into_values().collect()
}

/// Gives the room of a torn tail back. A pack that cannot be cut is as good: it takes no more entries.
fn trim(disk: &dyn Disk, path: &Path, end: u64, length: u64) {
    if end >= length {
        return;
    }
    let cut = disk
        .open(path, OpenMode::ReadWrite)
        .and_then(|file| file.set_length(end));
    if let Err(error) = cut {
        tracing::warn!(file = %path.display(), %error, "could not cut the torn tail of a pack");
    }
}

impl Recovered {
    fn replay(&mut self, number: u64, contents: Contents, cluster: Option<ClusterId>) {
        let Contents {
            salt,
            entries,
            ruins,
            unreadable,
            unfinished,
            end,
        } = contents;
        self.book.add_pack(number, end);
        self.salts.insert(number, salt);
        self.unfinished += unfinished;
        let ruin = |(from, to)| Ruin {
            pack: number,
            from,
            to,
        };
        self.ruins.extend(ruins.into_iter().map(ruin));
        for (offset, entry) in entries {
            let key = entry.key();
            match entry.kind {
                EntryKind::Chunk => {
                    let place = Place {
                        pack: number,
                        offset,
                        header: entry.header_length(),
                        length: entry.length(),
                    };
                    self.book.put(key, place);
                    self.replicas.insert(key, entry.header.replica());
                    let foreign = cluster.is_some_and(|own| own != entry.header.cluster);
                    if foreign || unreadable.contains(&key) {
                        self.damaged.push(CorruptReplica {
                            chunk: key.0,
                            version: key.1,
                            damage: if foreign {
                                Damage::Misplaced
                            } else {
                                Damage::ReadError
                            },
                        });
                    }
                }
                EntryKind::Removal => {
                    self.book.remove(key, number);
                    self.replicas.remove(&key);
                }
                EntryKind::End => {}
            }
        }
        let replicas = &self.replicas;
        self.damaged
            .retain(|corrupt| replicas.contains_key(&(corrupt.chunk, corrupt.version)));
    }
}

fn read_pack(disk: &dyn Disk, path: &Path, number: u64, length: u64) -> io::Result<Verdict> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if is_passing(&error) => return Err(error),
        Err(_) => return Ok(Verdict::Ruined),
    };
    let mut window = Window::new(file, length);
    let head = window.at(0, PACK_HEADER_LEN)?;
    let blank = head.iter().all(|byte| *byte == 0);
    let salt = match PackHeader::decode(head) {
        Ok(header) if header.number == number => Some(header.salt),
        Ok(_) | Err(HeaderError::UnknownFormat(_)) => return Ok(Verdict::Foreign),
        Err(HeaderError::Damaged) => None,
    };
    let contents = walk(&mut window, number, salt)?;
    Ok(match contents {
        Some(contents) => Verdict::Pack(contents),
        // The first batch was cut: its header or all of its bytes never came to the disk.
        None if window.errors == 0 && (salt.is_some() || blank) => Verdict::Leftover,
        None => Verdict::Ruined,
    })
}

/// Every entry and every hole of a pack; `None` when there is no entry. Of an entry whose pack has no
/// whole header, the first one's salt is taken.
fn walk(window: &mut Window, number: u64, salt: Option<u128>) -> io::Result<Option<Contents>> {
    let mut salt = salt;
    let mut entries: Vec<(u64, Entry)> = Vec::new();
    let mut holes = Vec::new();
    let mut offset = PACK_HEADER_LEN;
    let mut hole = None;
    while offset < window.length && window.errors < MAX_READ_ERRORS {
        let bytes = window.at(offset, MAX_ENTRY_HEADER)?;
        let read = Entry::decode(bytes, number, offset, salt);
        let room = window.length - offset;
        if let Some((entry, own)) = read.filter(|(entry, _)| entry.length() <= room) {
            salt = Some(own);
            holes.extend(hole.take().map(|from| (from, offset)));
            let length = entry.length();
            entries.push((offset, entry));
            offset += length;
        } else {
            hole.get_or_insert(offset);
            offset += ALIGN;
        }
    }
    holes.extend(hole.map(|from| (from, window.length)));
    let Some(salt) = salt.filter(|_| !entries.is_empty()) else {
        return Ok(None);
    };
    let durable = entries.iter().map(|(_, entry)| entry.durable).max();
    let durable = durable.unwrap_or(0);
    let (mut unfinished, mut unreadable) = (0, Vec::new());
    let mut kept = Vec::with_capacity(entries.len());
    for (offset, entry) in entries {
        if offset >= durable {
            match is_whole(window.file.as_ref(), offset, &entry)? {
                Some(true) => {}
                Some(false) => {
                    unfinished += 1;
                    continue;
                }
                None => unreadable.push(entry.key()),
            }
        }
        kept.push((offset, entry));
    }
    holes.retain(|(from, _)| *from < durable);
    let last = kept.last().map(|(offset, entry)| offset + entry.length());
    // What the disk did not give may be there another time: nothing is cut then.
    let unread = (window.errors > 0).then_some(window.length);
    let ends = holes.iter().map(|(_, to)| *to);
    let end = ends.chain(last).chain(unread).max();
    if kept.is_empty() && holes.is_empty() {
        return Ok(None);
    }
    Ok(Some(Contents {
        salt,
        entries: kept,
        ruins: holes,
        unreadable,
        unfinished,
        end: end.unwrap_or(PACK_HEADER_LEN),
    }))
}

/// Whether data and footer of an entry are what its header says; `None` when the disk gives an error.
fn is_whole(file: &dyn DiskFile, offset: u64, entry: &Entry) -> io::Result<Option<bool>> {
    if entry.kind != EntryKind::Chunk {
        return Ok(Some(true));
    }
    let chunk = entry.header.chunk;
    let length = usize::try_from(chunk.length + footer_length(chunk.length));
    let mut bytes = vec![0; length.map_err(io::Error::other)?];
    match file.read_exact_at(&mut bytes, offset + entry.header_length()) {
        Ok(()) => {}
        Err(error) if is_passing(&error) => return Err(error),
        Err(_) => return Ok(None),
    }
    let data = usize::try_from(chunk.length).map_err(io::Error::other)?;
    let (data, footer) = bytes.split_at(data);
    let Some(blocks) = decode_footer(chunk.id, chunk.version, footer) else {
        return Ok(Some(false));
    };
    let computed: Vec<u32> = data.chunks(BLOCK_SIZE).map(crc32c).collect();
    let whole = computed == blocks && block_count(chunk.length) == blocks.len() as u64;
    Ok(Some(whole))
}

/// A pack read forwards.
struct Window {
    file: Arc<dyn DiskFile>,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    errors: usize,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>, length: u64) -> Self {
        Self {
            file,
            length,
            start: 0,
            bytes: Vec::new(),
            errors: 0,
        }
    }

    /// `count` bytes from `offset`; fewer at the end, none where the disk gives an error.
    fn at(&mut self, offset: u64, count: u64) -> io::Result<&[u8]> {
        let end = self.length.min(offset + count);
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            self.start = offset;
            match self.read(offset, WINDOW) {
                Ok(bytes) => self.bytes = bytes,
                Err(error) if is_passing(&error) => return Err(error),
                // A smaller part may be readable.
                Err(_) => self.bytes = self.retry(offset, count)?,
            }
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(&rest[..rest.len().min(count)])
    }

    fn retry(&mut self, offset: u64, count: u64) -> io::Result<Vec<u8>> {
        match self.read(offset, count) {
            Err(error) if is_passing(&error) => Err(error),
            Err(_) => {
                self.errors += 1;
                Ok(Vec::new())
            }
            read => read,
        }
    }

    fn read(&self, offset: u64, count: u64) -> io::Result<Vec<u8>> {
        let count = count.min(self.length.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        let mut done = 0;
        while done < bytes.len() {
            match self
                .file
                .read_at(&mut bytes[done..], offset + done as u64)?
            {
                0 => break,
                read => done += read,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}
