//! Clients that are slow, and servers that may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use tokio::sync::Notify;

use super::*;
use crate::server::{CutReason, RateLimit};

/// Longer than a busy machine lets a client of these tests wait for the processor.
const SHORT: Duration = Duration::from_millis(500);

fn fast_times() -> ServerLimits {
    let rate = RateLimit {
        window: SHORT,
        bytes: 1000,
    };
    ServerLimits {
        header_timeout: SHORT,
        idle_timeout: SHORT,
        receive_rate: rate,
        send_rate: rate,
        linger: SHORT,
        ..ServerLimits::default()
    }
}

#[tokio::test]
async fn bad_input_23_a_header_that_never_ends_gets_408_and_the_connection_ends() {
    let served = serve_simple(fast_times()).await;
    let answer = served.talk("GET / HTTP/1.1\r\nHost: x\r\nA: ").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request-timeout"), "{answer}");
    assert_eq!(served.talk("").await, "", "a silent connection");
    assert_eq!(served.metrics.cut_count(CutReason::HeaderTimeout), 2);
}

#[tokio::test]
async fn bad_input_23_a_body_that_trickles_gets_408_and_the_connection_ends() {
    let served = serve_simple(fast_times()).await;
    let mut client = served.connect().await;
    client
        .send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        .await;
    let (mut read, mut write) = client.0.into_split();
    let trickle = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut answer = String::new();
    let read = read.read_to_string(&mut answer);
    let _reset = tokio::time::timeout(DEADLINE, read).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("x-request-id: "), "{answer}");
    assert_eq!(served.metrics.cut_count(CutReason::SlowRequest), 1);
    tokio::time::timeout(DEADLINE, trickle)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn bad_input_24_a_client_that_reads_too_slowly_is_cut_and_its_answer_dropped() {
    for asked in [
        "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n",
        // Whatever it would like to speak instead.
        "GET /endless HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        cut_while_it_reads_nothing(asked).await;
    }
}

async fn cut_while_it_reads_nothing(asked: &str) {
    let left = Arc::new(Notify::new());
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (produced, gone) = (Arc::new(AtomicU64::new(0)), left.clone());
    let counter = produced.clone();
    let router = Router::new().route(
        "/endless",
        get(move || async move {
            let guard = OnDrop(gone);
            let block = Bytes::from(vec![0; 65536]);
            let stream = futures_util::stream::repeat_with(move || {
                let _alive = &guard;
                counter.fetch_add(65536, Ordering::Relaxed);
                Ok::<_, std::io::Error>(block.clone())
            });
            Body::from_stream(stream)
        }),
    );
    let served = serve_router(fast_times(), router).await;
    let mut client = served.connect().await;
    client.send(asked).await;
    // The client reads nothing: what is produced ends with the kernel's and our buffers.
    tokio::time::timeout(DEADLINE, left.notified())
        .await
        .unwrap();
    eventually(|| served.metrics.cut_count(CutReason::SlowReader) == 1).await;
    eventually(|| served.metrics.open_count() == 0).await;
    assert!(produced.load(Ordering::Relaxed) < 64 << 20);
}

#[tokio::test]
async fn a_reader_above_the_minimum_rate_is_served_to_the_end() {
    const LENGTH: usize = 12 << 20;
    let router = Router::new().route("/big", get(|| async { Bytes::from(vec![7; LENGTH]) }));
    // A window that a client which merely waits for the processor does not miss.
    let limits = ServerLimits {
        send_rate: RateLimit {
            window: Duration::from_secs(2),
            bytes: 16 * 1024,
        },
        ..fast_times()
    };
    let served = serve_router(limits, router).await;
    // A small window keeps the bytes in the server's buffer, which the kernel reports as writable
    // only long after some of it is free: longer than the meter's window at this pace.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut client = Client(socket.connect(served.address).await.unwrap());
    client
        .send("GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    client.until("\r\n\r\n").await;
    let mut buffer = vec![0; 16 * 1024];
    let mut total = 0;
    for turn in 0.. {
        let read = client.0.read(&mut buffer);
        match tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap() {
            0 => break,
            read => total += read,
        }
        if turn < 200 {
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
    assert_eq!(total, LENGTH);
    assert_eq!(served.metrics.cut_count(CutReason::SlowReader), 0);
}

#[tokio::test]
async fn a_handler_may_think_for_many_windows_before_and_after_it_reads_the_body() {
    let router = Router::new().route(
        "/think",
        post(|body: Body| async {
            tokio::time::sleep(SHORT * 5).await;
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            tokio::time::sleep(SHORT * 5).await;
            bytes.len().to_string()
        }),
    );
    let served = serve_router(fast_times(), router).await;
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = served.connect().await;
        client
            .send(format!(
                "POST /think HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{expect}\
                 Content-Length: 500000\r\n\r\n"
            ))
            .await;
        if !expect.is_empty() {
            client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        client.send(vec![b'x'; 500_000]).await;
        let answer = client.rest().await;
        assert!(answer.ends_with("\r\n\r\n500000"), "{answer}");
    }
    assert_eq!(served.metrics.cut_count(CutReason::SlowRequest), 0);
    assert_eq!(served.metrics.cut_count(CutReason::HeaderTimeout), 0);
    assert_eq!(served.metrics.cut_count(CutReason::Idle), 0);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout_and_ends_at_the_idle_timeout() {
    let limits = ServerLimits {
        idle_timeout: SHORT * 10,
        ..fast_times()
    };
    let served = serve_simple(limits).await;
    let mut client = served.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.until("hello").await;
    tokio::time::sleep(SHORT * 3).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.until("hello").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(served.metrics.cut_count(CutReason::Idle), 1);
    assert_eq!(served.metrics.cut_count(CutReason::HeaderTimeout), 0);
}
