//! A whole cluster in the test's process: a tracker with the doors, and datanodes, each with a
//! disk that loses what was not synced and fails on demand, links that break, a clock that jumps and a
//! seeded source of randomness. Each role can be killed, paused, cut off, wiped and started again.
//!
//! A test that fails shows its seed; `DFS_E2E_SEED` runs it with that seed again. (Threads and
//! sockets are real: a seed repeats the choices, not the interleaving.) With `DFS_LOG` set, the
//! roles log.

mod tracker_copies;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_datanode::DatanodeConfig;
use dfs_datanode::store::{PackLimits, SpaceLimits};
use dfs_gateway::GatewayConfig;
use dfs_protocol::status::ClusterStatus;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::telemetry::{self, LOG_VARIABLE};
use dfs_tracker::TrackerConfig;
use prometheus::Registry;
use tempfile::TempDir;

use crate::boot::{Boot, listen};
use crate::clock::SkewedClock;
use crate::disk::{DiskFaults, FaultyDisk, VolatileDisk};
use crate::net::{LinkFault, LinkFaultId, Links};
use crate::process::free_ports;
use crate::roles;
use crate::store::{Store, is_repaired};

/// Environment variable that fixes the seed.
pub const SEED_VARIABLE: &str = "DFS_E2E_SEED";
/// Limit of what a healthy cluster does in well under a second.
pub const SOON: Duration = Duration::from_secs(90);
/// Between two heartbeats where nobody's death is awaited, and every datanode must be counted on: a machine
/// that stalls for some seconds must not be taken for datanodes that are silent.
pub const CALM_HEARTS: Duration = Duration::from_secs(2);

/// What a cluster is like. [`Options::default`] is three datanodes, three replicas, fast times.
#[derive(Debug, Clone)]
pub struct Options {
    /// Datanodes at the start.
    pub datanodes: usize,
    /// Changes the tracker's knobs, at each start.
    pub tracker: fn(&mut TrackerConfig),
    /// Changes a datanode's knobs, at each start.
    pub datanode: fn(&mut DatanodeConfig),
    /// Changes the doors' knobs, at each start.
    pub gateway: fn(&mut GatewayConfig),
    /// Every chunk has a file of its own, for tests that look for them or damage them; else small ones are packed, as
    /// they are by default.
    pub chunk_files: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            datanodes: 3,
            tracker: |_| {},
            datanode: |_| {},
            gateway: |_| {},
            chunk_files: false,
        }
    }
}

/// A role of the cluster, running or not.
#[derive(Debug)]
pub struct Role {
    /// `tracker`, `datanode-0`, `datanode-1` ...: its end of links.
    pub name: String,
    /// Its volume.
    pub dir: PathBuf,
    /// Where it listens; kept over restarts.
    pub address: SocketAddr,
    /// Its disk's faults; kept over restarts.
    pub faults: DiskFaults,
    /// Its clock; kept over restarts.
    pub clock: Arc<SkewedClock>,
    /// The metrics of its present or last life.
    pub registry: Registry,
    volatile: Arc<VolatileDisk>,
    disk: Arc<FaultyDisk>,
    boot: Option<Boot>,
}

impl Role {
    fn new(name: String, root: &Path) -> Self {
        let dir = root.join(&name);
        // Found now and taken again at each start; nobody else of this process finds it meanwhile.
        let address = own_address();
        let faults = DiskFaults::new();
        let volatile = VolatileDisk::new();
        Self {
            name,
            dir,
            address,
            disk: FaultyDisk::over_volatile(volatile.clone(), faults.clone()),
            faults,
            clock: SkewedClock::new(),
            registry: Registry::new(),
            volatile,
            boot: None,
        }
    }

    /// Why it ended by itself, if it did.
    pub fn ended(&self) -> Option<String> {
        self.boot.as_ref().and_then(Boot::ended)
    }

    /// Its disk, as it sees it; for [`FaultyDisk::limit_room`].
    pub fn disk(&self) -> &Arc<FaultyDisk> {
        &self.disk
    }

    /// The sum of a metric's samples whose line, name and labels, holds `part`.
    ///
    /// # Panics
    /// When the registry cannot be read.
    pub fn metric(&self, part: &str) -> f64 {
        let value = |line: &String| line.rsplit(' ').next()?.parse::<f64>().ok();
        self.samples(part).iter().filter_map(value).sum()
    }

    /// The samples whose line, name and labels, holds `part`.
    ///
    /// # Panics
    /// When the registry cannot be read.
    pub fn samples(&self, part: &str) -> Vec<String> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("metrics are text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let named = lines.filter(|line| line.contains(part));
        named.map(str::to_owned).collect()
    }

    async fn kill(&mut self) {
        if let Some(boot) = self.boot.take() {
            boot.kill().await;
        }
    }

    /// A fresh view of its disk, its registry, and the socket to listen on.
    async fn prepare(&mut self) -> std::net::TcpListener {
        self.kill().await;
        self.disk = FaultyDisk::over_volatile(self.volatile.clone(), self.faults.clone());
        self.registry = Registry::new();
        listen(self.address).await
    }
}

/// See the module's words.
#[derive(Debug)]
pub struct Cluster {
    /// The links between roles, by the names of [`Role::name`].
    pub links: Links,
    /// The tracker, with the doors on its port.
    pub tracker: Role,
    /// The datanodes.
    pub datanodes: Vec<Role>,
    /// The seed of everything random.
    pub seed: u64,
    /// The test's own randomness, from the seed.
    pub rng: fastrand::Rng,
    /// As it was started.
    pub options: Options,
    dir: TempDir,
    /// Where datanodes look for the tracker; the tracker's own address when none.
    pointed_to: Option<SocketAddr>,
}

impl Cluster {
    /// Starts a cluster and waits until all its datanodes take chunks.
    ///
    /// # Panics
    /// When they do not, in time.
    pub async fn start(options: Options) -> Self {
        let cluster = Self::launch(options).await;
        let wanted = cluster.options.datanodes as u64;
        cluster.store().wait_ready(wanted, SOON).await;
        cluster
    }

    /// Starts a cluster and waits for nothing.
    ///
    /// # Panics
    /// When a role does not start.
    pub async fn launch(options: Options) -> Self {
        if std::env::var_os(LOG_VARIABLE).is_some() {
            // Another cluster of this test's process may have started the logs.
            let _first = telemetry::init();
        }
        let seed = seed();
        let dir = tempfile::tempdir().expect("a directory for the test");
        let mut cluster = Self {
            links: Links::new(),
            tracker: Role::new("tracker".to_owned(), dir.path()),
            datanodes: Vec::new(),
            seed,
            rng: fastrand::Rng::with_seed(seed),
            options,
            dir,
            pointed_to: None,
        };
        cluster.start_tracker().await;
        for _ in 0..cluster.options.datanodes {
            cluster.add_datanode().await;
        }
        cluster
    }

    /// The store, through the tracker's doors.
    pub fn store(&self) -> Store {
        Store::new(&self.tracker.address)
    }

    /// Waits until nothing is left of what began before: all datanodes are heard, the first checkpoint is written,
    /// every chunk has its replicas and no more. Who counts orders counts from here on: the checkpoint alone, begun
    /// when the second datanode came, has a replica copied.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_at_rest(&self, deadline: Duration) {
        let at_rest = |status: &ClusterStatus| {
            status.journal.checkpoint.is_some() && status.healthy && is_repaired(status)
        };
        self.store()
            .wait_status("nothing is under way", deadline, at_rest)
            .await;
    }

    /// Adds a datanode with an empty volume, and starts it. Its number.
    pub async fn add_datanode(&mut self) -> usize {
        let number = self.datanodes.len();
        let role = Role::new(format!("datanode-{number}"), self.dir.path());
        self.datanodes.push(role);
        self.start_datanode(number).await;
        number
    }

    /// The number of the datanode with this uuid now.
    ///
    /// # Panics
    /// When the tracker does not know it.
    pub async fn number_of(&self, id: dfs_protocol::DatanodeId) -> usize {
        let nodes = self.store().nodes().await.expect("the tracker answers");
        let node = nodes.iter().find(|node| node.id == id);
        let address = &node.expect("the tracker knows the datanode").address;
        let mut roles = self.datanodes.iter();
        roles
            .position(|role| role.address.to_string() == *address)
            .expect("the address is a datanode's")
    }

    /// Changes the tracker's knobs at each start from now on.
    pub fn configure_tracker(&mut self, tracker: fn(&mut TrackerConfig)) {
        self.options.tracker = tracker;
    }

    /// Starts the tracker, after it was killed or ended.
    pub async fn start_tracker(&mut self) {
        let listener = self.tracker.prepare().await;
        let mut config = fast_tracker(self.tracker.dir.clone());
        (self.options.tracker)(&mut config);
        let mut gateway = GatewayConfig::default();
        (self.options.gateway)(&mut gateway);
        let seams = self.seams(None);
        let disk = self.tracker.disk.clone();
        self.tracker.boot = Some(Boot::start(&self.tracker.name, disk, |shutdown| {
            roles::tracker(config, gateway, seams, listener, shutdown)
        }));
        self.name_links();
    }

    /// Starts a datanode, after it was killed or ended.
    pub async fn start_datanode(&mut self, number: usize) {
        let listener = self.datanodes[number].prepare().await;
        let seams = self.seams(Some(number));
        let role = &mut self.datanodes[number];
        let tracker = self.pointed_to.unwrap_or(self.tracker.address).to_string();
        let mut config = fast_datanode(role.dir.clone(), tracker, role.address.to_string());
        if self.options.chunk_files {
            config.packs = PackLimits::NONE;
        }
        (self.options.datanode)(&mut config);
        let disk = role.disk.clone();
        role.boot = Some(Boot::start(&role.name, disk, |shutdown| {
            roles::datanode(config, seams, listener, shutdown)
        }));
        self.name_links();
    }

    /// Starts a datanode on another port, as a pod that comes back with another address.
    pub async fn start_datanode_elsewhere(&mut self, number: usize) {
        self.kill_datanode(number).await;
        self.datanodes[number].address = own_address();
        self.start_datanode(number).await;
    }

    fn seams(&mut self, datanode: Option<usize>) -> roles::Seams {
        let rng = SharedRng::from_seed(self.rng.u64(..));
        let role = match datanode {
            None => &self.tracker,
            Some(number) => &self.datanodes[number],
        };
        roles::Seams {
            disk: role.disk.clone(),
            clock: role.clock.clone(),
            rng,
            connector: self.links.connector(&role.name),
            registry: role.registry.clone(),
        }
    }

    fn name_links(&self) {
        for role in self.datanodes.iter().chain([&self.tracker]) {
            self.links.name(&role.address.to_string(), &role.name);
        }
    }

    /// Kills the tracker: its process is gone, the machine's memory of its files is not.
    pub async fn kill_tracker(&mut self) {
        self.tracker.kill().await;
    }

    /// Kills the tracker and starts it again; waits until the datanodes are back and safe mode is over.
    pub async fn restart_tracker(&mut self) {
        self.kill_tracker().await;
        self.start_tracker().await;
        let running = self
            .datanodes
            .iter()
            .filter(|role| role.boot.is_some())
            .count();
        self.store().wait_ready(running as u64, SOON).await;
    }

    /// Kills a datanode.
    pub async fn kill_datanode(&mut self, number: usize) {
        self.datanodes[number].kill().await;
    }

    /// Ends a datanode as SIGTERM does. What it said at its end.
    ///
    /// # Panics
    /// When it was not running.
    pub async fn stop_datanode(&mut self, number: usize) -> String {
        let boot = self.datanodes[number].boot.take();
        boot.expect("the datanode runs").stop(SOON).await
    }

    /// Stops a datanode where it stands.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn pause_datanode(&self, number: usize) {
        let boot = self.datanodes[number].boot.as_ref();
        boot.expect("the datanode runs").pause().await;
    }

    /// Lets a paused datanode go on.
    pub fn resume_datanode(&self, number: usize) {
        if let Some(boot) = &self.datanodes[number].boot {
            boot.resume();
        }
    }

    /// Stops the tracker where it stands.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn pause_tracker(&self) {
        self.tracker
            .boot
            .as_ref()
            .expect("the tracker runs")
            .pause()
            .await;
    }

    /// Lets the paused tracker go on.
    pub fn resume_tracker(&self) {
        if let Some(boot) = &self.tracker.boot {
            boot.resume();
        }
    }

    /// Kills a datanode and deletes its volume.
    pub async fn wipe_datanode(&mut self, number: usize) {
        let role = &mut self.datanodes[number];
        role.kill().await;
        role.volatile = VolatileDisk::new();
        remove_dir(&role.dir);
    }

    /// Kills the tracker and deletes its volume.
    pub async fn wipe_tracker(&mut self) {
        self.tracker.kill().await;
        self.tracker.volatile = VolatileDisk::new();
        remove_dir(&self.tracker.dir);
    }

    /// Kills a datanode's machine: what it did not sync is lost, all of it or, when `partial`, a random part.
    pub async fn power_cut_datanode(&mut self, number: usize, partial: bool) {
        self.datanodes[number].kill().await;
        let rng = partial.then_some(&mut self.rng);
        cut_power(&mut self.datanodes[number], rng);
    }

    /// Kills the tracker's machine, as [`Cluster::power_cut_datanode`].
    pub async fn power_cut_tracker(&mut self, partial: bool) {
        self.tracker.kill().await;
        let rng = partial.then_some(&mut self.rng);
        cut_power(&mut self.tracker, rng);
    }

    /// Everything loses power at once (fault 6); nothing is started again.
    pub async fn power_cut_all(&mut self, partial: bool) {
        let roles = self.datanodes.iter_mut().chain([&mut self.tracker]);
        futures_util::future::join_all(roles.map(Role::kill)).await;
        for number in 0..self.datanodes.len() {
            self.power_cut_datanode(number, partial).await;
        }
        self.power_cut_tracker(partial).await;
    }

    /// Starts the tracker and all datanodes again, and waits until they take chunks.
    pub async fn start_all(&mut self) {
        self.start_tracker().await;
        for number in 0..self.datanodes.len() {
            self.start_datanode(number).await;
        }
        self.store()
            .wait_ready(self.datanodes.len() as u64, SOON)
            .await;
    }

    /// Hurts all links from and to a datanode, also the client's if it uses `links`.
    pub fn isolate_datanode(&self, number: usize, fault: LinkFault) -> [LinkFaultId; 2] {
        self.links.isolate(&self.datanodes[number].name, fault)
    }

    /// Random bytes, from the seed.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.rng.fill(&mut bytes);
        bytes
    }
}

impl Drop for Cluster {
    #[allow(clippy::print_stderr)] // The seed of a failed test belongs on its output.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with {SEED_VARIABLE}={}", self.seed);
        }
    }
}

/// An address of loopback that a role keeps over its lives.
fn own_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]))
}

fn seed() -> u64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed
            .parse()
            .unwrap_or_else(|_| panic!("{SEED_VARIABLE} is not a number")),
        Err(_) => fastrand::u64(..),
    }
}

fn cut_power(role: &mut Role, rng: Option<&mut fastrand::Rng>) {
    let cut = match rng {
        None => role.volatile.power_cut(),
        Some(rng) => role.volatile.power_cut_keeping(rng),
    };
    cut.expect("the real directory takes what the cut leaves");
    role.volatile = VolatileDisk::new();
}

fn remove_dir(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            panic!("removing {}: {error}", dir.display())
        }
        _ => {}
    }
}

/// Times so short that a test sees repair, expiry and death within seconds.
fn fast_tracker(dir: PathBuf) -> TrackerConfig {
    TrackerConfig {
        heartbeat_interval: Duration::from_millis(300),
        repair_delay: Duration::from_millis(500),
        orphan_age: Duration::from_secs(3),
        lease: Duration::from_secs(3),
        reserve_bytes: 1024 * 1024,
        ballast_bytes: 64 * 1024,
        tick: Duration::from_millis(25),
        ..TrackerConfig::new(dir)
    }
}

fn fast_datanode(dir: PathBuf, tracker: String, advertise: String) -> DatanodeConfig {
    DatanodeConfig {
        // The machine's own disk may be fuller than a datanode's should be.
        space: SpaceLimits::exactly(1024 * 1024),
        // Longer than a busy machine stalls.
        resume_lease: Duration::from_secs(15),
        stream_idle: Duration::from_secs(20),
        ..DatanodeConfig::new(dir, tracker, advertise)
    }
}
