//! I32: whatever comes over the network, the store stays up, whole and small.

use std::time::Duration;

use dfs_e2e::cluster::SEED_VARIABLE;
use dfs_e2e::http::RawSocket;

use crate::site::{Site, site};

/// Requests of one test.
const ROUNDS: usize = 1500;

struct Seed(u64);

impl Drop for Seed {
    #[allow(clippy::print_stderr)] // The seed of a failed test belongs on its output.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with {SEED_VARIABLE}={}", self.0);
        }
    }
}

fn seeded() -> (Seed, fastrand::Rng) {
    let seed = std::env::var(SEED_VARIABLE)
        .map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    (Seed(seed), fastrand::Rng::with_seed(seed))
}

/// Sends bytes, and looks at what comes back only as far as it comes at once. An answer is HTTP.
async fn throw(site: &Site, bytes: &[u8], finish: bool) {
    let mut socket = RawSocket::connect(&site.address).await.unwrap();
    let _refused = socket.write(bytes).await;
    if finish {
        let _gone = socket.finish().await;
    }
    let reply = socket
        .read(Duration::from_millis(if finish { 90_000 } else { 2 }))
        .await;
    if !reply.bytes.is_empty() {
        let shown = String::from_utf8_lossy(bytes);
        assert!(
            reply.bytes.starts_with(b"HTTP/1."),
            "{:?} after {shown:?}",
            reply.text()
        );
        let status = reply.status();
        assert!(
            status.is_some_and(|status| status < 500 || status == 503),
            "{status:?} after {shown:?}: {}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn i32_random_bytes_hurt_nothing() {
    let site = site();
    let (_seed, mut rng) = seeded();
    let words: [&[u8]; 14] = [
        b"GET ",
        b"PUT /files/i32 ",
        b"HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b":",
        b" ",
        b"\0",
        b"18446744073709551615",
        b"Upgrade: x",
        b"Connection: upgrade",
        b"\xff\xfe",
    ];
    for _ in 0..ROUNDS {
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(1..30) {
            if rng.bool() {
                bytes.extend_from_slice(words[rng.usize(..words.len())]);
            } else {
                for _ in 0..rng.usize(..20) {
                    bytes.push(rng.u8(..));
                }
            }
        }
        let finish = rng.u8(..10) > 0;
        throw(&site, &bytes, finish).await;
    }
    site.works().await;
}

#[tokio::test]
async fn i32_mutated_requests_hurt_nothing() {
    let site = site();
    let (_seed, mut rng) = seeded();
    let id = "0".repeat(32);
    let form = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"i32\"\r\nContent-Type: a/b\r\n\r\nhello\r\n--X--\r\n";
    let requests = [
        "GET /files/i32?download=1 HTTP/1.1\r\nHost: x\r\nRange: bytes=1-3\r\nIf-Range: \"a-b\"\r\nIf-None-Match: \"a-b\", W/\"c\"\r\n\r\n".to_owned(),
        "PUT /files/i32 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\nContent-Digest: md5=:XUFAKrxLKna5cZ2REBfFkg==:\r\nx-dfs-meta-a: b\r\n\r\nhello".to_owned(),
        "PUT /files/i32/a%2fb HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: y\r\n\r\n5;a=b\r\nhello\r\n0\r\ny: z\r\n\r\n".to_owned(),
        format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=X\r\nContent-Length: {}\r\n\r\n{form}", form.len()),
        "GET /files/i32/?list&delimiter=/&limit=10&cursor=AQAAAAA HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson;q=0.5, */*\r\n\r\n".to_owned(),
        "POST /files/i32-b?copy-from=i32 HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n".to_owned(),
        "DELETE /files/i32-b HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\n\r\n".to_owned(),
        format!("POST /ok-to-stop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{\"datanodes\":[\"{id}\"]}}"),
        format!("GET /nodes/{id}/safe-to-remove HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"),
        format!("POST /trash/{id}/restore?to=i32 HTTP/1.1\r\nHost: x\r\n\r\n"),
        "POST /internal/call/locate HTTP/1.1\r\nHost: x\r\nContent-Length: 33\r\n\r\n{\"path\":\"i32\",\"locations\":true}  ".to_owned(),
        "POST /internal/chunk-report HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n01234567890123456789".to_owned(),
    ];
    for _ in 0..ROUNDS {
        let mut bytes = requests[rng.usize(..requests.len())].clone().into_bytes();
        for _ in 0..rng.usize(..4) {
            mutate(&mut bytes, &mut rng);
        }
        throw(&site, &bytes, true).await;
    }
    site.works().await;
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let at = rng
        .usize(..bytes.len().max(1))
        .min(bytes.len().saturating_sub(1));
    if bytes.is_empty() {
        bytes.push(rng.u8(..));
        return;
    }
    match rng.u8(..6) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[at] = rng.u8(..),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, *rng.choice(b"\r\n\0 :/%\"\\\xff;,=-").unwrap()),
        4 => drop(bytes.remove(at)),
        _ => {
            let end = (at + rng.usize(..200)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}
