//! Repair and decommission: plans become tasks, tasks ride back on heartbeats.

use std::sync::Arc;
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::status::RepairPriority;

use super::Work;
use crate::model::op::Op;
use crate::plan::repair::{RepairCursors, RepairView, plan};
use crate::plan::{decommission, tasks};
use crate::service::{State, Tracker};

#[derive(Debug, Default)]
pub(super) struct Repair {
    cursors: RepairCursors,
}

impl Work for Repair {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        let emptied = self.order(tracker);
        for id in emptied {
            if let Err(error) = decommissioned(tracker, id).await {
                tracing::warn!(datanode = %id, %error, "cannot record a decommissioned datanode");
            }
        }
    }
}

impl Repair {
    /// Starts what the planner wants; returns datanodes that are proved empty.
    fn order(&mut self, tracker: &Tracker) -> Vec<DatanodeId> {
        let now = tracker.clock.monotonic();
        let mut rng = tracker.rng.fork();
        let mut state = tracker.state();
        state.sync(now);
        state.note_silence(now);
        let limits = state.policy.repair;
        let expired = state.tasks.expire(&limits, now).len() + give_up_on_the_dead(&mut state, now);
        tracker.metrics.tasks_expired.inc_by(expired as u64);
        let hold = state.hold(now);
        if hold.is_some() {
            let withdrawn = state.tasks.withdraw_untold();
            if !withdrawn.is_empty() {
                tracing::info!(orders = withdrawn.len(), "held: orders were taken back");
            }
        }
        let view = RepairView {
            datanodes: &state.datanodes,
            replicas: &state.replicas,
            tasks: &state.tasks,
            hold: hold.as_ref(),
        };
        let plan = plan(&view, &self.cursors, &state.policy.repair, now, &mut rng);
        self.cursors = plan.cursors;
        tracker.metrics.limits.repair(plan.limited);
        for copy in &plan.copies {
            let label = copy.priority().map_or("move", RepairPriority::as_str);
            tracker
                .metrics
                .repair_ordered
                .with_label_values(&[label])
                .inc();
            tracing::debug!(
                chunk = %copy.chunk.id, target = %copy.target, priority = label, "a copy is ordered"
            );
        }
        for delete in &plan.deletes {
            tracker
                .metrics
                .deletes
                .with_label_values(&[delete.reason.as_str()])
                .inc();
            tracing::debug!(
                chunk = %delete.chunk, datanode = %delete.datanode,
                reason = delete.reason.as_str(), "a replica's deletion is ordered"
            );
        }
        for work in plan.into_work() {
            start(tracker, &mut state.tasks, work, now);
        }
        decommission::plan(&state.removal_view(hold.as_ref()), now)
            .into_iter()
            .filter(decommission::DecommissionProgress::done)
            .map(|progress| progress.datanode)
            .collect()
    }
}

/// What dead datanodes were to do is planned anew; says how many orders that is.
fn give_up_on_the_dead(state: &mut State, now: Duration) -> usize {
    let dead: Vec<DatanodeId> = state
        .datanodes
        .iter()
        .filter(|node| state.datanodes.liveness(node, now) == Liveness::Dead)
        .map(|node| node.id)
        .collect();
    dead.into_iter()
        .map(|id| state.tasks.fell_silent(id).len())
        .sum()
}

/// Gives an order; false when too many are under way.
pub(super) fn start(
    tracker: &Tracker,
    tasks: &mut tasks::TaskTable,
    work: tasks::Work,
    now: Duration,
) -> bool {
    let started = tasks.start(work, now).is_some();
    if !started {
        tracker.metrics.limits.orders.inc();
        tracing::warn!("too many orders are under way: the rest waits");
    }
    started
}

async fn decommissioned(
    tracker: &Tracker,
    id: DatanodeId,
) -> Result<(), crate::store::SubmitError> {
    let record = tracker
        .state()
        .datanodes
        .get(id)
        .map(|node| node.record.clone());
    let Some(mut record) = record else {
        return Ok(());
    };
    if record.admin != AdminState::Decommissioning {
        return Ok(());
    }
    record.admin = AdminState::Decommissioned;
    tracker
        .catalog
        .submit(Op::PutDatanode {
            id,
            from: Some(AdminState::Decommissioning),
            record,
        })
        .await?;
    tracing::info!(datanode = %id, "decommissioned: every chunk has its full factor elsewhere");
    Ok(())
}
