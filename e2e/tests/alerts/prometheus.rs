//! A Prometheus of this machine, which scrapes the processes of one store and judges them by the alerts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use dfs_e2e::http::Http;
use dfs_e2e::process::Process;
use dfs_e2e::prometheus;
use serde_json::{Value, json};

use crate::fleet::{DEADLINE, Fleet};

/// How long an alert may take to fire, or to resolve once its cause is gone.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// The alerts, as operators load them.
pub(crate) fn rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability/rules.yaml");
    std::fs::read_to_string(path).unwrap()
}

/// The rules without their waits; windows of rates stay.
fn hasty(rules: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("for: ") {
        Some(wait) => line.replace(wait, "0s"),
        None => line.to_owned(),
    };
    let lines: Vec<String> = rules.lines().map(line).collect();
    lines.join("\n")
}

pub(crate) struct Prometheus {
    _process: Process,
    http: Http,
    /// Alerts that fired.
    pub(crate) fired: Vec<String>,
    /// What was expected and did not come.
    pub(crate) failures: Vec<String>,
    // Removed last.
    _dir: tempfile::TempDir,
}

impl Prometheus {
    pub(crate) async fn start(program: &str, fleet: &Fleet) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rules_at = dir.path().join("rules.yaml");
        std::fs::write(&rules_at, hasty(&rules())).unwrap();
        let targets: Vec<Value> = fleet
            .members()
            .map(|member| {
                json!({
                    "targets": [format!("127.0.0.1:{}", member.admin)],
                    "labels": {
                        "namespace": "files", "cluster": "store",
                        "component": member.role, "pod": format!("store-{}", member.name),
                    },
                })
            })
            .collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules_at],
            "scrape_configs": [{"job_name": "dfs", "static_configs": targets}],
        });
        let (process, http) = prometheus::start(program, dir.path(), &config, DEADLINE).await;
        Self {
            _process: process,
            http,
            fired: Vec::new(),
            failures: Vec::new(),
            _dir: dir,
        }
    }

    /// What another one saw, which ends.
    pub(crate) fn join(&mut self, other: &Self) {
        self.fired.extend(other.fired.iter().cloned());
        self.failures.extend(other.failures.iter().cloned());
    }

    /// The alerts that fire now: name, and its texts.
    async fn firing(&self) -> BTreeMap<String, String> {
        let Ok(reply) = self.http.get("/api/v1/alerts").await else {
            return BTreeMap::new();
        };
        let told: Value = reply.ok().json();
        let alerts = told["data"]["alerts"].as_array().cloned();
        let firing = alerts.unwrap_or_default().into_iter();
        let firing = firing.filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| {
                let text = |name: &str| {
                    alert["annotations"][name]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                };
                let name = alert["labels"]["alertname"].as_str().unwrap_or_default();
                (
                    name.to_owned(),
                    format!("{}: {}", text("summary"), text("description")),
                )
            })
            .collect()
    }

    /// Waits until each alert fires, after its cause came now.
    pub(crate) async fn fires(&mut self, cause: &str, names: &[&str]) {
        let start = Instant::now();
        let mut missing = names.to_vec();
        while !missing.is_empty() && start.elapsed() < PATIENCE {
            let firing = self.firing().await;
            for (name, text) in &firing {
                if !missing.contains(&name.as_str()) {
                    continue;
                }
                missing.retain(|one| one != name);
                let after = start.elapsed().as_secs_f64();
                eprintln!("FIRES | {name} | {cause} | {after:.1} s | {text}");
                self.fired.push(name.clone());
                if text.contains("<no value>") || text.contains("NaN") || text.contains(" /") {
                    self.failures.push(format!("{name} lacks a value: {text}"));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        for name in missing {
            self.failures.push(format!("{name} does not fire: {cause}"));
        }
    }

    /// Waits until none of them fires, after the cause was undone now.
    pub(crate) async fn resolve(&mut self, undone: &str, names: &[&str]) {
        let start = Instant::now();
        let mut left = names.to_vec();
        while !left.is_empty() && start.elapsed() < PATIENCE {
            let firing = self.firing().await;
            left.retain(|name| {
                let fired = self.fired.iter().any(|one| one == name);
                if fired && !firing.contains_key(*name) {
                    let after = start.elapsed().as_secs_f64();
                    eprintln!("RESOLVES | {name} | {undone} | {after:.1} s");
                }
                firing.contains_key(*name)
            });
            tokio::time::sleep(LOOK).await;
        }
        for name in left {
            self.failures
                .push(format!("{name} does not resolve: {undone}"));
        }
    }
}
