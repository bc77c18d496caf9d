//! Packs while several hands are at the same chunk: removals, repairs, compaction, and a batch whose
//! writer dies.

use std::sync::mpsc;
use std::time::Duration;

use dfs_protocol::datanode::Damage;

use super::*;
use crate::testing::{EIO, Faults, Held, Outcome};

fn held(bench: &Bench, chunk: &SealedChunk) -> bool {
    bench.store.index().get((chunk.id, chunk.version)).is_some()
}

fn remove(bench: &Bench, chunk: &SealedChunk) -> Result<bool, StoreError> {
    bench.store.remove(chunk.id, chunk.version, ChunkKind::Data)
}

/// Waits for what another thread is about to do.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A closed pack of three chunks of which only the last lives: the next one to be compacted.
fn mostly_dead() -> (Bench, SealedChunk) {
    let bench = Bench::with(PackLimits {
        chunk: 64 * 1024,
        pack: 16 * 1024,
    });
    let chunks: Vec<_> = (0..4).map(|id| bench.put(id, &bytes(4000))).collect();
    for chunk in &chunks[..2] {
        assert!(remove(&bench, chunk).unwrap());
    }
    (bench, chunks[2])
}

#[test]
fn i02_a_repair_that_comes_while_damage_is_set_aside_stays() {
    let bench = Bench::packed();
    let chunk = bench.put(1, b"abc");
    bench.disk.hold_at(Held::Syncs("quarantine"));
    std::thread::scope(|scope| {
        let (id, version) = (chunk.id, chunk.version);
        let store = &bench.store;
        let aside = scope.spawn(move || store.set_aside(id, version, Damage::Block));
        until(|| bench.disk.began_sync("quarantine"));
        let repaired = bench.put(1, b"abc");
        bench.disk.release();
        aside.join().unwrap();
        assert_eq!(bench.read(&repaired).unwrap(), b"abc");
    });
    let bench = bench.restart();
    assert!(held(&bench, &chunk), "it was acknowledged");
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    assert_eq!(bench.names("quarantine").len(), 1);
}

#[test]
fn i09_a_removal_that_fails_beside_compaction_leaves_no_ghost() {
    let (bench, chunk) = mostly_dead();
    bench.disk.take_ops();
    bench.disk.hold_at(Held::Writes("packs"));
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| remove(&bench, &chunk));
        until(|| bench.disk.began_write("packs"));
        let compacting = scope.spawn(|| bench.store.compact());
        until(|| bench.metrics.packs.waiting.get() == 1);
        bench.disk.release_to(Outcome::Fails(EIO));
        assert!(removing.join().unwrap().is_err());
        compacting.join().unwrap().unwrap();
    });
    let known = held(&bench, &chunk);
    assert_eq!(known, bench.read(&chunk).is_ok(), "known, but not there");
    assert!(bench.store.index().delta().corrupt.is_empty());
    assert_eq!(
        known,
        held(&bench.restart(), &chunk),
        "until the next start"
    );
}

#[test]
fn i14_a_batch_whose_writer_dies_fails_everybody_and_stops_the_store() {
    let bench = Bench::packed();
    bench.put(500, b"before");
    let staged: Vec<_> = (1..3).map(|id| bench.stage(id, b"abc")).collect();
    bench.disk.take_ops();
    bench.disk.hold_at(Held::Writes("packs"));
    let mut staged = staged.into_iter();
    let mut seal = || {
        let (staged, chunk) = staged.next().unwrap();
        let (answers, answered) = mpsc::channel();
        // Not joined: without an answer it would wait for ever.
        std::thread::spawn(move || answers.send(staged.seal(&chunk)));
        answered
    };
    let dies = seal();
    until(|| bench.disk.began_write("packs"));
    let waits = seal();
    until(|| bench.metrics.packs.waiting.get() == 1);
    bench.disk.release_to(Outcome::Panics);
    let deadline = Duration::from_mins(1);
    assert_eq!(
        dies.recv_timeout(deadline).unwrap_err(),
        mpsc::RecvTimeoutError::Disconnected
    );
    let answer = waits.recv_timeout(deadline).expect("no answer");
    assert!(matches!(answer, Err(StoreError::Failed { .. })));
    assert!(bench.store.fail_stop().is_failed());
    assert!(!held(&bench, &sealed(1, b"abc")));
    assert_eq!(bench.read(&sealed(500, b"before")).unwrap(), b"before");
}

#[test]
fn i14_a_failed_sync_before_the_first_pack_stops_the_store() {
    let bench = Bench::packed();
    let (staged, chunk) = bench.stage(1, b"abc");
    bench.disk.set(Faults {
        sync: true,
        ..Faults::default()
    });
    assert!(matches!(
        staged.seal(&chunk),
        Err(StoreError::Failed { .. })
    ));
    bench.disk.set(Faults::default());
    assert!(bench.store.fail_stop().is_failed());
    assert!(bench.store.begin(&new_chunk(2, 1)).is_err());
}

#[test]
fn a_chunk_in_both_layouts_is_counted_once() {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    let (path, file) = (
        bench.path(&chunk),
        std::fs::read(bench.path(&chunk)).unwrap(),
    );
    assert!(remove(&bench, &chunk).unwrap());
    let bench = bench.restart_with(PackLimits::default());
    bench.put(1, b"abc");
    std::fs::write(&path, file).unwrap();
    let mut bench = bench;
    for _ in 0..2 {
        bench = bench.restart();
        assert_eq!(bench.store.index().totals(), (1, 3));
        assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    }
    assert!(remove(&bench, &chunk).unwrap());
    assert_eq!(bench.restart().store.index().totals(), (0, 0));
}

#[test]
fn a_chunk_that_finds_no_file_keeps_the_bytes_that_it_has() {
    let bench = Bench::packed();
    let data = bytes(17 * BLOCK_SIZE);
    let (held, last) = data.split_at(16 * BLOCK_SIZE);
    let mut staged = bench.store.begin(&new_chunk(1, 10)).unwrap();
    append(staged.as_mut(), 0, held).unwrap();
    let fill = |write| Faults {
        write,
        ..Faults::default()
    };
    bench.disk.set(fill(Some(EIO)));
    let failed = append(staged.as_mut(), held.len() as u64, last);
    assert!(matches!(failed, Err(StoreError::Disk { .. })));
    bench.disk.set(fill(None));
    assert_eq!(staged.length(), held.len() as u64);
    append(staged.as_mut(), held.len() as u64, last).unwrap();
    let chunk = sealed(1, &data);
    staged.seal(&chunk).unwrap();
    assert_eq!(bench.restart().read(&chunk).unwrap(), data);
}
