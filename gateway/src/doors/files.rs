//! `/files/{path}`: raw bodies, conditional and partial reads, deletion.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dfs_protocol::upload::{DeleteRequest, LocateRequest, LocateResponse, Precondition};
use dfs_protocol::{ErrorCode, FilePath, Problem};
use dfs_runtime::problem::{ProblemResponse, body_problem};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::answer::{Answer, refused, stored};
use super::query::Query;
use super::{Route, factor, listing, transfer};
use crate::download;
use crate::gateway::{Gateway, SharedGateway};
use crate::headers::conditional::{self, ReadVerdict};
use crate::headers::digests::WantedDigests;
use crate::headers::range::{Wanted, wanted};
use crate::headers::{file, single};
use crate::metrics::Refusal;
use crate::names;
use crate::upload::{NewFile, Upload};

/// Where file paths begin in the URI.
pub(super) const ROUTE: &str = "/files/";

pub(super) fn routes() -> Vec<Route> {
    let methods = || get(read).put(put).delete(delete).post(transfer::post);
    vec![
        ("/files", get(listing::root)),
        // An empty name: a listing when asked for one, else refused by its own name.
        ("/files/", methods()),
        ("/files/{*path}", methods()),
    ]
}

/// GET and HEAD; a listing with `?list`.
async fn read(State(gateway): State<SharedGateway>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    if listing::is_asked(&parts.uri)? {
        return listing::page(&gateway, &parts.uri, &parts.headers, ROUTE).await;
    }
    if factor::is_asked(&parts.uri) {
        return factor::look(&gateway, &parts.uri).await;
    }
    let query = Query::read(&parts.uri, &["download", "list"])?;
    let path = names::file_path(&parts.uri, ROUTE)?;
    let as_attachment = query.is_set("download")?;
    send(gateway, &parts.method, &parts.headers, path, as_attachment).await
}

/// A file, or the part of it that the headers ask for.
pub(super) async fn send(
    gateway: SharedGateway,
    method: &Method,
    headers: &HeaderMap,
    path: FilePath,
    as_attachment: bool,
) -> Answer {
    let is_head = method == Method::HEAD;
    let request = LocateRequest {
        path,
        locations: !is_head,
    };
    let located = gateway.tracker.locate(request).await.map_err(refused)?;
    match conditional::read_verdict(headers, &located.file)? {
        ReadVerdict::Send => {}
        ReadVerdict::NotModified => return Ok(not_modified(&located)),
        ReadVerdict::Failed => return Err(conditional::failed().into()),
    }
    let size = located.file.size;
    // `Range` means something for GET alone.
    let range = single(headers, &RANGE).unwrap_or(None);
    let range = range.filter(|_| !is_head && conditional::range_counts(headers, &located.file));
    let (status, bytes) = match wanted(range, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Wanted::Unsatisfiable => return Ok(unsatisfiable(size)),
    };
    let is_part = status == StatusCode::PARTIAL_CONTENT;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let out = response.headers_mut();
    file::put_validators(out, &located.file);
    file::put_content(out, &located.file, !is_part);
    file::put_disposition(out, &located.file, as_attachment);
    out.insert(CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    if is_part {
        let last = bytes.end - 1;
        let text = format!("bytes {}-{last}/{size}", bytes.start);
        file::put(out, CONTENT_RANGE, &text);
    }
    if !is_head {
        *response.body_mut() = download::open(gateway, located, bytes).await?;
    }
    Ok(response)
}

fn not_modified(located: &LocateResponse) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    file::put_validators(response.headers_mut(), &located.file);
    response
}

fn unsatisfiable(size: u64) -> Response {
    let problem = Problem::new(
        ErrorCode::RangeNotSatisfiable,
        format!("the file has {size} bytes, and the range holds none of them"),
    );
    let mut response = ProblemResponse(problem.next("ask for a range within it")).into_response();
    file::put(
        response.headers_mut(),
        CONTENT_RANGE,
        &format!("bytes */{size}"),
    );
    response
}

/// PUT: the raw body becomes the file.
async fn put(State(gateway): State<SharedGateway>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    Query::read(&parts.uri, &[])?;
    let path = names::file_path(&parts.uri, ROUTE)?;
    let new = NewFile {
        digests: WantedDigests::read(&parts.headers)?,
        content_type: file::content_type(&parts.headers)?,
        expected: body.size_hint().upper(),
        ..described(&gateway, &parts.headers, path)?
    };
    check_early(&gateway, &new.path, &new.precondition).await?;
    let mut upload = Upload::begin(gateway, new).await.map_err(Problem::from)?;
    receive(&mut upload, body).await?;
    let committed = upload.finish().await.map_err(Problem::from)?;
    let status = if committed.replaced {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok(stored(committed, status))
}

/// What the headers of a request say about a file, whatever form its body has.
pub(super) fn described(
    gateway: &Gateway,
    headers: &HeaderMap,
    path: FilePath,
) -> Result<NewFile, Problem> {
    let Some(metadata) = file::metadata(headers)? else {
        gateway.metrics.refusals.inc(Refusal::Metadata);
        let limit = file::MAX_METADATA_BYTES;
        return Err(Problem::new(
            ErrorCode::HeadersTooLarge,
            format!("user metadata may hold {limit} bytes at most"),
        ));
    };
    Ok(NewFile {
        path,
        precondition: conditional::precondition(headers)?,
        content_type: dfs_protocol::file::DEFAULT_CONTENT_TYPE.to_owned(),
        content_encoding: file::content_encoding(headers)?,
        metadata,
        digests: WantedDigests::default(),
        expected: None,
    })
}

/// Refuses what the commit would refuse anyway, before the body is read.
pub(super) async fn check_early(
    gateway: &Gateway,
    path: &FilePath,
    precondition: &Precondition,
) -> Result<(), Problem> {
    if *precondition == Precondition::None {
        return Ok(());
    }
    let request = LocateRequest {
        path: path.clone(),
        locations: false,
    };
    let now = match gateway.tracker.locate(request).await {
        Ok(located) => Some(located.file.version),
        Err(error) if error.is(ErrorCode::NotFound) => None,
        Err(error) => return Err(refused(error)),
    };
    if conditional::holds(precondition, now) {
        Ok(())
    } else {
        Err(conditional::failed())
    }
}

async fn receive(upload: &mut Upload, mut body: Body) -> Result<(), Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| body_problem(&error))?;
        if let Ok(data) = frame.into_data() {
            upload.write(data).await?;
        }
    }
    Ok(())
}

/// DELETE: 204, and 404 when nothing lives there; the same on every repetition.
async fn delete(State(gateway): State<SharedGateway>, uri: Uri, headers: HeaderMap) -> Answer {
    Query::read(&uri, &[])?;
    let request = DeleteRequest {
        path: names::file_path(&uri, ROUTE)?,
        precondition: conditional::precondition(&headers)?,
    };
    gateway.tracker.delete(request).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
