//! A store as it is deployed: a tracker and three datanodes, each a process of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Connection;
use super::procfs;
use crate::http::{Http, Reply};
use crate::process::{Process, ProcessSpec, free_ports};
use crate::wait::eventually;

/// How long the store may take to serve.
const START: Duration = Duration::from_mins(2);
/// Datanodes, and replicas of each chunk.
pub(super) const REPLICAS: u16 = 3;

/// A running store; dropped, its processes end and its data goes.
#[derive(Debug)]
pub(super) struct Fleet {
    /// `host:port` of the doors.
    pub(super) address: String,
    admin: Http,
    processes: Vec<(String, Process)>,
    dir: TempDir,
}

/// CPU seconds of each process and of this one.
#[derive(Debug, Clone)]
pub(super) struct Cpu(Vec<(String, f64)>);

impl Cpu {
    /// Of this process alone.
    pub(super) fn of_client() -> Self {
        let own = procfs::cpu_seconds(std::process::id());
        Self(vec![("client".to_owned(), own)])
    }

    /// What was used since.
    pub(super) fn since(&self, before: &Self) -> Vec<(String, f64)> {
        let spent = self.0.iter().zip(&before.0);
        spent
            .map(|((name, now), (_, then))| (name.clone(), now - then))
            .collect()
    }
}

impl Fleet {
    /// Starts and waits until a write is acknowledged.
    pub(super) async fn start(binary: &Path, below: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("dfs-bench.")
            .tempdir_in(below)?;
        let ports = free_ports(2 * (usize::from(REPLICAS) + 1));
        let tracker = format!("http://127.0.0.1:{}", ports[0]);
        let mut processes = Vec::new();
        for (index, ports) in ports.chunks(2).enumerate() {
            let name = match index {
                0 => "tracker".to_owned(),
                number => format!("datanode-{number}"),
            };
            let role = if index == 0 { "tracker" } else { "datanode" };
            let mut args = vec![
                role.to_owned(),
                format!("--port={}", ports[0]),
                format!("--admin-port={}", ports[1]),
                format!("--dir={}", dir.path().join(&name).display()),
            ];
            if index == 0 {
                args.push("--trash-retention=0".to_owned());
            } else {
                args.push(format!("--tracker={tracker}"));
            }
            let spec = spec(binary, &name, args);
            processes.push((name, Process::start(spec, dir.path())?));
        }
        let fleet = Self {
            address: format!("127.0.0.1:{}", ports[0]),
            admin: Http::new(&format!("127.0.0.1:{}", ports[1])),
            processes,
            dir,
        };
        fleet.wait_for_writes().await;
        Ok(fleet)
    }

    async fn wait_for_writes(&self) {
        eventually(
            "the store takes a write on three replicas",
            START,
            || async {
                let put = Http::new(&self.address).put("/files/warm-up", "x").await;
                let reply = put.map_err(|error| error.to_string())?;
                if reply.status.is_success() && replicas(&reply) == Some(REPLICAS.into()) {
                    return Ok(());
                }
                Err(reply.text())
            },
        )
        .await;
    }

    /// CPU seconds so far.
    pub(super) fn cpu(&self) -> Cpu {
        let mut all: Vec<(String, f64)> = self
            .processes
            .iter()
            .map(|(name, process)| (name.clone(), procfs::cpu_seconds(process.pid())))
            .collect();
        all.extend(Cpu::of_client().0);
        Cpu(all)
    }

    /// Lets peaks begin now.
    pub(super) fn reset_peaks(&self) {
        for (_, process) in &self.processes {
            procfs::reset_peak(process.pid());
        }
    }

    /// Peak resident bytes of each process.
    pub(super) fn peaks(&self) -> Vec<(String, u64)> {
        let peak = |process: &Process| procfs::peak_bytes(process.pid());
        self.processes
            .iter()
            .map(|(name, process)| (name.clone(), peak(process)))
            .collect()
    }

    /// The chunk records of one datanode.
    pub(super) fn records_of_one(&self) -> io::Result<Vec<PathBuf>> {
        let mut records = Vec::new();
        for dir in std::fs::read_dir(self.dir.path().join("datanode-1/chunks"))? {
            for record in std::fs::read_dir(dir?.path())? {
                records.push(record?.path());
            }
        }
        Ok(records)
    }

    /// Kills the tracker and starts it again: seconds from its start to ready, and to the first
    /// read of `path`.
    pub(super) async fn restart_tracker(&mut self, path: &str) -> io::Result<(f64, f64)> {
        let Some((_, tracker)) = self.processes.first_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        tracker.kill_9()?;
        let started = Instant::now();
        tracker.restart()?;
        tracker.wait_ready(&self.admin, "/readyz", START).await;
        let ready = started.elapsed().as_secs_f64();
        eventually("a file is read", START, || async {
            let mut connection = Connection::open(&self.address)
                .await
                .map_err(|error| error.to_string())?;
            let read = connection.get(path).await;
            read.map_err(|error| error.to_string())
        })
        .await;
        Ok((ready, started.elapsed().as_secs_f64()))
    }
}

/// One role of this binary, quiet: what it logs is no part of what is measured.
pub(super) fn spec(binary: &Path, name: &str, args: Vec<String>) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        binary: binary.to_path_buf(),
        args,
        env: vec![("RUST_LOG".to_owned(), "warn".to_owned())],
        handle_limit: None,
    }
}

/// How many replicas an acknowledged write names.
fn replicas(reply: &Reply) -> Option<usize> {
    let json: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    Some(json.get("replicas")?.as_array()?.len())
}
