//! What the pipeline works with: a cluster whose spec makes sense. The CRD's own rules refuse most
//! nonsense; whatever got past them (an older CRD, a direct write to etcd) ends here, in a condition.

use std::time::Duration;

use dfs_protocol::{ClusterId, DatanodeId};
use dfs_runtime::metrics::Label as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{
    DecommissionMode, DecommissionState, DecommissionStatus, DfsCluster, LossStatus, MAX_DATANODES,
    MAX_FACTOR, MAX_GATEWAYS, MAX_NAME, ManagementState, MemberState, NodeLossPolicy, Quantity,
    ReplacementStatus, RetentionPolicy,
};
use crate::decide::{Kind, Reason};
use crate::observe::Uid;

/// Annotation by which a human agrees to the rebuild of a lost catalog: the cluster id, and perhaps ` without POD,POD`.
pub const ACKNOWLEDGE_CATALOG_LOST: &str = "dfs.io/acknowledge-catalog-lost";

/// Annotation by which a human gives a dead datanode up, with its volume; its value is the datanode's uuid.
pub const ACKNOWLEDGE_DATANODE_LOST: &str = "dfs.io/acknowledge-datanode-lost";

/// Shortest time for which a Kubernetes node that is not Ready is waited for.
const LEAST_PATIENCE: Duration = Duration::from_mins(1);

/// Annotation by which a human has a datanode removed without proof; its value is the datanode's uuid.
pub const REMOVE_UNPROVED: &str = "dfs.io/remove-without-proof";

/// Names one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the `DfsCluster`.
    pub name: String,
}

impl std::fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A cluster as deciders see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Which one.
    pub key: ClusterKey,
    /// The object's UID.
    pub uid: Uid,
    /// The spec's generation.
    pub generation: i64,
    /// Only look, change nothing.
    pub paused: bool,
    /// Whether nothing is to run.
    pub rest: Rest,
    /// Whose the tracker was when it was last asked, if another cluster's, says status.
    pub foreign_cluster: Option<String>,
    /// Pods of the members, as status holds them.
    pub members: Vec<String>,
    /// Wanted replicas of each chunk.
    pub factor: i32,
    /// Wanted datanodes.
    pub datanodes: i32,
    /// Wanted gateways.
    pub gateways: i32,
    /// The id recorded in status: the tracker must answer with it.
    pub cluster_id: Option<ClusterId>,
    /// Value of [`ACKNOWLEDGE_CATALOG_LOST`].
    pub acknowledged: Option<String>,
    /// How datanodes go.
    pub removal: RemovalPolicy,
    /// Datanodes on their way out, as status holds them.
    pub decommissions: Vec<Decommissioning>,
    /// Value of [`REMOVE_UNPROVED`].
    pub unproved: Option<DatanodeId>,
    /// Bytes of a full chunk; nothing is known of nonsense.
    pub chunk_size: u64,
    /// Sizes that volumes are to have.
    pub volumes: VolumeSizes,
    /// StatefulSets that are made anew, as status holds them.
    pub replacements: Vec<Replacement>,
    /// Value of [`ACKNOWLEDGE_DATANODE_LOST`].
    pub given_up: Option<DatanodeId>,
    /// The loss of that datanode, as status holds it.
    pub loss: Option<Loss>,
    /// Pods that cannot end are taken away by force where their node is fenced.
    pub force_deletes: bool,
    /// How long a Kubernetes node may be not Ready before it counts as lost.
    pub node_patience: Duration,
}

/// Whether a cluster is to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It runs.
    None,
    /// The spec asks for it.
    Wanted,
    /// The spec does not ask for it any more, and status says that not everything is back yet.
    Over,
}

/// A datanode that a human gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its uuid, which never comes back.
    pub id: DatanodeId,
    /// Its pod.
    pub pod: String,
    /// UID of its claim, which is deleted.
    pub volume: Uid,
}

impl Loss {
    pub(crate) fn read(status: &LossStatus) -> Result<Self, InvalidSpec> {
        let LossStatus {
            datanode_id,
            node,
            pvc_uid,
        } = status.clone();
        let id = datanode_id
            .parse()
            .map_err(|_| InvalidSpec::DatanodeId(datanode_id))?;
        Ok(Self {
            id,
            pod: node,
            volume: Uid(pvc_uid),
        })
    }

    /// As status keeps it.
    pub fn to_status(&self) -> LossStatus {
        let Self { id, pod, volume } = self.clone();
        LossStatus {
            datanode_id: id.to_string(),
            node: pod,
            pvc_uid: volume.0,
        }
    }
}

/// Sizes that volumes are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSizes {
    /// The tracker's.
    pub tracker: Quantity,
    /// Each datanode's.
    pub datanode: Quantity,
}

/// A StatefulSet that is made anew with a larger template of claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Its name.
    pub set: String,
    /// UID of the one with the smaller template.
    pub uid: Uid,
    /// Replicas that it has, and that it is made again with.
    pub replicas: i32,
}

impl Replacement {
    fn read(status: &ReplacementStatus) -> Self {
        let ReplacementStatus { set, uid, replicas } = status.clone();
        let uid = Uid(uid);
        Self { set, uid, replicas }
    }

    /// As status keeps it.
    pub fn to_status(&self) -> ReplacementStatus {
        let Self { set, uid, replicas } = self.clone();
        let uid = uid.0;
        ReplacementStatus { set, uid, replicas }
    }
}

/// How datanodes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalPolicy {
    /// Fewer replicas remove nobody.
    pub hold: bool,
    /// Between the two verdicts.
    pub quiet: Duration,
    /// Without progress for so long it is told.
    pub stall: Duration,
    /// The claim of a removed datanode is deleted.
    pub deletes_claim: bool,
}

/// A datanode on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decommissioning {
    /// Its pod.
    pub pod: String,
    /// Its uuid; none when its datanode was never admitted.
    pub id: Option<DatanodeId>,
    /// UID of its claim.
    pub volume: Option<Uid>,
    /// How far it is.
    pub state: DecommissionState,
    /// Since when.
    pub started: Timestamp,
    /// When it last came nearer.
    pub progressed: Timestamp,
    /// Chunks that still need a copy, about.
    pub remaining: Option<u64>,
    /// Its heartbeat at the first verdict.
    pub heard: Option<String>,
    /// What it waits for.
    pub reason: Option<String>,
}

impl Decommissioning {
    /// From status.
    pub(crate) fn read(status: &DecommissionStatus) -> Result<Self, InvalidSpec> {
        let DecommissionStatus {
            node,
            datanode_id,
            pvc_uid,
            state,
            started_at,
            last_progress_time,
            chunks_remaining,
            heard,
            reason,
        } = status.clone();
        let id = datanode_id
            .map(|id| id.parse().map_err(|_| InvalidSpec::DatanodeId(id)))
            .transpose()?;
        Ok(Self {
            pod: node,
            id,
            volume: pvc_uid.map(Uid),
            state,
            started: started_at.0,
            progressed: last_progress_time.0,
            remaining: chunks_remaining.and_then(|count| u64::try_from(count).ok()),
            heard,
            reason,
        })
    }

    /// As status keeps it.
    pub fn to_status(&self) -> DecommissionStatus {
        let Self {
            pod,
            id,
            volume,
            state,
            started,
            progressed,
            remaining,
            heard,
            reason,
        } = self.clone();
        DecommissionStatus {
            node: pod,
            datanode_id: id.map(|id| id.to_string()),
            pvc_uid: volume.map(|uid| uid.0),
            state,
            started_at: Time(started),
            last_progress_time: Time(progressed),
            chunks_remaining: remaining.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
            heard,
            reason,
        }
    }
}

/// Why a spec cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// It has no name, namespace or UID: it was not read from an API server.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// The name is too long for the objects that are named after it.
    #[error("the name has {0} characters; at most {MAX_NAME} fit, choose a shorter one")]
    NameTooLong(usize),
    /// A number out of its range.
    #[error("{field} is {value}; it must be from {least} to {most}")]
    OutOfRange {
        /// Path of the field.
        field: &'static str,
        /// What it is.
        value: i32,
        /// Least.
        least: i32,
        /// Most.
        most: i32,
    },
    /// Chunks could never have their replicas on distinct datanodes.
    #[error(
        "spec.replication.factor is {factor} and spec.dataNodes.replicas is {datanodes}; \
         raise replicas or lower the factor"
    )]
    TooFewDatanodes {
        /// Wanted replicas.
        factor: i32,
        /// Wanted datanodes.
        datanodes: i32,
    },
    /// The recorded id is not one.
    #[error("status.clusterId is not a cluster id: {0}")]
    ClusterId(String),
    /// A recorded removal names no datanode.
    #[error("status names {0}, which is not the id of a datanode")]
    DatanodeId(String),
    /// A duration that the CRD's rules let pass and that is none.
    #[error("{0} is not a duration like 30s or 1h30m")]
    Duration(&'static str),
    /// The objects cannot be built from this spec.
    #[error("{0}")]
    Unbuildable(String),
}

impl Cluster {
    /// Reads an object as it came from the API server, and refuses what makes no sense.
    pub fn read(object: &DfsCluster) -> Result<Self, InvalidSpec> {
        Self::unchecked(object)?.checked()
    }

    /// Reads an object whatever its numbers are.
    pub fn unchecked(object: &DfsCluster) -> Result<Self, InvalidSpec> {
        let metadata = &object.metadata;
        let present =
            |field: &Option<String>, name| field.clone().ok_or(InvalidSpec::Incomplete(name));
        let recorded = object.status.as_ref().and_then(|s| s.cluster_id.clone());
        let cluster_id = recorded
            .map(|id| id.parse().map_err(|_| InvalidSpec::ClusterId(id)))
            .transpose()?;
        let annotations = metadata.annotations.as_ref();
        let annotation = |name: &str| annotations.and_then(|all| all.get(name).cloned());
        let recorded = object
            .status
            .iter()
            .flat_map(|status| &status.decommissions);
        Ok(Self {
            key: ClusterKey {
                namespace: present(&metadata.namespace, "namespace")?,
                name: present(&metadata.name, "name")?,
            },
            uid: Uid(present(&metadata.uid, "uid")?),
            generation: metadata.generation.unwrap_or(0),
            paused: object.spec.management_state == ManagementState::Paused,
            rest: rest(object),
            foreign_cluster: object
                .status
                .as_ref()
                .and_then(|status| status.tracker.as_ref())
                .and_then(|tracker| tracker.foreign_cluster.clone()),
            members: members(object),
            factor: object.spec.replication.factor,
            datanodes: object.spec.data_nodes.replicas,
            gateways: object.spec.gateway.replicas,
            cluster_id,
            acknowledged: annotation(ACKNOWLEDGE_CATALOG_LOST),
            removal: removal(object)?,
            decommissions: recorded
                .map(Decommissioning::read)
                .collect::<Result<_, _>>()?,
            // Anything but a whole uuid is nobody's word.
            unproved: annotation(REMOVE_UNPROVED).and_then(|id| id.parse().ok()),
            // What is no size is refused when objects are built from it.
            chunk_size: object.spec.chunk_size.0.bytes().unwrap_or(0),
            volumes: VolumeSizes {
                tracker: object.spec.tracker.storage.size.0.clone(),
                datanode: object.spec.data_nodes.storage.size.0.clone(),
            },
            replacements: object
                .status
                .iter()
                .flat_map(|status| &status.replacements)
                .map(Replacement::read)
                .collect(),
            given_up: annotation(ACKNOWLEDGE_DATANODE_LOST).and_then(|id| id.parse().ok()),
            loss: object
                .status
                .as_ref()
                .and_then(|status| status.loss.as_ref())
                .map(Loss::read)
                .transpose()?,
            force_deletes: object.spec.node_loss_policy == NodeLossPolicy::ForceDeleteWhenFenced,
            node_patience: object
                .spec
                .repair_delay
                .duration()
                .ok_or(InvalidSpec::Duration("spec.repairDelay"))?
                .max(LEAST_PATIENCE),
        })
    }

    /// Refuses numbers that no CRD rule lets pass.
    fn checked(self) -> Result<Self, InvalidSpec> {
        let name = self.key.name.len();
        if name > MAX_NAME {
            return Err(InvalidSpec::NameTooLong(name));
        }
        let range = |field, value, least, most| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(InvalidSpec::OutOfRange {
                    field,
                    value,
                    least,
                    most,
                })
            }
        };
        range("spec.replication.factor", self.factor, 1, MAX_FACTOR)?;
        range("spec.dataNodes.replicas", self.datanodes, 0, MAX_DATANODES)?;
        range("spec.gateway.replicas", self.gateways, 0, MAX_GATEWAYS)?;
        if self.datanodes < self.factor {
            return Err(InvalidSpec::TooFewDatanodes {
                factor: self.factor,
                datanodes: self.datanodes,
            });
        }
        Ok(self)
    }
}

fn rest(object: &DfsCluster) -> Rest {
    if object.spec.management_state == ManagementState::Stopped {
        return Rest::Wanted;
    }
    let at_rest = [Reason::Stopping, Reason::Stopped, Reason::Starting];
    let is_back =
        !reasons_of_ready(object).any(|told| at_rest.iter().any(|reason| reason.as_str() == told));
    if is_back { Rest::None } else { Rest::Over }
}

/// Why it was or was not ready at the last look.
fn reasons_of_ready(object: &DfsCluster) -> impl Iterator<Item = &str> {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.filter(|one| one.kind == Kind::Ready.as_str());
    ready.map(|one| one.reason.as_str())
}

fn members(object: &DfsCluster) -> Vec<String> {
    let members = object.status.iter().flat_map(|status| &status.members);
    let members = members.filter(|member| {
        // Who was never let in holds nothing.
        !matches!(member.state, MemberState::Pending | MemberState::Refused)
    });
    members.filter_map(|member| member.pod.clone()).collect()
}

fn removal(object: &DfsCluster) -> Result<RemovalPolicy, InvalidSpec> {
    let spec = &object.spec.data_nodes;
    let duration = |text: &crate::crd::DurationText, field| {
        text.duration().ok_or(InvalidSpec::Duration(field))
    };
    Ok(RemovalPolicy {
        hold: spec.decommission.mode == DecommissionMode::Hold,
        quiet: duration(
            &spec.decommission.quiet_period,
            "spec.dataNodes.decommission.quietPeriod",
        )?,
        stall: duration(
            &spec.decommission.stall_timeout,
            "spec.dataNodes.decommission.stallTimeout",
        )?,
        deletes_claim: spec.pvc_retention.when_scaled == RetentionPolicy::Delete,
    })
}
