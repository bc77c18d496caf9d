//! The pulse: liveness becomes chunk health, safe mode ends, journals are compared,
//! numbers are published.

use std::sync::Arc;
use std::time::Duration;

use dfs_protocol::ErrorCode;
use dfs_protocol::datanode::Liveness;
use dfs_protocol::events::EventKind;
use dfs_protocol::status::RepairPriority;

use futures_util::future::join_all;

use super::Work;
use super::publish::publish;
use crate::decode_journal_page;
use crate::model::below_factor::BelowFactor;
use crate::model::datanodes::Datanode;
use crate::model::story::{Scene, Seen, Telling};
use crate::plan::Policy;
use crate::service::{State, Tracker};

/// How long one tick waits for journals to be compared.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(1);
/// Weight of the newest measurement in the copy rate.
const RATE_WEIGHT: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Pulse {
    last: Option<(Duration, u64)>,
    below_factor: BelowFactor,
    seen: Seen,
}

impl Pulse {
    /// Looks before anybody is answered, so that nobody joins unseen.
    pub(super) fn new(tracker: &Tracker) -> Self {
        let now = tracker.clock.monotonic();
        let seen = Seen::first(&scene(&tracker.state(), now), now);
        Self {
            last: None,
            below_factor: BelowFactor::default(),
            seen,
        }
    }
}

fn scene(state: &State, now: Duration) -> Scene<'_> {
    let Policy {
        factor,
        partition_window,
        ..
    } = state.policy;
    let counters = state.replicas.counters();
    let waiting = [
        RepairPriority::LastReplica,
        RepairPriority::UnderThird,
        RepairPriority::UnderReplicated,
    ];
    Scene {
        datanodes: &state.datanodes,
        safe_mode_over: state.safe_mode.is_over(),
        partition: state.datanodes.partition(factor, partition_window, now),
        copying: u64::from(state.tasks.repair_copies()),
        waiting: waiting
            .map(|priority| counters.of_priority(priority))
            .iter()
            .sum(),
        copied: state.copied,
    }
}

impl Work for Pulse {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        let now = tracker.clock.monotonic();
        {
            let mut state = tracker.state();
            let patience = state.policy.promise_patience;
            state.sync(now);
            state.replicas.expire_promises(patience, now);
            state.leases.expire(now);
            state.pending.expire(now);
            state.note_silence(now);
            let state = &mut *state;
            if state.safe_mode.tick(&state.datanodes, &state.replicas, now) {
                tracing::info!("safe mode is over: repair and collection begin");
            }
            if state.safe_mode.is_over() {
                state.replicas.watch_shortages();
            }
            if let Some((before, copied)) = self.last {
                let seconds = now.saturating_sub(before).as_secs_f64();
                if seconds > 0.0 {
                    let rate = (state.copied_bytes - copied) as f64 / seconds;
                    state.copy_rate += (rate - state.copy_rate) * RATE_WEIGHT;
                }
            }
            self.last = Some((now, state.copied_bytes));
            // Until enough was reported, chunks seem to fall short that do not.
            let counters = state.safe_mode.is_over().then(|| state.replicas.counters());
            let chunk_seconds = self.below_factor.tick(counters, now);
            tracker.metrics.shortage.add(chunk_seconds);
            for told in self.seen.look(&scene(state, now), now) {
                tracker.tell(told);
            }
        }
        compare_journals(tracker).await;
        publish(tracker, now).await;
    }
}

/// Reads the journals that were not looked at yet, of datanodes that are heard, and lets the tracker
/// act when none of them knows more than the catalog.
async fn compare_journals(tracker: &Tracker) {
    let (from, waiting) = {
        let state = tracker.state();
        let now = tracker.clock.monotonic();
        let open = state.datanodes.serving().filter(|node| {
            !state.comparison.is_compared(node.id)
                && state.datanodes.liveness(node, now) == Liveness::Live
        });
        let waiting: Vec<_> = open.map(Datanode::at).collect();
        (state.comparison.from(), waiting)
    };
    let reads = waiting.into_iter().map(|at| async move {
        let page = tracker.datanode_client.journal_page(&at, from);
        (
            at.clone(),
            tokio::time::timeout(JOURNAL_PATIENCE, page).await,
        )
    });
    for (at, page) in join_all(reads).await {
        // Else it is asked again on the next tick, until it is taken for dead.
        let Ok(page) = page else { continue };
        let records = match page {
            Ok(page) => decode_journal_page(&page).unwrap_or_default(),
            Err(error) if error.is(ErrorCode::DataUnavailable) => {
                tracing::warn!(datanode = %at.id, %error, "a journal cannot be compared");
                Vec::new()
            }
            // It is asked again on the next tick, until it is taken for dead.
            Err(_) => continue,
        };
        if let Some(ahead) = tracker.state().comparison.judge(at.id, &records) {
            tracing::error!(%ahead, "the catalog lacks what datanodes confirmed");
            let kind = EventKind::CatalogComparisonFailed;
            tracker.tell(Telling::new(kind, ahead.to_string()).of(at.id));
        }
    }
    let mut state = tracker.state();
    let State {
        comparison,
        datanodes,
        policy,
        ..
    } = &mut *state;
    let now = tracker.clock.monotonic();
    comparison.tick(datanodes, policy.min_write(policy.factor), now);
}
