//! Alone in its process: it takes all file handles of it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test file are test code too"
)]

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use dfs_runtime::admin::{Readiness, admin_router, serve_admin};
use dfs_runtime::server::{RefusalReason, ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::shutdown_pair;
use prometheus::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const DEADLINE: Duration = Duration::from_secs(90);
const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A socket to come: connecting it needs no further handle.
fn client() -> TcpSocket {
    TcpSocket::new_v4().unwrap()
}

/// Returns the stream too: closing it would free a handle.
async fn ask(client: TcpSocket, address: SocketAddr) -> (String, TcpStream) {
    let exchange = async {
        let mut stream = client.connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer, stream)
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_without_file_handles_accept_backs_off_and_health_stays_answerable() {
    let registry = Registry::new();
    let (trigger, shutdown) = shutdown_pair();
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_address = api.local_addr().unwrap();
    let api_metrics = ServerMetrics::register(&registry, "api").unwrap();
    let router = Router::new().route("/livez", get(|| async { "api" }));
    let limits = ServerLimits::default();
    let api = tokio::spawn(serve(
        api,
        router,
        limits,
        api_metrics.clone(),
        shutdown.clone(),
    ));
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin_address = admin.local_addr().unwrap();
    let admin_metrics = ServerMetrics::register(&registry, "admin").unwrap();
    let router = admin_router(Readiness::new(), vec![registry]);
    let admin = tokio::spawn(serve_admin(admin, router, admin_metrics.clone(), shutdown));

    // Both listeners run, and the admin listener has its reserve.
    assert!(ask(client(), api_address).await.0.ends_with("api"));
    assert!(ask(client(), admin_address).await.0.ends_with("ok\n"));

    let clients: Vec<TcpSocket> = (0..4).map(|_| client()).collect();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(256);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let mut hoard = Vec::new();
    while let Ok(handle) = clients[0].as_fd().try_clone_to_owned() {
        hoard.push(handle);
    }

    let mut clients = clients.into_iter();
    let starved = tokio::spawn(ask(clients.next().unwrap(), api_address));
    let wait = async {
        while api_metrics.refused_count(RefusalReason::NoHandles) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
    let mut answered = Vec::new();
    for client in clients {
        let (answer, stream) = ask(client, admin_address).await;
        assert!(answer.ends_with("ok\n"), "{answer}");
        answered.push(stream);
    }
    assert!(admin_metrics.refused_count(RefusalReason::NoHandles) > 0);

    drop(hoard);
    let answer = tokio::time::timeout(DEADLINE, starved).await.unwrap();
    assert!(answer.unwrap().0.ends_with("api"));
    trigger.trigger();
    for server in [api, admin] {
        tokio::time::timeout(DEADLINE, server)
            .await
            .unwrap()
            .unwrap();
    }
}
