//! Blocks of a large chunk, collected into writes of 1 MiB that leave nothing in the page cache. They
//! stay where they were received until then: nothing is copied on the way to the kernel.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dfs_runtime::disk::DiskFile;

/// Bytes written at once: enough for the device, little beside what a stream holds anyway.
const STEP: usize = 1024 * 1024;

/// A file that grows at its end. What was pushed last may not be written yet.
#[derive(Debug)]
pub(super) struct Steps {
    file: Arc<dyn DiskFile>,
    /// Where `pending` goes.
    at: u64,
    pending: Vec<Bytes>,
    /// Bytes of `pending`.
    held: usize,
}

impl Steps {
    /// Goes on in `file` at `at`.
    pub(super) fn new(file: Arc<dyn DiskFile>, at: u64) -> Self {
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
            self.file.write_uncached_at(&parts, self.at)?;
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
    use dfs_runtime::disk::{OpenMode, RealDisk, read_whole};

    use super::*;
    use crate::store::tests::bytes;

    const AT: u64 = 4096;

    /// What the file holds after `data` was pushed in parts of `part`, cut to `cut` and pushed on.
    fn written(data: &[u8], part: usize, cut: usize) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (RealDisk::shared(), dir.path().join("file"));
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        let mut steps = Steps::new(file, AT);
        for block in data.chunks(part) {
            steps.push(Bytes::copy_from_slice(block)).unwrap();
        }
        steps.cut(AT + cut as u64).unwrap();
        steps.push(Bytes::copy_from_slice(&data[cut..])).unwrap();
        steps.flush().unwrap();
        let all = read_whole(disk.as_ref(), &path, u64::MAX).unwrap();
        all[usize::try_from(AT).unwrap()..].to_vec()
    }

    #[test]
    fn what_is_pushed_cut_and_pushed_again_is_what_is_written() {
        let data = bytes(2 * STEP + 70_000);
        let ends = [0, 1, STEP - 1, STEP, STEP + 65_536, 2 * STEP, data.len()];
        for (part, cut) in [65_536, 70_001, STEP, 3 * STEP]
            .into_iter()
            .flat_map(|part| ends.map(|cut| (part, cut)))
        {
            assert!(written(&data, part, cut) == data, "{part} {cut}");
        }
    }
}
