//! Ranges, conditions, digests and HEAD.

use super::*;

#[tokio::test]
async fn bad_input_38_head_has_the_headers_of_get_and_no_body() {
    let site = site().await;
    let headers = [
        ("content-type", "text/html"),
        ("content-encoding", "gzip"),
        ("x-dfs-meta-owner", "me"),
    ];
    site.put("/files/a", &headers, b"hello").await;
    let get = site.call("GET", "/files/a", &[]).await;
    let head = site.call("HEAD", "/files/a", &[]).await;
    for name in [
        "etag",
        "last-modified",
        "accept-ranges",
        "content-type",
        "content-encoding",
        "content-length",
        "content-disposition",
        "x-content-type-options",
        "x-amz-checksum-crc64nvme",
        "x-dfs-meta-owner",
    ] {
        assert_ne!(header(&get, name), "", "{name}");
        assert_eq!(header(&get, name), header(&head, name), "{name}");
    }
    // A page of ours must not come out of a file.
    assert!(header(&get, "content-disposition").starts_with("attachment"));
    assert!(bytes(head).await.is_empty());
    assert_eq!(bytes(get).await, "hello");
    let absent = site.call("HEAD", "/files/absent", &[]).await;
    assert_eq!(absent.status(), 404);
}

#[tokio::test]
async fn bad_input_29_to_32_ranges_over_http() {
    let site = site().await;
    let whole = content(CHUNK + 10);
    site.put("/files/a", &[], &whole).await;
    site.put("/files/empty", &[], b"").await;
    let length = CHUNK + 10;
    for (range, status, content_range, from, to) in [
        ("bytes=0-0", 206, format!("bytes 0-0/{length}"), 0, 1),
        (
            "bytes=-5",
            206,
            format!("bytes {}-{}/{length}", length - 5, length - 1),
            length - 5,
            length,
        ),
        (
            "bytes=7-",
            206,
            format!("bytes 7-{}/{length}", length - 1),
            7,
            length,
        ),
        ("bytes=5-3", 200, String::new(), 0, length),
        ("bytes=0-1,3-4", 200, String::new(), 0, length),
        ("lines=0-1", 200, String::new(), 0, length),
    ] {
        let response = site.call("GET", "/files/a", &[("range", range)]).await;
        assert_eq!(response.status(), status, "{range}");
        assert_eq!(header(&response, "content-range"), content_range);
        assert_eq!(header(&response, "content-length"), (to - from).to_string());
        let part = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        assert!(bytes(response).await == whole[part], "{range}");
    }
    for (uri, range) in [
        ("/files/a", format!("bytes={length}-")),
        ("/files/a", "bytes=-0".into()),
        ("/files/empty", "bytes=0-0".into()),
    ] {
        let response = site.call("GET", uri, &[("range", &range)]).await;
        assert_eq!(response.status(), 416, "{range}");
        assert!(header(&response, "content-range").starts_with("bytes */"));
    }
    let (status, read) = site.get("/files/empty").await;
    assert_eq!((status.as_u16(), read.len()), (200, 0));
}

#[tokio::test]
async fn bad_input_33_and_34_conditions_over_http() {
    let site = site().await;
    let absent = ("if-none-match", "*");
    let first = site.put("/files/a", &[absent], b"1").await;
    assert_eq!(first.status(), 201);
    let etag = header(&first, "etag").to_owned();
    let again = site.put("/files/a", &[absent], b"2").await;
    assert_eq!(code(again).await, "precondition-failed");
    let stale = ("if-match", "\"0000000000000000-0000000000000001\"");
    assert_eq!(site.put("/files/a", &[stale], b"2").await.status(), 412);
    assert_eq!(
        site.call("DELETE", "/files/a", &[stale]).await.status(),
        412
    );
    assert_eq!(site.call("GET", "/files/a", &[stale]).await.status(), 412);
    let known = ("if-none-match", etag.as_str());
    let unchanged = site.call("GET", "/files/a", &[known]).await;
    assert_eq!(
        (unchanged.status().as_u16(), header(&unchanged, "etag")),
        (304, etag.as_str())
    );
    let range = [("range", "bytes=0-0"), ("if-range", stale.1)];
    assert_eq!(site.call("GET", "/files/a", &range).await.status(), 200);
    let fresh = ("if-match", etag.as_str());
    assert_eq!(site.put("/files/a", &[fresh], b"2").await.status(), 200);
    assert_eq!(site.put("/files/a", &[fresh], b"3").await.status(), 412);
    let form = [("content-type", FORM), absent];
    let body = part("name=\"file\"; filename=\"a\"", "x") + "--X--";
    let response = site
        .send(request("POST", "/upload", &form, body.into()))
        .await;
    assert_eq!(response.status(), 412);
    assert_eq!(site.get("/files/a").await.1, "2");
}

#[tokio::test]
async fn bad_input_27_digests_over_http() {
    let site = site().await;
    for (name, value, wanted) in [
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==", "stored"),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkh==", "invalid-digest"),
        ("content-md5", "AUFAKrxLKna5cZ2REBfFkg==", "bad-digest"),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=", "bad-digest"),
        ("x-amz-checksum-sha1", "AAAA", "invalid-digest"),
        ("content-digest", "sha-256=:AA==:", "invalid-digest"),
    ] {
        let response = site.put("/files/a", &[(name, value)], b"hello").await;
        if wanted == "stored" {
            assert_eq!(response.status(), 201);
            let get = site.call("GET", "/files/a", &[]).await;
            assert_eq!(header(&get, "repr-digest"), format!("md5=:{value}:"));
            site.call("DELETE", "/files/a", &[]).await;
        } else {
            assert_eq!(code(response).await, wanted, "{name}: {value}");
        }
        assert!(site.tracker.names().is_empty());
    }
}
