//! The tracker's journal as this datanode keeps it: append-only segments, acknowledged after a
//! group fsync. Records of a deposed tracker stay beside those that superseded them; who reads the
//! journal decides by fence. All calls block.

pub mod format;
mod read;
mod tail;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_protocol::backfill::is_sequence;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::JournalAppend;
use dfs_protocol::{ClusterId, Epoch, Fence, Incarnation};
use dfs_runtime::disk::{DiskFile, OpenMode, SharedDisk, read_whole};

use self::format::{
    MAX_PAYLOAD, RECORD_HEADER_LEN, RecordHead, SEGMENT_HEADER_LEN, Tail, encode_segment_header,
    scan,
};
use self::tail::secure;
use crate::store::error::is_full;
use crate::store::group::GroupSync;
use crate::store::{FailStop, Volume, VolumeError};

/// Segments end at about this length.
pub const DEFAULT_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// A segment longer than this is not one of ours.
const MAX_SEGMENT: u64 = 1024 * 1024 * 1024;

/// A journal that could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The fence is older than one already accepted, or could not be written down.
    #[error(transparent)]
    Fence(#[from] VolumeError),
    /// The bytes are not those that the checksum announced.
    #[error("the record does not match its checksum")]
    Digest,
    /// The payload is longer than the format knows.
    #[error("a payload of {bytes} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A journal has no such place.
    #[error("no record has the sequence {sequence}")]
    Sequence {
        /// Which place.
        sequence: u64,
    },
    /// Another record has this place under the same fence.
    #[error("record {sequence} of this fence is already there with other bytes")]
    Conflict {
        /// Which place.
        sequence: u64,
    },
    /// Records from this sequence on may be lost here.
    #[error("the journal on this datanode is damaged: records from {from} on may be missing")]
    Damaged {
        /// The first sequence that may be missing.
        from: u64,
    },
    /// No room.
    #[error("the volume is full")]
    Full,
    /// The disk failed.
    #[error("{doing} the journal failed: {source}")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An fsync failed: the process stops (I14).
    #[error("{0}")]
    Failed(String),
}

/// The journal segments of one volume.
#[derive(Debug)]
pub struct Journal {
    disk: SharedDisk,
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    /// Those that read, by sequence, then fence: the order in which a reader wants them.
    records: BTreeMap<Key, Place>,
    /// Those that were found damaged since the start, with nothing later in their places: what is lost
    /// until it is sent again. The segment of each.
    rotten: BTreeMap<Key, u64>,
    /// The sequence before which records were last verified.
    verified: u64,
}

/// Sequence, epoch, incarnation.
type Key = (u64, Epoch, u64);

#[derive(Debug)]
struct Segment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    sync: Arc<Synced>,
    end: u64,
    highest: u64,
    /// The first sequence that damage in this segment may have taken.
    lost_from: Option<u64>,
    /// Where that ends, if it is known.
    lost_before: Option<u64>,
    /// Whether a record in it was found damaged since the start.
    is_rotten: bool,
}

/// What an append needs to become durable, without the lock.
type Handles = (Arc<Synced>, Arc<dyn DiskFile>, PathBuf);

#[derive(Debug, Default)]
struct Synced {
    group: GroupSync,
    written: AtomicU64,
    durable: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u64,
    at: u64,
    length: u32,
    crc: u32,
}

/// A record that is to be written; its checksum, of the payload, was computed once.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    sequence: u64,
    payload: &'a [u8],
    crc: u32,
}

impl Given<'_> {
    fn check(&self) -> Result<(), JournalError> {
        let (sequence, bytes) = (self.sequence, self.payload.len());
        if !is_sequence(sequence) {
            return Err(JournalError::Sequence { sequence });
        }
        if bytes > MAX_PAYLOAD {
            return Err(JournalError::TooLong { bytes });
        }
        Ok(())
    }
}

impl Journal {
    /// Reads every segment. A torn tail is cut (I13); rot is kept, reported by
    /// [`Journal::damaged`] and never skipped by [`Journal::page`], also what rots later.
    /// Everything in it is durable on return.
    pub fn open(disk: SharedDisk, dir: &Path, segment_bytes: u64) -> io::Result<Self> {
        // A process that was killed while it began a segment may have left a name that goes with the power.
        disk.sync_dir(dir)?;
        let mut numbers: Vec<u64> = disk
            .list(dir)?
            .iter()
            .filter(|entry| !entry.is_dir)
            .filter_map(|entry| parse_name(&entry.name))
            .collect();
        numbers.sort_unstable();
        let mut state = State::default();
        let mut before = 0;
        for (index, number) in numbers.iter().enumerate() {
            let is_last = index + 1 == numbers.len();
            load(&disk, dir, *number, is_last, before, &mut state)?;
            before = state.segments.get(number).map_or(before, |s| s.highest);
        }
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            segment_bytes,
            state: Mutex::new(state),
        })
    }

    /// Segments with damage in the middle.
    pub fn damaged(&self) -> u64 {
        let state = self.lock();
        let damaged = state.segments.values().filter(|s| s.is_damaged());
        damaged.count() as u64
    }

    /// Appends one record; durable on return. The same record again is harmless.
    pub fn append(
        &self,
        volume: &Volume,
        cluster: ClusterId,
        append: &JournalAppend,
        payload: &[u8],
        fail_stop: &FailStop,
    ) -> Result<(), JournalError> {
        let crc = crc32c(payload);
        if crc != append.crc32c {
            return Err(JournalError::Digest);
        }
        let fence = Fence {
            epoch: Epoch(append.epoch),
            incarnation: Incarnation(append.incarnation),
        };
        let record = Given {
            sequence: append.sequence,
            payload,
            crc,
        };
        self.commit(volume, cluster, fence, &[record], fail_stop)
    }

    /// Appends records (sequence, payload) in their order; all are durable on return, most with one
    /// fsync. After an error some may be there; sending them again is harmless.
    pub fn append_all(
        &self,
        volume: &Volume,
        cluster: ClusterId,
        fence: Fence,
        records: &[(u64, &[u8])],
        fail_stop: &FailStop,
    ) -> Result<(), JournalError> {
        let given = records.iter().map(|(sequence, payload)| Given {
            sequence: *sequence,
            payload,
            crc: crc32c(payload),
        });
        let given: Vec<Given<'_>> = given.collect();
        self.commit(volume, cluster, fence, &given, fail_stop)
    }

    fn commit(
        &self,
        volume: &Volume,
        cluster: ClusterId,
        fence: Fence,
        records: &[Given<'_>],
        fail_stop: &FailStop,
    ) -> Result<(), JournalError> {
        fail_stop
            .check()
            .map_err(|error| JournalError::Failed(error.to_string()))?;
        records.iter().try_for_each(Given::check)?;
        let mut touched: Vec<Handles> = Vec::new();
        {
            let mut state = self.lock();
            // Under the lock: no record of a deposed tracker gets in behind a newer fence.
            volume.accept(fence)?;
            for record in records {
                let number = self.writable_segment(&mut state, cluster, fail_stop)?;
                let handles = write(&mut state, number, fence, record)?;
                if !touched
                    .iter()
                    .any(|(sync, ..)| Arc::ptr_eq(sync, &handles.0))
                {
                    touched.push(handles);
                }
            }
        }
        // Repeated records wait as well: their first copies may not be durable yet.
        let make_durable =
            |(sync, file, path): &Handles| sync.make_durable(&**file, path, fail_stop);
        touched.iter().try_for_each(make_durable)
    }

    /// The last segment, or a new one when that is full or damaged.
    fn writable_segment(
        &self,
        state: &mut State,
        cluster: ClusterId,
        fail_stop: &FailStop,
    ) -> Result<u64, JournalError> {
        let last = state.segments.last_key_value();
        let next = match last {
            Some((number, segment))
                if !segment.is_damaged() && segment.end < self.segment_bytes =>
            {
                return Ok(*number);
            }
            Some((number, segment)) => {
                // Only the last segment may have a torn tail.
                let (sync, file, path) = segment.handles();
                sync.make_durable(file.as_ref(), &path, fail_stop)?;
                number + 1
            }
            None => 1,
        };
        let highest = last.map_or(0, |(_, segment)| segment.highest);
        let path = self.dir.join(name(next));
        let failed = |e| disk_error("beginning a segment of", e);
        let file = self
            .disk
            .open(&path, OpenMode::OpenOrCreate)
            .map_err(failed)?;
        file.set_length(0).map_err(failed)?;
        file.write_all_at(&encode_segment_header(next, cluster), 0)
            .map_err(failed)?;
        // A retry would believe the next fsync, which proves nothing after this one (I14).
        let stopped =
            |what: &Path, error| JournalError::Failed(fail_stop.fail(what, &error).to_string());
        file.sync().map_err(|error| stopped(&path, error))?;
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| stopped(&self.dir, error))?;
        let segment = Segment::new(file, path, SEGMENT_HEADER_LEN as u64, highest);
        state.segments.insert(next, segment);
        Ok(next)
    }

    /// Removes whole segments that hold only records below `floor`; never the last segment.
    pub fn trim(&self, floor: u64) -> Result<u64, JournalError> {
        let mut state = self.lock();
        let mut removed = 0;
        while state.segments.len() > 1 {
            let Some((number, segment)) = state.segments.first_key_value() else {
                break;
            };
            if segment.highest >= floor || segment.lost_from.is_some_and(|lost| lost >= floor) {
                break;
            }
            let number = *number;
            match self.disk.remove(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(disk_error("trimming", error));
                }
                Ok(()) | Err(_) => {}
            }
            state.segments.remove(&number);
            state.records.retain(|_, place| place.segment != number);
            state.rotten.retain(|_, segment| *segment != number);
            removed += 1;
        }
        Ok(removed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Synced {
    fn make_durable(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        fail_stop: &FailStop,
    ) -> Result<(), JournalError> {
        let synced = self.group.wait(|| {
            let upto = self.written.load(Ordering::Acquire);
            file.sync()?;
            self.durable.fetch_max(upto, Ordering::AcqRel);
            Ok(())
        });
        synced
            .map(drop)
            .map_err(|error| JournalError::Failed(fail_stop.fail(path, &error).to_string()))
    }
}

impl Segment {
    fn new(file: Arc<dyn DiskFile>, path: PathBuf, end: u64, highest: u64) -> Self {
        let sync = Synced::default();
        sync.written.store(end, Ordering::Release);
        sync.durable.store(end, Ordering::Release);
        Self {
            file,
            path,
            sync: Arc::new(sync),
            end,
            highest,
            lost_from: None,
            lost_before: None,
            is_rotten: false,
        }
    }

    fn is_damaged(&self) -> bool {
        self.is_rotten || self.lost_from.is_some()
    }

    fn handles(&self) -> Handles {
        (
            Arc::clone(&self.sync),
            Arc::clone(&self.file),
            self.path.clone(),
        )
    }
}

fn write(
    state: &mut State,
    number: u64,
    fence: Fence,
    record: &Given<'_>,
) -> Result<Handles, JournalError> {
    let Given {
        sequence,
        payload,
        crc: payload_crc,
    } = *record;
    let key = (sequence, fence.epoch, fence.incarnation.0);
    if let Some(place) = state.records.get(&key) {
        if (place.crc, place.length as usize) != (payload_crc, payload.len()) {
            return Err(JournalError::Conflict { sequence });
        }
        if let Some(segment) = state.segments.get(&place.segment) {
            return Ok(segment.handles());
        }
    }
    let Some(segment) = state.segments.get_mut(&number) else {
        let source = io::ErrorKind::NotFound.into();
        let doing = "finding a segment of";
        return Err(JournalError::Disk { doing, source });
    };
    let head = RecordHead {
        length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        payload_crc,
        fence,
        sequence,
        durable: segment.sync.durable.load(Ordering::Acquire),
    };
    let mut bytes = Vec::with_capacity(RECORD_HEADER_LEN + payload.len());
    bytes.extend_from_slice(&head.encode());
    bytes.extend_from_slice(payload);
    let at = segment.end;
    segment
        .file
        .write_all_at(&bytes, at)
        .map_err(|e| disk_error("writing", e))?;
    segment.end += head.total();
    segment.highest = segment.highest.max(sequence);
    segment.sync.written.store(segment.end, Ordering::Release);
    let handles = segment.handles();
    // Whatever was damaged in this place, this one counts.
    state.rotten.retain(|(lost, ..), _| *lost != sequence);
    state.records.insert(
        key,
        Place {
            segment: number,
            at,
            length: head.length,
            crc: payload_crc,
        },
    );
    Ok(handles)
}

/// Reads one segment into the state. `before` is the highest sequence of the segment before.
fn load(
    disk: &SharedDisk,
    dir: &Path,
    number: u64,
    is_last: bool,
    before: u64,
    state: &mut State,
) -> io::Result<()> {
    let path = dir.join(name(number));
    let bytes = read_whole(disk.as_ref(), &path, MAX_SEGMENT)?;
    let found = scan(&bytes, number, is_last);
    if is_last && found.records.is_empty() && matches!(found.tail, Tail::Torn) && found.end == 0 {
        // The process died while it began the segment: nothing in it was acknowledged.
        return disk.remove(&path);
    }
    let file = disk.open(&path, OpenMode::ReadWrite)?;
    if matches!(found.tail, Tail::Torn) {
        tracing::info!(segment = number, end = found.end, "cut a torn journal tail");
        file.set_length(found.end)?;
    }
    if is_last {
        // Each earlier segment was made durable before the next one began.
        secure(file.as_ref(), &bytes, &found)?;
    }
    let readable = found.records.iter().map(|r| r.head.sequence).max();
    let highest = readable.unwrap_or(0).max(before);
    let mut segment = Segment::new(file, path, found.end, highest);
    if let Tail::Rot {
        highest: behind,
        mapped,
    } = found.tail
    {
        let from = highest.saturating_add(1);
        segment.lost_from = Some(from);
        segment.highest = from.max(behind.unwrap_or(0));
        segment.lost_before = mapped.then_some(segment.highest.saturating_add(1));
        tracing::error!(
            segment = number,
            from,
            "the journal is damaged; a rebuild must read these records from other datanodes"
        );
    }
    for record in found.records.into_iter().chain(found.behind) {
        let head = record.head;
        state.records.insert(
            (head.sequence, head.fence.epoch, head.fence.incarnation.0),
            Place {
                segment: number,
                at: record.at,
                length: head.length,
                crc: head.payload_crc,
            },
        );
    }
    state.segments.insert(number, segment);
    Ok(())
}

fn disk_error(doing: &'static str, source: io::Error) -> JournalError {
    if is_full(&source) {
        JournalError::Full
    } else {
        JournalError::Disk { doing, source }
    }
}

fn name(number: u64) -> String {
    format!("{number:016x}.journal")
}

fn parse_name(text: &str) -> Option<u64> {
    let number = u64::from_str_radix(text.strip_suffix(".journal")?, 16).ok()?;
    (name(number) == text).then_some(number)
}
