//! Files of chunks while one hand takes one away and another seals a copy under the same name.

use std::time::Duration;

use dfs_protocol::datanode::Damage;

use super::*;
use crate::testing::{DiskOp, Held};

type Take = fn(&FileChunkStore, &SealedChunk);

/// Whether a chunk's file is being removed or moved.
fn is_taken(bench: &Bench, path: &Path) -> bool {
    bench.disk.take_ops().iter().any(|op| match op {
        DiskOp::Remove(from) | DiskOp::Rename(from, _) => from == path,
        DiskOp::Write(_) | DiskOp::Sync(_) | DiskOp::SyncDir(_) => false,
    })
}

/// A copy comes as soon as the first one is out of the index, and may be refused until its file is gone.
fn copies_beside(take: Take) {
    let bench = Bench::new();
    let chunk = bench.put(1, b"abc");
    let path = bench.path(&chunk);
    bench.disk.take_ops();
    bench.disk.hold_at(Held::Takes("chunks/"));
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| take(&bench.store, &chunk));
        while !is_taken(&bench, &path) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let copy = bench.store.begin(&new_chunk(1, 3)).and_then(|mut staged| {
            append(staged.as_mut(), 0, b"abc")?;
            staged.seal(&chunk)
        });
        bench.disk.release();
        taking.join().unwrap();
        if let Err(error) = copy {
            assert!(matches!(error, StoreError::InProgress { .. }), "{error}");
            bench.put(1, b"abc");
        }
    });
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    let bench = bench.restart();
    assert_eq!(bench.read(&chunk).unwrap(), b"abc");
}

#[test]
fn i02_a_copy_that_is_sealed_while_its_name_is_removed_keeps_its_file() {
    copies_beside(|store, chunk| {
        let removed = store.remove(chunk.id, chunk.version, ChunkKind::Data);
        assert!(removed.unwrap());
    });
}

#[test]
fn i02_a_copy_that_is_sealed_while_damage_is_set_aside_keeps_its_file() {
    copies_beside(|store, chunk| store.set_aside(chunk.id, chunk.version, Damage::Block));
}

#[test]
fn many_hands_that_take_and_write_one_chunk_do_not_wait_for_each_other_for_ever() {
    let bench = Bench::new();
    let chunk = sealed(1, b"abc");
    std::thread::scope(|scope| {
        for hand in 0..6 {
            let bench = &bench;
            scope.spawn(move || {
                for _ in 0..30 {
                    let store = &bench.store;
                    match hand % 3 {
                        0 => drop(store.remove(chunk.id, chunk.version, ChunkKind::Data)),
                        1 => store.set_aside(chunk.id, chunk.version, Damage::Block),
                        _ => {
                            let begun = store.begin(&new_chunk(1, 3));
                            drop(begun.and_then(|mut staged| {
                                append(staged.as_mut(), 0, b"abc")?;
                                staged.seal(&chunk)
                            }));
                        }
                    }
                }
            });
        }
    });
    let known = bench.store.index().get((chunk.id, chunk.version)).is_some();
    assert_eq!(known, bench.path(&chunk).exists());
    if known {
        assert_eq!(bench.read(&chunk).unwrap(), b"abc");
    }
}
