//! nginx over plain files: what one hop of sockets costs, and two.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::super::door::Door;
use super::super::fleet::spec;
use super::super::group::Group;
use super::super::report::Report;
use super::super::settings::Settings;
use super::program;
use crate::http::Http;
use crate::process::free_ports;
use crate::wait::eventually;

/// How long it may take to serve.
const START: Duration = Duration::from_secs(30);

/// What both servers have in common.
const SHARED: &str = "worker_processes 2; daemon off; pid nginx.pid; error_log stderr warn;\n\
    events { worker_connections 1024; }\n";
/// What the server of plain files is told, beside its cache of open files.
const FILES: &str = "sendfile on; tcp_nodelay on; keepalive_requests 100000000;\n\
    open_file_cache_valid 10m; access_log off;\n";
/// What the server in front is told: it passes on what comes, and keeps its connections.
const FRONT: &str = "tcp_nodelay on; keepalive_requests 100000000; access_log off;\n\
    proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_max_temp_file_size 0;\n\
    proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k;\n";

/// A server over a directory of files, or one in front of it.
#[derive(Debug)]
pub(in super::super) struct Nginx {
    pub(in super::super) door: Door,
    pub(in super::super) group: Group,
    address: String,
    dir: TempDir,
}

/// One server and one in front of it.
#[derive(Debug)]
pub(in super::super) struct Pair {
    /// Plain files: one hop.
    pub(in super::super) plain: Nginx,
    /// In front of a server of its own, so that CPU seconds of both hops are counted: two hops.
    pub(in super::super) two_hops: Nginx,
}

impl Pair {
    /// Starts both over `files`, where nginx was found; otherwise the report says what is left out.
    pub(in super::super) async fn start(
        settings: &Settings,
        report: &mut Report,
        files: &Path,
    ) -> io::Result<Option<Self>> {
        let Some(binary) = program(settings, "usr/sbin", "nginx") else {
            let text = "nginx was not found: its rows are left out; `scripts/bench-peers.sh nginx` \
                        installs it below target/peers";
            report.note("nginx", text, &json!(null))?;
            return Ok(None);
        };
        let cache = cache(files_at_once());
        let told = format!("{SHARED}{FILES}{cache} in front: {FRONT}").replace('\n', " ");
        report.note("nginx", &format!("runs with: {told}"), &json!(binary))?;
        let plain = Nginx::start(settings, &binary, files, false).await?;
        let two_hops = Nginx::start(settings, &binary, files, true).await?;
        Ok(Some(Self { plain, two_hops }))
    }
}

impl Nginx {
    async fn start(
        settings: &Settings,
        binary: &Path,
        files: &Path,
        two_hops: bool,
    ) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("dfs-bench.")
            .tempdir_in(&settings.dir)?;
        let ports = free_ports(2);
        let mut group = Group::default();
        let served = format!(
            "{FILES}{}server {{ listen 127.0.0.1:{} reuseport; root {}; }}\n",
            cache(files_at_once()),
            ports[0],
            files.display()
        );
        start_one(&mut group, binary, dir.path(), "files", &served)?;
        let mut port = ports[0];
        if two_hops {
            let front = format!(
                "{FRONT}upstream files {{ server 127.0.0.1:{port}; keepalive 64; }}\n\
                 server {{ listen 127.0.0.1:{} reuseport; \
                 location / {{ proxy_pass http://files; }} }}\n",
                ports[1]
            );
            start_one(&mut group, binary, dir.path(), "front", &front)?;
            port = ports[1];
        }
        let address = format!("127.0.0.1:{port}");
        let nginx = Self {
            door: Door::Paths {
                address: address.clone(),
                prefix: "/",
                query: "",
                moved_from: "",
                named: None,
            },
            group,
            address,
            dir,
        };
        nginx.wait_ready().await;
        Ok(nginx)
    }

    async fn wait_ready(&self) {
        let door = Http::new(&self.address);
        let logs = self.dir.path();
        eventually("nginx answers", START, || async {
            match door.get("/").await {
                // Any answer of the files' server: there is no index.
                Ok(reply) if reply.status.as_u16() < 500 => Ok(()),
                Ok(reply) => Err(reply.text()),
                Err(error) => Err(format!("{error}; its log is in {}", logs.display())),
            }
        })
        .await;
    }
}

/// Files that each worker keeps open: half of what it may. Not every root may raise the limit.
fn files_at_once() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX).min(400_000) / 2
}

/// One that never forgets a file.
fn cache(files: u64) -> String {
    format!("open_file_cache max={files} inactive=10m;\n")
}

fn start_one(
    group: &mut Group,
    binary: &Path,
    dir: &Path,
    name: &str,
    http: &str,
) -> io::Result<()> {
    let prefix = dir.join(name);
    std::fs::create_dir(&prefix)?;
    // Connections, too.
    let mut text = format!("worker_rlimit_nofile {};\n{SHARED}", 2 * files_at_once());
    if rustix::process::geteuid().is_root() {
        // Its workers read directories that only this user reads.
        text.insert_str(0, "user root;\n");
    }
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _fits = writeln!(temporary, "{kind}_temp_path {kind};");
    }
    let _fits = writeln!(text, "http {{\n{temporary}{http}}}");
    std::fs::write(prefix.join("nginx.conf"), text)?;
    let args = ["-p", &format!("{}/", prefix.display()), "-c", "nginx.conf"];
    let args = args.map(str::to_owned).to_vec();
    group.start(spec(binary, &format!("nginx-{name}"), args), dir)
}
