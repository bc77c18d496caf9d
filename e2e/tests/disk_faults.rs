//! The faulty disk does what the test asked for, once, and is whole again when healed.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_e2e::disk::{CallKind, DiskFaults, Effect, Fault, FaultyDisk, VolatileDisk, find_order};
use dfs_runtime::disk::{Disk, OpenMode, RealDisk, read_whole, replace_durably};

const LIMIT: u64 = 1 << 30;
const EIO: Option<i32> = Some(5);

fn fresh() -> (tempfile::TempDir, PathBuf, Arc<FaultyDisk>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    let disk = FaultyDisk::over(RealDisk::shared(), DiskFaults::new());
    (dir, path, disk)
}

#[test]
fn a_fault_hits_only_its_kind_its_paths_and_its_turns() {
    let (_guard, dir, disk) = fresh();
    let one = disk.open(&dir.join("one"), OpenMode::CreateNew).unwrap();
    let two = disk.open(&dir.join("two"), OpenMode::CreateNew).unwrap();
    let id = disk
        .faults()
        .inject(Fault::eio(CallKind::Write).path("one").after(1).times(2));
    two.write_all_at(b"x", 0).unwrap();
    one.write_all_at(b"x", 0).unwrap();
    for _ in 0..2 {
        assert_eq!(one.write_all_at(b"y", 0).unwrap_err().raw_os_error(), EIO);
    }
    one.write_all_at(b"z", 0).unwrap();
    assert_eq!(disk.faults().hits(id), 2);
    disk.faults().inject(Fault::eio(CallKind::Read));
    two.read_at(&mut [0], 0).unwrap_err();
    two.write_all_at(b"x", 0).unwrap();
    disk.faults().heal();
    two.read_exact_at(&mut [0], 0).unwrap();
}

#[test]
fn a_failed_sync_that_later_succeeds_has_lost_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let volatile = VolatileDisk::new();
    let disk = FaultyDisk::over_volatile(volatile.clone(), DiskFaults::new());
    let path = dir.path().join("f");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    disk.sync_dir(dir.path()).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    disk.faults().inject(Fault::eio(CallKind::Sync).times(1));
    assert_eq!(file.sync().unwrap_err().raw_os_error(), EIO);
    file.sync().unwrap();
    assert_eq!(read_whole(disk.as_ref(), &path, LIMIT).unwrap(), b"lost");
    volatile.power_cut().unwrap();
    let left = read_whole(VolatileDisk::new().as_ref(), &path, LIMIT).unwrap();
    assert_ne!(left, b"lost");
}

#[test]
fn a_torn_write_leaves_a_prefix_and_says_so_unless_it_lies() {
    let (_guard, dir, disk) = fresh();
    let file = disk.open(&dir.join("f"), OpenMode::CreateNew).unwrap();
    disk.faults()
        .inject(Fault::on(CallKind::Write, Effect::Torn(3)).times(1));
    disk.faults()
        .inject(Fault::on(CallKind::Write, Effect::SilentlyTorn(4)).times(1));
    assert_eq!(
        file.write_all_at(b"abcdef", 0).unwrap_err().raw_os_error(),
        EIO
    );
    assert_eq!(file.length().unwrap(), 3);
    file.write_all_at(b"abcdef", 0).unwrap();
    assert_eq!(file.length().unwrap(), 4);
    disk.faults()
        .inject(Fault::on(CallKind::Read, Effect::FlipBit).times(1));
    let mut buffer = [0; 4];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"`bcd");
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"abcd");
}

#[test]
fn a_full_volume_takes_what_fits_frees_what_is_removed_and_grows() {
    let (_guard, dir, disk) = fresh();
    let old = disk.open(&dir.join("old"), OpenMode::CreateNew).unwrap();
    old.write_all_at(&[1; 100], 0).unwrap();
    disk.limit_room(&dir, 150).unwrap();
    assert_eq!(disk.space(&dir).unwrap().available, 50);
    old.write_all_at(&[2; 100], 0).unwrap();
    let new = disk.open(&dir.join("new"), OpenMode::CreateNew).unwrap();
    let full = new.write_all_at(&[3; 60], 0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(new.length().unwrap(), 50, "what fitted was written");
    assert_eq!(disk.space(&dir).unwrap().available, 0);
    disk.remove(&dir.join("old")).unwrap();
    assert_eq!(disk.space(&dir).unwrap().available, 100);
    new.set_length(10).unwrap();
    assert_eq!(disk.space(&dir).unwrap().available, 140);
    new.set_length(151).unwrap_err();
    assert_eq!(disk.space(&dir).unwrap().available, 140);
    disk.faults().grow_to(1000);
    new.write_all_at(&[4; 900], 0).unwrap();
    assert_eq!(disk.space(&dir).unwrap().total, 1000);
}

#[test]
fn the_nth_mutation_fails_or_stops_the_disk_there() {
    let (_guard, dir, disk) = fresh();
    replace_durably(disk.as_ref(), &dir, "f", b"old").unwrap();
    let steps = {
        let before = disk.faults().mutations();
        replace_durably(disk.as_ref(), &dir, "f", b"old").unwrap();
        disk.faults().mutations() - before
    };
    assert_eq!(
        steps, 6,
        "create, set length, write, sync, rename, sync the directory"
    );
    for nth in 1..=steps {
        disk.faults().fail_nth_mutation(nth);
        replace_durably(disk.as_ref(), &dir, "f", b"new").unwrap_err();
        replace_durably(disk.as_ref(), &dir, "f", b"old").unwrap();
    }
    disk.faults().stop_at_nth_mutation(3);
    assert!(!disk.faults().has_stopped());
    for _ in 0..2 {
        replace_durably(disk.as_ref(), &dir, "f", b"new").unwrap_err();
    }
    assert!(disk.faults().has_stopped());
    assert_eq!(
        read_whole(disk.as_ref(), &dir.join("f"), LIMIT).unwrap(),
        b"old"
    );
}

#[test]
fn every_crash_point_of_a_durable_replacement_leaves_old_or_new_and_new_once_it_answered() {
    for keep in [None, Some(1), Some(2), Some(3)] {
        for nth in 1..=7 {
            let dir = tempfile::tempdir().unwrap();
            let volatile = VolatileDisk::new();
            let disk = FaultyDisk::over_volatile(volatile.clone(), DiskFaults::new());
            replace_durably(disk.as_ref(), dir.path(), "f", b"old").unwrap();
            disk.faults().stop_at_nth_mutation(nth);
            let answered = replace_durably(disk.as_ref(), dir.path(), "f", b"newer").is_ok();
            assert_eq!(answered, nth == 7);
            match keep {
                None => volatile.power_cut().unwrap(),
                Some(seed) => {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    volatile.power_cut_keeping(&mut rng).unwrap();
                }
            }
            let left =
                read_whole(VolatileDisk::new().as_ref(), &dir.path().join("f"), LIMIT).unwrap();
            assert!(
                left == b"newer" || (left == b"old" && !answered),
                "{nth} {keep:?} {left:?}"
            );
        }
    }
}

#[test]
fn the_log_shows_the_order_of_durable_steps() {
    let (_guard, dir, disk) = fresh();
    disk.faults().start_recording();
    replace_durably(disk.as_ref(), &dir, "f", b"x").unwrap();
    let log = disk.faults().take_log();
    let staged = "f.staged";
    let order = [
        (CallKind::Write, staged),
        (CallKind::Sync, staged),
        (CallKind::Rename, "f"),
        (CallKind::SyncDir, ""),
    ];
    find_order(&log, &order).unwrap();
    let without_sync: Vec<_> = log
        .iter()
        .filter(|call| call.kind != CallKind::Sync)
        .cloned()
        .collect();
    assert_eq!(find_order(&without_sync, &order), Err(order[1]));
    let wrong_order: Vec<_> = log.into_iter().rev().collect();
    find_order(&wrong_order, &order).unwrap_err();
    assert!(disk.faults().take_log().is_empty());
}

#[test]
fn a_slow_disk_takes_its_time() {
    let (_guard, dir, disk) = fresh();
    let slow = Duration::from_millis(30);
    disk.faults()
        .inject(Fault::on(CallKind::List, Effect::Delay(slow)).times(1));
    let start = Instant::now();
    disk.list(&dir).unwrap();
    assert!(start.elapsed() >= slow);
}

#[test]
fn a_revoked_boot_can_do_nothing_more_and_leaves_the_lock_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let volatile = VolatileDisk::new();
    let old = FaultyDisk::over_volatile(volatile.clone(), DiskFaults::new());
    let file = old
        .open(&dir.path().join("f"), OpenMode::CreateNew)
        .unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    let held = old.lock(&dir.path().join("lock")).unwrap();
    old.revoke();
    file.write_all_at(b"late", 0).unwrap_err();
    file.sync().unwrap_err();
    old.remove(&dir.path().join("f")).unwrap_err();
    let new = FaultyDisk::over_volatile(volatile, old.faults().clone());
    new.lock(&dir.path().join("lock")).unwrap();
    let left = read_whole(new.as_ref(), &dir.path().join("f"), LIMIT).unwrap();
    assert_eq!(
        left, b"kept",
        "the death of a process loses nothing that the machine still has"
    );
    drop(held);
}
