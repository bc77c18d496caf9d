//! The seed API and its forms.

use super::*;

#[tokio::test]
async fn the_seed_stores_and_returns_a_file() {
    let site = site().await;
    let body = part("name=\"file\"; filename=\"example.txt\"", "hello\r\nworld") + "--X--\r\n";
    let response = site.form(FORM, body).await;
    assert_eq!(response.status(), 201);
    assert_eq!(header(&response, "location"), "/files/example.txt");
    let etag = header(&response, "etag").to_owned();
    let stored = json(response).await;
    assert_eq!(stored["path"], "example.txt");
    assert_eq!(stored["size"], 12);
    assert_eq!(format!("\"{}\"", stored["etag"].as_str().unwrap()), etag);
    assert_eq!(stored["replicas"].as_array().unwrap().len(), 3);
    assert_eq!(stored["chunks"], 1);
    let response = site.call("GET", "/download/example.txt", &[]).await;
    assert_eq!(response.status(), 200);
    let disposition = header(&response, "content-disposition");
    assert!(disposition.starts_with("attachment; filename=\"example.txt\""));
    assert_eq!(header(&response, "content-length"), "12");
    assert_eq!(bytes(response).await, "hello\r\nworld");
}

#[tokio::test]
async fn a_form_may_arrive_in_any_pieces() {
    let site = site().await;
    // Delimiters that almost match, cut everywhere.
    let content = "a\r\n--Y\r\n-\r\r\n--\r\n--\r\n-X";
    let body = format!(
        "preamble\r\n{}{}--X--",
        part("name=\"note\"", "ignored"),
        part("name=\"file\"; filename=\"a%22\\\"b\"", content)
    );
    for size in [1, 2, 3, 7, 1000] {
        let pieces: Vec<_> = body
            .as_bytes()
            .chunks(size)
            .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
            .collect();
        let stream = Body::from_stream(futures_util::stream::iter(pieces));
        let response = site.form(FORM, stream).await;
        assert_eq!(response.status(), 201, "{size}");
        assert_eq!(site.get("/files/a%22%22b").await.1, content, "{size}");
    }
}

#[tokio::test]
async fn bad_input_13_and_14_forms_that_are_wrong_store_nothing() {
    let site = site().await;
    let file = part("name=\"file\"; filename=\"a\"", "x");
    let long = format!("name=\"file\"; filename=\"{}\"", "x".repeat(20_000));
    for (content_type, body, status) in [
        ("multipart/form-data", file.clone() + "--X--", 400),
        (
            "multipart/form-data; boundary=",
            file.clone() + "--X--",
            400,
        ),
        ("text/plain; boundary=X", file.clone() + "--X--", 400),
        (
            "multipart/form-data; boundary=Y",
            file.clone() + "--X--",
            400,
        ),
        (FORM, file.clone(), 400),
        (FORM, file.clone() + "--X-", 400),
        (FORM, format!("{file}{file}--X--"), 400),
        (FORM, String::new(), 400),
        (FORM, "--X--".into(), 400),
        (FORM, part("name=\"file\"", "x") + "--X--", 400),
        (
            FORM,
            part("name=\"other\"; filename=\"a\"", "x") + "--X--",
            400,
        ),
        (
            FORM,
            part("name=\"file\"; filename=\"\"", "x") + "--X--",
            400,
        ),
        (
            FORM,
            part("name=\"file\"; filename=\"a/../b\"", "x") + "--X--",
            400,
        ),
        (FORM, "--Xy\r\n\r\nx\r\n--X--".into(), 400),
        (FORM, "--X\r\n\r\nx\r\n--X--".into(), 400),
        (
            FORM,
            part("name=\"f\"", "x").repeat(100) + &file + "--X--",
            413,
        ),
        (
            FORM,
            part("name=\"f\"", &"x".repeat(100_000)) + &file + "--X--",
            413,
        ),
        (FORM, part(&long, "x") + "--X--", 413),
        (
            FORM,
            part("name=\"file\"; filename=\"a\"", &"x".repeat(2_000_000)) + "--X--",
            413,
        ),
    ] {
        let response = site.form(content_type, body.clone()).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(response.status(), status, "{content_type} {shown}");
        assert!(site.tracker.names().is_empty(), "{content_type} {shown}");
    }
}
