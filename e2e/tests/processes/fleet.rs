//! A tracker and its datanodes, each a process with a directory of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::http::RequestBody;
use dfs_e2e::http::Http;
use dfs_e2e::process::{Process, ProcessSpec, free_ports};
use dfs_e2e::store::Store;
use dfs_protocol::DatanodeId;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Generous: the machine may be busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// Between two heartbeats where nobody's death is awaited, and every datanode must be counted on: a machine that
/// stalls for some seconds must not be taken for datanodes that are silent.
pub(crate) const CALM_HEARTS: &str = "2s";
/// Bytes of a full chunk in these tests.
pub(crate) const CHUNK: usize = 256 * 1024;

/// How a fleet is started.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `dfs`, or `dfs-volatile`.
    pub(crate) binary: &'static str,
    /// How many datanodes.
    pub(crate) datanodes: usize,
    /// Bytes of a full chunk.
    pub(crate) chunk_size: usize,
    /// Between two heartbeats.
    pub(crate) hearts: &'static str,
    /// More options of the tracker.
    pub(crate) tracker: Vec<String>,
    /// Environment of the datanodes.
    pub(crate) datanode_env: Vec<(String, String)>,
    /// Limit of open files of the tracker.
    pub(crate) tracker_handles: Option<u32>,
    /// Limit of open files of the first datanode.
    pub(crate) datanode_handles: Option<u32>,
    /// Called with the root directory before anything starts there; what it returns lives as long as the fleet.
    pub(crate) furnish: fn(&Path) -> Vec<Mount>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            binary: "dfs",
            datanodes: 3,
            chunk_size: CHUNK,
            hearts: "300ms",
            tracker: Vec::new(),
            datanode_env: Vec::new(),
            tracker_handles: None,
            datanode_handles: None,
            furnish: |_| Vec::new(),
        }
    }
}

/// A file system of its own for one member. Dropping it unmounts.
#[derive(Debug)]
pub(crate) struct Mount(pub(crate) PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // The processes that used it are gone; a busy one is detached all the same.
        let _ended = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

/// One role's process.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) dir: PathBuf,
}

impl Member {
    /// Starts a role with `--port`, `--admin-port`, `--dir` and what is given.
    pub(crate) fn start(
        mut spec: ProcessSpec,
        ports: [u16; 2],
        root: &Path,
        more: &[String],
    ) -> Self {
        let dir = root.join(&spec.name);
        let [port, admin] = ports;
        for (option, value) in [
            ("--port", port.to_string()),
            ("--admin-port", admin.to_string()),
            ("--dir", dir.display().to_string()),
        ] {
            spec.args.extend([option.to_owned(), value]);
        }
        spec.args.extend(more.iter().cloned());
        let process = Process::start(spec, root).unwrap();
        Self {
            process,
            port,
            admin,
            dir,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn admin_door(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.admin))
    }

    /// Removes what its volume holds. For one that does not run.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    /// Files below a directory of its volume.
    pub(crate) fn files_in(&self, part: &str) -> usize {
        let entries = std::fs::read_dir(self.dir.join(part));
        entries.map_or(0, |entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        self.files_in(&format!("{part}/{}", entry.file_name().display()))
                    }
                    _ => 1,
                })
                .sum()
        })
    }

    /// The sum of a metric's samples whose line holds `part`.
    pub(crate) async fn metric(&self, part: &str) -> f64 {
        let text = self.admin_door().get("/metrics").await.unwrap().ok().text();
        let lines = text
            .lines()
            .filter(|line| line.contains(part) && !line.starts_with('#'));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }
}

/// The processes of a store. Dropping it kills them and removes their directories.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) tracker: Member,
    pub(crate) datanodes: Vec<Member>,
    _mounts: Vec<Mount>,
    pub(crate) root: TempDir,
    options: Options,
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

impl Options {
    /// So many datanodes, with [`CALM_HEARTS`].
    pub(crate) fn calm(datanodes: usize) -> Self {
        Self {
            datanodes,
            hearts: CALM_HEARTS,
            ..Self::default()
        }
    }
}

impl Fleet {
    /// Starts it and waits until it takes writes.
    pub(crate) async fn start(options: Options) -> Self {
        let fleet = Self::launch(options);
        let count = fleet.datanodes.len() as u64;
        fleet.store().wait_ready(count, DEADLINE).await;
        fleet
    }

    /// Starts the processes.
    pub(crate) fn launch(options: Options) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mounts = (options.furnish)(root.path());
        let ports = free_ports(2);
        let mut spec = ProcessSpec::of(options.binary, "tracker", ["tracker"]);
        spec.handle_limit = options.tracker_handles;
        let mut more = words("--repair-delay 1s --orphan-age 3s");
        more.extend(["--heartbeat-interval", options.hearts].map(str::to_owned));
        more.extend(["--chunk-size".to_owned(), options.chunk_size.to_string()]);
        more.extend(options.tracker.iter().cloned());
        let tracker = Member::start(spec, [ports[0], ports[1]], root.path(), &more);
        let mut fleet = Self {
            tracker,
            datanodes: Vec::new(),
            _mounts: mounts,
            root,
            options,
        };
        for _ in 0..fleet.options.datanodes {
            fleet.add_datanode(&[]);
        }
        fleet
    }

    /// Starts one more datanode, with more options.
    pub(crate) fn add_datanode(&mut self, more: &[&str]) {
        let ports = free_ports(2);
        self.add_datanode_at([ports[0], ports[1]], more);
    }

    /// Starts one more datanode on these ports.
    pub(crate) fn add_datanode_at(&mut self, ports: [u16; 2], more: &[&str]) {
        let number = self.datanodes.len();
        let name = format!("datanode-{number}");
        let mut spec = ProcessSpec::of(self.options.binary, &name, ["datanode"]);
        spec.env.clone_from(&self.options.datanode_env);
        if number == 0 {
            spec.handle_limit = self.options.datanode_handles;
        }
        let tracker = format!("http://{}", self.tracker.address());
        let mut options = vec!["--tracker".to_owned(), tracker];
        // Small files are packed; a chunk of an upload of unknown length is not.
        options.extend(words("--reserve 1MiB --pack-limit 64KiB"));
        options.extend(more.iter().map(|option| (*option).to_owned()));
        let member = Member::start(spec, ports, self.root.path(), &options);
        self.datanodes.push(member);
    }

    /// Kills a datanode and starts it on its volume with another tracker.
    pub(crate) fn move_datanode(&mut self, number: usize, tracker: &str) {
        let member = &mut self.datanodes[number];
        member.process.kill_9().unwrap();
        let name = format!("datanode-{number}");
        let spec = ProcessSpec::of(self.options.binary, &name, ["datanode"]);
        let options = [
            "--tracker",
            tracker,
            "--reserve",
            "1MiB",
            "--pack-limit",
            "64KiB",
        ];
        let options = options.map(str::to_owned);
        let ports = [member.port, member.admin];
        *member = Member::start(spec, ports, self.root.path(), &options);
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(&self.tracker.address())
    }

    /// The member behind an id.
    pub(crate) async fn number_of(&self, id: DatanodeId) -> usize {
        let nodes = self.store().nodes().await.unwrap();
        let node = nodes.iter().find(|node| node.id == id).unwrap();
        let found = self
            .datanodes
            .iter()
            .position(|one| one.address() == node.address);
        found.unwrap()
    }

    /// Kills every process at once, then reaps them.
    pub(crate) fn kill_all(&mut self) {
        let members = std::iter::once(&self.tracker).chain(&self.datanodes);
        let pids = members.map(|member| member.process.pid());
        for pid in pids.collect::<Vec<_>>() {
            kill_now(pid);
        }
        self.tracker.process.kill_9().unwrap();
        for datanode in &mut self.datanodes {
            datanode.process.kill_9().unwrap();
        }
    }

    /// Starts every process again.
    pub(crate) fn restart_all(&mut self) {
        self.tracker.process.restart().unwrap();
        for datanode in &mut self.datanodes {
            datanode.process.restart().unwrap();
        }
    }

    /// Waits until all datanodes take chunks again.
    pub(crate) async fn wait_ready(&self) {
        let count = self.datanodes.len() as u64;
        self.store().wait_ready(count, DEADLINE).await;
    }
}

fn kill_now(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// A request body that the test sends piece by piece; it ends when the sender is dropped.
pub(crate) fn streamed() -> (mpsc::Sender<Bytes>, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece: Bytes = receiver.recv().await?;
        Some((Ok::<_, io::Error>(Frame::data(piece)), receiver))
    });
    (sender, StreamBody::new(pieces).boxed())
}

/// Bytes that do not repeat.
pub(crate) fn bytes(rng: &mut fastrand::Rng, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes.into()
}

/// A seed for a random test, printed so that a failure can be tried again.
pub(crate) fn seeded() -> fastrand::Rng {
    let given = std::env::var("DFS_E2E_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("DFS_E2E_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
