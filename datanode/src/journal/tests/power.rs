//! The journal over a disk that fails an fsync or loses its power, at every change of the disk: what was
//! acknowledged is there (I2, I14).

use super::*;
use crate::testing::sim::SimDisk;

const FENCE: Fence = Fence {
    epoch: Epoch(1),
    incarnation: Incarnation(1),
};

/// Segments of a few records, so that new ones begin in every run.
const SEGMENT_BYTES: u64 = 2000;
const RECORDS: u64 = 9;

/// One process.
struct Run {
    volume: Volume,
    journal: Journal,
    fail_stop: FailStop,
}

impl Run {
    fn start(disk: &SimDisk) -> Self {
        let root = Path::new("/v");
        let id = dfs_protocol::DatanodeId::from_u128(1);
        let volume = Volume::open(disk.shared(), root, id).unwrap();
        volume.accept(FENCE).unwrap();
        Self {
            volume,
            journal: Journal::open(disk.shared(), &root.join("journal"), SEGMENT_BYTES).unwrap(),
            fail_stop: FailStop::default(),
        }
    }

    /// Sends records until one is refused. How many were acknowledged.
    fn send(&self, sequences: std::ops::RangeInclusive<u64>) -> u64 {
        let taken = |sequence: &u64| {
            let record = (*sequence, &content(*sequence)[..]);
            let Self {
                volume,
                journal,
                fail_stop,
            } = self;
            let answer = journal.append_all(volume, CLUSTER, FENCE, &[record], fail_stop);
            answer.is_ok()
        };
        sequences.take_while(taken).count() as u64
    }

    fn assert_holds(&self, acknowledged: u64, what: &str) {
        let page = self.journal.page(1, false).expect(what);
        let held: Vec<_> = page.iter().map(|record| record.sequence).collect();
        let wanted: Vec<_> = (1..=acknowledged).collect();
        assert!(held.starts_with(&wanted), "{what}: {held:?} of {wanted:?}");
        let is_whole = |record: &JournalRecord| record.payload == content(record.sequence);
        assert!(page.iter().all(is_whole), "{what}");
    }
}

/// The bytes of a record, told by its sequence; most are longer than a sector.
fn content(sequence: u64) -> Vec<u8> {
    let byte = u8::try_from(sequence).unwrap();
    vec![byte; 100 + usize::from(byte % 3) * 400]
}

fn booted() -> SimDisk {
    let disk = SimDisk::default();
    drop(Run::start(&disk));
    disk
}

/// Changes that one start and all records make.
fn changes() -> u64 {
    let disk = booted();
    let before = disk.changes();
    assert_eq!(Run::start(&disk).send(1..=RECORDS), RECORDS);
    assert!(disk.files(Path::new("/v/journal")).len() > 2);
    disk.changes() - before
}

/// Stops the process with one change, starts the next one, which is sent nothing, the record that was refused
/// or everything once more, and takes the power.
fn die(stop_at: impl Fn(&SimDisk, u64), what: &str) {
    for at in 1..=changes() {
        for seed in 0..6 {
            let what = format!("{what} {at}, seed {seed}");
            let mut rng = fastrand::Rng::with_seed(at * 6 + seed);
            let disk = booted();
            let run = Run::start(&disk);
            stop_at(&disk, at);
            let before = run.send(1..=RECORDS);
            drop(run);
            let disk = disk.after_death();
            let run = Run::start(&disk);
            run.assert_holds(before, &what);
            // What is held may be reported: nothing less may be there later.
            let held = run.journal.first_missing(1) - 1;
            let more = seed % 3;
            let after = match more {
                0 => held,
                1 => held.max(run.send(1..=before + 1)),
                _ => run.send(1..=RECORDS),
            };
            drop(run);
            let disk = disk.after_power_cut(&mut rng);
            Run::start(&disk).assert_holds(after, &format!("{what}, then the power"));
        }
    }
}

#[test]
fn i14_what_a_start_finds_in_the_journal_after_a_failed_fsync_outlives_a_power_cut() {
    die(|disk, at| disk.fail_sync_at(disk.changes() + at), "fsync");
}

#[test]
fn i02_what_a_start_finds_in_the_journal_after_the_process_died_alone_outlives_a_power_cut() {
    die(SimDisk::cut_after, "death");
}

#[test]
fn i14_what_a_start_finds_behind_rot_after_a_failed_fsync_outlives_a_power_cut() {
    for seed in 0..8 {
        let disk = SimDisk::default();
        let run = Run::start(&disk);
        assert_eq!(run.send(1..=3), 3);
        disk.edit(&disk.files(Path::new("/v/journal"))[0], |bytes| {
            let second = &scan(bytes, 1, true).records[1];
            let payload = usize::try_from(second.at).unwrap() + RECORD_HEADER_LEN;
            bytes[payload] ^= 1;
        });
        // The write, then the fsync.
        disk.fail_sync_at(disk.changes() + 2);
        assert_eq!(run.send(4..=4), 0);
        drop(run);
        let disk = disk.after_death();
        let run = Run::start(&disk);
        assert_eq!(run.send(4..=4), 1);
        drop(run);
        let disk = disk.after_power_cut(&mut fastrand::Rng::with_seed(seed));
        let all = Run::start(&disk).journal.page(1, true).unwrap();
        assert_eq!(sequences(&all), [1, 3, 4], "seed {seed}");
    }
}
