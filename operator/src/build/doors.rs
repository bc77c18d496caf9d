//! Doors for clients outside: Ingress and HTTPRoute.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use super::labels::{Component, metadata};
use super::{Frame, ports};
use crate::crd::{self, HttpRouteSpec};

pub(super) fn ingress(frame: &Frame<'_>, door: &crd::IngressSpec) -> Ingress {
    let crd::IngressSpec {
        class_name,
        host,
        tls_secret,
        annotations,
    } = door;
    let mut metadata = metadata(frame, Component::Gateway);
    metadata.annotations = annotations.as_ref().map(|all| all.0.clone());
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: Component::Gateway.object_name(frame.name),
            port: Some(ServiceBackendPort {
                name: Some(ports::API_NAME.to_owned()),
                ..ServiceBackendPort::default()
            }),
        }),
        ..IngressBackend::default()
    };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: class_name.clone(),
            tls: tls_secret.as_ref().map(|secret| {
                vec![IngressTLS {
                    hosts: Some(vec![host.clone()]),
                    secret_name: Some(secret.clone()),
                }]
            }),
            rules: Some(vec![IngressRule {
                host: Some(host.clone()),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![HTTPIngressPath {
                        path: Some("/".to_owned()),
                        path_type: "Prefix".to_owned(),
                        backend,
                    }],
                }),
            }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

/// The Gateway API's own types are not among the bindings; one route needs no crate of them.
pub(super) fn http_route(frame: &Frame<'_>, door: &HttpRouteSpec) -> DynamicObject {
    let HttpRouteSpec {
        parent_refs,
        hostnames,
    } = door;
    let parents: Vec<Value> = parent_refs.iter().map(parent).collect();
    let mut spec = json!({
        "parentRefs": parents,
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{
                "group": "",
                "kind": "Service",
                "name": Component::Gateway.object_name(frame.name),
                "port": ports::GATEWAY_SERVICE,
                "weight": 1,
            }],
        }],
    });
    if !hostnames.is_empty() {
        spec["hostnames"] = json!(hostnames);
    }
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
    let mut route = DynamicObject::new("", &resource).data(json!({ "spec": spec }));
    route.metadata = metadata(frame, Component::Gateway);
    route
}

fn parent(reference: &crd::ParentRef) -> Value {
    let crd::ParentRef {
        name,
        namespace,
        section_name,
    } = reference;
    let mut value = json!({
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": name,
    });
    if let Some(namespace) = namespace {
        value["namespace"] = json!(namespace);
    }
    if let Some(section) = section_name {
        value["sectionName"] = json!(section);
    }
    value
}
