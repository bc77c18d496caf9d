//! The image on a real cluster, before any operator: under the restricted pod security standard, its files
//! read-only, with names found by the cluster's DNS, behind the ingress.

use std::time::Instant;

use crate::door::Door;
use crate::load::Load;
use crate::tools::{random_file, run, sha256sum, until};
use crate::world::{DEADLINE, World};

/// The image that the charts default to.
pub(crate) fn image() -> String {
    format!("docker.io/library/dfs:{}", env!("CARGO_PKG_VERSION"))
}

/// What the restricted standard wants of a container.
pub(crate) const SECURITY: &str = "securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}";

/// A whole store in one pod, its Service and its Ingress.
fn store(host: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: store, labels: {{app: store}}}}
spec:
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, fsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: dfs
      image: {image}
      imagePullPolicy: IfNotPresent
      args: [dev, --listen=0.0.0.0, --dir=/data]
      readinessProbe: {{httpGet: {{path: /readyz, port: 6000}}, periodSeconds: 1}}
      volumeMounts: [{{name: data, mountPath: /data}}]
      {SECURITY}
  volumes: [{{name: data, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: store}}
spec: {{selector: {{app: store}}, ports: [{{port: 80, targetPort: 6000}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: store}}
spec:
  rules:
    - host: {host}
      http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: store, port: {{number: 80}}}}}}}}]}}
",
        image = image()
    )
}

/// Client verbs one after the other, in a pod that knows the store by its DNS name only.
fn client(name: &str, namespace: &str, steps: &[&[&str]]) -> String {
    let mut containers = Vec::new();
    for (number, args) in steps.iter().enumerate() {
        let args = args.join(", ");
        containers.push(format!(
            "{{name: step-{number}, image: {}, imagePullPolicy: IfNotPresent, args: [{args}], \
             env: [{{name: DFS_TRACKER, value: 'http://store.{namespace}.svc.cluster.local:80'}}, \
             {{name: DFS_WAIT, value: 'true'}}], {SECURITY}}}",
            image()
        ));
    }
    let last = containers.pop().expect("at least one step");
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  initContainers: [{init}]
  containers: [{last}]
",
        init = containers.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_runs_restricted_and_finds_names() {
    let Some(world) = World::start("image").await else {
        return;
    };
    world.apply(&store(&world.host("store")));
    until("the store is ready", DEADLINE, || async {
        world
            .kubectl(&["wait", "--for=condition=Ready", "pod/store", "--timeout=5s"])
            .map(drop)
    })
    .await;

    let steps: &[&[&str]] = &[
        &["put", "/dfs", "names/dfs"],
        &["cmp", "/dfs", "names/dfs"],
        &["status"],
    ];
    world.apply(&client("client", &world.namespace, steps));
    let told = world.wait_succeeded("client").await;
    assert!(told.contains("the same"), "{told}");

    // The comparison can fail: other bytes under the same name end the pod with an error.
    let door = Door::open(&world, "store", "store").await;
    let _ = door.store.put("names/dfs", "other bytes").await;
    world.apply(&client(
        "doubter",
        &world.namespace,
        &[&["cmp", "/dfs", "names/dfs"]],
    ));
    until("the doubter failed", DEADLINE, || async {
        let phase = ["get", "pod", "doubter", "-o", "jsonpath={.status.phase}"];
        match world.kubectl(&phase)?.as_str() {
            "Failed" => Ok(()),
            phase => Err(phase.to_owned()),
        }
    })
    .await;
    let told = world.kubectl(&["logs", "doubter"]).unwrap();
    assert!(told.contains("differs at byte 0"), "{told}");

    curl_in_and_out(&door, 64);
    let load = Load::start(&door.store, "load");
    until("fifty files are acknowledged", DEADLINE, || async {
        match load.seen() {
            seen if seen.acked.len() >= 50 && seen.reads >= 50 => Ok(()),
            seen => Err(seen.to_string()),
        }
    })
    .await;
    load.stop().await.assert_nothing_failed();
}

/// One file through the door and back with curl, compared by sha256sum.
pub(crate) fn curl_in_and_out(door: &Door, mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    random_file(&there, mib);
    let (url, host) = door.curl();
    let url = format!("{url}/files/curl/{mib}-mib");
    let (upload, download) = (there.display().to_string(), back.display().to_string());
    let start = Instant::now();
    let common = ["-sS", "--fail-with-body", "-H", &host, "--max-time", "900"];
    run(
        "curl",
        &[&common[..], &["-T", &upload, &url]].concat(),
        None,
    )
    .unwrap();
    let (uploaded, start) = (start.elapsed(), Instant::now());
    run(
        "curl",
        &[&common[..], &["-o", &download, &url]].concat(),
        None,
    )
    .unwrap();
    eprintln!(
        "  curl of {mib} MiB: in {uploaded:.1?}, out {:.1?}",
        start.elapsed()
    );
    assert_eq!(sha256sum(&there), sha256sum(&back));
}
