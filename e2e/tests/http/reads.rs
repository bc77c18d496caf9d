//! Rows 20, 29-33: parts of files, conditions, empty files.

use crate::site::{CHUNK, Site, assert_problem, site};

/// A file of several chunks whose every byte tells its place.
fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from(at * 7 % 251).unwrap())
        .collect()
}

#[tokio::test]
async fn bad_input_20_a_zero_byte_file_is_a_file() {
    let site = site();
    let stored = site.store.put("r20", "").await;
    assert_eq!((stored.size, stored.chunks), (0, 0));
    let read = site.store.try_get("r20").await.unwrap();
    assert_eq!((read.status.as_u16(), read.body.len()), (200, 0));
    assert_eq!(read.header("content-length"), "0");
    for range in ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0"] {
        let reply = site.ask("GET", "/files/r20", &[("range", range)], "").await;
        assert_problem(&reply, 416, "range-not-satisfiable", range);
        assert_eq!(reply.header("content-range"), "bytes */0");
    }
    let form = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"r20-form\"\r\n\r\n\r\n--X--";
    let headers = [("content-type", "multipart/form-data; boundary=X")];
    assert_eq!(
        site.ask("POST", "/upload", &headers, form).await.status,
        201
    );
    assert_eq!(
        site.ask("GET", "/download/r20-form", &[], "")
            .await
            .body
            .len(),
        0
    );
}

#[tokio::test]
async fn bad_input_29_ranges_are_exact_at_every_edge() {
    let site = site();
    let all = 2 * CHUNK + 1000;
    let bytes = content(all);
    site.store.put("r29", bytes.clone()).await;
    let mut ranges = vec![
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=-5".to_owned(), all - 5..all),
        ("bytes=5-".to_owned(), 5..all),
        (format!("bytes={}-", all - 1), all - 1..all),
        (format!("bytes=0-{}", u64::MAX), 0..all),
        (format!("bytes=-{}", u64::MAX), 0..all),
        ("Bytes=0-9".to_owned(), 0..10),
    ];
    for edge in [65_536, CHUNK, 2 * CHUNK] {
        for (first, last) in [
            (edge - 1, edge - 1),
            (edge, edge),
            (edge - 1, edge),
            (edge, edge + 1),
            (1, edge),
        ] {
            ranges.push((format!("bytes={first}-{last}"), first..last + 1));
        }
    }
    for (range, wanted) in ranges {
        for uri in ["/files/r29", "/download/r29"] {
            let reply = site.ask("GET", uri, &[("range", &range)], "").await;
            assert_eq!(reply.status, 206, "{range}");
            assert!(reply.body == bytes[wanted.clone()], "{range}");
            let said = format!("bytes {}-{}/{all}", wanted.start, wanted.end - 1);
            assert_eq!(reply.header("content-range"), said);
            assert_eq!(reply.header("content-length"), wanted.len().to_string());
            assert_eq!(reply.header("accept-ranges"), "bytes");
        }
    }
    // HEAD knows no ranges.
    let head = site
        .ask("HEAD", "/files/r29", &[("range", "bytes=0-0")], "")
        .await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, all.to_string().as_str())
    );
    site.works().await;
}

#[tokio::test]
async fn bad_input_30_ranges_without_a_byte_are_416() {
    let site = site();
    site.store.put("r30", "0123456789").await;
    for range in [
        "bytes=10-",
        "bytes=10-20",
        "bytes=-0",
        "bytes=18446744073709551615-",
        "bytes=99999999999999999999999-",
    ] {
        for uri in ["/files/r30", "/download/r30"] {
            let reply = site.ask("GET", uri, &[("range", range)], "").await;
            assert_problem(&reply, 416, "range-not-satisfiable", range);
            assert_eq!(reply.header("content-range"), "bytes */10");
        }
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_31_ranges_that_make_no_sense_are_ignored() {
    let site = site();
    site.store.put("r31", "0123456789").await;
    for range in [
        "bytes=5-2",
        "bytes=",
        "bytes=-",
        "bytes",
        "",
        "5-9",
        "lines=0-1",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=1-2-3",
        "bytes=--5",
        "bytes=+1-2",
        "bytes:0-1",
        "bytes=1 - 2",
        "bytes==0-1",
        "none",
    ] {
        let reply = site.ask("GET", "/files/r31", &[("range", range)], "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str()),
            (200, "0123456789"),
            "{range:?}"
        );
        assert_eq!(reply.header("content-range"), "");
    }
}

#[tokio::test]
async fn bad_input_32_a_thousand_ranges_are_the_whole_file_once() {
    let site = site();
    site.store.put("r32", "0123456789").await;
    let many = format!("bytes={}", vec!["0-9"; 1000].join(","));
    for range in [many.as_str(), "bytes=0-1,3-4", "bytes=0-0,-1"] {
        let reply = site.ask("GET", "/files/r32", &[("range", range)], "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str()),
            (200, "0123456789")
        );
    }
}

#[tokio::test]
async fn bad_input_33_stale_conditions_of_reads() {
    let site = site();
    site.store.put("r33", "old").await;
    let old = site
        .store
        .try_get("r33")
        .await
        .unwrap()
        .header("etag")
        .to_owned();
    site.store.put("r33", "0123456789").await;
    let read = site.store.try_get("r33").await.unwrap();
    let (etag, modified) = (
        read.header("etag").to_owned(),
        read.header("last-modified").to_owned(),
    );
    assert_ne!(etag, old);
    assert!(
        etag.starts_with('"') && etag.len() != 34,
        "strong and never an MD5: {etag}"
    );
    let weak = format!("W/{etag}");
    let (long_ago, far_off) = (
        "Mon, 01 Jan 2001 00:00:00 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    );
    let list = format!("\"x\", {etag}");
    let cases: &[(&str, &str, u16)] = &[
        ("if-match", &etag, 200),
        ("if-match", "*", 200),
        ("if-match", &list, 200),
        ("if-match", &old, 412),
        ("if-match", &weak, 412),
        ("if-none-match", &etag, 304),
        ("if-none-match", &weak, 304),
        ("if-none-match", "*", 304),
        ("if-none-match", &list, 304),
        ("if-none-match", &old, 200),
        ("if-modified-since", &modified, 304),
        ("if-modified-since", far_off, 304),
        ("if-modified-since", long_ago, 200),
        ("if-modified-since", "nonsense", 200),
        ("if-unmodified-since", long_ago, 412),
        ("if-unmodified-since", &modified, 200),
    ];
    for (name, value, status) in cases {
        for method in ["GET", "HEAD"] {
            for uri in ["/files/r33", "/download/r33"] {
                let reply = site.ask(method, uri, &[(name, value)], "").await;
                assert_eq!(reply.status.as_u16(), *status, "{method} {name}: {value}");
                if *status == 304 {
                    assert!(reply.body.is_empty());
                    assert_eq!(reply.header("etag"), etag);
                }
            }
        }
    }
    // What is no tag is refused, also beside a condition that fails.
    for headers in [
        &[("if-none-match", "nonsense")][..],
        &[("if-match", "nonsense")],
        &[("if-match", &old), ("if-none-match", "nonsense")],
    ] {
        let reply = site.ask("GET", "/files/r33", headers, "").await;
        assert_problem(&reply, 400, "bad-request", &format!("{headers:?}"));
    }
    if_range(&site, &etag, &modified, &[&old, &weak, long_ago, far_off]).await;
    site.works().await;
}

/// A range counts only for the version, or the very date, that `If-Range` names.
async fn if_range(site: &Site, etag: &str, modified: &str, stale: &[&str]) {
    let fresh = [(etag, 206), (modified, 206), ("nonsense", 200), ("", 200)];
    let stale = stale.iter().map(|value| (*value, 200));
    for (value, status) in fresh.into_iter().chain(stale) {
        let headers = [("range", "bytes=2-3"), ("if-range", value)];
        let reply = site.ask("GET", "/files/r33", &headers, "").await;
        assert_eq!(reply.status.as_u16(), status, "if-range: {value}");
        let wanted = if status == 206 { "23" } else { "0123456789" };
        assert_eq!(reply.text(), wanted);
    }
}
