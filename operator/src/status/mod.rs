//! Status: composed purely, compared before it is written, written with the version that it was
//! composed from. Nothing is written while nothing changes, and what only moves a number waits.

mod compose;
#[cfg(test)]
mod tests;

use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

pub use compose::{Numbers, compose};

use crate::apply::{FIELD_MANAGER, WRITE_TIMEOUT, bounded};
use crate::crd::{DfsCluster, DfsClusterStatus};
use crate::ctx::Ctx;
use crate::error::{ReconcileError, code};
use crate::events::Before;
use crate::validate::Cluster;

/// Changes that only move a number or a word are written at most this often.
const MINOR_EVERY: Duration = Duration::from_secs(30);

/// How much a new status differs from the one that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// In numbers and words.
    Minor,
    /// In what people and programs wait for.
    Major,
}

/// Compares two statuses.
pub fn change(before: Option<&DfsClusterStatus>, now: &DfsClusterStatus) -> Change {
    let Some(before) = before else {
        return Change::Major;
    };
    if before == now {
        return Change::Nothing;
    }
    if skeleton(before) == skeleton(now) {
        Change::Minor
    } else {
        Change::Major
    }
}

/// Without numbers and words.
fn skeleton(status: &DfsClusterStatus) -> DfsClusterStatus {
    let mut status = status.clone();
    for condition in &mut status.conditions {
        condition.message.clear();
    }
    if let Some(chunks) = &mut status.chunks {
        // Whether there are any is more than a number.
        chunks.under_replicated = chunks.under_replicated.min(1);
        chunks.missing = chunks.missing.min(1);
    }
    status.capacity = None;
    for leaving in &mut status.decommissions {
        leaving.chunks_remaining = None;
        leaving.reason = None;
        leaving.last_progress_time = leaving.started_at.clone();
    }
    status
}

/// Whether to write now.
pub fn is_due(change: Change, since_last: Option<Duration>) -> bool {
    match change {
        Change::Nothing => false,
        Change::Minor => since_last.is_none_or(|since| since >= MINOR_EVERY),
        Change::Major => true,
    }
}

/// The conditions of a status, as events compare them.
pub fn before(status: Option<&DfsClusterStatus>) -> Vec<Before> {
    let conditions = status.into_iter().flat_map(|status| &status.conditions);
    conditions
        .map(|one| Before {
            kind: one.kind.clone(),
            truth: one.status.as_str().to_owned(),
            reason: one.reason.clone(),
        })
        .collect()
}

/// Writes a status over the object that it was composed from; the write is refused when the object
/// has changed since. Returns the object as it is then.
pub async fn write(
    ctx: &Ctx,
    cluster: &Cluster,
    object: &DfsCluster,
    status: &DfsClusterStatus,
) -> Result<DfsCluster, ReconcileError> {
    let key = &cluster.key;
    let api: Api<DfsCluster> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let patch = json!({
        "apiVersion": "dfs.io/v1alpha1",
        "kind": "DfsCluster",
        "metadata": {
            "name": key.name,
            "resourceVersion": object.metadata.resource_version,
        },
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let written = bounded(api.patch_status(&key.name, &parameters, &Patch::Apply(&patch))).await;
    match written {
        None => Err(ReconcileError::Timeout(WRITE_TIMEOUT)),
        Some(Err(error)) => {
            if code(&error) == Some(409) {
                ctx.metrics.conflicts.inc();
            }
            Err(ReconcileError::api("write the status")(error))
        }
        Some(Ok(written)) => {
            ctx.metrics.status_writes.inc();
            let now = ctx.clock.monotonic();
            ctx.memory
                .with(&cluster.uid, |memory| memory.status_written = Some(now));
            Ok(written)
        }
    }
}
