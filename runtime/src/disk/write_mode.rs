//! How large writes reach the device: asked of the volume once, at the start.

use std::io;
use std::path::Path;

use dfs_protocol::datanode::WriteMode;

use super::{Disk, OpenMode};

/// What memory, positions and lengths of [`OpenMode::Direct`] are multiples of. A device with larger sectors refuses the
/// probe's write.
pub const DIRECT_ALIGN: usize = 4096;

/// The best mode that works; of a mode that an operator wants, only whether that one works. Buffered writes
/// always do.
pub fn choose_write_mode(
    wanted: Option<WriteMode>,
    mut works: impl FnMut(WriteMode) -> io::Result<bool>,
) -> io::Result<WriteMode> {
    let candidates = wanted.map_or_else(|| WriteMode::ALL.to_vec(), |mode| vec![mode]);
    for mode in candidates {
        if mode == WriteMode::Buffered || works(mode)? {
            return Ok(mode);
        }
    }
    Ok(WriteMode::Buffered)
}

/// [`choose_write_mode`] by what a file in `dir` takes; the file is `dir/name`, and gone on return.
pub fn probe_write_mode(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    wanted: Option<WriteMode>,
) -> io::Result<WriteMode> {
    if wanted == Some(WriteMode::Buffered) {
        return Ok(WriteMode::Buffered);
    }
    let path = dir.join(name);
    let file = disk.open(&path, OpenMode::OpenOrCreate)?;
    let chosen = choose_write_mode(wanted, |mode| {
        let written = match mode {
            WriteMode::Dontcache => file.write_dontcache_at(&[&[0; DIRECT_ALIGN]], 0),
            WriteMode::Direct => disk
                .open(&path, OpenMode::Direct)
                .and_then(|direct| write_aligned(direct.as_ref())),
            WriteMode::Buffered => Ok(()),
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error),
        }
    });
    drop(file);
    disk.remove(&path)?;
    chosen
}

/// The smallest write that chunks need, at the place where their data begins.
fn write_aligned(file: &dyn super::DiskFile) -> io::Result<()> {
    let mut memory = vec![0; 2 * DIRECT_ALIGN];
    let skip = memory.as_ptr().align_offset(DIRECT_ALIGN);
    let aligned = memory.get_mut(skip..skip + DIRECT_ALIGN);
    let aligned = aligned.ok_or(io::ErrorKind::Unsupported)?;
    file.write_all_at(aligned, DIRECT_ALIGN as u64)
}

/// Whether [`OpenMode::Direct`] takes a write, as strictly as any file system: for disks that stand in for one.
pub fn check_direct(data: &[u8], offset: u64) -> io::Result<()> {
    let places = [data.as_ptr() as usize, data.len()];
    let aligned = places
        .iter()
        .all(|place| place.is_multiple_of(DIRECT_ALIGN));
    if aligned && offset.is_multiple_of(DIRECT_ALIGN as u64) {
        return Ok(());
    }
    let what = "a direct write is not aligned";
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Whether an error says that this cannot be done here, and not that the disk is sick.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn chosen(wanted: Option<WriteMode>, working: &[WriteMode]) -> WriteMode {
        choose_write_mode(wanted, |mode| Ok(working.contains(&mode))).unwrap()
    }

    #[test]
    fn the_best_mode_that_works_is_taken_and_a_wanted_one_only_where_it_works() {
        use WriteMode::{Buffered, Direct, Dontcache};
        assert_eq!(chosen(None, &[Dontcache, Direct]), Dontcache);
        assert_eq!(chosen(None, &[Direct]), Direct);
        assert_eq!(chosen(None, &[]), Buffered);
        assert_eq!(chosen(Some(Direct), &[Dontcache, Direct]), Direct);
        assert_eq!(chosen(Some(Direct), &[Dontcache]), Buffered);
        assert_eq!(chosen(Some(Dontcache), &[Direct]), Buffered);
        assert_eq!(chosen(Some(Buffered), &[Dontcache, Direct]), Buffered);
    }

    #[test]
    fn a_disk_that_fails_is_no_disk_that_cannot() {
        let sick = choose_write_mode(None, |_| Err(io::Error::other("sick")));
        assert_eq!(sick.unwrap_err().to_string(), "sick");
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for wanted in [None, Some(WriteMode::Direct), Some(WriteMode::Buffered)] {
            probe_write_mode(&RealDisk, dir.path(), "probe", wanted).unwrap();
            assert!(RealDisk.list(dir.path()).unwrap().is_empty());
        }
    }
}
