//! What must be true of the objects of every spec, and what the objects of some specs are.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::*;

const OWN_IMAGE: &str = "docker.io/library/dfs:1.2.3";

#[allow(
    clippy::needless_pass_by_value,
    reason = "a literal is passed each time"
)]
fn cluster(name: &str, spec: Value) -> DfsCluster {
    serde_json::from_value(json!({
        "apiVersion": "dfs.io/v1alpha1",
        "kind": "DfsCluster",
        "metadata": {"name": name, "namespace": "space", "uid": "u-1"},
        "spec": spec,
    }))
    .unwrap()
}

fn small() -> Value {
    json!({"replication": {"factor": 3}, "dataNodes": {"replicas": 3, "storage": {"size": "10Gi"}}})
}

fn inputs(cluster: &DfsCluster) -> Inputs<'_> {
    Inputs {
        cluster,
        default_image: OWN_IMAGE,
        cluster_id: Some("c-1"),
        datanodes: cluster.spec.data_nodes.replicas,
        trackers: 1,
        gateways: cluster.spec.gateway.replicas,
        datanodes_away: 1,
        tracker_away: 1,
        operator_namespace: Some("dfs-system"),
    }
}

fn built(spec: Value) -> Objects {
    let cluster = cluster("alpha", spec);
    build(&inputs(&cluster)).unwrap()
}

/// Builds a cluster that may not have been stored yet, and checks everything about it.
pub(crate) fn check(cluster: &DfsCluster) -> Objects {
    let mut cluster = cluster.clone();
    cluster
        .metadata
        .namespace
        .get_or_insert_with(|| "space".to_owned());
    cluster.metadata.uid.get_or_insert_with(|| "u-1".to_owned());
    let inputs = inputs(&cluster);
    let objects = build(&inputs).unwrap();
    assert_eq!(objects, build(&inputs).unwrap(), "building twice differs");
    check_all(&cluster, &objects);
    objects
}

fn flag<'a>(pod: &'a PodSpec, name: &str) -> Option<&'a str> {
    let args = pod.containers[0].args.as_ref().unwrap();
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).map(String::as_str)
}

fn pods(objects: &Objects) -> BTreeMap<&'static str, (&PodTemplateSpec, &LabelSelector)> {
    let tracker = objects.tracker.spec.as_ref().unwrap();
    let datanodes = objects.datanodes.spec.as_ref().unwrap();
    let gateway = objects.gateway.spec.as_ref().unwrap();
    BTreeMap::from([
        ("tracker", (&tracker.template, &tracker.selector)),
        ("datanode", (&datanodes.template, &datanodes.selector)),
        ("gateway", (&gateway.template, &gateway.selector)),
    ])
}

fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// The one component that a selector selects.
fn selected(objects: &Objects, selector: &BTreeMap<String, String>) -> &'static str {
    let pods = pods(objects);
    let found: Vec<_> = pods
        .iter()
        .filter(|(_, (template, _))| {
            matches(
                selector,
                template.metadata.as_ref().unwrap().labels.as_ref().unwrap(),
            )
        })
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(found.len(), 1, "{selector:?} selects {found:?}");
    found[0]
}

fn all_metadata(objects: &Objects) -> Vec<&ObjectMeta> {
    let Objects {
        service_accounts,
        config_map,
        services,
        tracker,
        datanodes,
        gateway,
        budgets,
        network_policies,
        ingress,
        http_route,
    } = objects;
    let mut all = vec![&tracker.metadata, &datanodes.metadata, &gateway.metadata];
    all.extend(service_accounts.iter().map(|object| &object.metadata));
    all.extend(config_map.iter().map(|object| &object.metadata));
    all.extend(services.iter().map(|object| &object.metadata));
    all.extend(budgets.iter().map(|object| &object.metadata));
    all.extend(network_policies.iter().map(|object| &object.metadata));
    all.extend(ingress.iter().map(|object| &object.metadata));
    all.extend(http_route.iter().map(|object| &object.metadata));
    all
}

fn check_all(cluster: &DfsCluster, objects: &Objects) {
    let name = cluster.metadata.name.as_deref().unwrap();
    for metadata in all_metadata(objects) {
        let own = metadata.name.as_deref().unwrap();
        assert!(
            own.starts_with(&format!("{name}-")) && own.len() <= 63,
            "{own}"
        );
        assert_eq!(metadata.namespace, cluster.metadata.namespace);
        let owners = metadata.owner_references.as_ref().unwrap();
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[0].controller, Some(true));
        assert_eq!(Some(&owners[0].uid), cluster.metadata.uid.as_ref());
        for value in metadata.labels.as_ref().unwrap().values() {
            assert!(value.len() <= 63, "{value}");
        }
    }
    check_selectors(objects);
    check_ports(objects);
    check_volumes(objects);
    for (component, (template, _)) in pods(objects) {
        check_restricted(component, template.spec.as_ref().unwrap());
    }
}

fn check_selectors(objects: &Objects) {
    for (component, (_, selector)) in pods(objects) {
        let labels = selector.match_labels.as_ref().unwrap();
        assert_eq!(selected(objects, labels), component);
        assert!(
            !labels.contains_key("app.kubernetes.io/version"),
            "selectors are immutable"
        );
    }
    for budget in &objects.budgets {
        let spec = budget.spec.as_ref().unwrap();
        let labels = spec
            .selector
            .as_ref()
            .unwrap()
            .match_labels
            .as_ref()
            .unwrap();
        let component = selected(objects, labels);
        assert!(budget.metadata.name.as_ref().unwrap().ends_with(component));
    }
}

fn ports_of(objects: &Objects, component: &str) -> BTreeMap<String, i32> {
    let pods = pods(objects);
    let container = &pods[component].0.spec.as_ref().unwrap().containers[0];
    container
        .ports
        .iter()
        .flatten()
        .map(|port| (port.name.clone().unwrap(), port.container_port))
        .collect()
}

/// Services lead to ports that containers have, and policies open the API's port alone.
fn check_ports(objects: &Objects) {
    for service in &objects.services {
        let spec = service.spec.as_ref().unwrap();
        let component = selected(objects, spec.selector.as_ref().unwrap());
        let ports = ports_of(objects, component);
        assert_eq!(ports[ports::ADMIN_NAME], ports[ports::API_NAME] + 1000);
        for port in spec.ports.iter().flatten() {
            let target = serde_json::to_value(port.target_port.as_ref().unwrap()).unwrap();
            assert!(
                ports.contains_key(target.as_str().unwrap()),
                "{component}: {target}"
            );
            if component != "gateway" {
                assert_eq!(port.port, ports[ports::API_NAME]);
            }
        }
    }
    for policy in &objects.network_policies {
        let spec = policy.spec.as_ref().unwrap();
        let labels = spec
            .pod_selector
            .as_ref()
            .unwrap()
            .match_labels
            .as_ref()
            .unwrap();
        let component = selected(objects, labels);
        let api = ports_of(objects, component)[ports::API_NAME];
        let rules = spec.ingress.as_ref().unwrap();
        let open: BTreeSet<_> = rules
            .iter()
            .flat_map(|rule| numbers(rule.ports.as_ref()))
            .collect();
        assert_eq!(open, BTreeSet::from([api]), "{component}");
        for rule in spec.egress.as_ref().unwrap() {
            for peer in rule.to.iter().flatten() {
                let labels = peer
                    .pod_selector
                    .as_ref()
                    .unwrap()
                    .match_labels
                    .as_ref()
                    .unwrap();
                let to = ports_of(objects, selected(objects, labels))[ports::API_NAME];
                assert_eq!(numbers(rule.ports.as_ref()), [to]);
            }
        }
    }
}

fn numbers(ports: Option<&Vec<k8s_openapi::api::networking::v1::NetworkPolicyPort>>) -> Vec<i32> {
    ports
        .into_iter()
        .flatten()
        .map(|port| serde_json::to_value(port.port.as_ref().unwrap()).unwrap())
        .map(|port| i32::try_from(port.as_i64().unwrap()).unwrap())
        .collect()
}

fn check_volumes(objects: &Objects) {
    for set in [&objects.tracker, &objects.datanodes] {
        let spec = set.spec.as_ref().unwrap();
        let policy = spec
            .persistent_volume_claim_retention_policy
            .as_ref()
            .unwrap();
        assert_eq!(policy.when_deleted.as_deref(), Some("Retain"));
        assert_eq!(policy.when_scaled.as_deref(), Some("Retain"));
        assert_eq!(spec.pod_management_policy.as_deref(), Some("Parallel"));
        let claims = spec.volume_claim_templates.as_ref().unwrap();
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].metadata.name.as_deref(), Some("data"));
        assert!(
            claims[0].metadata.owner_references.is_none(),
            "data outlives its DfsCluster"
        );
        let mounts = spec.template.spec.as_ref().unwrap().containers[0]
            .volume_mounts
            .as_ref();
        assert!(
            mounts
                .unwrap()
                .iter()
                .any(|m| m.name == "data" && m.mount_path == "/data")
        );
    }
    let strategy = objects
        .datanodes
        .spec
        .as_ref()
        .unwrap()
        .update_strategy
        .as_ref()
        .unwrap();
    assert_eq!(strategy.type_.as_deref(), Some("OnDelete"));
}

/// The restricted Pod Security Standard, and no rights at the API server.
fn check_restricted(component: &str, pod: &PodSpec) {
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert!(
        pod.service_account_name
            .as_ref()
            .unwrap()
            .ends_with(component)
    );
    let security = pod.security_context.as_ref().unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(security.run_as_user, Some(65532));
    assert_eq!(security.fs_group, Some(65532));
    assert_eq!(
        security.seccomp_profile.as_ref().unwrap().type_,
        "RuntimeDefault"
    );
    let container = pod.containers[0].security_context.as_ref().unwrap();
    assert_eq!(container.allow_privilege_escalation, Some(false));
    assert_eq!(container.read_only_root_filesystem, Some(true));
    let dropped = container
        .capabilities
        .as_ref()
        .unwrap()
        .drop
        .as_ref()
        .unwrap();
    assert_eq!(dropped, &["ALL"]);
    assert!(
        pod.containers
            .iter()
            .all(|container| container.privileged_ports().is_empty())
    );
    for volume in pod.volumes.iter().flatten() {
        assert!(volume.host_path.is_none());
    }
}

trait PrivilegedPorts {
    fn privileged_ports(&self) -> Vec<i32>;
}

impl PrivilegedPorts for k8s_openapi::api::core::v1::Container {
    fn privileged_ports(&self) -> Vec<i32> {
        let ports = self.ports.iter().flatten().map(|port| port.container_port);
        ports.filter(|port| *port < 1024).collect()
    }
}

#[test]
fn the_smallest_manifest_yields_a_whole_store() {
    let objects = check(&cluster("alpha", small()));
    let names = |metadata: &ObjectMeta| metadata.name.clone().unwrap();
    let services: Vec<_> = objects
        .services
        .iter()
        .map(|s| names(&s.metadata))
        .collect();
    assert_eq!(
        services,
        ["alpha-tracker", "alpha-datanode", "alpha-gateway"]
    );
    assert_eq!(names(&objects.tracker.metadata), "alpha-tracker");
    assert_eq!(names(&objects.datanodes.metadata), "alpha-datanode");
    assert_eq!(names(&objects.gateway.metadata), "alpha-gateway");
    assert_eq!(objects.budgets.len(), 3);
    assert_eq!(objects.network_policies.len(), 3);
    assert_eq!(objects.service_accounts.len(), 3);
    assert!(objects.ingress.is_none() && objects.http_route.is_none());
    assert_eq!(objects.datanodes.spec.as_ref().unwrap().replicas, Some(3));
    assert_eq!(objects.tracker.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(objects.gateway.spec.as_ref().unwrap().replicas, Some(2));
}

#[test]
fn each_role_is_started_with_the_flags_that_it_knows() {
    let objects = built(json!({
        "replication": {"factor": 3, "minWrite": 1},
        "chunkSize": "1Mi",
        "repairDelay": "30s",
        "repairBandwidthLimit": "100Mi",
        "trashRetention": "0",
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        "gateway": {"trustedProxies": ["10.0.0.0/8", "fd00::/8"]},
    }));
    let pods = pods(&objects);
    let args = |component: &str| {
        let container = &pods[component].0.spec.as_ref().unwrap().containers[0];
        container.args.as_ref().unwrap().join(" ")
    };
    assert_eq!(
        args("tracker"),
        "tracker --listen 0.0.0.0 --token-file /etc/dfs/token/token --dir /data \
         --admission operator --replication 3 --min-write 1 --repair-delay 30s \
         --trash-retention 0 --chunk-size 1048576 --repair-rate 104857600"
    );
    assert_eq!(
        args("datanode"),
        "datanode --listen 0.0.0.0 --token-file /etc/dfs/token/token --port 6001 --dir /data \
         --tracker http://alpha-tracker:6000 --advertise $(POD_IP):6001 --host $(NODE_NAME) \
         --pod $(POD_NAME)"
    );
    assert_eq!(
        args("gateway"),
        "gateway --listen 0.0.0.0 --token-file /etc/dfs/token/token \
         --tracker http://alpha-tracker:6000 --trusted-proxies 10.0.0.0/8,fd00::/8"
    );
}

#[test]
fn every_variable_that_an_argument_names_is_set() {
    let objects = built(small());
    for (component, (template, _)) in pods(&objects) {
        let container = &template.spec.as_ref().unwrap().containers[0];
        let set: BTreeSet<_> = container
            .env
            .iter()
            .flatten()
            .map(|env| env.name.as_str())
            .collect();
        for arg in container.args.iter().flatten() {
            if let Some((_, rest)) = arg.split_once("$(") {
                let (name, _) = rest.split_once(')').unwrap();
                assert!(set.contains(name), "{component}: {name} in {set:?}");
            }
        }
    }
}

#[test]
fn a_tracker_learns_its_clusters_id_without_a_new_template() {
    let cluster = cluster("alpha", small());
    let known = build(&inputs(&cluster)).unwrap();
    let unknown = build(&Inputs {
        cluster_id: None,
        ..inputs(&cluster)
    })
    .unwrap();
    assert_eq!(known.tracker, unknown.tracker);
    assert_eq!(unknown.config_map, None);
    let map = known.config_map.unwrap();
    assert_eq!(map.data.unwrap()[CLUSTER_ID_KEY], "c-1");
    let env = &known
        .tracker
        .spec
        .unwrap()
        .template
        .spec
        .unwrap()
        .containers[0]
        .env;
    let env = env
        .as_ref()
        .unwrap()
        .iter()
        .find(|env| env.name == "DFS_EXPECT_CLUSTER")
        .unwrap();
    let key = env
        .value_from
        .as_ref()
        .unwrap()
        .config_map_key_ref
        .as_ref()
        .unwrap();
    assert_eq!(Some(&key.name), map.metadata.name.as_ref());
    assert_eq!(
        (key.key.as_str(), key.optional),
        (CLUSTER_ID_KEY, Some(true))
    );
}

#[test]
fn a_held_scale_down_keeps_its_datanodes() {
    let cluster = cluster("alpha", small());
    let held = Inputs {
        datanodes: 5,
        ..inputs(&cluster)
    };
    let objects = build(&held).unwrap();
    assert_eq!(objects.datanodes.spec.unwrap().replicas, Some(5));
}

#[test]
fn a_budget_is_made_where_something_can_be_missed() {
    for (factor, gateways, expected) in [
        (1, 1, vec!["alpha-tracker"]),
        (1, 2, vec!["alpha-tracker", "alpha-gateway"]),
        (2, 1, vec!["alpha-tracker", "alpha-datanode"]),
        (
            3,
            2,
            vec!["alpha-tracker", "alpha-datanode", "alpha-gateway"],
        ),
    ] {
        let objects = built(json!({
            "replication": {"factor": factor},
            "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
            "gateway": {"replicas": gateways},
        }));
        let budgets = objects.budgets.iter();
        let names: Vec<_> = budgets
            .clone()
            .map(|b| b.metadata.name.as_deref().unwrap())
            .collect();
        assert_eq!(names, expected, "factor {factor}, {gateways} gateways");
        for budget in budgets {
            let policy = budget
                .spec
                .as_ref()
                .unwrap()
                .unhealthy_pod_eviction_policy
                .as_deref();
            let gateway = budget.metadata.name.as_deref() == Some("alpha-gateway");
            assert_eq!(
                policy,
                Some(if gateway {
                    "AlwaysAllow"
                } else {
                    "IfHealthyBudget"
                })
            );
        }
    }
}

#[test]
fn a_datanode_that_stops_asks_the_tracker_first_and_has_time_to_flush_after_it() {
    for (factor, asks) in [(1, false), (3, true)] {
        let objects = built(json!({
            "replication": {"factor": factor},
            "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        }));
        let (template, _) = pods(&objects)["datanode"];
        let pod = template.spec.as_ref().unwrap();
        let hook = pod.containers[0].lifecycle.as_ref();
        let hook = hook.and_then(|hook| hook.pre_stop.as_ref()?.exec.as_ref()?.command.clone());
        assert_eq!(hook.is_some(), asks, "factor {factor}");
        let Some(command) = hook else { continue };
        assert_eq!(command[..2], ["/dfs", "datanode-stop"]);
        let given = |option: &str| {
            let at = command.iter().position(|word| word == option).unwrap();
            command[at + 1].clone()
        };
        assert_eq!(given("--datanode"), "http://127.0.0.1:6001");
        assert_eq!(given("--tracker"), "http://alpha-tracker:6000");
        assert_eq!(given("--token-file"), "/etc/dfs/token/token");
        let limit = given("--limit")
            .trim_end_matches('s')
            .parse::<i64>()
            .unwrap();
        assert!(pod.termination_grace_period_seconds.unwrap() >= limit + 30);
    }
}

#[test]
fn requests_are_modest_unless_the_spec_says_otherwise() {
    let quantity = |value: &Value| serde_json::to_string(value).unwrap();
    for (spec, requests, limits) in [
        (
            json!({}),
            json!({"cpu": "100m", "memory": "128Mi"}),
            Value::Null,
        ),
        (
            json!({"requests": {"cpu": 2}}),
            json!({"cpu": "2", "memory": "128Mi"}),
            Value::Null,
        ),
        // A request of ours could be above this limit.
        (
            json!({"limits": {"memory": "32Mi"}}),
            json!({"cpu": "100m", "memory": "32Mi"}),
            json!({"memory": "32Mi"}),
        ),
    ] {
        let objects = built(json!({
            "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}, "resources": spec},
        }));
        let pod = objects.datanodes.spec.unwrap().template.spec.unwrap();
        let resources = serde_json::to_value(&pod.containers[0].resources).unwrap();
        assert_eq!(
            quantity(&resources["requests"]),
            quantity(&requests),
            "{spec}"
        );
        assert_eq!(quantity(&resources["limits"]), quantity(&limits), "{spec}");
    }
}

#[test]
fn datanodes_spread_over_nodes_first_and_zones_where_possible() {
    for (spec, expected) in [
        (json!({}), ["DoNotSchedule", "ScheduleAnyway"]),
        (
            json!({"zone": "DoNotSchedule"}),
            ["DoNotSchedule", "DoNotSchedule"],
        ),
        (
            json!({"hostname": "ScheduleAnyway"}),
            ["ScheduleAnyway", "ScheduleAnyway"],
        ),
    ] {
        let objects = built(json!({"dataNodes": {
            "replicas": 3, "storage": {"size": "1Gi"}, "scheduling": {"topologySpread": spec},
        }}));
        let pod = objects.datanodes.spec.unwrap().template.spec.unwrap();
        let constraints = pod.topology_spread_constraints.unwrap();
        let keys: Vec<_> = constraints
            .iter()
            .map(|c| c.topology_key.as_str())
            .collect();
        assert_eq!(
            keys,
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        );
        let rules: Vec<_> = constraints
            .iter()
            .map(|c| c.when_unsatisfiable.as_str())
            .collect();
        assert_eq!(rules, expected);
    }
}

fn policy<'a>(objects: &'a Objects, name: &str) -> &'a NetworkPolicy {
    let found = objects
        .network_policies
        .iter()
        .find(|p| p.metadata.name.as_deref() == Some(name));
    found.unwrap()
}

/// Who is let in: components, or the operator as `NAMESPACE/operator`.
fn let_in(objects: &Objects, name: &str) -> Option<Vec<String>> {
    let rule = &policy(objects, name)
        .spec
        .as_ref()
        .unwrap()
        .ingress
        .as_ref()
        .unwrap()[0];
    rule.from.as_ref().map(|peers| {
        let name_of =
            |labels: &BTreeMap<String, String>| labels["app.kubernetes.io/component"].clone();
        peers
            .iter()
            .map(|peer| {
                let pods = peer
                    .pod_selector
                    .as_ref()
                    .unwrap()
                    .match_labels
                    .as_ref()
                    .unwrap();
                match &peer.namespace_selector {
                    None => name_of(pods),
                    Some(namespaces) => match &namespaces.match_labels {
                        None => format!("*/{}", name_of(pods)),
                        Some(labels) => {
                            format!(
                                "{}/{}",
                                labels["kubernetes.io/metadata.name"],
                                name_of(pods)
                            )
                        }
                    },
                }
            })
            .collect()
    })
}

#[test]
fn tracker_and_datanodes_are_open_to_the_stores_own_pods_and_the_operator_alone() {
    let objects = built(small());
    assert_eq!(
        let_in(&objects, "alpha-tracker").unwrap(),
        ["gateway", "datanode", "dfs-system/operator"]
    );
    assert_eq!(
        let_in(&objects, "alpha-datanode").unwrap(),
        ["tracker", "gateway", "datanode", "dfs-system/operator"]
    );
    assert_eq!(
        let_in(&objects, "alpha-gateway"),
        None,
        "the door is open to everyone"
    );
    let cluster = cluster("alpha", small());
    let unknown = build(&Inputs {
        operator_namespace: None,
        ..inputs(&cluster)
    });
    assert_eq!(
        let_in(&unknown.unwrap(), "alpha-tracker").unwrap()[2],
        "*/operator"
    );
}

#[test]
fn every_pod_may_resolve_names_and_reach_its_peers() {
    let objects = built(small());
    for (name, expected) in [
        ("alpha-tracker", json!([[6001], [53, 53]])),
        ("alpha-datanode", json!([[6000], [6001], [53, 53]])),
        ("alpha-gateway", json!([[6000], [6001], [53, 53]])),
    ] {
        let egress = policy(&objects, name)
            .spec
            .as_ref()
            .unwrap()
            .egress
            .as_ref()
            .unwrap();
        let ports: Vec<_> = egress
            .iter()
            .map(|rule| numbers(rule.ports.as_ref()))
            .collect();
        assert_eq!(json!(ports), expected, "{name}");
        assert!(
            egress.last().unwrap().to.is_none(),
            "names are resolved anywhere"
        );
    }
}

#[test]
fn allowed_clients_close_the_gateway_to_all_others() {
    let objects = built(json!({
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        "networkPolicy": {"allowedClients": [
            {"podLabels": {"app": "x"}},
            {"namespaceLabels": {"team": "y"}},
            {"cidr": "10.1.0.0/16"},
        ]},
    }));
    let rule = policy(&objects, "alpha-gateway")
        .spec
        .as_ref()
        .unwrap()
        .ingress
        .as_ref()
        .unwrap()[0]
        .clone();
    assert_eq!(
        serde_json::to_value(rule.from).unwrap(),
        json!([
            {"podSelector": {"matchLabels": {"app": "x"}}},
            {"namespaceSelector": {"matchLabels": {"team": "y"}}},
            {"ipBlock": {"cidr": "10.1.0.0/16"}},
        ])
    );
    let off = built(json!({
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        "networkPolicy": {"mode": "Disabled"},
    }));
    assert!(off.network_policies.is_empty());
}

/// Who may reach a component's admin port.
fn readers(objects: &Objects, name: &str, port: i32) -> Vec<Value> {
    let spec = policy(objects, name).spec.as_ref().unwrap();
    let rules = spec.ingress.iter().flatten();
    let rules = rules.filter(|rule| numbers(rule.ports.as_ref()).contains(&port));
    rules
        .map(|rule| serde_json::to_value(&rule.from).unwrap())
        .collect()
}

#[test]
fn metrics_are_open_to_whom_the_spec_names_and_to_nobody_else() {
    let ports = [
        ("alpha-tracker", 7000),
        ("alpha-datanode", 7001),
        ("alpha-gateway", 9080),
    ];
    let closed = built(small());
    let open = built(json!({
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        "networkPolicy": {"monitoring": [
            {"namespaceLabels": {"team": "watch"}, "podLabels": {"app": "prometheus"}},
        ]},
    }));
    for (name, port) in ports {
        assert!(readers(&closed, name, port).is_empty(), "{name}");
        let named = json!([{
            "namespaceSelector": {"matchLabels": {"team": "watch"}},
            "podSelector": {"matchLabels": {"app": "prometheus"}},
        }]);
        assert_eq!(readers(&open, name, port), [named], "{name}");
    }
    assert_eq!(
        let_in(&open, "alpha-tracker"),
        let_in(&closed, "alpha-tracker")
    );
}

fn templates(objects: &Objects) -> Vec<Value> {
    let objects = [
        serde_json::to_value(&objects.tracker).unwrap(),
        serde_json::to_value(&objects.datanodes).unwrap(),
        serde_json::to_value(&objects.gateway).unwrap(),
    ];
    objects
        .iter()
        .map(|object| object["spec"]["template"].clone())
        .collect()
}

#[test]
fn pods_say_where_their_metrics_are_unless_they_shall_not() {
    let of = |switch: &str| {
        json!({
            "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
            "monitoring": {"scrapeAnnotations": switch},
        })
    };
    for spec in [small(), of("Enabled")] {
        let templates = templates(&built(spec));
        for (template, port) in templates.iter().zip(["7000", "7001", "9080"]) {
            let annotations = json!({
                "prometheus.io/scrape": "true",
                "prometheus.io/port": port,
                "prometheus.io/path": "/metrics",
            });
            assert_eq!(template["metadata"]["annotations"], annotations);
        }
    }
    for template in templates(&built(of("Disabled"))) {
        assert!(template["metadata"]["annotations"].is_null());
    }
}

#[test]
fn traces_go_to_the_collector_and_may_reach_it() {
    let objects = built(json!({
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        "monitoring": {"tracing": {"endpoint": "http://otel.watch:4318", "samplingRatio": "0.25"}},
    }));
    for template in templates(&objects) {
        let env = template["spec"]["containers"][0]["env"].as_array().unwrap();
        let value = |name: &str| {
            let found = env.iter().find(|variable| variable["name"] == name);
            found.unwrap()["value"].clone()
        };
        assert_eq!(
            value("OTEL_EXPORTER_OTLP_ENDPOINT"),
            "http://otel.watch:4318"
        );
        assert_eq!(value("OTEL_TRACES_SAMPLER_ARG"), "0.25");
    }
    for name in ["alpha-tracker", "alpha-datanode", "alpha-gateway"] {
        let spec = policy(&objects, name).spec.as_ref().unwrap();
        let rules = spec.egress.iter().flatten();
        let to_collector = rules.filter(|rule| numbers(rule.ports.as_ref()) == [4318]);
        assert_eq!(to_collector.count(), 1, "{name}");
    }
}

#[test]
fn doors_lead_to_the_gateways_service() {
    let objects = built(json!({
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}},
        "gateway": {
            "service": {"type": "LoadBalancer", "annotations": {"lb/kind": "x"}},
            "ingress": {"className": "c", "host": "h.example", "tlsSecret": "t", "annotations": {"a": "b"}},
            "httpRoute": {"parentRefs": [{"name": "g", "namespace": "n", "sectionName": "s"}], "hostnames": ["h"]},
        },
    }));
    let ingress = serde_json::to_value(objects.ingress.unwrap()).unwrap();
    assert_eq!(ingress["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(
        ingress["spec"],
        json!({
            "ingressClassName": "c",
            "tls": [{"hosts": ["h.example"], "secretName": "t"}],
            "rules": [{"host": "h.example", "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "alpha-gateway", "port": {"name": "http"}}},
            }]}}],
        })
    );
    let route = serde_json::to_value(objects.http_route.unwrap()).unwrap();
    assert_eq!(route["apiVersion"], "gateway.networking.k8s.io/v1");
    assert_eq!(route["kind"], "HTTPRoute");
    assert_eq!(route["metadata"]["name"], "alpha-gateway");
    assert_eq!(route["spec"]["hostnames"], json!(["h"]));
    assert_eq!(
        route["spec"]["parentRefs"],
        json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway",
                "name": "g", "namespace": "n", "sectionName": "s"}])
    );
    let backend = &route["spec"]["rules"][0]["backendRefs"][0];
    assert_eq!(
        (backend["name"].as_str(), backend["port"].as_i64()),
        (Some("alpha-gateway"), Some(80))
    );
    let service = objects
        .services
        .iter()
        .find(|s| s.metadata.name.as_deref() == Some("alpha-gateway"));
    let service = serde_json::to_value(service.unwrap()).unwrap();
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    assert_eq!(service["spec"]["ports"][0]["name"], "http");
    assert_eq!(service["metadata"]["annotations"], json!({"lb/kind": "x"}));
}

#[test]
fn scheduling_goes_into_the_pods_as_it_is() {
    let scheduling = json!({
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7}],
        "priorityClassName": "high",
    });
    let objects = built(json!({
        "tracker": {"scheduling": scheduling},
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi", "storageClassName": "ssd"}, "scheduling": scheduling},
        "gateway": {"scheduling": scheduling},
        "image": {"pullSecrets": [{"name": "p"}], "pullPolicy": "Always", "tag": "9"},
    }));
    for (component, (template, _)) in pods(&objects) {
        let pod = serde_json::to_value(template.spec.as_ref().unwrap()).unwrap();
        assert_eq!(
            pod["nodeSelector"], scheduling["nodeSelector"],
            "{component}"
        );
        assert_eq!(pod["tolerations"], scheduling["tolerations"], "{component}");
        assert_eq!(pod["priorityClassName"], "high", "{component}");
        assert_eq!(
            pod["imagePullSecrets"],
            json!([{"name": "p"}]),
            "{component}"
        );
        assert_eq!(
            pod["containers"][0]["image"], "docker.io/library/dfs:9",
            "{component}"
        );
        assert_eq!(
            pod["containers"][0]["imagePullPolicy"], "Always",
            "{component}"
        );
        let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        assert_eq!(labels["app.kubernetes.io/version"], "9");
    }
    let claims = objects
        .datanodes
        .spec
        .unwrap()
        .volume_claim_templates
        .unwrap();
    let claim = serde_json::to_value(&claims[0]).unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "ssd");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert!(claim["metadata"]["labels"]["app.kubernetes.io/version"].is_null());
}

#[test]
fn an_object_that_was_never_stored_or_has_no_chunk_size_is_refused() {
    let mut nobody = cluster("alpha", small());
    nobody.metadata.uid = None;
    assert_eq!(build(&inputs(&nobody)), Err(BuildError::NotStored("uid")));
    let mut spec = small();
    spec["chunkSize"] = json!("ten");
    let bad = cluster("alpha", spec);
    let error = build(&inputs(&bad)).unwrap_err();
    assert!(
        error.to_string().starts_with("spec.chunkSize: `ten`"),
        "{error}"
    );
}

#[test]
fn datanodes_pack_as_the_spec_says_and_by_their_own_limit_where_it_says_nothing() {
    let packing = |limit: Value| {
        let mut spec = small();
        spec["dataNodes"]["packLimit"] = limit;
        cluster("alpha", spec)
    };
    let args = |objects: &Objects| {
        let set = serde_json::to_value(&objects.datanodes).unwrap();
        let args = &set["spec"]["template"]["spec"]["containers"][0]["args"];
        let args = args.as_array().unwrap().iter();
        args.map(|word| word.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let plain = args(&built(small()));
    assert!(!plain.contains(&"--pack-limit".to_owned()));
    for (limit, bytes) in [
        (json!(0), "0"),
        (json!("64Ki"), "65536"),
        (json!("16Mi"), "16777216"),
    ] {
        let packing = packing(limit);
        let told = args(&build(&inputs(&packing)).unwrap());
        assert_eq!(
            told,
            [
                plain.clone(),
                vec!["--pack-limit".to_owned(), bytes.to_owned()]
            ]
            .concat()
        );
    }
    for (limit, told) in [
        (json!("17Mi"), "spec.dataNodes.packLimit is 17825792 bytes"),
        (json!("few"), "spec.dataNodes.packLimit: `few`"),
    ] {
        let error = build(&inputs(&packing(limit))).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
}

#[test]
fn a_version_is_always_a_label() {
    for (image, expected) in [
        ("docker.io/library/dfs:1.2.3", "1.2.3"),
        ("localhost:5000/dfs", "latest"),
        ("r/dfs@sha256:0123", "sha256-0123"),
        ("r/dfs:-.-", "unknown"),
    ] {
        assert_eq!(labels::version(image), expected, "{image}");
    }
}

fn quantities() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1_i64..1 << 50).prop_map(Value::from),
        (1_u32..5000, prop_oneof![Just("Mi"), Just("Gi"), Just("M")])
            .prop_map(|(number, unit)| Value::from(format!("{number}{unit}"))),
    ]
}

prop_compose! {
    fn specs()(
        factor in 1_i32..=7,
        more in 0_i32..=493,
        min_write in proptest::option::of(1_i32..=7),
        gateways in 1_i32..=100,
        size in quantities(),
        limit in proptest::option::of(quantities()),
        chunk in 1_u32..=1024,
        policies in any::<bool>(),
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
        label in proptest::option::of(("[a-z]{1,10}", "[a-z]{0,10}")),
    ) -> Value {
        let mut spec = json!({
            "replication": {"factor": factor},
            "chunkSize": format!("{chunk}Mi"),
            "dataNodes": {"replicas": factor + more, "storage": {"size": size}},
            "gateway": {"replicas": gateways},
            "networkPolicy": {"mode": if policies { "Enabled" } else { "Disabled" }},
        });
        if let Some(least) = min_write {
            spec["replication"]["minWrite"] = json!(least.min(factor));
        }
        if let Some(limit) = limit {
            spec["dataNodes"]["resources"] = json!({"limits": {"memory": limit}});
        }
        if let Some(tag) = tag {
            spec["image"] = json!({"tag": tag});
        }
        if let Some((key, value)) = label {
            spec["dataNodes"]["scheduling"] = json!({"nodeSelector": {key: value}});
        }
        spec
    }
}

/// Through JSON and back: what is applied is what was built.
fn survives_json<T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    object: &T,
) {
    let again: T = serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
    assert_eq!(&again, object);
}

proptest! {
    #[test]
    fn every_spec_that_the_rules_allow_yields_objects_that_fit_together(
        spec in specs(), name in "[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
    ) {
        let cluster = cluster(&name, spec);
        let objects = check(&cluster);
        let pod = objects.tracker.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let factor = cluster.spec.replication.factor.to_string();
        prop_assert_eq!(flag(pod, "--replication"), Some(factor.as_str()));
        survives_json(&objects.tracker);
        survives_json(&objects.datanodes);
        survives_json(&objects.gateway);
    }
}
