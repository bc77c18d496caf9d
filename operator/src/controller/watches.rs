//! Watches and the caches that they fill.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Resource};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{PredicateConfig, WatchStreamExt as _, predicates, watcher};
use serde::de::DeserializeOwned;

use super::{Guarded, Scope, Trigger, Triggers};
use crate::error::{code, describe};
use crate::observe::OwnedKind;
use crate::observe::inventory::{CachedInventory, MANAGED_BY, OF_A_STORE};
use crate::observe::views::{INSTANCE_LABEL, is_cordoned};

/// Between two looks for a kind that the API server did not know.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Everything that one scope watches.
pub(super) struct Watched {
    pub(super) clusters: Store<Guarded>,
    pub(super) triggers: Vec<Triggers>,
    pub(super) inventory: CachedInventory,
    pub(super) ready: Ready,
}

/// Waits until every cache was filled once, but for those of kinds that the API server does not know yet.
pub(super) struct Ready {
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    nodes: Option<Store<Node>>,
    owned: Vec<Store<DynamicObject>>,
}

impl Ready {
    pub(super) async fn wait(&self) {
        // A writer that is gone means that the process ends.
        let _ended = self.pods.wait_until_ready().await;
        let _ended = self.claims.wait_until_ready().await;
        if let Some(nodes) = &self.nodes {
            let _ended = nodes.wait_until_ready().await;
        }
        for store in &self.owned {
            let _ended = store.wait_until_ready().await;
        }
    }
}

/// Begins every watch of a scope.
pub(super) async fn watch(scope: &Scope, client: &Client) -> Watched {
    let (clusters, main) = primary(scope, client);
    let mut triggers = vec![main];
    let (pods, pod_changes) = secondary::<Pod>(typed(scope, client), OF_A_STORE, ());
    let (claims, claim_changes) =
        secondary::<PersistentVolumeClaim>(typed(scope, client), OF_A_STORE, ());
    triggers.extend([pod_changes, claim_changes]);
    let (mut owned, mut served) = (Vec::new(), Vec::new());
    for kind in OwnedKind::ALL {
        let resource = kind.resource();
        let objects = dynamic(scope, client, &resource);
        let is_known = !kind.is_optional() || is_served(&objects).await;
        if !is_known {
            tracing::info!(kind = resource.kind, "the API server does not know it yet");
        }
        let (store, changes) = secondary(objects.clone(), MANAGED_BY, resource);
        owned.push((*kind, store.clone()));
        if is_known {
            served.push(store);
            triggers.push(changes);
            continue;
        }
        let known = move || {
            let objects = objects.clone();
            async move { is_served(&objects).await }
        };
        triggers.push(when_known(known, changes));
    }
    let nodes = nodes(client, pods.clone()).await.map(|(store, changes)| {
        triggers.push(changes);
        store
    });
    Watched {
        clusters,
        triggers,
        ready: Ready {
            pods: pods.clone(),
            claims: claims.clone(),
            nodes: nodes.clone(),
            owned: served,
        },
        inventory: CachedInventory {
            pods,
            claims,
            nodes,
            owned,
        },
    }
}

/// Begins a watch once its kind is known: who installs its CRD later restarts nothing.
fn when_known<F>(known: impl Fn() -> F + Send + 'static, changes: Triggers) -> Triggers
where
    F: Future<Output = bool> + Send + 'static,
{
    let wait = async move {
        while !known().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        changes
    };
    Box::pin(stream::once(wait).flatten())
}

/// The clusters themselves. Their status is ours: only spec, annotations and deletion trigger.
fn primary(scope: &Scope, client: &Client) -> (Store<Guarded>, Triggers) {
    let (store, writer) = reflector::store();
    let changes = watcher(typed(scope, client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .predicate_filter(
            |cluster: &Guarded| Some(interesting(cluster)),
            PredicateConfig::default(),
        );
    let triggers = changes
        .map(|change| -> Trigger { change.map(|cluster| ObjectRef::from_obj(&cluster).into()) });
    (store, Box::pin(triggers))
}

fn interesting(cluster: &Guarded) -> u64 {
    let generation = predicates::generation(cluster).unwrap_or(0);
    let annotations = predicates::annotations(cluster).unwrap_or(0);
    let deleting = u64::from(cluster.meta().deletion_timestamp.is_some());
    generation.rotate_left(32) ^ annotations ^ deleting
}

/// Objects that belong to a cluster by label.
fn secondary<K>(
    api: Api<K>,
    labels: &str,
    kind: <K as Resource>::DynamicType,
) -> (Store<K>, Triggers)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    <K as Resource>::DynamicType: Eq + Hash + Clone + Send + Sync + 'static,
{
    let writer = reflector::store::Writer::new(kind);
    let store = writer.as_reader();
    let changes = watcher(api, watcher::Config::default().labels(labels))
        .default_backoff()
        .modify(|object: &mut K| {
            // Nobody here reads them, and they are half of an object.
            object.meta_mut().managed_fields = None;
        })
        .reflect(writer)
        .touched_objects();
    let triggers = changes.filter_map(|change| async move {
        match change {
            Ok(object) => owner(object.meta()).map(|owner| Ok(owner.into())),
            Err(error) => Some(Err(error)),
        }
    });
    (store, Box::pin(triggers))
}

/// The cluster that an object says it belongs to.
fn owner(metadata: &kube::api::ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let name = metadata.labels.as_ref()?.get(INSTANCE_LABEL)?;
    let namespace = metadata.namespace.as_ref()?;
    Some(ObjectRef::<Guarded>::new(name).within(namespace))
}

/// Nodes, where they may be read. A drain begins with a cordon: it triggers the clusters that have pods on the node.
/// A node that goes away changes what a cluster waits for, which the next look shows; it triggers nothing.
async fn nodes(client: &Client, pods: Store<Pod>) -> Option<(Store<Node>, Triggers)> {
    let api: Api<Node> = Api::all(client.clone());
    if let Err(error) = api.list_metadata(&ListParams::default().limit(1)).await {
        if code(&error) == Some(403) {
            tracing::info!("nodes may not be read: zones come from pods, node loss is not told");
            return None;
        }
        tracing::warn!(error = describe(&error), "cannot read nodes yet");
    }
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|node: &mut Node| {
            node.metadata.managed_fields = None;
            if let Some(status) = &mut node.status {
                status.images = None;
            }
        })
        .reflect(writer)
        .touched_objects()
        .predicate_filter(
            |node: &Node| Some(u64::from(is_cordoned(node))),
            PredicateConfig::default(),
        );
    let triggers = changes.flat_map(move |change| match change {
        Ok(node) => stream::iter(
            clusters_on(&node, &pods.state())
                .into_iter()
                .map(|cluster| Ok(cluster.into()))
                .collect::<Vec<Trigger>>(),
        ),
        Err(error) => stream::iter(vec![Err(error)]),
    });
    Some((store, Box::pin(triggers)))
}

/// The clusters that have pods on a node.
fn clusters_on(node: &Node, pods: &[Arc<Pod>]) -> HashSet<ObjectRef<Guarded>> {
    let is_on = |pod: &&Arc<Pod>| {
        let runs_on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        runs_on.is_some() && runs_on == node.metadata.name.as_ref()
    };
    let on_it = pods.iter().filter(is_on);
    on_it.filter_map(|pod| owner(&pod.metadata)).collect()
}

async fn is_served(api: &Api<DynamicObject>) -> bool {
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => true,
        Err(error) => code(&error) != Some(404),
    }
}

fn typed<K>(scope: &Scope, client: &Client) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match scope {
        Scope::All => Api::all(client.clone()),
        Scope::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

fn dynamic(scope: &Scope, client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
    match scope {
        Scope::All => Api::all_with(client.clone(), resource),
        Scope::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, cluster: &str, node: Option<&str>) -> Arc<Pod> {
        let pod = json!({"metadata": {"namespace": namespace, "labels": {INSTANCE_LABEL: cluster}},
            "spec": {"nodeName": node, "containers": []}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_whose_crd_comes_later_is_watched_from_then_on() {
        let asked = Arc::new(AtomicUsize::new(0));
        let known = {
            let asked = Arc::clone(&asked);
            move || std::future::ready(asked.fetch_add(1, Ordering::Relaxed) == 2)
        };
        let cluster = ObjectRef::<Guarded>::new("a").within("x");
        let change: Trigger = Ok(cluster.clone().into());
        let mut triggers = when_known(known, Box::pin(stream::iter([change])));
        let begun = tokio::time::Instant::now();
        let first = triggers.next().await.unwrap().unwrap();
        assert_eq!(first.obj_ref, cluster);
        assert_eq!(begun.elapsed(), 2 * LOOK_AGAIN);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_cordon_leads_to_a_pass_over_each_cluster_with_pods_on_the_node() {
        let pods = [
            pod("x", "a", Some("n")),
            pod("x", "a", Some("n")),
            pod("y", "a", Some("n")),
            pod("x", "b", Some("m")),
            pod("x", "c", None),
        ];
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let found = clusters_on(&node, &pods);
        let expected = ["x", "y"].map(|namespace| ObjectRef::<Guarded>::new("a").within(namespace));
        assert_eq!(found, HashSet::from(expected));
        let unnamed = Node::default();
        assert!(clusters_on(&unnamed, &pods).is_empty());
    }
}
