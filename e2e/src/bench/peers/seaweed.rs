//! SeaweedFS as its own pages set it up for three copies, with fsync asked for: a master, three
//! volume servers, and a filer; driven through the filer and through the volume servers' own API.

use std::io;
use std::path::{Path, PathBuf};
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

/// How long it may take to take a write.
const START: Duration = Duration::from_mins(2);
/// How long one vacuum may take.
const VACUUM: Duration = Duration::from_mins(2);

/// A running store of its own; dropped, its processes end and its data goes.
#[derive(Debug)]
pub(in super::super) struct Seaweed {
    /// As it is named in rows.
    pub(in super::super) name: &'static str,
    pub(in super::super) door: Door,
    pub(in super::super) group: Group,
    master: Http,
    dir: TempDir,
}

/// Which of its ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Filer,
    Volumes,
}

/// A store that is driven one way, where it was installed; otherwise the report says what is left out.
pub(super) async fn start(
    settings: &Settings,
    report: &mut Report,
    way: Way,
) -> io::Result<Option<Seaweed>> {
    let Some(binary) = program(settings, "bin", "weed") else {
        let text = "SeaweedFS was not found: its rows are left out; `scripts/bench-peers.sh seaweedfs` \
                    installs it below target/peers";
        report.note("SeaweedFS", text, &json!(null))?;
        return Ok(None);
    };
    let text = "master -defaultReplication=002 -volumeSizeLimitMB=8000; three volume servers \
                -max=60 -fileSizeLimitMB=512, one rack; filer with its embedded store; \
                PUT ?fsync=true";
    report.note("SeaweedFS", text, &json!(binary))?;
    Seaweed::start(settings, &binary, way).await.map(Some)
}

impl Seaweed {
    async fn start(settings: &Settings, binary: &Path, way: Way) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("dfs-bench.")
            .tempdir_in(&settings.dir)?;
        let ports = free_ports(10);
        let (master, filer) = (&ports[0..2], &ports[2..4]);
        let at = |ports: &[u16]| format!("127.0.0.1:{}.{}", ports[0], ports[1]);
        let mut group = Group::default();
        let role = |group: &mut Group, name: &str, role: &str, ports: &[u16], more: &[String]| {
            let own = own_dir(dir.path(), name)?;
            let args = arguments(role, ports, &own, more);
            group.start(spec(binary, name, args), dir.path())
        };
        let more = [
            "-defaultReplication=002",
            "-telemetry=false",
            "-volumeSizeLimitMB=8000",
        ];
        role(
            &mut group,
            "master",
            "master",
            master,
            &more.map(str::to_owned),
        )?;
        for (number, ports) in ports[4..].chunks(2).enumerate() {
            let more = [
                format!("-master={}", at(master)),
                "-max=60".to_owned(),
                "-fileSizeLimitMB=512".to_owned(),
                "-dataCenter=dc1".to_owned(),
                "-rack=r1".to_owned(),
            ];
            let name = format!("volume-{}", number + 1);
            role(&mut group, &name, "volume", ports, &more)?;
        }
        if way == Way::Filer {
            let more = [
                format!("-master={}", at(master)),
                format!("-localSocket={}", dir.path().join("filer.sock").display()),
            ];
            role(&mut group, "filer", "filer", filer, &more)?;
        }
        let master = format!("127.0.0.1:{}", master[0]);
        let (name, door) = match way {
            Way::Volumes => {
                let places = std::rc::Rc::default();
                let master = master.clone();
                let door = Door::Assigned { master, places };
                ("SeaweedFS volumes, fsync", door)
            }
            Way::Filer => {
                let door = Door::Paths {
                    address: format!("127.0.0.1:{}", filer[0]),
                    prefix: "/",
                    query: "?fsync=true",
                    moved_from: "?mv.from=/",
                    named: None,
                };
                ("SeaweedFS filer, fsync", door)
            }
        };
        let seaweed = Self {
            name,
            door,
            group,
            master: Http::new(&master),
            dir,
        };
        seaweed.wait_for_writes().await;
        Ok(seaweed)
    }

    /// Where its data lies.
    pub(in super::super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    async fn wait_for_writes(&self) {
        let logs = self.dir.path().display();
        eventually("SeaweedFS takes a write", START, || async {
            let put = async {
                let mut session = self.door.session().await?;
                let body = || dfs_client::http::whole("x");
                session.put("warm-up", body).await?;
                session.get("warm-up").await
            };
            let limit = tokio::time::timeout(Duration::from_secs(10), put);
            match limit.await {
                Ok(Ok(1)) => Ok(()),
                Ok(Ok(length)) => Err(format!("{length} bytes came back")),
                Ok(Err(error)) => Err(format!("{error}; its logs are in {logs}")),
                Err(_) => Err("no answer".to_owned()),
            }
        })
        .await;
    }

    /// Gives back the room of what was deleted: its volumes only grow otherwise.
    pub(in super::super) async fn vacuum(&self) -> io::Result<()> {
        let master = Http {
            limit: VACUUM,
            ..self.master.clone()
        };
        let reply = master.get("/vol/vacuum?garbageThreshold=0.001").await?;
        if reply.status.is_success() {
            return Ok(());
        }
        Err(io::Error::other(format!("vacuum: {}", reply.text())))
    }
}

fn own_dir(below: &Path, name: &str) -> io::Result<PathBuf> {
    let dir = below.join(name);
    std::fs::create_dir(&dir)?;
    Ok(dir)
}

/// The command line of one role: everything on loopback, everything below its own directory.
fn arguments(role: &str, ports: &[u16], dir: &Path, more: &[String]) -> Vec<String> {
    let dir_option = match role {
        "master" => "mdir",
        "volume" => "dir",
        _ => "defaultStoreDir",
    };
    let mut args = vec![
        "-logtostderr=true".to_owned(),
        role.to_owned(),
        "-ip=127.0.0.1".to_owned(),
        "-ip.bind=127.0.0.1".to_owned(),
        format!("-port={}", ports[0]),
        format!("-port.grpc={}", ports[1]),
        format!("-{dir_option}={}", dir.display()),
    ];
    args.extend_from_slice(more);
    args
}
