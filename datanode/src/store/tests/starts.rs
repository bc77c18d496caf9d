//! What a start makes of packs whose first bytes are lost, and which numbers it gives on.

use super::*;
use crate::store::packs::format::{Entry, PackHeader, Site, entry_length};
use crate::testing::{DiskOp, Faults};

fn edit(bench: &Bench, pack: &str, change: impl FnOnce(&mut [u8])) {
    let path = bench.root().join("packs").join(pack);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn holds(bench: &Bench, chunk: &SealedChunk) -> bool {
    bench.store.index().get((chunk.id, chunk.version)).is_some()
}

/// A pack whose only chunk holds the removal of another one, made for the place where it lies. Only
/// the salt cannot be known.
fn forged() -> (Bench, SealedChunk) {
    let bench = Bench::packed();
    let victim = bench.put(1, b"victim");
    let bench = bench.restart();
    let site = Site {
        number: 2,
        salt: 4,
        offset: 1024,
    };
    let removal = Entry::removal((victim.id, victim.version), 1 << 20);
    bench.put(2, &removal.encode(site));
    (bench, victim)
}

#[test]
fn i04_no_payload_chooses_the_salt_of_a_pack_whose_first_bytes_never_came() {
    let (bench, victim) = forged();
    edit(&bench, "0000000000000002.pack", |bytes| {
        bytes[..1024].fill(0);
    });
    let bench = bench.restart();
    assert_eq!(bench.read(&victim).unwrap(), b"victim");
    assert_eq!(bench.names("packs"), ["0000000000000001.pack"]);
    assert!(bench.names("quarantine").is_empty());
}

#[test]
fn i04_no_payload_chooses_the_salt_of_a_pack_whose_first_bytes_rot() {
    let (bench, victim) = forged();
    edit(&bench, "0000000000000002.pack", |bytes| {
        bytes[3] ^= 1;
        bytes[600] ^= 1;
    });
    let bench = bench.restart();
    assert_eq!(bench.read(&victim).unwrap(), b"victim");
    assert_eq!(
        bench.names("quarantine"),
        ["0000000000000002.pack.0.header"]
    );
}

#[test]
fn a_pack_whose_header_alone_is_lost_is_read_by_its_first_entry() {
    let bench = Bench::packed();
    let chunks = [bench.put(1, b"first"), bench.put(2, b"second")];
    edit(&bench, "0000000000000001.pack", |bytes| bytes[3] ^= 1);
    let bench = bench.restart();
    assert!(chunks.iter().all(|chunk| holds(&bench, chunk)));
}

#[test]
fn fault_07_a_pack_of_which_the_only_entry_rots_is_kept_and_its_number_is_not_given_again() {
    let mut bench = Bench::packed();
    for pack in ["0000000000000001.pack", "0000000000000002.pack"] {
        let chunk = bench.put(1, b"abc");
        edit(&bench, pack, |bytes| bytes[512 + 70] ^= 1);
        bench = bench.restart();
        assert!(!holds(&bench, &chunk));
        assert!(bench.names("packs").is_empty());
    }
    let kept = [
        "0000000000000001.pack.0.header",
        "0000000000000002.pack.0.header",
    ];
    assert_eq!(bench.names("quarantine"), kept);
}

#[test]
fn packs_retired_one_after_the_other_do_not_replace_each_other() {
    let mut bench = Bench::packed();
    for id in 0..3 {
        bench.put(id, b"abc");
        bench.store.retire_all().unwrap();
        bench = bench.restart();
    }
    assert_eq!(bench.names("retired").len(), 3);
    assert_eq!(bench.store.purge_retired().unwrap(), 3);
}

#[test]
fn a_start_makes_the_last_batch_durable_once_and_reads_it_no_more() {
    let bench = Bench::packed();
    let chunk = bench.put(1, &bytes(3000));
    let pack = bench.root().join("packs/0000000000000001.pack");
    let length = std::fs::metadata(&pack).unwrap().len();
    let bench = bench.restart();
    // The word that it is closed.
    assert_eq!(std::fs::metadata(&pack).unwrap().len(), length + 512);
    bench.disk.take_ops();
    let bench = bench.restart();
    let ops = bench.disk.take_ops();
    let touched = |op: &DiskOp| *op == DiskOp::Write(pack.clone());
    assert!(!ops.iter().any(touched), "{ops:?}");
    assert_eq!(bench.read(&chunk).unwrap(), bytes(3000));
}

#[test]
fn i14_a_start_that_cannot_make_the_last_batch_durable_is_refused() {
    for (sync, sync_dir) in [(true, false), (false, true)] {
        let bench = Bench::packed();
        bench.put(1, b"abc");
        let Bench {
            dir, disk, opened, ..
        } = bench;
        drop(opened);
        let faults = Faults {
            sync,
            sync_dir,
            ..Faults::default()
        };
        disk.set(faults);
        let refused = try_open(disk.shared(), dir.path(), PackLimits::default());
        assert!(refused.is_err());
        disk.set(Faults::default());
        let opened = try_open(disk.shared(), dir.path(), PackLimits::default()).unwrap();
        assert_eq!(opened.read(&sealed(1, b"abc")).unwrap(), b"abc");
    }
}

#[test]
fn i02_a_torn_entry_before_a_whole_one_stays_unknown_once_the_tail_counts_as_durable() {
    let bench = Bench::packed();
    let (torn, whole) = (bench.put(1, &bytes(3000)), bench.put(2, b"whole"));
    edit(&bench, "0000000000000001.pack", |bytes| {
        let header = PackHeader::decode(bytes).unwrap();
        let offset = 512 + entry_length(512, 3000);
        let at = usize::try_from(offset).unwrap();
        // As if both had been of one batch, of which a sector never came.
        let decoded = Entry::decode(&bytes[at..], 1, offset, None);
        let (mut entry, salt) = decoded.unwrap();
        assert_eq!(salt, header.salt);
        entry.durable = 0;
        let site = Site {
            number: 1,
            salt,
            offset,
        };
        bytes[at..at + 512].copy_from_slice(&entry.encode(site));
        bytes[2048..2560].fill(0);
    });
    let mut bench = bench;
    for _ in 0..3 {
        bench = bench.restart();
        assert!(!holds(&bench, &torn));
        assert_eq!(bench.read(&whole).unwrap(), b"whole");
        assert!(bench.names("quarantine").is_empty());
    }
}
