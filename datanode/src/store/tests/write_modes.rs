//! Large chunks are the same whichever way they are written.

use dfs_runtime::disk::{RealDisk, probe_write_mode};

use super::*;
use crate::testing::{EIO, ENOSPC, Faults};

const MIB: usize = 1024 * 1024;

fn opened(disk: &TestDisk, root: &Path, writes: WriteMode) -> Opened {
    try_open_writing(disk.shared(), root, PackLimits::NONE, writes).unwrap()
}

#[test]
fn a_chunk_that_lost_a_hop_is_cut_and_goes_on_in_every_write_mode() {
    for writes in WriteMode::ALL {
        let (disk, dir) = (TestDisk::default(), tempfile::tempdir().unwrap());
        let store = opened(&disk, dir.path(), writes);
        let data = bytes(2 * MIB + 300_001);
        // Within what was written, at its border, and within what waits for its step.
        for (number, kept) in [(1, 3), (2, 16), (3, 19), (4, 33)] {
            let (mut staged, mut chunk) = store.stage(number, &data);
            let resume = Resume {
                version: ChunkVersion(1),
                length: kept * BLOCK_SIZE_U64,
            };
            staged.resume(ChunkVersion(2), &resume).unwrap();
            let from = usize::try_from(resume.length).unwrap();
            let mut other = data.clone();
            other[from..].reverse();
            append(staged.as_mut(), resume.length, &other[from..]).unwrap();
            chunk.version = ChunkVersion(2);
            chunk.crc32c = crc32c(&other);
            staged.seal(&chunk).unwrap();
            assert!(store.read(&chunk).unwrap() == other, "{writes:?} {kept}");
        }
        drop(store);
        let again = opened(&disk, dir.path(), writes);
        assert_eq!(again.store.index().totals().0, 4, "{writes:?}");
    }
}

#[test]
fn chunks_of_every_awkward_length_come_back_whole_in_every_write_mode() {
    for writes in WriteMode::ALL {
        let (disk, dir) = (TestDisk::default(), tempfile::tempdir().unwrap());
        let store = opened(&disk, dir.path(), writes);
        let lengths = [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 77];
        for (number, length) in (1..).zip(lengths) {
            let data = bytes(length);
            let chunk = store.put(number, &data);
            assert!(store.read(&chunk).unwrap() == data, "{writes:?} {length}");
        }
    }
}

#[test]
fn fault_13_a_write_that_the_disk_refuses_fails_the_chunk_in_every_write_mode() {
    for (writes, error) in WriteMode::ALL
        .into_iter()
        .flat_map(|mode| [(mode, ENOSPC), (mode, EIO)])
    {
        let (disk, dir) = (TestDisk::default(), tempfile::tempdir().unwrap());
        let store = opened(&disk, dir.path(), writes);
        let data = bytes(2 * MIB);
        let mut staged = store.store.begin(&new_chunk(1, 2 * MIB as u64)).unwrap();
        disk.set(Faults {
            write: Some(error),
            ..Faults::default()
        });
        let failed = append(staged.as_mut(), 0, &data).unwrap_err();
        let is_full = matches!(failed, StoreError::NoSpace { .. });
        assert_eq!(is_full, error == ENOSPC, "{writes:?} {failed:?}");
        drop(staged);
        assert!(
            std::fs::read_dir(dir.path().join("staging"))
                .unwrap()
                .next()
                .is_none()
        );
    }
}

#[test]
fn the_machines_own_disk_writes_large_chunks_in_the_mode_that_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for wanted in [None, Some(WriteMode::Direct), Some(WriteMode::Buffered)] {
        let root = dir.path().join(format!("{wanted:?}"));
        std::fs::create_dir(&root).unwrap();
        let mode = probe_write_mode(&RealDisk, &root, "probe", wanted).unwrap();
        let store = try_open_writing(RealDisk::shared(), &root, PackLimits::NONE, mode).unwrap();
        let data = bytes(2 * MIB + 70_001);
        let chunk = store.put(1, &data);
        assert!(store.read(&chunk).unwrap() == data, "{mode:?}");
    }
}
