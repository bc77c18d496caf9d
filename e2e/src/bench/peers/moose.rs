//! MooseFS with three copies and its durable settings: a master, three chunkservers and a FUSE mount. It
//! refuses loopback's addresses, so it has a network namespace of its own with others on its loopback.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::super::door::Door;
use super::super::fleet::{REPLICAS, spec};
use super::super::group::Group;
use super::super::mount::Mount;
use super::super::report::Report;
use super::super::settings::Settings;
use crate::wait::eventually;

/// As it is named in rows.
pub(super) const NAME: &str = "MooseFS, fsync";
/// How long it may take to take a write on three chunkservers.
const START: Duration = Duration::from_mins(1);
/// How often it is looked whether it is mounted.
const LOOK: Duration = Duration::from_millis(200);
/// Addresses of its namespace; the master's is the first.
const NETWORK: &str = "10.77.0";
/// What master and chunkservers have in common.
const SHARED: &str = "WORKING_USER = root\nWORKING_GROUP = root\nLOCK_MEMORY = 0\n";

/// A running store. The order of its fields is the order in which they end: nothing uses the mount when
/// it goes, and the namespace and the directory are empty.
#[derive(Debug)]
pub(in super::super) struct Moose {
    pub(in super::super) door: Door,
    mounted: Mounted,
    pub(in super::super) group: Group,
    namespace: Namespace,
    disks: PathBuf,
    /// Goes last.
    _dir: TempDir,
}

/// Where it was unpacked.
#[derive(Debug)]
struct Installed(PathBuf);

/// Starts one where it was installed and may run; otherwise the report says what is left out.
pub(super) async fn start(settings: &Settings, report: &mut Report) -> io::Result<Option<Moose>> {
    let root = settings.peers_dir.join("moosefs");
    if !root.join("usr/sbin/mfsmaster").is_file() {
        let text = "was not found: its rows are left out; `scripts/bench-peers.sh moosefs` installs it \
                    below target/peers";
        report.note("MooseFS", text, &json!(null))?;
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        let text = "needs root and /dev/fuse: its rows are left out";
        report.note("MooseFS", text, &json!(null))?;
        return Ok(None);
    }
    // It may be allowed less than root usually is, as in a container.
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(error) => {
            let text = format!("its rows are left out: no network namespace: {error}");
            report.note("MooseFS", &text, &json!(null))?;
            return Ok(None);
        }
    };
    let text = "goal 3, three chunkservers with HDD_FSYNC_BEFORE_CLOSE=1, CHANGELOG_SAVE_MODE=2, mount \
                -o mfscachemode=DIRECT; fsync and close; D1 at most: chunkservers sync after the client's \
                fsync has returned";
    let root = root.canonicalize()?;
    report.note("MooseFS", text, &json!(root))?;
    Moose::start(settings, &Installed(root), namespace)
        .await
        .map(Some)
}

impl Moose {
    async fn start(
        settings: &Settings,
        installed: &Installed,
        namespace: Namespace,
    ) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("dfs-bench.")
            .tempdir_in(&settings.dir)?;
        let disks = dir.path().join("disks");
        let mut group = Group::default();
        let mut role = |name: &str, program: &str, args: Vec<String>| {
            let inside = namespace.inside(&installed.0.join(program), args);
            let mut spec = spec(Path::new("nsenter"), name, inside);
            spec.env.push(installed.libraries());
            group.start(spec, dir.path())
        };
        let config = master_config(installed, dir.path())?;
        role("master", "usr/sbin/mfsmaster", foreground(&config))?;
        for number in 1..=REPLICAS {
            let config = chunkserver_config(dir.path(), &disks, number)?;
            let name = format!("chunkserver-{number}");
            role(&name, "usr/sbin/mfschunkserver", foreground(&config))?;
        }
        let at = dir.path().join("mount");
        std::fs::create_dir(&at)?;
        let mounted = Mounted(at);
        let options = ["-f", "-H", &address(0), "-o", "mfscachemode=DIRECT"].map(str::to_owned);
        let args = std::iter::once(mounted.0.display().to_string()).chain(options);
        role("mount", "usr/bin/mfsmount", args.collect())?;
        mounted.wait(&mut group).await?;
        let moose = Self {
            door: Door::Mounted(Mount(mounted.0.clone())),
            mounted,
            group,
            namespace,
            disks,
            _dir: dir,
        };
        moose.wait_for_writes(installed).await;
        Ok(moose)
    }

    /// Where its data lies.
    pub(super) fn dir(&self) -> &Path {
        &self.disks
    }

    /// Sets the goal as soon as it is mounted; waits until a file has all its copies.
    async fn wait_for_writes(&self, installed: &Installed) {
        let mut number = 0;
        let tool = |args: &[&str]| {
            let mut args: Vec<String> = args.iter().map(ToString::to_string).collect();
            args.push(self.mounted.0.display().to_string());
            let tools = installed.0.join("usr/bin/mfstools");
            let mut command = Command::new("nsenter");
            command.args(self.namespace.inside(&tools, args));
            done(command.envs([installed.libraries()]))
        };
        eventually("MooseFS takes a write on three disks", START, || {
            number += 1;
            let key = format!("warm-up-{number}");
            let tool = &tool;
            async move {
                tool(&["mfssetgoal", "3"]).map_err(|error| error.to_string())?;
                // What is deleted is gone, as with us.
                tool(&["mfssettrashtime", "0"]).map_err(|error| error.to_string())?;
                let put = async {
                    let mut session = self.door.session().await?;
                    session.put(&key, || dfs_client::http::whole("x")).await
                };
                let limit = tokio::time::timeout(Duration::from_secs(10), put).await;
                let put = limit.map_err(|_| "no answer".to_owned())?;
                put.map_err(|error| error.to_string())?;
                let chunks = super::super::cold::files(&self.disks);
                let chunks = chunks.map_err(|error| error.to_string())?;
                let mut chunks = chunks.iter().filter(|path| {
                    let chunk = path.extension().is_some_and(|kind| kind == "mfs");
                    chunk && path.starts_with(self.disks.join(REPLICAS.to_string()))
                });
                chunks
                    .next()
                    .map(drop)
                    .ok_or_else(|| "the last disk has no chunk".to_owned())
            }
        })
        .await;
    }
}

impl Installed {
    /// Where its libraries were unpacked.
    fn libraries(&self) -> (String, String) {
        let dirs = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|dir| self.0.join(dir).display().to_string());
        ("LD_LIBRARY_PATH".to_owned(), dirs.join(":"))
    }
}

fn address(number: u16) -> String {
    format!("{NETWORK}.{}", number + 1)
}

fn foreground(config: &Path) -> Vec<String> {
    let config = config.display().to_string();
    ["-f", "-c", &config, "start"].map(str::to_owned).to_vec()
}

fn master_config(installed: &Installed, dir: &Path) -> io::Result<PathBuf> {
    let own = dir.join("master");
    std::fs::create_dir(&own)?;
    let empty = installed.0.join("var/lib/mfs/metadata.mfs.empty");
    std::fs::copy(empty, own.join("metadata.mfs"))?;
    std::fs::write(own.join("exports"), "* / rw,alldirs,maproot=0:0\n")?;
    std::fs::write(own.join("topology"), "")?;
    let mut text = format!(
        "{SHARED}CHANGELOG_SAVE_MODE = 2\nDATA_PATH = {0}\nEXPORTS_FILENAME = {0}/exports\n\
         TOPOLOGY_FILENAME = {0}/topology\n",
        own.display()
    );
    for listener in ["MATOML", "MATOCS", "MATOCL"] {
        let _fits = writeln!(text, "{listener}_LISTEN_HOST = {}", address(0));
    }
    let config = own.join("config");
    std::fs::write(&config, text)?;
    Ok(config)
}

fn chunkserver_config(dir: &Path, disks: &Path, number: u16) -> io::Result<PathBuf> {
    let own = dir.join(format!("chunkserver-{number}"));
    let disk = disks.join(number.to_string());
    std::fs::create_dir(&own)?;
    std::fs::create_dir_all(&disk)?;
    std::fs::write(own.join("disks"), format!("{}\n", disk.display()))?;
    let text = format!(
        "{SHARED}HDD_FSYNC_BEFORE_CLOSE = 1\nDATA_PATH = {0}\nHDD_CONF_FILENAME = {0}/disks\n\
         MASTER_HOST = {1}\nBIND_HOST = {2}\nCSSERV_LISTEN_HOST = {2}\n",
        own.display(),
        address(0),
        address(number)
    );
    let config = own.join("config");
    std::fs::write(&config, text)?;
    Ok(config)
}

/// A network namespace with addresses that are not 127.x; dropped, it goes.
#[derive(Debug)]
struct Namespace(String);

impl Namespace {
    fn create() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dfs-bench-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self(name);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"])?;
        for number in 0..=REPLICAS {
            let address = format!("{}/24", address(number));
            ip(&["-n", &namespace.0, "addr", "add", &address, "dev", "lo"])?;
        }
        Ok(namespace)
    }

    /// Arguments of `nsenter`: the namespace of mounts stays this process's, so that it sees the mount.
    fn inside(&self, program: &Path, args: Vec<String>) -> Vec<String> {
        let net = format!("--net=/run/netns/{}", self.0);
        [net, program.display().to_string()]
            .into_iter()
            .chain(args)
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing more can be done about one that stays; it is empty.
        let _stays = ip(&["netns", "del", &self.0]);
    }
}

/// A place where something is mounted, or soon will be; dropped, nothing is.
#[derive(Debug)]
struct Mounted(PathBuf);

impl Mounted {
    /// Waits until it is mounted. A mount that finds no master yet ends; it is started again.
    async fn wait(&self, group: &mut Group) -> io::Result<()> {
        let started = Instant::now();
        while !ismounted(&self.0) {
            if started.elapsed() > START {
                return Err(io::Error::other("MooseFS was not mounted in time"));
            }
            let mount = group.get_mut("mount")?;
            if mount.status()?.is_some() {
                mount.restart()?;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !ismounted(&self.0) {
            return;
        }
        let umount = |how: &[&str]| done(Command::new("umount").args(how).arg(&self.0));
        // One that is in use, or whose process is dead, goes as soon as it can.
        let _stays = umount(&[]).or_else(|_| umount(&["-l"]));
    }
}

fn ismounted(at: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let at = at.display().to_string();
    mounts
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some(&at))
}

fn ip(args: &[&str]) -> io::Result<()> {
    done(Command::new("ip").args(args))
}

fn done(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {told}")))
}
