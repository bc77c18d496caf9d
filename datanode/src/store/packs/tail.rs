//! What a start does with the end of a pack before anything in it counts. Bytes that were never known
//! to be durable may lie in the page cache only: the process died before its fsync, or the fsync
//! failed and the kernel calls the pages clean all the same. A second fsync proves nothing then, but
//! bytes that are written again are dirty again.

use std::io;
use std::path::Path;

use dfs_runtime::disk::{Disk, DiskFile, OpenMode};

use super::format::{ALIGN, Entry, PACK_HEADER_LEN, PackHeader, REMOVAL_LEN, Site};

/// A pack from its last byte on that is known to be durable.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Everything before this is durable.
    pub(super) durable: u64,
    /// First and last byte of what is whole behind it.
    pub(super) whole: Vec<(u64, u64)>,
    /// Of what a crash cut, or what rots, between them.
    pub(super) torn: Vec<(u64, u64)>,
    /// The disk gave all of it. What it did not give may be there another time.
    pub(super) read: bool,
    /// The last byte of the pack.
    pub(super) end: u64,
}

impl Tail {
    /// Makes the tail durable, and says so in the pack, so that no start does it again. Returns where
    /// the pack ends now. An error means that nothing in the tail may be believed.
    pub(super) fn secure(&self, disk: &dyn Disk, path: &Path, head: PackHeader) -> io::Result<u64> {
        let file = disk.open(path, OpenMode::ReadWrite)?;
        if self.read && file.length()? > self.end {
            file.set_length(self.end)?;
        }
        self.write_again(file.as_ref(), head)?;
        file.sync()?;
        if !self.read {
            return Ok(self.end);
        }
        let end = Entry::end(self.end).encode(site(head, self.end));
        if let Err(error) = file.write_all_at(&end, self.end) {
            // The next start does the same again. A full disk must start, or nothing can be removed.
            tracing::warn!(file = %path.display(), %error, "could not mark a pack as closed");
            return Ok(self.end);
        }
        file.sync()?;
        Ok(self.end + REMOVAL_LEN)
    }

    fn write_again(&self, file: &dyn DiskFile, head: PackHeader) -> io::Result<()> {
        if self.durable < PACK_HEADER_LEN {
            file.write_all_at(&head.encode(), 0)?;
        }
        for (from, to) in &self.whole {
            let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, *from)?;
            file.write_all_at(&bytes, *from)?;
        }
        // Once these bytes count as durable, the header of a torn entry would be believed.
        for (from, to) in self.torn.iter().filter(|_| self.read) {
            let step = usize::try_from(ALIGN).map_err(io::Error::other)?;
            for offset in (*from..*to).step_by(step) {
                let nothing = Entry::end(self.durable).encode(site(head, offset));
                file.write_all_at(&nothing, offset)?;
            }
        }
        Ok(())
    }
}

fn site(head: PackHeader, offset: u64) -> Site {
    let PackHeader { number, salt } = head;
    Site {
        number,
        salt,
        offset,
    }
}
