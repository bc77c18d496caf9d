//! Processes stand still for a while, and go on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fleet::{DEADLINE, Fleet, Options, seeded};
use crate::writers::{Writers, check};

#[tokio::test(flavor = "multi_thread")]
async fn i20_fault_26_datanode_and_tracker_paused_amid_writes_and_resumed_lose_nothing() {
    let mut rng = seeded();
    let options = Options {
        datanodes: 4,
        ..Options::default()
    };
    let fleet = Fleet::start(options).await;
    let ledger = fleet.root.path().join("ledger");
    let writers = Writers::start(&fleet.tracker.address(), ledger, 16, 0, &mut rng);
    writers.wait_acks(100).await;
    fleet.datanodes[2].process.pause().unwrap();
    let store = fleet.store();
    store
        .wait_status("it is missed", DEADLINE, |status| {
            status.datanodes.dead == 1
        })
        .await;
    // The others take writes meanwhile.
    let before = writers.shared.acks.load(Ordering::SeqCst);
    writers.wait_acks(before + 50).await;
    fleet.datanodes[2].process.resume().unwrap();
    fleet.wait_ready().await;
    fleet.tracker.process.pause().unwrap();
    // Longer than ten heartbeats: every lease and every datanode is silent in the tracker's eyes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    fleet.tracker.process.resume().unwrap();
    fleet.wait_ready().await;
    let before = writers.shared.acks.load(Ordering::SeqCst);
    writers.wait_acks(before + 50).await;
    let acks = writers.shared.acks.load(Ordering::SeqCst);
    let refused = writers.shared.refused.load(Ordering::SeqCst);
    let ledger = writers.stop().await;
    store.wait_healthy(DEADLINE).await;
    let comparison = check(&store, ledger).await;
    eprintln!("{acks} acks, {refused} refusals over two pauses");
    assert!(comparison.broken.is_empty(), "{:#?}", comparison.broken);
    store.wait_fsck_clean(DEADLINE).await;
}
