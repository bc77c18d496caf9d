//! Carries one decided step out, and says what happened.

use dfs_runtime::metrics::Label as _;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::Pass;
use crate::apply::merge;
use crate::crd::DfsCluster;
use crate::decide::{SHORT_ABSENCE, Step};
use crate::error::ReconcileError;
use crate::events::{EventReason, Note};
use crate::tracker_client::{Admission, Endpoint, Refusal, TrackerError};
use crate::validate::{ACKNOWLEDGE_CATALOG_LOST, ACKNOWLEDGE_DATANODE_LOST};

impl Pass<'_> {
    /// One step. A tracker that refuses one, because its state changed since it was read, does not
    /// keep the others from being carried out.
    pub(super) async fn step(&mut self, at: &Endpoint, step: &Step) -> Result<(), ReconcileError> {
        let (doing, done) = self.tell_tracker(at, step).await;
        match done {
            Ok(()) if self.change(step).await? => {
                let note = told(step);
                tracing::info!(cluster = %self.cluster.key, reason = note.reason.as_str(),
                    note = note.note, "carried out");
                self.notes.push(note);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(TrackerError::Refused(why)) => {
                tracing::warn!(cluster = %self.cluster.key, why, "the tracker refuses to {doing}");
                if matches!(step, Step::GiveUp(_)) {
                    self.loss_refused = Some(why);
                }
                Ok(())
            }
            Err(error) => Err(ReconcileError::tracker(doing)(error)),
        }
    }

    /// What the tracker must hear of it, before any object changes.
    async fn tell_tracker(
        &self,
        at: &Endpoint,
        step: &Step,
    ) -> (&'static str, Result<(), TrackerError>) {
        let ask = self.ctx.asking();
        let tracker = self.ctx.tracker.as_ref();
        match step {
            Step::Admit { id, admission } => (
                "admit a datanode",
                ask.counted(tracker.admit(at, *id, admission)).await,
            ),
            Step::Update { id, admission } => (
                "tell where a datanode is",
                ask.counted(tracker.admit(at, *id, admission)).await,
            ),
            Step::Refuse { id, reason } => (
                "refuse a datanode",
                ask.counted(tracker.refuse(at, *id, reason)).await,
            ),
            Step::StopWaiting(gone) => (
                "say that a datanode does not come back",
                ask.counted(tracker.end_maintenance(at, gone.id)).await,
            ),
            Step::MakeWay(way) => (
                "say that a datanode is waited for no longer",
                ask.counted(tracker.end_maintenance(at, way.away)).await,
            ),
            Step::Lost(gone) | Step::GiveUp(gone) => (
                "declare a datanode lost",
                ask.counted(tracker.lost(at, gone.id)).await,
            ),
            Step::Rebuild(addresses) => (
                "rebuild the catalog",
                ask.counted(tracker.rebuild(at, addresses)).await,
            ),
            Step::Decommission { id, pod: _ } => (
                "decommission a datanode",
                ask.counted(tracker.decommission(at, *id)).await,
            ),
            Step::Recommission { id, pod: _ } => (
                "recommission a datanode",
                ask.counted(tracker.recommission(at, *id)).await,
            ),
            Step::Deregister { id, pod: _ } => (
                "deregister a datanode",
                ask.counted(tracker.deregister(at, *id)).await,
            ),
            Step::Restart {
                datanode: Some(id), ..
            } => (
                "announce that a datanode restarts",
                ask.counted(tracker.maintain(at, *id, SHORT_ABSENCE)).await,
            ),
            Step::Restart { datanode: None, .. }
            | Step::ForgetAcknowledgement
            | Step::ForgetLoss(_)
            | Step::Lower { .. }
            | Step::Orphan { .. }
            | Step::DeletePod { .. }
            | Step::ForceDelete { .. }
            | Step::DeleteClaim { .. } => ("nothing", Ok(())),
        }
    }

    /// What changes in the API server. Returns whether there is something to tell.
    async fn change(&mut self, step: &Step) -> Result<bool, ReconcileError> {
        match step {
            // That the catalog is back is told by its condition.
            Step::ForgetAcknowledgement => {
                self.forget(ACKNOWLEDGE_CATALOG_LOST).await?;
                return Ok(false);
            }
            Step::ForgetLoss(_) => self.forget(ACKNOWLEDGE_DATANODE_LOST).await?,
            Step::Lower {
                set,
                uid,
                from,
                to,
                proof: _,
            } => self.lower(set, uid, *from, *to).await?,
            Step::Orphan { set, uid, replicas } => self.orphan(set, uid, *replicas).await?,
            Step::Restart {
                pod,
                uid,
                within_budget,
                ..
            } => return self.restart(pod, uid, *within_budget).await,
            Step::DeletePod { name, uid } => {
                self.delete_pod(name, uid, DeleteParams::default()).await?;
            }
            Step::ForceDelete { pod, uid, fence: _ } => {
                let at_once = DeleteParams::default().grace_period(0);
                self.delete_pod(pod, uid, at_once).await?;
            }
            Step::DeleteClaim { name, uid } => self.delete_claim(name, uid).await?,
            Step::Admit { .. }
            | Step::Update { .. }
            | Step::Refuse { .. }
            | Step::StopWaiting(_)
            | Step::MakeWay(_)
            | Step::Lost(_)
            | Step::GiveUp(_)
            | Step::Rebuild(_)
            | Step::Decommission { .. }
            | Step::Recommission { .. }
            | Step::Deregister { .. } => {}
        }
        Ok(true)
    }

    /// What a human agreed to is done: the next loss needs a word of its own.
    async fn forget(&mut self, annotation: &str) -> Result<(), ReconcileError> {
        let key = &self.cluster.key;
        let api: Api<DfsCluster> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let patch = json!({"metadata": {
            "resourceVersion": self.object.metadata.resource_version,
            "annotations": {annotation: null},
        }});
        let doing = format!("remove the annotation {annotation}");
        self.object = merge(doing, &api, &key.name, &patch).await?;
        Ok(())
    }
}

fn place(admission: &Admission) -> String {
    let Admission {
        pod,
        volume,
        host,
        zone,
    } = admission;
    let zone = zone.as_ref().map(|zone| format!(", zone {zone}"));
    format!(
        "pod {pod} on {host}{}, volume {volume}",
        zone.unwrap_or_default()
    )
}

#[allow(
    clippy::too_many_lines,
    reason = "one sentence for each step, side by side"
)]
fn told(step: &Step) -> Note {
    match step {
        Step::Admit { id, admission } => Note::new(
            EventReason::DatanodeAdmitted,
            format!("datanode {}: {}", id.short(), place(admission)),
        ),
        Step::Update { id, admission } => Note::new(
            EventReason::DatanodeMoved,
            format!("datanode {}: {}", id.short(), place(admission)),
        ),
        Step::Refuse { id, reason } => Note::new(
            EventReason::DatanodeRefused,
            format!("datanode {}: {reason}", id.short()),
        ),
        Step::StopWaiting(gone) => Note::new(
            EventReason::VolumeGone,
            format!(
                "datanode {}: volume {} of pod {} is gone: it is waited for no longer, its chunks are copied",
                gone.id.short(),
                gone.volume,
                gone.pod
            ),
        ),
        Step::MakeWay(way) => Note::new(EventReason::MaintenanceEnded, way.sentence()),
        Step::Lost(gone) => Note::new(
            EventReason::DatanodeLost,
            format!(
                "datanode {}: volume {} of pod {} is gone; its chunks are whole elsewhere",
                gone.id.short(),
                gone.volume,
                gone.pod
            ),
        ),
        Step::GiveUp(gone) => Note::new(
            EventReason::DatanodeLost,
            format!(
                "datanode {} was given up with its volume {}: it is deregistered, pod {} returns as a new one",
                gone.id.short(),
                gone.volume,
                gone.pod
            ),
        ),
        Step::ForgetLoss(id) => Note::new(
            EventReason::LossSettled,
            format!(
                "nothing is left of datanode {}, which was given up",
                id.short()
            ),
        ),
        Step::DeletePod { name, uid: _ } => Note::new(
            EventReason::PodDeleted,
            format!(
                "pod {name} of a datanode that was given up is deleted, to return on a new volume"
            ),
        ),
        Step::ForceDelete { pod, uid, fence } => Note::new(
            EventReason::PodForceDeleted,
            format!("pod {pod} ({uid}) could not end and is taken away by force: {fence}"),
        ),
        Step::Rebuild(from) => Note::new(
            EventReason::CatalogRebuilding,
            format!("the catalog is rebuilt from {}", from.join(", ")),
        ),
        Step::ForgetAcknowledgement => {
            Note::new(EventReason::CatalogRebuilt, "the catalog is back")
        }
        Step::Decommission { id, pod } => Note::new(
            EventReason::DatanodeDecommissioning,
            format!("datanode {} (pod {pod}) is being emptied", id.short()),
        ),
        Step::Recommission { id, pod } => Note::new(
            EventReason::DatanodeRecommissioned,
            format!("datanode {} (pod {pod}) stays in service", id.short()),
        ),
        Step::Lower {
            set,
            uid: _,
            from,
            to,
            proof,
        } => Note::new(
            // Only a stop lowers a set to none.
            if *to == 0 {
                EventReason::Stopping
            } else {
                EventReason::ScalingDown
            },
            format!("StatefulSet {set} is lowered from {from} to {to}: {proof}"),
        ),
        Step::Orphan {
            set,
            uid: _,
            replicas,
        } => Note::new(
            EventReason::SetReplaced,
            format!(
                "StatefulSet {set} is made anew with larger volumes for new pods; its {replicas} pods go on"
            ),
        ),
        Step::Deregister { id, pod } => Note::new(
            EventReason::DatanodeRemoved,
            format!(
                "datanode {} of pod {pod} is deregistered for ever",
                id.short()
            ),
        ),
        Step::Restart { pod, proof, .. } => Note::new(
            EventReason::PodRestarted,
            format!("pod {pod} restarts with the newest template: {proof}"),
        ),
        Step::DeleteClaim { name, uid } => Note::new(
            EventReason::ClaimDeleted,
            format!("claim {name} ({uid}) of a removed datanode is deleted"),
        ),
    }
}

/// A registration that the tracker refused by itself.
pub(super) fn refusal(refusal: &Refusal) -> Note {
    let Refusal {
        datanode,
        address,
        pod,
        reason,
        detail,
        count: _,
    } = refusal;
    let pod = pod.as_ref().map(|pod| format!(" (pod {pod})"));
    let who = datanode.as_ref().map_or_else(
        || format!("someone at {address}"),
        |id| {
            format!(
                "datanode {} at {address}",
                id.chars().take(8).collect::<String>()
            )
        },
    );
    Note::new(
        EventReason::DatanodeRefused,
        format!("{who}{}: {reason}: {detail}", pod.unwrap_or_default()),
    )
}
