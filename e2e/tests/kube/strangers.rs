//! Who does not belong here: a token that somebody made up, a copied uuid, another cluster's volume, a
//! visitor's pod.

use serde_json::{Value, json};

use crate::image::{SECURITY, image};
use crate::store::Cluster;
use crate::tools::{apply, kubectl, until};
use crate::world::{DEADLINE, World};

/// The container of a datanode that nobody asked for, on the volume `data` and with the token on the volume `token`.
fn datanode(namespace: &str) -> Value {
    json!({
        "name": "datanode", "image": image(), "imagePullPolicy": "IfNotPresent",
        "args": ["datanode", "--listen=0.0.0.0", "--port=6001", "--dir=/data", "--advertise=$(POD_IP):6001",
            format!("--tracker=http://store-tracker.{namespace}.svc:6000"), "--token-file=/token/token"],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "token", "mountPath": "/token"}],
        "securityContext": restricted(),
    })
}

/// What the restricted standard wants of a container.
fn restricted() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}

/// A datanode with a token that somebody made up.
fn stranger(namespace: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made-up"}, "data": {"token": "made-up-token"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": {
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [datanode(namespace)],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "token", "configMap": {"name": "made-up"}}],
            }},
        ],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn i35_a_stranger_with_a_made_up_token_is_refused_and_told_of() {
    let Some(mut world) = World::start("stranger").await else {
        return;
    };
    world.install_operator(&[]);
    // Without policies: the token alone keeps it out.
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.change(&json!({"networkPolicy": {"mode": "Disabled"}}));
    cluster.wait_ready().await;
    world.apply(&stranger(&world.namespace));
    told_of(&world, "the stranger", |line| line.contains("token")).await;
    assert_eq!(cluster.wait_registered(3).await.len(), 3);
    assert_eq!(cluster.nodes().unwrap().len(), 3, "it is not even listed");
}

const DENY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-by-default}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";
/// What the namespace's owner allows the stranger's pod, so that only the store's own policies stand in its way.
const LET_OUT: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: let-visitors-out}
spec: {podSelector: {matchLabels: {app: visitor}}, policyTypes: [Egress], egress: [{}]}
";

fn visitor(name: &str, url: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: visitor}}}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - {{name: dfs, image: {image}, imagePullPolicy: IfNotPresent, args: [status, --retries=0, '--tracker={url}'], {SECURITY}}}
",
        image = image()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_default_deny_the_store_works_and_a_visitor_reaches_the_gateway_only() {
    let Some(mut world) = World::start("policies").await else {
        return;
    };
    for namespace in [&world.namespace, &world.system] {
        apply(namespace, DENY).unwrap();
    }
    world.apply(LET_OUT);
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    cluster.wait_whole().await;
    let gateway = format!("http://store-gateway.{}.svc:80", world.namespace);
    world.apply(&visitor("guest", &gateway));
    world.wait_succeeded("guest").await;
    let tracker = format!("http://store-tracker.{}.svc:6000", world.namespace);
    world.apply(&visitor("intruder", &tracker));
    until("the tracker is out of reach", DEADLINE, || async {
        let path = "jsonpath={.status.phase}";
        match world
            .kubectl(&["get", "pod", "intruder", "-o", path])?
            .as_str()
        {
            "Failed" => Ok(()),
            "Succeeded" => panic!("a visitor's pod reached the tracker"),
            phase => Err(phase.to_owned()),
        }
    })
    .await;
}

/// The image with a shell that some scenarios need, for what this project's own image cannot do.
fn busybox(what: &str) -> Option<String> {
    let named = std::env::var("DFS_KUBE_BUSYBOX").ok();
    if named.is_none() {
        eprintln!("skipped: {what} needs DFS_KUBE_BUSYBOX");
    }
    named
}

/// Waits until an event of the store tells something.
async fn told_of(world: &World, what: &str, is_it: impl Fn(&str) -> bool) -> String {
    until(&format!("an event tells of {what}"), DEADLINE, || async {
        let events = world.events()?;
        let line = |event: &Value| format!("{}: {}", event["reason"], event["message"]);
        let all: Vec<String> = events.iter().map(line).collect();
        let found = all.iter().find(|line| is_it(line)).cloned();
        found.ok_or_else(|| all.join("\n"))
    })
    .await
}

/// A datanode in a pod of its own that took a copy of another one's identity, and knows the token.
fn copy(namespace: &str, busybox: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy", "labels": {
            // The store's own policies must let it through: only its identity stands in its way.
            "app.kubernetes.io/name": "dfs", "app.kubernetes.io/instance": "store",
            "app.kubernetes.io/component": "datanode",
        }},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [{
                "name": "take", "image": busybox, "imagePullPolicy": "IfNotPresent",
                "command": ["cp", "/theirs/volume.json", "/data/volume.json"],
                "volumeMounts": [{"name": "theirs", "mountPath": "/theirs", "readOnly": true}, {"name": "data", "mountPath": "/data"}],
                "securityContext": restricted(),
            }],
            "containers": [datanode(namespace)],
            "volumes": [
                {"name": "theirs", "persistentVolumeClaim": {"claimName": "data-store-datanode-1"}},
                {"name": "data", "emptyDir": {}},
                {"name": "token", "secret": {"secretName": "store-token"}},
            ],
        },
    })
    .to_string()
}

/// I21: the uuid belongs to the one that is heard; its copy gets nothing, and a person is told.
#[tokio::test(flavor = "multi_thread")]
async fn i21_a_copied_uuid_is_refused_and_told_of() {
    let Some(busybox) = busybox("a copied uuid") else {
        return;
    };
    let Some(mut world) = World::start("copy").await else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let before = cluster.wait_registered(3).await;
    let door = cluster.door().await;
    let _stored = door.store.put("kept", vec![7; 1 << 20]).await;
    world.apply(&copy(&world.namespace, &busybox));
    let told = told_of(&world, "the copy", |line| line.contains("DatanodeRefused")).await;
    eprintln!("  {told}");
    let after = cluster.wait_registered(3).await;
    for node in before {
        let now = after.iter().find(|now| now.id == node.id);
        assert_eq!(
            now.map(|now| &now.address),
            Some(&node.address),
            "it is still the one that it was"
        );
    }
    cluster.wait_whole().await;
}

/// Gives the volume of a claim to another claim, as a person might after a restore; returns its name. It is kept
/// after its claim's end.
async fn hand_over(world: &World, from: &str, to: &str) -> String {
    let claim = world.get(&["pvc", from]).unwrap();
    let volume = claim["spec"]["volumeName"].as_str().unwrap().to_owned();
    let keep = r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#;
    kubectl(&["patch", "pv", &volume, "-p", keep]).unwrap();
    world
        .kubectl(&["delete", "pvc", from, "--timeout=120s"])
        .unwrap();
    // Reserved for the claim that comes next: a volume that is free goes to any claim of its class, also to one
    // of a scenario beside this one.
    let reserve = json!([{"op": "replace", "path": "/spec/claimRef", "value": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": world.namespace, "name": to,
    }}]);
    kubectl(&[
        "patch",
        "pv",
        &volume,
        "--type=json",
        "-p",
        &reserve.to_string(),
    ])
    .unwrap();
    let mut taken: Value = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": to},
    });
    taken["spec"] = json!({
        "volumeName": volume, "accessModes": claim["spec"]["accessModes"],
        "storageClassName": claim["spec"]["storageClassName"], "resources": claim["spec"]["resources"],
    });
    world.apply(&taken.to_string());
    until("the volume is bound to it", DEADLINE, || async {
        let claim = world.get(&["pvc", to])?;
        match claim["status"]["phase"].as_str() {
            Some("Bound") => Ok(()),
            phase => Err(format!("{phase:?}")),
        }
    })
    .await;
    volume
}

/// Fault 35: the volume of another cluster under a claim of this one.
#[tokio::test(flavor = "multi_thread")]
async fn fault_35_a_volume_of_another_cluster_is_refused_and_told_of() {
    let Some(mut world) = World::start("foreign").await else {
        return;
    };
    world.install_operator(&[]);
    let single = json!({
        "replication": { "factor": 1 }, "gateway": { "replicas": 1 },
    });
    let other = Cluster::apply_with(&world, "other", 1, &single);
    other.wait_ready().await;
    other.wait_registered(1).await;
    let door = other.door().await;
    let _stored = door.store.put("theirs", vec![7; 1 << 20]).await;
    drop(door);
    world
        .kubectl(&["delete", "dfs", "other", "--timeout=120s"])
        .unwrap();
    until("nothing uses the volume", DEADLINE, || async {
        match world
            .kubectl(&[
                "get",
                "pod",
                "other-datanode-0",
                "--ignore-not-found",
                "-o",
                "name",
            ])?
            .as_str()
        {
            "" => Ok(()),
            pod => Err(pod.to_owned()),
        }
    })
    .await;
    let volume = hand_over(&world, "data-other-datanode-0", "data-store-datanode-0").await;

    // Its pod comes first and alone: no neighbour of its own may take the node on which the volume lies.
    let store = Cluster::apply_with(&world, "store", 1, &single);
    let told = told_of(&world, "the volume", |line| {
        line.contains("DatanodeRefused") && line.contains("cluster")
    })
    .await;
    eprintln!("  {told}");
    store.change(&json!({"dataNodes": {"replicas": 2}}));
    let nodes = store.wait_registered(1).await;
    assert_eq!(nodes.len(), 1);
    let door = store.door().await;
    let theirs = door.store.try_get("theirs").await.unwrap();
    assert_eq!(theirs.status, 404, "nothing of the other cluster is served");
    let (_, why) = store.wait_condition("Ready", "False").await;
    eprintln!("  Ready is False: {why}");
    drop(door);
    // Retained volumes are nobody's after the scenario: it takes its own away.
    world
        .kubectl(&["delete", "dfs", "store", "--timeout=120s"])
        .unwrap();
    kubectl(&["delete", "pv", &volume, "--wait=false"]).unwrap();
}
