//! I6 and rows 27, 28: what arrives is what was announced, and what is stored, and what is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_protocol::checksum::{crc32c, crc64nvme};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use crate::site::{CHUNK, assert_problem, site};

/// Every header that announces a digest, and the right value for `bytes`.
fn announcements(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let md5 = STANDARD.encode(Md5::digest(bytes));
    let sha256 = STANDARD.encode(Sha256::digest(bytes));
    vec![
        ("content-md5", md5.clone()),
        ("content-digest", format!("md5=:{md5}:")),
        ("content-digest", format!("sha-256=:{sha256}:")),
        ("repr-digest", format!("sha-256=:{sha256}:, md5=:{md5}:")),
        ("x-amz-checksum-sha256", sha256),
        (
            "x-amz-checksum-crc32c",
            STANDARD.encode(crc32c(bytes).to_be_bytes()),
        ),
        (
            "x-amz-checksum-crc64nvme",
            STANDARD.encode(crc64nvme(bytes).to_be_bytes()),
        ),
    ]
}

fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fastrand::fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn i06_digest_of_the_clients_bytes_is_the_digest_stored_and_the_digest_on_download() {
    let site = site();
    for size in [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17] {
        let bytes = random(size);
        let crc = STANDARD.encode(crc64nvme(&bytes).to_be_bytes());
        for (name, value) in announcements(&bytes) {
            let reply = site
                .ask("PUT", "/files/i06", &[(name, &value)], bytes.clone())
                .await
                .ok();
            let stored: serde_json::Value = reply.json();
            assert_eq!(stored["checksum"]["crc64nvme"], crc, "{name} {size}");
            assert_eq!(stored["size"], size);
        }
        let read = site.store.try_get("i06").await.unwrap().ok();
        assert!(read.body == bytes, "{size}");
        assert_eq!(read.header("x-amz-checksum-crc64nvme"), crc);
        assert_eq!(read.header("content-length"), size.to_string());
        // A digest that was verified is given back.
        let _ = site
            .ask(
                "PUT",
                "/files/i06",
                &[("content-md5", &announcements(&bytes)[0].1)],
                bytes.clone(),
            )
            .await
            .ok();
        let read = site.store.try_get("i06").await.unwrap().ok();
        let wanted = format!("md5=:{}:", STANDARD.encode(Md5::digest(&bytes)));
        assert_eq!(read.header("repr-digest"), wanted, "{size}");
    }
    site.works().await;
}

#[tokio::test]
async fn i06_bad_input_27_what_is_not_as_announced_is_never_committed() {
    let site = site();
    let bytes = random(CHUNK + 100);
    let mut flipped = bytes.clone();
    flipped[CHUNK] ^= 1;
    for (name, value) in announcements(&flipped) {
        let reply = site
            .ask("PUT", "/files/d27", &[(name, &value)], bytes.clone())
            .await;
        assert_problem(&reply, 400, "bad-digest", name);
    }
    for (name, values) in [
        (
            "content-md5",
            [
                "",
                "nonsense",
                "XUFAKrxLKna5cZ2REBfFkg",
                "5d41402abc4b2a76b9719d911017c592",
            ],
        ),
        (
            "content-digest",
            ["sha-256", "sha-256=abc", "md5=:!!:", "sha-256=:YQ==:"],
        ),
        ("repr-digest", ["=", "md5=::", "sha-256=:", "unknown=:!:"]),
        (
            "x-amz-checksum-crc32c",
            ["", "AA==", "nonsense", "AAAAAAAA"],
        ),
        ("x-amz-checksum-crc64nvme", ["", "AA==", "nonsense", "AAAA"]),
        ("x-amz-checksum-sha256", ["", "AA==", "nonsense", "AAAA"]),
        ("x-amz-checksum-crc16", ["AAA=", "", "x", "AAAA"]),
    ] {
        for value in values {
            let reply = site
                .ask("PUT", "/files/d27", &[(name, value)], "hello")
                .await;
            assert_problem(&reply, 400, "invalid-digest", &format!("{name}: {value}"));
        }
    }
    let both = [
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
        ("content-digest", "md5=:AAAAAAAAAAAAAAAAAAAAAA==:"),
    ];
    let reply = site.ask("PUT", "/files/d27", &both, "hello").await;
    assert_problem(
        &reply,
        400,
        "invalid-digest",
        "two that contradict each other",
    );
    assert!(site.names("d27").await.is_empty());
    // A refused body leaves the version before it as it was.
    site.store.put("d27", "before").await;
    let wrong = [("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")];
    assert_eq!(
        site.ask("PUT", "/files/d27", &wrong, "after").await.status,
        400
    );
    assert_eq!(site.store.get("d27").await, "before");
    site.works().await;
}

#[tokio::test]
async fn bad_input_28_an_encoding_is_stored_as_given_and_never_undone() {
    let site = site();
    // A gzip header that promises much; nobody looks inside.
    let body = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 100]].concat();
    let _ = site
        .ask(
            "PUT",
            "/files/d28",
            &[("content-encoding", "gzip")],
            body.clone(),
        )
        .await
        .ok();
    for headers in [
        &[("accept-encoding", "identity")][..],
        &[("accept-encoding", "gzip")],
        &[],
    ] {
        let read = site.ask("GET", "/files/d28", headers, "").await;
        assert_eq!(read.header("content-encoding"), "gzip");
        assert!(read.body == body);
    }
    let long = "g".repeat(256);
    let reply = site
        .ask(
            "PUT",
            "/files/d28-long",
            &[("content-encoding", &long)],
            "x",
        )
        .await;
    assert_eq!(reply.status, 400);
    assert!(site.names("d28-long").await.is_empty());
    site.works().await;
}
