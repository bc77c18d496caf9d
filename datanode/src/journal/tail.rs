//! What a start does with the end of the journal before anything in it is answered for. What no record
//! names as durable may lie in the page cache only: the process died before its fsync, or the fsync
//! failed and the kernel calls the pages clean all the same. A second fsync proves nothing then, but
//! bytes that are written again are dirty again.

use std::io;

use dfs_runtime::disk::DiskFile;

use super::format::SegmentScan;

/// Makes the last segment durable; `bytes` are those that were `found` in it. An error means that
/// nothing in it may be believed.
pub(super) fn secure(file: &dyn DiskFile, bytes: &[u8], found: &SegmentScan) -> io::Result<()> {
    let whole = || found.records.iter().chain(&found.behind);
    let durable = whole().map(|record| record.head.durable).max().unwrap_or(0);
    let rewrite = |from: u64, to: u64| {
        let place = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        match place.and_then(|(from, to)| bytes.get(from..to)) {
            Some(again) => file.write_all_at(again, from),
            None => Ok(()),
        }
    };
    if durable < found.end {
        rewrite(durable, found.end)?;
    }
    for record in &found.behind {
        let end = record.at + record.head.total();
        if durable < end {
            rewrite(record.at, end)?;
        }
    }
    file.sync()
}
