//! Rows 15-19, 21, 26, 38, 39: where a request ends, what it may weigh, what it may ask.

use dfs_e2e::http::RawSocket;

use crate::site::{MAX_FILE, WITHIN, assert_problem, assert_raw_problem, site};

/// Every door that takes a body.
fn uploads(name: &str, framing: &str, body: &str) -> [(String, &'static str); 2] {
    let put = format!("PUT /files/{name} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}");
    let post = format!(
        "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=X\r\n{framing}\r\n\r\n\
         --X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{body}"
    );
    [(put, "/files"), (post, "/upload")]
}

#[tokio::test]
async fn bad_input_15_a_body_shorter_than_announced_stores_nothing() {
    let site = site();
    for (request, route) in uploads("w15", "Content-Length: 5000", "only this") {
        let mut socket = RawSocket::connect(&site.address).await.unwrap();
        socket.write(&request).await.unwrap();
        socket.finish().await.unwrap();
        let reply = socket.read(WITHIN).await;
        assert!(reply.closed, "{route}");
        // An answer, if it still comes, is a refusal.
        assert!(
            matches!(reply.status(), None | Some(400)),
            "{route}: {}",
            reply.text()
        );
    }
    // The same in chunks, the last of them missing.
    for body in [
        "5\r\nhello\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n0\r\n",
    ] {
        let request = format!(
            "PUT /files/w15 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        );
        let mut socket = RawSocket::connect(&site.address).await.unwrap();
        socket.write(&request).await.unwrap();
        socket.finish().await.unwrap();
        let reply = socket.read(WITHIN).await;
        assert!(
            matches!(reply.status(), None | Some(400)),
            "{body:?}: {}",
            reply.text()
        );
    }
    assert!(site.names("w15").await.is_empty());
    site.works().await;
}

#[tokio::test]
async fn bad_input_16_bytes_behind_a_body_are_a_request_of_their_own_and_a_bad_one() {
    let site = site();
    let request = "PUT /files/w16 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloworld and more\r\n\r\n";
    let reply = site.raw(request).await;
    assert_eq!(reply.status(), Some(201), "{}", reply.text());
    assert_eq!(reply.answers(), 2, "{}", reply.text());
    assert!(reply.text().contains("HTTP/1.1 400"), "{}", reply.text());
    assert_eq!(site.store.get("w16").await, "hello");
    // A request hidden in a body stays a body.
    let hidden = "DELETE /files/w16 HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = format!(
        "PUT /files/w16-hidden HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    assert_eq!(site.raw(request).await.answers(), 1);
    assert_eq!(site.store.get("w16").await, "hello");
    assert_eq!(site.store.get("w16-hidden").await, hidden);
    site.works().await;
}

#[tokio::test]
async fn bad_input_17_lengths_that_can_be_read_two_ways_end_the_connection() {
    let site = site();
    for framing in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Host: y\r\nContent-Length: 5",
        " Content-Length: 5",
    ] {
        for (request, route) in uploads("w17", framing, "hello\r\n0\r\n\r\n") {
            let reply = site.raw(&request).await;
            assert_raw_problem(&reply, 400, "bad-request", &format!("{route} {framing}"));
            assert_eq!(reply.answers(), 1, "{route} {framing}: {}", reply.text());
        }
    }
    for body in [
        "5;a=b\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello",
        "5\r\nhelloXX0\r\n\r\n",
        "ffffffffffffffffff\r\nhello",
    ] {
        let request = format!(
            "PUT /files/w17 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        );
        let reply = site.raw(&request).await;
        assert_eq!(reply.status(), Some(400), "{body:?}: {}", reply.text());
        assert_eq!(reply.answers(), 1, "{body:?}: {}", reply.text());
    }
    assert!(site.names("w17").await.is_empty());
    site.works().await;
}

#[tokio::test]
async fn bad_input_18_a_put_without_a_length_has_an_empty_body() {
    let site = site();
    let request = "PUT /files/w18 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = site.raw(request).await;
    assert_eq!(reply.status(), Some(201), "{}", reply.text());
    assert_eq!(site.store.get("w18").await, "");
    let request = "POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=X\r\n\r\n";
    assert_raw_problem(
        &site.raw(request).await,
        400,
        "invalid-form",
        "an empty form",
    );
}

#[tokio::test]
async fn bad_input_19_a_body_over_the_limit_is_refused_declared_or_discovered() {
    let site = site();
    // Declared: the answer comes although no byte of the body does.
    let request = format!(
        "PUT /files/w19 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        MAX_FILE + 1
    );
    assert_raw_problem(&site.raw(request).await, 413, "too-large", "declared");
    let mut chunked =
        b"PUT /files/w19 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n", MAX_FILE + 1).as_bytes());
    chunked.resize(chunked.len() + MAX_FILE + 1, b'x');
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_raw_problem(&site.raw(chunked).await, 413, "too-large", "discovered");
    assert!(site.names("w19").await.is_empty());
    // At the limit it is taken.
    let exact = vec![7; MAX_FILE];
    site.store.put("w19", exact.clone()).await;
    assert!(site.store.get("w19").await == exact);
    site.store.delete("w19").await;
    site.works().await;
}

#[tokio::test]
async fn bad_input_21_a_refusal_comes_without_a_100() {
    let site = site();
    let expecting = |line: &str, fields: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n{fields}\r\n"
        )
    };
    site.store.put("w21-there", "x").await;
    for (request, status) in [
        (expecting("PUT /files/a/../b", ""), 400),
        (expecting("PUT /files/w21?x=y", ""), 400),
        (
            expecting("PUT /files/w21-there", "If-None-Match: *\r\n"),
            412,
        ),
        (
            expecting("PUT /files/w21", "Content-MD5: nonsense\r\n"),
            400,
        ),
        (
            expecting("PUT /files/w21", "").replace("10", "99999999999"),
            413,
        ),
        (
            expecting("POST /upload", "Content-Type: text/plain\r\n"),
            400,
        ),
        (expecting("PUT /nowhere", ""), 404),
        (expecting("PATCH /files/w21", ""), 405),
    ] {
        let reply = site.raw(&request).await;
        assert_eq!(reply.status(), Some(status), "{request}: {}", reply.text());
        assert!(!reply.text().contains("100 Continue"), "{request}");
    }
    // What is welcome gets its 100, and then its answer.
    let mut socket = RawSocket::connect(&site.address).await.unwrap();
    let request = expecting("PUT /files/w21", "Connection: close\r\n");
    socket.write(&request).await.unwrap();
    let first = socket.read_some(WITHIN).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 100 Continue\r\n"), "{first:?}");
    socket.write("0123456789").await.unwrap();
    assert_eq!(socket.read(WITHIN).await.status(), Some(201));
    assert_eq!(site.store.get("w21").await, "0123456789");
}

#[tokio::test]
async fn bad_input_26_headers_and_uris_over_their_limits() {
    let site = site();
    let get = |uri: &str, fields: &str| {
        format!("GET {uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
    };
    let many = |count: usize| "X-Many: y\r\n".repeat(count);
    let cases = [
        (
            get("/status", &many(101)),
            431,
            "headers-too-large",
            "101 lines",
        ),
        (
            get("/status", &many(5000)),
            431,
            "headers-too-large",
            "5000 lines",
        ),
        (
            get("/status", &format!("X: {}\r\n", "y".repeat(70_000))),
            431,
            "headers-too-large",
            "64 KiB",
        ),
        (
            get(&format!("/files/{}", "x".repeat(8200)), ""),
            414,
            "uri-too-long",
            "8 KiB",
        ),
        (
            get(&format!("/status?{}", "x".repeat(100_000)), ""),
            414,
            "uri-too-long",
            "100 KB",
        ),
    ];
    for (request, status, code, what) in cases {
        let reply = site.raw(&request).await;
        assert_raw_problem(&reply, status, code, what);
    }
    let fine = site.raw(get("/status", &many(90))).await;
    assert_eq!(fine.status(), Some(200), "{}", fine.text());
    let metadata = "y".repeat(9000);
    let reply = site
        .ask("PUT", "/files/w26", &[("x-dfs-meta-a", &metadata)], "x")
        .await;
    assert_problem(&reply, 431, "headers-too-large", "user metadata");
    assert!(site.names("w26").await.is_empty());
    site.works().await;
}

#[tokio::test]
async fn bad_input_38_methods_and_routes_that_do_not_exist() {
    let site = site();
    site.store.put("w38", "content").await;
    for (method, uri) in [
        ("PATCH", "/files/w38"),
        ("OPTIONS", "/files/w38"),
        ("BREW", "/files/w38"),
        ("PUT", "/upload"),
        ("GET", "/upload"),
        ("POST", "/download/w38"),
        ("DELETE", "/download/w38"),
        ("POST", "/status"),
        ("DELETE", "/"),
        ("GET", "/ok-to-stop"),
        ("TRACE", "/files/w38"),
    ] {
        let reply = site.ask(method, uri, &[], "").await;
        assert_problem(
            &reply,
            405,
            "method-not-allowed",
            &format!("{method} {uri}"),
        );
        assert!(!reply.header("allow").is_empty(), "{method} {uri}");
    }
    for uri in [
        "/nowhere",
        "/filesystem",
        "/files2/x",
        "/Files/w38",
        "//files/w38",
        "/upload/",
        "/status/x",
    ] {
        let reply = site.ask("GET", uri, &[], "").await;
        assert_problem(&reply, 404, "not-found", uri);
    }
    let reply = site
        .raw("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_raw_problem(&reply, 405, "method-not-allowed", "CONNECT");
    // HEAD: the headers of GET, and no body; twice on one connection, to see that none was sent.
    for uri in ["/files/w38", "/download/w38"] {
        let head = format!("HEAD {uri} HTTP/1.1\r\nHost: x\r\n\r\n");
        let close = format!("HEAD {uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let reply = site.raw(head + &close).await;
        assert_eq!(reply.answers(), 2, "{}", reply.text());
        assert_eq!(
            reply.text().matches("content-length: 7").count(),
            2,
            "{}",
            reply.text()
        );
        assert!(!reply.text().contains("content\r\n") && !reply.text().ends_with("content"));
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_39_host_absolute_uris_and_forwarded_names_change_nothing() {
    let site = site();
    site.store.put("w39", "content").await;
    for (uri, fields) in [
        ("/files/w39", "Host: evil.example\r\n"),
        ("/files/w39", "Host: \r\n"),
        ("http://evil.example/files/w39", "Host: x\r\n"),
        ("http://evil.example:1/files/w39", "Host: other\r\n"),
        (
            "/files/w39",
            "Host: x\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Host: evil\r\n",
        ),
    ] {
        let request = format!("GET {uri} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        let reply = site.raw(&request).await;
        assert_eq!(reply.status(), Some(200), "{request}: {}", reply.text());
        assert!(reply.text().ends_with("content"));
        assert!(!reply.text().contains("evil"), "{}", reply.text());
    }
    // The datanode that registers is looked for where the connection comes from, whatever is claimed.
    let port = site.address.rsplit(':').next().unwrap();
    let headers = [("x-forwarded-for", "192.0.2.1")];
    let reply = site
        .ask("GET", &format!("/register?port={port}"), &headers, "")
        .await;
    assert!(!reply.text().contains("192.0.2.1"), "{}", reply.text());
    assert_eq!(reply.status, 503, "a tracker is no datanode");
    site.works().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let site = site();
    for n in 0..5 {
        site.store
            .put(&format!("pipe-{n}"), format!("number {n}."))
            .await;
    }
    let gets = (0..5).map(|n| format!("GET /files/pipe-{n} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut text = gets.collect::<Vec<_>>().concat();
    text += "GET /files/absent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = site.raw(text).await;
    assert_eq!(reply.answers(), 6);
    let text = reply.text();
    let places: Vec<_> = (0..5)
        .map(|n| text.find(&format!("number {n}.")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{text}");
}
