//! Faults 2, 7 to 10, 12 and 29: what is found on the disk is never served unless it is whole.

use dfs_protocol::datanode::Damage;

use super::*;
use crate::testing::{EIO, EMFILE, Faults};

/// The replica must be gone from view, kept in quarantine and told to the tracker as `damage`.
fn assert_set_aside(bench: &Bench, chunk: &SealedChunk, damage: Damage) {
    assert!(bench.store.index().get((chunk.id, chunk.version)).is_none());
    assert!(!bench.path(chunk).exists());
    let delta = bench.store.index().delta();
    let told = delta.corrupt.iter().find(|c| c.chunk == chunk.id).unwrap();
    assert_eq!((told.version, told.damage), (chunk.version, damage));
    let kept = bench.names("quarantine");
    let name = format!("{}.v{}.chunk.{}", chunk.id, chunk.version, damage.as_str());
    assert!(kept.iter().any(|n| n.starts_with(&name)), "{kept:?}");
}

fn edit(bench: &Bench, chunk: &SealedChunk, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(bench.path(chunk)).unwrap();
    change(&mut bytes);
    std::fs::write(bench.path(chunk), bytes).unwrap();
}

#[test]
fn fault_07_a_flipped_bit_anywhere_is_never_served() {
    let data = bytes(70_000);
    let cases = [
        (10, Damage::Header),
        (4000, Damage::Header),
        (4096, Damage::Block),
        (4096 + 65_536, Damage::Block),
        (4096 + 69_999, Damage::Block),
        (4096 + 70_000, Damage::Footer),
        (4096 + 70_000 + 11, Damage::Footer),
    ];
    for (at, damage) in cases {
        let bench = Bench::new();
        let chunk = bench.put(1, &data);
        edit(&bench, &chunk, |bytes| bytes[at] ^= 0x10);
        let error = bench.read(&chunk).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { damage: d, .. } if d == damage),
            "{at}: {error:?}"
        );
        assert_set_aside(&bench, &chunk, damage);
    }
}

#[test]
fn fault_07_a_flipped_bit_in_a_header_is_found_at_start() {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    edit(&bench, &chunk, |bytes| bytes[30] ^= 1);
    assert_set_aside(&bench.restart(), &chunk, Damage::Header);
}

#[test]
fn i04_undamaged_blocks_are_served_while_the_damaged_one_is_not() {
    let bench = Bench::new();
    let chunk = bench.put(1, &bytes(3 * BLOCK_SIZE));
    edit(&bench, &chunk, |bytes| bytes[4096 + 2 * BLOCK_SIZE] ^= 1);
    let reader = bench.store.open(chunk.id, chunk.version).unwrap();
    assert_eq!(reader.blocks(0, 2).unwrap().len(), 2);
    assert!(reader.blocks(1, 2).is_err());
    assert_set_aside(&bench, &chunk, Damage::Block);
}

#[test]
fn fault_08_a_record_cut_at_any_length_is_set_aside_at_start() {
    let whole = 4096 + 70_000 + 12;
    for length in [0, 1, 4095, 4096, 4097, 70_000, whole - 1, whole + 1] {
        let bench = Bench::new();
        let chunk = bench.put(1, &bytes(70_000));
        let other = bench.put(2, b"unharmed");
        edit(&bench, &chunk, |bytes| bytes.resize(length, 0));
        let bench = bench.restart();
        assert_set_aside(&bench, &chunk, Damage::Length);
        assert_eq!(bench.read(&other).unwrap(), b"unharmed");
    }
}

#[test]
fn fault_08_a_record_cut_or_removed_while_running_is_noticed_on_read() {
    for (length, damage) in [(5000, Damage::Length), (100, Damage::Length)] {
        let bench = Bench::new();
        let chunk = bench.put(1, &bytes(70_000));
        edit(&bench, &chunk, |bytes| bytes.truncate(length));
        assert!(bench.read(&chunk).is_err());
        assert_set_aside(&bench, &chunk, damage);
    }
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    std::fs::remove_file(bench.path(&chunk)).unwrap();
    assert!(bench.read(&chunk).is_err());
    assert_eq!(
        bench.store.index().delta().corrupt[0].damage,
        Damage::Missing
    );
}

#[test]
fn fault_08_fault_12_a_file_that_fails_under_a_read_ends_it_and_spoils_nothing_that_was_read() {
    const STEP: u64 = 16;
    let data = bytes(3 << 20);
    for (error, damage) in [(None, Damage::Length), (Some(EIO), Damage::ReadError)] {
        let bench = Bench::new();
        let chunk = bench.put(1, &data);
        let other = bench.put(2, &vec![9; 3 << 20]);
        let reader = bench.store.open(chunk.id, chunk.version).unwrap();
        let first = reader.blocks(0, STEP).unwrap();
        match error {
            // The footer was read at the open: the length shows at the bytes that are missing.
            None => edit(&bench, &chunk, |bytes| bytes.truncate(4096 + (5 << 19))),
            Some(_) => bench.disk.set(Faults {
                read: error,
                ..Faults::default()
            }),
        }
        reader.read_ahead(STEP..3 * STEP);
        let rest = reader.blocks(2 * STEP, STEP);
        assert!(
            matches!(rest, Err(StoreError::Corrupt { damage: d, .. }) if d == damage),
            "{rest:?}"
        );
        assert_set_aside(&bench, &chunk, damage);
        bench.disk.set(Faults::default());
        // What failed gave its buffer back, and others use it.
        let reader = bench.store.open(other.id, other.version).unwrap();
        let others = reader.blocks(0, 3 * STEP).unwrap();
        assert!(others.iter().all(
            |block| block.data.len() == BLOCK_SIZE && block.data.iter().all(|byte| *byte == 9)
        ));
        let first: Vec<u8> = first.iter().flat_map(|block| block.data.to_vec()).collect();
        assert!(first == data[..1 << 20]);
    }
}

#[test]
fn fault_09_two_swapped_records_are_both_set_aside() {
    for restart in [false, true] {
        let bench = Bench::new();
        let (a, b) = (bench.put(1, b"aaa"), bench.put(9 << 120, b"bbb"));
        let (path_a, path_b) = (bench.path(&a), bench.path(&b));
        let held = bench.root().join("held");
        std::fs::rename(&path_a, &held).unwrap();
        std::fs::rename(&path_b, &path_a).unwrap();
        std::fs::rename(&held, &path_b).unwrap();
        let bench = if restart { bench.restart() } else { bench };
        for chunk in [a, b] {
            assert!(bench.read(&chunk).is_err());
            assert_set_aside(&bench, &chunk, Damage::Misplaced);
        }
    }
}

#[test]
fn fault_09_data_and_footer_of_another_chunk_under_the_right_header_are_noticed() {
    let bench = Bench::new();
    let (a, b) = (bench.put(1, &bytes(5000)), bench.put(2, &vec![7; 5000]));
    let foreign = std::fs::read(bench.path(&b)).unwrap();
    edit(&bench, &a, |bytes| {
        bytes[4096..].copy_from_slice(&foreign[4096..]);
    });
    assert!(bench.read(&a).is_err());
    assert_set_aside(&bench, &a, Damage::Footer);
}

#[test]
fn fault_09_a_record_of_another_cluster_is_not_served() {
    for bench in Bench::both() {
        let mut new = new_chunk(1, 3);
        new.cluster = ClusterId::from_u128(0xdead);
        let mut staged = bench.store.begin(&new).unwrap();
        append(staged.as_mut(), 0, b"abc").unwrap();
        let chunk = sealed(1, b"abc");
        staged.seal(&chunk).unwrap();
        assert_set_aside(&bench.restart(), &chunk, Damage::Misplaced);
    }
}

#[test]
fn fault_10_foreign_files_are_left_alone_and_counted() {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    let foreign = [
        "notes.txt",
        "chunks/readme",
        "chunks/00/.hidden",
        "chunks/00/abc.v1.chunk",
        "staging/keep.me",
    ];
    for name in foreign {
        std::fs::write(bench.root().join(name), "mine").unwrap();
    }
    let bench = bench.restart();
    for name in foreign {
        assert_eq!(std::fs::read(bench.root().join(name)).unwrap(), b"mine");
    }
    assert_eq!(bench.store.set_aside_count().foreign, 4);
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    assert!(bench.store.index().delta().corrupt.is_empty());
}

#[test]
fn fault_02_what_a_cut_write_left_is_removed_at_start() {
    let bench = Bench::new();
    let (staged, chunk) = bench.stage(1, b"abc");
    std::mem::forget(staged);
    assert_eq!(bench.names("staging").len(), 1);
    let bench = bench.restart();
    assert!(bench.names("staging").is_empty());
    assert!(bench.read(&chunk).is_err());
}

#[test]
fn fault_12_a_read_error_sets_the_replica_aside() {
    for bench in Bench::both() {
        let chunk = bench.put(1, b"abc");
        bench.disk.set(Faults {
            read: Some(EIO),
            ..Faults::default()
        });
        assert!(bench.read(&chunk).is_err());
        assert_set_aside(&bench, &chunk, Damage::ReadError);
    }
}

#[test]
fn fault_29_running_out_of_handles_is_not_taken_for_damage() {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    bench.disk.set(Faults {
        open: Some(EMFILE),
        ..Faults::default()
    });
    assert!(matches!(bench.read(&chunk), Err(StoreError::Disk { .. })));
    bench.disk.set(Faults::default());
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
}

#[test]
fn several_versions_of_a_chunk_are_all_known() {
    for bench in Bench::both() {
        let chunk = bench.put(1, b"abc");
        let mut newer = new_chunk(1, 3);
        newer.version = ChunkVersion(4);
        let mut staged = bench.store.begin(&newer).unwrap();
        append(staged.as_mut(), 0, b"xyz").unwrap();
        let sealed = SealedChunk {
            version: ChunkVersion(4),
            ..sealed(1, b"xyz")
        };
        staged.seal(&sealed).unwrap();
        let bench = bench.restart();
        let versions = bench.store.index().versions(chunk.id);
        assert_eq!(versions.len(), 2);
        assert_eq!(bench.read(&sealed).unwrap(), b"xyz");
    }
}
