//! `kubectl drain` under load: every node, one after the other, and then two at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use dfs_protocol::status::ChunkHealth;
use serde_json::Value;

use crate::load::Load;
use crate::loss::{busy, goes_on};
use crate::store::Cluster;
use crate::tools::{get, kubectl, said, text, until};
use crate::world::{DEADLINE, World};

/// Refusals, five seconds apart, after which an eviction waits for more than a verdict that is about to come.
const LONG: usize = 4;

/// What a drain is to take away: stores and their operator, and nothing of the cluster's own.
const OURS: &str = "app.kubernetes.io/name in (dfs,dfs-operator)";
/// A datanode that stops is announced as away for five minutes. Where the next one has to wait until its chunks are
/// copied, its drain takes longer.
const PATIENCE: Duration = Duration::from_mins(20);

/// A node that is drained. Dropped, it takes pods again.
struct Cordoned(String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["uncordon", &self.0]) {
            eprintln!("  while {} is uncordoned: {error}", self.0);
        }
    }
}

/// How a drain went.
struct Drain {
    node: String,
    took: Duration,
    /// Pods in the order in which they were gone.
    left: Vec<String>,
    /// How often the eviction of a pod was refused.
    refused: BTreeMap<String, usize>,
}

impl Drain {
    /// `kubectl drain NODE`, until it ends.
    fn run(node: &str) -> Self {
        let start = Instant::now();
        let (selector, limit) = (
            format!("--pod-selector={OURS}"),
            format!("--timeout={}s", PATIENCE.as_secs()),
        );
        let mut args = vec!["drain", node, "--ignore-daemonsets"];
        args.extend(["--delete-emptydir-data", &selector, &limit]);
        let said = said("kubectl", &args, None).unwrap();
        let mut drain = Self {
            node: node.to_owned(),
            took: start.elapsed(),
            left: evicted(&said.stdout),
            refused: BTreeMap::new(),
        };
        for pod in said.stderr.lines().filter_map(refused) {
            *drain.refused.entry(pod.to_owned()).or_default() += 1;
        }
        eprintln!("  {drain}");
        drain
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            took,
            left,
            refused,
        } = self;
        write!(f, "{node} is drained after {took:.0?}: {}", left.join(", "))?;
        if refused.is_empty() {
            return f.write_str("; no eviction waited");
        }
        f.write_str("; refused, and tried again after 5 s:")?;
        let mut refused = refused.iter();
        refused.try_for_each(|(pod, times)| write!(f, " {pod} {times} times"))
    }
}

/// The pods of lines like `pod/NAME evicted`.
fn evicted(stdout: &str) -> Vec<String> {
    let pods = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("pod/")?.strip_suffix(" evicted"));
    pods.map(str::to_owned).collect()
}

/// The pod of a line like `error when evicting pods/"NAME" -n "NAMESPACE" (will retry after 5s): WHY`.
fn refused(line: &str) -> Option<&str> {
    let (_, named) = line.split_once("error when evicting pods/\"")?;
    named.split_once('"').map(|(pod, _)| pod)
}

/// Nodes that take pods.
fn schedulable() -> Vec<String> {
    let nodes = get(&["nodes"]).unwrap();
    let nodes = nodes["items"].as_array().unwrap().iter();
    let nodes = nodes.filter(|node| node["spec"]["unschedulable"] != true);
    nodes.map(|node| text(&node["metadata"]["name"])).collect()
}

/// Nothing of the store or its operator is left on a node.
fn assert_rid(world: &World, node: &str) {
    let field = format!("--field-selector=spec.nodeName={node}");
    for namespace in [&world.namespace, &world.system] {
        let there = kubectl(&["get", "pods", "-o", "name", &field, "-n", namespace]).unwrap();
        assert_eq!(there, "", "on {node}, in {namespace}");
    }
}

/// Waits until all datanodes are back and one more may be evicted: whoever drains nodes goes on now.
async fn wait_allowed(world: &World, cluster: &Cluster<'_>, datanodes: usize) {
    cluster.wait_registered(datanodes).await;
    until("the budget allows again", DEADLINE, || async {
        let budget = world.get(&["pdb", "store-datanode"])?;
        let status = &budget["status"];
        let is_current = status["observedGeneration"] == budget["metadata"]["generation"];
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        let is_whole = count("currentHealthy") == datanodes as u64;
        if is_current && is_whole && count("disruptionsAllowed") > 0 {
            return Ok(());
        }
        // Why evictions wait stands there.
        let (_, _, message) = cluster.condition("Degraded")?;
        Err(format!("{message}: {status}"))
    })
    .await;
}

/// What was told of announcements that ended early.
fn maintenance_ended(world: &World) -> Vec<String> {
    let events = world.events().unwrap().into_iter();
    let ended = events.filter(|event| event["reason"] == "MaintenanceEnded");
    // The events of one API are shown by the other under its own names.
    let note = |event: &Value| [text(&event["message"]), text(&event["note"])].concat();
    ended.map(|event| note(&event)).collect()
}

/// Two nodes with datanodes at once, none with the tracker: where its volume is bound to the node, nobody could say
/// that the other drain's datanode may stop.
async fn two_at_once(world: &World, cluster: &Cluster<'_>, load: &Load) {
    let tracker = world.nodes_of("tracker")["store-tracker-0"].clone();
    let datanodes = world.nodes_of("datanode").into_values();
    let both: Vec<_> = datanodes.filter(|node| *node != tracker).take(2).collect();
    let _cordoned: Vec<_> = both.iter().cloned().map(Cordoned).collect();
    eprintln!("  {} at once", both.join(" and "));
    let drains = both.iter().cloned().map(|node| {
        // Each is a program that runs for minutes.
        tokio::task::spawn_blocking(move || Drain::run(&node))
    });
    let mut waited = false;
    for drain in drains.collect::<Vec<_>>() {
        let drain = drain.await.unwrap();
        assert_rid(world, &drain.node);
        let mut refused = drain.refused.iter();
        waited |= refused.any(|(pod, times)| pod.starts_with("store-datanode") && *times >= LONG);
    }
    // Where volumes are bound, nobody comes back while both are cordoned: the second is waited for until repair is done.
    let nowhere = world.nodes_of("datanode");
    let nowhere = nowhere.values().filter(|node| node.is_empty()).count();
    let ended = maintenance_ended(world);
    for note in &ended {
        eprintln!("  MaintenanceEnded: {note}");
    }
    assert!(
        !waited || nowhere < 2 || !ended.is_empty(),
        "the second drain waited for the first one's announcement to run out"
    );
    goes_on(load).await;
    let status = cluster.status().unwrap();
    eprintln!("  with both away: {}", status.summary);
    assert_eq!(status.chunks[&ChunkHealth::Missing], 0, "{status:?}");
}

/// On volumes that are bound to their node a drained datanode and the tracker wait for the end of the cordon;
/// others go elsewhere. Either way every drain ends, and no file is out of reach for longer than the tracker.
#[tokio::test(flavor = "multi_thread")]
async fn fault_37_every_node_is_drained_under_load_and_two_at_once() {
    let Some(mut world) = World::alone("drain").await else {
        return;
    };
    if world.ingress.is_none() {
        eprintln!("skipped: a port-forward ends with the pod that it leads to; set INGRESS");
        return;
    }
    let nodes = schedulable();
    let has_spare = nodes.len() >= 5;
    let datanodes: u32 = if has_spare { 5 } else { 3 };
    // One operator, which is evicted like all else.
    world.install_operator(&[]);
    let (cluster, _door, load) = busy(&world, datanodes).await;
    wait_allowed(&world, &cluster, datanodes as usize).await;
    for node in &nodes {
        let cordoned = Cordoned(node.clone());
        // Clients are served by other threads.
        Drain::run(node);
        assert_rid(&world, node);
        drop(cordoned);
        wait_allowed(&world, &cluster, datanodes as usize).await;
        goes_on(&load).await;
    }
    let one_by_one = load.seen();
    eprintln!("  one node after the other: {one_by_one}");
    if has_spare {
        two_at_once(&world, &cluster, &load).await;
        wait_allowed(&world, &cluster, datanodes as usize).await;
    } else {
        eprintln!("skipped: two at once leave no place for three replicas below five nodes");
    }
    goes_on(&load).await;
    load.stop().await.assert_only_the_tracker_was_away();
    cluster.wait_whole().await;
    cluster.wait_ready().await;
}

#[test]
fn what_kubectl_says_of_a_drain_is_understood() {
    let stdout = "node/n cordoned\nevicting pod x/store-datanode-1\npod/store-datanode-1 evicted\nnode/n drained\n";
    assert_eq!(evicted(stdout), ["store-datanode-1"]);
    let line = "error when evicting pods/\"store-tracker-0\" -n \"x\" (will retry after 5s): Cannot evict pod as it would \
                violate the pod's disruption budget.";
    assert_eq!(refused(line), Some("store-tracker-0"));
    assert_eq!(
        refused("Warning: ignoring DaemonSet-managed Pods: x/y"),
        None
    );
}
