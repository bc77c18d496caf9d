//! The observed world as plain values: what deciders read. Nothing here knows the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use crate::tracker_client::{Catalog, DatanodeEntry, Refusal, TrackerStatus};

/// UID of an API object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub String);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parts of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Keeps the catalog.
    Tracker,
    /// Keeps chunks.
    Datanode,
    /// The door.
    Gateway,
}

impl Part {
    /// The value of the component label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Datanode => "datanode",
            Self::Gateway => "gateway",
        }
    }

    /// Reads the component label.
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Tracker, Self::Datanode, Self::Gateway]
            .into_iter()
            .find(|part| part.as_str() == label)
    }
}

/// One pod of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uid,
    /// What it runs.
    pub part: Part,
    /// Addresses, once the kubelet reported them.
    pub ips: Vec<String>,
    /// Where it runs.
    pub node: Option<String>,
    /// Its own topology label, where the API server copies it from the node.
    pub zone: Option<String>,
    /// The StatefulSet or ReplicaSet that controls it.
    pub controller: Option<Uid>,
    /// The revision of its StatefulSet's template that it was made from.
    pub revision: Option<String>,
    /// Its claim for the volume `data`.
    pub claim: Option<String>,
    /// Pending, Running, Failed, ...
    pub phase: String,
    /// Passes its readiness probe.
    pub ready: bool,
    /// Is being deleted.
    pub deleting: bool,
    /// When it should have ended, if it is being deleted.
    pub deadline: Option<Timestamp>,
    /// Why it has no node, in the scheduler's words.
    pub unscheduled: Option<String>,
    /// Why a container does not run, in the kubelet's words.
    pub waiting: Option<String>,
}

impl PodView {
    /// Every container in it has ended for good: what is left is a record, which a Deployment keeps.
    pub fn has_ended(&self) -> bool {
        self.phase == "Failed" || self.phase == "Succeeded"
    }

    /// Nothing runs in it, for a reason that does not pass by itself as a start does.
    pub fn cannot_start(&self) -> bool {
        self.waiting.is_some() || self.unscheduled.is_some() || self.phase == "Failed"
    }
}

/// One claim of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimView {
    /// Its name.
    pub name: String,
    /// Its UID: the identity of a volume.
    pub uid: Uid,
    /// Bound to a volume.
    pub bound: bool,
    /// Is being deleted.
    pub deleting: bool,
    /// Where its volume was made.
    pub node: Option<String>,
    /// The room that it asks for.
    pub asked: Option<String>,
    /// The room that its volume has.
    pub capacity: Option<String>,
    /// How far the growth of its volume is.
    pub resize: Resize,
}

/// How far the growth of a claim's volume is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resize {
    /// Nothing is said.
    Quiet,
    /// The volume is being made larger.
    Volume,
    /// The volume is larger; the file system follows as soon as the kubelet sees it in a pod.
    FileSystem,
    /// The storage cannot: why.
    Failed(String),
}

/// A Kubernetes node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// The kubelet is heard and well.
    pub ready: bool,
    /// Since when it is not.
    pub unready_since: Option<Timestamp>,
    /// A human says that nothing runs on it any more.
    pub out_of_service: bool,
    /// Cordoned: no new pod is put on it.
    pub unschedulable: bool,
    /// Its zone.
    pub zone: Option<String>,
}

/// What a look for a node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeSight {
    /// It is there.
    There(NodeView),
    /// Its object does not exist.
    Gone,
    /// Nodes may not be read.
    Unreadable,
}

/// A StatefulSet or Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadView {
    /// Its UID.
    pub uid: Uid,
    /// What its spec asks for.
    pub wanted: i32,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods made from the newest template.
    pub updated: i32,
    /// The newest template's revision; only StatefulSets have one.
    pub revision: Option<String>,
    /// Its controller has seen its newest spec: before that the counts speak of an older one.
    pub current: bool,
    /// Is being deleted.
    pub deleting: bool,
    /// The room that new claims ask for; none where there are no claims.
    pub volume: Option<String>,
}

/// What the tracker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackerView {
    /// Nothing can be asked yet: its pod or the token does not exist.
    Absent,
    /// It does not answer, or not so that it can be understood. Everything that needs it is held.
    Unreadable(String),
    /// It answers, and has no catalog.
    NoCatalog(Catalog),
    /// It serves.
    Open(Box<OpenTracker>),
}

/// A tracker that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTracker {
    /// How the store is.
    pub status: TrackerStatus,
    /// Its datanodes.
    pub nodes: Vec<DatanodeEntry>,
    /// Refused registrations.
    pub refusals: Vec<Refusal>,
}

impl TrackerView {
    /// The tracker that serves.
    pub fn open(&self) -> Option<&OpenTracker> {
        match self {
            Self::Open(open) => Some(open),
            Self::Absent | Self::Unreadable(_) | Self::NoCatalog(_) => None,
        }
    }
}

/// Everything that is looked at before deciding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// StatefulSet `NAME-tracker`.
    pub tracker_set: Option<WorkloadView>,
    /// StatefulSet `NAME-datanode`.
    pub datanode_set: Option<WorkloadView>,
    /// Deployment `NAME-gateway`.
    pub gateway: Option<WorkloadView>,
    /// The cluster's pods.
    pub pods: Vec<PodView>,
    /// The cluster's claims.
    pub claims: Vec<ClaimView>,
    /// The nodes that pods and claims name, where nodes may be read.
    pub nodes: BTreeMap<String, NodeView>,
    /// Nodes that pods and claims name and that do not exist.
    pub gone_nodes: BTreeSet<String>,
    /// Nodes may not be read.
    pub nodes_unreadable: bool,
    /// What the tracker says.
    pub tracker: TrackerView,
}

impl Observed {
    /// The pods of one part, by name.
    pub fn pods_of(&self, part: Part) -> impl Iterator<Item = &PodView> {
        self.pods.iter().filter(move |pod| pod.part == part)
    }

    /// The pod of this name.
    pub fn pod(&self, name: &str) -> Option<&PodView> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    /// The StatefulSet of a part that has claims.
    pub fn set_of(&self, part: Part) -> Option<&WorkloadView> {
        match part {
            Part::Tracker => self.tracker_set.as_ref(),
            Part::Datanode => self.datanode_set.as_ref(),
            Part::Gateway => None,
        }
    }

    /// Datanodes' pods that exist, and how many of them are ready. While their StatefulSet is made anew, and until
    /// its controller has counted them, the pods themselves are counted.
    pub fn datanode_pods(&self) -> (i32, i32) {
        if let Some(set) = self.datanode_set.as_ref().filter(|set| set.current) {
            return (set.replicas, set.ready);
        }
        let count = |pods: usize| i32::try_from(pods).unwrap_or(i32::MAX);
        let ready = self.pods_of(Part::Datanode).filter(|pod| pod.ready);
        (
            count(self.pods_of(Part::Datanode).count()),
            count(ready.count()),
        )
    }

    /// The claim of this name.
    pub fn claim(&self, name: &str) -> Option<&ClaimView> {
        self.claims.iter().find(|claim| claim.name == name)
    }
}
