//! The tracker is killed while many clients write: nothing acknowledged is lost, nothing is torn.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fleet::{DEADLINE, Fleet, Options, seeded};
use crate::writers::{Writers, check};

const WRITERS: usize = 64;
const KILLS: u64 = 20;
/// Acknowledgements wanted, unless `DFS_E2E_ACKS` says another number.
const ACKS: u64 = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn i02_i03_i12_fault_16_a_tracker_killed_20_times_amid_64_writers_loses_no_acked_file() {
    let wanted = std::env::var("DFS_E2E_ACKS").map_or(ACKS, |acks| acks.parse().unwrap());
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::default()).await;
    let ledger = fleet.root.path().join("ledger");
    let start = std::time::Instant::now();
    let writers = Writers::start(&fleet.tracker.address(), ledger, WRITERS, 0, &mut rng);
    let mut in_flight_at_kills = Vec::new();
    let mut restarts = Duration::ZERO;
    for kill in 1..=KILLS {
        // Each life of the tracker has work behind it, and is killed amid work.
        writers.wait_acks(kill * wanted / (KILLS + 1)).await;
        tokio::time::sleep(Duration::from_millis(rng.u64(..20))).await;
        let shared = &writers.shared;
        let (broken, acks) = (
            shared.broken.load(Ordering::SeqCst),
            shared.acks.load(Ordering::SeqCst),
        );
        let in_flight = shared.in_flight.load(Ordering::SeqCst);
        fleet.tracker.process.kill_9().unwrap();
        // What was in flight ends: answered before the kill, or broken by it.
        dfs_e2e::wait::eventually("requests in flight end", DEADLINE, || async {
            let left = shared.in_flight.load(Ordering::SeqCst);
            if left == 0 {
                Ok(())
            } else {
                Err(left.to_string())
            }
        })
        .await;
        let broken = shared.broken.load(Ordering::SeqCst) - broken;
        let acks = shared.acks.load(Ordering::SeqCst) - acks;
        // None at a kill before which this process stalled: all was answered, and not read yet.
        in_flight_at_kills.push(broken);
        eprintln!(
            "kill {kill}: {in_flight} requests in flight, {acks} still answered, {broken} not"
        );
        let down = std::time::Instant::now();
        fleet.tracker.process.restart().unwrap();
        fleet.wait_ready().await;
        restarts += down.elapsed();
    }
    writers.wait_acks(wanted).await;
    let acks = writers.shared.acks.load(Ordering::SeqCst);
    let refused = writers.shared.refused.load(Ordering::SeqCst);
    let seconds = start.elapsed().as_secs();
    let hit = in_flight_at_kills.iter().filter(|broken| **broken > 0);
    assert!(
        hit.count() as u64 > KILLS / 2,
        "no commit was in flight at most kills: {in_flight_at_kills:?}"
    );
    let ledger = writers.stop().await;
    let comparison = check(&fleet.store(), ledger).await;
    eprintln!(
        "{acks} acks in the ledger in {seconds} s ({} s of them restarts), {refused} refusals, \
         unanswered at the kills {in_flight_at_kills:?}; of the unanswered {} took effect whole, \
         {} did not",
        restarts.as_secs(),
        comparison.open_visible,
        comparison.open_absent
    );
    assert!(comparison.broken.is_empty(), "{:#?}", comparison.broken);
    assert!(acks >= wanted, "{acks}");
    fleet.store().wait_fsck_clean(DEADLINE).await;
}
