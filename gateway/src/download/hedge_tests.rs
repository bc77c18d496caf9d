//! Downloads beside replicas that say nothing: no connection breaks, and no time limit of ours passes
//! (both would count as a failover).

use std::sync::Arc;
use std::time::Duration;

use super::tests::{LENGTH, read, stored_in};
use crate::config::GatewayConfig;
use crate::metrics::{Doubt, Hedge};
use crate::testing::{CHUNK, ManualClock, ReadFault, World, config, eventually};

fn hedging() -> GatewayConfig {
    GatewayConfig {
        // Longer than a busy machine lets a replica that answers wait for the processor.
        hedge_after: Duration::from_secs(1),
        ..config()
    }
}

#[tokio::test]
async fn fault_15_a_replica_that_hangs_anywhere_is_overtaken_by_another() {
    for fault in [
        ReadFault::Mute,
        ReadFault::StallBefore(0),
        ReadFault::StallBefore(3),
    ] {
        let (world, bytes) = stored_in(World::with(3, CHUNK, hedging()).await).await;
        world.chain.order_read(0, Some(fault));
        let got = read(&world, 0..LENGTH).await.unwrap().unwrap();
        assert!(got == bytes, "{fault:?}");
        let metrics = &world.gateway.metrics;
        assert!(metrics.hedges.get(Hedge::Won) >= 1, "{fault:?}");
        assert_eq!(metrics.failovers.get(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn fault_15_a_small_range_is_read_beside_a_replica_that_hangs() {
    for fault in [ReadFault::Mute, ReadFault::StallBefore(1)] {
        let (world, bytes) = stored_in(World::with(3, CHUNK, hedging()).await).await;
        world.chain.order_read(0, Some(fault));
        let got = read(&world, 2 * CHUNK..LENGTH).await.unwrap().unwrap();
        let start = usize::try_from(2 * CHUNK).unwrap();
        assert!(got == bytes[start..], "{fault:?}");
        assert!(
            world.gateway.metrics.hedges.get(Hedge::Won) >= 1,
            "{fault:?}"
        );
        assert_eq!(world.gateway.metrics.failovers.get(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn fault_15_two_replicas_that_hang_leave_the_third() {
    let (world, bytes) = stored_in(World::with(3, CHUNK, hedging()).await).await;
    world.chain.order_read(0, Some(ReadFault::Mute));
    world.chain.order_read(1, Some(ReadFault::StallBefore(1)));
    let got = read(&world, 0..LENGTH).await.unwrap().unwrap();
    assert!(got == bytes);
    assert_eq!(world.gateway.metrics.failovers.get(), 0);
}

#[tokio::test]
async fn a_datanode_that_hung_comes_last_for_all_reads_until_the_doubt_passes() {
    let clock = Arc::new(ManualClock::default());
    let world = World::at(3, CHUNK, hedging(), clock.clone()).await;
    let (world, bytes) = stored_in(world).await;
    world.chain.order_read(0, Some(ReadFault::Mute));
    assert!(read(&world, 0..LENGTH).await.unwrap().unwrap() == bytes);
    let doubts = &world.gateway.metrics.doubts;
    assert!(doubts.get(Doubt::Slow) >= 1);
    // The later chunks of that download, and the next downloads, begin elsewhere.
    assert_eq!(world.chain.reads(0), 1);
    for _ in 0..10 {
        assert!(read(&world, 0..LENGTH).await.unwrap().unwrap() == bytes);
    }
    assert_eq!(world.chain.reads(0), 1);
    clock.advance(Duration::from_mins(1));
    world.chain.order_read(0, None);
    assert!(read(&world, 0..LENGTH).await.unwrap().unwrap() == bytes);
    assert!(world.chain.reads(0) > 1);
}

#[tokio::test]
async fn i04_the_whole_is_checked_also_when_its_blocks_came_from_several_replicas() {
    let (world, bytes) = stored_in(World::with(3, CHUNK, hedging()).await).await;
    // The last chunk has two blocks. The first comes from a replica that then hangs; the others have
    // other bytes with checksums that fit.
    world
        .chain
        .order_read(0, Some(ReadFault::StallOnceBefore(1)));
    world.chain.order_read(1, Some(ReadFault::OtherBytes));
    world.chain.order_read(2, Some(ReadFault::OtherBytes));
    let got = read(&world, 2 * CHUNK..LENGTH).await.unwrap().unwrap();
    let start = usize::try_from(2 * CHUNK).unwrap();
    assert!(got == bytes[start..]);
    assert!(world.gateway.metrics.hedges.get(Hedge::Won) >= 1);
}

#[tokio::test]
async fn i31_no_more_replicas_than_allowed_are_asked_beside_others() {
    let limited = GatewayConfig {
        max_hedges: 0,
        ..hedging()
    };
    let (world, _) = stored_in(World::with(3, CHUNK, limited).await).await;
    world.chain.order_read(0, Some(ReadFault::Mute));
    let world = Arc::new(world);
    let reading = tokio::spawn({
        let world = world.clone();
        async move { read(&world, 0..LENGTH).await }
    });
    let hedges = &world.gateway.metrics.hedges;
    eventually("a hedge is refused", || hedges.get(Hedge::Refused) > 0).await;
    assert_eq!(hedges.get(Hedge::Sent), 0);
    assert_eq!((world.chain.reads(1), world.chain.reads(2)), (0, 0));
    reading.abort();
}

#[tokio::test]
async fn fault_15_who_is_later_than_others_usually_are_is_overtaken_early_and_doubted_briefly() {
    let clock = Arc::new(ManualClock::default());
    let world = World::at(3, CHUNK, hedging(), clock.clone()).await;
    let (world, bytes) = stored_in(world).await;
    // By the clock that stands still they take no time at all.
    for _ in 0..40 {
        assert!(read(&world, 0..LENGTH).await.unwrap().unwrap() == bytes);
    }
    world.chain.order_read(0, Some(ReadFault::Mute));
    let before = world.chain.reads(0);
    eventually_overtaken(&world).await;
    let asked = world.chain.reads(0);
    assert!(asked > before);
    // A doubt about one that kept readers waiting for the longest delay would last ten seconds.
    clock.advance(Duration::from_secs(2));
    eventually_overtaken(&world).await;
    assert!(world.chain.reads(0) > asked);
}

/// Reads until one more replica was overtaken.
async fn eventually_overtaken(world: &World) {
    let hedges = &world.gateway.metrics.hedges;
    let won = hedges.get(Hedge::Won);
    for _ in 0..100 {
        read(world, 0..LENGTH).await.unwrap().unwrap();
        if hedges.get(Hedge::Won) > won {
            return;
        }
    }
    panic!("nobody was overtaken in 100 reads");
}
