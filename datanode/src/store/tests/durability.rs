//! I2, I14, I15: what is acknowledged is on the disk, and what is not is not.

use super::*;
use crate::testing::{DiskOp, EIO, ENOSPC, Faults};

/// The rule, checked on a record of what reached the disk: the bytes are fsynced after the last
/// write, then renamed, then the directory is fsynced.
fn durable(ops: &[DiskOp], target: &Path) -> Result<(), &'static str> {
    let renamed = ops
        .iter()
        .position(|op| matches!(op, DiskOp::Rename(_, to) if to == target))
        .ok_or("not renamed")?;
    let DiskOp::Rename(staged, _) = &ops[renamed] else {
        return Err("not renamed");
    };
    let last = |wanted: &DiskOp| ops[..renamed].iter().rposition(|op| op == wanted);
    let written = last(&DiskOp::Write(staged.clone())).ok_or("not written")?;
    let synced = last(&DiskOp::Sync(staged.clone())).ok_or("file not synced")?;
    if synced < written {
        return Err("written after the sync");
    }
    let dir = DiskOp::SyncDir(target.parent().unwrap().to_path_buf());
    if !ops[renamed..].contains(&dir) {
        return Err("directory not synced");
    }
    Ok(())
}

#[test]
fn i02_a_seal_syncs_file_then_renames_then_syncs_the_directory_before_it_answers() {
    let bench = Bench::new();
    let (staged, chunk) = bench.stage(1, &bytes(70_000));
    staged.seal(&chunk).unwrap();
    let ops = bench.disk.take_ops();
    let target = bench.path(&chunk);
    assert_eq!(durable(&ops, &target), Ok(()));
    // The rule itself must notice each step that is left out.
    let without = |skip: fn(&DiskOp) -> bool| -> Vec<DiskOp> {
        ops.iter().filter(|op| !skip(op)).cloned().collect()
    };
    let no_sync = without(|op| matches!(op, DiskOp::Sync(_)));
    assert_eq!(durable(&no_sync, &target), Err("file not synced"));
    let no_dir = without(|op| matches!(op, DiskOp::SyncDir(_)));
    assert_eq!(durable(&no_dir, &target), Err("directory not synced"));
    let no_rename = without(|op| matches!(op, DiskOp::Rename(..)));
    assert_eq!(durable(&no_rename, &target), Err("not renamed"));
}

#[test]
fn i02_a_removal_syncs_the_directory_before_it_answers() {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    bench.disk.take_ops();
    let removed = bench
        .store
        .remove(chunk.id, chunk.version, ChunkKind::Data)
        .unwrap();
    assert!(removed);
    let path = bench.path(&chunk);
    let dir = path.parent().unwrap().to_path_buf();
    assert_eq!(
        bench.disk.take_ops(),
        [DiskOp::Remove(path), DiskOp::SyncDir(dir)]
    );
}

#[test]
fn i14_after_a_failed_file_sync_nothing_is_acknowledged_although_later_syncs_succeed() {
    let bench = Bench::new();
    let (first, chunk) = bench.stage(1, b"abc");
    let (second, other) = bench.stage(2, b"def");
    bench.disk.set(Faults {
        sync: true,
        ..Faults::default()
    });
    assert!(matches!(first.seal(&chunk), Err(StoreError::Failed { .. })));
    bench.disk.set(Faults::default());
    assert!(bench.store.fail_stop().is_failed());
    assert!(matches!(
        second.seal(&other),
        Err(StoreError::Failed { .. })
    ));
    assert!(bench.store.begin(&new_chunk(3, 1)).is_err());
    let bench = bench.restart();
    assert!(bench.store.index().keys(None).is_empty());
    bench.put(1, b"abc");
}

#[test]
fn fault_13_after_a_failed_directory_sync_nothing_is_acknowledged() {
    let bench = Bench::new();
    bench.put(1, b"abc");
    let (staged, chunk) = bench.stage(2, b"def");
    bench.disk.set(Faults {
        sync_dir: true,
        ..Faults::default()
    });
    assert!(staged.seal(&chunk).is_err());
    bench.disk.set(Faults::default());
    assert!(bench.store.index().get((chunk.id, chunk.version)).is_none());
    assert!(bench.store.begin(&new_chunk(3, 1)).is_err());
}

#[test]
fn i14_after_a_failed_sync_of_a_new_directory_nothing_is_acknowledged() {
    let bench = Bench::new();
    let (first, chunk) = bench.stage(1, b"abc");
    let (second, other) = bench.stage(2, b"def");
    assert_eq!(bench.path(&chunk).parent(), bench.path(&other).parent());
    bench.disk.set(Faults {
        sync_dir: true,
        ..Faults::default()
    });
    assert!(matches!(first.seal(&chunk), Err(StoreError::Failed { .. })));
    bench.disk.set(Faults::default());
    // It is there now, but may go with the power.
    assert!(bench.path(&other).parent().unwrap().is_dir());
    assert!(bench.store.fail_stop().is_failed());
    assert!(second.seal(&other).is_err());
}

#[test]
fn i02_a_directory_that_was_made_without_its_fsync_is_durable_before_a_chunk_is_in_it() {
    let bench = Bench::new();
    let (staged, chunk) = bench.stage(1, b"abc");
    let target = bench.path(&chunk);
    // As by a call that had no file handle left for the fsync.
    std::fs::create_dir(target.parent().unwrap()).unwrap();
    bench.disk.take_ops();
    staged.seal(&chunk).unwrap();
    let ops = bench.disk.take_ops();
    let at = |wanted: fn(&DiskOp) -> bool| ops.iter().position(wanted).unwrap();
    let synced = at(|op| matches!(op, DiskOp::SyncDir(dir) if dir.ends_with("chunks")));
    assert!(
        synced < at(|op| matches!(op, DiskOp::Rename(..))),
        "{ops:?}"
    );
}

#[test]
fn i15_a_full_disk_refuses_the_chunk_removes_the_staged_file_and_goes_on_reading_and_deleting() {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    bench.disk.set(Faults {
        write: Some(ENOSPC),
        ..Faults::default()
    });
    // Bytes of less than a step reach the disk with the seal.
    let (staged, unsealed) = bench.stage(2, b"def");
    let error = staged.seal(&unsealed).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }));
    assert_eq!(dfs_protocol::Problem::from(error).status, 507);
    let mut staged = bench.store.begin(&new_chunk(3, 2 << 20)).unwrap();
    let error = append(staged.as_mut(), 0, &bytes(2 << 20)).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }));
    drop(staged);
    assert!(bench.names("staging").is_empty());
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    let (id, version) = (chunk.id, chunk.version);
    assert!(bench.store.remove(id, version, ChunkKind::Data).unwrap());
    bench.disk.set(Faults::default());
    bench.put(2, b"def");
}

#[test]
fn fault_14_a_volume_near_its_reserve_is_read_only_and_recovers() {
    for bench in Bench::both() {
        let space = |available| {
            bench.disk.set(Faults {
                space: Some((1_000_000, available)),
                ..Faults::default()
            });
        };
        space(99_000);
        assert!(bench.store.room().unwrap().read_only);
        assert!(matches!(
            bench.store.begin(&new_chunk(1, 3)),
            Err(StoreError::NoSpace { .. })
        ));
        assert!(bench.names("staging").is_empty());
        space(200_000);
        let room = bench.store.room().unwrap();
        assert_eq!((room.free, room.read_only), (150_000, false));
        assert!(bench.store.begin(&new_chunk(1, 150_001)).is_err());
        let held = bench.store.begin(&new_chunk(1, 60_000)).unwrap();
        // What an open write has yet to take is not promised twice.
        assert!(bench.store.begin(&new_chunk(2, 100_000)).is_err());
        drop(held);
        assert!(bench.store.begin(&new_chunk(2, 100_000)).is_ok());
    }
}

#[test]
fn fault_12_a_write_error_fails_that_chunk_only() {
    let bench = Bench::new();
    bench.disk.set(Faults {
        write: Some(EIO),
        ..Faults::default()
    });
    let (staged, chunk) = bench.stage(1, b"abc");
    assert!(matches!(staged.seal(&chunk), Err(StoreError::Disk { .. })));
    bench.disk.set(Faults::default());
    assert!(!bench.store.fail_stop().is_failed());
    bench.put(1, b"abc");
}
