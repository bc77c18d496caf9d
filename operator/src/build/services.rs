//! Addresses.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{Component, metadata, selector_labels};
use super::{Frame, ports};

pub(super) fn services(frame: &Frame<'_>) -> Vec<Service> {
    vec![tracker(frame), datanodes(frame), gateway(frame)]
}

/// One address that stays: a restarted tracker is reached without a new look-up. It is also reached
/// while it is not ready, because then too it says what it waits for.
fn tracker(frame: &Frame<'_>) -> Service {
    service(
        frame,
        Component::Tracker,
        ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port(ports::TRACKER)]),
            ..ServiceSpec::default()
        },
    )
}

/// Without an address of its own: a datanode is never any datanode.
fn datanodes(frame: &Frame<'_>) -> Service {
    service(
        frame,
        Component::Datanode,
        ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port(ports::DATANODE)]),
            ..ServiceSpec::default()
        },
    )
}

fn gateway(frame: &Frame<'_>) -> Service {
    let spec = &frame.spec.gateway.service;
    let mut service = service(
        frame,
        Component::Gateway,
        ServiceSpec {
            type_: Some(spec.kind.as_str().to_owned()),
            ports: Some(vec![port(ports::GATEWAY_SERVICE)]),
            ..ServiceSpec::default()
        },
    );
    service.metadata.annotations = spec.annotations.as_ref().map(|all| all.0.clone());
    service
}

fn service(frame: &Frame<'_>, component: Component, spec: ServiceSpec) -> Service {
    Service {
        metadata: metadata(frame, component),
        spec: Some(ServiceSpec {
            selector: Some(selector_labels(frame.name, component)),
            ..spec
        }),
        ..Service::default()
    }
}

fn port(number: i32) -> ServicePort {
    ServicePort {
        name: Some(ports::API_NAME.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(ports::API_NAME.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some("http".to_owned()),
        ..ServicePort::default()
    }
}
