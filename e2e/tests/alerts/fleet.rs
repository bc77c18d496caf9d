//! A tracker, three datanodes and a gateway, each a process; links that can be cut.

use std::time::Duration;

use dfs_e2e::http::Http;
use dfs_e2e::process::{Process, ProcessSpec, free_ports};
use dfs_e2e::proxy::Proxy;
use dfs_e2e::store::Store;
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
const DATANODES: usize = 3;

pub(crate) struct Member {
    pub(crate) role: &'static str,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) process: Process,
    args: Vec<String>,
}

impl Member {
    fn start(
        role: &'static str,
        number: usize,
        ports: [u16; 2],
        root: &TempDir,
        more: &str,
    ) -> Self {
        let name = format!("{role}-{number}");
        let [port, admin] = ports;
        let dir = root.path().join(&name);
        let args = format!(
            "{role} --port {port} --admin-port {admin} --dir {} {more}",
            dir.display()
        );
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        let spec = ProcessSpec::dfs(&name, &args);
        let process = Process::start(spec, root.path()).unwrap();
        Self {
            role,
            name,
            port,
            admin,
            process,
            args,
        }
    }

    /// Starts it anew on its volume, with one more option.
    pub(crate) fn start_with(&mut self, root: &TempDir, more: &[&str]) {
        self.process.kill_9().unwrap();
        let mut args = self.args.clone();
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let spec = ProcessSpec::dfs(&self.name, &args);
        self.process = Process::start(spec, root.path()).unwrap();
    }
}

pub(crate) struct Fleet {
    pub(crate) tracker: Member,
    pub(crate) datanodes: Vec<Member>,
    pub(crate) gateway: Member,
    /// From the gateway to the tracker.
    pub(crate) to_tracker: Proxy,
    /// To each datanode.
    pub(crate) to_datanodes: Vec<Proxy>,
    // Removed last.
    pub(crate) root: TempDir,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * (DATANODES + 2));
        let tracker = Member::start(
            "tracker",
            0,
            [ports[0], ports[1]],
            &root,
            "--repair-delay 1s --heartbeat-interval 300ms --chunk-size 262144",
        );
        let address = format!("127.0.0.1:{}", tracker.port);
        let to_tracker = Proxy::start(&address).await.unwrap();
        let mut to_datanodes = Vec::new();
        let mut datanodes = Vec::new();
        for number in 0..DATANODES {
            let at = [ports[2 + 2 * number], ports[3 + 2 * number]];
            let link = Proxy::start(&format!("127.0.0.1:{}", at[0])).await.unwrap();
            let more = format!(
                "--tracker http://{address} --pack-limit 64KiB --advertise {}",
                link.address()
            );
            to_datanodes.push(link);
            datanodes.push(Member::start("datanode", number, at, &root, &more));
        }
        let last = [ports[2 * DATANODES + 2], ports[2 * DATANODES + 3]];
        let more = format!(
            "--tracker http://{} --tracker-patience 1s",
            to_tracker.address()
        );
        let gateway = Member::start("gateway", 0, last, &root, &more);
        let fleet = Self {
            tracker,
            datanodes,
            gateway,
            to_tracker,
            to_datanodes,
            root,
        };
        fleet.ready().await;
        fleet
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        [&self.tracker, &self.gateway]
            .into_iter()
            .chain(&self.datanodes)
    }

    pub(crate) fn store(&self) -> Store {
        let mut store = Store::new(&format!("127.0.0.1:{}", self.tracker.port));
        store.door.limit = Duration::from_secs(5);
        store
    }

    pub(crate) fn gateway_door(&self) -> Http {
        let mut door = Http::new(&format!("127.0.0.1:{}", self.gateway.port));
        door.limit = Duration::from_secs(5);
        door
    }

    pub(crate) async fn ready(&self) {
        self.store().wait_ready(DATANODES as u64, DEADLINE).await;
    }
}
