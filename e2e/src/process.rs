//! Real `dfs` processes: started, killed with -9, paused, and never left behind.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::http::{Http, Reply};
use crate::wait::eventually;

/// How much of a process's log a failed test shows.
const LOG_TAIL: u64 = 8 * 1024;

/// The path of a binary of this workspace, built by `make` or `cargo build` with the profile of
/// the running test.
///
/// # Panics
/// When it is not there: a test that silently skips proves nothing.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let mut dir = test.parent().expect("it lies in a directory");
    if dir.ends_with("deps") {
        dir = dir.parent().expect("deps lies in the profile's directory");
    }
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "the binary `{name}` is not built: run `cargo build --bins`{} first (the Makefile does); \
         looked for {}",
        if dir.ends_with("release") {
            " --release"
        } else {
            ""
        },
        path.display()
    );
    path
}

/// Ports of loopback that are free now, and that no later call in this process gives to others; the ports 1000
/// above them, where roles put their admin listeners, are free as well. All lie below the range from which the
/// kernel takes ports for outgoing connections: whoever is killed finds its port free when it starts again.
///
/// # Panics
/// When loopback has none left.
pub fn free_ports(count: usize) -> Vec<u16> {
    const PORTS: u32 = 6_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time start far apart.
    let start = std::process::id().wrapping_mul(389);
    let mut held = Vec::new();
    for _ in 0..PORTS {
        if held.len() == count {
            break;
        }
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = nth_port(start.wrapping_add(next) % PORTS);
        let bound = [port, port + ADMIN_ABOVE].map(|port| TcpListener::bind(("127.0.0.1", port)));
        if let [Ok(api), Ok(admin)] = bound {
            held.push((port, api, admin));
        }
    }
    assert!(held.len() == count, "loopback has free ports");
    held.into_iter().map(|(port, ..)| port).collect()
}

/// How far above its API a role's admin listener is.
const ADMIN_ABOVE: u16 = 1000;

/// From 20,000 on every other thousand: what lies 1000 above any of them is none of them.
fn nth_port(n: u32) -> u16 {
    let port = 20_000 + n / 1000 * 2000 + n % 1000;
    u16::try_from(port).expect("the range lies below 65536")
}

#[test]
fn a_port_and_its_admin_port_lie_below_those_of_outgoing_connections_and_are_nobody_elses() {
    let ports: std::collections::BTreeSet<u16> = (0..6_000).map(nth_port).collect();
    assert_eq!(ports.len(), 6_000);
    assert!(
        ports
            .iter()
            .all(|port| !ports.contains(&(port + ADMIN_ABOVE)))
    );
    assert!(ports.iter().all(|port| port + ADMIN_ABOVE < 32_768));
}

/// How to start a process.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The name of its log.
    pub name: String,
    /// The binary to run.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, beside the test's.
    pub env: Vec<(String, String)>,
    /// Its limit of open file handles, when it is not the test's.
    pub handle_limit: Option<u32>,
}

impl ProcessSpec {
    /// `dfs` with these arguments.
    pub fn dfs<A: ToString>(name: &str, args: impl IntoIterator<Item = A>) -> Self {
        Self::of("dfs", name, args)
    }

    /// A binary of the workspace with these arguments.
    pub fn of<A: ToString>(
        binary_name: &str,
        name: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary(binary_name),
            args: args.into_iter().map(|arg| arg.to_string()).collect(),
            env: Vec::new(),
            handle_limit: None,
        }
    }

    fn command(&self) -> Command {
        let mut command = match self.handle_limit {
            None => Command::new(&self.binary),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""));
                shell.arg(&self.binary);
                shell
            }
        };
        command.args(&self.args).envs(self.env.iter().cloned());
        command
    }
}

/// A running process. Dropping it kills it; in a test that fails, its log's end is shown.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it. Both outputs go to `DIR/NAME.log`, after what earlier runs wrote there.
    pub fn start(spec: ProcessSpec, log_dir: &Path) -> io::Result<Self> {
        let log = log_dir.join(format!("{}.log", spec.name));
        let child = spawn(&spec, &log)?;
        Ok(Self {
            spec,
            log,
            child,
            ended: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill_9(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        self.child.kill()?;
        self.wait_now()
    }

    /// Sends SIGTERM; [`Process::wait`] waits for the end.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Stops it where it stands (SIGSTOP).
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.ended.is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the pid is out of range"))?;
        Ok(kill_process(pid, signal)?)
    }

    fn wait_now(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Its exit status, once it has ended.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it still runs at the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.status().expect("a child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < end,
                "{} still runs after {deadline:?}",
                self.spec.name
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it again with the same arguments, after it ended or was killed.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill_9()?;
        self.child = spawn(&self.spec, &self.log)?;
        self.ended = None;
        Ok(())
    }

    /// Waits until a GET is answered with a success.
    ///
    /// # Panics
    /// At the deadline, or at once when the process has ended.
    pub async fn wait_ready(&mut self, door: &Http, path: &str, deadline: Duration) -> Reply {
        let name = self.spec.name.clone();
        let what = format!("{name} answers {path}");
        let this = std::cell::RefCell::new(self);
        eventually(&what, deadline, || async {
            if let Some(status) = this
                .borrow_mut()
                .status()
                .expect("a child can be waited for")
            {
                panic!("{name} ended with {status} before it was ready");
            }
            match door.get(path).await {
                Ok(reply) if reply.status.is_success() => Ok(reply),
                Ok(reply) => Err(format!("{}: {}", reply.status, reply.text())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Everything it wrote, all runs.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Resident memory in bytes, from `/proc`.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }

    fn log_tail(&self) -> io::Result<String> {
        let mut file = File::open(&self.log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn spawn(spec: &ProcessSpec, log: &Path) -> io::Result<Child> {
    let output = File::options().create(true).append(true).open(log)?;
    spec.command()
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
}

impl Drop for Process {
    #[allow(clippy::print_stderr)] // The reason of a failed test belongs on its output.
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ended = self.kill_9();
        if std::thread::panicking() {
            let tail = self.log_tail().unwrap_or_else(|error| error.to_string());
            eprintln!("---- end of the log of {} ----\n{tail}", self.spec.name);
        }
    }
}
