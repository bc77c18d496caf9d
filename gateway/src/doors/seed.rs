//! The seed API: `POST /upload`, `GET /download/{filename}`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use dfs_protocol::{FilePath, Problem};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;

use super::Route;
use super::answer::{Answer, stored};
use super::files::{check_early, described, send};
use super::form::{Form, FormError, PartHeader};
use super::query::Query;
use crate::gateway::SharedGateway;
use crate::metrics::Refusal;
use crate::names;
use crate::upload::{NewFile, Upload};

const DOWNLOAD: &str = "/download/";
/// The field that holds the file.
const FIELD: &str = "file";
/// Bytes of a field that is no file.
const MAX_FIELD_BYTES: usize = 64 * 1024;
/// Longest media type taken from a part.
const MAX_TYPE_BYTES: usize = 255;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/upload", post(upload)),
        // An empty name is refused by its own name.
        ("/download/", get(download)),
        ("/download/{*path}", get(download)),
    ]
}

/// The file as an attachment.
async fn download(State(gateway): State<SharedGateway>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    Query::read(&parts.uri, &[])?;
    let path = names::file_path(&parts.uri, DOWNLOAD)?;
    send(gateway, &parts.method, &parts.headers, path, true).await
}

/// A form with one file, stored under its file name. Always 201: each upload makes a version.
async fn upload(State(gateway): State<SharedGateway>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    Query::read(&parts.uri, &[])?;
    let taken = take_form(&gateway, &parts.headers, body).await?;
    let committed = taken.finish().await.map_err(Problem::from)?;
    Ok(stored(committed, StatusCode::CREATED))
}

/// Reads the whole form; the upload that it returns is complete, and not yet committed.
async fn take_form(
    gateway: &SharedGateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<Upload, Problem> {
    let counted = |error: FormError| {
        if matches!(error, FormError::OverLimit(_)) {
            gateway.metrics.refusals.inc(Refusal::Form);
        }
        Problem::from(error)
    };
    let at_most = body.size_hint().upper();
    let mut form = Form::new(headers, body).map_err(counted)?;
    let mut taken: Option<Upload> = None;
    while let Some(part) = form.next_part().await.map_err(counted)? {
        if part.name != FIELD {
            form.small(MAX_FIELD_BYTES).await.map_err(counted)?;
            continue;
        }
        if taken.is_some() {
            return Err(FormError::Malformed("the form has two parts named `file`").into());
        }
        let mut upload = begin(gateway, headers, part, at_most).await?;
        while let Some(data) = form.data().await.map_err(counted)? {
            upload.write(data).await?;
        }
        taken = Some(upload);
    }
    taken.ok_or_else(|| FormError::Malformed("the form has no part named `file`").into())
}

async fn begin(
    gateway: &SharedGateway,
    headers: &HeaderMap,
    part: PartHeader,
    at_most: Option<u64>,
) -> Result<Upload, Problem> {
    let PartHeader {
        name: _,
        filename,
        content_type,
    } = part;
    let Some(filename) = filename else {
        return Err(FormError::Malformed("the part `file` has no file name").into());
    };
    let path = FilePath::from_bytes(&filename)?;
    let described = described(gateway, headers, path)?;
    let content_type = content_type
        .filter(|media| media.len() <= MAX_TYPE_BYTES && !media.contains(char::is_control))
        .unwrap_or_else(|| described.content_type.clone());
    let new = NewFile {
        content_type,
        // The request's own encoding speaks of the form, not of the file.
        content_encoding: None,
        expected: at_most,
        ..described
    };
    check_early(gateway, &new.path, &new.precondition).await?;
    Ok(Upload::begin(gateway.clone(), new).await?)
}
