//! Moving every pack out of sight, and putting damaged bytes of packs aside.

use std::io;
use std::path::Path;

use dfs_runtime::disk::OpenMode;

use super::Packs;
use super::book::Book;
use super::lead::Halt;
use super::recover::{BAD_SECTOR, behind_error};
use crate::store::layout::{pack_name, pack_path};

/// Bytes copied at once.
const COPY: u64 = 64 * 1024;

impl Packs {
    /// Moves every pack into `target`, oldest first: a removal never goes before what it removes.
    /// True when there was one. Durable after both directories were synced. The halt lasts until the
    /// index is empty too: what is sealed after it is another identity's.
    pub(in crate::store) fn retire(&self, _halt: &Halt<'_>, target: &Path) -> io::Result<bool> {
        let numbers = self.lock().book.numbers();
        self.move_packs(&numbers, target)?;
        let mut state = self.lock();
        state.book = Book::default();
        state.open = None;
        state.salts.clear();
        let files = std::mem::take(&mut state.handles.files);
        drop(state);
        drop(files);
        Ok(!numbers.is_empty())
    }

    fn move_packs(&self, numbers: &[u64], target: &Path) -> io::Result<()> {
        for number in numbers {
            let from = pack_path(&self.root, *number);
            match self.disk.rename(&from, &target.join(pack_name(*number))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Copies the bytes `from .. to` of a pack into a file of their own. What cannot be read is a hole
    /// there, and the last error is returned once everything else is durable.
    pub(in crate::store) fn copy_out(
        &self,
        pack: u64,
        from: u64,
        to: u64,
        target: &Path,
    ) -> io::Result<()> {
        let (file, _) = self.file(pack)?;
        let copy = self.disk.open(target, OpenMode::OpenOrCreate)?;
        copy.set_length(0)?;
        let mut at = from;
        let mut step = COPY;
        let mut failures = 0;
        let mut failed = None;
        let mut buffer = vec![0; usize::try_from(COPY).map_err(io::Error::other)?];
        while at < to {
            // To the next boundary, so that a bad sector costs itself only.
            let most = (step - at % step).min(to - at);
            let wanted = usize::try_from(most).map_err(io::Error::other)?;
            match file.read_at(&mut buffer[..wanted], at) {
                Ok(0) => break,
                Ok(read) => {
                    copy.write_all_at(&buffer[..read], at - from)?;
                    at += read as u64;
                    (step, failures) = (COPY, 0);
                }
                Err(_) if step > BAD_SECTOR => step = BAD_SECTOR,
                Err(error) => {
                    failed = Some(error);
                    failures += 1;
                    at = behind_error(at, failures);
                }
            }
        }
        copy.sync()?;
        failed.map_or(Ok(()), Err)
    }
}
