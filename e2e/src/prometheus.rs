//! A Prometheus of this machine, for tests that ask what one sees of a store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::http::Http;
use crate::process::{Process, ProcessSpec, free_ports};

/// Starts `program` with a configuration; it keeps everything in `dir`. Returned once it answers: its process, and
/// its API.
///
/// # Panics
/// When it does not start, or at the deadline.
pub async fn start(
    program: &str,
    dir: &Path,
    config: &Value,
    deadline: Duration,
) -> (Process, Http) {
    let written = dir.join("prometheus.yml");
    // JSON is YAML.
    std::fs::write(&written, config.to_string()).unwrap();
    let port = free_ports(1)[0];
    let args = [
        format!("--config.file={}", written.display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let mut spec = ProcessSpec::of("dfs", "prometheus", args);
    spec.binary = PathBuf::from(program);
    let mut process = Process::start(spec, dir).unwrap();
    let http = Http::new(&format!("127.0.0.1:{port}"));
    process.wait_ready(&http, "/-/ready", deadline).await;
    (process, http)
}
