//! Rows 1-11: names, on every route alike.

use crate::site::{Site, assert_problem, assert_raw_problem, encode, site};

/// The name is refused by everything that takes one.
async fn refused_everywhere(site: &Site, raw: &str, code: &str) {
    for (method, route) in [
        ("PUT", "/files/"),
        ("GET", "/files/"),
        ("HEAD", "/files/"),
        ("DELETE", "/files/"),
        ("GET", "/download/"),
    ] {
        let what = format!("{method} {route}{raw}");
        let reply = site
            .ask(method, &format!("{route}{raw}"), &[], "content")
            .await;
        if method == "HEAD" {
            assert_eq!(reply.status, 400, "{what}");
            assert!(reply.body.is_empty(), "{what}");
        } else {
            assert_problem(&reply, 400, code, &what);
        }
    }
    for verb in ["copy-from", "move-from"] {
        let to = site
            .ask("POST", &format!("/files/{raw}?{verb}=absent"), &[], "")
            .await;
        let from = site
            .ask("POST", &format!("/files/target?{verb}={raw}"), &[], "")
            .await;
        assert_eq!(
            (to.status.as_u16(), from.status.as_u16()),
            (400, 400),
            "{raw}"
        );
    }
    let chunks = site
        .ask("GET", &format!("/chunks?file={raw}"), &[], "")
        .await;
    assert_eq!(chunks.status, 400, "/chunks?file={raw}");
}

/// The name is refused as a form's file name. `raw` is what stands between the quotes.
async fn refused_in_forms(site: &Site, raw: &[u8], code: &str) {
    let reply = form(site, raw, b"content").await;
    let what = format!("upload of {}", String::from_utf8_lossy(raw));
    assert_problem(&reply, 400, code, &what);
}

async fn form(site: &Site, name: &[u8], content: &[u8]) -> dfs_e2e::http::Reply {
    let mut body = b"--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"".to_vec();
    body.extend_from_slice(name);
    body.extend_from_slice(b"\"\r\n\r\n");
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--X--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=X")];
    site.ask("POST", "/upload", &headers, body).await
}

/// The name comes back byte for byte, however it was stored.
async fn kept(site: &Site, name: &str) {
    let uri = encode(name);
    let content = format!("content of {name}");
    site.store.put(&uri, content.clone()).await;
    assert_eq!(site.store.get(&uri).await, content, "{name:?}");
    let read = site.ask("GET", &format!("/download/{uri}"), &[], "").await;
    assert_eq!(read.text(), content, "{name:?}");
    let listed = site.names(&uri).await;
    assert!(listed.contains(&name.to_owned()), "{name:?} in {listed:?}");
    site.store.delete(&uri).await;
    // The same through a form: quotes, as browsers and curl write them.
    let quoted = name.replace('"', "%22");
    let reply = form(site, quoted.as_bytes(), content.as_bytes()).await;
    assert_eq!(reply.status, 201, "{name:?}: {}", reply.text());
    assert_eq!(reply.json::<serde_json::Value>()["path"], name);
    assert_eq!(site.store.get(&uri).await, content, "{name:?}");
    site.store.delete(&uri).await;
}

#[tokio::test]
async fn bad_input_01_dot_segments_are_refused_on_every_route() {
    let site = site();
    for raw in [
        "..",
        ".",
        "a/../b",
        "./a",
        "a/..",
        "a/./b",
        "../../etc/passwd",
    ] {
        refused_everywhere(&site, raw, "invalid-name").await;
        refused_in_forms(&site, raw.as_bytes(), "invalid-name").await;
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_02_escaped_dots_and_slashes_are_decoded_once_before_the_check() {
    let site = site();
    for raw in [
        "%2e%2e%2f",
        "%2e%2e",
        "a%2f%2e%2e%2fb",
        "%2E%2E/x",
        "a/.%2e/b",
    ] {
        refused_everywhere(&site, raw, "invalid-name").await;
    }
    site.store.put("n02%2Fslash", "x").await;
    assert_eq!(site.store.get("n02/slash").await, "x");
    assert_eq!(site.names("n02").await, ["n02/slash"]);
    site.works().await;
}

#[tokio::test]
async fn bad_input_03_double_escapes_are_literal() {
    let site = site();
    site.store.put("n03-%252e%252e", "x").await;
    assert_eq!(site.names("n03-").await, ["n03-%2e%2e"]);
    kept(&site, "n03 %2e%2e%2f").await;
    kept(&site, "n03 %00").await;
}

#[tokio::test]
async fn bad_input_04_control_bytes_are_refused_on_every_route() {
    let site = site();
    for raw in [
        "a%00b",
        "%00",
        "a%0d%0aSet-Cookie:x",
        "a%0ab",
        "a%7f",
        "a%1b[31m",
        "a%c2%85",
    ] {
        refused_everywhere(&site, raw, "invalid-name").await;
    }
    for raw in [&b"a\0b"[..], b"a%0D%0Ab", b"a\x1b[31m", b"a\x7f", b"a\tb"] {
        refused_in_forms(&site, raw, "invalid-name").await;
    }
    // As raw bytes they do not even get past the request line.
    for byte in [0_u8, 1, 0x1b, 0x7f] {
        let mut request = b"GET /files/a".to_vec();
        request.push(byte);
        request.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let reply = site.raw(request).await;
        assert_eq!(reply.status(), Some(400), "{byte}: {}", reply.text());
        assert_eq!(reply.answers(), 1);
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_05_what_is_not_utf8_is_refused_on_every_route() {
    let site = site();
    for raw in [
        "%ff",
        "a%c3",
        "%c0%af",
        "%e0%80%af",
        "%f8%88%80%80%80",
        "%ed%a0%80",
    ] {
        refused_everywhere(&site, raw, "invalid-name").await;
    }
    for raw in [&b"a\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80"] {
        refused_in_forms(&site, raw, "invalid-name").await;
    }
    // A URI is ASCII: raw bytes of UTF-8 are taken as they are, or refused; never a crash.
    let request = b"PUT /files/n05-\xff HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert_eq!(site.raw(request).await.status(), Some(400));
    assert!(site.names("n05-").await.is_empty());
    for raw in ["%", "%z", "a%4"] {
        refused_everywhere(&site, raw, "invalid-name").await;
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_06_empty_segments_are_refused_and_backslashes_are_literal() {
    let site = site();
    for raw in ["/a", "//", "a//b", "%2Fetc/passwd"] {
        refused_everywhere(&site, raw, "invalid-name").await;
        let decoded = raw.replace("%2F", "/");
        refused_in_forms(&site, decoded.as_bytes(), "invalid-name").await;
    }
    for (method, uri) in [
        ("PUT", "/files/a/"),
        ("GET", "/files/a/"),
        ("GET", "/download/a/"),
    ] {
        let reply = site.ask(method, uri, &[], "x").await;
        assert_problem(&reply, 400, "invalid-name", uri);
    }
    for name in ["n06\\b", "n06 C:\\x", "n06 C:x", "..\\n06"] {
        let uri = encode(name);
        site.store.put(&uri, "x").await;
        assert!(site.names(&uri).await.contains(&name.to_owned()));
        assert_eq!(
            site.ask("GET", &format!("/download/{uri}"), &[], "")
                .await
                .text(),
            "x"
        );
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_07_an_empty_name_is_no_listing_by_accident() {
    let site = site();
    for (method, uri) in [
        ("GET", "/files"),
        ("GET", "/files/"),
        ("PUT", "/files/"),
        ("DELETE", "/files/"),
        ("GET", "/download/"),
    ] {
        let reply = site.ask(method, uri, &[], "x").await;
        assert_problem(&reply, 400, "invalid-name", uri);
    }
    refused_in_forms(&site, b"", "invalid-name").await;
    assert_eq!(site.ask("PUT", "/files", &[], "x").await.status, 405);
    assert_eq!(site.ask("GET", "/download", &[], "").await.status, 404);
    site.works().await;
}

#[tokio::test]
async fn bad_input_08_lengths_are_limited_in_bytes() {
    let site = site();
    let segment = |bytes: usize| format!("n08{}", "x".repeat(bytes - 3));
    // Four segments and three slashes make 1023 bytes; a fifth of none is refused, so pad one.
    let key = |bytes: usize| {
        let tail = bytes - 4 * 200 - 4;
        format!("{0}/{0}/{0}/{0}/{1}", segment(200), "y".repeat(tail))
    };
    for name in [segment(255), key(1024), format!("n08{}", "é".repeat(126))] {
        kept(&site, &name).await;
    }
    for name in [segment(256), key(1025), format!("n08{}é", "é".repeat(126))] {
        refused_everywhere(&site, &encode(&name), "key-too-long").await;
        refused_in_forms(&site, name.as_bytes(), "key-too-long").await;
    }
    assert!(site.names("n08").await.is_empty());
    site.works().await;
}

#[tokio::test]
async fn bad_input_09_legal_names_that_look_odd_are_kept() {
    let site = site();
    for name in [
        ".n09", "n09.", "n09 ", " n09", "n09/...", "CON", "nul.txt", "-rf", "--", "~", "n09*?",
        "n09?list",
    ] {
        kept(&site, name).await;
    }
}

#[tokio::test]
async fn bad_input_10_names_are_byte_exact_and_never_normalised() {
    let site = site();
    let names = [
        "n10-caf\u{e9}",
        "n10-cafe\u{301}",
        "n10-\u{200f}rtl",
        "n10-\u{202e}evil",
        "n10-a\u{200b}b",
        "n10-ab",
        "n10-\u{1f980}",
        "n10-\u{212b}",
        "n10-\u{c5}",
        "n10-\u{feff}",
        "n10-\u{10ffff}",
    ];
    for name in names {
        kept(&site, name).await;
    }
    for name in names {
        site.store.put(&encode(name), name).await;
    }
    let mut wanted: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    wanted.sort();
    assert_eq!(site.names("n10-").await, wanted);
    for name in names {
        assert_eq!(site.store.get(&encode(name)).await, name);
    }
}

#[tokio::test]
async fn bad_input_11_a_download_quotes_the_name_and_runs_nowhere() {
    let site = site();
    for (name, wanted) in [
        (
            "n11 plain",
            "attachment; filename=\"n11 plain\"; filename*=UTF-8''n11%20plain",
        ),
        (
            "n11\";x=\"y",
            "attachment; filename=\"n11\\\";x=\\\"y\"; filename*=UTF-8''n11%22%3Bx%3D%22y",
        ),
        (
            "n11é",
            "attachment; filename=\"n11_\"; filename*=UTF-8''n11%C3%A9",
        ),
        (
            "n11%0d%0a",
            "attachment; filename=\"n11_0d_0a\"; filename*=UTF-8''n11%250d%250a",
        ),
        (
            "dir/n11",
            "attachment; filename=\"n11\"; filename*=UTF-8''n11",
        ),
    ] {
        let uri = encode(name);
        site.store.put(&uri, "x").await;
        for asked in [
            format!("/download/{uri}"),
            format!("/files/{uri}?download=1"),
        ] {
            let reply = site.ask("GET", &asked, &[], "").await;
            assert_eq!(reply.status, 200, "{asked}");
            assert_eq!(reply.header("content-disposition"), wanted);
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
        }
    }
    for media in [
        "text/html",
        "image/svg+xml",
        "application/xhtml+xml",
        "TEXT/HTML; charset=x",
    ] {
        site.ask(
            "PUT",
            "/files/n11.html",
            &[("content-type", media)],
            "<script>",
        )
        .await;
        let reply = site.store.try_get("n11.html").await.unwrap();
        assert_eq!(reply.header("content-type"), media);
        assert!(
            reply
                .header("content-disposition")
                .starts_with("attachment;"),
            "{media}"
        );
        assert!(reply.header("content-security-policy").contains("sandbox"));
    }
    // No header of an upload can become two headers of a download.
    let request = "PUT /files/n11-split HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\
        Content-Type: text/plain\rSet-Cookie: a=b\r\nConnection: close\r\n\r\nx";
    assert_raw_problem(&site.raw(request).await, 400, "bad-request", "a stray CR");
    site.works().await;
}
