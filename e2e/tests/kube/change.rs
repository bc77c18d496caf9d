//! Scaling, deleting and applying again, and strangers.

use serde_json::json;

use crate::image::{SECURITY, image};
use crate::load::Load;
use crate::store::Cluster;
use crate::tools::{apply, until};
use crate::world::{DEADLINE, World};

#[tokio::test(flavor = "multi_thread")]
async fn i25_scaling_up_registers_and_scaling_down_is_held() {
    let Some(mut world) = World::start("scaling") else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let load = Load::start(&door.store, "load");
    world
        .kubectl(&["scale", "dfs/store", "--replicas=5"])
        .unwrap();
    cluster.wait_registered(5).await;
    cluster.wait_ready().await;

    world
        .kubectl(&["scale", "dfs/store", "--replicas=3"])
        .unwrap();
    let (reason, message) = cluster.wait_condition("ScaleDownBlocked", "True").await;
    eprintln!("  ScaleDownBlocked: {reason}: {message}");
    let pods = || world.get(&["statefulset", "store-datanode"]);
    assert_eq!(pods().unwrap()["spec"]["replicas"], 5);
    // What the schema holds, whoever asks.
    let refused = world
        .kubectl(&["scale", "dfs/store", "--replicas=2"])
        .unwrap_err();
    assert!(refused.contains("replicas"), "{refused}");

    world
        .kubectl(&["scale", "dfs/store", "--replicas=5"])
        .unwrap();
    cluster.wait_condition("ScaleDownBlocked", "False").await;
    assert_eq!(pods().unwrap()["spec"]["replicas"], 5);
    let seen = load.stop().await;
    let failed = (seen.failed_writes, seen.failed_reads, seen.wrong_reads);
    assert_eq!(failed, (0, 0, 0), "{seen}");
    cluster.wait_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i26_a_cluster_that_is_deleted_and_applied_again_has_its_data() {
    let Some(mut world) = World::start("again") else {
        return;
    };
    world.install_operator(&[]);
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let stored = door.store.put("kept", vec![7; 3 << 20]).await;
    drop(door);
    world
        .kubectl(&["delete", "dfs", "store", "--timeout=120s"])
        .unwrap();
    until("its pods are gone", DEADLINE, || async {
        match world.kubectl(&["get", "pods", "-o", "name"])?.as_str() {
            "" => Ok(()),
            pods => Err(pods.to_owned()),
        }
    })
    .await;
    let cluster = Cluster::apply(&world, "store", 3);
    cluster.wait_ready().await;
    let door = cluster.door().await;
    let head = door.store.door.head("/files/kept").await.unwrap().ok();
    assert!(
        head.header("etag").contains(&stored.etag),
        "the very version"
    );
    assert!(door.store.get("kept").await[..] == vec![7; 3 << 20]);
    cluster.wait_whole().await;
}

/// A datanode that nobody asked for, with a token that somebody made up.
fn stranger(namespace: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made-up"}, "data": {"token": "made-up-token"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": {
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "datanode", "image": image(), "imagePullPolicy": "IfNotPresent",
                    "args": ["datanode", "--listen=0.0.0.0", "--port=6001", "--dir=/data", "--advertise=$(POD_IP):6001",
                        format!("--tracker=http://store-tracker.{namespace}.svc:6000"), "--token-file=/made-up/token"],
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "made-up", "mountPath": "/made-up"}],
                    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                }],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "made-up", "configMap": {"name": "made-up"}}],
            }},
        ],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn i35_a_stranger_with_a_made_up_token_is_refused_and_told_of() {
    let Some(mut world) = World::start("stranger") else {
        return;
    };
    world.install_operator(&[]);
    // Without policies: the token alone keeps it out.
    let cluster = Cluster::apply(&world, "store", 3);
    let open = r#"{"spec": {"networkPolicy": {"mode": "Disabled"}}}"#;
    world
        .kubectl(&["patch", "dfs", "store", "--type=merge", "-p", open])
        .unwrap();
    cluster.wait_ready().await;
    world.apply(&stranger(&world.namespace));
    until("an event tells of it", DEADLINE, || async {
        let events = world.get(&["events", "--field-selector=involvedObject.kind=DfsCluster"])?;
        let told = events.to_string();
        if told.contains("wrong-token") || told.contains("token") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
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
    let Some(mut world) = World::start("policies") else {
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
