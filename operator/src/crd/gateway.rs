//! The doors, and who may come near.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_GATEWAYS;
use super::pods::ResourcesSpec;
use super::rules;
use super::scheduling::PodScheduling;
use super::text::{Annotations, Labels};

/// The gateways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// How many gateways.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = MAX_GATEWAYS))]
    pub replicas: i32,
    /// Requests and limits of each gateway's container.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// Where gateways may run.
    #[serde(default)]
    pub scheduling: PodScheduling,
    /// The Service in front of them.
    #[serde(default)]
    pub service: ServiceSpec,
    /// A door by Ingress; none if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,
    /// A door by the Gateway API; none if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteSpec>,
    /// Networks (CIDR) of the proxies in front, whose X-Forwarded-For tells the client's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(max = 43)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::cidrs())
    )]
    pub trusted_proxies: Vec<String>,
}

const fn default_replicas() -> i32 {
    2
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            resources: ResourcesSpec::default(),
            scheduling: PodScheduling::default(),
            service: ServiceSpec::default(),
            ingress: None,
            http_route: None,
            trusted_proxies: Vec::new(),
        }
    }
}

/// The gateways' Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Who reaches it.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Annotations for whoever provides load balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// Who reaches a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::enum_variant_names, reason = "the words of Kubernetes")]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

impl ServiceType {
    /// As in a Service.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// A door by Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// Ingress class; the cluster's default if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Host name that clients use.
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        )
    )]
    pub host: String,
    /// Secret with the host's certificate; plain HTTP if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret: Option<String>,
    /// Annotations for the ingress controller, such as limits of bodies and times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// A door by the Gateway API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// Gateways that carry it.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// Host names that clients use; all of the listener's if none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 253),
            regex(
                pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
            )
        )
    )]
    pub hostnames: Vec<String>,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the cluster's own if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// One listener of it; all if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// Who may reach the store's pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Enabled: tracker and datanodes are closed to all but the store's own pods and the operator.
    #[serde(default)]
    pub mode: Switch,
    /// Who may reach the gateways; everyone if empty. An ingress controller is a client too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub allowed_clients: Vec<AllowedClient>,
    /// Who may reach the admin ports of all pods, for their metrics; nobody if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub monitoring: Vec<AllowedClient>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Switch {
    #[default]
    Enabled,
    Disabled,
}

/// Pods or addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::allowed_client()))]
pub struct AllowedClient {
    /// Labels of pods; all pods of the namespaces if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_labels: Option<Labels>,
    /// Labels of namespaces; the cluster's own namespace if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_labels: Option<Labels>,
    /// A network, instead of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43), extend("x-kubernetes-validations" = rules::cidr()))]
    pub cidr: Option<String>,
}
