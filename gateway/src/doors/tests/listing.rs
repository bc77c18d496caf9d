//! Listings and transfers.

use super::*;

#[tokio::test]
async fn bad_input_40_listings_page_through_everything() {
    let site = site().await;
    for name in ["a", "d/1", "d/2", "d/e/3", "z"] {
        site.put(&format!("/files/{name}"), &[], b"x").await;
    }
    let mut uri = "/files?list&limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let response = site.call("GET", &uri, &[]).await;
        let link = header(&response, "link").to_owned();
        let page = json(response).await;
        for entry in page["entries"].as_array().unwrap() {
            seen.push(entry["path"].as_str().unwrap().to_owned());
        }
        if page["cursor"].is_null() {
            assert_eq!(link, "");
            break;
        }
        let target = link.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(target.1, "; rel=\"next\"");
        target.0.clone_into(&mut uri);
    }
    assert_eq!(seen, ["a", "d/1", "d/2", "d/e/3", "z"]);
    let page = json(site.call("GET", "/files/d/?list&delimiter=/", &[]).await).await;
    let kinds: Vec<_> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["kind"])
        .collect();
    assert_eq!(kinds, ["file", "file", "directory"]);
    let accept = [("accept", "application/x-ndjson")];
    let response = site.call("GET", "/files/?list&prefix=d/", &accept).await;
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    assert_eq!(bytes(response).await.split(|b| *b == b'\n').count() - 1, 3);
    for (query, wanted) in [
        ("limit=0", "invalid-parameter"),
        ("limit=-1", "invalid-parameter"),
        ("limit=x", "invalid-parameter"),
        ("delimiter=x", "invalid-parameter"),
        ("cursor=x", "invalid-cursor"),
        ("factor=3", "invalid-parameter"),
    ] {
        let response = site.call("GET", &format!("/files?list&{query}"), &[]).await;
        assert_eq!(code(response).await, wanted, "{query}");
    }
    assert_eq!(
        site.call("GET", "/files?list&limit=1000000000", &[])
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn files_are_copied_and_moved_and_what_is_not_built_is_refused() {
    let site = site().await;
    site.put("/files/a", &[], b"x").await;
    let copied = site.call("POST", "/files/b?copy-from=a", &[]).await;
    assert_eq!(copied.status(), 201);
    assert_eq!(site.get("/files/b").await.1, "x");
    let moved = site.call("POST", "/files/d/c?move-from=a", &[]).await;
    assert_eq!(moved.status(), 201);
    assert_eq!(site.get("/files/a").await.0, 404);
    let directory = site.call("POST", "/files/e/?move-from=d/", &[]).await;
    assert_eq!(json(directory).await["files"], 1);
    for query in [
        "",
        "?append",
        "?copy-from=b&move-from=b",
        "?copy-from=",
        "?copy-from=e/",
        "?move-from=../x",
    ] {
        let response = site.call("POST", &format!("/files/x{query}"), &[]).await;
        assert_eq!(response.status(), 400, "{query}");
    }
    assert_eq!(site.call("POST", "/uploads", &[]).await.status(), 404);
}

#[tokio::test]
async fn a_factor_is_set_for_a_file_or_for_everything_below_a_directory() {
    let site = site().await;
    for name in ["d/1", "d/2", "d/3", "e"] {
        site.put(&format!("/files/{name}"), &[], b"x").await;
    }
    let response = site.call("POST", "/files/d/1?factor=2", &[]).await;
    assert_eq!(response.status(), 200);
    let set = json(response).await;
    assert_eq!((&set["files"], &set["changed"]), (&1.into(), &1.into()));
    assert!(set["cursor"].is_null());
    let set = json(site.call("POST", "/files/d/?factor=2", &[]).await).await;
    assert_eq!((&set["files"], &set["changed"]), (&3.into(), &2.into()));
    let seen = json(site.call("GET", "/files/d/?factor", &[]).await).await;
    assert_eq!((&seen["files"], &seen["changed"]), (&3.into(), &0.into()));
    let set = json(site.call("POST", "/files/?factor=default", &[]).await).await;
    assert_eq!((&set["files"], &set["changed"]), (&4.into(), &3.into()));
}

#[tokio::test]
async fn bad_input_40_a_factor_is_a_number_from_1_to_7_and_stands_alone() {
    let site = site().await;
    site.put("/files/a", &[], b"x").await;
    for (method, query, wanted) in [
        ("POST", "factor", "invalid-parameter"),
        ("POST", "factor=0", "invalid-parameter"),
        ("POST", "factor=8", "invalid-parameter"),
        ("POST", "factor=-1", "invalid-parameter"),
        ("POST", "factor=+2", "invalid-parameter"),
        ("POST", "factor=99999999999", "invalid-parameter"),
        ("POST", "factor=2&copy-from=b", "invalid-parameter"),
        ("POST", "factor=2&cursor=x", "invalid-cursor"),
        ("GET", "factor=2", "invalid-parameter"),
        ("GET", "factor&download", "invalid-parameter"),
    ] {
        let response = site.call(method, &format!("/files/a?{query}"), &[]).await;
        assert_eq!(code(response).await, wanted, "{method} {query}");
    }
    let absent = site.call("POST", "/files/absent?factor=2", &[]).await;
    assert_eq!(code(absent).await, "not-found");
    let named = site.call("POST", "/files/a%2F..?factor=2", &[]).await;
    assert_eq!(code(named).await, "invalid-name");
}
