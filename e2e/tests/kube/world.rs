//! One scenario's part of the cluster: two namespaces of its own under the restricted pod security standard,
//! the operator in one of them, stores in the other. Dropped, it is taken away; when the scenario
//! failed, what a person would look at is printed first.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::tools::{apply, get, indented, kubectl, run, text, tree, until};
use crate::verdict::{keep_panics, verdict};

/// Long enough for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(5);
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";
/// Lines of each container's log that a failure shows.
const LOG_LINES: &str = "--tail=60";

/// Scenarios run beside each other, but for those that take pieces of the cluster away.
static CLUSTER: RwLock<()> = RwLock::const_new(());
/// Held by an installation that brings the resource's definition.
static INSTALLS: Mutex<()> = Mutex::new(());

/// Held while a scenario runs.
enum Turn {
    Beside(#[allow(dead_code)] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code)] RwLockWriteGuard<'static, ()>),
}

/// See the module's words.
pub(crate) struct World {
    /// Where stores are.
    pub(crate) namespace: String,
    /// Where the operator is.
    pub(crate) system: String,
    /// `host:port` of the ingress controller, when there is one.
    pub(crate) ingress: Option<String>,
    operator: bool,
    started: Instant,
    // Given back last.
    _turn: Turn,
}

impl World {
    /// Two new namespaces; `None` when no cluster was offered.
    pub(crate) async fn start(scenario: &str) -> Option<Self> {
        let turn = Turn::Beside(CLUSTER.read().await);
        Self::begin(scenario, turn)
    }

    /// The same, while no other scenario runs: for one that takes pieces of the cluster away.
    pub(crate) async fn alone(scenario: &str) -> Option<Self> {
        let turn = Turn::Alone(CLUSTER.write().await);
        Self::begin(scenario, turn)
    }

    fn begin(scenario: &str, turn: Turn) -> Option<Self> {
        if std::env::var_os("DFS_KUBE_TESTS").is_none() {
            eprintln!("skipped: DFS_KUBE_TESTS is not set (`make e2e` needs a cluster)");
            return None;
        }
        keep_panics();
        let unique = fastrand::u32(..0x0100_0000);
        let namespace = format!("dfs-e2e-{scenario}-{unique:06x}");
        let ingress = std::env::var("INGRESS").ok().filter(|it| !it.is_empty());
        let world = Self {
            system: format!("{namespace}-system"),
            ingress: ingress.map(|url| {
                url.trim_start_matches("http://")
                    .trim_end_matches('/')
                    .to_owned()
            }),
            namespace,
            operator: false,
            started: Instant::now(),
            _turn: turn,
        };
        eprintln!("== {scenario}, in {}", world.namespace);
        for name in [&world.namespace, &world.system] {
            kubectl(&["create", "namespace", name]).unwrap();
            kubectl(&["label", "namespace", name, RESTRICTED]).unwrap();
        }
        Some(world)
    }

    /// The operator, installed by its chart to watch this scenario's namespace only.
    pub(crate) fn install_operator(&mut self, more: &[&str]) {
        let watch = format!("watchNamespaces={{{}}}", self.namespace);
        let mut args = vec!["--set", &watch];
        args.extend(more);
        self.helm_operator(&args);
    }

    /// The operator, installed by its chart as the arguments say.
    pub(crate) fn helm_operator(&mut self, more: &[&str]) {
        let crd = tree().join("deploy/crd.yaml").display().to_string();
        // Of scenarios that begin at once one brings the definition, the others find it.
        let mut first = Some(INSTALLS.lock().unwrap_or_else(PoisonError::into_inner));
        let crd_is_there = kubectl(&["get", "crd", "dfsclusters.dfs.io"]).is_ok();
        if crd_is_there {
            drop(first.take());
            // Another run's, perhaps of an older tree, and not this release's to own.
            let args = ["apply", "--server-side", "--force-conflicts", "-f", &crd];
            kubectl(&args).unwrap();
        }
        self.operator = true;
        let mut args = vec![
            "install",
            "dfs-operator",
            "charts/dfs-operator",
            "-n",
            &self.system,
        ];
        args.extend(["--wait", "--timeout", "5m"]);
        if crd_is_there {
            args.extend(["--set", "crds.install=false"]);
        }
        args.extend(more);
        run("helm", &args, None).unwrap();
        drop(first);
    }

    /// `kubectl apply` into the stores' namespace.
    pub(crate) fn apply(&self, manifest: &str) {
        apply(&self.namespace, manifest).unwrap();
    }

    /// `kubectl -n NAMESPACE ARGS`.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend(args);
        kubectl(&all)
    }

    /// `kubectl get -n NAMESPACE ARGS -o json`.
    pub(crate) fn get(&self, args: &[&str]) -> Result<Value, String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend(args);
        get(&all)
    }

    /// The objects of a list that `kubectl get` shows, each under its name as `read` has it.
    pub(crate) fn each<T>(
        &self,
        args: &[&str],
        read: impl Fn(&Value) -> T,
    ) -> Result<BTreeMap<String, T>, String> {
        let named = |object: &Value| (text(&object["metadata"]["name"]), read(object));
        Ok(self.list(args)?.iter().map(named).collect())
    }

    /// The objects of a list that `kubectl get` shows.
    pub(crate) fn list(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        let mut found = self.get(args)?;
        match found["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// The events about stores.
    pub(crate) fn events(&self) -> Result<Vec<Value>, String> {
        self.list(&["events", "--field-selector=involvedObject.kind=DfsCluster"])
    }

    /// The Kubernetes node of each pod of a role, by the pod's name.
    pub(crate) fn nodes_of(&self, component: &str) -> BTreeMap<String, String> {
        let selector = format!("app.kubernetes.io/component={component}");
        let node = |pod: &Value| text(&pod["spec"]["nodeName"]);
        self.each(&["pods", "-l", &selector], node).unwrap()
    }

    /// The name by which the ingress finds a store of this scenario.
    pub(crate) fn host(&self, store: &str) -> String {
        format!("{store}.{}.example", self.namespace)
    }

    /// Waits until every container of a pod ended well, and gives what they said.
    pub(crate) async fn wait_succeeded(&self, pod: &str) -> String {
        let what = format!("pod {pod} ended well");
        until(&what, DEADLINE, || async {
            let phase = self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"])?;
            assert_ne!(phase, "Failed", "{pod}: {}", self.logs(pod));
            if phase == "Succeeded" {
                Ok(())
            } else {
                Err(phase)
            }
        })
        .await;
        self.logs(pod)
    }

    fn logs(&self, pod: &str) -> String {
        // Containers that did not start have none, and must not hide the others'.
        let args = [
            "logs",
            pod,
            "--all-containers",
            "--prefix",
            "--ignore-errors",
        ];
        self.kubectl(&args).unwrap_or_else(|error| error)
    }

    /// What a person would look at, printed.
    fn diagnose(&self) {
        for namespace in [&self.namespace, &self.system] {
            eprintln!("---- what is in {namespace}");
            for args in [
                &["get", "all,pvc,ingress,networkpolicy", "-o", "wide"][..],
                &["get", "events", "--sort-by=.lastTimestamp"],
                &["describe", "pods"],
            ] {
                show(namespace, args);
            }
            let names = ["get", "pods", "-o", "name", "-n", namespace];
            for pod in kubectl(&names).unwrap_or_default().lines() {
                show(
                    namespace,
                    &[
                        "logs",
                        pod,
                        "--all-containers",
                        "--prefix",
                        "--ignore-errors",
                        LOG_LINES,
                    ],
                );
                show(
                    namespace,
                    &[
                        "logs",
                        pod,
                        "--all-containers",
                        "--prefix",
                        "--previous",
                        LOG_LINES,
                    ],
                );
            }
        }
        if self.operator {
            show(&self.namespace, &["get", "dfs", "-o", "wide"]);
            show(&self.namespace, &["describe", "dfs"]);
        }
    }

    /// Everything that this scenario made, except the resource definition: it is cluster-wide, and others may
    /// use it by now, also while no DfsCluster exists. What fails here is told, and the rest goes on.
    fn take_away(&self) {
        let tell = |ended: Result<String, String>| {
            if let Err(error) = ended {
                eprintln!("  while cleaning up: {error}");
            }
        };
        if self.operator {
            tell(self.kubectl(&["delete", "dfs", "--all", "--timeout=120s"]));
            tell(run(
                "helm",
                &["uninstall", "dfs-operator", "-n", &self.system, "--wait"],
                None,
            ));
        }
        let mut args = vec!["delete", "namespace", "--timeout=240s"];
        args.extend([self.namespace.as_str(), self.system.as_str()]);
        tell(kubectl(&args));
    }
}

fn show(namespace: &str, args: &[&str]) {
    let mut all = vec!["-n", namespace];
    all.extend(args);
    // Many containers have no previous run: that is no news.
    if let Ok(text) = kubectl(&all)
        && !text.is_empty()
    {
        eprintln!("$ kubectl {}\n{}", all.join(" "), indented(&text));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.diagnose();
        }
        if std::env::var_os("DFS_KUBE_KEEP").is_some() {
            eprintln!("== kept: {} and {}", self.namespace, self.system);
        } else {
            self.take_away();
        }
        eprintln!("{}", verdict(&self.namespace, self.started.elapsed()));
    }
}
