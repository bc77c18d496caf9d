//! Real processes with a cluster token, admitted one by one, behind a gateway: what a pod does in
//! Kubernetes, without Kubernetes.
#![allow(clippy::unwrap_used, clippy::panic)]
// A scenario reads best in one piece.
#![allow(clippy::too_many_lines)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::http::{RequestBody, whole};
use dfs_e2e::http::{Http, Reply};
use dfs_e2e::process::{Process, ProcessSpec, binary, free_ports};
use dfs_e2e::store::{Store, Stored};
use dfs_e2e::wait::eventually;
use dfs_protocol::datanode::AdminState;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_mins(2);

struct Pods {
    root: TempDir,
    tracker: Process,
    datanodes: Vec<Process>,
    gateway: Process,
    tracker_port: u16,
    gateway_ports: [u16; 2],
    datanode_admins: Vec<u16>,
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

impl Pods {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let token = root.path().join("token");
        std::fs::write(&token, "old\n").unwrap();
        let ports = free_ports(10);
        let start = |name: &str, role: &str, ports: &[u16], more: &[&str]| {
            let mut args: Vec<String> = vec![role.to_owned()];
            args.extend(["--port".to_owned(), ports[0].to_string()]);
            args.extend(["--admin-port".to_owned(), ports[1].to_string()]);
            args.extend(["--token-file".to_owned(), token.display().to_string()]);
            args.extend([
                "--dir".to_owned(),
                root.path().join(name).display().to_string(),
            ]);
            args.extend(more.iter().map(|&word| word.to_owned()));
            Process::start(ProcessSpec::dfs(name, args), root.path()).unwrap()
        };
        let url = format!("http://{}", at(ports[0]));
        let policy = ["--admission", "operator", "--heartbeat-interval", "1s"];
        let tracker = start("tracker", "tracker", &ports[0..2], &policy);
        let datanodes = (0..3).map(|number| {
            let name = format!("datanode-{number}");
            let mine = &ports[2 + 2 * number..4 + 2 * number];
            let more = ["--tracker", &url, "--reserve", "1MiB", "--pod", &name];
            start(&name, "datanode", mine, &more)
        });
        let datanodes = datanodes.collect();
        let gateway = start("gateway", "gateway", &ports[8..10], &["--tracker", &url]);
        Self {
            tracker,
            datanodes,
            gateway,
            tracker_port: ports[0],
            gateway_ports: [ports[8], ports[9]],
            datanode_admins: vec![ports[3], ports[5], ports[7]],
            root,
        }
    }

    fn tracker(&self, token: &str) -> Store {
        Store {
            door: Http::new(&at(self.tracker_port)).with_token(token),
        }
    }

    fn gateway(&self) -> Store {
        Store::new(&at(self.gateway_ports[0]))
    }

    /// Admits whoever waits until all three are in.
    async fn admit_all(&self) {
        let store = self.tracker("old");
        eventually("all are admitted", DEADLINE, || async {
            let nodes = store.nodes().await?;
            for node in nodes
                .iter()
                .filter(|node| node.admin == AdminState::Pending)
            {
                let pod = node.pod.clone().ok_or("no pod is told")?;
                let body = json!({"pod": pod, "volume": format!("v-{pod}"), "host": pod});
                let path = format!("/nodes/{}/admit", node.id);
                let reply = store
                    .door
                    .post_json(&path, &body)
                    .await
                    .map_err(|e| e.to_string())?;
                assert!(reply.status.is_success(), "{}", reply.text());
            }
            let is_in = nodes
                .iter()
                .filter(|node| node.admin == AdminState::InService);
            (is_in.count() == 3)
                .then_some(())
                .ok_or_else(|| format!("{nodes:?}"))
        })
        .await;
        store.wait_ready(3, DEADLINE).await;
    }

    /// Runs a verb; its code and all that it wrote.
    fn dfs(&self, line: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
        let output = Command::new(binary("dfs"))
            .args(line)
            .args(["--tracker", &format!("http://{}", at(self.tracker_port))])
            .env_remove("DFS_TOKEN")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

async fn get(port: u16, path: &str) -> Reply {
    Http::new(&at(port)).get(path).await.unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A body that the test sends piece by piece.
fn streamed() -> (mpsc::Sender<Bytes>, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), receiver))
    });
    (sender, StreamBody::new(pieces).boxed())
}

#[tokio::test(flavor = "multi_thread")]
async fn i35_processes_with_a_token_admit_serve_rotate_and_outlast_a_restart_of_the_tracker() {
    let mut pods = Pods::start();
    // A pending datanode is ready: whoever admits it must be able to see it.
    let ready = |port| async move {
        eventually("it is ready", DEADLINE, || async move {
            let reply = Http::new(&at(port)).get("/readyz?verbose").await;
            let reply = reply.map_err(|error| error.to_string())?;
            reply
                .status
                .is_success()
                .then_some(())
                .ok_or_else(|| reply.text())
        })
        .await;
    };
    for port in pods.datanode_admins.clone() {
        ready(port).await;
    }
    pods.admit_all().await;
    let gateway = pods.gateway();
    ready(pods.gateway_ports[1]).await;
    let body = vec![5; 3_000_000];
    assert_eq!(gateway.put("a", body.clone()).await.replica_count, 3);
    assert!(gateway.get("a").await == body);

    // Verbs: public ones need nothing, the others the token, from a file or from the environment.
    let token = pods.root.path().join("token");
    let file = token.display().to_string();
    assert_eq!(pods.dfs(&["ls"], &[]).0, Some(0));
    let (code, text) = pods.dfs(&["nodes"], &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--token-file"), "{text}");
    assert_eq!(pods.dfs(&["nodes"], &[("DFS_TOKEN", "old")]).0, Some(0));
    assert_eq!(pods.dfs(&["nodes", "--token-file", &file], &[]).0, Some(0));
    assert_eq!(pods.dfs(&["nodes"], &[("DFS_TOKEN", "wrong")]).0, Some(1));

    // Rotation while everything runs: the new one is added, sent, and the old one taken out.
    for (content, known) in [
        ("old\nnew\n", "new"),
        ("new\nold\n", "old"),
        ("new\n", "new"),
    ] {
        std::fs::write(&token, content).unwrap();
        eventually("the tokens are read again", DEADLINE, || async {
            let nodes = pods.tracker(known).nodes().await?;
            let is_live = |node: &&dfs_protocol::status::DatanodeStatus| {
                node.liveness == dfs_protocol::datanode::Liveness::Live
            };
            (nodes.iter().filter(is_live).count() == 3)
                .then_some(())
                .ok_or_else(String::new)
        })
        .await;
        // As an administrator would: every role looks each few seconds.
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    eventually("the old token is refused", DEADLINE, || async {
        match pods.tracker("old").nodes().await {
            Err(refused) if refused.contains("401") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // A role that stalled may have shown the old one until now.
    eventually("all know the new token", DEADLINE, || async {
        let reply = gateway.try_put("rotated", vec![1; 1000]).await;
        let reply = reply.map_err(|error| error.to_string())?;
        let is_stored = reply.status.is_success();
        let on_all = is_stored && reply.json::<Stored>().replica_count == 3;
        on_all.then_some(()).ok_or_else(|| reply.text())
    })
    .await;

    // The tracker is away for a while: the gateway's clients wait, and are served.
    pods.tracker.kill_9().unwrap();
    let (writer, reader) = (gateway.clone(), gateway.clone());
    let writing = tokio::spawn(async move { writer.try_put("while-away", vec![9; 5000]).await });
    let reading = tokio::spawn(async move { reader.try_get("a").await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!writing.is_finished() && !reading.is_finished());
    pods.tracker.restart().unwrap();
    assert_eq!(writing.await.unwrap().unwrap().status, 201);
    assert!(reading.await.unwrap().unwrap().ok().body == body);

    // SIGTERM: a gateway finishes the upload under way, takes no new ones, and ends well.
    let (feed, upload) = streamed();
    let door = gateway.door.clone();
    let putting =
        tokio::spawn(async move { door.send(Method::PUT, "/files/slow", &[], upload).await });
    feed.send(vec![1; 300_000].into()).await.unwrap();
    feed.send(vec![2; 300_000].into()).await.unwrap();
    // An upload that has not reached it is one of those that it takes no more.
    eventually("the upload is under way", DEADLINE, || async {
        let text = get(pods.gateway_ports[1], "/metrics").await.text();
        let in_flight = |line: &str| {
            line.strip_prefix("dfs_http_requests_in_flight ")?
                .parse()
                .ok()
        };
        let count: f64 = text.lines().find_map(in_flight).unwrap_or_default();
        (count >= 1.0).then_some(()).ok_or(text)
    })
    .await;
    pods.gateway.terminate().unwrap();
    eventually("the gateway takes no more", DEADLINE, || async {
        match gateway.try_get("a").await {
            Err(_) => Ok(()),
            Ok(reply) => Err(reply.status.to_string()),
        }
    })
    .await;
    feed.send(vec![3; 300_000].into()).await.unwrap();
    drop(feed);
    assert_eq!(putting.await.unwrap().unwrap().status, 201);
    assert!(pods.gateway.wait(DEADLINE).await.success());

    // So does a datanode: a chunk on its way is finished or made up for.
    let direct = pods.tracker("new");
    let (feed, upload) = streamed();
    let door = direct.door.clone();
    let putting =
        tokio::spawn(async move { door.send(Method::PUT, "/files/slower", &[], upload).await });
    feed.send(vec![1; 300_000].into()).await.unwrap();
    feed.send(vec![2; 300_000].into()).await.unwrap();
    pods.datanodes[0].terminate().unwrap();
    feed.send(vec![3; 300_000].into()).await.unwrap();
    drop(feed);
    let stored = putting.await.unwrap().unwrap();
    assert_eq!(stored.status, 201, "{}", stored.text());
    assert!(pods.datanodes[0].wait(DEADLINE).await.success());
    pods.datanodes[0].restart().unwrap();
    direct.wait_ready(3, DEADLINE).await;
    assert_eq!(direct.get("slow").await.len(), 900_000);
    assert_eq!(direct.get("slower").await.len(), 900_000);
    direct.wait_fsck_clean(DEADLINE).await;
    let reply = direct
        .door
        .send(Method::PUT, "/files/z", &[], whole("z"))
        .await;
    assert!(reply.unwrap().status.is_success());
    for name in ["tracker", "gateway", "datanode-0"] {
        let log = read(&pods.root.path().join(format!("{name}.log")));
        assert!(!log.contains("Bearer"), "{name} logs tokens");
    }
    assert_eq!(get(pods.datanode_admins[1], "/livez").await.status, 200);
}
