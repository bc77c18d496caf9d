//! Records that rot while the datanode runs.

use super::*;
use crate::testing::{EIO, EMFILE};

/// Turns one bit around in the file, under the open journal.
fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    // The same file: what is open sees it.
    std::fs::write(path, bytes).unwrap();
}

/// The bytes of the records in a segment, one after the other.
fn extents(path: &Path) -> Vec<std::ops::Range<usize>> {
    let bytes = std::fs::read(path).unwrap();
    let found = scan(&bytes, 1, true).records.into_iter();
    found
        .map(|one| {
            let at = usize::try_from(one.at).unwrap();
            at..at + usize::try_from(one.head.total()).unwrap()
        })
        .collect()
}

#[test]
fn i13_a_record_that_rots_after_the_start_is_missing_until_it_is_sent_again() {
    let extent = {
        let bench = Bench::new(1 << 20);
        bench.fill(&bench.open(), 1..=5);
        extents(&bench.files()[0])[2].clone()
    };
    for at in extent.clone() {
        let bench = Bench::new(1 << 20);
        let journal = bench.open();
        bench.fill(&journal, 1..=5);
        let path = bench.files()[0].clone();
        flip(&path, at);
        let rotten = std::fs::read(&path).unwrap();
        assert_eq!(journal.first_missing(1), 3, "byte {at}");
        assert_eq!(sequences(&journal.page(1, false).unwrap()), [1, 2]);
        assert!(matches!(
            journal.page(3, false),
            Err(JournalError::Damaged { from: 3 })
        ));
        assert_eq!(sequences(&journal.page(1, true).unwrap()), [1, 2, 4, 5]);
        assert_eq!(journal.damaged(), 1);
        // By the same tracker: what it sends again is the same record.
        bench.fill(&journal, 3..=3);
        bench.fill(&journal, 6..=6);
        assert_eq!(journal.first_missing(1), 7, "byte {at}");
        let all = journal.page(1, false).unwrap();
        assert_eq!(sequences(&all), [1, 2, 3, 4, 5, 6]);
        assert_eq!(all[2].payload, b"record 3");
        assert_eq!(
            std::fs::read(&path).unwrap(),
            rotten,
            "it is kept for people"
        );
        drop(journal);
        // A damaged header hides what lies behind it: that is missing after a start, and never skipped.
        let header = at < extent.start + RECORD_HEADER_LEN;
        let journal = bench.open();
        assert_eq!(journal.first_missing(1), if header { 4 } else { 7 });
        assert_eq!(journal.damaged(), 1);
    }
}

#[test]
fn i13_rot_that_a_page_comes_upon_ends_it_or_is_left_out_of_it() {
    for (past_damage, read) in [(false, vec![1]), (true, vec![1, 3, 5])] {
        let bench = Bench::new(1 << 20);
        let journal = bench.open();
        bench.fill(&journal, 1..=5);
        let path = bench.files()[0].clone();
        let extents = extents(&path);
        for record in [1, 3] {
            flip(&path, extents[record].end - 1);
        }
        assert_eq!(sequences(&journal.page(1, past_damage).unwrap()), read);
        assert_eq!(journal.damaged(), 1);
    }
}

#[test]
fn i13_the_last_records_are_read_each_time_however_much_lies_before_them() {
    let bench = Bench::new(1 << 30);
    let journal = bench.open();
    let long = vec![7; 6 << 20];
    for sequence in 1..=4 {
        bench.append(&journal, (1, 1), sequence, &long).unwrap();
    }
    let path = bench.files()[0].clone();
    let extents = extents(&path);
    for record in &extents[2..] {
        flip(&path, record.end - 1);
    }
    assert_eq!(journal.first_missing(1), 3);
    // One in the middle is found a few questions later.
    flip(&path, extents[1].end - 1);
    let found = (0..4).find(|_| journal.first_missing(1) == 2);
    assert!(found.is_some());
}

#[test]
fn rot_in_what_a_later_tracker_overruled_is_no_loss() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=3);
    let path = bench.files()[0].clone();
    flip(&path, extents(&path)[1].end - 1);
    bench.append(&journal, (2, 1), 2, b"overrules it").unwrap();
    assert_eq!(journal.first_missing(1), 4);
    let page = journal.page(1, false).unwrap();
    assert_eq!(sequences(&page), [1, 2, 3]);
    assert_eq!(page[1].payload, b"overrules it");
}

#[test]
fn i13_a_record_whose_overruled_one_still_reads_is_missing() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=3);
    bench.append(&journal, (2, 1), 2, b"overrules it").unwrap();
    let path = bench.files()[0].clone();
    flip(&path, extents(&path)[3].end - 1);
    assert_eq!(journal.first_missing(1), 2);
    assert_eq!(sequences(&journal.page(1, false).unwrap()), [1]);
    bench.append(&journal, (2, 1), 2, b"overrules it").unwrap();
    assert_eq!(journal.first_missing(1), 4);
}

#[test]
fn fault_29_a_process_without_handles_takes_no_record_for_damaged() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.append(&journal, (1, 1), 1, &[1; 8192]).unwrap();
    bench.fill(&journal, 2..=2);
    let failing = |error| Faults {
        read: Some(error),
        ..Faults::default()
    };
    bench.disk.set(failing(EMFILE));
    assert!(matches!(
        journal.page(2, false),
        Err(JournalError::Disk { .. })
    ));
    assert_eq!(journal.first_missing(1), 3);
    assert_eq!(journal.damaged(), 0);
    bench.disk.set(failing(EIO));
    assert_eq!(journal.first_missing(1), 2);
    assert_eq!(journal.damaged(), 1);
}
