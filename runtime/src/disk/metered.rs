//! A disk whose work is timed and whose errors are counted.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};

use super::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, SharedDisk, Space};
use crate::clock::SharedClock;
use crate::metrics::{CounterBy, Label as _, registered};

/// Upper bounds in seconds. Measured on ext4 over a virtual SSD that other programs share: reads out of
/// the page cache 5 to 25 us; blocks written 0.1 to 0.25 ms, 1 % over 10 ms; fsync 0.25 to 0.5 ms, 1 % over
/// 25 ms. Spinning disks and network volumes take 10 ms and more, a disk that goes bad takes seconds.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

crate::label_enum! {
    /// What a disk was asked to do.
    pub enum DiskOperation: "operation" {
        /// Bytes of a file were read.
        Read = "read",
        /// Bytes were handed to the file system.
        Write = "write",
        /// Bytes or names were made durable.
        Fsync = "fsync",
        /// Anything else: opening, renaming, removing, listing, cutting.
        Other = "other",
    }
}

/// `dfs_disk_*`.
#[derive(Debug, Clone)]
pub struct DiskMetrics {
    read: Histogram,
    write: Histogram,
    fsync: Histogram,
    errors: CounterBy<DiskOperation>,
}

impl DiskMetrics {
    /// Registers every series.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = HistogramOpts::new(
            "dfs_disk_operation_duration_seconds",
            "Time of one operation on the role's volume",
        );
        let seconds = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &[DiskOperation::NAME])?;
        let seconds = registered(registry, seconds)?;
        let of = |operation: DiskOperation| seconds.with_label_values(&[operation.as_str()]);
        Ok(Self {
            read: of(DiskOperation::Read),
            write: of(DiskOperation::Write),
            fsync: of(DiskOperation::Fsync),
            errors: CounterBy::register(
                registry,
                "dfs_disk_errors_total",
                "Operations on the role's volume that failed",
            )?,
        })
    }

    /// Operations that failed so far.
    pub fn error_count(&self, operation: DiskOperation) -> u64 {
        self.errors.get(operation)
    }

    /// Operations that were timed so far; `Other` ones are not.
    pub fn timed_count(&self, operation: DiskOperation) -> u64 {
        self.histogram(operation)
            .map_or(0, Histogram::get_sample_count)
    }

    fn histogram(&self, operation: DiskOperation) -> Option<&Histogram> {
        match operation {
            DiskOperation::Read => Some(&self.read),
            DiskOperation::Write => Some(&self.write),
            DiskOperation::Fsync => Some(&self.fsync),
            DiskOperation::Other => None,
        }
    }

    fn ended<T>(&self, operation: DiskOperation, took: Duration, result: &io::Result<T>) {
        if let Some(histogram) = self.histogram(operation) {
            histogram.observe(took.as_secs_f64());
        }
        if result.as_ref().is_err_and(is_the_disks) {
            self.errors.inc(operation);
        }
    }
}

/// Whether an error tells of the disk: names that are absent, taken or locked, files that are shorter
/// than was thought, and what it cannot do at all, are answers.
fn is_the_disks(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Unsupported
    )
}

/// Whether an error of [`DiskFile::send_to`] may be about the file, and not about the socket.
pub fn is_of_a_file(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// Passes everything on to another disk.
#[derive(Debug, Clone)]
pub struct MeteredDisk {
    inner: SharedDisk,
    meter: Meter,
}

#[derive(Debug, Clone)]
struct Meter {
    clock: SharedClock,
    metrics: DiskMetrics,
}

impl Meter {
    fn time<T>(
        &self,
        operation: DiskOperation,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let begun = self.clock.monotonic();
        let result = work();
        let took = self.clock.monotonic().saturating_sub(begun);
        self.metrics.ended(operation, took, &result);
        result
    }

    fn other<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let result = work();
        let untimed = Duration::ZERO;
        self.metrics.ended(DiskOperation::Other, untimed, &result);
        result
    }
}

impl MeteredDisk {
    /// A disk to hand to a role.
    pub fn shared(inner: SharedDisk, clock: SharedClock, metrics: DiskMetrics) -> SharedDisk {
        let meter = Meter { clock, metrics };
        Arc::new(Self { inner, meter })
    }
}

impl Disk for MeteredDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.meter.other(|| self.inner.create_dir_all(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.meter.other(|| self.inner.open(path, mode))?;
        let meter = self.meter.clone();
        Ok(Arc::new(MeteredFile { inner, meter }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.meter.other(|| self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.meter.other(|| self.inner.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.meter.other(|| self.inner.list(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let sync = || self.inner.sync_dir(dir);
        self.meter.time(DiskOperation::Fsync, sync)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.meter.other(|| self.inner.space(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.meter.other(|| self.inner.lock(path))
    }
}

#[derive(Debug)]
struct MeteredFile {
    inner: Arc<dyn DiskFile>,
    meter: Meter,
}

impl DiskFile for MeteredFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = || self.inner.read_at(buffer, offset);
        self.meter.time(DiskOperation::Read, read)
    }

    fn read_now_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let begun = self.meter.clock.monotonic();
        let result = self.inner.read_now_at(buffer, offset);
        // What is not at hand is read again, and timed then.
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            let took = self.meter.clock.monotonic().saturating_sub(begun);
            let metrics = &self.meter.metrics;
            metrics.ended(DiskOperation::Read, took, &result);
        }
        result
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let write = || self.inner.write_all_at(data, offset);
        self.meter.time(DiskOperation::Write, write)
    }

    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let write = || self.inner.write_parts_at(parts, offset);
        self.meter.time(DiskOperation::Write, write)
    }

    fn write_dontcache_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let write = || self.inner.write_dontcache_at(parts, offset);
        self.meter.time(DiskOperation::Write, write)
    }

    fn is_in_memory(&self, offset: u64, length: u64) -> bool {
        self.inner.is_in_memory(offset, length)
    }

    fn send_to(&self, socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        let begun = self.meter.clock.monotonic();
        let result = self.inner.send_to(socket, offset, length);
        // A socket that is full or gone tells nothing of the disk.
        if !matches!(&result, Err(error) if !is_of_a_file(error)) {
            let took = self.meter.clock.monotonic().saturating_sub(begun);
            let metrics = &self.meter.metrics;
            metrics.ended(DiskOperation::Read, took, &result);
        }
        result
    }

    fn read_ahead(&self, offset: u64, length: u64) {
        self.inner.read_ahead(offset, length);
    }

    fn length(&self) -> io::Result<u64> {
        self.meter.other(|| self.inner.length())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.meter.other(|| self.inner.set_length(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.meter.time(DiskOperation::Fsync, || self.inner.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::{RealDisk, read_whole, replace_durably};

    #[test]
    fn reads_writes_and_fsyncs_are_timed_and_absent_names_are_no_errors() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = DiskMetrics::register(&Registry::new()).unwrap();
        let clock = SystemClock::shared();
        let disk = MeteredDisk::shared(RealDisk::shared(), clock, metrics.clone());
        replace_durably(disk.as_ref(), dir.path(), "name", b"bytes").unwrap();
        read_whole(disk.as_ref(), &dir.path().join("name"), 9).unwrap();
        let timed = [
            (DiskOperation::Read, 1),
            (DiskOperation::Write, 1),
            (DiskOperation::Fsync, 2),
            (DiskOperation::Other, 0),
        ];
        for (operation, count) in timed {
            assert_eq!(metrics.timed_count(operation), count, "{operation:?}");
        }
        disk.remove(&dir.path().join("absent")).unwrap_err();
        assert_eq!(metrics.error_count(DiskOperation::Other), 0);
        // A directory cannot be removed as a file.
        disk.remove(dir.path()).unwrap_err();
        assert_eq!(metrics.error_count(DiskOperation::Other), 1);
    }
}
