//! Replicas that stay open between reads.

use super::super::kept::{KEPT_SECONDS, MOST_KEPT};
use super::*;

fn read_kept(bench: &Bench, chunk: &SealedChunk) -> Option<Vec<u8>> {
    let reader = bench.store.kept(chunk.id, chunk.version)?;
    let blocks = reader.blocks(0, u64::MAX).unwrap();
    Some(
        blocks
            .iter()
            .flat_map(|block| block.data.to_vec())
            .collect(),
    )
}

fn keep(bench: &Bench, chunk: &SealedChunk) {
    let opened = bench.store.open_to_keep(chunk.id, chunk.version);
    opened.unwrap();
}

#[test]
fn a_replica_stays_open_for_the_next_reads_and_a_packed_one_does_not() {
    let bench = Bench::new();
    let data = bytes(200_000);
    let chunk = bench.put(1, &data);
    assert!(read_kept(&bench, &chunk).is_none());
    keep(&bench, &chunk);
    assert!(read_kept(&bench, &chunk).unwrap() == data);
    assert!(bench.store.kept(chunk.id, ChunkVersion(9)).is_none());
    let bench = Bench::packed();
    let chunk = bench.put(1, b"packed");
    keep(&bench, &chunk);
    assert!(bench.store.kept(chunk.id, chunk.version).is_none());
}

#[test]
fn i09_nothing_stays_open_that_was_removed_set_aside_or_retired() {
    type Way = fn(&FileChunkStore, &SealedChunk);
    let ways: [Way; 3] = [
        |store, chunk| {
            let gone = store.remove(chunk.id, chunk.version, ChunkKind::Data);
            assert!(gone.unwrap());
        },
        |store, chunk| store.set_aside(chunk.id, chunk.version, Damage::Block),
        |store, _| store.retire_all().unwrap(),
    ];
    for way in ways {
        let bench = Bench::new();
        let chunk = bench.put(1, &bytes(100_000));
        keep(&bench, &chunk);
        way(&bench.store, &chunk);
        assert!(bench.store.kept(chunk.id, chunk.version).is_none());
        assert_eq!(bench.store.index().kept_count(), 0);
    }
}

#[test]
fn i04_damage_of_a_header_is_found_by_reads_some_seconds_later() {
    let bench = Bench::new();
    let chunk = bench.put(1, &bytes(100_000));
    keep(&bench, &chunk);
    let index = bench.store.index();
    let is_kept = |now| index.kept((chunk.id, chunk.version), now).is_some();
    let (_, opened) = index.by_verification()[0];
    let opened = opened.unwrap();
    assert!(is_kept(opened + KEPT_SECONDS - 1) && !is_kept(opened + KEPT_SECONDS + 1));
}

#[test]
fn what_was_opened_before_its_replica_was_replaced_is_not_kept() {
    let bench = Bench::new();
    let chunk = bench.put(1, &bytes(100_000));
    let index = bench.store.index();
    let taken = index.taken();
    let opened = bench.store.open(chunk.id, chunk.version).unwrap();
    // A repair brings it back under the same name.
    bench
        .store
        .set_aside(chunk.id, chunk.version, Damage::Block);
    bench.put(1, &bytes(100_000));
    index.keep((chunk.id, chunk.version), opened, taken, 0);
    assert!(bench.store.kept(chunk.id, chunk.version).is_none());
}

#[test]
fn a_reader_of_a_file_that_was_set_aside_leaves_the_one_that_replaced_it_alone() {
    let bench = Bench::new();
    let data = bytes(200_000);
    let chunk = bench.put(1, &data);
    let slow = bench.store.open(chunk.id, chunk.version).unwrap();
    let mut file = std::fs::read(bench.path(&chunk)).unwrap();
    file[4096 + 70_000] ^= 1;
    std::fs::write(bench.path(&chunk), file).unwrap();
    assert!(bench.read(&chunk).is_err());
    // A repair brings it back under the same name.
    bench.put(1, &data);
    let got = slow.blocks(0, u64::MAX).unwrap();
    let got: Vec<u8> = got.iter().flat_map(|block| block.data.to_vec()).collect();
    assert!(got == data);
    assert!(bench.read(&chunk).unwrap() == data);
}

#[test]
fn i31_so_many_stay_open_and_those_read_last() {
    let bench = Bench::new();
    let chunks: Vec<_> = (0..MOST_KEPT as u128 + 2)
        .map(|id| bench.put(id, b"kept"))
        .collect();
    for chunk in &chunks {
        keep(&bench, chunk);
        // The first is read again and again.
        bench.store.kept(chunks[0].id, chunks[0].version);
    }
    let is_kept = |n: usize| bench.store.kept(chunks[n].id, chunks[n].version).is_some();
    assert_eq!(bench.store.index().kept_count(), MOST_KEPT);
    assert!(is_kept(0) && !is_kept(1) && !is_kept(2) && is_kept(3));
}
