//! From observation and plan to conditions: which hold, why, and in which words.
//!
//! `Ready`, `Available` and `DataRedundant` are good when true; `Progressing` says that something
//! moves; the others name a trouble and are good when false.

use dfs_runtime::label_enum;

use super::{Input, Plan};

mod judge;
mod nodes;
mod rest;
mod storage;

pub(crate) use judge::registered;

label_enum! {
    /// The conditions of a cluster.
    pub enum Kind: "condition" {
        /// Everything that is wanted is there.
        Ready = "Ready",
        /// Files can be read and written.
        Available = "Available",
        /// Something moves towards what is wanted.
        Progressing = "Progressing",
        /// Something that should be there is not.
        Degraded = "Degraded",
        /// Every chunk has its full factor.
        DataRedundant = "DataRedundant",
        /// A datanode is on its way out.
        Decommissioning = "Decommissioning",
        /// Fewer datanodes are wanted than may be removed.
        ScaleDownBlocked = "ScaleDownBlocked",
        /// The tracker's volume holds no catalog although the cluster exists.
        CatalogLost = "CatalogLost",
        /// Volumes are not as large as they are to be yet.
        StorageResizing = "StorageResizing",
        /// Pods are lost with their Kubernetes node, or a datanode was given up and cannot go.
        NodeLost = "NodeLost",
        /// The operator only looks.
        Paused = "Paused",
    }
}

label_enum! {
    /// Reasons of conditions.
    pub enum Reason: "reason" {
        /// Everything is as wanted.
        AsWanted = "AsWanted",
        /// Not looked at yet.
        NotObserved = "NotObserved",
        /// The spec makes no sense.
        InvalidSpec = "InvalidSpec",
        /// The API server refused an object.
        ApplyFailed = "ApplyFailed",
        /// The tracker's pod is not ready.
        TrackerNotReady = "TrackerNotReady",
        /// The tracker does not answer.
        TrackerUnreadable = "TrackerUnreadable",
        /// The tracker answers for another cluster.
        WrongCluster = "WrongCluster",
        /// The tracker gathers reports.
        SafeMode = "SafeMode",
        /// The tracker takes no writes.
        WritesRefused = "WritesRefused",
        /// Datanodes' pods are not ready.
        DatanodesNotReady = "DatanodesNotReady",
        /// Datanodes are not registered.
        DatanodesNotRegistered = "DatanodesNotRegistered",
        /// Gateways are not ready.
        GatewaysNotReady = "GatewaysNotReady",
        /// A datanode's claim does not match its identity.
        IdentityConflict = "IdentityConflict",
        /// Files can be read and written.
        Serving = "Serving",
        /// Objects are being made.
        Creating = "Creating",
        /// Datanodes are being added.
        ScalingUp = "ScalingUp",
        /// Pods are restarted one by one.
        Rolling = "Rolling",
        /// A restarted pod does not come back.
        RollStopped = "RollStopped",
        /// Chunks are being copied.
        Repairing = "Repairing",
        /// Every chunk has its full factor.
        FullyReplicated = "FullyReplicated",
        /// Every chunk has enough replicas, some in the wrong places.
        BadlySpread = "BadlySpread",
        /// Chunks have too few replicas.
        UnderReplicated = "UnderReplicated",
        /// Chunks have no replica that can be read.
        ChunksMissing = "ChunksMissing",
        /// No fewer datanodes are wanted.
        NotRequested = "NotRequested",
        /// Datanodes are being removed.
        ScalingDown = "ScalingDown",
        /// A datanode's chunks are copied elsewhere.
        Emptying = "Emptying",
        /// An emptied datanode is watched.
        QuietPeriod = "QuietPeriod",
        /// A datanode's pod and uuid go.
        Removing = "Removing",
        /// A removal is taken back.
        Recommissioning = "Recommissioning",
        /// The spec says that datanodes are kept.
        HeldBySpec = "HeldBySpec",
        /// Too few datanodes would remain.
        TooFewDatanodes = "TooFewDatanodes",
        /// Too few Kubernetes nodes would remain.
        TooFewHosts = "TooFewHosts",
        /// The others have too little room.
        NoSpace = "NoSpace",
        /// Another datanode is being emptied.
        OtherDecommission = "OtherDecommission",
        /// Nothing came nearer for too long.
        Stalled = "Stalled",
        /// The tracker says that it is not safe.
        NotSafe = "NotSafe",
        /// Someone else lowered the StatefulSet.
        ScaledByHand = "ScaledByHand",
        /// The catalog is there.
        CatalogPresent = "CatalogPresent",
        /// The catalog is lost and a human must agree to its rebuild.
        AwaitingAcknowledgement = "AwaitingAcknowledgement",
        /// The rebuild waits for datanodes.
        AwaitingDatanodes = "AwaitingDatanodes",
        /// The catalog is being rebuilt.
        Rebuilding = "Rebuilding",
        /// Volumes are being made larger.
        Resizing = "Resizing",
        /// Volumes cannot be made larger.
        ExpansionRefused = "ExpansionRefused",
        /// Volumes are full and take no chunks.
        VolumesFull = "VolumesFull",
        /// A Kubernetes node does not exist any more.
        NodeGone = "NodeGone",
        /// A Kubernetes node has not been Ready for long.
        NodeNotReady = "NodeNotReady",
        /// A pod does not end, and nodes may not be read.
        PodStuck = "PodStuck",
        /// Nodes may not be read.
        NodesUnreadable = "NodesUnreadable",
        /// A datanode was given up, and chunks would be lost with it.
        LossNotAccepted = "LossNotAccepted",
        /// The operator acts.
        Managed = "Managed",
        /// The operator only looks.
        ManagementPaused = "ManagementPaused",
        /// Pods end, because the spec says that nothing runs.
        Stopping = "Stopping",
        /// Nothing runs, because the spec says so.
        Stopped = "Stopped",
        /// Pods come back after a stop.
        Starting = "Starting",
    }
}

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

impl Truth {
    /// As in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Which.
    pub kind: Kind,
    /// Whether it holds.
    pub truth: Truth,
    /// Why, one word.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// Why objects could not be applied, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(pub String);

/// Every condition, in the order of [`Kind`].
pub fn conditions(input: &Input<'_>, plan: &Plan, trouble: Option<&Trouble>) -> Vec<Judgement> {
    let mut all = judge::Judge::new(input, plan, trouble).all();
    // Objects that are refused are a trouble in any state.
    if trouble.is_none() {
        rest::told(&mut all, input, plan);
    }
    all
}

/// Conditions of a cluster whose spec makes no sense: nothing was looked at, nothing was changed.
pub fn invalid(reason: &str) -> Vec<Judgement> {
    use dfs_runtime::metrics::Label as _;
    let unknown = |kind| Judgement {
        kind,
        truth: if kind == Kind::Ready {
            Truth::False
        } else {
            Truth::Unknown
        },
        reason: Reason::InvalidSpec,
        message: format!("nothing was changed: {reason}"),
    };
    Kind::ALL.iter().copied().map(unknown).collect()
}

/// Two significant digits: numbers in status change rarely, exact ones belong in metrics.
pub fn coarse(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_numbers_keep_two_digits_and_zero_stays_zero() {
        for (exact, rounded) in [(0, 0), (1, 1), (99, 99), (101, 100), (12_345, 12_000)] {
            assert_eq!(coarse(exact), rounded);
        }
        assert_eq!(coarse(u64::MAX), 18_000_000_000_000_000_000);
    }
}
