//! Requests against the whole doors, over fakes.

mod conditions;
mod document;
mod files;
mod forms;
mod listing;
mod page;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use dfs_runtime::clock::SystemClock;
use dfs_runtime::request::{RequestEdge, RequestMetrics};
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::ShutdownTrigger;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use prometheus::Registry;
use serde_json::Value;
use tower::ServiceExt as _;

use super::{admin, doors, openapi, public_routes};
use crate::config::Document;
use crate::testing::{CHUNK, Chain, FakeTracker, config, content, parts};

struct Site {
    router: Router,
    tracker: std::sync::Arc<FakeTracker>,
    chain: Chain,
    _end: ShutdownTrigger,
}

async fn site() -> Site {
    let (parts, chain, tracker, end) = parts(4, CHUNK).await;
    let config = crate::GatewayConfig {
        document: Document::PublicAndAdmin { more: Value::Null },
        max_file_bytes: 4 * CHUNK,
        ..config()
    };
    let doors = doors(parts, config).unwrap();
    let edge = RequestEdge::new(
        SharedRng::from_seed(1),
        SystemClock::shared(),
        RequestMetrics::register(&Registry::new()).unwrap(),
        100,
    );
    Site {
        router: edge.wrap(doors.public.merge(doors.admin)),
        tracker,
        chain,
        _end: end,
    }
}

impl Site {
    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Response {
        self.send(request(method, uri, headers, Body::empty()))
            .await
    }

    async fn put(&self, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let body = Body::from(body.to_vec());
        self.send(request("PUT", uri, headers, body)).await
    }

    async fn get(&self, uri: &str) -> (StatusCode, Bytes) {
        let response = self.call("GET", uri, &[]).await;
        (response.status(), bytes(response).await)
    }

    async fn form(&self, content_type: &str, body: impl Into<Body>) -> Response {
        let headers = [("content-type", content_type)];
        self.send(request("POST", "/upload", &headers, body.into()))
            .await
    }
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap()
}

async fn bytes(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

async fn json(response: Response) -> Value {
    serde_json::from_slice(&bytes(response).await).unwrap()
}

async fn code(response: Response) -> String {
    let problem = json(response).await;
    let kind = problem["type"].as_str().unwrap();
    kind.rsplit(':').next().unwrap().to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

const FORM: &str = "multipart/form-data; boundary=X";

fn part(disposition: &str, content: &str) -> String {
    format!("--X\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}
