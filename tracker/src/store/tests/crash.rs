//! The catalog on a disk that fails: power cuts at every step, fsync errors, rot, no room.

use std::path::Path;
use std::sync::Arc;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::{ErrorCode, Problem};

use super::sim_disk::{Failure, SimDisk};
use super::support::*;
use crate::model::op::Op;
use crate::store::{
    ApplyRefusal, Catalog, JournalMode, NullJournal, RedbConfig, RedbEngine, StoreError,
    SubmitError,
};

const DIR: &str = "/catalog";
const FILE: &str = "/catalog/catalog.redb";

fn redb_config() -> RedbConfig {
    RedbConfig {
        cache_bytes: 1024 * 1024,
        reserve_bytes: 0,
        ballast_bytes: 0,
        ..RedbConfig::new(DIR)
    }
}

async fn open(disk: &SimDisk, redb: &RedbConfig) -> Result<Catalog, StoreError> {
    let engine = RedbEngine::open(Arc::new(disk.clone()), redb)?;
    let config = config(Arc::new(NullJournal), JournalMode::Sync);
    Catalog::open(Arc::new(engine), config).await
}

fn script() -> Vec<Op> {
    vec![
        put_node(AdminState::InService),
        commit("a", 1, &[1]),
        commit("b", 2, &[2, 3]),
        commit("a", 3, &[4]),
        delete("b", Some(9)),
        restore(9, Some("c"), 5),
    ]
}

/// The paths after each prefix of the script.
const EXPECTED: [&[&str]; 7] = [
    &[],
    &[],
    &["a"],
    &["a", "b"],
    &["a", "b"],
    &["a"],
    &["a", "c"],
];

// Runs the script until it ends or fails; gives how many changes were acknowledged.
async fn run_script(disk: &SimDisk, redb: &RedbConfig) -> usize {
    let Ok(catalog) = open(disk, redb).await else {
        return 0;
    };
    let mut acked = 0;
    for op in script() {
        match catalog.submit(op).await {
            Ok(_) => acked += 1,
            Err(SubmitError::Poisoned { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    catalog.close().await;
    acked
}

async fn assert_recovers(disk: &SimDisk, redb: &RedbConfig, acked: usize, context: &str) {
    let catalog = open(disk, redb)
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = paths(&catalog).await;
    let versions = catalog.get_file(&path("a")).await.unwrap();
    // What was in flight is wholly there or wholly absent (I3).
    let possible = acked..=(acked + 1).min(script().len());
    let matching = possible.filter(|prefix| found == EXPECTED[*prefix]).count();
    assert!(matching > 0, "{context}: acked {acked}, found {found:?}");
    if acked >= 4 {
        assert_eq!(versions.unwrap().version.as_u128(), 3, "{context}");
    }
    assert_consistent(catalog.engine().as_ref());
    catalog.submit(commit("after", 77, &[])).await.unwrap();
    catalog.close().await;
}

#[tokio::test]
async fn i12_i02_power_cut_at_every_step_loses_nothing_that_was_acknowledged() {
    for quick_repair in [false, true] {
        let redb = RedbConfig {
            quick_repair,
            ..redb_config()
        };
        let mut step = 1;
        let mut in_flight = 0;
        loop {
            let disk = SimDisk::new();
            disk.fail_at(step, Failure::PowerCut);
            let acked = run_script(&disk, &redb).await;
            if !disk.failed() {
                assert_eq!(acked, script().len());
                break;
            }
            in_flight += u32::from(acked < script().len());
            for seed in 0..3 {
                let after = disk.after_power_cut(step * 10 + seed);
                let context = format!("quick repair {quick_repair}, step {step}, seed {seed}");
                assert_recovers(&after, &redb, acked, &context).await;
            }
            step += 1;
        }
        assert!(
            in_flight > 20,
            "only {in_flight} steps hit a change in flight"
        );
    }
}

#[tokio::test]
async fn i14_fault_13_after_any_disk_error_nothing_is_acknowledged_any_more() {
    let redb = redb_config();
    let mut step = 1;
    loop {
        let disk = SimDisk::new();
        disk.fail_at(step, Failure::Once);
        let Ok(catalog) = open(&disk, &redb).await else {
            step += 1;
            continue;
        };
        let mut failed = false;
        for op in script() {
            match catalog.submit(op).await {
                Ok(_) => assert!(!failed, "acknowledged after an error at step {step}"),
                Err(SubmitError::Poisoned { .. }) => failed = true,
                Err(other) => panic!("{other}"),
            }
        }
        if failed {
            assert!(catalog.poisoned().borrow().is_some());
        }
        catalog.close().await;
        if !disk.failed() {
            break;
        }
        step += 1;
    }
    assert!(step > 20);
}

#[tokio::test]
async fn i14_fault_13_a_failed_fsync_poisons_the_catalog_although_the_next_would_succeed() {
    let disk = SimDisk::new();
    let catalog = open(&disk, &redb_config()).await.unwrap();
    catalog
        .submit(put_node(AdminState::InService))
        .await
        .unwrap();
    disk.fail_next_sync();
    let failed = catalog.submit(commit("a", 1, &[1])).await.unwrap_err();
    assert!(matches!(failed, SubmitError::Poisoned { .. }));
    assert!(Problem::from(failed).is(ErrorCode::Unavailable));
    assert!(catalog.until_poisoned().await.contains("fsync"));
    let syncs = disk.syncs();
    let later = catalog.submit(commit("b", 2, &[2])).await;
    assert!(matches!(later, Err(SubmitError::Poisoned { .. })));
    assert_eq!(
        disk.syncs(),
        syncs,
        "a failed fsync must not be tried again"
    );
    catalog.close().await;
    drop(catalog);
    // A restart re-reads the disk.
    let catalog = open(&disk.after_power_cut(1), &redb_config())
        .await
        .unwrap();
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    assert_eq!(paths(&catalog).await, ["a"]);
}

#[tokio::test]
async fn fault_14_i15_a_full_volume_refuses_puts_and_lets_deletes_go_on() {
    const MIB: u64 = 1024 * 1024;
    let disk = SimDisk::new();
    let redb = RedbConfig {
        reserve_bytes: 16 * MIB,
        ballast_bytes: 4 * MIB,
        ..redb_config()
    };
    let ballast = Path::new("/catalog/ballast");
    let catalog = open(&disk, &redb).await.unwrap();
    catalog
        .submit(put_node(AdminState::InService))
        .await
        .unwrap();
    for i in 0..3u128 {
        catalog
            .submit(commit(&format!("f{i}"), i, &[i]))
            .await
            .unwrap();
    }
    assert_eq!(disk.bytes(ballast).unwrap().len() as u64, 4 * MIB);
    disk.set_available(MIB);
    let refused = catalog.submit(commit("g", 9, &[9])).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Refused(ApplyRefusal::Full)));
    let problem = Problem::from(refused);
    assert!(problem.is(ErrorCode::InsufficientStorage));
    assert_eq!(problem.status, 507);
    catalog.submit(delete("f0", None)).await.unwrap();
    assert_eq!(paths(&catalog).await, ["f1", "f2"]);
    assert_eq!(disk.bytes(ballast), None, "the ballast was not used");
    disk.set_available(MIB);
    let exhausted = catalog.submit(delete("f1", None)).await.unwrap_err();
    assert!(Problem::from(exhausted).is(ErrorCode::InsufficientStorage));
    assert!(catalog.poisoned().borrow().is_none());
    // The volume grows: all goes on, and the ballast is back.
    disk.set_available(1 << 40);
    catalog.submit(commit("g", 9, &[9])).await.unwrap();
    assert_eq!(disk.bytes(ballast).unwrap().len() as u64, 4 * MIB);
    assert_consistent(catalog.engine().as_ref());
}

async fn closed_catalog(disk: &SimDisk) -> Vec<String> {
    let catalog = open(disk, &redb_config()).await.unwrap();
    catalog
        .submit(put_node(AdminState::InService))
        .await
        .unwrap();
    for i in 0..40u128 {
        catalog
            .submit(commit(&format!("f{i}"), i, &[i]))
            .await
            .unwrap();
    }
    let names = paths(&catalog).await;
    catalog.close().await;
    names
}

#[tokio::test]
async fn fault_18_i13_rot_in_the_catalog_is_refused_at_start_with_the_way_out_or_is_harmless() {
    let disk = SimDisk::new();
    let names = closed_catalog(&disk).await;
    let length = disk.bytes(Path::new(FILE)).unwrap().len() as u64;
    // The engine says what it panicked about on its own; the noise is not ours.
    let mut refused = 0;
    let mut rng = fastrand::Rng::with_seed(18);
    for _ in 0..150 {
        let rotten = disk.after_power_cut(0);
        rotten.flip(Path::new(FILE), rng.u64(0..length));
        match open(&rotten, &redb_config()).await {
            Ok(catalog) => {
                // The bit lay in no page that holds anything.
                assert_eq!(paths(&catalog).await, names);
                assert_consistent(catalog.engine().as_ref());
                catalog.close().await;
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                assert!(error.to_string().contains("dfs tracker rebuild"), "{error}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "no flip hit anything");
}

#[tokio::test]
async fn fault_17_a_catalog_cut_short_is_refused_or_whole_never_shorter() {
    let disk = SimDisk::new();
    let names = closed_catalog(&disk).await;
    let length = disk.bytes(Path::new(FILE)).unwrap().len() as u64;
    for cut in (0..length).step_by(65_537) {
        let torn = disk.after_power_cut(0);
        torn.cut(Path::new(FILE), cut);
        match open(&torn, &redb_config()).await {
            Ok(catalog) => {
                assert_eq!(paths(&catalog).await, names, "cut at {cut}");
                catalog.close().await;
            }
            Err(error) => assert!(
                matches!(error, StoreError::Corrupt { .. }),
                "cut at {cut}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn one_change_costs_the_two_fsyncs_of_a_two_phase_commit() {
    let disk = SimDisk::new();
    let catalog = open(&disk, &redb_config()).await.unwrap();
    catalog
        .submit(put_node(AdminState::InService))
        .await
        .unwrap();
    let (syncs, steps) = (disk.syncs(), disk.steps());
    catalog.submit(commit("a", 1, &[1])).await.unwrap();
    assert_eq!(disk.syncs() - syncs, 2);
    assert!(disk.steps() > steps);
}
