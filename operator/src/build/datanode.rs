//! The datanodes: pods with a volume each, spread over Kubernetes nodes and zones.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};

use super::labels::{Component, metadata};
use super::pod::{BeforeStop, Role, base_args, from_field, spread, token_file, tracker_url};
use super::tracker::with_volume;
use super::{Frame, ports};

/// A scan of a full volume.
const STARTUP_SECONDS: i32 = 3600;
/// How long a stop waits until the chunks can do without it.
const STOP_SECONDS: i64 = 60;
/// Streams that are being written, and their fsync.
const FLUSH_SECONDS: i64 = 60;

pub(super) fn stateful_set(frame: &Frame<'_>) -> StatefulSet {
    let spec = &frame.spec.data_nodes;
    let rules = &spec.scheduling.topology_spread;
    let over = |key, rule| spread(frame, Component::Datanode, key, rule);
    let role = Role {
        component: Component::Datanode,
        args: args(frame),
        env: vec![
            from_field("POD_IP", "status.podIP"),
            from_field("NODE_NAME", "spec.nodeName"),
            from_field("POD_NAME", "metadata.name"),
        ],
        port: ports::DATANODE,
        has_volume: true,
        resources: &spec.resources,
        modest: ("100m", "128Mi"),
        scheduling: spec.scheduling.pod(),
        spread: vec![
            over("kubernetes.io/hostname", rules.hostname),
            over("topology.kubernetes.io/zone", rules.zone),
        ],
        startup_seconds: STARTUP_SECONDS,
        grace_seconds: STOP_SECONDS + FLUSH_SECONDS,
        before_stop: before_stop(frame),
    };
    StatefulSet {
        metadata: metadata(frame, Component::Datanode),
        spec: Some(StatefulSetSpec {
            replicas: Some(frame.datanodes),
            ..with_volume(frame, role, &spec.storage)
        }),
        ..StatefulSet::default()
    }
}

fn args(frame: &Frame<'_>) -> Vec<String> {
    let mut args = base_args(Component::Datanode);
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--port", ports::DATANODE.to_string());
    flag("--dir", ports::DATA.to_owned());
    flag("--tracker", tracker_url(frame));
    // The address and not the name: a name of a pod that has just moved still leads to where it was.
    flag("--advertise", format!("$(POD_IP):{}", ports::DATANODE));
    flag("--host", "$(NODE_NAME)".to_owned());
    flag("--pod", "$(POD_NAME)".to_owned());
    if let Some(limit) = frame.pack_limit {
        flag("--pack-limit", limit.to_string());
    }
    args
}

/// Whoever deletes the pod, the tracker is asked first. With one replica of each chunk it never says yes.
fn before_stop(frame: &Frame<'_>) -> Option<BeforeStop> {
    let mut args = vec!["datanode-stop".to_owned()];
    args.extend(token_file());
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--tracker", tracker_url(frame));
    flag(
        "--datanode",
        format!("http://127.0.0.1:{}", ports::DATANODE),
    );
    flag("--limit", format!("{STOP_SECONDS}s"));
    (frame.spec.replication.factor > 1).then_some(BeforeStop::Run(args))
}
