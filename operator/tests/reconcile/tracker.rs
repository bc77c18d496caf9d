//! A tracker in memory: what it answers, and what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dfs_operator::tracker_client::{
    Admission, Catalog, CatalogState, DatanodeEntry, Endpoint, Refusal, Tracker, TrackerError,
    TrackerStatus, Verdict, VolumeStats,
};
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::{ClusterId, DatanodeId};
use serde_json::json;

use crate::gate::Gate;

/// What it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Admit(DatanodeId, Admission),
    Refuse(DatanodeId, String),
    Lost(DatanodeId),
    Rebuild(Vec<String>),
    Decommission(DatanodeId),
    Recommission(DatanodeId),
    Deregister(DatanodeId),
    Maintain(DatanodeId),
    EndMaintenance(DatanodeId),
}

/// Replicas that each chunk is to have.
const FACTOR: usize = 3;
/// Whose replicas can be read.
const READABLE: [AdminState; 3] = [
    AdminState::InService,
    AdminState::Decommissioning,
    AdminState::Decommissioned,
];
/// Chunks that are copied off leaving datanodes between two looks.
const COPIED_AT_ONCE: usize = 2;

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a trouble of its own that a test switches"
)]
pub struct State {
    /// Whether its pod runs.
    pub runs: bool,
    /// Whether it answers although it runs.
    pub mute: bool,
    pub cluster: ClusterId,
    pub catalog: CatalogState,
    pub nodes: BTreeMap<DatanodeId, DatanodeEntry>,
    pub refusals: Vec<Refusal>,
    /// Chunks with too few replicas.
    pub under_replicated: u64,
    pub used_bytes: u64,
    /// Whether everything that a dead datanode held is whole elsewhere.
    pub safe: bool,
    pub told: Vec<Told>,
    /// Each chunk's replicas.
    pub chunks: BTreeMap<u32, BTreeSet<DatanodeId>>,
    /// Datanodes that were announced as away and were not heard since.
    pub away: BTreeSet<DatanodeId>,
    /// No copy comes nearer.
    pub stuck: bool,
    /// Messages heard so far.
    pub heartbeats: u64,
    /// Whose loss a human acknowledged.
    pub given_up: Option<DatanodeId>,
    /// What was asked of every datanode's volume.
    pub volume: VolumeStats,
}

impl State {
    fn serves(&self, id: DatanodeId, admins: &[AdminState]) -> bool {
        let node = self.nodes.get(&id);
        node.is_some_and(|node| node.liveness == Liveness::Live && admins.contains(&node.admin))
    }

    /// Chunks without their full factor when this datanode is gone.
    pub fn needing(&self, without: DatanodeId) -> Vec<u32> {
        let whole = |replicas: &BTreeSet<DatanodeId>| {
            let others = replicas.iter().filter(|id| **id != without);
            others
                .filter(|id| self.serves(**id, &[AdminState::InService]))
                .count()
                >= FACTOR
        };
        let held = self
            .chunks
            .iter()
            .filter(|(_, held)| held.contains(&without));
        held.filter(|(_, replicas)| !whole(replicas))
            .map(|(chunk, _)| *chunk)
            .collect()
    }

    /// Chunks with fewer readable replicas than wanted; one that will be back in a moment counts.
    pub fn below_factor(&self) -> u64 {
        let count = |replicas: &BTreeSet<DatanodeId>| {
            replicas
                .iter()
                .filter(|id| self.serves(**id, &READABLE) || self.away.contains(id))
                .count()
        };
        let below = self.chunks.values().filter(|held| count(held) < FACTOR);
        below.count() as u64 + self.under_replicated
    }

    /// Whether every chunk keeps two readable replicas (one less than its factor) without these, and without one more.
    pub fn ok_to_stop(&self, ids: &[DatanodeId], one_more: bool) -> Verdict {
        let left = |replicas: &BTreeSet<DatanodeId>| {
            let others = replicas.iter().filter(|id| !ids.contains(id));
            others.filter(|id| self.serves(**id, &READABLE)).count()
        };
        let floor = FACTOR - 1 + usize::from(one_more);
        let short = self.chunks.iter();
        let short: Vec<_> = short
            .filter(|(_, replicas)| left(replicas) < floor)
            .map(|(chunk, _)| format!("chunk-{chunk}"))
            .collect();
        Verdict {
            safe: self.safe && short.is_empty(),
            reason: format!("{} chunks would have too few live replicas", short.len()),
            chunks: short,
        }
    }

    /// What its loops do: copy, and call the emptied decommissioned.
    pub fn work(&mut self) {
        let leaving: Vec<_> = self
            .nodes
            .values()
            .filter(|node| {
                matches!(
                    node.admin,
                    AdminState::Decommissioning | AdminState::Decommissioned
                )
            })
            .map(|node| node.id)
            .collect();
        for id in leaving {
            let needing = self.needing(id);
            let copied = if self.stuck { 0 } else { COPIED_AT_ONCE };
            for chunk in needing.iter().take(copied) {
                let held = &self.chunks[chunk];
                let mut targets = self.nodes.keys().copied();
                let target = targets
                    .find(|to| !held.contains(to) && self.serves(*to, &[AdminState::InService]));
                if let Some(target) = target {
                    self.chunks.get_mut(chunk).unwrap().insert(target);
                }
            }
            let left = self.needing(id).len() as u64;
            let safe = self.safe && left == 0;
            let node = self.nodes.get_mut(&id).unwrap();
            if node.admin == AdminState::Decommissioned {
                continue;
            }
            node.chunks_remaining = Some(left);
            if safe {
                node.admin = AdminState::Decommissioned;
                node.chunks_remaining = None;
            }
        }
    }
}

/// The tracker. Clones share it.
#[derive(Debug, Clone)]
pub struct FakeTracker {
    pub state: Arc<Mutex<State>>,
    gate: Gate,
}

impl FakeTracker {
    pub fn new(gate: Gate) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                runs: false,
                mute: false,
                cluster: ClusterId::from_u128(0xc1),
                catalog: CatalogState::Open,
                nodes: BTreeMap::new(),
                refusals: Vec::new(),
                under_replicated: 0,
                used_bytes: 0,
                safe: true,
                told: Vec::new(),
                chunks: BTreeMap::new(),
                away: BTreeSet::new(),
                stuck: false,
                heartbeats: 0,
                given_up: None,
                volume: VolumeStats {
                    capacity_bytes: 10 << 30,
                    used_bytes: 1 << 30,
                    free_bytes: 9 << 30,
                    read_only: false,
                },
            })),
            gate,
        }
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn take_told(&self) -> Vec<Told> {
        self.with(|state| std::mem::take(&mut state.told))
    }

    /// A datanode speaks: it is heard, or announces itself.
    pub fn heard(&self, id: DatanodeId, pod: &str, address: &str) {
        self.with(|state| {
            if state.catalog != CatalogState::Open {
                return;
            }
            state.heartbeats += 1;
            state.away.remove(&id);
            let (heard, volume) = (state.heartbeats.to_string(), state.volume);
            let entry = state.nodes.entry(id).or_insert_with(|| pending(id));
            if entry.admin == AdminState::Tombstoned {
                return;
            }
            entry.last_heartbeat = Some(heard);
            entry.stats = volume;
            entry.liveness = Liveness::Live;
            address.clone_into(&mut entry.address);
            if entry.admin == AdminState::Pending {
                entry.pod = Some(pod.to_owned());
            }
        });
    }

    /// A question.
    async fn open<T>(&self, answer: impl FnOnce(&mut State) -> T) -> Result<T, TrackerError> {
        self.gate.pass(false).await;
        self.answer(answer)
    }

    /// An order.
    async fn obey<T>(&self, answer: impl FnOnce(&mut State) -> T) -> Result<T, TrackerError> {
        self.gate.pass(true).await;
        self.answer(answer)
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut State) -> T) -> Result<T, TrackerError> {
        self.with(|state| {
            if !state.runs || state.mute {
                return Err(TrackerError::Unreadable("connection refused".into()));
            }
            if state.catalog != CatalogState::Open {
                return Err(TrackerError::NoCatalog("the volume is empty".into()));
            }
            Ok(answer(state))
        })
    }
}

pub fn pending(id: DatanodeId) -> DatanodeEntry {
    DatanodeEntry {
        id,
        address: String::new(),
        zone: None,
        host: None,
        liveness: Liveness::Live,
        admin: AdminState::Pending,
        pod: None,
        volume: None,
        refused: None,
        stats: VolumeStats::default(),
        chunks_remaining: None,
        last_heartbeat: None,
        maintenance_until: None,
    }
}

fn status(state: &State) -> TrackerStatus {
    let live = state
        .nodes
        .values()
        .filter(|entry| entry.admin == AdminState::InService && entry.liveness == Liveness::Live);
    let live = live.count();
    serde_json::from_value(json!({
        "cluster": state.cluster, "version": "0.1.0",
        "writes_refused": if live == 0 { json!("no datanode takes chunks") } else { json!(null) },
        "chunks": {"healthy": 10, "under-replicated": state.below_factor()},
        "datanodes": {"registered": state.nodes.len(), "live": live, "placeable": live},
        "capacity": {"total_bytes": 30_u64 << 30, "used_bytes": state.used_bytes},
        "repair": {"active": u64::from(state.under_replicated > 0)},
    }))
    .unwrap()
}

#[async_trait]
impl Tracker for FakeTracker {
    async fn status(&self, _: &Endpoint) -> Result<TrackerStatus, TrackerError> {
        self.open(|state| status(state)).await
    }

    async fn nodes(&self, _: &Endpoint) -> Result<Vec<DatanodeEntry>, TrackerError> {
        self.open(|state| {
            let listed = state.nodes.values();
            listed
                .filter(|node| node.admin != AdminState::Tombstoned)
                .cloned()
                .collect()
        })
        .await
    }

    async fn refusals(&self, _: &Endpoint) -> Result<Vec<Refusal>, TrackerError> {
        self.open(|state| state.refusals.clone()).await
    }

    async fn catalog(&self, _: &Endpoint) -> Result<Catalog, TrackerError> {
        self.gate.pass(false).await;
        self.with(|state| {
            Ok(Catalog {
                state: state.catalog,
                cluster: Some(state.cluster),
                detail: Some("the volume is empty".into()),
            })
        })
    }

    async fn safe_to_remove(&self, _: &Endpoint, id: DatanodeId) -> Result<Verdict, TrackerError> {
        self.open(|state| {
            let needing = state.needing(id);
            Verdict {
                safe: state.safe && needing.is_empty(),
                reason: format!(
                    "{} chunks need a copy",
                    state.under_replicated + needing.len() as u64
                ),
                chunks: needing
                    .iter()
                    .map(|chunk| format!("chunk-{chunk}"))
                    .collect(),
            }
        })
        .await
    }

    async fn ok_to_stop(
        &self,
        _: &Endpoint,
        ids: &[DatanodeId],
        one_more: bool,
    ) -> Result<Verdict, TrackerError> {
        self.open(|state| state.ok_to_stop(ids, one_more)).await
    }

    async fn maintain(
        &self,
        _: &Endpoint,
        id: DatanodeId,
        _: Duration,
    ) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Maintain(id));
            state.away.insert(id);
        })
        .await
    }

    async fn end_maintenance(&self, _: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::EndMaintenance(id));
            state.away.remove(&id);
            state.nodes.get_mut(&id).unwrap().maintenance_until = None;
        })
        .await
    }

    async fn decommission(&self, _: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Decommission(id));
            let node = state.nodes.get_mut(&id).unwrap();
            if node.admin == AdminState::InService {
                node.admin = AdminState::Decommissioning;
            }
        })
        .await
    }

    async fn recommission(&self, _: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Recommission(id));
            let node = state.nodes.get_mut(&id).unwrap();
            assert_ne!(node.admin, AdminState::Tombstoned);
            node.admin = AdminState::InService;
            node.chunks_remaining = None;
        })
        .await
    }

    async fn deregister(&self, _: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Deregister(id));
            let safe = state.safe && state.needing(id).is_empty();
            let node = state.nodes.get_mut(&id).unwrap();
            if node.admin != AdminState::Decommissioned || !safe {
                return Err(TrackerError::Refused("it is not emptied".into()));
            }
            node.admin = AdminState::Tombstoned;
            Ok(())
        })
        .await?
    }

    async fn admit(
        &self,
        _: &Endpoint,
        id: DatanodeId,
        admission: &Admission,
    ) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Admit(id, admission.clone()));
            let entry = state.nodes.get_mut(&id).unwrap();
            if entry
                .volume
                .as_ref()
                .is_some_and(|bound| *bound != admission.volume)
            {
                return Err(TrackerError::Refused("bound to another volume".into()));
            }
            entry.admin = AdminState::InService;
            entry.volume = Some(admission.volume.clone());
            entry.host = Some(admission.host.clone());
            entry.zone.clone_from(&admission.zone);
            entry.pod = Some(admission.pod.clone());
            Ok(())
        })
        .await?
    }

    async fn refuse(&self, _: &Endpoint, id: DatanodeId, reason: &str) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Refuse(id, reason.to_owned()));
            state.nodes.get_mut(&id).unwrap().refused = Some(reason.to_owned());
        })
        .await
    }

    async fn lost(&self, _: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.obey(|state| {
            state.told.push(Told::Lost(id));
            let entry = state.nodes.get_mut(&id).unwrap();
            assert_eq!(
                entry.liveness,
                Liveness::Dead,
                "a live datanode was declared lost"
            );
            if state.given_up == Some(id) {
                let only = |held: &&BTreeSet<DatanodeId>| held.len() == 1 && held.contains(&id);
                let lost = state.chunks.values().filter(only).count();
                if lost > 0 {
                    let why = format!("{lost} chunks have no replica that is known elsewhere");
                    return Err(TrackerError::Refused(why));
                }
                for held in state.chunks.values_mut() {
                    held.remove(&id);
                }
            } else {
                assert!(
                    state.safe && state.needing(id).is_empty(),
                    "a datanode with chunks was declared lost"
                );
            }
            let entry = state.nodes.get_mut(&id).unwrap();
            entry.admin = AdminState::Tombstoned;
            Ok(())
        })
        .await?
    }

    async fn rebuild(&self, _: &Endpoint, datanodes: &[String]) -> Result<(), TrackerError> {
        self.gate.pass(true).await;
        self.with(|state| {
            state.told.push(Told::Rebuild(datanodes.to_vec()));
            assert_eq!(
                state.catalog,
                CatalogState::Lost,
                "only a lost catalog is rebuilt"
            );
            state.catalog = CatalogState::Rebuilding;
            Ok(())
        })
    }
}
