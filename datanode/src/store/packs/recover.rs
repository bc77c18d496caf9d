//! The start-up scan of packs: reads the header of every entry, once, and replays them in the order
//! of the log. Damage costs the entry that it is in, never the rest of the pack.
//!
//! What was written after the last byte that is known to be durable may be torn, and was not
//! acknowledged: there every entry is read through, and what is not whole never was. What is whole is
//! written again and made durable before it counts.

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
use super::tail::Tail;
use crate::store::error::is_passing;
use crate::store::index::ReplicaKey;
use crate::store::layout::{PACKS_DIR, QUARANTINE_DIR, RETIRED_DIR, pack_path, parse_pack_name};
use crate::store::record::{HeaderError, block_count, decode_footer, footer_length};

/// Packs read at once. More than cores: they wait for the disk.
const WORKERS: usize = 8;
/// Bytes read at once: the headers of a dozen small entries, little of a large one.
const WINDOW: u64 = 64 * 1024;
/// What a disk cannot give is passed over in such steps, the size of its sectors;
pub(super) const BAD_SECTOR: u64 = 4096;
/// behind so many of them in a row in twice as long ones each time,
const MANY_ERRORS: u32 = 64;
/// and at most in such: a disk that gives nothing must not keep the start waiting for each of its sectors.
const LONGEST_STEP: u64 = 1024 * 1024;

/// What the packs hold.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Everything that is live, all packs closed.
    pub book: Book,
    /// Each pack's salt.
    pub salts: BTreeMap<u64, u128>,
    /// Live replicas.
    pub replicas: BTreeMap<ReplicaKey, Replica>,
    /// Entries whose headers are whole, but not of this volume.
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
    unfinished: u64,
    /// The disk did not give all of it: there may be entries that nobody knows of.
    unread: bool,
    end: u64,
    /// What is to be made durable first.
    tail: Option<Tail>,
}

enum Verdict {
    Pack(Contents),
    /// Nothing in it was ever acknowledged.
    Leftover,
    /// Another program's, or a copy under another number.
    Foreign,
    /// No read of it failed, and no entry was found.
    Ruined,
    /// No entry of it was found, but the disk did not give what was looked at.
    Unread,
}

/// Reads the packs of the volume at `root`. `cluster` is the one written on it. Fails only when the
/// directory cannot be listed, this process lacks handles or rights, or what was found cannot be made
/// durable.
pub fn recover(
    disk: &SharedDisk,
    root: &Path,
    cluster: Option<ClusterId>,
) -> io::Result<Recovered> {
    let mut found = Recovered {
        next: next_number(disk.as_ref(), root)?,
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
        found.next = found.next.max(number.saturating_add(1));
        match verdict? {
            Verdict::Pack(mut contents) => {
                let path = pack_path(root, *number);
                if let Some(tail) = contents.tail.take() {
                    let head = PackHeader {
                        number: *number,
                        salt: contents.salt,
                    };
                    contents.end = tail.secure(disk.as_ref(), &path, head)?;
                } else {
                    trim(disk.as_ref(), &path, contents.end, *length);
                }
                found.replay(*number, contents, cluster);
            }
            Verdict::Leftover => disk.remove(&pack_path(root, *number))?,
            Verdict::Foreign => found.foreign.push(pack_path(root, *number)),
            Verdict::Unread => found.leave_unread(*number, *length),
            Verdict::Ruined => found.ruins.push(Ruin {
                pack: *number,
                from: 0,
                to: *length,
            }),
        }
    }
    // Packs whose names are not durable yet, and such that are gone in the page cache only.
    disk.sync_dir(&dir)?;
    disk.sync_dir(root)?;
    Ok(found)
}

/// The next number above those of packs that were moved away: two of one number would meet there.
fn next_number(disk: &dyn Disk, root: &Path) -> io::Result<u64> {
    let mut next = 1;
    for dir in [RETIRED_DIR, QUARANTINE_DIR] {
        for entry in disk.list(&root.join(dir))? {
            let name = entry.name.find(".pack").map(|at| &entry.name[..at + 5]);
            if let Some(number) = name.and_then(parse_pack_name) {
                next = next.max(number.saturating_add(1));
            }
        }
    }
    Ok(next)
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
    fn leave_unread(&mut self, number: u64, end: u64) {
        tracing::warn!(
            pack = number,
            "the disk does not give all of a pack: it stays as it is until a later start reads it"
        );
        self.book.add_pack(number, end);
        self.book.keep_unread(number);
    }

    fn replay(&mut self, number: u64, contents: Contents, cluster: Option<ClusterId>) {
        let Contents {
            salt,
            entries,
            ruins,
            unfinished,
            unread,
            end,
            tail: _,
        } = contents;
        if unread {
            self.leave_unread(number, end);
        } else {
            self.book.add_pack(number, end);
        }
        self.salts.insert(number, salt);
        self.unfinished += unfinished;
        let ruin = |(from, to)| Ruin {
            pack: number,
            from,
            to,
        };
        // What the disk does not give is not copied anywhere: it stays in its place.
        let ruins = ruins.into_iter().filter(|_| !unread);
        self.ruins.extend(ruins.map(ruin));
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
                    if foreign {
                        self.damaged.push(CorruptReplica {
                            chunk: key.0,
                            version: key.1,
                            damage: Damage::Misplaced,
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
        Err(_) => return Ok(Verdict::Unread),
    };
    let mut window = Window::new(file, length);
    let head = window.at(0, PACK_HEADER_LEN)?;
    let blank = head.iter().all(|byte| *byte == 0);
    let salt = match PackHeader::decode(head) {
        Ok(header) if header.number == number => Some(header.salt),
        Ok(_) | Err(HeaderError::UnknownFormat(_)) => return Ok(Verdict::Foreign),
        Err(HeaderError::Damaged) => None,
    };
    let first = window.at(PACK_HEADER_LEN, MAX_ENTRY_HEADER)?;
    let begun = Entry::decode(first, number, PACK_HEADER_LEN, salt);
    let sector = usize::try_from(ALIGN).map_err(io::Error::other)?;
    let never = first.iter().take(sector).all(|byte| *byte == 0);
    let torn = begun.is_some() || if salt.is_some() { never } else { blank };
    // Without a whole header only the place tells our own words from those of users: the first entry's
    // header begins where no chunk's bytes can lie.
    let contents = match salt.or(begun.map(|(_, salt)| salt)) {
        Some(salt) => walk(&mut window, number, salt)?,
        None => None,
    };
    Ok(match contents {
        Some(contents) => Verdict::Pack(contents),
        // The first batch was cut: its header or all of its bytes never came to the disk.
        None if window.errors > 0 => Verdict::Unread,
        None if torn => Verdict::Leftover,
        None => Verdict::Ruined,
    })
}

/// Every entry and every hole of a pack; `None` when there is no entry.
fn walk(window: &mut Window, number: u64, salt: u128) -> io::Result<Option<Contents>> {
    let mut entries: Vec<(u64, Entry)> = Vec::new();
    let mut holes = Vec::new();
    let mut offset = PACK_HEADER_LEN;
    let mut hole = None;
    while offset < window.length {
        let bytes = window.at(offset, MAX_ENTRY_HEADER)?;
        if bytes.is_empty() {
            hole.get_or_insert(offset);
            offset = behind_error(offset, window.in_a_row);
            continue;
        }
        let read = Entry::decode(bytes, number, offset, Some(salt));
        let room = window.length - offset;
        if let Some((entry, _)) = read.filter(|(entry, _)| entry.length() <= room) {
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
    if entries.is_empty() {
        return Ok(None);
    }
    let durable = entries.iter().map(|(_, entry)| entry.durable).max();
    let durable = durable.unwrap_or(0);
    let mut unfinished = 0;
    let mut kept = Vec::with_capacity(entries.len());
    for (offset, entry) in entries {
        if offset >= durable {
            match is_whole(window.file.as_ref(), offset, &entry)? {
                Some(true) => {}
                Some(false) => {
                    unfinished += 1;
                    continue;
                }
                // It may have been acknowledged, and whole another time: no removal may say that it is gone.
                None => {
                    window.errors += 1;
                    continue;
                }
            }
        }
        kept.push((offset, entry));
    }
    holes.retain(|(from, _)| *from < durable);
    if kept.is_empty() && holes.is_empty() {
        return Ok(None);
    }
    let mut contents = Contents {
        salt,
        entries: kept,
        ruins: holes,
        unfinished,
        unread: window.errors > 0,
        end: PACK_HEADER_LEN,
        tail: None,
    };
    // What the disk did not give may be there another time: nothing is cut then.
    let unread = contents.unread.then_some(window.length);
    let ends = contents.ruins.iter().map(|(_, to)| *to);
    let last = contents.entries.last();
    let last = last.map(|(offset, entry)| offset + entry.length());
    contents.end = ends.chain(last).chain(unread).max().unwrap_or(0);
    contents.tail = contents.tail_from(durable);
    Ok(Some(contents))
}

impl Contents {
    /// What lies behind the durable bytes; `None` when that is nothing that counts.
    fn tail_from(&self, durable: u64) -> Option<Tail> {
        let late = self
            .entries
            .iter()
            .filter(|(offset, entry)| *offset >= durable && entry.kind != EntryKind::End);
        let whole: Vec<_> = late
            .map(|(offset, entry)| (*offset, offset + entry.length()))
            .collect();
        if whole.is_empty() {
            return None;
        }
        let entries = self.entries.iter();
        let spans = entries.map(|(offset, entry)| (*offset, offset + entry.length()));
        let mut spans: Vec<_> = spans.chain(self.ruins.iter().copied()).collect();
        spans.sort_unstable();
        let mut torn = Vec::new();
        let mut at = durable.max(PACK_HEADER_LEN);
        for (from, to) in spans {
            if from > at {
                torn.push((at, from));
            }
            at = at.max(to);
        }
        Some(Tail {
            durable,
            whole,
            torn,
            read: !self.unread,
            end: self.end,
        })
    }
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

/// Where to go on behind a read at `offset` that failed, the last of so many in a row.
pub(super) fn behind_error(offset: u64, in_a_row: u32) -> u64 {
    let doublings = in_a_row.saturating_sub(MANY_ERRORS).min(8);
    let step = (BAD_SECTOR << doublings).min(LONGEST_STEP);
    (offset / BAD_SECTOR * BAD_SECTOR).saturating_add(step)
}

/// A pack read forwards.
struct Window {
    file: Arc<dyn DiskFile>,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Reads that failed.
    errors: usize,
    /// The last of them, without one between that did not.
    in_a_row: u32,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>, length: u64) -> Self {
        Self {
            file,
            length,
            start: 0,
            bytes: Vec::new(),
            errors: 0,
            in_a_row: 0,
        }
    }

    /// `count` bytes from `offset`; fewer at the end, none where the disk gives an error.
    fn at(&mut self, offset: u64, count: u64) -> io::Result<&[u8]> {
        let end = self.length.min(offset + count);
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            self.start = offset;
            match self.read(offset, WINDOW) {
                Ok(bytes) => {
                    self.bytes = bytes;
                    self.in_a_row = 0;
                }
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
        let sector = BAD_SECTOR - offset % BAD_SECTOR;
        let read = match self.read(offset, count) {
            // Most headers are short: this one may end before the bad sector.
            Err(error) if !is_passing(&error) && sector < count => self.read(offset, sector),
            read => read,
        };
        match read {
            Err(error) if is_passing(&error) => Err(error),
            Err(_) => {
                self.errors += 1;
                self.in_a_row = self.in_a_row.saturating_add(1);
                Ok(Vec::new())
            }
            read => {
                self.in_a_row = 0;
                read
            }
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
