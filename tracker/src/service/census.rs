//! How the store is: status, datanodes, the replicas of a file.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::calls::FileRequest;
use dfs_protocol::datanode::{AdminState, Liveness, WriteMode};
use dfs_protocol::status::{
    ChunkDetail, ChunkHealth, ClusterStatus, DatanodeCounts, DatanodeStatus, FileChunks,
    JournalStatus, ReplicaDetail, ReplicaState, ShortageStatus, TrashStatus,
};
use dfs_protocol::{DatanodeId, Problem};

use super::admission::describe_pending;
use super::reads::no_file;
use super::{State, Tracker};
use crate::model::datanodes::Datanode;
use crate::model::health::ReplicaClass;
use crate::model::replicas::ReplicaView;
use crate::plan::{decommission, removal, repair, shortage, spread};
use crate::store::CatalogMeta;

impl Tracker {
    /// `GET /status`.
    pub async fn describe(&self) -> Result<ClusterStatus, Problem> {
        let meta = self.catalog.meta().await?;
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        let safe_mode = state
            .safe_mode
            .waits_for(&state.datanodes, &state.replicas, now);
        let hold = state.hold(now);
        let writes_refused = self.write_refusal(&state, 0, now).map(|(_, reason)| reason);
        let chunks: BTreeMap<ChunkHealth, u64> = ChunkHealth::ALL
            .map(|health| (health, state.replicas.counters().of_health(health)))
            .into();
        let rate = state.measured_copy_rate();
        let shortage = shortage::status(&state.datanodes, &state.replicas, rate, now);
        let repair = repair::status(&state.replicas, &state.tasks, rate);
        let rebalance = state.rebalance.clone();
        let factor = self.config.replication_factor;
        let badly_spread = state
            .replicas
            .counters()
            .of_health(ChunkHealth::MisReplicated);
        let spread = spread::status(&state.datanodes, factor, badly_spread, now);
        let datanodes = count_datanodes(&state, now);
        let write_modes = count_write_modes(&state, now);
        let capacity = state.capacity(now);
        drop(state);
        let CatalogMeta {
            cluster,
            sequence,
            counters,
            checkpoints,
            ..
        } = meta;
        let mut status = ClusterStatus {
            summary: String::new(),
            healthy: false,
            cluster,
            fence: self.fence(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_sub(self.started).as_secs(),
            safe_mode,
            writes_refused,
            repair_held: hold.map(|hold| hold.to_string()),
            replication_factor: self.config.replication_factor,
            files: counters.files,
            file_bytes: counters.file_bytes,
            capacity,
            datanodes,
            write_modes,
            chunks,
            shortage,
            repair,
            rebalance,
            spread,
            trash: TrashStatus {
                entries: counters.trash_entries,
                bytes: counters.trash_bytes,
            },
            journal: JournalStatus {
                sequence,
                replicated: self.catalog.confirmed_sequence(),
                datanodes: self.journal.members(),
                checkpoint: checkpoints.last().map(|checkpoint| checkpoint.sequence),
            },
        };
        (status.healthy, status.summary) = summarise(&status);
        Ok(status)
    }

    /// `GET /nodes`.
    pub fn describe_datanodes(&self) -> Vec<DatanodeStatus> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        let hold = state.hold(now);
        let view = state.removal_view(hold.as_ref());
        let leaving: BTreeMap<DatanodeId, u64> = decommission::plan(&view, now)
            .into_iter()
            .map(|progress| (progress.datanode, progress.chunks_remaining))
            .collect();
        let known = state
            .datanodes
            .iter()
            .filter(|node| node.record.admin != AdminState::Tombstoned);
        let described =
            known.map(|node| describe(&state, node, leaving.get(&node.id).copied(), now));
        described.chain(describe_pending(&state, now)).collect()
    }

    /// One datanode.
    pub(super) fn describe_datanode(&self, id: DatanodeId) -> Option<DatanodeStatus> {
        let now = self.clock.monotonic();
        let state = self.state();
        let hold = state.hold(now);
        let node = state.datanodes.get(id)?;
        let remaining = (node.record.admin == AdminState::Decommissioning).then(|| {
            removal::safe_to_remove(&state.removal_view(hold.as_ref()), id, now).chunk_count
        });
        Some(describe(&state, node, remaining, now))
    }

    /// `GET /chunks?file=`.
    ///
    /// Errors: `not-found`.
    pub async fn describe_chunks(&self, request: FileRequest) -> Result<FileChunks, Problem> {
        let FileRequest { path } = request;
        let file = self
            .catalog
            .get_file(&path)
            .await?
            .ok_or_else(|| no_file(&path))?;
        let state = self.state();
        let chunks = file
            .chunks
            .iter()
            .map(|chunk| {
                let view = state.replicas.get(chunk.id);
                ChunkDetail {
                    chunk: *chunk,
                    health: view
                        .as_ref()
                        .map_or(ChunkHealth::Missing, |view| view.health),
                    replicas: view
                        .iter()
                        .flat_map(|view| &view.replicas)
                        .map(|replica| detail(&state, replica))
                        .collect(),
                }
            })
            .collect();
        Ok(FileChunks {
            path,
            size: file.size,
            factor: file.wanted(self.config.replication_factor),
            own_factor: file.own_factor,
            chunks,
        })
    }
}

fn detail(state: &State, replica: &ReplicaView) -> ReplicaDetail {
    let at = state.datanodes.get(replica.datanode).map(Datanode::at);
    ReplicaDetail {
        datanode: replica.datanode,
        address: at.map(|at| at.address).unwrap_or_default(),
        version: replica.sealed.version,
        state: match replica.class {
            ReplicaClass::Stale => ReplicaState::Stale,
            ReplicaClass::Corrupt => ReplicaState::Corrupt,
            ReplicaClass::Valid | ReplicaClass::Promised | ReplicaClass::Newer => {
                if replica.holder.live {
                    ReplicaState::Valid
                } else {
                    ReplicaState::Unreachable
                }
            }
        },
    }
}

fn describe(
    state: &State,
    node: &Datanode,
    chunks_remaining: Option<u64>,
    now: Duration,
) -> DatanodeStatus {
    let claim = node.record.claim.as_ref();
    DatanodeStatus {
        id: node.id,
        address: node.record.address.clone(),
        zone: node.record.zone.clone(),
        host: node.record.host.clone(),
        liveness: state.datanodes.liveness(node, now),
        admin: node.record.admin,
        stats: node.stats.clone(),
        last_heartbeat: node.last_heartbeat,
        version: node.version.clone(),
        chunks_remaining,
        pod: node.pod.clone().or_else(|| Some(claim?.pod.clone())),
        volume: claim.map(|claim| claim.volume.clone()),
        refused: None,
        unreachable: node.unreachable,
        maintenance_until: node
            .maintenance
            .filter(|_| state.datanodes.in_maintenance(node, now))
            .map(|away| away.until),
        traffic: node.traffic,
    }
}

fn count_write_modes(state: &State, now: Duration) -> BTreeMap<WriteMode, u64> {
    let mut modes = BTreeMap::new();
    for node in state.datanodes.iter() {
        if state.datanodes.liveness(node, now) == Liveness::Live
            && let Some(mode) = node.traffic.and_then(|traffic| traffic.write_mode)
        {
            *modes.entry(mode).or_default() += 1;
        }
    }
    modes
}

fn count_datanodes(state: &State, now: Duration) -> DatanodeCounts {
    let mut counts = DatanodeCounts {
        pending: state.pending.len() as u64,
        ..DatanodeCounts::default()
    };
    for node in state.datanodes.iter() {
        match node.record.admin {
            // Those that wait are no part of the table.
            AdminState::Tombstoned | AdminState::Pending => continue,
            AdminState::Decommissioning => counts.decommissioning += 1,
            AdminState::InService | AdminState::Decommissioned => {}
        }
        counts.registered += 1;
        match state.datanodes.liveness(node, now) {
            Liveness::Live => counts.live += 1,
            Liveness::Suspect => counts.suspect += 1,
            Liveness::Dead => counts.dead += 1,
        }
        counts.read_only += u64::from(node.stats.read_only);
        counts.placeable += u64::from(state.datanodes.placeable(node, 0, now));
    }
    counts
}

/// Whether all is well, and the sentence that says it, worst first.
fn summarise(status: &ClusterStatus) -> (bool, String) {
    let of = |health: ChunkHealth| status.chunks.get(&health).copied().unwrap_or(0);
    let (missing, at_risk) = (of(ChunkHealth::Missing), of(ChunkHealth::AtRisk));
    let weak = of(ChunkHealth::UnderReplicated) + of(ChunkHealth::MisReplicated);
    let silent = status.datanodes.suspect + status.datanodes.dead;
    let healthy = missing + at_risk + weak == 0
        && status.safe_mode.is_none()
        && status.writes_refused.is_none()
        && status.repair_held.is_none();
    let sentence = if let Some(waits) = &status.safe_mode {
        format!("Starting: {waits}.")
    } else if missing > 0 {
        format!("{missing} chunks have no replica that can be read now.")
    } else if let Some(why) = &status.writes_refused {
        format!("Writes are refused: {why}.")
    } else if let Some(why) = &status.repair_held {
        format!("Repair is held: {why}.")
    } else if at_risk > 0 {
        format!("{at_risk} chunks have one replica left; repair copies them first.")
    } else if weak > 0 && weak == status.shortage.leaving + status.shortage.raising {
        let ShortageStatus {
            leaving, raising, ..
        } = &status.shortage;
        match (leaving, raising) {
            (leaving, 0) => format!(
                "Every file can be read; {leaving} chunks wait to be copied off leaving datanodes."
            ),
            (0, raising) => {
                format!("Every file can be read; {raising} chunks wait for a raised factor.")
            }
            (leaving, raising) => format!(
                "Every file can be read; {leaving} chunks wait to be copied off leaving datanodes, \
                 {raising} for a raised factor."
            ),
        }
    } else if weak > 0 {
        let why = if status.spread.possible {
            String::new()
        } else {
            format!(": {}", status.spread.sentence)
        };
        format!(
            "Every file can be read; {weak} chunks have fewer or worse placed replicas than \
             wanted{why}."
        )
    } else if silent > 0 {
        format!("Every chunk has its replicas; {silent} datanodes are silent.")
    } else if status.datanodes.placeable < u64::from(status.replication_factor) {
        format!(
            "{} datanodes take chunks, the replication factor is {}.",
            status.datanodes.placeable, status.replication_factor
        )
    } else {
        "Healthy: every chunk has all its replicas.".to_owned()
    };
    (healthy, sentence)
}
