//! The disk as an argument. Everything durable goes through [`Disk`], so that a test can make a
//! write fail, tear or vanish with the power. All calls block: run them on a blocking thread.

mod metered;
mod write_mode;

pub use metered::{DiskMetrics, DiskOperation, MeteredDisk, is_of_a_file};
pub use write_mode::{DIRECT_ALIGN, check_direct, choose_write_mode, probe_write_mode};

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, OFlags, fadvise, sendfile};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

/// Bytes that are read for a socket at once, where they cannot go there themselves.
const SEND_STEP: usize = 64 * 1024;
/// Distance of the bytes by which [`DiskFile::is_in_memory`] judges.
const LOOK_STEP: usize = 64 * 1024;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, read only.
    Read,
    /// Existing file, read and write.
    ReadWrite,
    /// New file; an error when the name is taken.
    CreateNew,
    /// Existing or new file, read and write.
    OpenOrCreate,
    /// Existing file, to be written past the page cache (`O_DIRECT`): memory, positions and lengths are multiples of
    /// [`DIRECT_ALIGN`]. `Unsupported` or `InvalidInput` where the file system cannot.
    Direct,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The last segment of its path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes, for files.
    pub length: u64,
}

/// Bytes of the file system that holds a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// That this process may still take.
    pub available: u64,
}

/// Keeps a directory for this process; released on drop and when the process dies.
pub trait DiskLock: Debug + Send + Sync {}

/// Names and files of one volume.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a directory and its parents, durably.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file a new name, replacing what had it. Durable after [`Disk::sync_dir`] of the
    /// target's directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`] of its directory.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Room on the file system.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// Takes a lock file, or fails with `WouldBlock` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// One open file. Positions are explicit: handles are shared between threads.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`Self::read_at`], but out of memory alone, so that it may be called outside of a blocking
    /// thread: `WouldBlock` where the device would be waited for, or nothing tells; fewer bytes where only
    /// the first ones are at hand.
    fn read_now_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// As [`Self::write_all_at`] of `parts` one behind the other.
    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write_all_at(&parts.concat(), offset)
    }
    /// As [`Self::write_parts_at`], but the page cache lets go of the bytes once they are on the device (Linux 6.14,
    /// `RWF_DONTCACHE`): copying a stream of large writes into pages that nobody reads costs more than the sockets it
    /// came over. `Unsupported`, with nothing written, where kernel or file system cannot do that.
    fn write_dontcache_at(&self, _parts: &[&[u8]], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Says that these bytes are about to be read: the device may fetch them meanwhile. Does not wait, and
    /// nothing depends on it.
    fn read_ahead(&self, _offset: u64, _length: u64) {}
    /// Whether these bytes are in memory, as far as can be known without waiting: a hint.
    fn is_in_memory(&self, _offset: u64, _length: u64) -> bool {
        false
    }
    /// Sends up to `length` bytes at `offset` to a socket, as many as it takes now, where the system can without a copy of
    /// ours. 0 at the file's end; `WouldBlock` while the socket takes none.
    fn send_to(&self, socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        let mut buffer = vec![0; length.min(SEND_STEP)];
        let read = self.read_at(&mut buffer, offset)?;
        Ok(rustix::io::write(socket, &buffer[..read])?)
    }
    /// Bytes of the file.
    fn length(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeroes) the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes bytes and length durable (fdatasync). After an error nothing written before it may be
    /// relied on, and calling it again proves nothing (I14).
    fn sync(&self) -> io::Result<()>;

    /// Fills `buffer` from `offset` without waiting for the device. `WouldBlock` whenever that is not to be had, also at the file's end.
    fn read_exact_now_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_now_at(buffer, offset)? == buffer.len() {
            return Ok(());
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Fills `buffer` from `offset`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

/// A disk that a role's tasks share.
pub type SharedDisk = Arc<dyn Disk>;

/// Replaces the file `dir/name` as one durable step: stage, fsync, rename, fsync directory.
/// A crash leaves the old bytes or the new ones. Staged names end in `.staged`.
pub fn replace_durably(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = dir.join(format!("{name}.staged"));
    let file = disk.open(&staged, OpenMode::OpenOrCreate)?;
    file.set_length(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&staged, &dir.join(name))?;
    disk.sync_dir(dir)
}

/// All bytes of a file that may hold at most `limit`.
pub fn read_whole(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = file.length()?;
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} holds {length} bytes, the limit is {limit}",
                path.display()
            ),
        ));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The machine's file systems.
#[derive(Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// A disk to hand to a role.
    pub fn shared() -> SharedDisk {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|dir| !dir.exists())
            .map(Path::to_path_buf)
            .collect();
        std::fs::create_dir_all(path)?;
        for dir in missing {
            self.sync_dir(parent_of(&dir))?;
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
            OpenMode::OpenOrCreate => options.read(true).write(true).create(true),
            OpenMode::Direct => options.write(true).custom_flags(direct_flag()),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed between the listing and the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: metadata.is_dir(),
                length: metadata.len(),
            });
        }
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        // As df reckons its share: what only root may take, or a quota keeps back, is no room of ours.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        Ok(Space {
            total: used
                .saturating_add(stat.f_bavail)
                .saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn direct_flag() -> i32 {
    // A bit of a flag word, whatever its sign.
    OFlags::DIRECT.bits().cast_signed()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[derive(Debug)]
struct RealLock {
    file: File,
}

impl DiskLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was just forked holds the same file until it executes.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a lock is released only when its file is closed");
        }
    }
}

#[derive(Debug)]
struct RealFile(File);

/// Slices that the kernel takes at once (`IOV_MAX`).
const MOST_SLICES: usize = 1024;
/// `RWF_DONTCACHE` of linux/fs.h, since Linux 6.14; rustix has no name for it yet.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Writes all of `parts` one behind the other.
fn write_parts(
    file: &File,
    parts: &[&[u8]],
    offset: u64,
    flags: ReadWriteFlags,
) -> Result<(), Errno> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    let mut at = offset;
    // Empty parts in front are none.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(MOST_SLICES)];
        match pwritev2(file, now, at, flags) {
            // A device that takes nothing and says no reason.
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn read_now_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut into = [IoSliceMut::new(buffer)];
        match preadv2(&self.0, &mut into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read),
            // Also a file system that cannot tell what is in memory.
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        write_parts(&self.0, parts, offset, ReadWriteFlags::empty()).map_err(Into::into)
    }

    fn write_dontcache_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        match write_parts(&self.0, parts, offset, DONTCACHE) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            written => written.map_err(Into::into),
        }
    }

    fn read_ahead(&self, offset: u64, length: u64) {
        if let Some(length) = NonZeroU64::new(length)
            && let Err(error) = fadvise(&self.0, offset, Some(length), Advice::WillNeed)
        {
            tracing::debug!(%error, "nothing is read ahead");
        }
    }

    fn is_in_memory(&self, offset: u64, length: u64) -> bool {
        let mut byte = [0];
        let end = offset.saturating_add(length);
        let mut places = (offset..end)
            .step_by(LOOK_STEP)
            .chain([end.saturating_sub(1)]);
        length > 0 && places.all(|at| matches!(self.read_now_at(&mut byte, at), Ok(1)))
    }

    fn send_to(&self, socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        let mut at = offset;
        loop {
            match sendfile(socket, &self.0, Some(&mut at), length) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_one_behind_the_other_however_many_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        let parts: Vec<Vec<u8>> = (0..2500_usize)
            .map(|n| vec![u8::try_from(n % 251).unwrap(); n % 7 * 100])
            .collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        file.write_parts_at(&slices, 4096).unwrap();
        file.write_parts_at(&[], 0).unwrap();
        file.write_parts_at(&[b"", b"ab", b""], 1).unwrap();
        file.read_ahead(0, u64::MAX);
        let all = read_whole(&RealDisk, &path, u64::MAX).unwrap();
        assert_eq!(&all[..4], b"\0ab\0");
        assert!(all[4096..] == parts.concat());
    }
}
