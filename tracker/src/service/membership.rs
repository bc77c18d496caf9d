//! Datanodes come, are heard, and report: register, heartbeat, chunk report.

use std::time::Duration;

use dfs_protocol::calls::SetAdminRequest;
use dfs_protocol::datanode::{
    AdminState, Admission, ChunkReport, Heartbeat, HeartbeatReply, RegisterRequest,
    RegisterResponse, TaskOutcome,
};
use dfs_protocol::status::DatanodeStatus;
use dfs_protocol::{ClusterId, DatanodeId, ErrorCode, Fence, Problem};

use super::{State, Tracker, millis};
use crate::model::datanodes::{Heard, Message};
use crate::model::op::{DatanodeRecord, Op};
use crate::store::SubmitError;

/// How long a registration waits for its record to be on the journals.
const REMEMBER_PATIENCE: Duration = Duration::from_secs(1);
/// Commands that ride back on one heartbeat.
const COMMANDS_PER_REPLY: usize = 64;

impl Tracker {
    /// Takes a datanode's announcement in. On one machine whoever reaches this port is in.
    ///
    /// Errors: `wrong-cluster`; `conflict` when the uuid is in use by another live datanode.
    pub async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Problem> {
        self.same_cluster(request.cluster)?;
        let id = request.datanode;
        let known = self
            .state()
            .datanodes
            .get(id)
            .map(|node| node.record.clone());
        if known
            .as_ref()
            .is_some_and(|record| record.admin == AdminState::Tombstoned)
        {
            return Ok(self.registered(Admission::Reset));
        }
        self.refuse_twin(&request).await?;
        self.meet_fence(request.fence).await?;
        let record = DatanodeRecord {
            admin: known
                .as_ref()
                .map_or(AdminState::InService, |record| record.admin),
            zone: request.zone.clone(),
            host: request.host.clone(),
            address: request.address.clone(),
            registered: known
                .as_ref()
                .map_or_else(|| self.clock.wall(), |old| old.registered),
        };
        self.welcome(&request, record.clone())?;
        if known.is_none() {
            tracing::info!(datanode = %id, address = request.address, "a datanode joined");
        }
        self.remember(id, record).await?;
        Ok(self.registered(Admission::Admitted))
    }

    /// Takes a datanode in, for this tracker's life.
    fn welcome(&self, request: &RegisterRequest, record: DatanodeRecord) -> Result<(), Problem> {
        let id = request.datanode;
        let now = self.clock.monotonic();
        let mut state = self.state();
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
        state.sync(now);
        Ok(())
    }

    /// Makes a datanode's record durable. Does not wait for long: the journals that must confirm
    /// the change may be the very datanodes that wait for this answer.
    async fn remember(&self, id: DatanodeId, record: DatanodeRecord) -> Result<(), Problem> {
        let stored = self
            .catalog
            .read(move |snapshot| snapshot.get_datanode(id))
            .await?;
        if stored.as_ref() == Some(&record) {
            return Ok(());
        }
        let change = self.catalog.submit(Op::PutDatanode { id, record });
        match tokio::time::timeout(REMEMBER_PATIENCE, change).await {
            // Too late or unconfirmed: in the tracker's own catalog it is, or will be, in order.
            Err(_) | Ok(Ok(_) | Err(SubmitError::Unconfirmed { .. })) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Calls back whoever listens at `address` and takes what it says of itself as announced; its
    /// own registration, which says more, follows.
    ///
    /// Errors: `unavailable` when nobody answers; `fenced` when it obeys a later tracker: this one
    /// stops; as for [`Self::register`].
    pub async fn register_by_address(&self, address: &str) -> Result<serde_json::Value, Problem> {
        let identity = self
            .datanode_client
            .identity(address)
            .await
            .map_err(|error| {
                Problem::new(
                    ErrorCode::Unavailable,
                    format!("no datanode answers: {error}"),
                )
                .next("start it first: dfs datanode --port PORT --tracker URL")
            })?;
        self.same_cluster(identity.cluster)?;
        // A tracker that no datanode heartbeats to any more learns of a later one here.
        self.meet_fence(identity.fence).await?;
        let known = self.state().datanodes.get(identity.datanode).is_some();
        if !known {
            let record = DatanodeRecord {
                admin: AdminState::InService,
                zone: None,
                host: None,
                address: address.to_owned(),
                registered: self.clock.wall(),
            };
            let (id, now) = (identity.datanode, self.clock.monotonic());
            let put = self.state().datanodes.put(id, record.clone(), now);
            put.map_err(|full| Problem::new(ErrorCode::TooManyRequests, full.to_string()))?;
            self.remember(id, record).await?;
        }
        Ok(serde_json::json!({
            "datanode": identity.datanode,
            "address": address,
            "cluster": self.cluster,
            "announced": true,
            "already_known": known,
        }))
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
        for task in finished {
            if let TaskOutcome::Failed { source, detail } = &task.outcome {
                tracing::warn!(datanode = %id, task = %task.task, ?source, detail, "a task failed");
            }
            state.finish_task(id, &task, now);
        }
        state.sync(now);
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
        state.sync(now);
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
        record.admin = admin;
        self.catalog
            .submit(Op::PutDatanode {
                id,
                record: record.clone(),
            })
            .await?;
        tracing::info!(datanode = %id, ?admin, "the admin state of a datanode was changed");
        let now = self.clock.monotonic();
        let mut state = self.state();
        // The limit on datanodes cannot be met by one that is there already.
        let _known = state.datanodes.put(id, record, now);
        if admin == AdminState::Tombstoned {
            // It resets itself, so that nothing ordered or doubtful is left.
            let _given_up = state.tasks.restarted(id);
            state.replicas.clear_datanode(id);
        }
        state.sync(now);
        drop(state);
        self.describe_datanode(id).ok_or_else(|| no_datanode(id))
    }

    fn hear(
        &self,
        state: &mut State,
        id: DatanodeId,
        message: Message,
        now: Duration,
    ) -> Result<bool, Problem> {
        match state.datanodes.heard(id, message, now, self.clock.wall()) {
            Heard::Fresh => Ok(true),
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

    fn registered(&self, admission: Admission) -> RegisterResponse {
        RegisterResponse {
            cluster: self.cluster,
            fence: self.fence(),
            admission,
            heartbeat_interval_ms: millis(self.config.heartbeat_interval),
            chunk_size: self.config.chunk_size,
        }
    }

    fn same_cluster(&self, cluster: Option<ClusterId>) -> Result<(), Problem> {
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

    /// Two processes with one uuid (a copied volume) must not both be in: the one that is heard
    /// stays, unless it is gone for three heartbeats or is the same process at a new address.
    async fn refuse_twin(&self, request: &RegisterRequest) -> Result<(), Problem> {
        let rival = {
            let state = self.state();
            let now = self.clock.monotonic();
            let node = state.datanodes.get(request.datanode);
            node.filter(|node| {
                node.instance
                    .is_some_and(|instance| instance != request.instance)
                    && node.record.address != request.address
                    && state.datanodes.liveness(node, now) == dfs_protocol::datanode::Liveness::Live
            })
            .map(|node| (node.record.address.clone(), node.instance))
        };
        let Some((address, instance)) = rival else {
            return Ok(());
        };
        match self.datanode_client.identity(&address).await {
            Ok(identity)
                if identity.datanode == request.datanode && Some(identity.instance) == instance =>
            {
                Err(Problem::new(
                    ErrorCode::Conflict,
                    format!("datanode {} is alive at {address}", request.datanode),
                )
                .next("a volume must not be copied: give this datanode an empty directory"))
            }
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
        self.set_fence(fence);
        Ok(())
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
