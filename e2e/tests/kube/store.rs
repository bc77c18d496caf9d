//! A `DfsCluster` of a scenario: applied, waited for, asked how it is.

use std::time::Duration;

use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::status::{ClusterStatus, DatanodeStatus};
use serde_json::{Value, json};

use crate::door::Door;
use crate::tools::{said_by, until};
use crate::world::{DEADLINE, World};

/// How long a datanode may be silent in these stores before its chunks are copied.
pub(crate) const REPAIR_DELAY: Duration = Duration::from_secs(20);
/// Small volumes: the cluster may make them of its own disk.
pub(crate) const SMALL_VOLUME: &str = "1Gi";

/// Size of datanodes' volumes (`DFS_KUBE_VOLUME`).
pub(crate) fn volume() -> String {
    said_by("DFS_KUBE_VOLUME").unwrap_or_else(|| SMALL_VOLUME.to_owned())
}

/// A store by its name, which is its `DfsCluster`'s.
pub(crate) struct Cluster<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Cluster<'a> {
    /// Applies one of `datanodes` datanodes, with a door where there is an ingress.
    pub(crate) fn apply(world: &'a World, name: &str, datanodes: u32) -> Self {
        Self::apply_with(world, name, datanodes, &json!({}))
    }

    /// The same, with what `more` says of the fields of the spec.
    pub(crate) fn apply_with(world: &'a World, name: &str, datanodes: u32, more: &Value) -> Self {
        let mut spec = json!({
            "replication": { "factor": 3 },
            "repairDelay": format!("{}s", REPAIR_DELAY.as_secs()),
            "tracker": { "storage": { "size": SMALL_VOLUME } },
            "dataNodes": { "replicas": datanodes, "storage": { "size": volume() } },
        });
        if world.ingress.is_some() {
            spec["gateway"] = json!({ "ingress": { "host": world.host(name) } });
        }
        merge(&mut spec, more);
        let manifest = json!({
            "apiVersion": "dfs.io/v1alpha1",
            "kind": "DfsCluster",
            "metadata": { "name": name },
            "spec": spec,
        });
        world.apply(&manifest.to_string());
        Self::named(world, name)
    }

    /// One that something else applied.
    pub(crate) fn named(world: &'a World, name: &str) -> Self {
        Self {
            world,
            name: name.to_owned(),
        }
    }

    /// The resource as it is.
    pub(crate) fn resource(&self) -> Result<Value, String> {
        self.world.get(&["dfs", &self.name])
    }

    /// `(status, reason, message)` of a condition that speaks of the spec as it is.
    pub(crate) fn condition(&self, kind: &str) -> Result<(String, String, String), String> {
        let resource = self.resource()?;
        let none = Vec::new();
        let conditions = resource["status"]["conditions"].as_array().unwrap_or(&none);
        let found = conditions.iter().find(|one| one["type"] == kind);
        let found = found.ok_or_else(|| format!("no condition {kind}"))?;
        if found["observedGeneration"] != resource["metadata"]["generation"] {
            return Err(format!("{kind} speaks of an older spec"));
        }
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("reason"), text("message")))
    }

    /// Waits until a condition has a status.
    pub(crate) async fn wait_condition(&self, kind: &str, wanted: &str) -> (String, String) {
        let what = format!("{kind} is {wanted}");
        until(&what, DEADLINE, || async {
            let (status, reason, message) = self.condition(kind)?;
            if status == wanted {
                Ok((reason, message))
            } else {
                Err(format!("{status}: {reason}: {message}"))
            }
        })
        .await
    }

    /// Waits until it is ready and shows what a person would see.
    pub(crate) async fn wait_ready(&self) {
        self.wait_condition("Ready", "True").await;
        let shown = self
            .world
            .kubectl(&["get", "dfs", &self.name, "-o", "wide"]);
        eprintln!("{}", crate::tools::indented(&shown.unwrap()));
    }

    /// Changes the spec.
    pub(crate) fn change(&self, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        let args = ["patch", "dfs", &self.name, "--type=merge", "-p", &patch];
        self.world.kubectl(&args).unwrap();
    }

    /// Has the gateways run where another pod runs, so that a node's loss is that of a datanode alone.
    pub(crate) async fn gateways_beside(&self, node: &str) {
        let beside = json!({"nodeSelector": {"kubernetes.io/hostname": node}});
        self.change(&json!({"gateway": {"scheduling": beside}}));
        until("gateways are where they are to be", DEADLINE, || async {
            let gateways = self.world.nodes_of("gateway");
            if gateways.values().all(|found| found == node) {
                Ok(())
            } else {
                Err(format!("{gateways:?}"))
            }
        })
        .await;
        self.wait_ready().await;
    }

    /// Its door, once that answers.
    pub(crate) async fn door(&self) -> Door {
        Door::open(self.world, &self.name, &format!("{}-gateway", self.name)).await
    }

    /// A client verb against the tracker, run in the tracker's own pod: it has the program and the token.
    pub(crate) fn dfs(&self, args: &[&str]) -> Result<String, String> {
        let pod = format!("{}-tracker-0", self.name);
        let mut all = vec!["exec", &pod, "--", "/dfs"];
        all.extend(args);
        all.extend(["--tracker", "http://127.0.0.1:6000"]);
        all.extend(["--token-file", "/etc/dfs/token/token"]);
        self.world.kubectl(&all)
    }

    /// The datanodes that the tracker knows.
    pub(crate) fn nodes(&self) -> Result<Vec<DatanodeStatus>, String> {
        let told = self.dfs(&["nodes", "-o", "json"])?;
        serde_json::from_str(&told).map_err(|error| format!("dfs nodes: {error} in {told}"))
    }

    /// Waits until so many datanodes are live and in service, each on a Kubernetes node of its own
    /// where there are enough.
    pub(crate) async fn wait_registered(&self, wanted: usize) -> Vec<DatanodeStatus> {
        let what = format!("{wanted} datanodes are registered");
        until(&what, DEADLINE, || async {
            let mut nodes = self.nodes()?;
            nodes.retain(|node| {
                node.liveness == Liveness::Live && node.admin == AdminState::InService
            });
            if nodes.len() == wanted {
                Ok(nodes)
            } else {
                Err(format!("{} are", nodes.len()))
            }
        })
        .await
    }

    /// Waits until every chunk has its replicas and `fsck` finds nothing.
    pub(crate) async fn wait_whole(&self) {
        until("fsck is clean", DEADLINE, || async {
            self.dfs(&["fsck", "-o", "json"]).map(drop)
        })
        .await;
    }

    /// The same after a gateway that ended without a word: a chunk that it had sealed and not committed is named by
    /// nobody, and is collected an hour after its lease. At most so many uploads were under way there.
    pub(crate) async fn wait_whole_but_for_orphans(&self, most: u64) {
        until("fsck finds orphans at most", DEADLINE, || async {
            let Err(told) = self.dfs(&["fsck", "-o", "json"]) else {
                return Ok(());
            };
            let mut verdicts = told.lines().filter(|line| line.contains("\"verdict\""));
            let verdict = verdicts
                .next_back()
                .and_then(|line| serde_json::from_str(line).ok());
            let verdict: Value = verdict.ok_or_else(|| told.clone())?;
            let findings = verdict["findings"]
                .as_object()
                .ok_or_else(|| told.clone())?;
            let orphans = findings.get("orphan").and_then(Value::as_u64);
            let only = findings.len() == 1 && orphans.is_some_and(|count| count <= most);
            only.then_some(()).ok_or(told)
        })
        .await;
    }

    /// Waits until the tracker takes one datanode for dead.
    pub(crate) async fn wait_one_dead(&self) {
        until("the tracker takes it for dead", DEADLINE, || async {
            let dead = self.status()?.datanodes.dead;
            (dead == 1)
                .then_some(())
                .ok_or_else(|| format!("{dead} are"))
        })
        .await;
    }

    /// What the tracker says of the whole store.
    pub(crate) fn status(&self) -> Result<ClusterStatus, String> {
        let told = self.dfs(&["status", "-o", "json"])?;
        serde_json::from_str(&told).map_err(|error| format!("dfs status: {error} in {told}"))
    }

    /// UID of a pod that is ready.
    pub(crate) fn ready_pod(&self, pod: &str) -> Result<String, String> {
        let pod = self.world.get(&["pod", pod])?;
        let none = Vec::new();
        let conditions = pod["status"]["conditions"].as_array().unwrap_or(&none);
        let is_ready = conditions
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        if is_ready && pod["metadata"]["deletionTimestamp"].is_null() {
            Ok(uid.to_owned())
        } else {
            Err("it is not ready".to_owned())
        }
    }

    /// Deletes a pod and waits until another one has taken its place.
    pub(crate) async fn replace_pod(&self, pod: &str) {
        let before = self.ready_pod(pod).unwrap();
        self.world
            .kubectl(&["delete", "pod", pod, "--wait=false"])
            .unwrap();
        until(&format!("{pod} is back"), DEADLINE, || async {
            match self.ready_pod(pod)? {
                uid if uid != before => Ok(()),
                _ => Err("it is still the old one".to_owned()),
            }
        })
        .await;
    }
}

/// Puts the fields of `more` into `base`, objects into objects.
fn merge(base: &mut Value, more: &Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (name, field) in more {
                merge(base.entry(name).or_insert(Value::Null), field);
            }
        }
        (base, more) => *base = more.clone(),
    }
}
