mod power;
mod rot;

use dfs_protocol::datanode::JournalRecord;
use dfs_runtime::disk::RealDisk;

use super::*;
use crate::testing::{DiskOp, ENOSPC, Faults, TestDisk};

const CLUSTER: ClusterId = ClusterId::from_u128(0xc);

struct Bench {
    dir: tempfile::TempDir,
    disk: TestDisk,
    volume: Volume,
    fail_stop: FailStop,
    segment_bytes: u64,
}

impl Bench {
    fn new(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = dfs_protocol::DatanodeId::from_u128(1);
        Self {
            volume: Volume::open(RealDisk::shared(), dir.path(), id).unwrap(),
            disk: TestDisk::default(),
            dir,
            fail_stop: FailStop::default(),
            segment_bytes,
        }
    }

    fn journals(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn open(&self) -> Journal {
        Journal::open(self.disk.shared(), &self.journals(), self.segment_bytes).unwrap()
    }

    fn append(
        &self,
        journal: &Journal,
        fence: (u64, u64),
        sequence: u64,
        payload: &[u8],
    ) -> Result<(), JournalError> {
        let append = JournalAppend {
            epoch: fence.0,
            incarnation: fence.1,
            sequence,
            crc32c: crc32c(payload),
        };
        journal.append(&self.volume, CLUSTER, &append, payload, &self.fail_stop)
    }

    fn fill(&self, journal: &Journal, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            let payload = format!("record {sequence}").into_bytes();
            self.append(journal, (1, 1), sequence, &payload).unwrap();
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.journals())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files
    }
}

fn sequences(records: &[JournalRecord]) -> Vec<u64> {
    records.iter().map(|r| r.sequence).collect()
}

#[test]
fn records_come_back_in_order_also_after_a_restart_and_across_segments() {
    let bench = Bench::new(200);
    let journal = bench.open();
    bench.fill(&journal, 1..=20);
    drop(journal);
    assert!(bench.files().len() > 3);
    let journal = bench.open();
    bench.fill(&journal, 21..=21);
    let all = journal.page(1, false).unwrap();
    assert_eq!(sequences(&all), (1..=21).collect::<Vec<_>>());
    assert_eq!(all[6].payload, b"record 7");
    assert_eq!(sequences(&journal.page(20, false).unwrap()), [20, 21]);
    assert!(journal.page(22, false).unwrap().is_empty());
}

#[test]
fn i02_an_append_is_synced_before_it_is_answered() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=1);
    bench.disk.take_ops();
    bench.fill(&journal, 2..=2);
    let file = bench.files()[0].clone();
    assert_eq!(
        bench.disk.take_ops(),
        [DiskOp::Write(file.clone()), DiskOp::Sync(file)]
    );
}

#[test]
fn i02_many_records_become_durable_together_and_in_their_order() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=1);
    bench.disk.take_ops();
    let fence = Fence {
        epoch: Epoch(1),
        incarnation: Incarnation(1),
    };
    let lacking: [(u64, &[u8]); 3] = [(2, b"b"), (3, b"c"), (4, b"d")];
    let append_all = |records: &[(u64, &[u8])]| {
        journal.append_all(&bench.volume, CLUSTER, fence, records, &bench.fail_stop)
    };
    append_all(&lacking).unwrap();
    let file = bench.files()[0].clone();
    let write = DiskOp::Write(file.clone());
    assert_eq!(
        bench.disk.take_ops(),
        [write.clone(), write.clone(), write, DiskOp::Sync(file)]
    );
    append_all(&lacking).unwrap();
    let refused = append_all(&[(5, b"e"), (4, b"other")]);
    assert!(matches!(
        refused,
        Err(JournalError::Conflict { sequence: 4 })
    ));
    drop(journal);
    let all = bench.open().page(1, false).unwrap();
    assert_eq!(sequences(&all)[..4], [1, 2, 3, 4]);
    assert_eq!(all[3].payload, b"d");
}

#[test]
fn the_first_missing_record_is_behind_the_end_or_in_the_first_hole() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    assert_eq!(journal.first_missing(1), 1);
    bench.fill(&journal, 3..=6);
    bench.fill(&journal, 9..=9);
    let found = [1, 3, 5, 7, 9, 10].map(|from| journal.first_missing(from));
    assert_eq!(found, [1, 7, 7, 7, 10, 10]);
}

#[test]
fn i19_the_same_record_again_is_harmless_and_another_in_its_place_is_refused() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.append(&journal, (1, 1), 1, b"a").unwrap();
    bench.append(&journal, (1, 1), 1, b"a").unwrap();
    assert!(matches!(
        bench.append(&journal, (1, 1), 1, b"b"),
        Err(JournalError::Conflict { sequence: 1 })
    ));
    assert_eq!(journal.page(0, false).unwrap().len(), 1);
}

#[test]
fn i20_a_deposed_trackers_record_is_refused_and_a_newer_ones_stands_beside_the_old() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.append(&journal, (1, 1), 1, b"old").unwrap();
    bench.append(&journal, (2, 7), 1, b"new").unwrap();
    for deposed in [(1, 1), (2, 6), (0, 0)] {
        assert!(matches!(
            bench.append(&journal, deposed, 2, b"x"),
            Err(JournalError::Fence(VolumeError::Fenced { .. }))
        ));
    }
    let page = journal.page(1, false).unwrap();
    let payloads: Vec<_> = page.iter().map(|r| r.payload.as_slice()).collect();
    assert_eq!(payloads, [b"old", b"new"]);
}

#[test]
fn i32_a_record_that_does_not_match_its_checksum_or_has_no_place_is_refused() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    let append = JournalAppend {
        epoch: 1,
        incarnation: 1,
        sequence: 1,
        crc32c: 5,
    };
    let result = journal.append(&bench.volume, CLUSTER, &append, b"x", &bench.fail_stop);
    for sequence in [0, u64::MAX] {
        let refused = bench.append(&journal, (1, 1), sequence, b"x");
        assert!(matches!(refused, Err(JournalError::Sequence { sequence: s }) if s == sequence));
    }
    let last = u64::MAX - 1;
    bench.append(&journal, (1, 1), last, b"x").unwrap();
    assert_eq!(journal.first_missing(last), u64::MAX);
    assert_eq!(journal.first_missing(u64::MAX), u64::MAX);
    assert_eq!(sequences(&journal.page(last, false).unwrap()), [last]);
    assert!(matches!(result, Err(JournalError::Digest)));
}

#[test]
fn i13_a_tail_torn_at_any_byte_is_cut_and_every_record_before_it_stays() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=3);
    drop(journal);
    let path = bench.files()[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let ends: Vec<usize> = scan(&whole, 1, true)
        .records
        .iter()
        .map(|r| usize::try_from(r.at + r.head.total()).unwrap())
        .collect();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let journal = bench.open();
        let kept = ends.iter().filter(|end| **end <= cut).count() as u64;
        let found = sequences(&journal.page(1, false).unwrap());
        assert_eq!(found, (1..=kept).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(journal.damaged(), 0);
        // What was cut can be appended again, and is then there after another start.
        bench.fill(&journal, kept + 1..=4);
        drop(journal);
        assert_eq!(
            bench.open().page(1, false).unwrap().len(),
            4,
            "cut at {cut}"
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn i13_rot_in_an_acknowledged_record_is_reported_and_never_skipped() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=5);
    drop(journal);
    let path = bench.files()[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let records = scan(&whole, 1, true).records;
    let third = usize::try_from(records[2].at).unwrap();
    let fourth = usize::try_from(records[3].at).unwrap();
    for at in third..fourth {
        let mut rotten = whole.clone();
        rotten[at] ^= 0x40;
        std::fs::write(&path, &rotten).unwrap();
        let journal = bench.open();
        assert_eq!(journal.damaged(), 1, "byte {at}");
        assert_eq!(sequences(&journal.page(1, false).unwrap()), [1, 2]);
        let past = sequences(&journal.page(1, true).unwrap());
        // A damaged header leads nowhere: what lies behind it is not believed.
        let header = at < third + RECORD_HEADER_LEN;
        let readable: &[u64] = if header { &[1, 2] } else { &[1, 2, 4, 5] };
        assert_eq!(past, readable, "byte {at}");
        assert!(matches!(
            journal.page(3, false),
            Err(JournalError::Damaged { from: 3 })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), rotten);
    }
    // New records go to a new segment; the damage stays in view until it is trimmed away.
    let journal = bench.open();
    bench.fill(&journal, 6..=6);
    assert!(journal.page(3, false).is_err());
    // Who reads other journals too gets all that can be read here.
    let readable = sequences(&journal.page(1, true).unwrap());
    assert!(
        readable.starts_with(&[1, 2]) && readable.ends_with(&[6]),
        "{readable:?}"
    );
    assert_eq!(journal.trim(3).unwrap(), 0);
    assert_eq!(journal.trim(6).unwrap(), 1);
    assert_eq!(sequences(&journal.page(3, false).unwrap()), [6]);
}

#[test]
fn i13_what_damage_took_is_whole_again_once_it_was_sent_again() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=5);
    drop(journal);
    let path = bench.files()[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let third = usize::try_from(scan(&bytes, 1, true).records[2].at).unwrap();
    bytes[third + RECORD_HEADER_LEN] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let journal = bench.open();
    assert!(journal.page(3, false).is_err());
    for sequence in 1..=5 {
        bench.append(&journal, (2, 9), sequence, b"again").unwrap();
    }
    let page = journal.page(1, false).unwrap();
    let last = page.iter().filter(|record| record.payload == b"again");
    assert_eq!(last.count(), 5);
    drop(journal);
    assert!(bench.open().page(3, false).is_ok(), "also after a restart");
}

#[test]
fn i13_rot_in_a_segment_that_is_not_the_last_is_reported_wherever_it_is() {
    let bench = Bench::new(200);
    let journal = bench.open();
    bench.fill(&journal, 1..=12);
    drop(journal);
    let path = bench.files()[1].clone();
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 20, 45, whole.len() - 1] {
        let mut rotten = whole.clone();
        rotten[at] ^= 1;
        std::fs::write(&path, &rotten).unwrap();
        let journal = bench.open();
        assert_eq!(journal.damaged(), 1, "byte {at}");
        // Page after page the reader gets to the hole, never over it.
        let mut next = 1;
        let told = loop {
            match journal.page(next, false) {
                Ok(page) => next = page.last().unwrap().sequence + 1,
                Err(told) => break told,
            }
        };
        assert!(next < 12, "byte {at}");
        assert!(
            matches!(told, JournalError::Damaged { from } if from == next),
            "{told}"
        );
        let all = sequences(&journal.page(1, true).unwrap());
        assert!(
            all.contains(&12) && !all.contains(&next),
            "byte {at}: {all:?}"
        );
        assert!(
            journal.page(12, false).is_ok(),
            "what lies behind the hole is whole"
        );
    }
}

#[test]
fn trimming_removes_whole_segments_below_the_floor_and_keeps_the_rest() {
    let bench = Bench::new(200);
    let journal = bench.open();
    bench.fill(&journal, 1..=20);
    let before = bench.files().len();
    assert!(journal.trim(10).unwrap() > 0);
    assert!(bench.files().len() < before);
    let left = sequences(&journal.page(1, false).unwrap());
    assert!(left.contains(&10) && left.ends_with(&[20]));
    journal.trim(u64::MAX).unwrap();
    assert_eq!(bench.files().len(), 1);
    bench.fill(&journal, 21..=21);
}

#[test]
fn i14_after_a_failed_sync_no_append_is_acknowledged() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=1);
    bench.disk.set(Faults {
        sync: true,
        ..Faults::default()
    });
    assert!(bench.append(&journal, (1, 1), 2, b"x").is_err());
    bench.disk.set(Faults::default());
    assert!(bench.fail_stop.is_failed());
    assert!(bench.append(&journal, (1, 1), 2, b"x").is_err());
    assert!(bench.append(&journal, (1, 1), 3, b"x").is_err());
}

#[test]
fn i14_after_a_failed_sync_of_a_new_segment_no_append_is_acknowledged() {
    for (sync, sync_dir) in [(true, false), (false, true)] {
        let bench = Bench::new(1 << 20);
        let journal = bench.open();
        bench.disk.set(Faults {
            sync,
            sync_dir,
            ..Faults::default()
        });
        let refused = bench.append(&journal, (1, 1), 1, b"x");
        assert!(
            matches!(refused, Err(JournalError::Failed(_))),
            "{refused:?}"
        );
        bench.disk.set(Faults::default());
        assert!(bench.fail_stop.is_failed());
        assert!(bench.append(&journal, (1, 1), 1, b"x").is_err());
    }
}

#[test]
fn i15_a_full_volume_refuses_the_record_and_takes_it_when_there_is_room() {
    let bench = Bench::new(1 << 20);
    let journal = bench.open();
    bench.fill(&journal, 1..=80);
    bench.disk.set(Faults {
        write: Some(ENOSPC),
        ..Faults::default()
    });
    assert!(matches!(
        bench.append(&journal, (1, 1), 81, b"x"),
        Err(JournalError::Full)
    ));
    bench.disk.set(Faults::default());
    bench.append(&journal, (1, 1), 81, b"x").unwrap();
    drop(journal);
    assert_eq!(bench.open().page(1, false).unwrap().len(), 81);
}
