//! Rebalance: moves become copies; what they leave behind goes as excess, by repair's own proof.

use std::sync::Arc;

use dfs_protocol::events::EventKind;
use dfs_protocol::status::RebalanceStatus;

use super::{Work, repair};
use crate::model::story::Telling;
use crate::plan::moves::EndedMoves;
use crate::plan::rebalance::{RebalanceLimited, RebalancePace, RebalancePlan, RebalanceView, plan};
use crate::plan::tasks;
use crate::service::{State, Tracker};

#[derive(Debug, Default)]
pub(super) struct Rebalance {
    pace: RebalancePace,
    /// Replicas moved since it began.
    moved: u64,
}

impl Work for Rebalance {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        let now = tracker.clock.monotonic();
        let mut rng = tracker.rng.fork();
        let mut state = tracker.state();
        state.sync(now);
        self.end(tracker, &mut state);
        let hold = state.hold(now);
        let view = RebalanceView {
            datanodes: &state.datanodes,
            replicas: &state.replicas,
            tasks: &state.tasks,
            hold: hold.as_ref(),
            factor: state.policy.factor,
        };
        let plan = plan(&view, self.pace, &state.policy.rebalance, now, &mut rng);
        let RebalancePlan {
            moves,
            pace,
            bytes_to_go,
            waits,
            limited,
        } = plan;
        for copy in moves {
            tracing::debug!(chunk = %copy.chunk.id, target = %copy.target, "a move is ordered");
            repair::start(tracker, &mut state.tasks, tasks::Work::Copy(copy), now);
        }
        state.rebalance = RebalanceStatus {
            running: pace.running,
            active: state.tasks.moves.len() as u64,
            bytes_to_go,
            moved_bytes: state.rebalance.moved_bytes,
            threshold_percent: state.policy.rebalance.threshold,
            waits_for: waits.map(|waits| waits.to_string()),
        };
        let status = state.rebalance.clone();
        drop(state);
        publish(tracker, &status, limited);
        let was = std::mem::replace(&mut self.pace, pace).running;
        self.tell(tracker, was, &status);
    }
}

impl Rebalance {
    /// Takes note of the moves that are over.
    fn end(&mut self, tracker: &Tracker, state: &mut State) {
        let now = tracker.clock.monotonic();
        let patience = state.policy.rebalance.patience;
        let EndedMoves { done, dropped } = state.tasks.moves.end(&state.replicas, patience, now);
        let bytes = done.iter().map(|one| one.bytes).sum();
        self.moved += done.len() as u64;
        state.rebalance.moved_bytes += bytes;
        let metrics = &tracker.metrics.rebalance;
        metrics.moved.inc_by(bytes);
        for (outcome, ended) in [("done", done), ("failed", dropped)] {
            let counter = metrics.moves.with_label_values(&[outcome]);
            counter.inc_by(ended.len() as u64);
        }
    }

    fn tell(&mut self, tracker: &Tracker, was: bool, status: &RebalanceStatus) {
        if status.running && !was {
            let bytes = status.bytes_to_go;
            let detail = format!("replicas move to emptier datanodes, about {bytes} bytes");
            tracker.tell(Telling::new(EventKind::RebalanceBegan, detail));
            tracing::info!(bytes, "rebalance begins");
        } else if was && !status.running {
            let moved = std::mem::take(&mut self.moved);
            let detail = match &status.waits_for {
                None => format!("{moved} replicas moved; the datanodes are as even as they can be"),
                Some(why) => format!("{moved} replicas moved; the rest waits: {why}"),
            };
            tracker.tell(Telling::new(EventKind::RebalanceEnded, detail).count(moved));
            tracing::info!(moved, "rebalance ends");
        }
    }
}

fn publish(tracker: &Tracker, status: &RebalanceStatus, limited: RebalanceLimited) {
    let metrics = &tracker.metrics.rebalance;
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.running.set(i64::from(status.running));
    metrics.active.set(whole(status.active));
    metrics.remaining.set(whole(status.bytes_to_go));
    let RebalanceLimited { moves, rate, scan } = limited;
    for (limit, hits) in [("moves", moves), ("rate", rate), ("scan", scan)] {
        metrics.limited.with_label_values(&[limit]).inc_by(hits);
    }
}
