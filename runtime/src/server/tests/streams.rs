//! Bodies and other protocols on a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::*;
use crate::problem::{ProblemResponse, body_problem};
use crate::server::{CutReason, RateLimit};

#[tokio::test]
async fn bad_input_15_a_body_that_breaks_off_is_an_error_for_the_handler() {
    let (seen, broken) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (note, flag) = (seen.clone(), broken.clone());
    let router = Router::new().route(
        "/store",
        post(move |body: Body| async move {
            let read = axum::body::to_bytes(body, 1000).await;
            flag.store(read.is_err(), Ordering::SeqCst);
            note.notify_one();
            read.map(|_| "stored")
                .map_err(|error| ProblemResponse(body_problem(&error)))
        }),
    );
    let served = serve_router(ServerLimits::default(), router).await;
    let mut client = served.connect().await;
    client
        .send("POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    client.0.shutdown().await.unwrap();
    let answer = client.rest().await;
    tokio::time::timeout(DEADLINE, seen.notified())
        .await
        .unwrap();
    assert!(broken.load(Ordering::SeqCst));
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn bad_input_21_a_refusal_comes_without_100_and_the_body_is_not_waited_for() {
    let served = serve_simple(ServerLimits::default()).await;
    let answer = served
        .talk(
            "POST /ignore HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
             Content-Length: 1000000\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn bad_input_19_a_client_that_sends_all_of_a_refused_body_still_sees_the_answer() {
    let served = serve_simple(ServerLimits::default()).await;
    for _ in 0..10 {
        let mut client = served.connect().await;
        client
            .send("POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n")
            .await;
        client.send(vec![0; 8_000_000]).await;
        let answer = client.rest().await;
        assert!(answer.ends_with("ignored"), "{answer}");
    }
}

/// Upgrades to a protocol that sends every byte back.
fn mirror() -> Router {
    Router::new().route(
        "/mirror",
        get(|mut request: Request| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let stream = TokioIo::new(upgrade.await.unwrap());
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
            http::Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "mirror")
                .body(Body::empty())
                .unwrap()
        }),
    )
}

const UPGRADE: &str = "GET /mirror HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\
    Upgrade: mirror\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_is_raw_has_no_timeouts_and_holds_its_place() {
    // Longer than a busy machine lets the client wait for the processor.
    let short = Duration::from_millis(500);
    let limits = ServerLimits {
        connections: 1,
        header_timeout: short,
        idle_timeout: short,
        ..ServerLimits::default()
    };
    let served = serve_router(limits, mirror()).await;
    let mut client = served.connect().await;
    client.send(UPGRADE).await;
    // What the client sends before the answer belongs to the new protocol.
    client.send("early\n").await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.until("early\n").await;
    tokio::time::sleep(short * 4).await;
    client.send("GET / HTTP/9.9\n\n").await;
    client.until("GET / HTTP/9.9\n\n").await;
    let other = served.talk(UPGRADE).await;
    assert!(other.starts_with("HTTP/1.1 503 "), "{other}");
    assert_eq!(served.metrics.open_count(), 1);
    drop(client);
    eventually(|| served.metrics.open_count() == 0).await;
    assert_eq!(served.metrics.cut_count(CutReason::HeaderTimeout), 0);
}

#[tokio::test]
async fn bad_input_24_an_upgraded_connection_whose_peer_takes_nothing_is_cut() {
    let limits = ServerLimits {
        send_rate: RateLimit {
            window: Duration::from_millis(500),
            bytes: 1000,
        },
        ..ServerLimits::default()
    };
    let served = serve_router(limits, mirror()).await;
    let mut client = served.connect().await;
    client.send(UPGRADE).await;
    client.until("\r\n\r\n").await;
    let block = vec![b'x'; 65_536];
    let sending = async { while client.0.write_all(&block).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, sending).await.unwrap();
    assert_eq!(served.metrics.cut_count(CutReason::SlowReader), 1);
    eventually(|| served.metrics.open_count() == 0).await;
}

#[tokio::test]
async fn a_declined_upgrade_closes_since_what_follows_was_not_judged() {
    let served = serve_simple(ServerLimits::default()).await;
    let answer = served
        .talk(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n\
             POST /echo HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn i05_an_answer_whose_body_fails_ends_short_never_clean() {
    let router = Router::new().route(
        "/broken",
        get(|| async {
            let frames = [
                Ok(Bytes::from_static(b"good")),
                Err(std::io::Error::other("no replica left")),
            ];
            Body::from_stream(futures_util::stream::iter(frames))
        }),
    );
    let served = serve_router(ServerLimits::default(), router).await;
    let answer = served.talk("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}
