//! Loops carry plans out. Each wakes on a tick, asks a pure planner what to do, does it and records
//! it; none decides anything itself.

mod checkpoint;
mod collect;
mod journal;
mod publish;
mod pulse;
mod rebalance;
mod repair;
mod successor;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dfs_runtime::shutdown::Shutdown;
use tokio::task::JoinSet;

use crate::service::Tracker;

/// Starts every loop; they end with the shutdown.
pub(crate) fn start(tracker: &Arc<Tracker>, shutdown: &Shutdown) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    let tick = tracker.config.tick;
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        pulse::Pulse::new(tracker),
    ));
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        journal::JournalTail::default(),
    ));
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        repair::Repair::default(),
    ));
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        rebalance::Rebalance::default(),
    ));
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        collect::Collect::default(),
    ));
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        checkpoint::Checkpoints::default(),
    ));
    loops.spawn(every(
        tick,
        shutdown.clone(),
        tracker.clone(),
        successor::Successor::default(),
    ));
    let (ending, end) = (tracker.clone(), shutdown.clone());
    loops.spawn(async move {
        end.triggered().await;
        ending.events.close();
        ending.journal.close();
    });
    loops
}

/// One loop's work on one tick.
trait Work: Send + 'static {
    /// Does what is due. Failures are logged and met again on the next tick.
    fn tick(&mut self, tracker: &Arc<Tracker>) -> impl Future<Output = ()> + Send;
}

async fn every<W: Work>(period: Duration, shutdown: Shutdown, tracker: Arc<Tracker>, mut work: W) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            _ = ticks.tick() => work.tick(&tracker).await,
        }
    }
}
