//! What pods cost, as their own metrics say.

use dfs_e2e::http::Http;
use dfs_e2e::process::free_ports;

use crate::door::Forward;
use crate::tools::until;
use crate::world::DEADLINE;

/// Bytes of a mebibyte.
pub(crate) const MIB: f64 = 1_048_576.0;

/// What a role's process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Bytes that are resident.
    pub(crate) memory: f64,
    /// Seconds of CPU since its start.
    pub(crate) cpu: f64,
}

/// The metrics of the process in a pod; its container names the admin listener's port `admin`.
pub(crate) async fn metrics(namespace: &str, pod: &str) -> String {
    let port = free_ports(1)[0];
    let _forward = Forward::start(namespace, &format!("pod/{pod}"), port, "admin");
    let admin = Http::new(&format!("127.0.0.1:{port}"));
    until(&format!("{pod} tells its metrics"), DEADLINE, || async {
        let reply = admin.get("/metrics").await;
        let reply = reply.map_err(|error| error.to_string())?;
        let is_whole = reply.text().contains("process_resident_memory_bytes");
        is_whole.then(|| reply.text()).ok_or_else(|| reply.text())
    })
    .await
}

/// No chunk fell short because a datanode was taken away before its chunks were safe elsewhere, in this tracker's life.
pub(crate) async fn assert_no_early_removal(namespace: &str) {
    let text = metrics(namespace, "store-tracker-0").await;
    let early = value(
        &text,
        "dfs_tracker_chunks_below_factor_seconds_total{cause=\"removal\"}",
    );
    assert!(
        early <= 0.0,
        "{early} chunk-seconds below factor by removals"
    );
}

/// What the process in a pod has used up to now.
pub(crate) async fn cost(namespace: &str, pod: &str) -> Cost {
    let text = metrics(namespace, pod).await;
    Cost {
        memory: value(&text, "process_resident_memory_bytes"),
        cpu: value(&text, "process_cpu_seconds_total"),
    }
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let found = line.and_then(|rest| rest.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
}
