//! Rows 34-37: replacing, racing, deleting.

use dfs_e2e::http::RawSocket;
use http_body_util::BodyExt as _;

use crate::site::{MAX_FILE, assert_problem, site};

#[tokio::test]
async fn bad_input_34_a_put_replaces_unless_its_condition_says_otherwise() {
    let site = site();
    let put = async |headers: &[(&str, &str)], body: &'static str| {
        site.ask("PUT", "/files/c34", headers, body).await
    };
    assert_problem(
        &put(&[("if-match", "*")], "x").await,
        412,
        "precondition-failed",
        "absent",
    );
    assert_eq!(put(&[("if-none-match", "*")], "one").await.status, 201);
    assert_problem(
        &put(&[("if-none-match", "*")], "x").await,
        412,
        "precondition-failed",
        "there",
    );
    assert_eq!(site.store.get("c34").await, "one");
    let first = site
        .store
        .try_get("c34")
        .await
        .unwrap()
        .header("etag")
        .to_owned();
    let replaced = put(&[("if-match", &first)], "two").await;
    assert_eq!(
        (
            replaced.status.as_u16(),
            site.store.get("c34").await.as_ref()
        ),
        (200, &b"two"[..])
    );
    assert_problem(
        &put(&[("if-match", &first)], "x").await,
        412,
        "precondition-failed",
        "stale",
    );
    assert_eq!(put(&[], "three").await.status, 200);
    assert_eq!(site.store.get("c34").await, "three");
    for bad in ["nonsense, \"", "\"unfinished", "W/"] {
        let status = put(&[("if-match", bad)], "x").await.status.as_u16();
        assert!(status == 400 || status == 412, "{bad}: {status}");
    }
    let both = [("if-match", "*"), ("if-none-match", "*")];
    assert_eq!(put(&both, "x").await.status, 400);
    assert_eq!(site.store.get("c34").await, "three");
    // A file and a directory never share a path.
    assert_problem(
        &site.ask("PUT", "/files/c34/below", &[], "x").await,
        409,
        "conflict",
        "below a file",
    );
    site.store.put("c34-dir/file", "x").await;
    assert_problem(
        &site.ask("PUT", "/files/c34-dir", &[], "x").await,
        409,
        "conflict",
        "over a directory",
    );
    site.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_35_i17_fifty_puts_on_one_name_with_readers_are_never_mixed() {
    let site = site();
    let body = |n: u8| vec![n; 1000 + usize::from(n) * 3000];
    site.store.put("c35", body(0)).await;
    let puts = (1..=50).map(|n| {
        let site = site.clone();
        tokio::spawn(async move {
            site.ask("PUT", "/files/c35", &[], body(n))
                .await
                .status
                .as_u16()
        })
    });
    let puts: Vec<_> = puts.collect();
    let reads = (0..20).map(|_| {
        let site = site.clone();
        tokio::spawn(async move { site.store.get("c35").await })
    });
    let reads: Vec<_> = reads.collect();
    for put in puts {
        let status = put.await.unwrap();
        assert!([200, 409].contains(&status), "{status}");
    }
    for read in reads {
        let read = read.await.unwrap();
        assert!(read == body(read[0]), "a mix of versions");
    }
    let last = site.store.get("c35").await;
    assert!(last == body(last[0]));
    site.works().await;
}

#[tokio::test]
async fn bad_input_36_absent_names_are_404_each_time() {
    let site = site();
    for _ in 0..2 {
        for (method, uri) in [
            ("GET", "/files/c36"),
            ("DELETE", "/files/c36"),
            ("GET", "/download/c36"),
            ("GET", "/chunks?file=c36"),
            ("POST", "/files/c36-to?copy-from=c36"),
            ("POST", "/files/c36-to?move-from=c36"),
        ] {
            let reply = site.ask(method, uri, &[], "").await;
            assert_problem(&reply, 404, "not-found", &format!("{method} {uri}"));
        }
        assert_eq!(site.ask("HEAD", "/files/c36", &[], "").await.status, 404);
    }
    site.store.put("c36", "x").await;
    assert_eq!(site.ask("DELETE", "/files/c36", &[], "").await.status, 204);
    let again = site.ask("DELETE", "/files/c36", &[], "").await;
    assert_problem(&again, 404, "not-found", "deleted twice");
    assert!(site.names("c36").await.is_empty());
}

#[tokio::test]
async fn bad_input_37_a_deletion_during_a_download_lets_it_end_whole_or_breaks_it() {
    let site = site();
    let bytes: Vec<_> = (0..MAX_FILE)
        .map(|at| u8::try_from(at % 253).unwrap())
        .collect();
    site.store.put("c37", bytes.clone()).await;
    let empty = dfs_client::http::empty();
    let open = site
        .store
        .door
        .open(http::Method::GET, "/files/c37", &[], empty)
        .await
        .unwrap();
    let mut body = open.into_body();
    let mut read = body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap()
        .to_vec();
    site.store.delete("c37").await;
    assert_eq!(site.ask("GET", "/files/c37", &[], "").await.status, 404);
    // Trash on: the chunks stay, so it may well end whole; a short body that looks whole is the bug.
    match body.collect().await {
        Ok(rest) => {
            read.extend_from_slice(&rest.to_bytes());
            assert!(read == bytes);
        }
        Err(broken) => drop(broken),
    }
    site.works().await;
}

#[tokio::test]
async fn a_client_that_leaves_mid_download_costs_nothing() {
    let site = site();
    site.store.put("c-leaves", vec![1; MAX_FILE]).await;
    for _ in 0..20 {
        let mut socket = RawSocket::connect(&site.address).await.unwrap();
        socket
            .write("GET /files/c-leaves HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        socket.read_some(crate::site::WITHIN).await.unwrap();
    }
    site.works().await;
}
