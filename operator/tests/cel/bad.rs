//! A hundred bad specs and more, made from a good one: each alone, then several at once.

use dfs_operator::build::{Inputs, Objects, build};
use dfs_operator::crd::DfsCluster;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, good, with, with_cluster};

/// A good spec in which every field is set.
fn full() -> Value {
    let scheduling = json!({
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5}],
        "priorityClassName": "high",
    });
    let resources = json!({
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "1", "memory": "128Mi"},
    });
    let mut datanodes = scheduling.clone();
    datanodes["topologySpread"] = json!({"hostname": "DoNotSchedule", "zone": "ScheduleAnyway"});
    let mut object = good("full");
    object["spec"] = json!({
        "image": {"repository": "r/dfs", "tag": "1", "pullPolicy": "Always", "pullSecrets": [{"name": "p"}]},
        "replication": {"factor": 3, "minWrite": 2},
        "chunkSize": "64Mi",
        "tracker": {"storage": {"size": "1Gi", "storageClassName": "x"}, "resources": resources, "scheduling": scheduling},
        "dataNodes": {"replicas": 3, "storage": {"size": "1Gi", "storageClassName": "x"}, "resources": resources, "scheduling": datanodes,
            "decommission": {"mode": "Hold", "bandwidthLimit": "50Mi", "quietPeriod": "30s", "stallTimeout": "30m"},
            "pvcRetention": {"whenScaled": "Delete"}, "packLimit": "64Ki"},
        "repairDelay": "5m",
        "repairBandwidthLimit": "100Mi",
        "nodeLossPolicy": "DoNothing",
        "trashRetention": "24h",
        "gateway": {
            "replicas": 2, "resources": resources, "scheduling": scheduling,
            "service": {"type": "NodePort", "annotations": {"a/b": "c"}},
            "ingress": {"className": "c", "host": "h.example", "tlsSecret": "t", "annotations": {"a": "b"}},
            "httpRoute": {"parentRefs": [{"name": "g", "namespace": "n", "sectionName": "s"}], "hostnames": ["h.example"]},
            "trustedProxies": ["10.0.0.0/8"],
        },
        "networkPolicy": {"mode": "Enabled", "allowedClients": [
            {"podLabels": {"app": "x"}, "namespaceLabels": {"team": "y"}}, {"cidr": "10.0.0.0/8"},
        ], "monitoring": [{"namespaceLabels": {"team": "watch"}, "podLabels": {"app": "prometheus"}}]},
        "monitoring": {
            "scrapeAnnotations": "Enabled",
            "tracing": {"endpoint": "http://otel.watch:4318", "samplingRatio": "0.25"},
        },
        "managementState": "Paused",
    });
    object
}

/// What a value of this kind must not be.
fn instead(value: &Value) -> Vec<Value> {
    match value {
        Value::Number(_) => vec![
            json!(-1),
            json!(5_000_000_000_000_i64),
            json!("x y"),
            json!(true),
            json!([]),
            json!({"a": 1}),
        ],
        Value::String(_) => vec![
            json!("x".repeat(5000)),
            json!(true),
            json!([]),
            json!({"a": 1}),
        ],
        Value::Array(_) => vec![json!("x"), json!(7), json!({"a": 1}), json!([7])],
        Value::Object(_) => vec![
            json!("x"),
            json!(7),
            json!([]),
            json!({"an unknown field": 1}),
        ],
        Value::Bool(_) | Value::Null => Vec::new(),
    }
}

/// Every field of the spec with every value that it must not have.
fn mutations(object: &Value) -> Vec<(String, Value)> {
    fn visit(value: &Value, pointer: &str, out: &mut Vec<(String, Value)>) {
        out.extend(
            instead(value)
                .into_iter()
                .map(|bad| (pointer.to_owned(), bad)),
        );
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    visit(field, &format!("{pointer}/{name}"), out);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    visit(item, &format!("{pointer}/{at}"), out);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut out = Vec::new();
    visit(&object["spec"], "/spec", &mut out);
    out
}

/// The same of limits in bytes: what is packed, and how fast is repaired.
fn unlimited() -> Vec<(&'static str, Value)> {
    let packed = [json!("17Mi"), json!(-1), json!("0.5"), json!("few")];
    let packed = packed.map(|limit| ("spec.dataNodes.packLimit", limit));
    let repaired = [json!("1Ki"), json!("fast")];
    let repaired = repaired.map(|limit| ("spec.repairBandwidthLimit", limit));
    packed.into_iter().chain(repaired).collect()
}

/// The same of how the store is looked at.
fn unwatched() -> Vec<(&'static str, Value)> {
    vec![
        ("spec.networkPolicy", json!({"monitoring": [{}]})),
        ("spec.monitoring", json!({"scrapeAnnotations": "no"})),
        ("spec.monitoring", json!({"tracing": {}})),
        (
            "spec.monitoring",
            json!({"tracing": {"endpoint": "https://otel:4318"}}),
        ),
        (
            "spec.monitoring",
            json!({"tracing": {"endpoint": "http://otel:0"}}),
        ),
        (
            "spec.monitoring",
            json!({"tracing": {"endpoint": "http://otel:99999"}}),
        ),
        (
            "spec.monitoring",
            json!({"tracing": {"endpoint": "http://otel:"}}),
        ),
        (
            "spec.monitoring",
            json!({"tracing": {"endpoint": "http://otel:4318", "samplingRatio": "1.5"}}),
        ),
        (
            "spec.monitoring",
            json!({"tracing": {"endpoint": "http://otel:4318", "samplingRatio": 0.5}}),
        ),
    ]
}

/// What only the rules and patterns find.
fn nonsense() -> Vec<(&'static str, Value)> {
    vec![
        (
            "spec.image",
            json!({"tag": "1", "digest": format!("sha256:{}", "a".repeat(64))}),
        ),
        ("spec.image", json!({"digest": "sha256:short"})),
        ("spec.image", json!({"tag": "white space"})),
        ("spec.repairDelay", json!("5")),
        ("spec.repairDelay", json!("-5m")),
        ("spec.trashRetention", json!("soon")),
        ("spec.gateway", json!({"replicas": 0})),
        ("spec.gateway", json!({"trustedProxies": ["10.0.0.1/8"]})),
        ("spec.gateway", json!({"trustedProxies": ["everyone"]})),
        (
            "spec.gateway",
            json!({"trustedProxies": ["10.0.0.0/8", "10.0.0.0/8"]}),
        ),
        ("spec.gateway", json!({"ingress": {"host": "UPPER.case"}})),
        ("spec.gateway", json!({"ingress": {"className": "x"}})),
        ("spec.gateway", json!({"httpRoute": {"parentRefs": []}})),
        ("spec.gateway", json!({"service": {"type": "ExternalName"}})),
        (
            "spec.gateway",
            json!({"service": {"annotations": {"white space": "x"}}}),
        ),
        ("spec.networkPolicy", json!({"allowedClients": [{}]})),
        (
            "spec.networkPolicy",
            json!({"allowedClients": [{"cidr": "10.0.0.1/8"}]}),
        ),
        (
            "spec.networkPolicy",
            json!({"allowedClients": [{"cidr": "x"}]}),
        ),
        (
            "spec.networkPolicy",
            json!({"allowedClients": [{"cidr": "10.0.0.0/8", "podLabels": {"a": "b"}}]}),
        ),
        ("spec.networkPolicy", json!({"mode": "enabled"})),
        ("spec.tracker", json!({"storage": {}})),
        (
            "spec.tracker",
            json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}),
        ),
        (
            "spec.tracker",
            json!({"resources": {"limits": {"cpu": -1}}}),
        ),
        (
            "spec.tracker",
            json!({"resources": {"limits": {"memory": 0}}}),
        ),
        (
            "spec.tracker",
            json!({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}),
        ),
        (
            "spec.tracker",
            json!({"scheduling": {"nodeSelector": {"white space": "x"}}}),
        ),
        (
            "spec.tracker",
            json!({"scheduling": {"nodeSelector": {"a": "white space"}}}),
        ),
        (
            "spec.tracker",
            json!({"scheduling": {"tolerations": [{"operator": "Equal", "value": "x"}]}}),
        ),
        (
            "spec.tracker",
            json!({"scheduling": {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}}),
        ),
        (
            "spec.tracker",
            json!({"scheduling": {"tolerations": [{"key": "a", "tolerationSeconds": 1}]}}),
        ),
        ("spec.managementState", json!("stopped")),
        ("spec.nodeLossPolicy", json!("ForceDelete")),
    ]
}

#[tokio::test]
async fn every_bad_spec_is_refused_and_says_where_it_is_bad() {
    with_cluster("bad", async |cluster| {
        let full = full();
        cluster
            .create(&full, true)
            .await
            .expect("the spec that the bad ones are made from is good");
        let mutations = mutations(&full);
        assert!(mutations.len() > 100, "{}", mutations.len());
        let mut accepted = Vec::new();
        for (pointer, bad) in &mutations {
            let mut object = full.clone();
            *object.pointer_mut(pointer).unwrap() = bad.clone();
            match cluster.create(&object, true).await {
                Ok(_) => accepted.push(format!("{pointer}: {bad}")),
                Err(no) => assert!([400, 422].contains(&no.code), "{pointer}: {bad}: {no:?}"),
            }
        }
        assert_eq!(accepted, Vec::<String>::new());
        let all = nonsense().into_iter().chain(unwatched());
        for (pointer, bad) in all.chain(unlimited()) {
            let object = with(good("a"), pointer, bad.clone());
            let no = cluster.create(&object, true).await;
            let no = no
                .err()
                .unwrap_or_else(|| panic!("accepted: {pointer}: {bad}"));
            no.says(pointer);
        }
        several_at_once(cluster, &full, &mutations).await;
    })
    .await;
}

async fn several_at_once(cluster: &Cluster, full: &Value, mutations: &[(String, Value)]) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..50 {
        let mut object = full.clone();
        for _ in 0..rng.usize(2..6) {
            let (pointer, bad) = &mutations[rng.usize(..mutations.len())];
            if let Some(place) = object.pointer_mut(pointer) {
                *place = bad.clone();
            }
        }
        let no = cluster.create(&object, true).await;
        let no = no
            .err()
            .unwrap_or_else(|| panic!("seed {seed}: accepted: {object}"));
        assert!([400, 422].contains(&no.code), "seed {seed}: {no:?}");
    }
}

/// Dry-runs every object of a full spec.
pub(crate) async fn objects_are_accepted(cluster: &Cluster) {
    let stored = cluster.create(&full(), false).await.unwrap();
    let stored: DfsCluster =
        serde_json::from_value(serde_json::to_value(&stored).unwrap()).unwrap();
    let inputs = Inputs {
        cluster: &stored,
        default_image: "docker.io/library/dfs:1",
        cluster_id: Some("c-1"),
        datanodes: 3,
        trackers: 1,
        gateways: stored.spec.gateway.replicas,
        datanodes_away: 1,
        tracker_away: 1,
        operator_namespace: Some("dfs-system"),
    };
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
    } = build(&inputs).unwrap();
    let core = "";
    let policy = "policy";
    let networking = "networking.k8s.io";
    dry(
        cluster,
        (core, "ServiceAccount", "serviceaccounts"),
        &service_accounts,
    )
    .await;
    dry(
        cluster,
        (core, "ConfigMap", "configmaps"),
        &[config_map.unwrap()],
    )
    .await;
    dry(cluster, (core, "Service", "services"), &services).await;
    dry(
        cluster,
        ("apps", "StatefulSet", "statefulsets"),
        &[tracker, datanodes],
    )
    .await;
    dry(cluster, ("apps", "Deployment", "deployments"), &[gateway]).await;
    dry(
        cluster,
        (policy, "PodDisruptionBudget", "poddisruptionbudgets"),
        &budgets,
    )
    .await;
    dry(
        cluster,
        (networking, "NetworkPolicy", "networkpolicies"),
        &network_policies,
    )
    .await;
    dry(
        cluster,
        (networking, "Ingress", "ingresses"),
        &[ingress.unwrap()],
    )
    .await;
    let route = ("gateway.networking.k8s.io", "HTTPRoute", "httproutes");
    if kube::discovery::group(&cluster.client, route.0)
        .await
        .is_ok()
    {
        dry(cluster, route, &[http_route.unwrap()]).await;
    } else {
        println!("skipped: this cluster does not know the Gateway API");
    }
}

async fn dry<T: Serialize>(
    cluster: &Cluster,
    (group, kind, plural): (&str, &str, &str),
    objects: &[T],
) {
    use kube::api::{Api, Patch, PatchParams, ValidationDirective};
    assert!(!objects.is_empty(), "{kind}");
    let gvk = GroupVersionKind::gvk(group, "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
    for object in objects {
        let mut value = serde_json::to_value(object).unwrap();
        value["apiVersion"] = json!(resource.api_version);
        value["kind"] = json!(kind);
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        let mut parameters = PatchParams::apply("dfs-operator").force();
        parameters.dry_run = true;
        parameters.field_validation = Some(ValidationDirective::Strict);
        let applied = api.patch(&name, &parameters, &Patch::Apply(&value)).await;
        applied.unwrap_or_else(|error| panic!("{kind} {name}: {error}\n{value}"));
    }
}
