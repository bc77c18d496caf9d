//! Claims that are to grow are asked for more.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::Api;
use serde_json::json;

use super::Pass;
use crate::apply::merge;
use crate::decide::Ask;
use crate::error::ReconcileError;

impl Pass<'_> {
    /// Asks for more room; returns why the API server refuses some of it, as it does where the storage class does
    /// not allow it. The rest of the pass goes on.
    pub(super) async fn grow(&self, asks: &[Ask]) -> Result<Option<String>, ReconcileError> {
        let mut refused = None;
        for ask in asks {
            match self.ask(ask).await {
                Ok(()) => {}
                Err(error) if error.is_about_one_object() => {
                    refused.get_or_insert(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    async fn ask(&self, ask: &Ask) -> Result<(), ReconcileError> {
        let Ask { claim, uid, size } = ask;
        let key = &self.cluster.key;
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.ctx.client.clone(), &key.namespace);
        // The UID is a precondition: a claim that was replaced since is looked at again first.
        let patch = json!({
            "metadata": {"uid": uid.0},
            "spec": {"resources": {"requests": {"storage": size}}},
        });
        let doing = format!("ask for {size} in claim {claim}");
        let _asked: PersistentVolumeClaim = merge(doing, &api, claim, &patch).await?;
        tracing::info!(cluster = %key, claim, size, "asked for more room");
        Ok(())
    }
}
