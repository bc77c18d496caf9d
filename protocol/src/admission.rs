//! What the administrator (the operator in Kubernetes) and the tracker say to each other about who is
//! in: admission, refusals, lost volumes, and a catalog that is lost.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, DatanodeId};

/// Body of `POST /nodes/{id}/admit`: what the administrator found the datanode to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmitRequest {
    /// The pod that it runs in.
    pub pod: String,
    /// UID of the claim (PVC) that holds its volume. A uuid is bound to the first one for ever.
    pub volume: String,
    /// The Kubernetes node.
    pub host: String,
    /// Failure domain, if known.
    #[serde(default)]
    pub zone: Option<String>,
}

/// Body of `POST /nodes/{id}/refuse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefuseRequest {
    /// Told to the datanode at its next registration.
    pub reason: String,
}

/// Body of `POST /nodes/{id}/lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostRequest {
    /// Go on although chunks have their only remaining replica there.
    #[serde(default)]
    pub accept_loss: bool,
}

/// Why a registration was refused. Metric label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// No cluster token, or none that is accepted.
    WrongToken,
    /// The volume belongs to another cluster.
    WrongCluster,
    /// Another process, or another volume, has the uuid.
    UuidInUse,
    /// The administrator said no.
    Refused,
    /// The uuid was deregistered: it is to be reset.
    Tombstoned,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::WrongToken,
        Self::WrongCluster,
        Self::UuidInUse,
        Self::Refused,
        Self::Tombstoned,
    ];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongToken => "wrong-token",
            Self::WrongCluster => "wrong-cluster",
            Self::UuidInUse => "uuid-in-use",
            Self::Refused => "refused",
            Self::Tombstoned => "tombstoned",
        }
    }
}

/// One line of `GET /refusals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When it happened last.
    pub at: Timestamp,
    /// The uuid, if it was told.
    pub datanode: Option<DatanodeId>,
    /// What it advertised; the caller's IP address when that is not known.
    pub address: String,
    /// The pod, if it was told.
    pub pod: Option<String>,
    /// Why.
    pub reason: RefusalReason,
    /// For people.
    pub detail: String,
    /// How often: the same address, uuid and reason is one line.
    pub count: u64,
}

/// Whether there is a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatalogState {
    /// The volume holds none although the cluster had one; nothing is served.
    Lost,
    /// It is being built anew from the datanodes.
    Rebuilding,
    /// As it should be.
    Open,
}

/// `GET /catalog`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogStatus {
    /// Lost, rebuilding or open.
    pub state: CatalogState,
    /// The cluster whose catalog it is, or must be.
    pub cluster: ClusterId,
    /// For people: why it is lost, or what the last rebuild failed by.
    pub detail: String,
}

/// Body of `POST /catalog/rebuild`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildCatalogRequest {
    /// `IP:PORT` of every datanode that can be had.
    pub datanodes: Vec<String>,
    /// Go on over missing journal records; what they changed is lost.
    #[serde(default)]
    pub allow_gap: bool,
}
