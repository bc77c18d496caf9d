//! A tracker in memory: what it answers, and what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dfs_operator::tracker_client::{
    Admission, Catalog, CatalogState, DatanodeEntry, Endpoint, Refusal, Tracker, TrackerError,
    TrackerStatus, Verdict,
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
}

#[derive(Debug)]
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
            let entry = state.nodes.entry(id).or_insert_with(|| pending(id));
            if entry.admin == AdminState::Tombstoned {
                return;
            }
            entry.liveness = Liveness::Live;
            address.clone_into(&mut entry.address);
            if entry.admin == AdminState::Pending {
                entry.pod = Some(pod.to_owned());
            }
        });
    }

    async fn open<T>(&self, answer: impl FnOnce(&mut State) -> T) -> Result<T, TrackerError> {
        self.gate.pass().await;
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
        "chunks": {"healthy": 10, "under-replicated": state.under_replicated},
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
        self.open(|state| state.nodes.values().cloned().collect())
            .await
    }

    async fn refusals(&self, _: &Endpoint) -> Result<Vec<Refusal>, TrackerError> {
        self.open(|state| state.refusals.clone()).await
    }

    async fn catalog(&self, _: &Endpoint) -> Result<Catalog, TrackerError> {
        self.gate.pass().await;
        self.with(|state| {
            Ok(Catalog {
                state: state.catalog,
                cluster: Some(state.cluster),
                detail: Some("the volume is empty".into()),
            })
        })
    }

    async fn safe_to_remove(&self, _: &Endpoint, _: DatanodeId) -> Result<Verdict, TrackerError> {
        self.open(|state| Verdict {
            safe: state.safe,
            reason: format!("{} chunks need a copy", state.under_replicated),
        })
        .await
    }

    async fn admit(
        &self,
        _: &Endpoint,
        id: DatanodeId,
        admission: &Admission,
    ) -> Result<(), TrackerError> {
        self.open(|state| {
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
        self.open(|state| {
            state.told.push(Told::Refuse(id, reason.to_owned()));
            state.nodes.get_mut(&id).unwrap().refused = Some(reason.to_owned());
        })
        .await
    }

    async fn lost(&self, _: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.open(|state| {
            state.told.push(Told::Lost(id));
            let entry = state.nodes.get_mut(&id).unwrap();
            assert_eq!(
                entry.liveness,
                Liveness::Dead,
                "a live datanode was declared lost"
            );
            assert!(state.safe, "a datanode with chunks was declared lost");
            entry.admin = AdminState::Tombstoned;
        })
        .await
    }

    async fn rebuild(&self, _: &Endpoint, datanodes: &[String]) -> Result<(), TrackerError> {
        self.gate.pass().await;
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
