//! What the operator reads of the tracker's answers. Fields that it does not know are ignored and
//! fields that an older tracker does not send have defaults, so that operator and store may differ
//! by a version while an upgrade is under way.

use std::collections::BTreeMap;

use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::{ClusterId, DatanodeId};
use serde::{Deserialize, Serialize};

use crate::observe::Uid;

/// `GET /status`, as far as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerStatus {
    /// Which cluster answers.
    pub cluster: ClusterId,
    /// Version of the program.
    pub version: String,
    /// Every chunk has its full factor and writes are taken.
    #[serde(default)]
    pub healthy: bool,
    /// One sentence for people.
    #[serde(default)]
    pub summary: String,
    /// Set while the tracker gathers reports.
    #[serde(default)]
    pub safe_mode: Option<String>,
    /// Set while writes are refused.
    #[serde(default)]
    pub writes_refused: Option<String>,
    /// Set while repair is held.
    #[serde(default)]
    pub repair_held: Option<String>,
    /// Whether replicas can be spread as wanted.
    #[serde(default)]
    pub spread: Option<Spread>,
    /// Chunks by health; the names are `ChunkHealth`'s.
    #[serde(default)]
    pub chunks: BTreeMap<String, u64>,
    /// Why chunks have too few replicas that count.
    #[serde(default)]
    pub shortage: Shortage,
    /// Datanodes by liveness and admin state.
    #[serde(default)]
    pub datanodes: Counts,
    /// Bytes of the volumes.
    #[serde(default)]
    pub capacity: Bytes,
    /// The repair queue.
    #[serde(default)]
    pub repair: Repair,
}

impl TrackerStatus {
    fn chunks_of(&self, health: &str) -> u64 {
        self.chunks.get(health).copied().unwrap_or(0)
    }

    /// Chunks with too few valid live replicas, those with one left included.
    pub fn under_replicated(&self) -> u64 {
        self.chunks_of("under-replicated") + self.chunks_of("at-risk")
    }

    /// Those of [`Self::under_replicated`] that cannot be read from their full number of replicas: the
    /// others only wait to be copied off datanodes that are being emptied.
    pub fn short(&self) -> u64 {
        self.under_replicated()
            .saturating_sub(self.shortage.leaving)
    }

    /// Chunks without any valid live replica.
    pub fn missing(&self) -> u64 {
        self.chunks_of("missing")
    }

    /// Chunks that have enough replicas in the wrong places.
    pub fn mis_replicated(&self) -> u64 {
        self.chunks_of("mis-replicated")
    }
}

/// Chunks with too few replicas that count, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Shortage {
    /// As many as wanted can be read, some of them on datanodes that are being emptied.
    pub leaving: u64,
}

/// Whether the datanodes that are there can hold a chunk's replicas as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// They can.
    pub possible: bool,
    /// What is wanted and what there is.
    #[serde(default)]
    pub sentence: String,
}

/// Datanodes by liveness and admin state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Registered and not tombstoned.
    pub registered: u64,
    /// Heard.
    pub live: u64,
    /// Would take a new chunk now.
    pub placeable: u64,
}

/// Bytes of the volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bytes {
    /// In all.
    pub total_bytes: u64,
    /// Taken by chunks.
    pub used_bytes: u64,
}

/// The repair queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Repair {
    /// Copies under way.
    pub active: u64,
    /// Bytes still to copy.
    pub bytes_remaining: u64,
    /// Seconds until that is done, at the measured rate.
    pub eta_seconds: Option<u64>,
}

/// One entry of `GET /nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatanodeEntry {
    /// Identity.
    pub id: DatanodeId,
    /// `IP:PORT`; empty while only known from the catalog.
    #[serde(default)]
    pub address: String,
    /// Failure domain.
    #[serde(default)]
    pub zone: Option<String>,
    /// Kubernetes node.
    #[serde(default)]
    pub host: Option<String>,
    /// Heard?
    pub liveness: Liveness,
    /// Wanted?
    pub admin: AdminState,
    /// Pod that it announced.
    #[serde(default)]
    pub pod: Option<String>,
    /// UID of its claim, set at admission.
    #[serde(default)]
    pub volume: Option<String>,
    /// Why it was refused.
    #[serde(default)]
    pub refused: Option<String>,
    /// Its volume, as it last said.
    #[serde(default)]
    pub stats: VolumeStats,
    /// While decommissioning: chunks that still need a copy elsewhere.
    #[serde(default)]
    pub chunks_remaining: Option<u64>,
    /// When it was last heard: a stamp to compare, never a time to reckon with.
    #[serde(default)]
    pub last_heartbeat: Option<String>,
    /// Until when it was announced as away.
    #[serde(default)]
    pub maintenance_until: Option<String>,
}

impl DatanodeEntry {
    /// Admitted, and not deregistered.
    pub fn is_member(&self) -> bool {
        match self.admin {
            AdminState::InService | AdminState::Decommissioning | AdminState::Decommissioned => {
                true
            }
            AdminState::Pending | AdminState::Tombstoned => false,
        }
    }

    /// Whether it was admitted with the claim of this UID.
    pub fn is_on(&self, claim: &Uid) -> bool {
        self.volume.as_ref() == Some(&claim.0)
    }
}

/// A datanode's volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeStats {
    /// Bytes of the volume; 0 when the datanode cannot ask.
    pub capacity_bytes: u64,
    /// Bytes that chunks occupy.
    pub used_bytes: u64,
    /// Bytes that chunks may still take, reserve already subtracted.
    pub free_bytes: u64,
    /// Too full, or too sick, to take chunks.
    pub read_only: bool,
}

impl VolumeStats {
    /// Has no room for another chunk of this size, which every upload of unknown length asks for.
    pub const fn is_full(&self, chunk_size: u64) -> bool {
        let none = self.read_only && self.free_bytes == 0;
        self.capacity_bytes > 0 && (none || self.free_bytes < chunk_size)
    }
}

/// Body of `POST /nodes/{id}/admit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Admission {
    /// Its pod.
    pub pod: String,
    /// UID of its claim.
    pub volume: String,
    /// Kubernetes node.
    pub host: String,
    /// Failure domain.
    pub zone: Option<String>,
}

/// One entry of `GET /refusals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Whom, where it said so.
    #[serde(default)]
    pub datanode: Option<String>,
    /// From where.
    #[serde(default)]
    pub address: String,
    /// Pod that it announced.
    #[serde(default)]
    pub pod: Option<String>,
    /// Why, one word.
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub detail: String,
    /// How often.
    #[serde(default)]
    pub count: u64,
}

/// State of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatalogState {
    /// The volume has none although the cluster exists.
    Lost,
    /// Being rebuilt from the datanodes.
    Rebuilding,
    /// Served.
    Open,
}

/// `GET /catalog`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// How it is.
    pub state: CatalogState,
    /// Whose.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// For people: why it is lost, how far the rebuild is.
    #[serde(default)]
    pub detail: Option<String>,
}

/// `GET /nodes/{id}/safe-to-remove`, `POST /ok-to-stop`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it is safe. Unknown means no.
    pub safe: bool,
    /// Why, in one sentence.
    #[serde(default)]
    pub reason: String,
    /// Chunks in the way, some of them.
    #[serde(default)]
    pub chunks: Vec<String>,
}

impl Verdict {
    /// Why not, with the first chunks in the way, for people.
    pub fn offenders(&self) -> String {
        const NAMED: usize = 3;
        let named: Vec<_> = self.chunks.iter().take(NAMED).map(String::as_str).collect();
        match (named.len(), self.chunks.len() > NAMED) {
            (0, _) => self.reason.clone(),
            (_, more) => format!(
                "{} (chunk {}{})",
                self.reason,
                named.join(", "),
                if more { ", ..." } else { "" }
            ),
        }
    }
}

/// Body of `POST /nodes/{id}/refuse`.
#[derive(Debug, Serialize)]
pub(super) struct RefuseBody<'a> {
    pub(super) reason: &'a str,
}

/// Body of `POST /nodes/{id}/lost`: the operator never accepts the loss of a chunk.
#[derive(Debug, Serialize)]
pub(super) struct LostBody {
    pub(super) accept_loss: bool,
}

/// Body of `POST /catalog/rebuild`: the operator never accepts a gap in the journal.
#[derive(Debug, Serialize)]
pub(super) struct RebuildBody<'a> {
    pub(super) datanodes: &'a [String],
    pub(super) allow_gap: bool,
}
