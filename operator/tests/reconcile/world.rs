//! A Kubernetes cluster around the API server: what its controllers and kubelets would do, and a
//! fresh operator process whenever one is asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_operator::crd::DfsCluster;
use dfs_operator::ctx::{Ctx, Memory};
use dfs_operator::error::ReconcileError;
use dfs_operator::events::Events;
use dfs_operator::metrics::Metrics;
use dfs_operator::observe::{Inventory, LiveInventory};
use dfs_operator::{Outcome, reconcile};
use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_runtime::clock::Clock;
use dfs_runtime::rng::SharedRng;
use prometheus::Registry;
use serde_json::{Value, json};

use crate::api::{Api, Call, is_ready};
use crate::gate::Gate;
use crate::tracker::FakeTracker;

/// Time that only tests move.
#[derive(Debug, Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + self.monotonic()
    }
}

pub struct World {
    pub gate: Gate,
    pub api: Api,
    pub tracker: FakeTracker,
    pub clock: Arc<TestClock>,
    addresses: AtomicU64,
    processes: AtomicU64,
    /// How often the datanode on a volume was told to start anew.
    resets: Mutex<BTreeMap<String, u128>>,
    /// The most chunks that were below their factor at any time.
    pub worst: AtomicU64,
}

impl World {
    /// Three nodes in two zones, and a DfsCluster `a` that asks for three datanodes.
    pub fn new() -> Self {
        let gate = Gate::open();
        let world = Self {
            api: Api::new(gate.clone()),
            tracker: FakeTracker::new(gate.clone()),
            gate,
            clock: Arc::default(),
            addresses: AtomicU64::new(1),
            processes: AtomicU64::new(7),
            resets: Mutex::default(),
            worst: AtomicU64::new(0),
        };
        for (node, zone) in [("node-0", "z0"), ("node-1", "z1"), ("node-2", "z0")] {
            world.api.put(
                "nodes",
                json!({"apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": node, "namespace": "", "labels": {"topology.kubernetes.io/zone": zone}},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            );
        }
        world.api.put("dfsclusters", smallest());
        world
    }

    /// A new operator process over live reads.
    pub fn operator(&self) -> Ctx {
        let inventory = Arc::new(LiveInventory::new(self.api.client()));
        self.operator_with(inventory)
    }

    pub fn operator_with(&self, inventory: Arc<dyn Inventory>) -> Ctx {
        let client = self.api.client();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        // Names of events are drawn: two processes draw different ones.
        let rng = SharedRng::from_seed(self.processes.fetch_add(1, Ordering::SeqCst));
        let clock = self.clock.clone();
        let events = Events::new(
            client.clone(),
            clock.clone(),
            rng.clone(),
            metrics.clone(),
            "o".into(),
        );
        Ctx {
            live: LiveInventory::new(client.clone()),
            client,
            inventory,
            tracker: Arc::new(self.tracker.clone()),
            address_of: Arc::new(|key| format!("{}-tracker.{}:6000", key.name, key.namespace)),
            clock,
            rng,
            metrics,
            events: Arc::new(events),
            settled: Arc::default(),
            memory: Arc::new(Memory::default()),
            image: "dfs:test".into(),
            operator_namespace: Some("dfs-system".into()),
            resync: Duration::from_secs(15),
        }
    }

    pub fn cluster(&self) -> DfsCluster {
        serde_json::from_value(self.api.get("dfsclusters", "a").unwrap()).unwrap()
    }

    /// One reconcile of the cluster as it is.
    pub async fn reconcile(&self, ctx: &Ctx) -> Result<Outcome, ReconcileError> {
        reconcile(ctx, &self.cluster()).await
    }

    /// Reconciles and lets the cluster move until neither changes anything.
    pub async fn converge(&self, ctx: &Ctx) {
        for _ in 0..60 {
            self.settle();
            self.clock.advance(Duration::from_secs(31));
            self.api.take_calls();
            let before = self.tracker.with(|state| state.told.len());
            let ended = self.reconcile(ctx).await;
            let told = self.tracker.with(|state| state.told.len()) - before;
            if ended.is_ok() && told == 0 && self.writes().is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Writes since the calls were last taken.
    pub fn writes(&self) -> Vec<Call> {
        let calls = self.api.take_calls().into_iter();
        calls.filter(Call::is_write).collect()
    }

    /// What controllers and kubelets do.
    pub fn settle(&self) {
        self.end();
        for set in self.api.list("statefulsets") {
            let name = set["metadata"]["name"].as_str().unwrap().to_owned();
            if !set["metadata"]["deletionTimestamp"].is_null() {
                self.orphan(&set, &name);
                continue;
            }
            self.adopt(&set, &name);
            let replicas = set["spec"]["replicas"].as_i64().unwrap();
            for ordinal in 0..replicas {
                self.start_pod(&set, &format!("{name}-{ordinal}"), ordinal);
            }
            self.end_pods(&name, replicas);
            let revision = revision(&set);
            let pods = self.api.list("pods").into_iter().filter(|pod| {
                pod["metadata"]["ownerReferences"][0]["uid"] == set["metadata"]["uid"]
            });
            let pods: Vec<_> = pods.collect();
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let newest = |pod: &&Value| pod["metadata"]["labels"][REVISION] == json!(revision);
            let updated = pods.iter().filter(newest).count();
            self.api.change("statefulsets", &name, |set| {
                set["status"] = json!({
                    "replicas": replicas, "readyReplicas": ready, "updatedReplicas": updated,
                    "updateRevision": revision, "observedGeneration": set["metadata"]["generation"],
                });
            });
        }
        for deployment in self.api.list("deployments") {
            let name = deployment["metadata"]["name"].as_str().unwrap();
            let replicas = &deployment["spec"]["replicas"];
            self.api.change("deployments", name, |one| {
                one["status"] = json!({
                    "replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas,
                    "observedGeneration": one["metadata"]["generation"],
                });
            });
        }
        self.resize();
        self.speak();
    }

    /// Whether a node's kubelet is there.
    fn runs(&self, node: &str) -> bool {
        let node = self.api.get("nodes", node);
        node.is_some_and(|node| node["status"]["conditions"][0]["status"] == "True")
    }

    /// Whether a node takes new pods.
    fn takes(&self, node: &str) -> bool {
        let cordoned = self.api.get("nodes", node);
        let cordoned = cordoned.is_some_and(|node| node["spec"]["unschedulable"] == true);
        self.runs(node) && !cordoned
    }

    /// Kubelets end the pods that are to end; those of nobody's node go at once.
    fn end(&self) {
        for pod in self.api.list("pods") {
            let node = pod["spec"]["nodeName"].as_str();
            if !pod["metadata"]["deletionTimestamp"].is_null()
                && node.is_none_or(|node| self.runs(node))
            {
                self.api
                    .remove("pods", pod["metadata"]["name"].as_str().unwrap());
            }
        }
    }

    /// Where a pod is to run: where its volume is, if that is anywhere; on a node of its own otherwise.
    fn place(&self, claim: &str, ordinal: i64) -> Option<String> {
        let claim = self.api.get("persistentvolumeclaims", claim).unwrap();
        let held = claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].as_str();
        if let Some(node) = held {
            return self.takes(node).then(|| node.to_owned());
        }
        let nodes = (0..3).map(|next| format!("node-{}", (ordinal + next) % 3));
        nodes.into_iter().find(|node| self.takes(node))
    }

    /// Pods of a set that is deleted without them belong to nobody from now on.
    fn orphan(&self, set: &Value, name: &str) {
        for pod in self.api.list("pods") {
            if pod["metadata"]["ownerReferences"][0]["uid"] == set["metadata"]["uid"] {
                let pod = pod["metadata"]["name"].as_str().unwrap();
                self.api.change("pods", pod, |pod| {
                    pod["metadata"]
                        .as_object_mut()
                        .unwrap()
                        .remove("ownerReferences");
                });
            }
        }
        self.api.remove("statefulsets", name);
    }

    /// Pods of nobody that have a set's name belong to it.
    fn adopt(&self, set: &Value, name: &str) {
        for pod in self.api.list("pods") {
            let pod_name = pod["metadata"]["name"].as_str().unwrap();
            let is_its = pod_name.strip_prefix(&format!("{name}-"));
            let is_its = is_its.is_some_and(|digits| digits.parse::<u32>().is_ok());
            if is_its && pod["metadata"]["ownerReferences"].is_null() {
                self.api.change("pods", pod_name, |pod| {
                    pod["metadata"]["ownerReferences"] = owner(set);
                });
            }
        }
    }

    /// The storage makes larger what asks for more, and claims whose pod is gone may go.
    fn resize(&self) {
        for claim in self.api.list("persistentvolumeclaims") {
            let name = claim["metadata"]["name"].as_str().unwrap();
            if !claim["metadata"]["deletionTimestamp"].is_null() {
                if self.api.get("pods", &name["data-".len()..]).is_none() {
                    self.api.remove("persistentvolumeclaims", name);
                }
                continue;
            }
            let asked = claim["spec"]["resources"]["requests"]["storage"].clone();
            self.api.change("persistentvolumeclaims", name, |claim| {
                claim["status"]["capacity"] = json!({"storage": asked});
            });
        }
    }

    /// Pods beyond the set's number: told to end at one look, gone at the next.
    fn end_pods(&self, set: &str, replicas: i64) {
        for pod in self.api.list("pods") {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let ordinal = name.strip_prefix(&format!("{set}-"));
            let Some(ordinal) = ordinal.and_then(|digits| digits.parse::<i64>().ok()) else {
                continue;
            };
            if ordinal < replicas {
                continue;
            }
            if pod["metadata"]["deletionTimestamp"].is_null() {
                self.api.change("pods", name, |pod| {
                    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                });
            }
        }
    }

    fn start_pod(&self, set: &Value, name: &str, ordinal: i64) {
        let claim = format!("data-{name}");
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        if self.api.get("persistentvolumeclaims", &claim).is_none() {
            self.api.put(
                "persistentvolumeclaims",
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {"name": claim, "labels": labels},
                    "spec": set["spec"]["volumeClaimTemplates"][0]["spec"], "status": {"phase": "Bound"}}),
            );
        }
        let node = self.place(&claim, ordinal);
        if let Some(pod) = self.api.get("pods", name) {
            if pod["spec"]["nodeName"].is_null() && node.is_some() {
                self.api.change("pods", name, |pod| {
                    pod["spec"]["nodeName"] = json!(node);
                    pod["status"]["conditions"] = runs(true, true);
                });
            }
            return;
        }
        let being_deleted = self.api.get("persistentvolumeclaims", &claim).unwrap();
        if !being_deleted["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let address = self.addresses.fetch_add(1, Ordering::SeqCst);
        let mut labels = labels.clone();
        labels[REVISION] = json!(revision(set));
        let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
        let starts = image.as_str() != Some(BROKEN_IMAGE);
        let state = if starts {
            json!({"running": {}})
        } else {
            json!({"waiting": {"reason": "CrashLoopBackOff"}})
        };
        let conditions = runs(node.is_some(), starts);
        self.api.put(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": labels, "ownerReferences": owner(set)},
                "spec": {"nodeName": node, "containers": [{"image": image}], "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": claim}}]},
                "status": {"phase": "Running", "podIP": format!("10.0.0.{address}"), "conditions": conditions,
                    "containerStatuses": [{"state": state}]}}),
        );
    }

    /// The store's processes talk to each other.
    fn speak(&self) {
        let tracker = self.api.get("pods", "a-tracker-0");
        let runs = tracker.is_some_and(|pod| is_ready(&pod));
        self.tracker.with(|state| {
            state.runs = runs;
            for entry in state.nodes.values_mut() {
                entry.liveness = Liveness::Dead;
            }
        });
        if !runs {
            return;
        }
        for pod in self.api.list("pods") {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let node = pod["spec"]["nodeName"].as_str();
            let serves = is_ready(&pod) && node.is_some_and(|node| self.runs(node));
            if name.starts_with("a-datanode-") && serves {
                let address = format!("{}:6001", pod["status"]["podIP"].as_str().unwrap());
                self.tracker.heard(self.uuid(name), name, &address);
            }
        }
        let below = self.tracker.with(|state| {
            state.work();
            state.below_factor()
        });
        // Datanodes that the spec itself ends come back with all that they have.
        let rests = self.api.get("statefulsets", "a-datanode");
        if rests.is_none_or(|set| set["spec"]["replicas"] != json!(0)) {
            self.worst.fetch_max(below, Ordering::SeqCst);
        }
    }

    /// Chunks with three replicas each, spread over the members.
    pub fn fill(&self, chunks: u32) {
        self.tracker.with(|state| {
            let members = state.nodes.values();
            let members: Vec<_> = members
                .filter(|node| node.admin == AdminState::InService)
                .map(|node| node.id)
                .collect();
            for chunk in 0..chunks {
                let at = |n: usize| members[(chunk as usize + n) % members.len()];
                state.chunks.insert(chunk, (0..3).map(at).collect());
            }
        });
    }

    /// The uuid on a pod's volume: another volume has another one, and one that is tombstoned is
    /// given up for a new one.
    pub fn uuid(&self, pod: &str) -> DatanodeId {
        let claim = self
            .api
            .get("persistentvolumeclaims", &format!("data-{pod}"))
            .unwrap();
        let uid = claim["metadata"]["uid"].as_str().unwrap();
        let sum = uid
            .bytes()
            .fold(0_u128, |sum, byte| sum.wrapping_mul(257) + u128::from(byte));
        let mut resets = self.resets.lock().unwrap();
        let anew = resets.entry(uid.to_owned()).or_default();
        let id = DatanodeId::from_u128(sum.wrapping_add(*anew << 120));
        let is_tombstoned = self.tracker.with(|state| {
            let node = state.nodes.get(&id);
            node.is_some_and(|node| node.admin == AdminState::Tombstoned)
        });
        if is_tombstoned && self.api.get("pods", pod).is_some() {
            *anew += 1;
            return DatanodeId::from_u128(sum.wrapping_add(*anew << 120));
        }
        id
    }

    /// A condition's status, reason and message.
    pub fn condition(&self, kind: &str) -> (String, String, String) {
        let cluster = self.api.get("dfsclusters", "a").unwrap();
        let conditions = cluster["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions.iter().find(|one| one["type"] == kind);
        let found = found.unwrap_or_else(|| panic!("no condition {kind}"));
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Reasons of the events so far, and their notes.
    pub fn events(&self) -> Vec<(String, String)> {
        let events = self.api.list("events").into_iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        events
            .map(|event| (text(&event["reason"]), text(&event["note"])))
            .collect()
    }

    pub fn was_told(&self, reason: &str) -> bool {
        self.events().iter().any(|(told, _)| told == reason)
    }

    /// Everything that matters at the end: objects without versions and times, and the tracker.
    pub fn end_state(&self) -> Value {
        let mut objects = Vec::new();
        for plural in [
            "configmaps",
            "deployments",
            "dfsclusters",
            "networkpolicies",
            "persistentvolumeclaims",
            "poddisruptionbudgets",
            "pods",
            "secrets",
            "serviceaccounts",
            "services",
            "statefulsets",
        ] {
            for mut object in self.api.list(plural) {
                for varying in ["resourceVersion", "generation", "annotations"] {
                    object["metadata"].as_object_mut().unwrap().remove(varying);
                }
                object["data"] = json!(object["data"].is_object());
                object["status"]["podIP"] = Value::Null;
                object["status"]["observedGeneration"] = Value::Null;
                for condition in object["status"]["conditions"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                {
                    condition["lastTransitionTime"] = Value::Null;
                    condition["observedGeneration"] = Value::Null;
                }
                objects.push(object);
            }
        }
        let nodes = self.tracker.with(|state| {
            let mut nodes = state.nodes.values().cloned().collect::<Vec<_>>();
            // Addresses are drawn as pods come.
            for entry in &mut nodes {
                entry.address.clear();
                entry.last_heartbeat = None;
            }
            serde_json::to_value(nodes).unwrap()
        });
        json!({"objects": objects, "nodes": nodes})
    }
}

/// Label by which a pod says from which template it was made.
const REVISION: &str = "controller-revision-hash";
/// An image whose program ends at once.
pub const BROKEN_IMAGE: &str = "dfs:broken";

/// As a StatefulSet's controller names a template.
fn revision(set: &Value) -> String {
    let text = set["spec"]["template"].to_string();
    let sum = text.bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
    });
    format!("{sum:x}")
}

/// Conditions of a pod that has a node, or that none takes, and whose program runs or does not.
fn runs(placed: bool, starts: bool) -> Value {
    let status = |is: bool| if is { "True" } else { "False" };
    json!([{"type": "Ready", "status": status(placed && starts)},
        {"type": "PodScheduled", "status": status(placed)}])
}

/// What makes a set the owner of a pod.
fn owner(set: &Value) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set["metadata"]["name"],
        "uid": set["metadata"]["uid"], "controller": true}])
}

/// The manifest that a new user writes, with the API server's defaults in it.
pub fn smallest() -> Value {
    json!({"apiVersion": "dfs.io/v1alpha1", "kind": "DfsCluster", "metadata": {"name": "a"},
        "spec": {"replication": {"factor": 3}, "dataNodes": {"replicas": 3, "storage": {"size": "10Gi"}}}})
}
