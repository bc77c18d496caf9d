//! A whole store in this process, used as people use it.

use std::io::Cursor;
use std::path::Path;

use dfs_runtime::net::TcpConnector;
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use tokio::net::TcpListener;

use super::*;
use crate::args::{DevArgs, parse};
use crate::testing::Captured;
use crate::verbs::{self, Environment};

mod series;

struct Store {
    dev: Dev,
    address: String,
    trigger: ShutdownTrigger,
    shutdown: Shutdown,
}

fn words(line: &str) -> Vec<std::ffi::OsString> {
    line.split(' ').map(Into::into).collect()
}

fn dev_args(line: &str) -> DevArgs {
    let Command::Dev(args) = parse(words(line)).unwrap().command else {
        unreachable!()
    };
    args
}

async fn start(dir: &Path, options: &str) -> Result<Store, Failure> {
    start_at("127.0.0.1:0", dir, options).await
}

async fn start_at(address: &str, dir: &Path, options: &str) -> Result<Store, Failure> {
    let args = dev_args(&format!("dfs dev {options}"));
    let config = DevConfig {
        dir: dir.to_path_buf(),
        datanodes: args.datanodes,
        policy: args.policy,
        tokens: dfs_runtime::token::Tokens::none(),
    };
    let world = World::real();
    let listener = TcpListener::bind(address).await.unwrap();
    let (trigger, shutdown) = shutdown_pair();
    let dev = Dev::start(&config, &world, listener, &shutdown).await?;
    let status = dev.ready(&world).await.unwrap();
    assert_eq!(status.writes_refused, None, "{}", status.summary);
    Ok(Store {
        address: dev.address().to_string(),
        dev,
        trigger,
        shutdown,
    })
}

async fn stop(store: Store) {
    store.trigger.trigger();
    store.dev.wait(store.shutdown).await.unwrap();
}

async fn dfs(store: &Store, line: &str, stdin: &[u8]) -> (Exit, Captured) {
    let captured = Captured::default();
    let command = parse(words(&format!("{line} --tracker {}", store.address)))
        .unwrap()
        .command;
    let environment = Environment {
        connector: TcpConnector::shared(),
        out: captured.output(),
        stdin: Box::new(Cursor::new(stdin.to_vec())),
        door: None,
    };
    let exit = verbs::run(command, environment).await;
    (exit, captured)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_one_process_keeps_its_files_between_runs() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let store = start(dir.path(), "--datanodes 4").await.unwrap();
    let (exit, captured) = dfs(&store, "dfs put - a/b", &content).await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(
        captured.stdout().contains("3 replicas"),
        "{}",
        captured.stdout()
    );
    let address = store.address.clone();
    stop(store).await;
    // Fewer are asked for, but all that hold data are started.
    let again = start_at(&address, dir.path(), "--datanodes 1");
    let store = again.await.unwrap();
    let (exit, captured) = dfs(&store, "dfs cat a/b", b"").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(captured.stdout_bytes() == content);
    let (_, captured) = dfs(&store, "dfs nodes", b"").await;
    assert_eq!(
        captured.stdout().lines().count(),
        5,
        "{}",
        captured.stdout()
    );
    // A checkpoint that was just taken is reported by the next heartbeats.
    let clean = async {
        while dfs(&store, "dfs fsck", b"").await.0 != Exit::Done {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let clean = tokio::time::timeout(Duration::from_mins(1), clean).await;
    assert!(clean.is_ok(), "fsck did not become clean");
    stop(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_datanode_is_a_store_and_its_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path(), "--datanodes 1").await.unwrap();
    let (exit, captured) = dfs(&store, "dfs put - x", b"small").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(
        captured.stdout().contains("1 replica"),
        "{}",
        captured.stdout()
    );
    let Err(failure) = start(dir.path(), "--datanodes 1").await else {
        panic!("two stores in one directory");
    };
    assert!(
        failure.render().contains("another dfs dev has it"),
        "{}",
        failure.render()
    );
    stop(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_share_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path(), "--datanodes 2").await.unwrap();
    let http = dfs_client::HttpClient::new(TcpConnector::shared());
    let fetch = async |path: &str| {
        let timeout = Duration::from_secs(90);
        let fetched = http.fetch(http::Method::GET, &store.address, path, &[], timeout);
        String::from_utf8(fetched.await.unwrap().to_vec()).unwrap()
    };
    assert_eq!(fetch("/livez").await, "ok\n");
    assert!(fetch("/readyz?verbose").await.contains("[ok] catalog"));
    let metrics = fetch("/metrics").await;
    assert!(metrics.contains("datanode=\"2\""));
    assert!(metrics.contains("role=\"dev\""));
    stop(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_the_datanodes_and_the_file_that_was_just_read() {
    let dir = tempfile::tempdir().unwrap();
    let content = vec![7; 300_000];
    let store = start(dir.path(), "--datanodes 3").await.unwrap();
    assert_eq!(
        dfs(&store, "dfs put - films/a", &content).await.0,
        Exit::Done
    );
    assert_eq!(dfs(&store, "dfs put - cold", b"x").await.0, Exit::Done);
    let (exit, captured) = dfs(&store, "dfs cat films/a", b"").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let (_, captured) = dfs(&store, "dfs nodes -o json", b"").await;
    let nodes: Vec<dfs_protocol::status::DatanodeStatus> =
        serde_json::from_str(&captured.stdout()).unwrap();
    assert_eq!(nodes.len(), 3);
    let (exit, captured) = dfs(&store, "dfs top --once --interval 1s", b"").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let text = captured.stdout();
    for node in nodes {
        assert!(text.contains(&node.id.short()), "{text}");
    }
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    // Read and written once, against written once: the hotter one is first.
    assert!(place("films/a") < place("cold"), "{text}");
    // Heartbeats tell what was moved: every replica was written once, one of them was read.
    let told = async {
        loop {
            let (_, captured) = dfs(&store, "dfs top -o json -i 200ms", b"").await;
            let picture: serde_json::Value = serde_json::from_str(&captured.stdout()).unwrap();
            let sum = |what: &str| -> u64 {
                let nodes = picture["nodes"].as_array().unwrap().iter();
                nodes
                    .filter_map(|node| node["traffic"][what].as_u64())
                    .sum()
            };
            if sum("read_bytes") >= 300_000 && sum("written_bytes") >= 900_000 {
                break;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_mins(1), told).await;
    assert!(told.is_ok(), "heartbeats did not tell of traffic");
    stop(store).await;
}
