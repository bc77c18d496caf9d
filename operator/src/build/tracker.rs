//! The tracker: one pod with the catalog's volume.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, EnvVar, EnvVarSource, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::{Component, claim_labels, metadata, selector};
use super::pod::{Role, base_args, template};
use super::{CLUSTER_ID_KEY, Frame, config_map_name, ports};
use crate::crd::StorageSpec;

/// A large catalog is checked before it is open.
const STARTUP_SECONDS: i32 = 1800;
/// The last batch and the last checkpoint.
const GRACE_SECONDS: i64 = 60;

pub(super) fn stateful_set(frame: &Frame<'_>) -> StatefulSet {
    let spec = &frame.spec.tracker;
    let role = Role {
        component: Component::Tracker,
        args: args(frame),
        env: vec![expected_cluster(frame.name)],
        port: ports::TRACKER,
        has_volume: true,
        resources: &spec.resources,
        modest: ("100m", "128Mi"),
        scheduling: spec.scheduling.clone(),
        spread: Vec::new(),
        startup_seconds: STARTUP_SECONDS,
        grace_seconds: GRACE_SECONDS,
        before_stop: None,
    };
    StatefulSet {
        metadata: metadata(frame, Component::Tracker),
        spec: Some(StatefulSetSpec {
            replicas: Some(frame.trackers),
            ..with_volume(frame, role, &spec.storage)
        }),
        ..StatefulSet::default()
    }
}

/// What both StatefulSets have in common.
pub(super) fn with_volume(
    frame: &Frame<'_>,
    role: Role<'_>,
    storage: &StorageSpec,
) -> StatefulSetSpec {
    let component = role.component;
    StatefulSetSpec {
        service_name: Some(component.object_name(frame.name)),
        selector: selector(frame.name, component),
        // A pod that does not start must not keep the others from starting.
        pod_management_policy: Some("Parallel".to_owned()),
        revision_history_limit: Some(5),
        // A new template takes effect pod by pod, the tracker last, when whoever deletes one has proved that
        // the chunks are safe without it. A rolling update asks nobody.
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("OnDelete".to_owned()),
            ..StatefulSetUpdateStrategy::default()
        }),
        // Whoever deletes a DfsCluster by mistake applies it again and has the data back.
        persistent_volume_claim_retention_policy: Some(
            StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            },
        ),
        template: template(frame, role),
        volume_claim_templates: Some(vec![claim(frame, component, storage)]),
        ..StatefulSetSpec::default()
    }
}

fn claim(frame: &Frame<'_>, component: Component, storage: &StorageSpec) -> PersistentVolumeClaim {
    let StorageSpec {
        size,
        storage_class_name,
    } = storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(claim_labels(frame.name, component)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size.0.to_kubernetes())].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn args(frame: &Frame<'_>) -> Vec<String> {
    let spec = frame.spec;
    let mut args = base_args(Component::Tracker);
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--dir", ports::DATA.to_owned());
    flag("--admission", "operator".to_owned());
    flag("--replication", spec.replication.factor.to_string());
    if let Some(least) = spec.replication.min_write {
        flag("--min-write", least.to_string());
    }
    flag("--repair-delay", spec.repair_delay.0.clone());
    flag("--trash-retention", spec.trash_retention.0.clone());
    flag("--chunk-size", frame.chunk_size.to_string());
    if let Some(rate) = frame.repair_rate {
        flag("--repair-rate", rate.to_string());
    }
    if let Some(rate) = frame.decommission_rate {
        flag("--decommission-rate", rate.to_string());
    }
    args
}

/// Read at each start of the container. Before the id is known there is none, and an empty volume is
/// a new store.
fn expected_cluster(cluster: &str) -> EnvVar {
    EnvVar {
        name: "DFS_EXPECT_CLUSTER".to_owned(),
        value_from: Some(EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: config_map_name(cluster),
                key: CLUSTER_ID_KEY.to_owned(),
                optional: Some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
