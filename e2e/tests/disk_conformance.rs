//! One suite for every disk: what a role sees must not depend on which disk it runs on.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use dfs_e2e::disk::{DiskFaults, FaultyDisk, VolatileDisk};
use dfs_runtime::disk::{Disk, OpenMode, RealDisk, read_whole, replace_durably};

const LIMIT: u64 = 1 << 30;

fn names(disk: &dyn Disk, dir: &Path) -> Vec<(String, bool, u64)> {
    let mut names: Vec<_> = disk
        .list(dir)
        .unwrap()
        .into_iter()
        .map(|entry| {
            (
                entry.name,
                entry.is_dir,
                if entry.is_dir { 0 } else { entry.length },
            )
        })
        .collect();
    names.sort();
    names
}

fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn bytes_are_read_back_at_any_offset_before_and_after_a_sync(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("f");
    let data: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&data, 0).unwrap();
    for synced in [false, true] {
        for (offset, count) in [(0, 20_000), (4095, 2), (4096, 4096), (19_999, 1), (7, 9000)] {
            let mut buffer = vec![0; count];
            file.read_exact_at(&mut buffer, offset as u64).unwrap();
            assert_eq!(
                buffer,
                data[offset..offset + count],
                "{offset} {count} {synced}"
            );
        }
        file.sync().unwrap();
    }
    let mut buffer = [0; 10];
    assert_eq!(
        file.read_at(&mut buffer, 19_995).unwrap(),
        5,
        "a short read at the end"
    );
    assert_eq!(file.read_at(&mut buffer, 20_000).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    let short = file.read_exact_at(&mut buffer, 19_995).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
}

fn writes_over_synced_bytes_and_holes_are_merged(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("f");
    put(disk, &path, &[1; 10_000]);
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.sync().unwrap();
    file.write_all_at(&[2; 100], 4050).unwrap();
    file.write_all_at(&[3; 10], 30_000).unwrap();
    let mut wanted = vec![1; 10_000];
    wanted[4050..4150].fill(2);
    wanted.resize(30_000, 0);
    wanted.extend([3; 10]);
    assert_eq!(read_whole(disk, &path, LIMIT).unwrap(), wanted);
    file.sync().unwrap();
    assert_eq!(read_whole(disk, &path, LIMIT).unwrap(), wanted);
}

fn a_cut_and_extended_file_reads_zeroes_not_its_old_bytes(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("f");
    put(disk, &path, &[9; 9000]);
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.sync().unwrap();
    file.set_length(5000).unwrap();
    file.set_length(9000).unwrap();
    file.write_all_at(&[7; 10], 8000).unwrap();
    let mut wanted = vec![9; 5000];
    wanted.resize(9000, 0);
    wanted[8000..8010].fill(7);
    assert_eq!(read_whole(disk, &path, LIMIT).unwrap(), wanted);
    file.sync().unwrap();
    assert_eq!(read_whole(disk, &path, LIMIT).unwrap(), wanted);
    file.set_length(0).unwrap();
    assert_eq!(file.length().unwrap(), 0);
    assert_eq!(read_whole(disk, &path, LIMIT).unwrap(), Vec::<u8>::new());
}

fn a_file_opened_twice_is_one_file(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("f");
    let one = disk.open(&path, OpenMode::OpenOrCreate).unwrap();
    let two = disk.open(&path, OpenMode::OpenOrCreate).unwrap();
    one.write_all_at(b"hello", 0).unwrap();
    let mut buffer = [0; 5];
    two.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"hello");
    two.set_length(2).unwrap();
    assert_eq!(one.length().unwrap(), 2);
    drop((one, two));
    assert_eq!(
        read_whole(disk, &path, LIMIT).unwrap(),
        b"he",
        "closing loses nothing"
    );
}

fn open_modes_mean_what_they_say(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("f");
    let kind = |mode| disk.open(&path, mode).unwrap_err().kind();
    assert_eq!(kind(OpenMode::Read), ErrorKind::NotFound);
    assert_eq!(kind(OpenMode::ReadWrite), ErrorKind::NotFound);
    put(disk, &path, b"x");
    assert_eq!(kind(OpenMode::CreateNew), ErrorKind::AlreadyExists);
    disk.open(&path, OpenMode::OpenOrCreate).unwrap();
    assert_eq!(
        read_whole(disk, &path, LIMIT).unwrap(),
        b"x",
        "opening keeps the bytes"
    );
    let reader = disk.open(&path, OpenMode::Read).unwrap();
    reader.write_all_at(b"y", 0).unwrap_err();
    reader.set_length(0).unwrap_err();
    let nowhere = dir.join("none/f");
    let error = disk.open(&nowhere, OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn renames_move_replace_and_are_seen_at_once(disk: &dyn Disk, dir: &Path) {
    let (a, b, sub) = (dir.join("a"), dir.join("b"), dir.join("sub"));
    disk.create_dir_all(&sub).unwrap();
    put(disk, &a, b"new");
    put(disk, &b, b"older");
    let old = disk.open(&b, OpenMode::Read).unwrap();
    disk.rename(&a, &b).unwrap();
    let file = |name: &str, length| (name.to_owned(), false, length);
    assert_eq!(
        names(disk, dir),
        [file("b", 3), ("sub".to_owned(), true, 0)]
    );
    assert_eq!(read_whole(disk, &b, LIMIT).unwrap(), b"new");
    let mut buffer = [0; 5];
    old.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"older", "a replaced file lives on in its handles");
    disk.rename(&b, &sub.join("c")).unwrap();
    put(disk, &b, b"again");
    assert_eq!(
        names(disk, dir),
        [file("b", 5), ("sub".to_owned(), true, 0)]
    );
    assert_eq!(names(disk, &sub), [file("c", 3)]);
    for dir in [&sub, dir] {
        disk.sync_dir(dir).unwrap();
    }
    assert_eq!(read_whole(disk, &sub.join("c"), LIMIT).unwrap(), b"new");
    assert_eq!(read_whole(disk, &b, LIMIT).unwrap(), b"again");
    old.read_exact_at(&mut buffer, 0).unwrap();
    let error = disk.rename(&a, &b).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    disk.rename(&b, &dir.join("none/b")).unwrap_err();
}

fn a_removed_name_is_gone_and_free(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("f");
    put(disk, &path, b"one");
    disk.sync_dir(dir).unwrap();
    disk.remove(&path).unwrap();
    assert_eq!(disk.remove(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(names(disk, dir).is_empty());
    assert_eq!(
        disk.open(&path, OpenMode::Read).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    put(disk, &path, b"three");
    assert_eq!(names(disk, dir), [("f".to_owned(), false, 5)]);
    disk.sync_dir(dir).unwrap();
    assert_eq!(read_whole(disk, &path, LIMIT).unwrap(), b"three");
    disk.remove(dir).unwrap_err();
}

fn missing_directories_are_errors(disk: &dyn Disk, dir: &Path) {
    let none = dir.join("none");
    assert_eq!(disk.list(&none).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        disk.sync_dir(&none).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    disk.create_dir_all(&none.join("deep/er")).unwrap();
    disk.create_dir_all(&none.join("deep/er")).unwrap();
    assert_eq!(names(disk, &none), [("deep".to_owned(), true, 0)]);
}

fn paths_written_differently_are_one_file(disk: &dyn Disk, dir: &Path) {
    put(disk, &dir.join("./f"), b"x");
    assert_eq!(read_whole(disk, &dir.join("f"), LIMIT).unwrap(), b"x");
    disk.rename(&dir.join("f"), &dir.join(".//g")).unwrap();
    assert_eq!(names(disk, dir), [("g".to_owned(), false, 1)]);
}

fn one_holder_of_a_lock_at_a_time(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("lock");
    let held = disk.lock(&path).unwrap();
    assert_eq!(disk.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(held);
    disk.lock(&path).unwrap();
}

fn durable_replacement_and_room_work(disk: &dyn Disk, dir: &Path) {
    replace_durably(disk, dir, "f", b"one").unwrap();
    replace_durably(disk, dir, "f", b"longer").unwrap();
    replace_durably(disk, dir, "f", b"2").unwrap();
    assert_eq!(read_whole(disk, &dir.join("f"), LIMIT).unwrap(), b"2");
    assert_eq!(names(disk, dir), [("f".to_owned(), false, 1)]);
    let space = disk.space(dir).unwrap();
    assert!(space.total >= space.available && space.available > 0);
}

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        suite!(@disk real, RealDisk::shared(), $($case),*);
        suite!(@disk volatile, VolatileDisk::new(), $($case),*);
        suite!(@disk faulty_real, FaultyDisk::over(RealDisk::shared(), DiskFaults::new()),
            $($case),*);
        suite!(@disk faulty_volatile,
            FaultyDisk::over_volatile(VolatileDisk::new(), DiskFaults::new()), $($case),*);
    };
    (@disk $disk:ident, $new:expr, $($case:ident),*) => {
        mod $disk {
            use super::*;
            $(#[test]
            fn $case() {
                let dir = tempfile::tempdir().unwrap();
                let disk: Arc<dyn Disk> = $new;
                super::$case(disk.as_ref(), dir.path());
            })*
        }
    };
}

suite!(
    bytes_are_read_back_at_any_offset_before_and_after_a_sync,
    writes_over_synced_bytes_and_holes_are_merged,
    a_cut_and_extended_file_reads_zeroes_not_its_old_bytes,
    a_file_opened_twice_is_one_file,
    open_modes_mean_what_they_say,
    renames_move_replace_and_are_seen_at_once,
    a_removed_name_is_gone_and_free,
    missing_directories_are_errors,
    paths_written_differently_are_one_file,
    one_holder_of_a_lock_at_a_time,
    durable_replacement_and_room_work,
);
