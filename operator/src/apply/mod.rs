//! Writes: server-side apply with one field manager, forced on our own fields. An object that is
//! as wanted is not written at all.

pub mod compare;
mod guard;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::crd::DfsCluster;
use crate::error::{ReconcileError, code};
use crate::metrics::{ApplyResult, Metrics};
use crate::observe::{Inventory, OwnedKind, Uid};
use crate::validate::ClusterKey;

/// Owner of every field that this operator writes.
pub const FIELD_MANAGER: &str = "dfs-operator";
/// How long one write may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// One object as it should be.
#[derive(Debug, Clone)]
pub struct Desired {
    /// What it is.
    pub kind: OwnedKind,
    /// Its name.
    pub name: String,
    /// All of it, as JSON.
    pub json: Value,
    /// A StatefulSet keeps the replicas that it has, whatever `json` says.
    pub keeps_replicas: bool,
    /// Replicas of a StatefulSet that does not exist, whatever `json` says: those that it had.
    pub had_replicas: Option<i32>,
}

impl Desired {
    /// From a typed object.
    pub fn typed<K>(kind: OwnedKind, object: &K) -> Result<Self, ReconcileError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize,
    {
        let name = object.meta().name.clone().unwrap_or_default();
        Self::json(kind, name, serde_json::to_value(object))
    }

    /// From an object whose type is only known to the API server.
    pub fn dynamic(kind: OwnedKind, object: &DynamicObject) -> Result<Self, ReconcileError> {
        let name = object.metadata.name.clone().unwrap_or_default();
        Self::json(kind, name, serde_json::to_value(object))
    }

    fn json(
        kind: OwnedKind,
        name: String,
        json: serde_json::Result<Value>,
    ) -> Result<Self, ReconcileError> {
        let mut json = json.map_err(|error| {
            ReconcileError::Internal(format!("cannot write {name} as JSON: {error}"))
        })?;
        if let Value::Object(fields) = &mut json {
            let resource = kind.resource();
            fields.insert("apiVersion".to_owned(), Value::String(resource.api_version));
            fields.insert("kind".to_owned(), Value::String(resource.kind));
            fields.remove("status");
        }
        Ok(Self {
            kind,
            name,
            json: compare::stamped(json),
            keeps_replicas: false,
            had_replicas: None,
        })
    }
}

/// What writes that changed nothing have shown: the API server keeps some values in another
/// spelling than ours (`1000m` for `1`), which must not be taken for drift for ever.
#[derive(Debug, Default)]
pub struct Settled(Mutex<BTreeMap<(Uid, String), String>>);

/// Most objects that are remembered.
const MAX_SETTLED: usize = 20_000;

impl Settled {
    fn knows(&self, live: &DynamicObject, hash: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&marker(live)).is_some_and(|known| known == hash)
    }

    fn learn(&self, live: &DynamicObject, hash: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SETTLED {
            known.clear();
        }
        let (uid, version) = marker(live);
        known.retain(|(other, _), _| *other != uid);
        known.insert((uid, version), hash.to_owned());
    }
}

/// An object's spec: its generation where it has one, its version otherwise.
fn marker(object: &DynamicObject) -> (Uid, String) {
    let metadata = &object.metadata;
    let generation = metadata
        .generation
        .map(|number| format!("generation {number}"));
    let version = generation.or_else(|| metadata.resource_version.clone());
    (
        Uid(metadata.uid.clone().unwrap_or_default()),
        version.unwrap_or_default(),
    )
}

/// An object that the API server, or a stranger's object in its place, does not let be.
#[derive(Debug)]
pub struct Refused {
    /// What it would have been.
    pub kind: OwnedKind,
    /// Why not.
    pub error: ReconcileError,
}

impl Refused {
    /// Whether the tracker may not be told anything: the ConfigMap holds the id that protects the
    /// datanodes from a tracker that starts afresh, and the tracker's StatefulSet hands it over.
    pub fn stops_everything(&self) -> bool {
        matches!(self.kind, OwnedKind::StatefulSet | OwnedKind::ConfigMap)
    }
}

/// Writes one cluster's objects.
pub struct Applier<'a> {
    /// The API server.
    pub client: &'a Client,
    /// What exists, as far as caches know.
    pub inventory: &'a dyn Inventory,
    /// Which cluster.
    pub key: &'a ClusterKey,
    /// The UID of its `DfsCluster`.
    pub owner: &'a Uid,
    /// The `DfsCluster` from which everything is made.
    pub seen: &'a DfsCluster,
    /// What is counted.
    pub metrics: &'a Metrics,
    /// What is remembered.
    pub settled: &'a Settled,
}

impl Applier<'_> {
    /// Applies every object and removes those that are no longer wanted. One object that is refused
    /// does not keep the others from being applied; the weightiest such refusal is returned.
    pub async fn apply_all(&self, wanted: &[Desired]) -> Result<Option<Refused>, ReconcileError> {
        let mut refused: Option<Refused> = None;
        for kind in OwnedKind::ALL {
            let live = self.inventory.owned(*kind, self.key).await?;
            for desired in wanted.iter().filter(|desired| desired.kind == *kind) {
                match self.apply(desired, find(&live, &desired.name)).await {
                    Ok(result) => self.metrics.applies.inc(result),
                    Err(error) if error.is_about_one_object() => {
                        let one = Refused { kind: *kind, error };
                        if one.stops_everything() || refused.is_none() {
                            refused = Some(one);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if kind.is_prunable() {
                self.prune(*kind, wanted, &live).await?;
            }
        }
        Ok(refused)
    }

    async fn apply(
        &self,
        desired: &Desired,
        cached: Option<&DynamicObject>,
    ) -> Result<ApplyResult, ReconcileError> {
        let hash = &desired.json["metadata"]["annotations"][compare::HASH];
        let hash = hash.as_str().unwrap_or_default();
        if let Some(live) = cached
            && (is_as_wanted(live, desired)? || self.settled.knows(live, hash))
        {
            return Ok(ApplyResult::Unchanged);
        }
        // A cache may be behind: the last look before a write is at the API server itself.
        let api = self.api(desired.kind);
        let doing = format!("read {} {}", desired.kind.resource().kind, desired.name);
        let live = answered(doing, api.get_opt(&desired.name)).await?;
        if let Some(live) = &live {
            guard::ours(live, self.owner, &desired.kind.resource().kind)?;
            if is_as_wanted(live, desired)? || is_ending(live, desired) {
                return Ok(ApplyResult::Unchanged);
            }
        } else if desired.kind == OwnedKind::StatefulSet {
            // How many replicas it had stands in the newest status, or nowhere.
            is_current(self.client, self.key, self.seen).await?;
        }
        let json = guard::guarded(desired, live.as_ref())?;
        let written = self.write(&api, desired, &json).await?;
        let result = match &live {
            None => ApplyResult::Created,
            Some(live) if live.metadata.resource_version == written.metadata.resource_version => {
                ApplyResult::Repeated
            }
            Some(_) => ApplyResult::Changed,
        };
        if !is_as_wanted(&written, desired)? {
            self.settled.learn(&written, hash);
        }
        tracing::info!(cluster = %self.key, kind = %desired.kind.resource().kind,
            name = desired.name, ?result, "applied");
        Ok(result)
    }

    async fn write(
        &self,
        api: &Api<DynamicObject>,
        desired: &Desired,
        json: &Value,
    ) -> Result<DynamicObject, ReconcileError> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(json);
        let doing = format!("apply {} {}", desired.kind.resource().kind, desired.name);
        match bounded(api.patch(&desired.name, &parameters, &patch)).await {
            None => Err(ReconcileError::Timeout(WRITE_TIMEOUT)),
            Some(Err(error)) => {
                if code(&error) == Some(409) {
                    self.metrics.conflicts.inc();
                }
                Err(ReconcileError::api(doing)(error))
            }
            Some(Ok(written)) => Ok(written),
        }
    }

    /// Removes what the spec no longer asks for: doors, budgets and policies, never what keeps data.
    async fn prune(
        &self,
        kind: OwnedKind,
        wanted: &[Desired],
        live: &[DynamicObject],
    ) -> Result<(), ReconcileError> {
        for object in live {
            let name = object.metadata.name.clone().unwrap_or_default();
            let is_wanted = wanted
                .iter()
                .any(|desired| desired.kind == kind && desired.name == name);
            if is_wanted || guard::ours(object, self.owner, &kind.resource().kind).is_err() {
                continue;
            }
            // Exactly the object that was seen: one that changed since is looked at again first.
            let parameters = DeleteParams::default().preconditions(Preconditions {
                uid: object.metadata.uid.clone(),
                resource_version: object.metadata.resource_version.clone(),
            });
            let api = self.api(kind);
            match bounded(api.delete(&name, &parameters)).await {
                None => return Err(ReconcileError::Timeout(WRITE_TIMEOUT)),
                Some(Err(error)) if code(&error) == Some(404) => {}
                Some(Err(error)) => {
                    let doing = format!("delete {} {name}", kind.resource().kind);
                    return Err(ReconcileError::api(doing)(error));
                }
                Some(Ok(_)) => self.metrics.applies.inc(ApplyResult::Pruned),
            }
        }
        Ok(())
    }

    fn api(&self, kind: OwnedKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.key.namespace, &kind.resource())
    }
}

fn find<'a>(live: &'a [DynamicObject], name: &str) -> Option<&'a DynamicObject> {
    live.iter()
        .find(|object| object.metadata.name.as_deref() == Some(name))
}

/// A StatefulSet that is being deleted is made again when it is gone.
fn is_ending(live: &DynamicObject, desired: &Desired) -> bool {
    desired.kind == OwnedKind::StatefulSet && live.metadata.deletion_timestamp.is_some()
}

/// Refuses to go on from a `DfsCluster` that has changed since it was seen: what it records may be over.
pub(crate) async fn is_current(
    client: &Client,
    key: &ClusterKey,
    seen: &DfsCluster,
) -> Result<(), ReconcileError> {
    let api: Api<DfsCluster> = Api::namespaced(client.clone(), &key.namespace);
    let live = answered("read the DfsCluster again", api.get(&key.name)).await?;
    let same = live.metadata.uid == seen.metadata.uid
        && live.metadata.resource_version == seen.metadata.resource_version;
    same.then_some(())
        .ok_or_else(|| ReconcileError::Outdated(key.to_string()))
}

fn is_as_wanted(live: &DynamicObject, desired: &Desired) -> Result<bool, ReconcileError> {
    let mut json = serde_json::to_value(live).map_err(|error| {
        ReconcileError::Internal(format!("cannot read {} as JSON: {error}", desired.name))
    })?;
    // Items of a list do not say what they are; whoever listed them knows.
    for known in ["apiVersion", "kind"] {
        json[known] = desired.json[known].clone();
    }
    Ok(compare::contains(&json, &desired.json))
}

/// What the API server answers to a call that does `doing`; too long a wait is an error as well.
pub(crate) async fn answered<T>(
    doing: impl Into<String>,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ReconcileError> {
    let answer = bounded(call).await;
    answer
        .ok_or(ReconcileError::Timeout(WRITE_TIMEOUT))?
        .map_err(ReconcileError::api(doing))
}

/// Changes these fields of an object, as the operator. What must hold of it stands in `patch`: its UID, its version.
pub(crate) async fn merge<K>(
    doing: impl Into<String>,
    api: &Api<K>,
    name: &str,
    patch: &Value,
) -> Result<K, ReconcileError>
where
    K: Clone + DeserializeOwned + fmt::Debug,
{
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    answered(doing, api.patch(name, &parameters, &Patch::Merge(patch))).await
}

/// None when it took too long: whether the call took effect is unknown, and the next reconcile looks.
pub(crate) async fn bounded<T>(call: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(WRITE_TIMEOUT, call).await.ok()
}
