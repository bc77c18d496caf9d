//! `POST /files/{path}?factor=N` sets how many replicas files should have, `GET` with `?factor` says
//! how far that is. A directory goes page by page; one request takes so many pages and gives a
//! cursor for the rest.

use axum::Json;
use axum::response::IntoResponse;
use dfs_protocol::factor::{FactorChange, FactorPage, FactorRequest};
use dfs_protocol::file::MAX_FACTOR;
use dfs_protocol::{FilePath, PathPrefix, Problem};
use http::{HeaderMap, Uri};
use serde::Serialize;

use super::answer::{Answer, refused};
use super::files::ROUTE;
use super::listing;
use super::query::{Query, invalid};
use crate::gateway::Gateway;
use crate::headers::conditional;
use crate::names;

/// Pages that one request takes. The tracker's page has at most 1000 files.
const MAX_PAGES: u32 = 100;

/// What was found, over all pages of the request.
#[derive(Debug, Serialize)]
struct Found {
    path: PathPrefix,
    /// Files looked at.
    files: u64,
    /// Those whose factor was changed.
    changed: u64,
    /// Their chunks.
    chunks: u64,
    /// Chunks that do not have as many replicas as wanted.
    chunks_to_go: u64,
    /// Bytes of replicas that are still to be made.
    bytes_to_copy: u64,
    /// Bytes of replicas that are more than wanted.
    bytes_to_free: u64,
    /// Until the copies are made at the rate of now, were they alone.
    eta_seconds: Option<u64>,
    /// Why the factor cannot be reached now.
    unreachable: Option<String>,
    /// For the rest; null at the end.
    cursor: Option<String>,
}

/// Whether the request is about the factor.
pub(super) fn is_asked(uri: &Uri) -> bool {
    let mut parts = uri.query().unwrap_or("").split('&');
    parts.any(|part| part == "factor" || part.starts_with("factor="))
}

/// POST.
pub(super) async fn set(gateway: &Gateway, uri: &Uri, headers: &HeaderMap) -> Answer {
    let query = Query::read(uri, &["factor", "cursor"])?;
    let wanted = query.get("factor").unwrap_or("");
    let change = if wanted == "default" {
        FactorChange::Cluster
    } else {
        let number = wanted.bytes().all(|byte| byte.is_ascii_digit());
        let factor = wanted.parse().ok().filter(|_| number);
        let detail = format!("`factor` must be 1 to {MAX_FACTOR}, or `default`");
        factor
            .and_then(FactorChange::own)
            .ok_or_else(|| invalid(detail))?
    };
    let request = FactorRequest {
        precondition: conditional::precondition(headers)?,
        change: Some(change),
        ..asked(uri, &query)?
    };
    walk(gateway, request).await
}

/// GET.
pub(super) async fn look(gateway: &Gateway, uri: &Uri) -> Answer {
    let query = Query::read(uri, &["factor", "cursor"])?;
    if query.get("factor") != Some("") {
        return Err(invalid("`factor` takes no value here".into())
            .next("POST sets it")
            .into());
    }
    let request = asked(uri, &query)?;
    walk(gateway, request).await
}

/// The request for the first page; it looks only.
fn asked(uri: &Uri, query: &Query) -> Result<FactorRequest, Problem> {
    let path = names::prefix(uri, ROUTE)?;
    if !path.is_directory() {
        FilePath::parse(path.as_str())?;
    }
    let after = match query.get("cursor") {
        Some(cursor) => Some(FilePath::parse(&listing::read_cursor(
            cursor, &path, false,
        )?)?),
        None => None,
    };
    Ok(FactorRequest {
        path,
        after,
        precondition: dfs_protocol::upload::Precondition::None,
        change: None,
    })
}

async fn walk(gateway: &Gateway, mut request: FactorRequest) -> Answer {
    let mut sum = FactorPage::default();
    for _ in 0..MAX_PAGES {
        let page = gateway.tracker.factor(request.clone()).await;
        add(&mut sum, page.map_err(refused)?);
        if sum.next.is_none() {
            break;
        }
        request.after.clone_from(&sum.next);
    }
    let path = request.path;
    let cursor = sum.next.as_ref();
    let cursor = cursor.map(|next| listing::cursor(next.as_str(), &path, false));
    let found = Found {
        files: sum.files,
        changed: sum.changed,
        chunks: sum.chunks,
        chunks_to_go: sum.chunks_to_go,
        bytes_to_copy: sum.bytes_to_copy,
        bytes_to_free: sum.bytes_to_free,
        eta_seconds: sum
            .copy_rate
            .map(|rate| sum.bytes_to_copy.div_ceil(rate.max(1))),
        unreachable: sum.unreachable,
        cursor,
        path,
    };
    Ok(Json(found).into_response())
}

fn add(sum: &mut FactorPage, page: FactorPage) {
    let FactorPage {
        files,
        changed,
        chunks,
        chunks_to_go,
        bytes_to_copy,
        bytes_to_free,
        wanted,
        copy_rate,
        unreachable,
        next,
    } = page;
    sum.files += files;
    sum.changed += changed;
    sum.chunks += chunks;
    sum.chunks_to_go += chunks_to_go;
    sum.bytes_to_copy += bytes_to_copy;
    sum.bytes_to_free += bytes_to_free;
    sum.wanted = sum.wanted.max(wanted);
    sum.copy_rate = copy_rate;
    sum.unreachable = unreachable.or(sum.unreachable.take());
    sum.next = next;
}
