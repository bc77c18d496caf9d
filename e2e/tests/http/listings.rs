//! Rows 40, 41: listings, parameters, JSON.

use crate::site::{assert_problem, site};

#[tokio::test]
async fn bad_input_40_cursors_are_opaque_bounded_and_good_for_one_listing() {
    let site = site();
    for n in 0..5 {
        site.store.put(&format!("l40/{n}"), "x").await;
        site.store.put(&format!("l40-other/{n}"), "x").await;
    }
    let page: serde_json::Value = site
        .ask("GET", "/files/l40/?list&limit=2", &[], "")
        .await
        .ok()
        .json();
    assert_eq!(page["entries"].as_array().unwrap().len(), 2);
    let cursor = page["cursor"].as_str().unwrap();
    let mut flipped = cursor.to_owned().into_bytes();
    flipped[3] = if flipped[3] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for (uri, what) in [
        (
            format!("/files/l40-other/?list&cursor={cursor}"),
            "of another prefix",
        ),
        (
            format!("/files/l40/?list&delimiter=/&cursor={cursor}"),
            "of another kind",
        ),
        (
            format!("/files/l40/?list&cursor={flipped}"),
            "with a bit flipped",
        ),
        (
            format!("/files/l40/?list&cursor={}", &cursor[1..]),
            "cut short",
        ),
        ("/files/l40/?list&cursor=".to_owned(), "empty"),
        ("/files/l40/?list&cursor=AAAA".to_owned(), "made up"),
        (
            format!("/files/l40/?list&cursor={}", "A".repeat(7000)),
            "very long",
        ),
        ("/trash?cursor=AAAA".to_owned(), "of the trash, made up"),
    ] {
        let reply = site.ask("GET", &uri, &[], "").await;
        assert_problem(&reply, 400, "invalid-cursor", what);
    }
    let next = site
        .ask(
            "GET",
            &format!("/files/l40/?list&limit=2&cursor={cursor}"),
            &[],
            "",
        )
        .await
        .ok();
    let next: serde_json::Value = next.json();
    assert_eq!(next["entries"][0]["path"], "l40/2");
    site.works().await;
}

#[tokio::test]
async fn bad_input_40_limits_are_numbers_above_zero_and_clamped() {
    let site = site();
    for limit in ["0", "-1", "", "x", "1.5", "+1", "1e3", "%00", "0x10"] {
        for uri in [
            format!("/files?list&limit={limit}"),
            format!("/trash?limit={limit}"),
        ] {
            let reply = site.ask("GET", &uri, &[], "").await;
            assert_problem(&reply, 400, "invalid-parameter", &uri);
        }
    }
    for limit in [
        "1000000000",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        assert_eq!(
            site.ask("GET", &format!("/files?list&limit={limit}"), &[], "")
                .await
                .status,
            200
        );
        assert_eq!(
            site.ask("GET", &format!("/trash?limit={limit}"), &[], "")
                .await
                .status,
            200
        );
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_40_parameters_that_do_not_fit_are_refused() {
    let site = site();
    for uri in [
        "/files?list&list",
        "/files?list=maybe",
        "/files?list&factor=3",
        "/files?list&delimiter=x",
        "/files/l40/0?append",
        "/files/l40/0?download=maybe",
        "/status?x",
        "/nodes?x=1",
        "/fsck?a",
        "/download/l40/0?x",
        "/files?list&prefix=%ff",
        "/files?list&prefix=%",
        "/register",
        "/register?port=x",
        "/register?port=65536",
        "/register?port=-1",
    ] {
        let reply = site.ask("GET", uri, &[], "").await;
        assert_problem(&reply, 400, "invalid-parameter", uri);
    }
    site.works().await;
}

#[tokio::test]
async fn bad_input_41_json_that_does_not_fit_is_refused() {
    let site = site();
    let json = [("content-type", "application/json")];
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let deep_field = format!("{{\"datanodes\":{deep}}}");
    let large = format!("{{\"datanodes\":[\"{}\"]}}", "a".repeat(10_000_000));
    let many = format!("{{\"datanodes\":[{}]}}", vec!["\"0\""; 1000].join(","));
    for (body, status, code) in [
        ("", 400, "invalid-json"),
        ("{", 400, "invalid-json"),
        ("null", 400, "invalid-json"),
        ("[]", 400, "invalid-json"),
        ("{}", 400, "invalid-json"),
        ("{\"datanodes\":[],\"more\":1}", 400, "invalid-json"),
        ("{\"datanodes\":[],\"datanodes\":[]}", 400, "invalid-json"),
        ("{\"datanodes\":[\"x\"]}", 400, "invalid-json"),
        ("{\"datanodes\":[1]}", 400, "invalid-json"),
        ("{\"datanodes\":{}}", 400, "invalid-json"),
        ("{\"datanodes\":[]} trailing", 400, "invalid-json"),
        ("{\"datanodes\":[\"\u{0}\"]}", 400, "invalid-json"),
        (&deep, 400, "invalid-json"),
        (&deep_field, 400, "invalid-json"),
        (&many, 400, "invalid-json"),
        (&large, 413, "too-large"),
    ] {
        for uri in ["/ok-to-stop", "/register", "/internal/heartbeat"] {
            // Roles may say more than people.
            if uri == "/internal/heartbeat" && status == 413 {
                continue;
            }
            let shown: String = body.chars().take(50).collect();
            let reply = site.ask("POST", uri, &json, body.to_owned()).await;
            assert_problem(&reply, status, code, &format!("{uri} {shown}"));
        }
    }
    let plain = site
        .ask(
            "POST",
            "/ok-to-stop",
            &[("content-type", "text/plain")],
            "{\"datanodes\":[]}",
        )
        .await;
    assert_problem(&plain, 400, "invalid-json", "not said to be JSON");
    let invalid = site
        .ask("POST", "/ok-to-stop", &json, vec![b'"', 0xff, 0xfe, b'"'])
        .await;
    assert_problem(&invalid, 400, "invalid-json", "not UTF-8");
    for uri in [
        "/internal/call/locate",
        "/internal/call/nothing",
        "/internal/chunk-report",
    ] {
        let reply = site.ask("POST", uri, &json, deep.clone()).await;
        assert!(reply.status.is_client_error(), "{uri}: {}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            "application/problem+json",
            "{uri}"
        );
    }
    site.works().await;
}
