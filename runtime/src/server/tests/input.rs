//! Headers that are wrong, too many or too long.

use std::fmt::Write as _;

use dfs_protocol::problem::{ErrorCode, Problem};
use proptest::prelude::*;

use super::*;

fn problem_of(answer: &str) -> Problem {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/problem+json"),
        "{answer}"
    );
    assert!(head.contains("connection: close"), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn bad_input_17_ambiguous_lengths_get_400_and_the_connection_ends() {
    let served = serve_simple(ServerLimits::default()).await;
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 7",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 18446744073709551616",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked",
    ] {
        let answer = served
            .talk(format!(
                "POST /echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\nhello"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
        assert!(problem_of(&answer).is(ErrorCode::BadRequest), "{answer}");
    }
    assert_eq!(served.metrics.malformed_count(ErrorCode::BadRequest), 8);
}

#[tokio::test]
async fn bad_input_16_bytes_behind_the_body_are_a_bad_request_of_their_own() {
    let served = serve_simple(ServerLimits::default()).await;
    let answer = served
        .talk("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello and more\r\n\r\n")
        .await;
    let (first, second) = answer.split_once("helloHTTP/1.1 ").unwrap();
    assert!(first.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(second.starts_with("400 "), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_with_bodies_of_both_kinds_are_answered_in_order() {
    let served = serve_simple(ServerLimits::default()).await;
    let requests = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none\
        \r\nPOST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\ntwo\r\n1;x=y\r\n!\r\n0\r\nT: v\r\n\r\n\
        GET / HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast";
    let check = |answer: String| {
        let bodies: Vec<&str> = answer
            .split("HTTP/1.1 200 OK")
            .skip(1)
            .map(|answer| answer.split_once("\r\n\r\n").unwrap().1)
            .collect();
        assert_eq!(bodies, ["one", "two!", "hello", "last"], "{answer}");
    };
    check(served.talk(requests).await);
    let mut client = served.connect().await;
    client.0.set_nodelay(true).unwrap();
    for byte in requests.as_bytes() {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    check(client.rest().await);
}

#[tokio::test]
async fn bad_input_26_headers_and_uris_over_their_limits_get_431_and_414() {
    let served = serve_simple(ServerLimits::default()).await;
    let with_headers = |count: usize| {
        let mut text = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".to_owned();
        for number in 2..count {
            write!(text, "A{number}: b\r\n").unwrap();
        }
        text + "\r\n"
    };
    let with_uri = |length: usize| {
        let uri = "a".repeat(length - 2);
        format!("GET /?{uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    };
    let with_bytes = |length: usize| {
        let start = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: ";
        format!("{start}{}\r\n\r\n", "a".repeat(length - start.len() - 4))
    };
    for (request, status) in [
        (with_headers(100), "200"),
        (with_headers(101), "431"),
        (with_uri(8 * 1024), "200"),
        (with_uri(8 * 1024 + 1), "414"),
        (with_uri(40 * 1024), "414"),
        (with_bytes(64 * 1024), "200"),
        (with_bytes(64 * 1024 + 1), "431"),
    ] {
        let answer = served.talk(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
    }
    assert_eq!(served.metrics.malformed_count(ErrorCode::UriTooLong), 2);
    assert_eq!(
        served.metrics.malformed_count(ErrorCode::HeadersTooLarge),
        2
    );
}

#[tokio::test]
async fn bad_input_38_wrong_methods_and_unknown_routes_are_problems() {
    let served = serve_simple(ServerLimits::default()).await;
    let talk = async |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        served.talk(request).await
    };
    let answer = talk("DELETE /").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("\r\nallow: GET,HEAD\r\n"), "{answer}");
    assert!(problem_of(&answer).is(ErrorCode::MethodNotAllowed));
    let answer = talk("GET /nowhere").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let problem = problem_of(&answer);
    assert!(
        problem.is(ErrorCode::NotFound) && problem.request_id.len() == 32,
        "{answer}"
    );
    for line in ["TRACE /", "CONNECT example.org:443"] {
        let answer = talk(line).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: GET"), "{answer}");
    }
    let head = talk("HEAD /").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\ncontent-length: 5\r\n"), "{head}");
}

#[tokio::test]
async fn bad_input_39_an_absolute_uri_and_a_forged_peer_change_nothing() {
    let router = Router::new().route(
        "/peer",
        get(|peer: axum::Extension<crate::server::PeerAddr>| async move { peer.0.0.to_string() }),
    );
    let served = serve_router(ServerLimits::default(), router).await;
    let mut client = served.connect().await;
    let own = client.0.local_addr().unwrap().to_string();
    client
        .send(
            "GET http://other.example/peer HTTP/1.1\r\nHost: evil\r\nX-Forwarded-For: 1.2.3.4\r\n\
             Connection: close\r\n\r\n",
        )
        .await;
    let answer = client.rest().await;
    assert!(answer.ends_with(&format!("\r\n\r\n{own}")), "{answer}");
}

#[tokio::test]
async fn bad_input_39_the_client_is_who_a_trusted_proxy_says_and_the_peer_stays_the_peer() {
    let addresses = |peer: axum::Extension<crate::server::PeerAddr>,
                     client: axum::Extension<crate::forwarded::ClientAddr>| async move {
        format!("{} {}", peer.0.0.ip(), client.0.0)
    };
    let router = Router::new().route("/who", get(addresses));
    for (proxies, expected) in [
        ("", "127.0.0.1 127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1 127.0.0.1"),
        ("127.0.0.0/8", "127.0.0.1 9.9.9.9"),
    ] {
        let proxies = proxies.parse().unwrap();
        let served = serve_behind(ServerLimits::default(), router.clone(), proxies).await;
        let answer = served
            .talk(
                "GET /who HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4, 9.9.9.9\r\n\
                 X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n",
            )
            .await;
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");
    }
}

#[tokio::test]
async fn bad_input_18_a_put_without_length_has_an_empty_body() {
    let served = serve_simple(ServerLimits::default()).await;
    let answer = served
        .talk("PUT /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
}

#[test]
fn i32_no_bytes_on_a_connection_stop_the_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limits = ServerLimits {
        header_timeout: Duration::from_millis(20),
        receive_rate: crate::server::RateLimit {
            window: Duration::from_millis(20),
            bytes: 1,
        },
        linger: Duration::from_millis(10),
        ..ServerLimits::default()
    };
    let served = runtime.block_on(serve_simple(limits));
    let token = prop_oneof![
        Just("GET / HTTP/1.1\r\n".to_owned()),
        Just("POST /echo HTTP/1.1\r\n".to_owned()),
        Just("Content-Length: 9\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        Just("Upgrade: x\r\nConnection: upgrade\r\n".to_owned()),
        Just("Expect: 100-continue\r\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("3\r\nabc\r\n".to_owned()),
        Just("0\r\n\r\n".to_owned()),
        ".{0,20}",
    ];
    let messages = proptest::collection::vec(token, 0..12);
    let config = ProptestConfig::with_cases(48);
    proptest::test_runner::TestRunner::new(config)
        .run(&messages, |tokens| {
            runtime.block_on(async {
                let mut client = served.connect().await;
                let _reset = client.0.write_all(tokens.concat().as_bytes()).await;
                let _reset = client.0.shutdown().await;
                client.rest().await;
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        let answer = served
            .talk("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        eventually(|| served.metrics.open_count() == 0).await;
    });
    assert_eq!(served.requests.panic_count(), 0);
}
