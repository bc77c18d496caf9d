//! Who is in: registrations, and what an administrator says to them.

use std::net::IpAddr;

use dfs_protocol::admission::{AdmitRequest, LostRequest, Refusal, RefusalReason, RefuseRequest};
use dfs_protocol::datanode::{
    AdminState, Admission, DatanodeStats, Identity, Liveness, RegisterRequest, RegisterResponse,
};
use dfs_protocol::status::DatanodeStatus;
use dfs_protocol::{DatanodeId, ErrorCode, InstanceId, Problem};

use super::membership::no_datanode;
use super::{State, Tracker};
use crate::model::pending::Newcomer;
use crate::model::refusals::Refused;
use crate::plan::admission::{Decision, NotAdmissible, admit, decide};
use crate::plan::loss::nothing_only_there;

impl Tracker {
    /// Takes a datanode's announcement in, by the policy of admission.
    ///
    /// Errors: `wrong-cluster`; `conflict` when the uuid is in use by another live datanode;
    /// `refused` when an administrator said no; `too-many-requests`.
    pub async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Problem> {
        if let Err(problem) = self.same_cluster(request.cluster) {
            return Err(self.refused(&request, RefusalReason::WrongCluster, problem));
        }
        let id = request.datanode;
        match self.decide(&request) {
            Decision::Reset => {
                let detail = "the uuid was deregistered: the datanode starts anew";
                self.note(&request, RefusalReason::Tombstoned, detail);
                Ok(self.registered(Admission::Reset))
            }
            Decision::Refuse { reason } => {
                // It still waits, so that the administrator can think again.
                self.wait(request.clone())?;
                let problem = Problem::new(ErrorCode::Refused, reason)
                    .next("ask whoever runs the cluster; POST /nodes/ID/admit lets it in");
                Err(self.refused(&request, RefusalReason::Refused, problem))
            }
            Decision::Wait => {
                self.refuse_twin(&request).await?;
                self.wait(request)?;
                Ok(self.registered(Admission::Pending))
            }
            Decision::Admit(_) => {
                self.refuse_twin(&request).await?;
                self.meet_fence(request.fence).await?;
                // What an administrator said meanwhile counts.
                let Decision::Admit(record) = self.decide(&request) else {
                    return Ok(self.registered(Admission::Pending));
                };
                let is_known = self.state().datanodes.get(id).is_some();
                self.welcome(&request, *record.clone())?;
                if !is_known {
                    tracing::info!(datanode = %id, address = request.address, "a datanode joined");
                }
                self.remember(id, Some(record.admin), *record).await?;
                Ok(self.registered(Admission::Admitted))
            }
        }
    }

    fn decide(&self, request: &RegisterRequest) -> Decision {
        let (policy, wall) = (self.config.admission, self.clock.wall());
        let state = self.state();
        let known = state.datanodes.get(request.datanode);
        let waiting = state.pending.get(request.datanode);
        decide(
            policy,
            known.map(|node| &node.record),
            waiting,
            request,
            wall,
        )
    }

    /// Keeps a newcomer in mind.
    fn wait(&self, request: RegisterRequest) -> Result<(), Problem> {
        let (now, wall, id) = (self.clock.monotonic(), self.clock.wall(), request.datanode);
        let address = request.address.clone();
        let mut state = self.state();
        let is_new = state.pending.get(id).is_none();
        let heard = state.pending.hear(request, now, wall).map(drop);
        drop(state);
        if is_new && heard.is_ok() {
            tracing::info!(datanode = %id, address, "a datanode waits to be admitted");
        }
        heard.map_err(|full| Problem::new(ErrorCode::TooManyRequests, full.to_string()))
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
        let request = announced(identity, address);
        if let Err(problem) = self.same_cluster(request.cluster) {
            return Err(self.refused(&request, RefusalReason::WrongCluster, problem));
        }
        // A tracker that no datanode heartbeats to any more learns of a later one here.
        self.meet_fence(request.fence).await?;
        let id = request.datanode;
        let is_known = {
            let state = self.state();
            state.datanodes.get(id).is_some() || state.pending.get(id).is_some()
        };
        match self.decide(&request) {
            _ if is_known => {}
            Decision::Admit(record) => {
                let now = self.clock.monotonic();
                let put = self.state().datanodes.let_in(id, *record.clone(), now);
                put.map_err(|full| Problem::new(ErrorCode::TooManyRequests, full.to_string()))?;
                self.remember(id, None, *record).await?;
            }
            Decision::Wait | Decision::Refuse { .. } | Decision::Reset => self.wait(request)?,
        }
        Ok(serde_json::json!({
            "datanode": id,
            "address": address,
            "cluster": self.cluster,
            "announced": true,
            "already_known": is_known,
        }))
    }

    /// Lets a pending datanode in, or says where an admitted one is now. Durable when answered.
    ///
    /// Errors: `not-found`; `conflict` when the uuid was deregistered or is bound to another volume.
    pub async fn admit(
        &self,
        id: DatanodeId,
        request: AdmitRequest,
    ) -> Result<DatanodeStatus, Problem> {
        let now = self.clock.monotonic();
        let (decided, waiting) = {
            let mut state = self.state();
            state.pending.expire(now);
            let known = state.datanodes.get(id).map(|node| &node.record);
            let waiting = state.pending.get(id);
            let decided = admit(known, waiting, &request, self.clock.wall());
            (decided, waiting.cloned())
        };
        let record = match decided {
            Ok(record) => record,
            Err(error) => return Err(self.not_admitted(id, waiting.as_ref(), &error)),
        };
        self.remember(id, None, record.clone()).await?;
        let mut state = self.state();
        state
            .datanodes
            .let_in(id, record, now)
            .map_err(|full| Problem::new(ErrorCode::TooManyRequests, full.to_string()))?;
        state.pending.remove(id);
        state.sync(now);
        drop(state);
        let AdmitRequest {
            pod,
            volume,
            host,
            zone,
        } = request;
        tracing::info!(datanode = %id, pod, volume, host, ?zone, "a datanode was admitted");
        self.describe_datanode(id).ok_or_else(|| no_datanode(id))
    }

    fn not_admitted(
        &self,
        id: DatanodeId,
        waiting: Option<&Newcomer>,
        error: &NotAdmissible,
    ) -> Problem {
        let text = error.to_string();
        match error {
            NotAdmissible::Unknown => no_datanode(id),
            NotAdmissible::Tombstoned => Problem::new(ErrorCode::Conflict, text)
                .next("admit it under the uuid that it takes: list them at /nodes"),
            NotAdmissible::OtherVolume { .. } => {
                if let Some(newcomer) = waiting {
                    self.state().pending.refuse(id, text.clone());
                    self.note(&newcomer.announced, RefusalReason::UuidInUse, &text);
                }
                Problem::new(ErrorCode::Conflict, text)
                    .next("empty the copy's volume: it then takes a uuid of its own")
            }
        }
    }

    /// Says no to a pending datanode; it hears the reason.
    ///
    /// Errors: `not-found`; `conflict` for one that is in.
    pub fn refuse(
        &self,
        id: DatanodeId,
        request: RefuseRequest,
    ) -> Result<DatanodeStatus, Problem> {
        let RefuseRequest { reason } = request;
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.pending.expire(now);
        if state.pending.refuse(id, reason.clone()) {
            tracing::warn!(datanode = %id, reason, "a datanode was refused");
            let newcomer = state.pending.get(id);
            return newcomer
                .map(|newcomer| described(&state, newcomer, now))
                .ok_or_else(|| no_datanode(id));
        }
        if state.datanodes.get(id).is_some() {
            let detail = format!("datanode {id} is in already");
            return Err(Problem::new(ErrorCode::Conflict, detail)
                .next("decommission it to take it out of service"));
        }
        Err(no_datanode(id))
    }

    /// Takes a dead datanode whose volume is gone for ever out, though it was not emptied. What it held
    /// is repaired at once.
    ///
    /// Errors: `not-found`; `conflict` when it is not dead, or has the only replica of chunks and
    /// that is not accepted; `safe-mode` while the tracker does not know yet.
    pub async fn lose(
        &self,
        id: DatanodeId,
        request: LostRequest,
    ) -> Result<DatanodeStatus, Problem> {
        let record = self.losable(id, request.accept_loss)?;
        self.may_act()?;
        self.remember(id, None, record).await?;
        tracing::warn!(
            datanode = %id, accept_loss = request.accept_loss,
            "an administrator says that a datanode's volume is lost: it is taken out"
        );
        self.describe_datanode(id).ok_or_else(|| no_datanode(id))
    }

    /// The record of a datanode that is lost, if it may be.
    fn losable(
        &self,
        id: DatanodeId,
        accept_loss: bool,
    ) -> Result<crate::model::op::DatanodeRecord, Problem> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        let waits = state
            .safe_mode
            .waits_for(&state.datanodes, &state.replicas, now);
        let node = state.datanodes.get(id).ok_or_else(|| no_datanode(id))?;
        let conflict =
            |detail: String, next: &str| Err(Problem::new(ErrorCode::Conflict, detail).next(next));
        if node.record.admin == AdminState::Tombstoned {
            return conflict(
                format!("datanode {id} is deregistered already"),
                "nothing is left to do",
            );
        }
        if state.datanodes.liveness(node, now) != Liveness::Dead {
            return conflict(
                format!("datanode {id} was heard lately"),
                "decommission it; only a dead datanode can be lost",
            );
        }
        if let Some(waits) = waits {
            return Err(Problem::new(ErrorCode::SafeMode, waits)
                .next("wait until the tracker knows what the others hold"));
        }
        let verdict = nothing_only_there(&state.replicas, id);
        if !verdict.safe && !accept_loss {
            let named = verdict.chunks.iter().take(3).map(ToString::to_string);
            let named: Vec<_> = named.collect();
            return conflict(
                format!(
                    "{} ({}{})",
                    verdict.reason,
                    named.join(", "),
                    if verdict.chunk_count > 3 { ", ..." } else { "" }
                ),
                "bring it back, or say {\"accept_loss\": true}: those files are lost then",
            );
        }
        let mut record = node.record.clone();
        record.admin = AdminState::Tombstoned;
        Ok(record)
    }

    /// `GET /refusals`.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.state().refusals.list()
    }

    /// Somebody without the token tried to register or to speak as a datanode.
    pub fn note_wrong_token(&self, peer: Option<IpAddr>, problem: &Problem) {
        let address = peer.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
        self.note_refused(Refused {
            datanode: None,
            address,
            pod: None,
            reason: RefusalReason::WrongToken,
            detail: problem.detail.clone(),
        });
    }

    /// Notes why a registration is refused, and gives the problem back.
    fn refused(
        &self,
        request: &RegisterRequest,
        reason: RefusalReason,
        problem: Problem,
    ) -> Problem {
        self.note(request, reason, &problem.detail);
        problem
    }

    fn note(&self, request: &RegisterRequest, reason: RefusalReason, detail: &str) {
        self.note_refused(Refused {
            datanode: Some(request.datanode),
            address: request.address.clone(),
            pod: request.pod.clone(),
            reason,
            detail: detail.to_owned(),
        });
    }

    fn note_refused(&self, refused: Refused) {
        let label = refused.reason.as_str();
        self.metrics
            .registrations_refused
            .with_label_values(&[label])
            .inc();
        let wall = self.clock.wall();
        self.state().refusals.note(refused, wall);
    }

    /// Two processes with one uuid (a copied volume) must not both be in: the one that is heard
    /// stays, unless it is gone for three heartbeats or is the same process at a new address.
    async fn refuse_twin(&self, request: &RegisterRequest) -> Result<(), Problem> {
        let Some((address, instance)) = self.rival(request) else {
            return Ok(());
        };
        match self.datanode_client.identity(&address).await {
            Ok(identity)
                if identity.datanode == request.datanode && identity.instance == instance =>
            {
                let detail = format!("datanode {} is alive at {address}", request.datanode);
                let problem = Problem::new(ErrorCode::Conflict, detail)
                    .next("a volume must not be copied: give this datanode an empty directory");
                Err(self.refused(request, RefusalReason::UuidInUse, problem))
            }
            _ => Ok(()),
        }
    }

    /// Another process of that uuid that is heard, in service or waiting.
    fn rival(&self, request: &RegisterRequest) -> Option<(String, InstanceId)> {
        let (state, now) = (self.state(), self.clock.monotonic());
        let is_other = |address: &str, instance: InstanceId| {
            instance != request.instance && address != request.address
        };
        let known = state.datanodes.get(request.datanode).and_then(|node| {
            let instance = node.instance?;
            let is_live = state.datanodes.liveness(node, now) == Liveness::Live;
            (is_live && is_other(&node.record.address, instance))
                .then(|| (node.record.address.clone(), instance))
        });
        let waiting = || {
            let newcomer = state.pending.get(request.datanode)?;
            let announced = &newcomer.announced;
            let silent = now.saturating_sub(newcomer.last_heard);
            let is_live = state.datanodes.policy().judge(silent) == Liveness::Live;
            (is_live && is_other(&announced.address, announced.instance))
                .then(|| (announced.address.clone(), announced.instance))
        };
        known.or_else(waiting)
    }
}

/// What a call-back tells, as an announcement.
fn announced(identity: Identity, address: &str) -> RegisterRequest {
    let Identity {
        cluster,
        datanode,
        instance,
        fence,
        tracker: _,
        version,
    } = identity;
    RegisterRequest {
        cluster,
        datanode,
        instance,
        address: address.to_owned(),
        zone: None,
        host: None,
        pod: None,
        fence,
        stats: DatanodeStats::default(),
        version,
    }
}

/// Everyone who waits, as `GET /nodes` shows them.
pub(super) fn describe_pending(
    state: &State,
    now: std::time::Duration,
) -> impl Iterator<Item = DatanodeStatus> + '_ {
    let waiting = state.pending.iter();
    let heard = waiting.filter(move |(_, newcomer)| newcomer.is_remembered(now));
    heard.map(move |(_, newcomer)| described(state, newcomer, now))
}

fn described(state: &State, newcomer: &Newcomer, now: std::time::Duration) -> DatanodeStatus {
    let Newcomer {
        announced,
        last_heard,
        last_heartbeat,
        refused,
    } = newcomer.clone();
    let policy = state.datanodes.policy();
    DatanodeStatus {
        id: announced.datanode,
        address: announced.address,
        zone: announced.zone,
        host: announced.host,
        liveness: policy.judge(now.saturating_sub(last_heard)),
        admin: AdminState::Pending,
        stats: announced.stats,
        last_heartbeat: Some(last_heartbeat),
        version: announced.version,
        chunks_remaining: None,
        pod: announced.pod,
        volume: None,
        refused,
        unreachable: false,
        maintenance_until: None,
        traffic: None,
    }
}
