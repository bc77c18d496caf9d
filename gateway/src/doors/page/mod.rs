//! `GET /`: the status page for browsers, a text with commands for everybody else; and the page's own
//! files. They are files of this crate and ask the public routes only; nothing is built, nothing is
//! fetched from elsewhere.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::problem::ApiPath;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};

use super::Route;
use super::answer::Answer;

/// Only this page's own script and style run, nothing is loaded from elsewhere, no other page may
/// frame it, and text never becomes markup: whatever a file is called, it does nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct Asset {
    name: &'static str,
    media: &'static str,
    text: &'static str,
}

const PAGE: Asset = Asset {
    name: "index.html",
    media: "text/html; charset=utf-8",
    text: include_str!("index.html"),
};

/// For those who do not ask for HTML, as curl.
const COMMANDS: Asset = Asset {
    name: "commands.txt",
    media: "text/plain; charset=utf-8",
    text: include_str!("commands.txt"),
};

/// What the page loads, under `/page/`.
const ASSETS: [Asset; 7] = [
    Asset {
        name: "page.css",
        media: "text/css; charset=utf-8",
        text: include_str!("page.css"),
    },
    script("page.js", include_str!("page.js")),
    script("status.js", include_str!("status.js")),
    script("files.js", include_str!("files.js")),
    script("upload.js", include_str!("upload.js")),
    script("dom.js", include_str!("dom.js")),
    script("words.js", include_str!("words.js")),
];

const fn script(name: &'static str, text: &'static str) -> Asset {
    Asset {
        name,
        media: JAVASCRIPT,
        text,
    }
}

pub(super) fn routes() -> Vec<Route> {
    vec![("/", get(index)), ("/page/{path}", get(asset))]
}

async fn index(headers: HeaderMap) -> Response {
    let asset = if wants_html(&headers) { PAGE } else { COMMANDS };
    let mut response = send(asset, &headers);
    let varies = HeaderValue::from_static("accept");
    response.headers_mut().insert(VARY, varies);
    response
}

async fn asset(ApiPath(name): ApiPath<String>, headers: HeaderMap) -> Answer {
    let Some(asset) = ASSETS.into_iter().find(|asset| asset.name == name) else {
        let detail = format!("`{name}` is no file of the status page");
        let problem = Problem::new(ErrorCode::NotFound, detail);
        return Err(problem.next("files of the store are at /files").into());
    };
    Ok(send(asset, &headers))
}

/// The file, or 304 when the client has it. Browsers keep it and ask each time: a gateway of another
/// version may answer next.
fn send(asset: Asset, request: &HeaderMap) -> Response {
    let tag = tag(asset.text);
    let mut response = if names(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, asset.media)], asset.text).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    let fixed: [(HeaderName, &'static str); 7] = [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// By content: another build's file has another tag.
fn tag(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut tag = String::from("\"");
    for byte in &digest[..12] {
        let _infallible = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// Whether `If-None-Match` names the tag; the comparison is weak (RFC 9110 section 13.1.2).
fn names(request: &HeaderMap, tag: &str) -> bool {
    let values = request.get_all(IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tags.any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag
    })
}

/// Browsers name HTML when somebody opens an address; curl and others say that anything will do.
fn wants_html(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT).iter();
    let mut ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        media.eq_ignore_ascii_case("text/html") && !refused
    })
}
