//! What the person on call sees: a real Prometheus scrapes a store under load, while it is whole, while chunks lack
//! replicas, and once they are made again; every question that a dashboard or an alert asks it has an answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dfs_e2e::http::Http;
use dfs_e2e::process::{Process, ProcessSpec, free_ports};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::load::Load;
use crate::loss::goes_on;
use crate::store::Cluster;
use crate::tools::{said_by, tree, until};
use crate::world::{DEADLINE, World};

/// Panels that may be empty, each with its reason: dashboard, panel, reason.
const MAY_BE_EMPTY: &str = "deploy/observability/empty-panels.tsv";
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
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// The sample of deploy/observability beside the cluster instead of in it, for one scenario's namespaces.
    async fn start(program: &str, world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, config_for(world)).unwrap();
        let port = free_ports(1)[0];
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let mut spec = ProcessSpec::of("dfs", "prometheus", args);
        spec.binary = PathBuf::from(program);
        let process = Process::start(spec, dir.path()).unwrap();
        let http = Http::new(&format!("127.0.0.1:{port}"));
        until("Prometheus answers", DEADLINE, || async {
            let ready = http.get("/-/ready").await;
            let ready = ready.map_err(|error| error.to_string())?;
            ready
                .status
                .is_success()
                .then_some(())
                .ok_or_else(|| ready.text())
        })
        .await;
        Self {
            _process: process,
            http,
            _dir: dir,
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
            if answer.is_empty() {
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

/// The configuration that the sample carries: reached by the person's own kubeconfig, scraping more often.
fn config_for(world: &World) -> String {
    let sample =
        std::fs::read_to_string(tree().join("deploy/observability/prometheus.yaml")).unwrap();
    let begin = "  prometheus.yml: |\n";
    let at = sample.find(begin).expect("the sample has a configuration") + begin.len();
    let body = sample[at..].split("\n---\n").next().unwrap_or_default();
    let lines: Vec<&str> = body
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let kubeconfig = std::env::var("KUBECONFIG").unwrap_or_default();
    let names = format!("[{}, {}]", world.namespace, world.system);
    let rules = tree().join("deploy/observability/rules.yaml");
    let ours = lines
        .join("\n")
        .replace(
            "- role: pod\n        selectors:",
            &format!(
                "- role: pod\n        kubeconfig_file: {kubeconfig}\n        namespaces: {{names: {names}}}\n        selectors:"
            ),
        )
        .replace("interval: 15s", "interval: 2s")
        .replace("/etc/prometheus/rules/*.yaml", &rules.display().to_string());
    assert!(
        ours.contains("kubeconfig_file") && ours.contains("rules.yaml"),
        "{ours}"
    );
    ours
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
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
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
