//! Small chunks in packs: what one fsync covers, what a batch that fails takes with it, what damage
//! and removal leave, and both layouts on one volume.

use std::sync::Arc;

use dfs_protocol::datanode::Damage;

use super::*;
use crate::store::packs::format::{Entry, PACK_HEADER_LEN, entry_length};
use crate::testing::{DiskOp, EIO, ENOSPC, Faults};

/// Bytes of an entry of a chunk of so many bytes with the hint of these tests.
fn entry(length: u64) -> u64 {
    entry_length(512, length)
}

/// The only pack of a volume.
fn pack_of(bench: &Bench) -> PathBuf {
    let names = bench.names("packs");
    assert_eq!(names.len(), 1, "{names:?}");
    bench.root().join("packs").join(&names[0])
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn held(bench: &Bench, chunk: &SealedChunk) -> bool {
    bench.store.index().get((chunk.id, chunk.version)).is_some()
}

/// Whether there was something to remove.
fn remove(bench: &Bench, chunk: &SealedChunk) -> bool {
    let removed = bench.store.remove(chunk.id, chunk.version, ChunkKind::Data);
    removed.unwrap()
}

/// Seals these chunks while the batch of another one is being made durable, then lets go.
fn seal_behind(
    bench: &Bench,
    ids: std::ops::Range<u128>,
    meanwhile: impl FnOnce(),
) -> Vec<Result<Replica, StoreError>> {
    // The volume is marked, and the pack begun.
    bench.put(500, b"before");
    let staged: Vec<_> = ids.map(|id| bench.stage(id, &bytes(3000))).collect();
    let count = staged.len();
    bench.disk.take_ops();
    bench.disk.hold();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.put(1000, b"first"));
        while !bench.disk.began_sync("packs") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let sealing: Vec<_> = staged
            .into_iter()
            .map(|(staged, chunk)| scope.spawn(move || staged.seal(&chunk)))
            .collect();
        while bench.metrics.packs.waiting.get() < i64::try_from(count).unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let early = held(bench, &sealed(1000, b"first"));
        meanwhile();
        bench.disk.release();
        assert!(!early, "before its fsync");
        first.join().unwrap();
        sealing.into_iter().map(|s| s.join().unwrap()).collect()
    })
}

#[test]
fn i02_a_packed_seal_is_written_then_synced_with_its_name_before_it_answers() {
    let bench = Bench::packed();
    bench.disk.take_ops();
    let chunk = bench.put(1, b"abc");
    let pack = pack_of(&bench);
    let dir = DiskOp::SyncDir(pack.parent().unwrap().to_path_buf());
    let ops = bench.disk.take_ops();
    let own = [DiskOp::Write(pack.clone()), DiskOp::Sync(pack.clone()), dir];
    assert!(ops.ends_with(&own), "{ops:?}");
    let second = bench.put(2, b"def");
    let again = [DiskOp::Write(pack.clone()), DiskOp::Sync(pack)];
    assert_eq!(bench.disk.take_ops(), again);
    assert!(bench.names("staging").is_empty() && bench.names("chunks").is_empty());
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    assert_eq!(bench.read(&second).unwrap(), b"def");
}

#[test]
fn i02_chunks_that_are_sealed_during_an_fsync_share_the_next_one() {
    let bench = Bench::packed();
    let sealed = seal_behind(&bench, 1..9, || {});
    assert!(sealed.iter().all(Result::is_ok));
    let ops = bench.disk.take_ops();
    let syncs = ops
        .iter()
        .filter(|op| matches!(op, DiskOp::Sync(path) if path.ends_with("0000000000000001.pack")));
    assert_eq!(syncs.count(), 2);
    assert_eq!(bench.metrics.packs.batches(), 3);
    let bench = bench.restart();
    assert_eq!(bench.store.index().totals().0, 10);
}

#[test]
fn fault_12_a_write_error_fails_the_whole_batch_and_nothing_else() {
    let bench = Bench::packed();
    let before = sealed(500, b"before");
    let failing = Faults {
        write: Some(EIO),
        ..Faults::default()
    };
    let failed = seal_behind(&bench, 1..9, || bench.disk.set(failing));
    for answer in &failed {
        assert!(matches!(answer, Err(StoreError::Disk { .. })), "{answer:?}");
    }
    bench.disk.set(Faults::default());
    assert!(!bench.store.fail_stop().is_failed());
    assert!(bench.store.refuses_writes());
    assert_eq!(bench.store.index().totals().0, 2);
    let again = bench.put(1, &bytes(3000));
    let bench = bench.restart();
    assert_eq!(bench.store.index().totals().0, 3);
    assert_eq!(bench.read(&before).unwrap(), b"before");
    assert_eq!(bench.read(&again).unwrap(), bytes(3000));
    assert_eq!(bench.read(&sealed(1000, b"first")).unwrap(), b"first");
}

#[test]
fn i14_a_failed_sync_fails_the_whole_batch_and_stops_the_store() {
    let bench = Bench::packed();
    let failing = Faults {
        sync: true,
        ..Faults::default()
    };
    bench.put(500, b"before");
    let staged: Vec<_> = (1..4).map(|id| bench.stage(id, b"abc")).collect();
    bench.disk.set(failing);
    for (staged, chunk) in staged {
        assert!(matches!(
            staged.seal(&chunk),
            Err(StoreError::Failed { .. })
        ));
        assert!(!held(&bench, &chunk));
    }
    bench.disk.set(Faults::default());
    assert!(bench.store.begin(&new_chunk(9, 1)).is_err());
    assert!(bench.store.compact().is_err());
}

#[test]
fn fault_13_after_a_failed_sync_of_the_packs_directory_nothing_is_acknowledged() {
    let bench = Bench::packed();
    let (staged, chunk) = bench.stage(2, b"def");
    bench.disk.set(Faults {
        sync_dir: true,
        ..Faults::default()
    });
    assert!(staged.seal(&chunk).is_err());
    bench.disk.set(Faults::default());
    assert!(!held(&bench, &chunk));
    assert!(bench.store.begin(&new_chunk(3, 1)).is_err());
}

#[test]
fn i01_what_the_disk_does_not_give_at_a_start_is_never_deleted_and_costs_nothing_behind_it() {
    let bench = Bench::packed();
    let chunks: Vec<_> = (1..=90).map(|id| bench.put(id, &bytes(3000))).collect();
    let pack = pack_of(&bench);
    // In the next pack: something else, and a removal of what will not be read.
    let bench = bench.restart();
    let other = bench.put(500, &bytes(3000));
    let gone = &chunks[30];
    assert!(remove(&bench, gone));
    let at = |number: u64| PACK_HEADER_LEN + number * entry(3000);
    // From the middle of one entry to the beginning of another.
    let bad = (at(20) + 600, at(50));
    bench.disk.set(Faults {
        bad: Some(bad),
        ..Faults::default()
    });
    let bench = bench.restart();
    let (before, behind) = (&chunks[..20], &chunks[51..]);
    for chunk in before.iter().chain(behind) {
        assert!(held(&bench, chunk), "{chunk:?} can be read");
    }
    assert!(!held(&bench, &chunks[31]));
    // Nearly all that is known of the packs is dead.
    assert!(remove(&bench, &other));
    for chunk in before.iter().chain(behind).skip(1) {
        assert!(remove(&bench, chunk));
    }
    while bench.store.compact().unwrap().is_some() {}
    assert!(pack.exists(), "what nobody read was deleted");
    assert_eq!(bench.metrics.packs.unread.get(), 1);
    // Once more for the packs with the removals.
    let bench = bench.restart();
    while bench.store.compact().unwrap().is_some() {}
    bench.disk.set(Faults::default());
    let bench = bench.restart();
    for (number, chunk) in chunks.iter().enumerate() {
        let kept = number == 0 || (20..=50).contains(&number) && chunk != gone;
        // What lay around the bad bytes was removed where it was known.
        assert_eq!(held(&bench, chunk), kept, "{number}");
    }
    assert_eq!(bench.metrics.packs.unread.get(), 0);
}

#[test]
fn i01_a_pack_of_which_the_disk_gives_nothing_at_a_start_stays_for_a_later_one() {
    let no_beginning = Faults {
        bad: Some((0, 4096)),
        ..Faults::default()
    };
    let no_handle = Faults {
        open: Some(EIO),
        ..Faults::default()
    };
    let nothing = Faults {
        read: Some(EIO),
        ..Faults::default()
    };
    for faults in [no_beginning, no_handle, nothing] {
        let bench = Bench::packed();
        let chunks: Vec<_> = (1..=9).map(|id| bench.put(id, &bytes(3000))).collect();
        let pack = pack_of(&bench);
        bench.disk.set(faults);
        let bench = bench.restart();
        assert_eq!(bench.store.index().totals().0, 0);
        assert_eq!(bench.metrics.packs.unread.get(), 1);
        assert!(bench.names("quarantine").is_empty(), "{faults:?}");
        bench.disk.set(Faults::default());
        // What comes meanwhile goes elsewhere, and a removal of what lies there unread is nobody's word.
        let again = bench.put(1, &bytes(3000));
        assert!(remove(&bench, &again));
        assert!(!remove(&bench, &chunks[1]));
        while bench.store.compact().unwrap().is_some() {}
        assert!(pack.exists(), "{faults:?}");
        let bench = bench.restart();
        assert_eq!(bench.metrics.packs.unread.get(), 0);
        assert!(!held(&bench, &chunks[0]), "it was removed since");
        for chunk in &chunks[1..] {
            assert_eq!(bench.read(chunk).unwrap(), bytes(3000), "{faults:?}");
        }
    }
}

#[test]
fn i01_what_was_sealed_again_in_a_pack_that_a_start_cannot_read_outlives_older_removals() {
    let bench = Bench::packed();
    let first = bench.put(1, &bytes(3000));
    // Keeps the first pack, and so the need of the removal.
    bench.put(4, &bytes(100_000));
    // In the second pack its removal, and enough that the pack is not worth keeping.
    let bench = bench.restart();
    assert!(remove(&bench, &first));
    let filler = bench.put(2, &bytes(3000));
    // In the third, farther behind than the others reach, the same chunk again, as a repair brings it.
    let bench = bench.restart();
    let far = bench.put(3, &bytes(200_000));
    let again = bench.put(1, &bytes(3000));
    let at = PACK_HEADER_LEN + entry(200_000);
    bench.disk.set(Faults {
        bad: Some((at, at + 4096)),
        ..Faults::default()
    });
    let bench = bench.restart();
    assert!(!held(&bench, &again) && held(&bench, &far));
    assert!(remove(&bench, &filler));
    while bench.store.compact().unwrap().is_some() {}
    bench.disk.set(Faults::default());
    let bench = bench.restart();
    assert_eq!(bench.read(&again).unwrap(), bytes(3000));
}

#[test]
fn i11_fault_14_what_died_in_the_only_pack_is_given_back_while_it_is_open() {
    let bench = Bench::packed();
    let chunks: Vec<_> = (1..=40).map(|id| bench.put(id, &bytes(40_000))).collect();
    let full = pack_of(&bench);
    for chunk in &chunks[1..] {
        assert!(remove(&bench, chunk));
    }
    while bench.store.compact().unwrap().is_some() {}
    assert!(!full.exists(), "nothing was given back");
    assert_eq!(bench.read(&chunks[0]).unwrap(), bytes(40_000));
    let bench = bench.restart();
    assert_eq!(bench.store.index().totals().0, 1);
    assert_eq!(bench.read(&chunks[0]).unwrap(), bytes(40_000));
}

#[test]
fn i01_a_last_entry_that_the_disk_does_not_give_is_neither_served_nor_removed() {
    let bench = Bench::packed();
    let (first, last) = (bench.put(1, &bytes(3000)), bench.put(2, &bytes(70_000)));
    let pack = pack_of(&bench);
    let inside = PACK_HEADER_LEN + entry(3000) + 60_000;
    bench.disk.set(Faults {
        bad: Some((inside, inside + 4096)),
        ..Faults::default()
    });
    let bench = bench.restart();
    assert!(held(&bench, &first) && !held(&bench, &last));
    assert_eq!(bench.metrics.packs.unread.get(), 1);
    assert!(remove(&bench, &first));
    while bench.store.compact().unwrap().is_some() {}
    assert!(pack.exists());
    bench.disk.set(Faults::default());
    let bench = bench.restart();
    assert!(!held(&bench, &first));
    assert_eq!(bench.read(&last).unwrap(), bytes(70_000));
}

#[test]
fn fault_08_of_a_damaged_entry_everything_that_can_be_read_is_kept_for_people() {
    let bench = Bench::packed();
    let chunk = bench.put(1, &bytes(300_000));
    let bad = PACK_HEADER_LEN + 512 + 100_000;
    bench.disk.set(Faults {
        bad: Some((bad, bad + 1)),
        ..Faults::default()
    });
    assert!(matches!(
        bench.read(&chunk),
        Err(StoreError::Corrupt { .. })
    ));
    let names = bench.names("quarantine");
    assert_eq!(names.len(), 1, "{names:?}");
    let kept = std::fs::read(bench.root().join("quarantine").join(&names[0])).unwrap();
    let differ = kept[512..].iter().zip(bytes(300_000));
    let differ = differ.filter(|(kept, was)| **kept != *was).count();
    assert!(kept.len() >= 512 + 300_000);
    assert!((1..=4096).contains(&differ), "{differ}");
}

#[test]
fn i15_a_full_disk_fails_the_batch_leaves_nothing_of_it_and_goes_on_reading() {
    let bench = Bench::packed();
    let chunk = bench.put(1, b"abc");
    let length = std::fs::metadata(pack_of(&bench)).unwrap().len();
    bench.disk.set(Faults {
        write: Some(ENOSPC),
        ..Faults::default()
    });
    let (staged, full) = bench.stage(2, b"def");
    let error = staged.seal(&full).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { needed: 3, .. }));
    let (id, version) = (chunk.id, chunk.version);
    assert!(bench.store.remove(id, version, ChunkKind::Data).is_err());
    assert!(!bench.store.refuses_writes());
    assert_eq!(bench.read(&chunk).unwrap(), b"abc", "its removal failed");
    assert_eq!(std::fs::metadata(pack_of(&bench)).unwrap().len(), length);
    bench.disk.set(Faults::default());
    assert!(bench.store.remove(id, version, ChunkKind::Data).unwrap());
    bench.put(2, b"def");
    assert_eq!(bench.restart().store.index().totals().0, 1);
}

#[test]
fn i09_what_was_removed_from_a_pack_stays_gone_and_may_come_again() {
    let bench = Bench::packed();
    let (chunk, kept) = (bench.put(1, b"abc"), bench.put(2, b"def"));
    let (id, version) = (chunk.id, chunk.version);
    assert!(bench.store.remove(id, version, ChunkKind::Data).unwrap());
    let bench = bench.restart();
    assert!(!held(&bench, &chunk) && held(&bench, &kept));
    assert!(matches!(
        bench.store.open(id, version),
        Err(StoreError::NotFound { .. })
    ));
    bench.put(1, b"abc");
    assert_eq!(bench.restart().read(&chunk).unwrap(), b"abc");
}

#[test]
fn i02_a_tail_that_is_torn_at_any_byte_costs_what_was_not_acknowledged_only() {
    let bench = Bench::packed();
    let first = bench.put(1, &bytes(700));
    let second = bench.put(2, &bytes(600));
    let pack = pack_of(&bench);
    let whole = std::fs::read(&pack).unwrap();
    let begin = usize::try_from(512 + entry(700)).unwrap();
    let end = begin + 512 + 600 + 8;
    let mut bench = bench;
    for cut in begin..whole.len() {
        std::fs::write(&pack, &whole[..cut]).unwrap();
        bench = bench.restart();
        assert_eq!(bench.read(&first).unwrap(), bytes(700), "{cut}");
        // Only the padding may be missing, and then the entry is not whole either.
        assert!(!held(&bench, &second), "{cut} of {end}");
        assert!(bench.store.index().delta().corrupt.is_empty());
        // The word that it is closed follows.
        assert_eq!(std::fs::metadata(&pack).unwrap().len(), begin as u64 + 512);
    }
    std::fs::write(&pack, &whole).unwrap();
    bench = bench.restart();
    assert_eq!(bench.read(&second).unwrap(), bytes(600));
    // The next chunk begins a pack of its own.
    bench.put(3, b"abc");
    assert_eq!(bench.names("packs").len(), 2);
}

#[test]
fn i04_fault_07_no_flipped_bit_of_a_pack_is_served_and_it_costs_one_entry_at_most() {
    let bench = Bench::packed();
    let chunks: Vec<_> = (1..4)
        .map(|id| bench.put(id, &bytes(40 + 400 * usize::try_from(id).unwrap())))
        .collect();
    bench.put(9, b"so that the others are known to be durable");
    let pack = pack_of(&bench);
    let whole = std::fs::read(&pack).unwrap();
    let mut bench = bench;
    let tail = whole.len() - usize::try_from(entry(42)).unwrap();
    for at in (0..tail).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&pack, &flipped).unwrap();
        for name in bench.names("quarantine") {
            std::fs::remove_file(bench.root().join("quarantine").join(name)).unwrap();
        }
        bench = bench.restart();
        let lost = chunks.iter().filter(|chunk| match bench.read(chunk) {
            Ok(read) => {
                assert_eq!(read, bytes(usize::try_from(chunk.length).unwrap()), "{at}");
                false
            }
            Err(_) => true,
        });
        let lost = lost.count();
        assert!(lost <= 1, "{at}");
        assert_eq!(bench.names("quarantine").len(), lost, "{at}");
        for name in bench.names("packs").iter().skip(1) {
            std::fs::remove_file(bench.root().join("packs").join(name)).unwrap();
        }
    }
}

#[test]
fn fault_07_damage_found_by_a_reader_is_set_aside_for_good() {
    let bench = Bench::packed();
    let (chunk, kept) = (bench.put(1, &bytes(70_000)), bench.put(2, b"unharmed"));
    edit(&pack_of(&bench), |bytes| bytes[512 + 512 + 69_000] ^= 1);
    let reader = bench.store.open(chunk.id, chunk.version).unwrap();
    assert_eq!(
        reader.blocks(0, 1).unwrap().len(),
        1,
        "the first block is whole"
    );
    let error = reader.blocks(1, 1).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Corrupt {
            damage: Damage::Block,
            ..
        }
    ));
    let bench = bench.restart();
    assert!(!held(&bench, &chunk));
    assert_eq!(bench.read(&kept).unwrap(), b"unharmed");
    let name = format!("{}.v1.chunk.block.0", chunk.id);
    assert_eq!(bench.names("quarantine"), [name]);
    assert_eq!(bench.store.set_aside_count().quarantined, 1);
    // The tracker has it repaired, under the same name.
    bench.put(1, &bytes(70_000));
    assert_eq!(bench.restart().read(&chunk).unwrap(), bytes(70_000));
}

#[test]
fn fault_07_a_damaged_header_costs_its_entry_and_is_kept_once() {
    let bench = Bench::packed();
    let (lost, kept) = (bench.put(1, &bytes(2000)), bench.put(2, b"unharmed"));
    let pack = pack_of(&bench);
    edit(&pack, |bytes| bytes[512 + 70] ^= 1);
    let bench = bench.restart();
    assert!(!held(&bench, &lost));
    assert_eq!(bench.read(&kept).unwrap(), b"unharmed");
    let bench = bench.restart();
    let name = "0000000000000001.pack.512.header".to_owned();
    assert_eq!(bench.names("quarantine"), [name]);
}

#[test]
fn i04_a_chunk_that_holds_a_pack_is_not_taken_for_one() {
    let bench = Bench::packed();
    let gone = bench.put(1, b"secret");
    let pack = pack_of(&bench);
    let copy = std::fs::read(&pack).unwrap();
    let remove = |id, version| bench.store.remove(id, version, ChunkKind::Data);
    assert!(remove(gone.id, gone.version).unwrap());
    let victim = bench.put(2, b"victim");
    let begin = std::fs::metadata(&pack).unwrap().len();
    // Made for the place where it will lie; only the salt cannot be known.
    let site = crate::store::packs::format::Site {
        number: 1,
        salt: 4,
        offset: begin + 512 + copy.len() as u64,
    };
    let removal = Entry::removal((victim.id, victim.version), 0).encode(site);
    let outer = bench.put(3, &[copy, removal].concat());
    bench.put(9, b"so that the others are known to be durable");
    // The header before the copy rots: what lies behind it is searched.
    edit(&pack, |bytes| {
        bytes[usize::try_from(begin).unwrap() + 60] ^= 1;
    });
    let bench = bench.restart();
    assert!(!held(&bench, &outer) && !held(&bench, &gone));
    assert_eq!(bench.read(&victim).unwrap(), b"victim");
    assert_eq!(bench.store.index().totals().0, 2);
}

#[test]
fn fault_10_foreign_files_among_packs_are_left_alone_and_counted() {
    let bench = Bench::packed();
    let chunk = bench.put(1, b"abc");
    let pack = pack_of(&bench);
    std::fs::write(bench.root().join("packs/notes.txt"), "mine").unwrap();
    // A copy under another number is not a pack of its own.
    std::fs::copy(&pack, bench.root().join("packs/00000000000000aa.pack")).unwrap();
    let bench = bench.restart();
    assert_eq!(bench.store.set_aside_count().foreign, 2);
    assert_eq!(bench.names("packs").len(), 3);
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    bench.put(2, b"def");
    assert_eq!(bench.names("packs").len(), 4);
}

#[test]
fn a_chunk_larger_than_announced_gets_a_file_of_its_own() {
    let bench = Bench::packed();
    let data = bytes(1024 * 1024 + 5);
    let mut staged = bench.store.begin(&new_chunk(1, 10)).unwrap();
    append(staged.as_mut(), 0, &data).unwrap();
    assert_eq!(bench.names("staging").len(), 1);
    let chunk = sealed(1, &data);
    staged.seal(&chunk).unwrap();
    assert!(bench.path(&chunk).exists() && !bench.root().join("packs").exists());
    assert_eq!(bench.restart().read(&chunk).unwrap(), data);
}

#[test]
fn a_volume_of_single_files_takes_packs_and_keeps_its_files() {
    let bench = Bench::new();
    let (old, gone) = (bench.put(1, b"old"), bench.put(2, b"gone"));
    let format = |bench: &Bench| {
        let text = std::fs::read_to_string(bench.root().join("volume.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["format"].clone()
    };
    let bench = bench.restart_with(PackLimits::default());
    assert_eq!(format(&bench), 1, "an older program still takes it");
    let new = bench.put(3, b"new");
    assert_eq!(format(&bench), 2);
    assert!(
        bench
            .store
            .remove(gone.id, gone.version, ChunkKind::Data)
            .unwrap()
    );
    let bench = bench.restart();
    assert!(bench.path(&old).exists());
    assert_eq!(bench.read(&old).unwrap(), b"old");
    assert_eq!(bench.read(&new).unwrap(), b"new");
    assert!(!held(&bench, &gone));
    // With packing off, what is packed is read and removed as before.
    let bench = bench.restart_with(PackLimits::NONE);
    let file = bench.put(4, b"file");
    assert!(bench.path(&file).exists());
    assert!(
        bench
            .store
            .remove(new.id, new.version, ChunkKind::Data)
            .unwrap()
    );
    let origins = bench.store.origins(ChunkKind::Data).unwrap();
    assert_eq!(origins.len(), 2);
    assert!(!held(&bench.restart(), &new));
}

#[test]
fn retired_packs_show_none_of_their_chunks_and_can_be_purged() {
    let bench = Bench::packed();
    bench.put(1, b"abc");
    bench.store.retire_all().unwrap();
    let fresh = bench.put(2, b"fresh");
    let bench = bench.restart();
    assert_eq!(bench.store.index().totals().0, 1);
    assert_eq!(bench.names("retired").len(), 1);
    assert_eq!(bench.store.purge_retired().unwrap(), 1);
    assert_eq!(bench.read(&fresh).unwrap(), b"fresh");
}

#[test]
fn a_pack_that_is_mostly_dead_is_given_back_and_a_reader_of_it_goes_on() {
    let limits = PackLimits {
        chunk: 64 * 1024,
        pack: 16 * 1024,
    };
    let bench = Bench::with(limits);
    let chunks: Vec<_> = (0..12).map(|id| bench.put(id, &bytes(4000))).collect();
    let packs = bench.names("packs").len();
    assert!(packs > 3);
    let reader = bench.store.open(chunks[3].id, chunks[3].version).unwrap();
    for chunk in chunks.iter().filter(|chunk| chunk.id != chunks[3].id) {
        assert!(
            bench
                .store
                .remove(chunk.id, chunk.version, ChunkKind::Data)
                .unwrap()
        );
    }
    while bench.store.compact().unwrap().is_some() {}
    assert!(bench.names("packs").len() < packs);
    assert_eq!(reader.blocks(0, 9).unwrap()[0].data, bytes(4000));
    let bench = bench.restart();
    assert_eq!(bench.read(&chunks[3]).unwrap(), bytes(4000));
    assert_eq!(bench.store.index().totals().0, 1);
}

#[test]
fn readers_and_compaction_at_once_see_every_chunk_whole() {
    let limits = PackLimits {
        chunk: 64 * 1024,
        pack: 16 * 1024,
    };
    let bench = Arc::new(Bench::with(limits));
    let chunks: Vec<_> = (0..40).map(|id| bench.put(id, &bytes(3000))).collect();
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (bench, chunks) = (&bench, &chunks);
            scope.spawn(move || {
                for chunk in chunks.iter().skip(part).step_by(4) {
                    bench
                        .store
                        .remove(chunk.id, chunk.version, ChunkKind::Data)
                        .unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                bench.store.compact().unwrap();
            }
        });
        for chunk in chunks
            .iter()
            .skip(2)
            .step_by(4)
            .chain(chunks.iter().skip(3).step_by(4))
        {
            assert_eq!(bench.read(chunk).unwrap(), bytes(3000));
        }
    });
    assert_eq!(bench.store.index().totals().0, 20);
    assert!(bench.names("quarantine").is_empty());
}
