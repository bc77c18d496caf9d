//! The request layer and problems, end to end.

use dfs_protocol::problem::{ErrorCode, Problem};
use serde::Deserialize;

use super::*;
use crate::problem::{ApiJson, ApiPath, ApiQuery};
use crate::request::RequestId;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    count: u32,
}

async fn served() -> Served {
    let router = Router::new()
        .route(
            "/id",
            get(|id: axum::Extension<RequestId>| async move { id.0.0.to_string() }),
        )
        .route("/panic", get(|| async { panic_now() }))
        .route(
            "/order",
            post(|ApiJson(order): ApiJson<Order>| async move { order.count.to_string() }),
        )
        .route(
            "/order/{number}",
            get(|ApiPath(number): ApiPath<u32>| async move { number.to_string() }),
        )
        .route(
            "/query",
            get(|ApiQuery(order): ApiQuery<Order>| async move { order.count.to_string() }),
        );
    serve_router(ServerLimits::default(), router).await
}

fn panic_now() -> String {
    panic!("on purpose")
}

async fn get_with(served: &Served, path: &str, fields: &str) -> String {
    served
        .talk(format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n"
        ))
        .await
}

async fn post_json(served: &Served, body: &str) -> (String, Option<ErrorCode>) {
    let answer = served
        .talk(format!(
            "POST /order HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let problem = serde_json::from_str::<Problem>(&body).ok();
    (body, problem.and_then(|problem| problem.code()))
}

#[tokio::test]
async fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
    let served = served().await;
    let answer = get_with(&served, "/id", "x-request-id: Abc.1_2-3\r\n").await;
    assert!(
        answer.contains("\r\nx-request-id: Abc.1_2-3\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nAbc.1_2-3"), "{answer}");
    for bad in ["a b", "<x>", &"a".repeat(65), ""] {
        let answer = get_with(&served, "/id", &format!("x-request-id: {bad}\r\n")).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body.len(), 32, "{bad}: {answer}");
        assert!(
            answer.contains(&format!("x-request-id: {body}\r\n")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn i32_a_panic_in_a_handler_is_a_500_and_the_server_goes_on() {
    let served = served().await;
    let answer = get_with(&served, "/panic", "x-request-id: p1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    let problem: Problem = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(
        problem.is(ErrorCode::Internal) && problem.request_id == "p1",
        "{answer}"
    );
    assert!(!answer.contains("on purpose"), "{answer}");
    assert_eq!(served.requests.panic_count(), 1);
    assert!(
        get_with(&served, "/id", "")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    eventually(|| served.requests.in_flight_count() == 0).await;
}

#[tokio::test]
async fn problems_are_plain_text_for_those_who_prefer_it() {
    let served = served().await;
    let answer = get_with(
        &served,
        "/nowhere",
        "Accept: text/plain\r\nx-request-id: q7\r\n",
    )
    .await;
    assert!(
        answer.contains("content-type: text/plain; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\r\n\r\nNot found: no such route\n"),
        "{answer}"
    );
    assert!(answer.ends_with("request q7\n"), "{answer}");
}

#[tokio::test]
async fn bad_input_41_json_that_does_not_fit_is_refused() {
    let served = served().await;
    assert_eq!(post_json(&served, r#"{"count": 3}"#).await.0, "3");
    let deep = "[".repeat(10_000);
    for bad in [
        "",
        "{",
        r#"{"count": -1}"#,
        r#"{"count": 1, "other": 2}"#,
        "{\"count\": 1} x",
        &deep,
    ] {
        let (body, code) = post_json(&served, bad).await;
        assert_eq!(code, Some(ErrorCode::InvalidJson), "{body}");
    }
    let (_, code) = post_json(&served, &" ".repeat(10_000_000)).await;
    assert_eq!(code, Some(ErrorCode::TooLarge));
    let long = " ".repeat(2_000_000);
    let answer = served
        .talk(format!(
            "POST /order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let answer = served
        .talk(
            "POST /order HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: 11\r\n\r\n{\"count\":1}",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn bad_input_40_parameters_that_do_not_fit_are_problems() {
    let served = served().await;
    for path in [
        "/query?count=x",
        "/query",
        "/query?count=1&other=2",
        "/order/x",
        "/order/%ff",
    ] {
        let answer = get_with(&served, path, "").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(
            answer.contains("urn:dfs:problem:invalid-parameter"),
            "{path}: {answer}"
        );
    }
    assert!(
        get_with(&served, "/query?count=8", "")
            .await
            .ends_with("\r\n\r\n8")
    );
    assert!(
        get_with(&served, "/order/9", "")
            .await
            .ends_with("\r\n\r\n9")
    );
}
