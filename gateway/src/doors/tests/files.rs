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

#[tokio::test]
async fn i17_of_fifty_creations_at_once_exactly_one_wins() {
    let site = site().await;
    let puts = (0..50).map(|n| {
        let body = content(1000 + n);
        let site = &site;
        async move {
            let response = site.put("/files/a", &[("if-none-match", "*")], &body).await;
            (response.status().as_u16(), body)
        }
    });
    let outcomes = futures_util::future::join_all(puts).await;
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(status, _)| *status == 201)
        .collect();
    assert_eq!(winners.len(), 1);
    assert!(
        outcomes
            .iter()
            .all(|(status, _)| [201, 412].contains(status))
    );
    assert!(site.get("/files/a").await.1 == winners[0].1);
}

#[tokio::test]
async fn bad_input_12_a_form_that_is_put_is_stored_as_it_is_under_the_name_of_the_url() {
    let site = site().await;
    let body = part("name=\"file\"; filename=\"other\"", "x") + "--X--";
    let response = site
        .put("/files/a", &[("content-type", FORM)], body.as_bytes())
        .await;
    assert_eq!(response.status(), 201);
    assert_eq!(site.get("/files/a").await.1, body);
    assert_eq!(site.get("/files/other").await.0, 404);
}

#[tokio::test]
async fn bad_input_37_a_deletion_during_a_download_lets_it_end_whole_or_breaks_it() {
    let site = site().await;
    let whole = content(3 * CHUNK);
    site.put("/files/a", &[], &whole).await;
    let mut body = site.call("GET", "/files/a", &[]).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(site.call("DELETE", "/files/a", &[]).await.status(), 204);
    // Not even the replicas stay.
    for datanode in 0..4 {
        site.chain.kill(datanode);
    }
    if let Ok(rest) = body.collect().await {
        assert_eq!(first.len() + rest.to_bytes().len(), whole.len());
    }
    assert_eq!(site.get("/files/a").await.0, 404);
}

#[tokio::test]
async fn bad_input_39_the_host_and_the_form_of_the_uri_change_nothing() {
    let site = site().await;
    site.put("/files/a", &[], b"x").await;
    site.put("/files/b", &[], b"x").await;
    let headers = [
        ("host", "elsewhere"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "javascript"),
        ("forwarded", "for=127.0.0.1;host=evil"),
    ];
    let response = site.call("GET", "http://elsewhere/files/a", &headers).await;
    assert_eq!(response.status(), 200);
    // What we link to is relative: nobody's word on host or scheme gets into an answer.
    let uri = "http://elsewhere/files?list&limit=1";
    let response = site.call("GET", uri, &headers).await;
    assert!(header(&response, "link").starts_with("</files?list&limit=1&cursor="));
    let response = site.put("/files/c", &headers, b"x").await;
    assert_eq!(header(&response, "location"), "/files/c");
}
