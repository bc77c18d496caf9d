//! Files put, read, deleted, refused.

use super::*;

#[tokio::test]
async fn a_file_is_put_replaced_read_and_deleted() {
    let site = site().await;
    let bytes_1 = content(2 * CHUNK + 5);
    let headers = [("content-type", "image/png"), ("x-dfs-meta-owner", "me")];
    let response = site.put("/files/d/a%20b", &headers, &bytes_1).await;
    assert_eq!(response.status(), 201);
    let first = header(&response, "etag").to_owned();
    let (status, read) = site.get("/files/d/a%20b").await;
    assert_eq!(status, 200);
    assert!(read == bytes_1);
    let response = site.put("/files/d/a%20b", &[], b"second").await;
    assert_eq!(response.status(), 200);
    assert_ne!(header(&response, "etag"), first);
    assert_eq!(site.get("/files/d/a%20b").await.1, "second");
    assert_eq!(
        site.call("DELETE", "/files/d/a%20b", &[]).await.status(),
        204
    );
    // Documented: 404, and the same on every repetition.
    for _ in 0..2 {
        let response = site.call("DELETE", "/files/d/a%20b", &[]).await;
        assert_eq!(code(response).await, "not-found");
    }
}

#[tokio::test]
async fn bad_input_01_to_10_names_are_judged_alike_on_every_route() {
    let site = site().await;
    for (raw, wanted) in [
        ("..", "invalid-name"),
        ("a/../b", "invalid-name"),
        ("%2e%2e%2fb", "invalid-name"),
        ("a%00", "invalid-name"),
        ("%ff", "invalid-name"),
        ("/a", "invalid-name"),
        ("a//b", "invalid-name"),
        ("", "invalid-name"),
        ("%", "invalid-name"),
        (&"x".repeat(256), "key-too-long"),
    ] {
        for (method, route) in [
            ("GET", "files"),
            ("PUT", "files"),
            ("DELETE", "files"),
            ("GET", "download"),
        ] {
            let response = site.call(method, &format!("/{route}/{raw}"), &[]).await;
            assert_eq!(response.status(), 400, "{method} /{route}/{raw}");
            assert_eq!(code(response).await, wanted, "{method} /{route}/{raw}");
        }
    }
    for raw in [
        ".hidden",
        "dot.",
        "space%20",
        "CON",
        "-rf",
        "%f0%9f%a6%80",
        "e%cc%81",
        "c:%5cx",
    ] {
        assert_eq!(
            site.put(&format!("/files/{raw}"), &[], b"x").await.status(),
            201,
            "{raw}"
        );
        assert_eq!(site.get(&format!("/download/{raw}")).await.1, "x", "{raw}");
    }
    assert_eq!(site.put("/files/a%2fb", &[], b"slash").await.status(), 201);
    assert_eq!(site.get("/files/a/b").await.1, "slash");
    assert_eq!(
        site.put("/files/%252e%252e", &[], b"once").await.status(),
        201
    );
    assert!(site.tracker.names().contains(&"%2e%2e".to_owned()));
}

#[tokio::test]
async fn bad_input_19_a_body_over_the_limit_is_refused() {
    let site = site().await;
    // Declared: before a byte is read.
    let declared = site.put("/files/a", &[], &content(4 * CHUNK + 1)).await;
    assert_eq!(code(declared).await, "too-large");
    let pieces: Vec<_> = (0..30)
        .map(|_| Ok::<_, std::io::Error>(vec![0; 65_536]))
        .collect();
    let endless = Body::from_stream(futures_util::stream::iter(pieces));
    let discovered = site.send(request("PUT", "/files/a", &[], endless)).await;
    assert_eq!(code(discovered).await, "too-large");
    assert!(site.tracker.names().is_empty());
}

#[tokio::test]
async fn fault_23_a_body_that_breaks_off_leaves_nothing() {
    let site = site().await;
    let pieces = [
        Ok(vec![1; 70_000]),
        Err(std::io::Error::other("the client is gone")),
    ];
    let broken = Body::from_stream(futures_util::stream::iter(pieces));
    let response = site.send(request("PUT", "/files/a", &[], broken)).await;
    assert_eq!(code(response).await, "incomplete-body");
    assert!(site.tracker.names().is_empty());
}

#[tokio::test]
async fn fault_05_a_file_whose_datanodes_are_gone_is_unavailable_not_absent() {
    let site = site().await;
    site.put("/files/a", &[], b"x").await;
    for datanode in 0..4 {
        site.chain.kill(datanode);
    }
    let response = site.call("GET", "/files/a", &[]).await;
    assert_ne!(header(&response, "retry-after"), "");
    assert_eq!(code(response).await, "data-unavailable");
}
