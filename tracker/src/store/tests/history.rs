//! Checkpoints, dumps and rebuilds of random histories.

use std::io::Cursor;
use std::sync::Arc;

use proptest::prelude::*;

use dfs_protocol::FileId;
use dfs_protocol::chunk::{ChunkKind, ChunkOrigin};

use super::model::{Act, Model, act, runtime, submit_checked};
use super::support::*;
use crate::model::op::Op;
use crate::store::checkpoint::{CheckpointPages, LoadError, dump, load, verify};
use crate::store::frame::FrameError;
use crate::store::kv::Engine;
use crate::store::lost_found::{self, FoundChunk};
use crate::store::rebuild::{RebuildError, RebuildOptions, rebuild};
use crate::store::{Catalog, JournalMode, MemoryEngine, NullJournal, StoreError};

struct World {
    engine: Arc<MemoryEngine>,
    journal: Arc<KeepingJournal>,
    catalog: Catalog,
    model: Model,
}

impl World {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::default());
        let journal = Arc::new(KeepingJournal::default());
        let catalog = catalog_on(engine.clone(), journal.clone()).await;
        Self {
            engine,
            journal,
            catalog,
            model: Model::default(),
        }
    }

    async fn run(&mut self, acts: &[Act]) {
        for act in acts {
            submit_checked(&self.catalog, &mut self.model, act).await;
        }
    }
}

async fn small_world() -> World {
    let world = World::new().await;
    world
        .catalog
        .submit(commit("a/b", 1, &[1, 2]))
        .await
        .unwrap();
    world.catalog.submit(commit("empty", 2, &[])).await.unwrap();
    world
        .catalog
        .submit(delete("empty", Some(3)))
        .await
        .unwrap();
    world
}

fn dumped(engine: Arc<dyn Engine>) -> Vec<u8> {
    let mut bytes = Vec::new();
    dump(engine, at(9), &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i12_a_rebuild_from_checkpoint_and_shuffled_journal_equals_the_original(
        before in proptest::collection::vec(act(), 0..30),
        during in proptest::collection::vec(act(), 0..30),
        after in proptest::collection::vec(act(), 0..30),
        page_bytes in 1usize..600,
        seed in any::<u64>(),
    ) {
        runtime().block_on(async {
            let mut world = World::new().await;
            world.run(&before).await;
            let mut pages = CheckpointPages::begin(world.engine.clone(), at(8), page_bytes).unwrap();
            let mut checkpoint = Vec::new();
            // One change between any two pages: the checkpoint is as fuzzy as can be.
            let mut changes = during.iter();
            for page in pages.by_ref() {
                checkpoint.extend(page.unwrap());
                if let Some(act) = changes.next() {
                    world.run(std::slice::from_ref(act)).await;
                }
            }
            world.run(&after).await;
            let mut records = world.journal.take();
            records.extend(records.clone());
            fastrand::Rng::with_seed(seed).shuffle(&mut records);
            // Datanodes trim what the checkpoint covers.
            records.retain(|record| record.sequence > pages.sequence() || seed % 2 == 0);
            let rebuilt = MemoryEngine::default();
            let report = rebuild(
                &rebuilt,
                Some(&mut Cursor::new(&checkpoint)),
                records,
                RebuildOptions::default(),
            )
            .unwrap();
            assert_eq!(report.checkpoint, Some(pages.sequence()));
            assert_eq!(state(&rebuilt), state(world.engine.as_ref()));
            world.model.assert_matches(&rebuilt);
            // And without a checkpoint.
            let replayed = MemoryEngine::default();
            let all = world.journal.take();
            rebuild(&replayed, None, all, RebuildOptions::default()).unwrap();
            assert_eq!(state(&replayed), state(world.engine.as_ref()));
        });
    }

    #[test]
    fn a_dump_loaded_elsewhere_equals_the_original(acts in proptest::collection::vec(act(), 0..40)) {
        runtime().block_on(async {
            let mut world = World::new().await;
            world.run(&acts).await;
            let bytes = dumped(world.engine.clone());
            let loaded: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
            load(loaded.as_ref(), &mut Cursor::new(&bytes)).unwrap();
            assert_eq!(state(loaded.as_ref()), state(world.engine.as_ref()));
            // It opens, and takes the next change.
            let catalog = catalog_on(loaded, Arc::new(NullJournal)).await;
            catalog.submit(commit("next", 12345, &[])).await.unwrap();
        });
    }
}

#[tokio::test]
async fn fault_17_i13_a_dump_cut_at_any_byte_is_refused_and_leaves_no_usable_catalog() {
    let world = small_world().await;
    let bytes = dumped(world.engine.clone());
    for cut in 0..bytes.len() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
        let refused = load(engine.as_ref(), &mut Cursor::new(&bytes[..cut])).unwrap_err();
        assert!(
            matches!(
                refused,
                LoadError::Frame(FrameError::Torn { .. }) | LoadError::Incomplete { .. }
            ),
            "cut at {cut}: {refused}"
        );
        let opened = Catalog::open(engine, config(Arc::new(NullJournal), JournalMode::Sync)).await;
        assert!(
            matches!(opened, Err(StoreError::PartlyLoaded)),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn fault_18_i13_a_flipped_bit_anywhere_in_a_dump_is_named_with_its_position() {
    let world = small_world().await;
    let bytes = dumped(world.engine.clone());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        let refused = verify(&mut Cursor::new(&damaged)).unwrap_err();
        let LoadError::Frame(FrameError::Damaged { position, .. }) = refused else {
            panic!("flip at {at}: {refused}")
        };
        assert!(position <= at as u64, "flip at {at}: {position}");
    }
    let mut longer = bytes.clone();
    longer.extend_from_slice(&bytes);
    assert!(verify(&mut Cursor::new(&longer)).is_err());
    verify(&mut Cursor::new(&bytes)).unwrap();
}

#[tokio::test]
async fn a_load_needs_an_empty_engine() {
    let world = small_world().await;
    let bytes = dumped(world.engine.clone());
    let refused = load(world.engine.as_ref(), &mut Cursor::new(&bytes));
    assert!(matches!(
        refused,
        Err(LoadError::Store(StoreError::NotEmpty))
    ));
    assert_consistent(world.engine.as_ref());
}

#[tokio::test]
async fn i13_a_missing_record_stops_a_rebuild_and_is_named() {
    let world = small_world().await;
    let mut records = world.journal.take();
    let missing = records.remove(2).sequence;
    let engine = MemoryEngine::default();
    let stopped = rebuild(&engine, None, records.clone(), RebuildOptions::default());
    let Err(RebuildError::Gap { missing: named }) = stopped else {
        panic!("{stopped:?}")
    };
    assert_eq!(named, missing..=missing);
    let engine = MemoryEngine::default();
    let report = rebuild(&engine, None, records, RebuildOptions { allow_gap: true }).unwrap();
    assert_eq!(report.gaps, [missing..=missing]);
    let nothing = rebuild(
        &MemoryEngine::default(),
        None,
        vec![],
        RebuildOptions::default(),
    );
    assert!(matches!(nothing, Err(RebuildError::Nothing)));
}

#[tokio::test]
async fn i20_a_rebuild_leaves_out_what_a_deposed_tracker_wrote_behind_its_end() {
    let world = small_world().await;
    let begin = |epoch| Op::BeginEpoch {
        fence: fence(epoch),
    };
    world.catalog.submit(begin(1)).await.unwrap();
    let common = world.journal.take();
    // The deposed one goes on from a copy of the catalog; its records reach one datanode.
    let bytes = dumped(world.engine.clone());
    let copy: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
    load(copy.as_ref(), &mut Cursor::new(&bytes)).unwrap();
    let deposed = Arc::new(KeepingJournal::default());
    let old = Catalog::open(copy, config(deposed.clone(), JournalMode::Sync))
        .await
        .unwrap();
    for i in 0..5u128 {
        old.submit(commit(&format!("ghost{i}"), 900 + i, &[]))
            .await
            .unwrap();
    }
    world.catalog.submit(begin(2)).await.unwrap();
    world
        .catalog
        .submit(commit("real", 800, &[]))
        .await
        .unwrap();
    let mut records = world.journal.take();
    assert!(records.len() > common.len());
    records.extend(deposed.take());
    let rebuilt = MemoryEngine::default();
    let report = rebuild(&rebuilt, None, records, RebuildOptions::default()).unwrap();
    assert_eq!(report.superseded, 5);
    assert_eq!(state(&rebuilt), state(world.engine.as_ref()));
}

#[tokio::test]
async fn i09_chunks_that_nothing_explains_go_below_lost_and_found_only() {
    let world = small_world().await;
    world
        .catalog
        .submit(commit("gone", 4, &[40]))
        .await
        .unwrap();
    world.catalog.submit(delete("gone", None)).await.unwrap();
    let found = |id: u128, file: u128, index: u32, hint: &str| FoundChunk {
        chunk: chunk(id),
        origin: ChunkOrigin {
            kind: ChunkKind::Data,
            file: FileId::from_u128(file),
            index,
            path_hint: hint.to_owned(),
        },
    };
    let inventory = vec![
        found(1, 1, 0, "a/b"),
        found(40, 4, 0, "gone"),
        found(70, 7, 1, "x/whole.txt"),
        found(71, 7, 0, "x/whole.txt"),
        found(71, 7, 0, "x/whole.txt"),
        found(80, 8, 2, "x/tail"),
        found(90, 9, 0, "../../evil"),
        found(91, 9, 0, "../../evil"),
    ];
    let txn = world.engine.read().unwrap();
    let plan = lost_found::plan(txn.as_ref(), inventory, 3, at(9)).unwrap();
    drop(txn);
    assert_eq!(plan.explained, 2);
    let names: Vec<String> = plan
        .files
        .iter()
        .map(|file| file.path.to_string())
        .collect();
    let id = FileId::from_u128;
    let mut wanted = vec![
        format!("lost+found/{}/whole.txt", id(7)),
        format!("lost+found/{}.partial/tail", id(8)),
        format!("lost+found/{}/data", id(9)),
        format!("lost+found/{}.alternate-0-{}/data", id(9), id(90)),
    ];
    wanted.sort();
    assert_eq!(names, wanted);
    let whole = plan.files.iter().find(|file| file.size == 20).unwrap();
    assert_eq!(whole.chunks, [chunk(71), chunk(70)]);
    for file in plan.files {
        let adopt = Op::Adopt {
            file: Box::new(file),
        };
        world.catalog.submit(adopt.clone()).await.unwrap();
        world.catalog.submit(adopt).await.unwrap();
    }
    assert_consistent(world.engine.as_ref());
}
