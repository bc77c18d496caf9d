//! Who may talk to whom: everything that is not listed here is closed. Admin listeners are open to
//! those that the spec names, for metrics; probes come from the Kubernetes node, which no policy keeps out.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use dfs_runtime::trace::Collector;

use super::labels::{Component, metadata, owned, selector};
use super::pod::non_empty;
use super::{Frame, ports};
use crate::crd::AllowedClient;

pub(super) fn policies(frame: &Frame<'_>) -> Vec<NetworkPolicy> {
    use Component::{Datanode, Gateway, Tracker};
    let pods = |component| pods(frame, component);
    let peers = [
        pods(Tracker),
        pods(Gateway),
        pods(Datanode),
        operator(frame),
    ];
    let [_, gateways, datanodes, operators] = peers.clone();
    let to_tracker = || outgoing(Some(vec![pods(Tracker)]), &[("TCP", ports::TRACKER)]);
    let to_datanodes = || outgoing(Some(vec![pods(Datanode)]), &[("TCP", ports::DATANODE)]);
    vec![
        policy(
            frame,
            Tracker,
            incoming(Some(vec![gateways, datanodes, operators]), ports::TRACKER),
            vec![to_datanodes(), names()],
        ),
        policy(
            frame,
            Datanode,
            incoming(Some(peers.to_vec()), ports::DATANODE),
            vec![to_tracker(), to_datanodes(), names()],
        ),
        policy(
            frame,
            Gateway,
            // No peers means everyone.
            incoming(
                non_empty(
                    frame
                        .spec
                        .network_policy
                        .allowed_clients
                        .iter()
                        .map(client)
                        .collect(),
                ),
                ports::GATEWAY,
            ),
            vec![to_tracker(), to_datanodes(), names()],
        ),
    ]
}

fn policy(
    frame: &Frame<'_>,
    component: Component,
    ingress: NetworkPolicyIngressRule,
    mut egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    let mut ingress = vec![ingress];
    ingress.extend(metrics(frame, component));
    egress.extend(traces(frame));
    NetworkPolicy {
        metadata: metadata(frame, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(frame.name, component)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

/// Who reads a component's metrics. No rule where nobody is named: a rule without peers is for everyone.
fn metrics(frame: &Frame<'_>, component: Component) -> Option<NetworkPolicyIngressRule> {
    let named = frame.spec.network_policy.monitoring.iter().map(client);
    let peers = non_empty(named.collect())?;
    let port = component.port() + ports::ADMIN_OFFSET;
    Some(incoming(Some(peers), port))
}

/// The collector's port, wherever the collector is.
fn traces(frame: &Frame<'_>) -> Option<NetworkPolicyEgressRule> {
    let tracing = frame.spec.monitoring.tracing.as_ref()?;
    let collector: Collector = tracing.endpoint.parse().ok()?;
    Some(outgoing(None, &[("TCP", i32::from(collector.port()))]))
}

fn incoming(from: Option<Vec<NetworkPolicyPeer>>, port: i32) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from,
        ports: Some(vec![numbered("TCP", port)]),
    }
}

fn outgoing(to: Option<Vec<NetworkPolicyPeer>>, ports: &[(&str, i32)]) -> NetworkPolicyEgressRule {
    let ports = ports
        .iter()
        .map(|(protocol, port)| numbered(protocol, *port));
    NetworkPolicyEgressRule {
        to,
        ports: Some(ports.collect()),
    }
}

/// Name resolution, wherever the Kubernetes cluster keeps it: as pods, on the node, outside.
fn names() -> NetworkPolicyEgressRule {
    outgoing(None, &[("UDP", ports::DNS), ("TCP", ports::DNS)])
}

fn numbered(protocol: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port)),
        ..NetworkPolicyPort::default()
    }
}

fn pods(frame: &Frame<'_>, component: Component) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(selector(frame.name, component)),
        ..NetworkPolicyPeer::default()
    }
}

/// The operator's pods. Where its namespace is not known, its name has to do.
fn operator(frame: &Frame<'_>) -> NetworkPolicyPeer {
    let mut labels = owned([("app.kubernetes.io/component", "operator")]);
    let namespaces = if let Some(namespace) = frame.operator_namespace {
        labelled(owned([("kubernetes.io/metadata.name", namespace)]))
    } else {
        labels.extend(owned([("app.kubernetes.io/name", "dfs-operator")]));
        LabelSelector::default()
    };
    NetworkPolicyPeer {
        pod_selector: Some(labelled(labels)),
        namespace_selector: Some(namespaces),
        ..NetworkPolicyPeer::default()
    }
}

fn client(spec: &AllowedClient) -> NetworkPolicyPeer {
    let AllowedClient {
        pod_labels,
        namespace_labels,
        cidr,
    } = spec;
    let selector = |labels: &crate::crd::Labels| labelled(labels.0.clone());
    NetworkPolicyPeer {
        pod_selector: pod_labels.as_ref().map(selector),
        namespace_selector: namespace_labels.as_ref().map(selector),
        ip_block: cidr.as_ref().map(|cidr| IPBlock {
            cidr: cidr.clone(),
            ..IPBlock::default()
        }),
    }
}

fn labelled(labels: std::collections::BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        ..LabelSelector::default()
    }
}
