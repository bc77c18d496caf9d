//! Rows 12-14: forms.

use crate::site::{MAX_FILE, assert_problem, site};

const FORM: &str = "multipart/form-data; boundary=X";

fn part(disposition: &str, content: &str) -> String {
    format!("--X\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}

fn file(name: &str) -> String {
    part(&format!("name=\"file\"; filename=\"{name}\""), "content")
}

#[tokio::test]
async fn bad_input_12_a_form_that_is_put_is_stored_as_it_is_under_the_name_of_the_url() {
    let site = site();
    let body = file("f12-other") + "--X--";
    let headers = [("content-type", FORM)];
    let reply = site.ask("PUT", "/files/f12", &headers, body.clone()).await;
    assert_eq!(reply.status, 201);
    assert_eq!(site.store.get("f12").await, body);
    assert_eq!(site.names("f12").await, ["f12"]);
    // On the seed's route the form's own name counts, and there is no other.
    let reply = site.ask("POST", "/upload", &headers, body).await;
    assert_eq!(reply.status, 201);
    assert_eq!(site.store.get("f12-other").await, "content");
    assert_eq!(
        site.ask("POST", "/upload/f12", &headers, file("x") + "--X--")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn bad_input_13_forms_without_their_boundaries_store_nothing() {
    let site = site();
    let whole = file("f13") + "--X--";
    for (content_type, body) in [
        ("multipart/form-data", whole.clone()),
        ("multipart/form-data; boundary=", whole.clone()),
        ("multipart/form-data; boundary=\"\"", whole.clone()),
        ("multipart/form-data; boundary=Y", whole.clone()),
        ("multipart/mixed; boundary=X", whole.clone()),
        ("text/plain", whole.clone()),
        ("", whole.clone()),
        (FORM, file("f13")),
        (FORM, file("f13") + "--X-"),
        (FORM, file("f13") + "--X\r\n"),
        (FORM, "--X--".to_owned()),
        (FORM, String::new()),
        (FORM, whole.replace("\r\n", "\n")),
        (FORM, part("name=\"file\"", "no file name") + "--X--"),
        (
            FORM,
            part("name=\"other\"; filename=\"f13\"", "x") + "--X--",
        ),
        (FORM, format!("--X\r\n\r\nx\r\n--X--{}", "")),
        (FORM, format!("{whole}{}", "trailing".repeat(10_000))),
    ] {
        let shown: String = body.chars().take(80).collect();
        let reply = site
            .ask("POST", "/upload", &[("content-type", content_type)], body)
            .await;
        assert_problem(
            &reply,
            400,
            "invalid-form",
            &format!("{content_type:?} {shown:?}"),
        );
    }
    let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
    let reply = site
        .ask("POST", "/upload", &[("content-type", &long)], whole)
        .await;
    assert_problem(&reply, 400, "invalid-form", "a boundary of 71 characters");
    assert_eq!(site.ask("POST", "/upload", &[], "x").await.status, 400);
    assert!(site.names("f13").await.is_empty());
    site.works().await;
}

#[tokio::test]
async fn bad_input_14_forms_over_their_limits_store_nothing() {
    let site = site();
    let headers = [("content-type", FORM)];
    let end = file("f14") + "--X--";
    for (status, code, what, body) in [
        (
            413,
            "too-large",
            "10,000 fields",
            part("name=\"a\"", "x").repeat(10_000) + &end,
        ),
        (
            413,
            "too-large",
            "10,000 fields behind the file",
            file("f14") + &part("name=\"a\"", "x").repeat(10_000) + "--X--",
        ),
        (
            413,
            "too-large",
            "a long part header",
            part(
                &format!("name=\"file\"; filename=\"{}\"", "f14".repeat(9000)),
                "x",
            ) + "--X--",
        ),
        (
            413,
            "too-large",
            "an endless part header",
            format!("--X\r\n{}", "a: b\r\n".repeat(20_000)),
        ),
        (
            413,
            "too-large",
            "a large field",
            part("name=\"a\"", &"x".repeat(100_000)) + &end,
        ),
        (
            413,
            "too-large",
            "a large file",
            part("name=\"file\"; filename=\"f14\"", &"x".repeat(MAX_FILE + 1)) + "--X--",
        ),
        (
            413,
            "too-large",
            "a long preamble",
            "x".repeat(100_000) + "\r\n" + &end,
        ),
        (
            400,
            "invalid-form",
            "two files",
            file("f14") + &file("f14-b") + "--X--",
        ),
    ] {
        let reply = site.ask("POST", "/upload", &headers, body).await;
        assert_problem(&reply, status, code, what);
    }
    assert!(site.names("f14").await.is_empty());
    site.works().await;
}
