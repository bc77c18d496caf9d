//! The files API in miniature, with faults on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use dfs_protocol::checksum::crc64nvme;
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::problem::ProblemResponse;
use dfs_runtime::server::{ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

/// What the door keeps and how it misbehaves.
#[derive(Debug, Default)]
pub(crate) struct Doings {
    pub(crate) files: BTreeMap<String, (Bytes, u128)>,
    pub(crate) versions: u128,
    /// Refuse so many requests with 503 first.
    pub(crate) refuse: u32,
    /// Break the first so many downloads after this many bytes.
    pub(crate) break_gets: (u32, usize),
    /// Store puts but break the connection before the first so many answers.
    pub(crate) lose_answers: u32,
    /// Tell a wrong checksum.
    pub(crate) lie: bool,
    /// Replace a file's content when a download of it broke.
    pub(crate) replace_after_break: Option<Bytes>,
    /// `Range` headers seen.
    pub(crate) ranges: Vec<String>,
    /// Downloads served.
    pub(crate) gets: u32,
    /// `METHOD route?query` of changes.
    pub(crate) changes: Vec<String>,
    /// What `/fsck` says.
    pub(crate) fsck: String,
    /// What `/events` says; a stream ends behind it, and the next has what is behind a NUL.
    pub(crate) events: String,
    /// What other routes answer, one after the other; the last one stays.
    pub(crate) answers: BTreeMap<&'static str, VecDeque<serde_json::Value>>,
    /// Routes that this door does not have.
    pub(crate) missing: BTreeSet<&'static str>,
    /// `Authorization` of each request.
    pub(crate) authorizations: Vec<Option<String>>,
    /// Listings served: prefixes, with `*` behind those without a delimiter.
    pub(crate) listings: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: String,
    doings: Arc<Mutex<Doings>>,
    _running: ShutdownTrigger,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let doings = Arc::<Mutex<Doings>>::default();
        let router = Router::new().fallback(answer).with_state(doings.clone());
        let metrics = ServerMetrics::register(&prometheus::Registry::new(), "api").unwrap();
        let (running, shutdown) = shutdown_pair();
        let limits = ServerLimits::default();
        tokio::spawn(serve(listener, router, limits, metrics, shutdown));
        Self {
            address,
            doings,
            _running: running,
        }
    }

    pub(crate) fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    pub(crate) fn doings(&self) -> MutexGuard<'_, Doings> {
        self.doings.lock().unwrap()
    }

    pub(crate) fn store(&self, path: &str, content: impl Into<Bytes>) {
        let mut doings = self.doings();
        doings.versions += 1;
        let version = doings.versions;
        doings
            .files
            .insert(path.to_owned(), (content.into(), version));
    }

    pub(crate) fn content(&self, path: &str) -> Option<Bytes> {
        self.doings()
            .files
            .get(path)
            .map(|(bytes, _)| bytes.clone())
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.doings().files.keys().cloned().collect()
    }
}

type Shared = State<Arc<Mutex<Doings>>>;

async fn answer(State(doings): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let route = percent_decode_str(parts.uri.path())
        .decode_utf8()
        .unwrap()
        .into_owned();
    let query = parts.uri.query().unwrap_or("").to_owned();
    {
        let mut doings = doings.lock().unwrap();
        let sent = parts.headers.get(header::AUTHORIZATION);
        let sent = sent.map(|value| value.to_str().unwrap().to_owned());
        doings.authorizations.push(sent);
        if doings.refuse > 0 {
            doings.refuse -= 1;
            let busy = Problem::new(ErrorCode::Unavailable, "busy").retry_after(0);
            return ProblemResponse(busy).into_response();
        }
    }
    let body = match axum::body::to_bytes(body, 64 << 20).await {
        Ok(body) => body,
        Err(error) => {
            return ProblemResponse::new(ErrorCode::IncompleteBody, error.to_string())
                .into_response();
        }
    };
    let mut doings = doings.lock().unwrap();
    let Some(path) = route.strip_prefix("/files/") else {
        return other(&mut doings, &parts.method, &route, &query);
    };
    match parts.method {
        Method::GET if query.starts_with("list") => list(&mut doings, path, &query),
        _ if query.starts_with("factor") => factor(&mut doings, &parts.method, path, &query),
        Method::GET | Method::HEAD => get(&mut doings, path, &parts.headers),
        Method::PUT => put(&mut doings, path, &body, &parts.headers),
        Method::DELETE => match doings.files.remove(path) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => missing(path),
        },
        _ => transfer(&mut doings, path, &query),
    }
}

/// A directory takes two requests, and what was asked for is reached at the second look.
fn factor(doings: &mut Doings, method: &Method, path: &str, query: &str) -> Response {
    let is_second = query.contains("cursor");
    let asked = |change: &&String| change.starts_with("GET") && change.contains("factor");
    let looks = doings.changes.iter().filter(asked).count();
    doings.changes.push(format!("{method} {path}?{query}"));
    let answer = serde_json::json!({
        "path": path, "files": 2, "changed": 1, "chunks": 2, "chunks_to_go": u32::from(looks == 0),
        "bytes_to_copy": 0, "bytes_to_free": 10, "eta_seconds": null, "unreachable": null,
        "cursor": (path.ends_with('/') && !is_second).then_some("on"),
    });
    axum::Json(answer).into_response()
}

fn other(doings: &mut Doings, method: &Method, route: &str, query: &str) -> Response {
    if doings.missing.contains(route) {
        let problem = Problem::new(ErrorCode::NotFound, format!("there is no `{route}`"));
        return ProblemResponse(problem).into_response();
    }
    if route == "/fsck" {
        return doings.fsck.clone().into_response();
    }
    if route == "/events" {
        doings.changes.push(format!("{method} {route}?{query}"));
        let Some((now, later)) = doings.events.split_once('\0') else {
            return std::mem::take(&mut doings.events).into_response();
        };
        let (now, later) = (now.to_owned(), later.to_owned());
        doings.events = later;
        return now.into_response();
    }
    doings.changes.push(format!("{method} {route}?{query}"));
    let Some(answers) = doings.answers.get_mut(route) else {
        return "{}".into_response();
    };
    let next = if answers.len() > 1 {
        answers.pop_front()
    } else {
        answers.front().cloned()
    };
    axum::Json(next).into_response()
}

fn missing(path: &str) -> Response {
    let problem = Problem::new(ErrorCode::NotFound, format!("no file `{path}`"));
    ProblemResponse(problem.next("list what there is")).into_response()
}

fn etag(version: u128) -> String {
    dfs_protocol::VersionId::from_u128(version).to_string()
}

fn checksum(doings: &Doings, bytes: &[u8]) -> String {
    let crc = crc64nvme(bytes) ^ u64::from(doings.lie);
    crate::store::write_crc64(crc)
}

fn put(doings: &mut Doings, path: &str, body: &Bytes, headers: &HeaderMap) -> Response {
    let replaced = doings.files.contains_key(path);
    if replaced && headers.contains_key(header::IF_NONE_MATCH) {
        let problem = Problem::new(ErrorCode::PreconditionFailed, "something is there");
        return ProblemResponse(problem).into_response();
    }
    doings.versions += 1;
    let version = doings.versions;
    doings
        .files
        .insert(path.to_owned(), (body.clone(), version));
    if doings.lose_answers > 0 {
        doings.lose_answers -= 1;
        return broken(Bytes::new(), 100);
    }
    let answer = serde_json::json!({
        "path": path, "size": body.len(), "etag": etag(version),
        "checksum": { "crc64nvme": checksum(doings, body) },
        "chunks": 1, "replicas": [], "replica_count": 3, "wanted": 3,
    });
    let status = if replaced {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    (status, axum::Json(answer)).into_response()
}

/// An answer that announces more than it brings.
fn broken(piece: Bytes, length: usize) -> Response {
    let cut = async {
        // Lets the piece leave before the connection goes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(io::Error::other("cut"))
    };
    let piece = stream::iter([Ok(piece)]);
    let body = Body::from_stream(piece.chain(stream::once(cut)));
    ([(header::CONTENT_LENGTH, length.to_string())], body).into_response()
}

fn get(doings: &mut Doings, path: &str, headers: &HeaderMap) -> Response {
    let Some((bytes, version)) = doings.files.get(path).cloned() else {
        return missing(path);
    };
    doings.gets += 1;
    let tag = format!("\"{}\"", etag(version));
    let same = headers
        .get(header::IF_RANGE)
        .is_some_and(|given| *given == tag.as_str());
    let range = headers
        .get(header::RANGE)
        .map(|range| range.to_str().unwrap().to_owned());
    doings.ranges.extend(range.clone());
    let start: usize = match range.filter(|_| same) {
        Some(range) => range["bytes=".len()..]
            .trim_end_matches('-')
            .parse()
            .unwrap(),
        None => 0,
    };
    let rest = bytes.slice(start..);
    let sum = checksum(doings, &bytes);
    let mut response = if doings.break_gets.0 > 0 {
        doings.break_gets.0 -= 1;
        if let Some(content) = doings.replace_after_break.take() {
            doings
                .files
                .insert(path.to_owned(), (content, version + 1000));
        }
        let piece = rest.slice(..doings.break_gets.1.min(rest.len()));
        broken(piece, rest.len())
    } else {
        rest.clone().into_response()
    };
    let out = response.headers_mut();
    out.insert(header::ETAG, tag.parse().unwrap());
    out.insert(header::CONTENT_LENGTH, rest.len().into());
    out.insert("x-amz-checksum-crc64nvme", sum.parse().unwrap());
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        out.insert(header::CONTENT_RANGE, range.parse().unwrap());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// Pages of three, so that cursors are used.
fn list(doings: &mut Doings, prefix: &str, query: &str) -> Response {
    let parameter = |name: &str| {
        let value = query
            .split('&')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| {
            percent_decode_str(value)
                .decode_utf8()
                .unwrap()
                .into_owned()
        })
    };
    let delimited = parameter("delimiter").is_some();
    let after = parameter("cursor").unwrap_or_default();
    let mark = if delimited { "" } else { "*" };
    doings.listings.push(format!("{prefix}{mark}"));
    let mut entries = Vec::new();
    let mut directories = BTreeSet::new();
    let mut last = String::new();
    for (path, (bytes, version)) in &doings.files {
        let Some(rest) = path.strip_prefix(prefix) else {
            continue;
        };
        let entry = match rest.split_once('/').filter(|_| delimited) {
            Some((directory, _)) => {
                let directory = format!("{prefix}{directory}/");
                if directory <= after || !directories.insert(directory.clone()) {
                    continue;
                }
                last.clone_from(&directory);
                serde_json::json!({ "kind": "directory", "path": directory })
            }
            None if *path <= after => continue,
            None => {
                last.clone_from(path);
                serde_json::json!({
                    "kind": "file", "path": path, "size": bytes.len(), "etag": etag(*version),
                    "modified": "2026-01-02T03:04:05Z", "content_type": "text/plain",
                })
            }
        };
        entries.push(entry);
        if entries.len() == 3 {
            break;
        }
    }
    let cursor = (entries.len() == 3).then_some(last);
    axum::Json(serde_json::json!({
        "prefix": prefix, "delimiter": delimited.then_some("/"), "entries": entries,
        "cursor": cursor,
    }))
    .into_response()
}

fn transfer(doings: &mut Doings, to: &str, query: &str) -> Response {
    let (verb, from) = query.split_once('=').unwrap();
    let from = percent_decode_str(from).decode_utf8().unwrap().into_owned();
    doings.changes.push(format!("{verb} {from} {to}"));
    let mut moved = Vec::new();
    for (path, file) in &doings.files {
        let under = from.ends_with('/') && path.starts_with(&from);
        if *path == from || under {
            moved.push((
                path.clone(),
                format!("{to}{}", &path[from.len()..]),
                file.clone(),
            ));
        }
    }
    if moved.is_empty() {
        return missing(&from);
    }
    for (path, target, file) in moved {
        if verb == "move-from" {
            doings.files.remove(&path);
        }
        doings.files.insert(target, file);
    }
    "{}".into_response()
}
