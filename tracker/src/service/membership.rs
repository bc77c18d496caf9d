//! Datanodes come, are heard, and report: register, heartbeat, chunk report.

use std::time::Duration;

use dfs_protocol::calls::SetAdminRequest;
use dfs_protocol::datanode::{
    AdminState, Admission, ChunkReport, Command, Heartbeat, HeartbeatReply, RegisterRequest,
    RegisterResponse, TaskOutcome,
};
use dfs_protocol::events::EventKind;
use dfs_protocol::repair::RepairTerms;
use dfs_protocol::status::DatanodeStatus;
use dfs_protocol::{ClusterId, DatanodeId, ErrorCode, Fence, Problem, TaskId};
use jiff::Timestamp;

use super::{State, Tracker, millis};
use crate::model::datanodes::{Heard, Maintenance, Message};
use crate::model::op::{DatanodeRecord, Op};
use crate::model::story::Telling;
use crate::plan::removal::ok_to_stop;
use crate::store::SubmitError;

/// How long a registration waits for its record to be on the journals.
const REMEMBER_PATIENCE: Duration = Duration::from_secs(1);
/// A datanode that is away longer is to be decommissioned.
const LONGEST_MAINTENANCE: Duration = Duration::from_hours(24);
/// Commands that ride back on one heartbeat.
const COMMANDS_PER_REPLY: usize = 64;

impl Tracker {
    /// Takes a datanode in, for this tracker's life.
    pub(super) fn welcome(
        &self,
        request: &RegisterRequest,
        mut record: DatanodeRecord,
    ) -> Result<(), Problem> {
        let id = request.datanode;
        let now = self.clock.monotonic();
        let mut state = self.state();
        if let Some(known) = state.datanodes.get(id) {
            // What an administrator said since the record was read stands.
            record.admin = known.record.admin;
        }
        state
            .datanodes
            .put(id, record, now)
            .map_err(|full| Problem::new(ErrorCode::TooManyRequests, full.to_string()))?;
        let message = Message {
            instance: request.instance,
            sequence: 0,
            address: request.address.clone(),
            fence: request.fence,
            stats: request.stats.clone(),
        };
        let restarted = state
            .datanodes
            .get(id)
            .is_some_and(|node| node.instance.is_some_and(|old| old != request.instance));
        if restarted {
            // It forgot its orders: the planner gives new ones.
            state.tasks.restarted(id);
        }
        state
            .datanodes
            .register(id, message, request.version.clone(), now, self.clock.wall());
        state.datanodes.set_pod(id, request.pod.clone());
        state.pending.remove(id);
        state.sync(now);
        Ok(())
    }

    /// Makes a datanode's record durable. Does not wait for long: the journals that must confirm
    /// the change may be the very datanodes that wait for this answer.
    pub(super) async fn remember(
        &self,
        id: DatanodeId,
        from: Option<AdminState>,
        record: DatanodeRecord,
    ) -> Result<(), Problem> {
        let stored = self
            .catalog
            .read(move |snapshot| snapshot.get_datanode(id))
            .await?;
        if stored.as_ref() == Some(&record) {
            return Ok(());
        }
        let change = self.catalog.submit(Op::PutDatanode { id, from, record });
        match tokio::time::timeout(REMEMBER_PATIENCE, change).await {
            // Too late or unconfirmed: in the tracker's own catalog it is, or will be, in order.
            Err(_) | Ok(Ok(_) | Err(SubmitError::Unconfirmed { .. })) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Takes a heartbeat in and gives work back.
    ///
    /// Errors: `not-found` (register first), `wrong-cluster`, `conflict` (another process has the
    /// uuid), `fenced` (a later tracker acts: this one stops).
    pub async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply, Problem> {
        self.same_cluster(Some(heartbeat.cluster))?;
        self.meet_fence(heartbeat.fence).await?;
        let Heartbeat {
            cluster: _,
            datanode: id,
            instance,
            sequence,
            address,
            fence,
            stats,
            base: _,
            added,
            removed,
            digest,
            corrupt,
            finished,
        } = heartbeat;
        let now = self.clock.monotonic();
        let message = Message {
            instance,
            sequence,
            address,
            fence,
            stats,
        };
        let mut state = self.state();
        if !self.hear(&mut state, id, message, now)? {
            return Ok(self.reply(&mut state, id, false));
        }
        // The digest decides: after a lost answer the same delta comes again, on its old base.
        let in_sync = state
            .replicas
            .apply_delta(id, &added, &removed, &digest, now);
        state.datanodes.set_picture(id, in_sync);
        if let Some(bad) = corrupt.first() {
            let (count, what) = (corrupt.len() as u64, bad.damage.as_str());
            let detail =
                format!("{count} replicas were found damaged and set aside, first: {what}");
            let told = Telling::new(EventKind::ChunkCorrupt, detail).of(id);
            self.tell(told.chunk(bad.chunk).count(count));
        }
        for bad in corrupt {
            self.metrics
                .corrupt
                .with_label_values(&[bad.damage.as_str()])
                .inc();
            let mattered = state.replicas.mark_corrupt(id, bad.chunk, bad.version);
            tracing::warn!(
                datanode = %id, chunk = %bad.chunk, damage = bad.damage.as_str(), mattered,
                "a replica was found damaged and set aside"
            );
        }
        let copied = state.copied_bytes;
        for task in finished {
            if let TaskOutcome::Failed { source, detail } = &task.outcome {
                tracing::warn!(datanode = %id, task = %task.task, ?source, detail, "a task failed");
            }
            state.finish_task(id, &task, now);
        }
        let copied = state.copied_bytes - copied;
        self.metrics.repair_copied.inc_by(copied);
        state.sync_one(id, now);
        Ok(self.reply(&mut state, id, !in_sync))
    }

    /// Takes a full chunk set in.
    ///
    /// Errors: as for [`Self::heartbeat`].
    pub fn chunk_report(&self, report: ChunkReport) -> Result<HeartbeatReply, Problem> {
        let ChunkReport {
            cluster,
            datanode: id,
            instance,
            sequence,
            replicas,
            digest,
        } = report;
        self.same_cluster(Some(cluster))?;
        let now = self.clock.monotonic();
        let mut state = self.state();
        let Some(node) = state.datanodes.get(id) else {
            return Err(register_first(id));
        };
        let message = Message {
            instance,
            sequence,
            address: node.record.address.clone(),
            fence: node.fence,
            stats: node.stats.clone(),
        };
        if !self.hear(&mut state, id, message, now)? {
            return Ok(self.reply(&mut state, id, false));
        }
        self.metrics.chunk_reports.inc();
        let in_sync = state
            .replicas
            .apply_full_report(id, &replicas, &digest, now);
        state.datanodes.set_picture(id, in_sync);
        state.sync_one(id, now);
        Ok(self.reply(&mut state, id, !in_sync))
    }

    /// Changes an admin state: decommission, recommission, remove.
    ///
    /// Errors: `not-found`; `conflict` for a removal that is not proved safe.
    pub async fn change_admin(&self, request: SetAdminRequest) -> Result<DatanodeStatus, Problem> {
        let SetAdminRequest { id, admin } = request;
        let mut record = {
            let state = self.state();
            let node = state.datanodes.get(id).ok_or_else(|| no_datanode(id))?;
            node.record.clone()
        };
        match (record.admin, admin) {
            (from, to) if from == to => {}
            (AdminState::InService, AdminState::Decommissioning)
            | (AdminState::Decommissioning | AdminState::Decommissioned, AdminState::InService) => {
            }
            (AdminState::Decommissioned, AdminState::Tombstoned) => {
                let verdict = self.may_remove(id);
                if !verdict.safe {
                    return Err(Problem::new(ErrorCode::Conflict, verdict.reason)
                        .next("wait until the datanode's chunks are safe elsewhere"));
                }
            }
            (from, to) => {
                return Err(Problem::new(
                    ErrorCode::Conflict,
                    format!("a datanode cannot go from {from:?} to {to:?}"),
                )
                .next("decommission a datanode before it is removed"));
            }
        }
        self.may_act()?;
        let from = Some(std::mem::replace(&mut record.admin, admin));
        self.catalog
            .submit(Op::PutDatanode { id, from, record })
            .await?;
        tracing::info!(datanode = %id, ?admin, "the admin state of a datanode was changed");
        self.describe_datanode(id).ok_or_else(|| no_datanode(id))
    }

    /// Announces that a datanode is away until `until`, at most a day from now; without a time that it
    /// is back, or, when it is not heard, that it is waited for no longer. Held in memory: a tracker that
    /// restarts gives it the repair delay only.
    ///
    /// When another is away and the store cannot do without both, the other's maintenance ends now, so
    /// that repair frees the way for this one.
    ///
    /// Errors: `not-found`; `invalid-parameter` for a time that has passed or is too far off.
    pub fn maintain(
        &self,
        id: DatanodeId,
        until: Option<Timestamp>,
    ) -> Result<DatanodeStatus, Problem> {
        let now = self.clock.monotonic();
        let away = until.map(|until| {
            let left = until.duration_since(self.clock.wall()).unsigned_abs();
            let ahead = until > self.clock.wall() && left <= LONGEST_MAINTENANCE;
            ahead.then_some(Maintenance {
                deadline: now + left,
                until,
            })
        });
        if away == Some(None) {
            return Err(Problem::new(
                ErrorCode::InvalidParameter,
                "`until` must be a time within the next 24 hours",
            )
            .next("write it as 2026-01-31T12:00:00Z"));
        }
        let mut state = self.state();
        let known = match away.flatten() {
            Some(away) => state.datanodes.set_maintenance(id, Some(away)),
            None => state.datanodes.end_maintenance(id, now),
        };
        if !known {
            return Err(no_datanode(id));
        }
        state.sync(now);
        if until.is_some() {
            make_way(&mut state, id, now);
        }
        state.sync(now);
        drop(state);
        tracing::info!(datanode = %id, ?until, "a datanode's maintenance was announced");
        self.describe_datanode(id).ok_or_else(|| no_datanode(id))
    }

    /// Notes that it lives; whether what else the message says is to be taken in.
    fn hear(
        &self,
        state: &mut State,
        id: DatanodeId,
        message: Message,
        now: Duration,
    ) -> Result<bool, Problem> {
        match state.datanodes.heard(id, message, now, self.clock.wall()) {
            Heard::Fresh => Ok(!is_tombstoned(state, id)),
            Heard::Late => {
                self.metrics.late_messages.inc();
                Ok(false)
            }
            Heard::Unknown => Err(register_first(id)),
            Heard::OtherInstance => Err(Problem::new(
                ErrorCode::NotFound,
                format!("datanode {id} is registered by another run of its process"),
            )
            .next("register again")),
        }
    }

    fn reply(&self, state: &mut State, id: DatanodeId, full_report: bool) -> HeartbeatReply {
        let admission = match state.datanodes.get(id).map(|node| node.record.admin) {
            Some(AdminState::Tombstoned) => Admission::Reset,
            Some(AdminState::Pending) => Admission::Pending,
            _ => Admission::Admitted,
        };
        let commands = state.commands_for(id, COMMANDS_PER_REPLY, self.clock.monotonic());
        HeartbeatReply {
            fence: self.fence(),
            admission,
            full_report,
            commands,
            journal_floor: state.journal_floor(),
        }
    }

    /// The terms of a reply's copies.
    pub fn repair_terms(&self, reply: &HeartbeatReply) -> RepairTerms {
        let state = self.state();
        let of_last_replica = |id: &TaskId| {
            let task = state.tasks.get(*id);
            task.is_some_and(|task| task.work.is_of_last_replica())
        };
        let ordered = reply.commands.iter().map(Command::task);
        RepairTerms {
            rate: state.policy.repair.rate,
            last_replicas: ordered.filter(of_last_replica).collect(),
        }
    }

    pub(super) fn registered(&self, admission: Admission) -> RegisterResponse {
        RegisterResponse {
            cluster: self.cluster,
            fence: self.fence(),
            admission,
            heartbeat_interval_ms: millis(self.config.heartbeat_interval),
            chunk_size: self.config.chunk_size,
        }
    }

    pub(super) fn same_cluster(&self, cluster: Option<ClusterId>) -> Result<(), Problem> {
        match cluster {
            Some(other) if other != self.cluster => Err(Problem::new(
                ErrorCode::WrongCluster,
                format!(
                    "the volume belongs to cluster {other}, this is {}",
                    self.cluster
                ),
            )
            .next("give the datanode an empty directory, or the address of its own tracker")),
            _ => Ok(()),
        }
    }

    /// Compares a datanode's fence with ours (design: max of stored and reported, plus one, at
    /// start; deposed later).
    pub(crate) async fn meet_fence(&self, reported: Fence) -> Result<(), Problem> {
        let ours = self.fence();
        if ours.admits(reported) && reported.epoch <= ours.epoch || reported.epoch < ours.epoch {
            return Ok(());
        }
        let begins = {
            let state = self.state();
            state.in_safe_mode() || !state.comparison.has_passed()
        };
        if begins {
            return self.raise_epoch(reported).await;
        }
        let detail = format!("a datanode obeys fence {reported}, later than ours {ours}");
        self.deposed.send_replace(Some(detail.clone()));
        Err(Problem::new(ErrorCode::Fenced, detail).next("another tracker acts: this one stops"))
    }

    async fn raise_epoch(&self, reported: Fence) -> Result<(), Problem> {
        let _one_at_a_time = self.raising.lock().await;
        if self.fence().epoch > reported.epoch {
            return Ok(());
        }
        let fence = self.new_fence(reported.epoch);
        tracing::info!(%fence, %reported, "datanodes know a later epoch: going above it");
        self.catalog.submit(Op::BeginEpoch { fence }).await?;
        Ok(())
    }
}

/// Whether it is told to begin anew: what it says of its chunks was written off, and would never be taken back again.
fn is_tombstoned(state: &State, id: DatanodeId) -> bool {
    let admin = state.datanodes.get(id).map(|node| node.record.admin);
    admin == Some(AdminState::Tombstoned)
}

/// Ends the maintenance of those that are away, if the store cannot be without them and `id` too.
fn make_way(state: &mut State, id: DatanodeId, now: Duration) {
    let mut away = state.datanodes.away(now);
    away.retain(|other| *other != id);
    if away.is_empty() {
        return;
    }
    let hold = state.hold(now);
    let mut all = away.clone();
    all.push(id);
    let verdict = ok_to_stop(&state.removal_view(hold.as_ref()), &all, now);
    if verdict.safe {
        return;
    }
    for other in away {
        state.datanodes.end_maintenance(other, now);
        tracing::info!(datanode = %other, asks = %id, reason = verdict.reason,
            "another datanode is to stop: this one is waited for no longer");
    }
}

fn register_first(id: DatanodeId) -> Problem {
    Problem::new(
        ErrorCode::NotFound,
        format!("datanode {id} is not registered"),
    )
    .next("register first")
}

pub(super) fn no_datanode(id: DatanodeId) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("there is no datanode {id}"))
        .next("list them: dfs nodes")
}
