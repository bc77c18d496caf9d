//! Where API objects are read: live from the API server, or from the caches that watches fill.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::reflector::{ObjectRef, Store};

use super::views::{self, INSTANCE_LABEL};
use super::{ClaimView, NodeSight, PodView};
use crate::error::{ReconcileError, code};
use crate::validate::ClusterKey;

/// Label of everything that this operator applies.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by=dfs-operator";
/// Label of everything that runs or keeps a store.
pub const OF_A_STORE: &str = "app.kubernetes.io/name=dfs";

macro_rules! owned_kinds {
    ($($(#[$doc:meta])* $name:ident = $group:literal, $version:literal, $plural:literal;)*) => {
        /// Kinds of objects that belong to a cluster and are compared before they are written.
        /// Secrets are not among them: they are read by name, so that the operator needs no right
        /// to list every Secret.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OwnedKind { $($(#[$doc])* $name,)* }

        impl OwnedKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Where the API server serves it.
            pub fn resource(self) -> ApiResource {
                let (group, version, kind, plural) = match self {
                    $(Self::$name => ($group, $version, stringify!($name), $plural),)*
                };
                ApiResource {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    api_version: if group.is_empty() {
                        version.to_owned()
                    } else {
                        format!("{group}/{version}")
                    },
                    kind: kind.to_owned(),
                    plural: plural.to_owned(),
                }
            }
        }
    };
}

// In the order in which they are applied: what pods need comes before pods.
owned_kinds! {
    /// Who a pod is.
    ServiceAccount = "", "v1", "serviceaccounts";
    /// Settings.
    ConfigMap = "", "v1", "configmaps";
    /// A stable address.
    Service = "", "v1", "services";
    /// Who may talk to whom.
    NetworkPolicy = "networking.k8s.io", "v1", "networkpolicies";
    /// Runs pods with volumes.
    StatefulSet = "apps", "v1", "statefulsets";
    /// Runs pods that need no volume.
    Deployment = "apps", "v1", "deployments";
    /// How many may be evicted.
    PodDisruptionBudget = "policy", "v1", "poddisruptionbudgets";
    /// A door.
    Ingress = "networking.k8s.io", "v1", "ingresses";
    /// A door of the Gateway API; its CRD may be missing.
    HTTPRoute = "gateway.networking.k8s.io", "v1", "httproutes";
}

impl OwnedKind {
    /// Whether the API server may not know it.
    pub fn is_optional(self) -> bool {
        self == Self::HTTPRoute
    }

    /// Whether an object of this kind is removed when the spec no longer asks for it. What keeps
    /// data or runs it is never removed.
    pub fn is_prunable(self) -> bool {
        match self {
            Self::Ingress | Self::HTTPRoute | Self::NetworkPolicy | Self::PodDisruptionBudget => {
                true
            }
            Self::Deployment
            | Self::StatefulSet
            | Self::Service
            | Self::ConfigMap
            | Self::ServiceAccount => false,
        }
    }
}

/// Reads what exists.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// The cluster's pods.
    async fn pods(&self, key: &ClusterKey) -> Result<Vec<PodView>, ReconcileError>;
    /// The cluster's claims.
    async fn claims(&self, key: &ClusterKey) -> Result<Vec<ClaimView>, ReconcileError>;
    /// A node.
    async fn node(&self, name: &str) -> Result<NodeSight, ReconcileError>;
    /// The cluster's objects of one kind.
    async fn owned(
        &self,
        kind: OwnedKind,
        key: &ClusterKey,
    ) -> Result<Vec<DynamicObject>, ReconcileError>;
}

/// Asks the API server each time.
#[derive(Clone)]
pub struct LiveInventory {
    client: Client,
}

impl LiveInventory {
    /// Over a client.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

fn sight(node: Option<&Node>) -> NodeSight {
    node.and_then(views::node)
        .map_or(NodeSight::Gone, NodeSight::There)
}

fn selector(key: &ClusterKey, more: &str) -> ListParams {
    ListParams::default().labels(&format!("{INSTANCE_LABEL}={},{more}", key.name))
}

#[async_trait]
impl Inventory for LiveInventory {
    async fn pods(&self, key: &ClusterKey) -> Result<Vec<PodView>, ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let list = api.list(&selector(key, OF_A_STORE)).await;
        let list = list.map_err(ReconcileError::api("list pods"))?;
        Ok(list.items.iter().filter_map(views::pod).collect())
    }

    async fn claims(&self, key: &ClusterKey) -> Result<Vec<ClaimView>, ReconcileError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let list = api.list(&selector(key, OF_A_STORE)).await;
        let list = list.map_err(ReconcileError::api("list claims"))?;
        Ok(list.items.iter().filter_map(views::claim).collect())
    }

    async fn node(&self, name: &str) -> Result<NodeSight, ReconcileError> {
        let api: Api<Node> = Api::all(self.client.clone());
        match api.get_opt(name).await {
            Ok(node) => Ok(sight(node.as_ref())),
            // Reading nodes is a separate permission that may not be granted.
            Err(error) if code(&error) == Some(403) => Ok(NodeSight::Unreadable),
            Err(error) => Err(ReconcileError::api(format!("read node {name}"))(error)),
        }
    }

    async fn owned(
        &self,
        kind: OwnedKind,
        key: &ClusterKey,
    ) -> Result<Vec<DynamicObject>, ReconcileError> {
        let resource = kind.resource();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        match api.list(&selector(key, MANAGED_BY)).await {
            Ok(list) => Ok(list.items),
            Err(error) if kind.is_optional() && code(&error) == Some(404) => Ok(Vec::new()),
            Err(error) => Err(ReconcileError::api(format!("list {}", resource.plural))(
                error,
            )),
        }
    }
}

/// Reads the caches of one scope (a namespace, or all of them).
pub struct CachedInventory {
    /// Pods of stores.
    pub pods: Store<Pod>,
    /// Claims of stores.
    pub claims: Store<PersistentVolumeClaim>,
    /// Nodes, where they may be read.
    pub nodes: Option<Store<Node>>,
    /// Objects that this operator applied.
    pub owned: Vec<(OwnedKind, Store<DynamicObject>)>,
}

fn belongs(metadata: &kube::api::ObjectMeta, key: &ClusterKey) -> bool {
    let labels = metadata.labels.as_ref();
    metadata.namespace.as_ref() == Some(&key.namespace)
        && labels.and_then(|labels| labels.get(INSTANCE_LABEL)) == Some(&key.name)
}

#[async_trait]
impl Inventory for CachedInventory {
    async fn pods(&self, key: &ClusterKey) -> Result<Vec<PodView>, ReconcileError> {
        let pods = self.pods.state_filter(|pod| belongs(&pod.metadata, key));
        Ok(pods.iter().filter_map(|pod| views::pod(pod)).collect())
    }

    async fn claims(&self, key: &ClusterKey) -> Result<Vec<ClaimView>, ReconcileError> {
        let claims = self
            .claims
            .state_filter(|claim| belongs(&claim.metadata, key));
        Ok(claims
            .iter()
            .filter_map(|claim| views::claim(claim))
            .collect())
    }

    async fn node(&self, name: &str) -> Result<NodeSight, ReconcileError> {
        let Some(nodes) = &self.nodes else {
            return Ok(NodeSight::Unreadable);
        };
        let node: Option<Arc<Node>> = nodes.get(&ObjectRef::new(name));
        Ok(sight(node.as_deref()))
    }

    async fn owned(
        &self,
        kind: OwnedKind,
        key: &ClusterKey,
    ) -> Result<Vec<DynamicObject>, ReconcileError> {
        let stores = self.owned.iter().filter(|(cached, _)| *cached == kind);
        let found: Vec<_> = stores
            .flat_map(|(_, store)| store.state_filter(|object| belongs(&object.metadata, key)))
            .collect();
        Ok(found.iter().map(|object| (**object).clone()).collect())
    }
}
