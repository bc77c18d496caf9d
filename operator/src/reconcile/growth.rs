//! Volumes that are to grow: each claim is asked for more. Nothing here makes one smaller.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::Api;
use serde_json::json;

use super::Pass;
use crate::apply::{Refused, merge};
use crate::build::{Component, growth};
use crate::error::ReconcileError;
use crate::names;
use crate::observe::{ClaimView, Observed};

impl Pass<'_> {
    /// Asks for more room where the spec wants more; returns why the API server refuses some, as it
    /// does where the storage class does not allow it.
    pub(super) async fn grow(
        &self,
        observed: &Observed,
    ) -> Result<Option<Refused>, ReconcileError> {
        let mut refused = None;
        for claim in observed.claims.iter().filter(|claim| !claim.deleting) {
            let (Some(component), Some(asked)) = (self.component(claim), &claim.asked) else {
                continue;
            };
            let wanted = growth(&self.object.spec, component, asked)
                .map_err(|error| ReconcileError::Internal(error.to_string()))?;
            let Some(size) = wanted else { continue };
            match self.ask(claim, &size.to_kubernetes().0).await {
                Ok(()) => {}
                Err(error) if error.is_about_one_object() => {
                    refused = Some(Refused { kind: None, error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Whose claim it is, by its name: exactly those that the StatefulSets make.
    fn component(&self, claim: &ClaimView) -> Option<Component> {
        let pod = claim.name.strip_prefix("data-")?;
        let cluster = &self.cluster.key.name;
        let tracker = names::ordinal(&names::tracker_set(cluster), pod);
        let datanode = names::ordinal(&names::datanode_set(cluster), pod);
        match (tracker, datanode) {
            (Some(_), _) => Some(Component::Tracker),
            (None, Some(_)) => Some(Component::Datanode),
            (None, None) => None,
        }
    }

    async fn ask(&self, claim: &ClaimView, size: &str) -> Result<(), ReconcileError> {
        let key = &self.cluster.key;
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.ctx.client.clone(), &key.namespace);
        // The UID is a precondition: a claim that was replaced since is looked at again first.
        let patch = json!({
            "metadata": {"uid": claim.uid.0},
            "spec": {"resources": {"requests": {"storage": size}}},
        });
        let doing = format!("ask for {size} in claim {}", claim.name);
        let _asked: PersistentVolumeClaim = merge(doing, &api, &claim.name, &patch).await?;
        tracing::info!(cluster = %key, claim = claim.name, size, "asked for more room");
        Ok(())
    }
}
