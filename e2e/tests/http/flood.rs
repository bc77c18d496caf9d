//! I31 and row 25: too many clients at once, idle, sending or reading slowly.

use std::time::Duration;

use dfs_e2e::cluster::{CALM_HEARTS, Options};
use dfs_e2e::http::{Http, RawReply, RawSocket};
use dfs_e2e::wait::eventually;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use crate::site::{Site, WITHIN, assert_problem};

/// Connections that the flooded store takes, its datanodes' included.
const CAP: usize = 500;
/// Uploads, and downloads, that it takes.
const TRANSFERS: usize = 6;
/// File handles that everything else in this process may need.
const OTHERS: u64 = 2000;

fn options() -> Options {
    Options {
        tracker: |config| {
            config.server.connections = CAP;
            config.heartbeat_interval = CALM_HEARTS;
        },
        gateway: |config| {
            config.max_uploads = TRANSFERS;
            config.max_downloads = TRANSFERS;
        },
        ..Options::default()
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// 10,000, or what the limit on file handles leaves.
fn idle_clients() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let room = soft.saturating_sub(OTHERS + CAP as u64);
    usize::try_from(room).unwrap_or(usize::MAX).min(10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i31_bad_input_25_idle_connections_above_the_cap_get_503_and_cost_nothing() {
    let site = Site::start(options());
    site.store.put("idle", "content").await;
    let before = resident_bytes();
    let clients = idle_clients();
    assert!(
        clients > 2 * CAP,
        "the limit on file handles is too low for this test: {clients}"
    );
    let mut sockets = Vec::with_capacity(clients);
    for _ in 0..clients {
        // Beyond the cap some are dropped before they are up.
        if let Ok(socket) = RawSocket::connect(&site.address).await {
            sockets.push(socket);
        }
    }
    let open = site.metric("dfs_http_connections_open{listener=\"api\"");
    assert!(open <= CAP as f64 * 4.0, "{open} connections are open");
    let refused = eventually("most are refused", WITHIN, async || {
        let refused = site.metric("dfs_http_connections_refused_total");
        if refused > (clients - 2 * CAP) as f64 {
            Ok(refused)
        } else {
            Err(format!("{refused}"))
        }
    })
    .await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(
        grown < 256 * 1024 * 1024,
        "{grown} bytes for {clients} idle connections ({refused} refused)"
    );
    // One of the refused says why.
    let reply = sockets.pop().unwrap().read(WITHIN).await;
    assert!(
        matches!(reply.status(), None | Some(503)),
        "{}",
        reply.text()
    );
    drop(sockets);
    eventually("the store takes connections again", WITHIN, async || {
        let reply = site
            .store
            .try_get("idle")
            .await
            .map_err(|error| error.to_string())?;
        if reply.status == 200 {
            Ok(())
        } else {
            Err(reply.text())
        }
    })
    .await;
    site.works().await;
}

/// Uploads that stand still hold their places; the next is told to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i31_uploads_and_downloads_above_their_caps_get_503_at_once() {
    let site = Site::start(options());
    let large = 24 * 1024 * 1024;
    site.store.put("large", vec![3; large]).await;
    let before = resident_bytes();
    let mut uploads = Vec::new();
    for n in 0..TRANSFERS {
        let mut socket = RawSocket::connect(&site.address).await.unwrap();
        let head = format!(
            "PUT /files/stalled-{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n"
        );
        socket.write(head).await.unwrap();
        // Only who has a place is told to go on.
        let welcome = socket.read_some(WITHIN).await.unwrap();
        assert!(welcome.starts_with(b"HTTP/1.1 100 "), "{n}");
        uploads.push(socket);
    }
    full(&site, "PUT", "/files/one-more").await;
    let mut downloads = Vec::new();
    for _ in 0..TRANSFERS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(site.address.parse().unwrap()).await.unwrap();
        let request = b"GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request)
            .await
            .unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        downloads.push(stream);
    }
    full(&site, "GET", "/files/large").await;
    // Neither keeps a whole file in memory: the kernel's own buffers are not ours.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < (TRANSFERS * large) as u64, "{grown}");
    drop((uploads, downloads));
    for method in ["PUT", "GET"] {
        let uri = if method == "PUT" {
            "/files/one-more"
        } else {
            "/files/large"
        };
        eventually("places are free again", WITHIN, async || {
            let reply = site.ask(method, uri, &[], "x").await;
            if reply.status.is_success() {
                Ok(())
            } else {
                Err(reply.text())
            }
        })
        .await;
    }
    assert!(
        !site
            .names("")
            .await
            .iter()
            .any(|name| name.starts_with("stalled"))
    );
    site.works().await;
}

async fn full(site: &Site, method: &str, uri: &str) {
    let reply = eventually("the store is full", WITHIN, async || {
        let reply = site.ask(method, uri, &[], "x").await;
        if reply.status == 503 {
            Ok(reply)
        } else {
            Err(reply.status.to_string())
        }
    })
    .await;
    assert_problem(&reply, 503, "unavailable", uri);
    assert!(!reply.header("retry-after").is_empty());
    // What is small still passes.
    let status = Http::new(&site.address).get("/status").await.unwrap();
    assert_eq!(status.status, 200);
}

/// A reader that takes its time within the limits gets every byte.
#[tokio::test]
async fn a_slow_reader_within_the_limits_gets_every_byte() {
    let site = crate::site::site();
    let bytes: Vec<u8> = (0..crate::site::MAX_FILE)
        .map(|at| u8::try_from(at % 249).unwrap())
        .collect();
    site.store.put("slow", bytes.clone()).await;
    let mut socket = RawSocket::connect(&site.address).await.unwrap();
    socket
        .write("GET /files/slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut reply = RawReply {
        bytes: Vec::new(),
        closed: false,
    };
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let some = socket.read_some(WITHIN).await.unwrap();
        if some.is_empty() {
            break;
        }
        reply.bytes.extend_from_slice(&some);
    }
    assert!(reply.bytes.ends_with(&bytes));
}
