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
