//! The gateways: stateless pods, as many as wanted.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{Component, metadata, selector};
use super::pod::{BeforeStop, Role, base_args, spread, template, tracker_url};
use super::{Frame, ports};
use crate::crd::SpreadRule;

/// It keeps nothing, so it starts at once.
const STARTUP_SECONDS: i32 = 300;
/// Uploads and downloads that are under way.
const GRACE_SECONDS: i64 = 120;
/// Until every proxy has heard that this gateway is going.
const LINGER_SECONDS: i64 = 5;

pub(super) fn deployment(frame: &Frame<'_>) -> Deployment {
    let spec = &frame.spec.gateway;
    let over = |key| spread(frame, Component::Gateway, key, SpreadRule::ScheduleAnyway);
    let role = Role {
        component: Component::Gateway,
        args: args(frame),
        env: Vec::new(),
        port: ports::GATEWAY,
        has_volume: false,
        resources: &spec.resources,
        modest: ("100m", "64Mi"),
        scheduling: spec.scheduling.clone(),
        spread: vec![
            over("kubernetes.io/hostname"),
            over("topology.kubernetes.io/zone"),
        ],
        startup_seconds: STARTUP_SECONDS,
        grace_seconds: GRACE_SECONDS,
        before_stop: Some(BeforeStop::Linger {
            seconds: LINGER_SECONDS,
        }),
    };
    Deployment {
        metadata: metadata(frame, Component::Gateway),
        spec: Some(DeploymentSpec {
            replicas: Some(frame.gateways),
            selector: selector(frame.name, Component::Gateway),
            revision_history_limit: Some(5),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: template(frame, role),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn args(frame: &Frame<'_>) -> Vec<String> {
    let mut args = base_args(Component::Gateway);
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--tracker", tracker_url(frame));
    let proxies = &frame.spec.gateway.trusted_proxies;
    if !proxies.is_empty() {
        flag("--trusted-proxies", proxies.join(","));
    }
    args
}
