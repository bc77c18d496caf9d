//! What every engine must do. One suite, run over each.

use std::ops::Bound;
use std::sync::Arc;

use dfs_runtime::disk::RealDisk;

use crate::store::kv::{Direction, Engine, Span, Table};
use crate::store::{MemoryEngine, RedbConfig, RedbEngine, StoreError};

fn config(dir: &std::path::Path) -> RedbConfig {
    RedbConfig {
        cache_bytes: 1024 * 1024,
        reserve_bytes: 0,
        ballast_bytes: 0,
        ..RedbConfig::new(dir)
    }
}

fn every_engine(test: impl Fn(&dyn Engine)) {
    test(&MemoryEngine::default());
    for quick_repair in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = RedbConfig {
            quick_repair,
            ..config(dir.path())
        };
        test(&RedbEngine::open(RealDisk::shared(), &config).unwrap());
    }
}

fn put(engine: &dyn Engine, table: Table, pairs: &[(&[u8], &[u8])]) {
    engine
        .write(&mut |txn| {
            for (key, value) in pairs {
                txn.put(table, key, value)?;
            }
            Ok(())
        })
        .unwrap();
}

fn keys(engine: &dyn Engine, span: &Span, direction: Direction, limit: usize) -> Vec<Vec<u8>> {
    let txn = engine.read().unwrap();
    let pairs = txn.range(Table::Files, span, direction, limit).unwrap();
    pairs.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_committed_value_is_read_in_its_table_only() {
    every_engine(|engine| {
        put(engine, Table::Files, &[(b"k", b"v")]);
        let txn = engine.read().unwrap();
        assert_eq!(txn.get(Table::Files, b"k").unwrap().unwrap(), b"v");
        assert_eq!(txn.get(Table::Chunks, b"k").unwrap(), None);
        assert_eq!(txn.get(Table::Files, b"").unwrap(), None);
    });
}

#[test]
fn a_snapshot_does_not_see_later_commits() {
    every_engine(|engine| {
        put(engine, Table::Files, &[(b"k", b"old")]);
        let before = engine.read().unwrap();
        put(engine, Table::Files, &[(b"k", b"new"), (b"l", b"new")]);
        assert_eq!(before.get(Table::Files, b"k").unwrap().unwrap(), b"old");
        assert_eq!(before.get(Table::Files, b"l").unwrap(), None);
        let after = engine.read().unwrap();
        assert_eq!(after.get(Table::Files, b"k").unwrap().unwrap(), b"new");
    });
}

#[test]
fn a_transaction_reads_its_own_writes_and_a_given_up_one_leaves_nothing() {
    every_engine(|engine| {
        put(engine, Table::Files, &[(b"a", b"1")]);
        let outcome = engine.write(&mut |txn| {
            txn.put(Table::Files, b"b", b"2")?;
            txn.delete(Table::Files, b"a")?;
            txn.delete(Table::Files, b"absent")?;
            assert_eq!(txn.get(Table::Files, b"b")?.unwrap(), b"2");
            assert_eq!(txn.get(Table::Files, b"a")?, None);
            let all = txn.range(Table::Files, &Span::all(), Direction::Forward, 9)?;
            assert_eq!(all, [(b"b".to_vec(), b"2".to_vec())]);
            Err(StoreError::Abandoned)
        });
        assert!(matches!(outcome, Err(StoreError::Abandoned)));
        assert_eq!(
            keys(engine, &Span::all(), Direction::Forward, 9),
            [b"a".to_vec()]
        );
    });
}

#[test]
fn ranges_are_in_byte_order_both_ways_and_within_their_bounds() {
    every_engine(|engine| {
        let all: [&[u8]; 6] = [b"", b"a", b"a/b", b"a0", b"b", b"\xff\xff"];
        let pairs: Vec<(&[u8], &[u8])> = all.iter().map(|key| (*key, *key)).collect();
        put(engine, Table::Files, &pairs);
        assert_eq!(keys(engine, &Span::all(), Direction::Forward, 99), all);
        let mut reversed = all;
        reversed.reverse();
        assert_eq!(
            keys(engine, &Span::all(), Direction::Backward, 99),
            reversed
        );
        assert_eq!(
            keys(engine, &Span::all(), Direction::Backward, 2),
            &reversed[..2]
        );
        assert_eq!(
            keys(engine, &Span::prefix(b"a"), Direction::Forward, 99),
            &all[1..4]
        );
        assert_eq!(
            keys(engine, &Span::after(Some(b"a")), Direction::Forward, 2),
            &all[2..4]
        );
        assert_eq!(
            keys(engine, &Span::prefix(b"\xff"), Direction::Forward, 9),
            &all[5..]
        );
        assert!(keys(engine, &Span::all(), Direction::Forward, 0).is_empty());
        let backwards = Span {
            start: Bound::Included(b"b".to_vec()),
            end: Bound::Excluded(b"a".to_vec()),
        };
        assert!(keys(engine, &backwards, Direction::Forward, 9).is_empty());
    });
}

#[test]
fn large_values_and_many_keys_survive() {
    every_engine(|engine| {
        let large = vec![7; 3 * 1024 * 1024];
        engine
            .write(&mut |txn| {
                for i in 0..5000u32 {
                    txn.put(Table::Files, &i.to_be_bytes(), &i.to_le_bytes())?;
                }
                txn.put(Table::Journal, b"large", &large)
            })
            .unwrap();
        let txn = engine.read().unwrap();
        assert_eq!(txn.get(Table::Journal, b"large").unwrap().unwrap(), large);
        assert_eq!(
            keys(engine, &Span::all(), Direction::Forward, 9999).len(),
            5000
        );
    });
}

#[test]
fn redb_keeps_what_was_committed_over_a_reopen() {
    for quick_repair in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = RedbConfig {
            quick_repair,
            ..config(dir.path())
        };
        let engine = RedbEngine::open(RealDisk::shared(), &config).unwrap();
        put(&engine, Table::Files, &[(b"k", b"v")]);
        drop(engine);
        let engine = RedbEngine::open(RealDisk::shared(), &config).unwrap();
        assert_eq!(
            keys(&engine, &Span::all(), Direction::Forward, 9),
            [b"k".to_vec()]
        );
    }
}

#[test]
fn i20_a_second_process_cannot_open_the_same_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let first = RedbEngine::open(RealDisk::shared(), &config(dir.path())).unwrap();
    let second = RedbEngine::open(RealDisk::shared(), &config(dir.path()));
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    drop(first);
    RedbEngine::open(RealDisk::shared(), &config(dir.path())).unwrap();
}

#[test]
fn a_wasteful_file_is_compacted_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RedbEngine::open(RealDisk::shared(), &config(dir.path())).unwrap();
    let value = vec![3; 1024 * 1024];
    for i in 0..96u8 {
        put(&engine, Table::Files, &[(&[i], &value)]);
    }
    engine
        .write(&mut |txn| (0..95u8).try_for_each(|i| txn.delete(Table::Files, &[i])))
        .unwrap();
    drop(engine);
    let file = dir.path().join("catalog.redb");
    let before = std::fs::metadata(&file).unwrap().len();
    assert!(before > 64 * 1024 * 1024);
    let engine: Arc<dyn Engine> =
        Arc::new(RedbEngine::open(RealDisk::shared(), &config(dir.path())).unwrap());
    assert!(std::fs::metadata(&file).unwrap().len() < before / 2);
    assert_eq!(
        keys(engine.as_ref(), &Span::all(), Direction::Forward, 9),
        [vec![95]]
    );
}
