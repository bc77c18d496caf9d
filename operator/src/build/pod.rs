//! What every pod has: an identity without rights, a locked-down container, the token, probes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction,
    Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, SleepAction, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use dfs_protocol::routes::admin::METRICS;

use super::labels::{Component, labels, selector};
use super::{Frame, ports};
use crate::crd::{Amount, PodScheduling, ResourcesSpec, SpreadRule, Switch};
use crate::names;

/// The image's entry point, in full: there is no shell and no search path.
const PROGRAM: &str = "/dfs";
/// The image's user.
const USER: i64 = 65532;
/// Read and write for nobody but the group.
const TOKEN_MODE: i32 = 0o440;

/// What differs between the roles.
pub(super) struct Role<'a> {
    pub(super) component: Component,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<EnvVar>,
    pub(super) port: i32,
    pub(super) has_volume: bool,
    pub(super) resources: &'a ResourcesSpec,
    /// Requests where the spec says nothing: processor and memory.
    pub(super) modest: (&'static str, &'static str),
    pub(super) scheduling: PodScheduling,
    pub(super) spread: Vec<TopologySpreadConstraint>,
    /// How long a start may take: a scan of a full volume.
    pub(super) startup_seconds: i32,
    pub(super) grace_seconds: i64,
    /// What happens before it is told to stop.
    pub(super) before_stop: Option<BeforeStop>,
}

/// What happens before a container is told to stop, within its time of grace.
pub(super) enum BeforeStop {
    /// It serves on, until nobody is sent to it any more.
    Linger {
        /// How long.
        seconds: i64,
    },
    /// The image's program runs with these arguments.
    Run(Vec<String>),
}

/// The flags that every role takes.
pub(super) fn base_args(component: Component) -> Vec<String> {
    let [option, file] = token_file();
    vec![
        component.as_str().to_owned(),
        "--listen".to_owned(),
        "0.0.0.0".to_owned(),
        option,
        file,
    ]
}

/// Says where the token is.
pub(super) fn token_file() -> [String; 2] {
    [
        "--token-file".to_owned(),
        format!("{}/{}", ports::TOKEN_DIRECTORY, ports::TOKEN_KEY),
    ]
}

/// Where the tracker is, for its peers.
pub(super) fn tracker_url(frame: &Frame<'_>) -> String {
    format!(
        "http://{}:{}",
        names::tracker_set(frame.name),
        ports::TRACKER
    )
}

pub(super) fn template(frame: &Frame<'_>, role: Role<'_>) -> PodTemplateSpec {
    let component = role.component;
    let annotations = match frame.spec.monitoring.scrape_annotations {
        Switch::Enabled => Some(scrape_annotations(component)),
        Switch::Disabled => None,
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            annotations,
            labels: Some(labels(frame, component)),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(frame, role)),
    }
}

/// Where a Prometheus finds the metrics that looks for pods by their annotations.
fn scrape_annotations(component: Component) -> BTreeMap<String, String> {
    let port = component.port() + ports::ADMIN_OFFSET;
    [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", port.to_string()),
        ("prometheus.io/path", METRICS.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Where requests are traced to, as the roles take it.
fn tracing(frame: &Frame<'_>) -> Vec<EnvVar> {
    let Some(tracing) = &frame.spec.monitoring.tracing else {
        return Vec::new();
    };
    let variable = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    vec![
        variable("OTEL_EXPORTER_OTLP_ENDPOINT", tracing.endpoint.clone()),
        variable("OTEL_TRACES_SAMPLER_ARG", tracing.sampling_ratio.clone()),
        from_field("DFS_TRACE_INSTANCE", "metadata.name"),
    ]
}

fn pod(frame: &Frame<'_>, role: Role<'_>) -> PodSpec {
    let container = container(frame, &role);
    let PodScheduling {
        node_selector,
        tolerations,
        priority_class_name,
    } = role.scheduling;
    let secrets = &frame.spec.image.pull_secrets;
    PodSpec {
        service_account_name: Some(role.component.object_name(frame.name)),
        automount_service_account_token: Some(false),
        // Kubernetes would set a variable for each Service of the namespace, some named like ours.
        enable_service_links: Some(false),
        security_context: Some(pod_security()),
        termination_grace_period_seconds: Some(role.grace_seconds),
        image_pull_secrets: non_empty(
            secrets
                .iter()
                .map(|secret| LocalObjectReference {
                    name: secret.name.clone(),
                })
                .collect(),
        ),
        node_selector: node_selector.map(|labels| labels.0),
        tolerations: non_empty(tolerations.iter().map(toleration).collect()),
        priority_class_name,
        topology_spread_constraints: non_empty(role.spread),
        volumes: Some(vec![token_volume(frame.name)]),
        containers: vec![container],
        ..PodSpec::default()
    }
}

fn container(frame: &Frame<'_>, role: &Role<'_>) -> Container {
    Container {
        name: role.component.as_str().to_owned(),
        image: Some(frame.image.clone()),
        image_pull_policy: Some(frame.spec.image.pull_policy.as_str().to_owned()),
        args: Some(role.args.clone()),
        env: non_empty([role.env.clone(), tracing(frame)].concat()),
        ports: Some(vec![
            port(ports::API_NAME, role.port),
            port(ports::ADMIN_NAME, role.port + ports::ADMIN_OFFSET),
        ]),
        startup_probe: Some(Probe {
            period_seconds: Some(5),
            failure_threshold: Some(role.startup_seconds / 5),
            ..probe("/livez")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..probe("/livez")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(5),
            failure_threshold: Some(2),
            ..probe("/readyz")
        }),
        lifecycle: role.before_stop.as_ref().map(lifecycle),
        resources: Some(resources(role.resources, role.modest)),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts(role.has_volume)),
        ..Container::default()
    }
}

fn lifecycle(before_stop: &BeforeStop) -> Lifecycle {
    let handler = match before_stop {
        BeforeStop::Linger { seconds } => LifecycleHandler {
            sleep: Some(SleepAction { seconds: *seconds }),
            ..LifecycleHandler::default()
        },
        BeforeStop::Run(args) => {
            let program = std::iter::once(PROGRAM.to_owned());
            LifecycleHandler {
                exec: Some(ExecAction {
                    command: Some(program.chain(args.iter().cloned()).collect()),
                }),
                ..LifecycleHandler::default()
            }
        }
    };
    Lifecycle {
        pre_stop: Some(handler),
        ..Lifecycle::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        // Said although it is the default: applying needs it, ports are merged by (port, protocol).
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ports::ADMIN_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // A volume with many chunks is not walked again at each start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

fn token_volume(cluster: &str) -> Volume {
    Volume {
        name: "token".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names::token_secret(cluster)),
            default_mode: Some(TOKEN_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mounts(has_volume: bool) -> Vec<VolumeMount> {
    let mut mounts = vec![VolumeMount {
        name: "token".to_owned(),
        mount_path: ports::TOKEN_DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }];
    if has_volume {
        mounts.push(VolumeMount {
            name: "data".to_owned(),
            mount_path: ports::DATA.to_owned(),
            ..VolumeMount::default()
        });
    }
    mounts
}

/// An environment variable with a field of the pod.
pub(super) fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The spec's, with modest requests where it says nothing. A limit alone is also the request, as in
/// Kubernetes: a request of ours could be above it.
fn resources(spec: &ResourcesSpec, (cpu, memory): (&str, &str)) -> ResourceRequirements {
    let requests = spec.requests.as_ref();
    let limits = spec.limits.as_ref();
    let mut wanted = BTreeMap::new();
    let mut most = BTreeMap::new();
    for (name, modest, request, limit) in [
        (
            "cpu",
            cpu,
            requests.and_then(|r| r.cpu.as_ref()),
            limits.and_then(|l| l.cpu.as_ref()),
        ),
        (
            "memory",
            memory,
            requests.and_then(|r| r.memory.as_ref()),
            limits.and_then(|l| l.memory.as_ref()),
        ),
    ] {
        let kubernetes = |amount: &Amount| amount.0.to_kubernetes();
        let request = match (request, limit) {
            (Some(request), _) => kubernetes(request),
            (None, Some(limit)) => kubernetes(limit),
            (None, None) => Quantity(modest.to_owned()),
        };
        wanted.insert(name.to_owned(), request);
        if let Some(limit) = limit {
            most.insert(name.to_owned(), kubernetes(limit));
        }
    }
    ResourceRequirements {
        requests: Some(wanted),
        limits: (!most.is_empty()).then_some(most),
        ..ResourceRequirements::default()
    }
}

fn toleration(spec: &crate::crd::Toleration) -> Toleration {
    let crate::crd::Toleration {
        key,
        operator,
        value,
        effect,
        toleration_seconds,
    } = spec;
    Toleration {
        key: key.clone(),
        operator: Some(operator.as_str().to_owned()),
        value: value.clone(),
        effect: effect.map(|effect| effect.as_str().to_owned()),
        toleration_seconds: *toleration_seconds,
    }
}

/// Spreads a component's pods over the values of a node label.
pub(super) fn spread(
    frame: &Frame<'_>,
    component: Component,
    key: &str,
    rule: SpreadRule,
) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: rule.as_str().to_owned(),
        label_selector: Some(selector(frame.name, component)),
        // A node that takes no pods anyway (tainted, switched off) does not hold others back.
        node_taints_policy: Some("Honor".to_owned()),
        ..TopologySpreadConstraint::default()
    }
}

pub(super) fn non_empty<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}
