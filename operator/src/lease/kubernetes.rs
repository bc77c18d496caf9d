//! The lock as a `Lease` object.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};

use super::{Held, LEASE, Lock, LockError, Record};
use crate::error::{code, describe};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// A `coordination.k8s.io/v1` Lease.
#[derive(Clone)]
pub struct LeaseLock {
    api: Api<Lease>,
    name: String,
}

impl std::fmt::Debug for LeaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseLock")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LeaseLock {
    /// The lease of this name.
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
        }
    }

    fn object(&self, record: &Record, over: Option<&str>) -> Lease {
        let seconds = i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: over.map(str::to_owned),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder.clone()),
                lease_duration_seconds: Some(seconds),
                acquire_time: Some(MicroTime(record.acquired)),
                renew_time: Some(MicroTime(record.renewed)),
                lease_transitions: Some(record.transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, LockError> {
    match tokio::time::timeout(CALL, call).await {
        Err(_) => Err(LockError::Failed(
            "the API server did not answer in time".to_owned(),
        )),
        Ok(Err(error)) if code(&error) == Some(409) => Err(LockError::Raced),
        Ok(Err(error)) => Err(LockError::Failed(describe(&error))),
        Ok(Ok(value)) => Ok(value),
    }
}

#[async_trait]
impl Lock for LeaseLock {
    async fn read(&self) -> Result<Option<Held>, LockError> {
        let Some(lease) = bounded(self.api.get_opt(&self.name)).await? else {
            return Ok(None);
        };
        let spec = lease.spec.unwrap_or_default();
        let epoch = jiff::Timestamp::UNIX_EPOCH;
        Ok(Some(Held {
            record: Record {
                holder: spec.holder_identity.unwrap_or_default(),
                renewed: spec.renew_time.map_or(epoch, |time| time.0),
                acquired: spec.acquire_time.map_or(epoch, |time| time.0),
                transitions: spec.lease_transitions.unwrap_or(0),
            },
            version: lease.metadata.resource_version.unwrap_or_default(),
        }))
    }

    async fn write(&self, record: &Record, over: Option<&str>) -> Result<(), LockError> {
        let object = self.object(record, over);
        let parameters = PostParams::default();
        if over.is_some() {
            bounded(self.api.replace(&self.name, &parameters, &object)).await?;
        } else {
            bounded(self.api.create(&parameters, &object)).await?;
        }
        Ok(())
    }
}
