//! Collection: the trash is emptied, orphans are condemned, replicas of condemned chunks deleted.

use std::sync::Arc;

use dfs_protocol::{ChunkId, TrashId};

use super::{Work, repair};
use crate::model::op::{Op, OpOutcome};
use crate::plan::gc::{GcCursors, GcPlan, GcView, plan};
use crate::plan::tasks;
use crate::plan::trash;
use crate::service::Tracker;
use crate::store::{StoreError, SubmitError};

#[derive(Debug, Default)]
pub(super) struct Collect {
    cursors: GcCursors,
}

impl Work for Collect {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        if let Err(error) = learn(tracker).await {
            tracing::warn!(%error, "cannot read what was condemned or deleted");
            return;
        }
        if let Err(error) = empty_trash(tracker).await {
            tracing::warn!(%error, "cannot empty the trash");
        }
        let plan = self.plan(tracker);
        if let Err(error) = carry_out(tracker, plan).await {
            tracing::warn!(%error, "cannot collect");
        }
    }
}

impl Collect {
    fn plan(&mut self, tracker: &Tracker) -> GcPlan {
        let now = tracker.clock.monotonic();
        let mut state = tracker.state();
        state.sync(now);
        let hold = state.hold(now);
        let view = GcView {
            datanodes: &state.datanodes,
            replicas: &state.replicas,
            leases: &state.leases,
            tasks: &state.tasks,
            condemned: &state.condemned,
            checkpoints: &state.checkpoints,
            checkpoints_enabled: true,
            hold: hold.as_ref(),
        };
        let plan = plan(&view, &self.cursors, &state.policy.gc, now);
        self.cursors = plan.cursors;
        plan
    }
}

async fn carry_out(tracker: &Tracker, plan: GcPlan) -> Result<(), SubmitError> {
    let GcPlan {
        condemn,
        deletes,
        forget,
        cursors: _,
        limited,
    } = plan;
    tracker.metrics.limits.gc.inc_by(u64::from(limited));
    let now = tracker.clock.monotonic();
    {
        let mut state = tracker.state();
        for delete in deletes {
            tracker
                .metrics
                .deletes
                .with_label_values(&[delete.reason.as_str()])
                .inc();
            if !repair::start(tracker, &mut state.tasks, tasks::Work::Delete(delete), now) {
                break;
            }
        }
    }
    if !condemn.is_empty() {
        let op = Op::Condemn {
            chunks: condemn,
            now: tracker.clock.wall(),
        };
        if let OpOutcome::Condemned { chunks, .. } = tracker.catalog.submit(op).await? {
            tracing::info!(
                chunks = chunks.len(),
                "chunks that nothing names are condemned"
            );
            tracker.metrics.condemned.inc_by(chunks.len() as u64);
        }
    }
    if !forget.is_empty() {
        let op = Op::Forget { chunks: forget };
        tracker.catalog.submit(op).await?;
    }
    Ok(())
}

async fn empty_trash(tracker: &Tracker) -> Result<(), SubmitError> {
    let now = tracker.clock.monotonic();
    let (ids, early) = {
        let state = tracker.state();
        let usage = state.usage(now);
        let plan = trash::plan(&state.trash, usage, &state.policy.trash, now);
        let early = !plan.early.is_empty();
        let ids: Vec<TrashId> = plan.expired.into_iter().chain(plan.early).collect();
        (ids, early)
    };
    if ids.is_empty() {
        return Ok(());
    }
    let op = Op::Purge {
        ids,
        now: tracker.clock.wall(),
    };
    if let OpOutcome::Condemned { chunks, purged, .. } = tracker.catalog.submit(op).await? {
        tracing::info!(
            versions = purged,
            chunks = chunks.len(),
            early,
            "the trash was emptied"
        );
        tracker.metrics.purged.inc_by(purged);
        if early {
            tracker.state().trash.purged_early(now);
        }
    }
    Ok(())
}

/// Reads the records of what changes condemned or put into the trash since the last tick.
async fn learn(tracker: &Tracker) -> Result<(), StoreError> {
    let (condemned, trashed) = {
        let mut state = tracker.state();
        let condemned: Vec<ChunkId> = std::mem::take(&mut state.condemned_lately);
        let trashed: Vec<TrashId> = std::mem::take(&mut state.trashed_lately);
        (condemned, trashed)
    };
    if condemned.is_empty() && trashed.is_empty() {
        return Ok(());
    }
    let read = tracker.catalog.read(move |snapshot| {
        let mut records = Vec::with_capacity(condemned.len());
        for id in condemned {
            records.extend(snapshot.get_condemned(id)?.map(|record| (id, record)));
        }
        let mut entries = Vec::with_capacity(trashed.len());
        for id in trashed {
            entries.extend(snapshot.get_trash(id)?);
        }
        Ok((records, entries))
    });
    let (records, entries) = read.await?;
    let now = tracker.clock.monotonic();
    let mut state = tracker.state();
    for (id, record) in records {
        state.condemned.insert(id, &record, now);
    }
    for entry in entries {
        let bytes =
            entry.file.size * u64::from(entry.file.wanted(tracker.config.replication_factor));
        state.trash.insert(entry.id, bytes, now);
    }
    Ok(())
}
