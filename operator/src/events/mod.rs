//! Events: what happened to a cluster, in words that `kubectl describe` shows. Writing one may fail;
//! nothing depends on it.

mod transitions;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dfs_runtime::clock::SharedClock;
use dfs_runtime::label_enum;
use dfs_runtime::metrics::Label as _;
use dfs_runtime::rng::SharedRng;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

pub use transitions::{Before, transitions};

use crate::metrics::Metrics;
use crate::observe::Uid;

/// The same event is not written again for this long.
const QUIET: Duration = Duration::from_mins(6);
/// Most events that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// The API server's limit of a note is 1 kB.
const MAX_NOTE: usize = 1000;
/// How long writing one may take.
const CALL: Duration = Duration::from_secs(5);

label_enum! {
    /// Why an event was written.
    pub enum EventReason: "reason" {
        /// The cluster's objects are being made.
        Created = "Created",
        /// Everything is as wanted.
        Ready = "Ready",
        /// Something is not as wanted any more.
        NotReady = "NotReady",
        /// The spec makes no sense.
        InvalidSpec = "InvalidSpec",
        /// The object cannot be read at all.
        Unreadable = "Unreadable",
        /// Objects could not be applied.
        ApplyFailed = "ApplyFailed",
        /// Datanodes are being added.
        ScalingUp = "ScalingUp",
        /// A newcomer was let in.
        DatanodeAdmitted = "DatanodeAdmitted",
        /// A member runs elsewhere now.
        DatanodeMoved = "DatanodeMoved",
        /// A newcomer was told no.
        DatanodeRefused = "DatanodeRefused",
        /// A member's volume is gone for ever.
        DatanodeLost = "DatanodeLost",
        /// A member's volume does not match its identity.
        IdentityConflict = "IdentityConflict",
        /// A datanode is being emptied.
        DatanodeDecommissioning = "DatanodeDecommissioning",
        /// A removal was taken back.
        DatanodeRecommissioned = "DatanodeRecommissioned",
        /// An emptied datanode's pod is taken away: the proof.
        ScalingDown = "ScalingDown",
        /// A pod restarts with a new template: the proof.
        PodRestarted = "PodRestarted",
        /// A datanode was deregistered.
        DatanodeRemoved = "DatanodeRemoved",
        /// The claim of a removed datanode was deleted.
        ClaimDeleted = "ClaimDeleted",
        /// Chunks have too few replicas.
        RepairStarted = "RepairStarted",
        /// Every chunk has its full factor again.
        RepairFinished = "RepairFinished",
        /// Chunks have no replica that can be read.
        ChunksMissing = "ChunksMissing",
        /// Fewer datanodes are wanted than may be removed.
        ScaleDownBlocked = "ScaleDownBlocked",
        /// As many datanodes are wanted as there are.
        ScaleDownReleased = "ScaleDownReleased",
        /// The tracker's volume holds no catalog.
        CatalogLost = "CatalogLost",
        /// A human agreed: the catalog is being rebuilt.
        CatalogRebuilding = "CatalogRebuilding",
        /// The catalog is back.
        CatalogRebuilt = "CatalogRebuilt",
        /// Volumes are asked for more room.
        VolumesGrowing = "VolumesGrowing",
        /// Every volume is as large as the spec asks for.
        VolumesGrown = "VolumesGrown",
        /// Volumes cannot be made larger.
        ExpansionRefused = "ExpansionRefused",
        /// A StatefulSet is made anew around its pods.
        SetReplaced = "SetReplaced",
        /// Volumes are full and take no chunks.
        VolumesFull = "VolumesFull",
        /// They take chunks again.
        VolumesRelieved = "VolumesRelieved",
        /// Pods are lost with their Kubernetes node.
        NodeLost = "NodeLost",
        /// They are not lost any more.
        NodeLossOver = "NodeLossOver",
        /// A datanode that was to come back soon has lost its volume.
        VolumeGone = "VolumeGone",
        /// A datanode that was to come back soon cannot, and a drain waits for its chunks.
        MaintenanceEnded = "MaintenanceEnded",
        /// A datanode was given up, and chunks would be lost with it.
        LossNotAccepted = "LossNotAccepted",
        /// A pod that could not end was taken away: its node is fenced.
        PodForceDeleted = "PodForceDeleted",
        /// The pod of a datanode that was given up was deleted.
        PodDeleted = "PodDeleted",
        /// Nothing is left of a datanode that was given up.
        LossSettled = "LossSettled",
        /// No datanode may be evicted for now.
        EvictionsHeld = "EvictionsHeld",
        /// A datanode may be evicted again.
        EvictionsAllowed = "EvictionsAllowed",
        /// The operator only looks from now on.
        Paused = "Paused",
        /// The operator acts again.
        Resumed = "Resumed",
        /// Pods end, because the spec says that nothing runs.
        Stopping = "Stopping",
        /// Nothing runs, because the spec says so.
        Stopped = "Stopped",
        /// Pods come back after a stop.
        Starting = "Starting",
    }
}

impl EventReason {
    /// Whether a human should look.
    pub const fn is_warning(self) -> bool {
        match self {
            Self::NotReady
            | Self::InvalidSpec
            | Self::Unreadable
            | Self::ApplyFailed
            | Self::DatanodeRefused
            | Self::DatanodeLost
            | Self::VolumeGone
            | Self::IdentityConflict
            | Self::RepairStarted
            | Self::ChunksMissing
            | Self::ScaleDownBlocked
            | Self::CatalogLost
            | Self::ExpansionRefused
            | Self::VolumesFull
            | Self::NodeLost
            | Self::LossNotAccepted
            | Self::PodForceDeleted => true,
            Self::Created
            | Self::Ready
            | Self::ScalingUp
            | Self::DatanodeAdmitted
            | Self::DatanodeMoved
            | Self::DatanodeDecommissioning
            | Self::DatanodeRecommissioned
            | Self::ScalingDown
            | Self::DatanodeRemoved
            | Self::PodRestarted
            | Self::ClaimDeleted
            | Self::RepairFinished
            | Self::ScaleDownReleased
            | Self::CatalogRebuilding
            | Self::CatalogRebuilt
            | Self::VolumesGrowing
            | Self::VolumesGrown
            | Self::SetReplaced
            | Self::VolumesRelieved
            | Self::NodeLossOver
            | Self::PodDeleted
            | Self::LossSettled
            | Self::MaintenanceEnded
            | Self::EvictionsHeld
            | Self::EvictionsAllowed
            | Self::Paused
            | Self::Resumed
            | Self::Stopping
            | Self::Stopped
            | Self::Starting => false,
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Why it is told.
    pub reason: EventReason,
    /// For people.
    pub note: String,
}

impl Note {
    /// A note.
    pub fn new(reason: EventReason, note: impl Into<String>) -> Self {
        Self {
            reason,
            note: note.into(),
        }
    }
}

/// Writes events.
pub struct Events {
    client: Client,
    clock: SharedClock,
    rng: SharedRng,
    metrics: Metrics,
    instance: String,
    told: Mutex<BTreeMap<(Uid, EventReason, String), Duration>>,
}

impl Events {
    /// A writer; `instance` names this process.
    pub fn new(
        client: Client,
        clock: SharedClock,
        rng: SharedRng,
        metrics: Metrics,
        instance: String,
    ) -> Self {
        Self {
            client,
            clock,
            rng,
            metrics,
            instance,
            told: Mutex::default(),
        }
    }

    /// Writes one, unless the same was written a moment ago.
    pub async fn tell(&self, about: &ObjectReference, note: &Note) {
        let uid = Uid(about.uid.clone().unwrap_or_default());
        if !self.is_news(uid, note) {
            self.metrics.events_dropped.inc();
            return;
        }
        let namespace = about.namespace.clone().unwrap_or_default();
        let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), &namespace);
        let event = self.event(about, note);
        let parameters = PostParams::default();
        match tokio::time::timeout(CALL, api.create(&parameters, &event)).await {
            Ok(Ok(_)) => self.metrics.events.inc(),
            Ok(Err(error)) => {
                self.metrics.events_dropped.inc();
                let error = crate::error::describe(&error);
                tracing::warn!(
                    reason = note.reason.as_str(),
                    error,
                    "cannot write an event"
                );
            }
            Err(_) => {
                self.metrics.events_dropped.inc();
                tracing::warn!(
                    reason = note.reason.as_str(),
                    "writing an event took too long"
                );
            }
        }
    }

    fn is_news(&self, uid: Uid, note: &Note) -> bool {
        let now = self.clock.monotonic();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_sub(*at) < QUIET);
        if told.len() >= MAX_REMEMBERED {
            return false;
        }
        let key = (uid, note.reason, note.note.clone());
        if told.contains_key(&key) {
            return false;
        }
        told.insert(key, now);
        true
    }

    fn event(&self, about: &ObjectReference, note: &Note) -> ApiEvent {
        let name = about.name.as_deref().unwrap_or("dfs");
        let kind = if note.reason.is_warning() {
            "Warning"
        } else {
            "Normal"
        };
        ApiEvent {
            action: Some("Reconcile".to_owned()),
            reason: Some(note.reason.as_str().to_owned()),
            note: Some(shortened(&note.note)),
            type_: Some(kind.to_owned()),
            event_time: Some(MicroTime(self.clock.wall())),
            regarding: Some(about.clone()),
            reporting_controller: Some("dfs.io/dfs-operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:016x}", self.rng.u64())),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            ..ApiEvent::default()
        }
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= MAX_NOTE {
        return note.to_owned();
    }
    let mut end = MAX_NOTE - 3;
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &note[..end])
}
