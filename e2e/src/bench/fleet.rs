//! A store as it is deployed: a tracker and three datanodes, each a process of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dfs_protocol::status::ClusterStatus;
use serde_json::json;
use tempfile::TempDir;

use super::client::Connection;
use super::door::Door;
use super::group::Group;
use super::report::Report;
use super::rounds::Run;
use super::settings::Settings;
use super::side::{Kind, Side};
use crate::http::{Http, Reply};
use crate::process::{ProcessSpec, free_ports};
use crate::wait::eventually;

/// How long the store may take to serve.
const START: Duration = Duration::from_mins(2);
/// Datanodes, and replicas of each chunk.
pub(super) const REPLICAS: u16 = 3;

/// A running store; dropped, its processes end and its data goes.
#[derive(Debug)]
pub(super) struct Fleet {
    /// `host:port` of the tracker and of the doors in it.
    pub(super) address: String,
    pub(super) door: Door,
    pub(super) group: Group,
    /// The admin port of each process, by its name; the tracker's is first.
    admins: Vec<(String, Http)>,
    dir: TempDir,
}

/// Where a store's requests are traced to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tracing {
    /// Of a collector on loopback.
    pub(super) collector: u16,
    /// Share of the requests.
    pub(super) ratio: &'static str,
}

impl Tracing {
    fn env(self) -> [(String, String); 2] {
        let Self { collector, ratio } = self;
        let endpoint = format!("http://127.0.0.1:{collector}");
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint),
            ("OTEL_TRACES_SAMPLER_ARG".to_owned(), ratio.to_owned()),
        ]
    }
}

/// How a store is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) datanodes: usize,
    pub(super) replication: u16,
    pub(super) tracker_args: &'static [&'static str],
    /// Lets strace count what each process asks of the kernel.
    pub(super) traced: bool,
    /// Its requests are traced.
    pub(super) tracing: Option<Tracing>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            datanodes: REPLICAS.into(),
            replication: REPLICAS,
            tracker_args: &[],
            traced: false,
            tracing: None,
        }
    }
}

impl Layout {
    fn spec(&self, binary: &Path, name: &str, args: Vec<String>, dir: &Path) -> ProcessSpec {
        let mut plain = spec(binary, name, args);
        plain
            .env
            .extend(self.tracing.iter().flat_map(|to| to.env()));
        if !self.traced {
            return plain;
        }
        let mut traced: Vec<String> = ["-f", "-c", "--seccomp-bpf", TRACED]
            .map(str::to_owned)
            .to_vec();
        traced.push(format!("--output={}", counts(dir, name).display()));
        traced.push(plain.binary.display().to_string());
        traced.extend(plain.args);
        ProcessSpec {
            binary: "strace".into(),
            args: traced,
            ..plain
        }
    }
}

/// Calls that wait for a disk; only those stop a traced process.
const TRACED: &str = "--trace=fdatasync,fsync,sync_file_range,msync,syncfs";

/// Where strace writes what it counted of a process.
pub(super) fn counts(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.calls"))
}

/// Stores of each binary under test.
pub(super) type Fleets = Vec<(Kind, String, Fleet)>;

/// Says how many answers to PUTs named fewer replicas than wanted: those were not as durable as their rows say.
pub(super) fn tell_named(report: &mut Report, id: &'static str, fleets: &Fleets) -> io::Result<()> {
    for (_, name, fleet) in fleets {
        let Some((answers, fewer)) = fleet.door.named() else {
            continue;
        };
        let text = format!(
            "{name}: {fewer} of {answers} answers to PUTs named fewer replicas than wanted"
        );
        report.note(id, &text, &json!({ "answers": answers, "fewer": fewer }))?;
    }
    Ok(())
}

/// One store of each binary.
pub(super) async fn fleets(settings: &Settings) -> io::Result<Fleets> {
    fleets_of(settings, &Layout::default()).await
}

/// One store of each binary, laid out like that.
pub(super) async fn fleets_of(settings: &Settings, layout: &Layout) -> io::Result<Fleets> {
    let mut fleets = Vec::new();
    for (index, (name, binary)) in settings.binaries.iter().enumerate() {
        let kind = if index == 0 { Kind::Ours } else { Kind::Other };
        let fleet = Fleet::start_with(binary, &settings.dir, layout).await?;
        fleets.push((kind, name.clone(), fleet));
    }
    Ok(fleets)
}

impl Fleet {
    /// As a contender.
    pub(super) fn side<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        class: &'static str,
        run: Run<'a>,
    ) -> Side<'a> {
        Side {
            name,
            kind,
            class,
            group: Some(&self.group),
            run,
        }
    }

    /// The tracker's word on the whole store.
    pub(super) async fn status(&self) -> io::Result<ClusterStatus> {
        let reply = Http::new(&self.address).get("/status").await?;
        serde_json::from_slice(&reply.body).map_err(io::Error::other)
    }

    /// Starts three datanodes and waits until a write is acknowledged.
    pub(super) async fn start(binary: &Path, below: &Path) -> io::Result<Self> {
        Self::start_with(binary, below, &Layout::default()).await
    }

    /// Starts what is wanted and waits until a write is acknowledged.
    pub(super) async fn start_with(
        binary: &Path,
        below: &Path,
        layout: &Layout,
    ) -> io::Result<Self> {
        let fleet = Self::start_processes(binary, below, layout)?;
        fleet.wait_for_datanodes(layout.datanodes).await;
        fleet.wait_for_writes(layout.replication.into()).await;
        Ok(fleet)
    }

    /// A tracker alone: its datanodes are somebody else's.
    pub(super) async fn start_tracker(binary: &Path, below: &Path) -> io::Result<Self> {
        let layout = Layout {
            datanodes: 0,
            ..Layout::default()
        };
        let mut fleet = Self::start_processes(binary, below, &layout)?;
        let admin = fleet.admin_of("tracker")?.clone();
        let tracker = fleet.group.get_mut("tracker")?;
        tracker.wait_ready(&admin, "/livez", START).await;
        Ok(fleet)
    }

    fn start_processes(binary: &Path, below: &Path, layout: &Layout) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("dfs-bench.")
            .tempdir_in(below)?;
        let ports = free_ports(2 * (layout.datanodes + 1));
        let tracker = format!("http://127.0.0.1:{}", ports[0]);
        let mut group = Group::default();
        let mut admins = Vec::new();
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
                args.push(format!("--replication={}", layout.replication));
                args.extend(layout.tracker_args.iter().map(ToString::to_string));
            } else {
                args.push(format!("--tracker={tracker}"));
            }
            group.start(layout.spec(binary, &name, args, dir.path()), dir.path())?;
            admins.push((name, Http::new(&format!("127.0.0.1:{}", ports[1]))));
        }
        let address = format!("127.0.0.1:{}", ports[0]);
        Ok(Self {
            door: Door::files(&address),
            address,
            admins,
            group,
            dir,
        })
    }

    /// The first chunks are for everybody: who is not there yet gets none, and few would hold them all.
    async fn wait_for_datanodes(&self, wanted: usize) {
        eventually("every datanode takes chunks", START, || async {
            let status = self.status().await.map_err(|error| error.to_string())?;
            if status.datanodes.placeable >= wanted as u64 {
                return Ok(());
            }
            Err(status.summary)
        })
        .await;
    }

    async fn wait_for_writes(&self, wanted: usize) {
        eventually("the store takes a write on all replicas", START, || async {
            let put = Http::new(&self.address).put("/files/warm-up", "x").await;
            let reply = put.map_err(|error| error.to_string())?;
            if reply.status.is_success() && replicas(&reply) == Some(wanted) {
                return Ok(());
            }
            Err(reply.text())
        })
        .await;
    }

    /// One gateway more: the door in it, once it serves.
    pub(super) async fn start_gateway(&mut self, binary: &Path) -> io::Result<Door> {
        let ports = free_ports(2);
        let args = vec![
            "gateway".to_owned(),
            format!("--port={}", ports[0]),
            format!("--admin-port={}", ports[1]),
            format!("--tracker=http://{}", self.address),
        ];
        let name = "gateway".to_owned();
        self.group
            .start(spec(binary, &name, args), self.dir.path())?;
        let admin = Http::new(&format!("127.0.0.1:{}", ports[1]));
        let gateway = self.group.get_mut(&name)?;
        gateway.wait_ready(&admin, "/readyz", START).await;
        self.admins.push((name, admin));
        Ok(Door::files(&format!("127.0.0.1:{}", ports[0])))
    }

    /// The admin port of each process.
    pub(super) fn admins(&self) -> impl Iterator<Item = &Http> {
        self.admins.iter().map(|(_, admin)| admin)
    }

    /// The admin port of one process.
    pub(super) fn admin_of(&self, name: &str) -> io::Result<&Http> {
        let mut all = self.admins.iter();
        all.find_map(|(own, admin)| (own == name).then_some(admin))
            .ok_or_else(|| io::Error::other(format!("there is no process `{name}`")))
    }

    /// What a process counted of one series; 0 before it did.
    pub(super) async fn counter(&self, process: &str, series: &str) -> io::Result<u64> {
        let text = self.admin_of(process)?.get("/metrics").await?.text();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0))
    }

    /// Where its data lies.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
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
        let admin = self.admin_of("tracker")?.clone();
        let tracker = self.group.get_mut("tracker")?;
        tracker.kill_9()?;
        let started = Instant::now();
        tracker.restart()?;
        tracker.wait_ready(&admin, "/readyz", START).await;
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
        env: vec![("DFS_LOG".to_owned(), "warn".to_owned())],
        handle_limit: None,
    }
}

/// How many replicas an acknowledged write names.
fn replicas(reply: &Reply) -> Option<usize> {
    let json: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    Some(json.get("replicas")?.as_array()?.len())
}
