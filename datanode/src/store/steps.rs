//! Blocks of a large chunk, collected into writes of 1 MiB that leave nothing in the page cache where the volume can do
//! that. They stay where they were received until then: nothing is copied on the way to the kernel, but for direct writes,
//! whose memory must be aligned.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dfs_protocol::datanode::WriteMode;
use dfs_runtime::disk::{DIRECT_ALIGN, DiskFile, OpenMode};

use super::buffers::{Buffers, LEAST as LEAST_ALIGNED};
use super::error::StoreError;
use super::files::Shared;

/// Bytes written at once: enough for the device, little beside what a stream holds anyway.
const STEP: usize = 1024 * 1024;

/// A file by the way in which large writes reach it ([`WriteMode`]).
#[derive(Debug)]
pub(super) enum LargeFile {
    /// The page cache lets go of what is written.
    Dontcache(Arc<dyn DiskFile>),
    /// Past the page cache, where places allow it.
    Direct {
        /// Takes what is aligned.
        direct: Arc<dyn DiskFile>,
        /// The same file, for the rest: through the page cache.
        file: Arc<dyn DiskFile>,
        /// Aligned memory.
        buffers: Arc<Buffers>,
    },
    /// Through the page cache.
    Buffered(Arc<dyn DiskFile>),
}

impl LargeFile {
    fn write(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        match self {
            Self::Buffered(file) => file.write_parts_at(parts, at),
            Self::Dontcache(file) => match file.write_dontcache_at(parts, at) {
                // It worked on this volume when the datanode started: nothing is lost but the cache's room.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    file.write_parts_at(parts, at)
                }
                written => written,
            },
            Self::Direct {
                direct,
                file,
                buffers,
            } => write_direct(direct.as_ref(), file.as_ref(), buffers, parts, at),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let (Self::Dontcache(file) | Self::Buffered(file) | Self::Direct { file, .. }) = self;
        file.set_length(length)
    }
}

impl Shared {
    /// A staged file, as its blocks are written.
    pub(super) fn large_file(
        &self,
        path: &Path,
        file: &Arc<dyn DiskFile>,
    ) -> Result<LargeFile, StoreError> {
        let file = Arc::clone(file);
        Ok(match self.writes {
            WriteMode::Dontcache => LargeFile::Dontcache(file),
            WriteMode::Buffered => LargeFile::Buffered(file),
            WriteMode::Direct => {
                let direct = self.disk.open(path, OpenMode::Direct);
                let direct =
                    direct.map_err(|e| self.write_error("opening a staged file again", e))?;
                let buffers = Arc::clone(&self.buffers);
                LargeFile::Direct {
                    direct,
                    file,
                    buffers,
                }
            }
        })
    }
}

/// Writes what lies between two aligned places directly; what lies before and behind, in pages that others share,
/// through the page cache. The kernel keeps both in order.
fn write_direct(
    direct: &dyn DiskFile,
    file: &dyn DiskFile,
    buffers: &Arc<Buffers>,
    parts: &[&[u8]],
    at: u64,
) -> io::Result<()> {
    let length = parts.iter().map(|part| part.len()).sum();
    let aligned = aligned_part(at, length);
    // Memory is as far from an aligned place as the file is.
    let shift = aligned.start.next_multiple_of(DIRECT_ALIGN) - aligned.start;
    let mut buffer = buffers.take((shift + length).max(LEAST_ALIGNED));
    let bytes = &mut buffer[shift..shift + length];
    let mut rest = &mut *bytes;
    for part in parts {
        let (now, behind) = rest.split_at_mut(part.len());
        now.copy_from_slice(part);
        rest = behind;
    }
    let place = |offset: usize| at + offset as u64;
    if aligned.start > 0 {
        file.write_all_at(&bytes[..aligned.start], at)?;
    }
    if !aligned.is_empty() {
        direct.write_all_at(&bytes[aligned.clone()], place(aligned.start))?;
    }
    if aligned.end < length {
        file.write_all_at(&bytes[aligned.end..], place(aligned.end))?;
    }
    Ok(())
}

/// Of `length` bytes at `at` in a file, those between the first and the last aligned place; empty at the front where there
/// is none.
fn aligned_part(at: u64, length: usize) -> Range<usize> {
    let align = DIRECT_ALIGN as u64;
    let to_place = |place: u64| usize::try_from(place.saturating_sub(at)).unwrap_or(usize::MAX);
    let from = to_place(at.next_multiple_of(align));
    let to = to_place((at + length as u64) / align * align);
    if from < to { from..to } else { length..length }
}

/// A file that grows at its end. What was pushed last may not be written yet.
#[derive(Debug)]
pub(super) struct Steps {
    file: LargeFile,
    /// Where `pending` goes.
    at: u64,
    pending: Vec<Bytes>,
    /// Bytes of `pending`.
    held: usize,
}

impl Steps {
    /// Goes on in `file` at `at`.
    pub(super) fn new(file: LargeFile, at: u64) -> Self {
        Self {
            file,
            at,
            pending: Vec::new(),
            held: 0,
        }
    }

    /// Adds bytes at the end; writes when a step is full.
    pub(super) fn push(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let now = data.split_to(data.len().min(STEP - self.held));
            self.held += now.len();
            self.pending.push(now);
            if self.held == STEP {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is pending.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.held > 0 {
            let parts: Vec<&[u8]> = self.pending.iter().map(AsRef::as_ref).collect();
            self.file.write(&parts, self.at)?;
            self.at += self.held as u64;
            self.clear();
        }
        Ok(())
    }

    /// Drops what lies behind `end`, a position in the file.
    pub(super) fn cut(&mut self, end: u64) -> io::Result<()> {
        // A write that failed may have left bytes behind `at`.
        self.file.set_length(end.min(self.at))?;
        if end < self.at {
            self.clear();
            self.at = end;
        } else {
            self.keep(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.held = 0;
    }

    /// Keeps the first `count` pending bytes.
    fn keep(&mut self, count: usize) {
        let mut left = count.min(self.held);
        self.held = left;
        for part in &mut self.pending {
            part.truncate(left);
            left -= part.len();
        }
        self.pending.retain(|part| !part.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use dfs_runtime::disk::{RealDisk, check_direct, read_whole};
    use prometheus::IntGauge;
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::bytes;

    const AT: u64 = 4096;

    #[derive(Debug, Clone, Copy)]
    enum Way {
        Dontcache,
        /// A volume that could do it once, and cannot any more.
        NoLonger,
        Direct,
        Buffered,
    }

    const WAYS: [Way; 4] = [Way::Dontcache, Way::NoLonger, Way::Direct, Way::Buffered];

    /// Takes only what `O_DIRECT` takes, whatever the file system below does.
    #[derive(Debug)]
    struct Strict(Arc<dyn DiskFile>);

    impl DiskFile for Strict {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }

        fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
            check_direct(data, offset).unwrap();
            self.0.write_all_at(data, offset)
        }

        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }

        fn set_length(&self, length: u64) -> io::Result<()> {
            self.0.set_length(length)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    fn large(file: Arc<dyn DiskFile>, way: Way) -> LargeFile {
        match way {
            Way::Dontcache => LargeFile::Dontcache(file),
            Way::NoLonger => LargeFile::Dontcache(Arc::new(Plain(file))),
            Way::Buffered => LargeFile::Buffered(file),
            Way::Direct => LargeFile::Direct {
                direct: Arc::new(Strict(Arc::clone(&file))),
                file,
                buffers: Buffers::new(IntGauge::new("count", "count").unwrap()),
            },
        }
    }

    /// Knows no writes beside the page cache.
    #[derive(Debug)]
    struct Plain(Arc<dyn DiskFile>);

    impl DiskFile for Plain {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }

        fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_all_at(data, offset)
        }

        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }

        fn set_length(&self, length: u64) -> io::Result<()> {
            self.0.set_length(length)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    /// What the file holds after `data` was pushed in parts of `part`, cut to `cut` and pushed on.
    fn written(way: Way, at: u64, data: &[u8], part: usize, cut: usize) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (RealDisk::shared(), dir.path().join("file"));
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        let mut steps = Steps::new(large(file, way), at);
        for block in data.chunks(part) {
            steps.push(Bytes::copy_from_slice(block)).unwrap();
        }
        steps.cut(at + cut as u64).unwrap();
        steps.push(Bytes::copy_from_slice(&data[cut..])).unwrap();
        steps.flush().unwrap();
        let all = read_whole(disk.as_ref(), &path, u64::MAX).unwrap();
        all[usize::try_from(at).unwrap()..].to_vec()
    }

    #[test]
    fn what_is_pushed_cut_and_pushed_again_is_what_is_written() {
        let data = bytes(2 * STEP + 70_000);
        let ends = [0, 1, STEP - 1, STEP, STEP + 65_536, 2 * STEP, data.len()];
        for (part, cut) in [65_536, 70_001, STEP, 3 * STEP]
            .into_iter()
            .flat_map(|part| ends.map(|cut| (part, cut)))
        {
            for way in WAYS {
                assert!(
                    written(way, AT, &data, part, cut) == data,
                    "{way:?} {part} {cut}"
                );
            }
        }
    }

    #[test]
    fn direct_writes_of_a_real_file_leave_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (RealDisk::shared(), dir.path().join("file"));
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        // A file system in memory may refuse it: then there is nothing to be seen.
        let Ok(direct) = disk.open(&path, OpenMode::Direct) else {
            return;
        };
        let buffers = Buffers::new(IntGauge::new("count", "count").unwrap());
        let large = LargeFile::Direct {
            direct,
            file: Arc::clone(&file),
            buffers,
        };
        let data = bytes(3 * STEP + 70_001);
        file.write_all_at(&[7; 4096], 0).unwrap();
        let mut steps = Steps::new(large, AT);
        for block in data.chunks(65_536) {
            steps.push(Bytes::copy_from_slice(block)).unwrap();
        }
        steps.flush().unwrap();
        file.write_all_at(b"footer", AT + data.len() as u64)
            .unwrap();
        let all = read_whole(disk.as_ref(), &path, u64::MAX).unwrap();
        assert!(all == [&[7; 4096], &data[..], b"footer"].concat());
    }

    proptest! {
        #[test]
        fn the_direct_part_is_aligned_and_leaves_less_than_a_page_at_each_side(
            at in 0_u64..100_000, length in 0_usize..300_000,
        ) {
            let part = aligned_part(at, length);
            prop_assert!(part.start <= part.end && part.end <= length);
            prop_assert!(part.len().is_multiple_of(DIRECT_ALIGN));
            if part.is_empty() {
                prop_assert!(length < 2 * DIRECT_ALIGN && part.start == length);
            } else {
                prop_assert!((at + part.start as u64).is_multiple_of(DIRECT_ALIGN as u64));
                prop_assert!(part.start < DIRECT_ALIGN && length - part.end < DIRECT_ALIGN);
            }
        }

        #[test]
        fn any_lengths_and_cuts_are_written_as_they_are_in_every_mode(
            at in prop_oneof![Just(AT), 0_u64..20_000],
            length in 1_usize..3_000_000,
            part in 1_usize..2_000_000,
            cut in 0_usize..3_000_000,
        ) {
            let data = bytes(length);
            for way in WAYS {
                let same = written(way, at, &data, part.max(1000), cut.min(length)) == data;
                prop_assert!(same, "{:?}", way);
            }
        }
    }
}
