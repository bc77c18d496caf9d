//! Rows 23, 24: clients that dawdle.

use std::time::Duration;

use dfs_e2e::cluster::{CALM_HEARTS, Options};
use dfs_e2e::http::RawSocket;
use dfs_runtime::server::RateLimit;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use crate::site::{Site, WITHIN, assert_raw_problem};

/// Sends a byte now and then until the server has had enough; what it said.
async fn trickle(site: &Site, head: &str) -> dfs_e2e::http::RawReply {
    let mut socket = RawSocket::connect(&site.address).await.unwrap();
    socket.write(head).await.unwrap();
    for _ in 0..600 {
        // One that was cut may still have something to read.
        let cut = socket.write("x").await.is_err();
        let said = socket.read(Duration::from_millis(100)).await;
        if cut || !said.bytes.is_empty() || said.closed {
            let rest = socket.read(WITHIN).await;
            let bytes = [said.bytes, rest.bytes].concat();
            return dfs_e2e::http::RawReply {
                bytes,
                closed: rest.closed,
            };
        }
    }
    panic!("a minute of dawdling was borne");
}

#[tokio::test]
async fn bad_input_23_and_24_clients_that_dawdle_are_cut() {
    let options = Options {
        tracker: |config| {
            // Longer than a busy machine lets the other requests of this test wait.
            let patience = Duration::from_secs(6);
            config.heartbeat_interval = CALM_HEARTS;
            config.server.header_timeout = patience;
            config.server.receive_rate = RateLimit::per_second(1024, patience);
            config.server.send_rate = RateLimit::per_second(1024, patience);
        },
        ..Options::default()
    };
    let site = Site::start(options);
    let head = "PUT /files/p23 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    let form = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=X\r\nContent-Length: 100000\r\n\r\n\
                --X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"p23\"\r\n\r\n";
    for (head, what) in [
        (head, "a body"),
        (form, "a form"),
        ("GET /files/x HTTP/1.1\r\nX-", "a header"),
        ("G", "a line"),
    ] {
        let reply = trickle(&site, head).await;
        assert_raw_problem(&reply, 408, "request-timeout", what);
        assert!(reply.closed, "{what}");
    }
    assert!(site.names("").await.is_empty());
    slow_reader(&site).await;
    site.works().await;
}

/// Row 24. The answer is larger than all buffers on its way.
async fn slow_reader(site: &Site) {
    let large = 24 * 1024 * 1024;
    site.store.put("p24", vec![1; large]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(site.address.parse().unwrap()).await.unwrap();
    let request = b"GET /files/p24 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request)
        .await
        .unwrap();
    let mut read = 0;
    let mut piece = [0; 1];
    let end = std::time::Instant::now() + WITHIN;
    while site.metric("reason=\"slow_reader\"") < 0.5 {
        assert!(std::time::Instant::now() < end, "it is still served");
        let _one = tokio::time::timeout(WITHIN, stream.read(&mut piece)).await;
        // Some 20 bytes a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What it gets in the end is visibly short.
    let mut rest = vec![0; 64 * 1024];
    while let Ok(Ok(count @ 1..)) = tokio::time::timeout(WITHIN, stream.read(&mut rest)).await {
        read += count;
    }
    assert!(read < large, "{read}");
}
