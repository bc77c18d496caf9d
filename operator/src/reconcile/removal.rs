//! Writes that take something away. Each names exactly what was seen: the API server refuses it when
//! that has changed since.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, EvictParams, Preconditions};
use serde_json::json;

use super::Pass;
use crate::apply::{WRITE_TIMEOUT, answered, bounded, merge};
use crate::error::{ReconcileError, code};
use crate::observe::Uid;

impl Pass<'_> {
    /// Lowers a StatefulSet that asks for `from`. The version that was just read is a precondition.
    pub(super) async fn lower(
        &self,
        set: &str,
        uid: &Uid,
        from: i32,
        to: i32,
    ) -> Result<(), ReconcileError> {
        let key = &self.cluster.key;
        let (api, live) = self.asking_for(set, uid, from).await?;
        let patch = json!({
            "metadata": {"uid": uid.0, "resourceVersion": live.metadata.resource_version},
            "spec": {"replicas": to},
        });
        let doing = format!("lower StatefulSet {set} to {to}");
        let _lowered: StatefulSet = merge(doing, &api, set, &patch).await?;
        tracing::info!(cluster = %key, set, from, to, "lowered a StatefulSet");
        Ok(())
    }

    /// Exactly this StatefulSet as it is now, if it asks for so many replicas.
    async fn asking_for(
        &self,
        set: &str,
        uid: &Uid,
        replicas: i32,
    ) -> Result<(Api<StatefulSet>, StatefulSet), ReconcileError> {
        let key = &self.cluster.key;
        let api: Api<StatefulSet> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let live = answered(format!("read StatefulSet {set}"), api.get(set)).await?;
        let asks = live.spec.as_ref().and_then(|spec| spec.replicas);
        if live.metadata.uid.as_ref() != Some(&uid.0) || asks != Some(replicas) {
            return Err(ReconcileError::Outdated(key.to_string()));
        }
        Ok((api, live))
    }

    /// Ends exactly this pod, so that its StatefulSet makes it anew; one that serves only if the eviction API
    /// lets it. Returns whether it goes.
    pub(super) async fn restart(
        &self,
        pod: &str,
        uid: &Uid,
        within_budget: bool,
    ) -> Result<bool, ReconcileError> {
        let key = &self.cluster.key;
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        if !within_budget {
            return self.delete_pod(pod, uid, DeleteParams::default()).await;
        }
        let eviction = EvictParams {
            delete_options: Some(exactly(uid, DeleteParams::default())),
            ..EvictParams::default()
        };
        let evicted = bounded(api.evict(pod, &eviction)).await;
        if let Some(Err(error)) = &evicted
            && code(error) == Some(429)
        {
            tracing::info!(cluster = %key, pod, %error, "the budget lets no pod go now");
            return Ok(false);
        }
        took_away(format!("restart pod {pod}"), evicted)
    }

    /// Deletes a StatefulSet that asks for `replicas` and leaves its pods alone. The version that was just read is
    /// a precondition.
    pub(super) async fn orphan(
        &self,
        set: &str,
        uid: &Uid,
        replicas: i32,
    ) -> Result<(), ReconcileError> {
        let key = &self.cluster.key;
        let (api, live) = self.asking_for(set, uid, replicas).await?;
        let parameters = DeleteParams::orphan().preconditions(Preconditions {
            uid: Some(uid.0.clone()),
            resource_version: live.metadata.resource_version,
        });
        let doing = format!("delete StatefulSet {set} without its pods");
        answered(doing, api.delete(set, &parameters)).await?;
        tracing::info!(cluster = %key, set, replicas, "a StatefulSet is made anew");
        Ok(())
    }

    /// Deletes exactly this claim.
    pub(super) async fn delete_claim(&self, name: &str, uid: &Uid) -> Result<(), ReconcileError> {
        let key = &self.cluster.key;
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let doing = format!("delete claim {name}");
        let parameters = exactly(uid, DeleteParams::default());
        if took_away(doing, bounded(api.delete(name, &parameters)).await)? {
            tracing::info!(cluster = %key, claim = name, %uid, "deleted the claim of a removed datanode");
        }
        Ok(())
    }

    /// Deletes exactly this pod, in the way that `parameters` say. Returns whether it was there.
    pub(super) async fn delete_pod(
        &self,
        name: &str,
        uid: &Uid,
        parameters: DeleteParams,
    ) -> Result<bool, ReconcileError> {
        let key = &self.cluster.key;
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let parameters = exactly(uid, parameters);
        let deleted = bounded(api.delete(name, &parameters)).await;
        let goes = took_away(format!("delete pod {name}"), deleted)?;
        if goes {
            let grace = parameters.grace_period_seconds;
            tracing::info!(cluster = %key, pod = name, %uid, grace, "deleted a pod");
        }
        Ok(goes)
    }
}

/// Only the object of this UID.
fn exactly(uid: &Uid, parameters: DeleteParams) -> DeleteParams {
    parameters.preconditions(Preconditions {
        uid: Some(uid.0.clone()),
        resource_version: None,
    })
}

/// Whether a deletion found something: what is gone already needs none.
fn took_away<T>(
    doing: String,
    answer: Option<Result<T, kube::Error>>,
) -> Result<bool, ReconcileError> {
    match answer.ok_or(ReconcileError::Timeout(WRITE_TIMEOUT))? {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(404) => Ok(false),
        Err(error) => Err(ReconcileError::api(doing)(error)),
    }
}
