//! What the pipeline works with: a cluster whose spec makes sense. The CRD's own rules refuse most
//! nonsense; whatever got past them (an older CRD, a direct write to etcd) ends here, in a condition.

use dfs_protocol::ClusterId;

use crate::crd::{DfsCluster, MAX_DATANODES, MAX_FACTOR, MAX_GATEWAYS, MAX_NAME, ManagementState};
use crate::observe::Uid;

/// Annotation by which a human agrees to the rebuild of a lost catalog; its value is the cluster id.
pub const ACKNOWLEDGE_CATALOG_LOST: &str = "dfs.io/acknowledge-catalog-lost";

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
        Ok(Self {
            key: ClusterKey {
                namespace: present(&metadata.namespace, "namespace")?,
                name: present(&metadata.name, "name")?,
            },
            uid: Uid(present(&metadata.uid, "uid")?),
            generation: metadata.generation.unwrap_or(0),
            paused: object.spec.management_state == ManagementState::Paused,
            factor: object.spec.replication.factor,
            datanodes: object.spec.data_nodes.replicas,
            gateways: object.spec.gateway.replicas,
            cluster_id,
            acknowledged: annotations.and_then(|all| all.get(ACKNOWLEDGE_CATALOG_LOST).cloned()),
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
