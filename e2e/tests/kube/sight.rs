//! What the person on call sees: a real Prometheus scrapes a store under load, while it is whole, while chunks lack
//! replicas, and once they are made again; every question that a dashboard or an alert asks it has an answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dfs_e2e::http::Http;
use dfs_e2e::process::Process;
use dfs_e2e::prometheus;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::load::Load;
use crate::loss::goes_on;
use crate::store::Cluster;
use crate::tools::{get, said_by, text, tree, until};
use crate::world::{DEADLINE, World};

/// Panels that may be empty, each with its reason: dashboard, panel, reason.
const MAY_BE_EMPTY: &str = "deploy/observability/empty-panels.tsv";
/// Jobs that rules and dashboards ask for.
const STORE_JOB: &str = "dfs";
const OPERATOR_JOB: &str = "dfs-operator";
/// Values of one panel that are printed.
const SHOWN: usize = 3;

/// One question of a dashboard.
#[derive(Debug)]
struct Question {
    dashboard: String,
    panel: String,
    legend: String,
    expression: String,
}

/// An answer's series: labels and value.
type Series = Vec<(BTreeMap<String, String>, f64)>;

struct Prometheus {
    _process: Process,
    http: Http,
    // Removed last.
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// One beside the cluster, for one scenario's namespaces.
    async fn start(program: &str, world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let (process, http) = prometheus::start(program, dir.path(), &config, DEADLINE).await;
        let started = Self {
            _process: process,
            http,
            dir,
        };
        started.follow(world);
        started
    }

    /// Has it scrape the pods that are there now.
    fn follow(&self, world: &World) {
        for (job, namespace) in [(STORE_JOB, &world.namespace), (OPERATOR_JOB, &world.system)] {
            let pods = get(&["pods", "-n", namespace]).unwrap();
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            // Read by Prometheus as soon as it has this name.
            let written = self.dir.path().join("targets");
            std::fs::write(&written, targets(&pods).to_string()).unwrap();
            std::fs::rename(&written, self.dir.path().join(format!("{job}.json"))).unwrap();
        }
    }

    async fn ask(&self, expression: &str) -> Result<Series, String> {
        let query = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let reply = self.http.get(&format!("/api/v1/query?query={query}")).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if !reply.status.is_success() {
            return Err(reply.text());
        }
        let answer: Value = reply.json();
        let result = &answer["data"]["result"];
        if answer["data"]["resultType"] == "scalar" {
            return Ok(vec![(BTreeMap::new(), number(&result[1]))]);
        }
        let series = result.as_array().ok_or_else(|| answer.to_string())?;
        Ok(series
            .iter()
            .map(|one| {
                let labels = serde_json::from_value(one["metric"].clone()).unwrap_or_default();
                (labels, number(&one["value"][1]))
            })
            .collect())
    }

    /// Whether a question without an answer has none because nothing was measured. One that ends with a comparison
    /// shows only what happens.
    async fn has_no_data(&self, expression: &str) -> bool {
        match expression.strip_suffix("> 0") {
            Some(all) => self.ask(all).await.unwrap().is_empty(),
            None => true,
        }
    }

    /// Waits until an expression has a value that is not zero.
    async fn wait_for(&self, what: &str, expression: &str) {
        until(what, DEADLINE, || async {
            let found = self.ask(expression).await?;
            let holds = found.iter().any(|(_, value)| *value > 0.0);
            holds.then_some(()).ok_or_else(|| format!("{found:?}"))
        })
        .await;
    }

    /// Every rule was evaluated without an error; the alerts that hold now, in words.
    async fn alerts(&self) -> String {
        let evaluated = "every rule was evaluated";
        until(evaluated, DEADLINE, || async {
            let reply = self.http.get("/api/v1/rules").await;
            let told: Value = reply.map_err(|error| error.to_string())?.json();
            let none = Vec::new();
            let groups = told["data"]["groups"].as_array().unwrap_or(&none);
            let rules = groups
                .iter()
                .flat_map(|group| group["rules"].as_array().into_iter().flatten());
            let other: Vec<_> = rules
                .clone()
                .filter(|rule| rule["health"] != "ok")
                .collect();
            (rules.count() > 0 && other.is_empty())
                .then_some(())
                .ok_or_else(|| format!("{other:?}"))
        })
        .await;
        in_words(
            "{{alertname}} {{alertstate}}",
            &self.ask("ALERTS").await.unwrap(),
        )
    }

    /// Asks everything and prints a table of panel and value; what had no answer, by dashboard and panel.
    async fn look(&self, state: &str, questions: &[Question]) -> Vec<(String, String)> {
        eprintln!("---- {state}: dashboard | panel | value");
        let mut empty = Vec::new();
        for question in questions {
            let Question {
                dashboard,
                panel,
                legend,
                expression,
            } = question;
            let answer = self.ask(expression).await;
            let answer =
                answer.unwrap_or_else(|why| panic!("{dashboard}, {panel}: {expression}: {why}"));
            if answer.is_empty() && self.has_no_data(expression).await {
                empty.push((dashboard.clone(), panel.clone()));
            }
            eprintln!("{dashboard} | {panel} | {}", in_words(legend, &answer));
        }
        empty
    }
}

fn number(value: &Value) -> f64 {
    let text = value.as_str().unwrap_or_default();
    text.parse().unwrap_or(f64::NAN)
}

fn in_words(legend: &str, answer: &Series) -> String {
    let one = |(labels, value): &(BTreeMap<String, String>, f64)| {
        let mut name = legend.to_owned();
        for (label, text) in labels {
            name = name.replace(&format!("{{{{{label}}}}}"), text);
        }
        let name = name.trim_start_matches("__auto");
        if name.is_empty() {
            format!("{value:.4}")
        } else {
            format!("{name} {value:.4}")
        }
    };
    let mut words: Vec<String> = answer.iter().take(SHOWN).map(one).collect();
    if answer.len() > SHOWN {
        words.push(format!("and {} more", answer.len() - SHOWN));
    }
    words.join(", ")
}

/// Debian's Prometheus knows no Kubernetes: who is to be scraped is written down for it, with the labels that
/// `deploy/observability/prometheus.yaml` gives.
fn config(dir: &Path) -> Value {
    let job = |name: &str| {
        json!({
            "job_name": name,
            // What the operator says of a DfsCluster keeps that cluster's namespace.
            "honor_labels": name == OPERATOR_JOB,
            "file_sd_configs": [{"files": [dir.join(format!("{name}.json"))]}],
        })
    };
    json!({
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [tree().join("deploy/observability/rules.yaml")],
        "scrape_configs": [job(STORE_JOB), job(OPERATOR_JOB)],
    })
}

/// A job's pods that run, as targets: those with a port `admin`.
fn targets(pods: &[Value]) -> Value {
    let target = |pod: &Value| {
        let ports = pod["spec"]["containers"][0]["ports"].as_array()?;
        let admin = ports.iter().find(|port| port["name"] == "admin")?;
        let address = pod["status"]["podIP"].as_str()?;
        let labels = &pod["metadata"]["labels"];
        let component = text(&labels["app.kubernetes.io/component"]);
        let mut told = json!({
            "namespace": pod["metadata"]["namespace"],
            "pod": pod["metadata"]["name"],
            "node": pod["spec"]["nodeName"],
            "component": component,
        });
        // The operator's own instance is its release, no store.
        if component != "operator" {
            told["cluster"] = labels["app.kubernetes.io/instance"].clone();
        }
        Some(json!({"targets": [format!("{address}:{}", admin["containerPort"])], "labels": told}))
    };
    let running = pods
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Running");
    Value::Array(running.filter_map(target).collect())
}

/// Every expression of every dashboard, for the scenario's store.
fn questions(world: &World) -> Vec<Question> {
    let dir = tree().join("charts/dfs-operator/files/dashboards");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| of_dashboard(file, world))
        .collect()
}

fn of_dashboard(file: &Path, world: &World) -> Vec<Question> {
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let none = Vec::new();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap_or(&none) {
        for target in panel["targets"].as_array().unwrap_or(&none) {
            let expression = text(&target["expr"])
                .replace("$namespace", &world.namespace)
                .replace("$cluster", "store")
                .replace("$__rate_interval", "30s");
            assert!(
                !expression.contains('$'),
                "an unknown variable: {expression}"
            );
            found.push(Question {
                dashboard: text(&dashboard["title"]).replace("dfs / ", ""),
                panel: text(&panel["title"]),
                legend: text(&target["legendFormat"]),
                expression,
            });
        }
    }
    found
}

/// `dashboard<TAB>panel` of the panels that may be empty.
fn may_be_empty() -> Vec<(String, String)> {
    let list = std::fs::read_to_string(tree().join(MAY_BE_EMPTY)).unwrap();
    let rows = list.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut cells = line.split('\t');
        Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_of_dashboards_and_alerts_has_an_answer_in_a_prometheus_that_scrapes_a_store()
 {
    let Some(program) = said_by("DFS_KUBE_PROMETHEUS") else {
        eprintln!("skipped: DFS_KUBE_PROMETHEUS names no Prometheus");
        return;
    };
    let Some(mut world) = World::start("sight").await else {
        return;
    };
    world.install_operator(&[]);
    let seen_by = json!({"networkPolicy": {"monitoring": [{"cidr": "0.0.0.0/0"}]}});
    let cluster = Cluster::apply_with(&world, "store", 3, &seen_by);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let door = cluster.door().await;
    let load = Load::start(&door.store, "load");
    let prometheus = Prometheus::start(&program, &world).await;
    // A tracker, three datanodes, two gateways.
    prometheus
        .wait_for("all pods are scraped", "sum(up{job=\"dfs\"}) == bool 6")
        .await;
    prometheus
        .wait_for("so is the operator", "sum(up{job=\"dfs-operator\"})")
        .await;
    goes_on(&load).await;
    let questions = questions(&world);
    let whole = "max(dfs_tracker_chunks{health=\"under-replicated\"}) == bool 0";
    prometheus
        .wait_for(
            "rates can be told",
            "sum(rate(dfs_gateway_sent_bytes_total[30s]))",
        )
        .await;
    let mut empty = prometheus.look("whole", &questions).await;

    let volume = world.get(&["pvc", "data-store-datanode-2"]).unwrap();
    world
        .kubectl(&["delete", "pvc", "data-store-datanode-2", "--wait=false"])
        .unwrap();
    world
        .kubectl(&["delete", "pod", "store-datanode-2", "--wait=false"])
        .unwrap();
    eprintln!("  gone: {}", volume["spec"]["volumeName"]);
    prometheus
        .wait_for(
            "it is seen that chunks lack replicas",
            "max(dfs_tracker_chunks{health=\"under-replicated\"})",
        )
        .await;
    let degraded = prometheus.look("chunks lack replicas", &questions).await;
    eprintln!("  alerts: {}", prometheus.alerts().await);
    cluster.wait_registered(3).await;
    prometheus.follow(&world);
    prometheus.wait_for("they are whole again", whole).await;
    goes_on(&load).await;
    let repaired = prometheus.look("whole again", &questions).await;
    load.stop().await.assert_nothing_failed();

    // What was answered once has data; a gap in one state is a state's own.
    empty.retain(|panel| degraded.contains(panel) && repaired.contains(panel));
    let known = may_be_empty();
    empty.retain(|panel| !known.contains(panel));
    empty.dedup();
    assert!(
        empty.is_empty(),
        "panels without data that {MAY_BE_EMPTY} does not explain: {empty:?}"
    );
}
