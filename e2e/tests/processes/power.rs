//! The power fails everywhere at once: what no fsync wrote is gone.

use std::sync::atomic::Ordering;

use dfs_e2e::ledger::Comparison;

use crate::fleet::{DEADLINE, Fleet, Options, seeded};
use crate::writers::{Writers, check};

const WRITERS: usize = 16;
const ACKS_PER_ROUND: u64 = 100;

/// Writes, cuts the power amid the writes, starts again; so many times.
async fn rounds(fleet: &mut Fleet, count: usize) -> Comparison {
    let mut rng = seeded();
    let ledger = fleet.root.path().join("ledger");
    let mut acks = 0;
    for round in 0..count {
        let address = fleet.tracker.address();
        let writers = Writers::start(&address, ledger.clone(), WRITERS, round, &mut rng);
        writers.wait_acks(ACKS_PER_ROUND).await;
        let in_flight = writers.shared.in_flight.load(Ordering::SeqCst);
        fleet.kill_all();
        acks += writers.shared.acks.load(Ordering::SeqCst);
        writers.stop().await;
        eprintln!("power cut {round}: {in_flight} requests in flight, {acks} acks so far");
        assert!(in_flight > 0);
        fleet.restart_all();
        fleet.wait_ready().await;
    }
    let comparison = check(&fleet.store(), ledger).await;
    eprintln!(
        "{acks} acks; of the unanswered {} took effect whole, {} did not; {} broken promises",
        comparison.open_visible,
        comparison.open_absent,
        comparison.broken.len()
    );
    comparison
}

#[tokio::test(flavor = "multi_thread")]
async fn i02_i03_fault_06_power_cuts_of_all_processes_amid_writes_lose_no_acked_file() {
    let options = Options {
        binary: "dfs-volatile",
        ..Options::default()
    };
    let mut fleet = Fleet::start(options).await;
    let comparison = rounds(&mut fleet, 5).await;
    assert!(comparison.broken.is_empty(), "{:#?}", comparison.broken);
    fleet.store().wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i02_datanodes_that_skip_the_fsync_of_their_chunks_are_found_out() {
    let skip = ("DFS_VOLATILE_SKIP_SYNC".to_owned(), "/packs/".to_owned());
    let options = Options {
        binary: "dfs-volatile",
        datanode_env: vec![skip],
        ..Options::default()
    };
    let mut fleet = Fleet::start(options).await;
    let comparison = rounds(&mut fleet, 1).await;
    assert!(
        !comparison.broken.is_empty(),
        "the test above could not fail"
    );
}
