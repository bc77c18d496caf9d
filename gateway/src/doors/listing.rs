//! `GET /files/{prefix}?list`: pages of names with an opaque cursor.

use std::fmt::Write as _;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::path::MAX_PATH_BYTES;
use dfs_protocol::upload::{DEFAULT_LIST_LIMIT, ListEntry, ListRequest, MAX_LIST_LIMIT};
use dfs_protocol::{ErrorCode, PathPrefix, Problem};
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::{HeaderMap, Uri};
use serde::Serialize;

use super::answer::{Answer, refused};
use super::query::{Query, invalid};
use crate::gateway::{Gateway, SharedGateway};
use crate::headers::file;
use crate::names;

const NDJSON: &str = "application/x-ndjson";
const PARAMETERS: [&str; 5] = ["list", "prefix", "delimiter", "limit", "cursor"];
/// First byte of a cursor: its format.
const CURSOR_VERSION: u8 = 1;

/// One page as JSON.
#[derive(Debug, Serialize)]
struct Page {
    prefix: PathPrefix,
    delimiter: Option<&'static str>,
    entries: Vec<ListEntry>,
    /// For the next page; null at the end.
    cursor: Option<String>,
}

/// `GET /files?list`.
pub(super) async fn root(
    State(gateway): State<SharedGateway>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    if !is_asked(&uri)? {
        return Err(Problem::new(ErrorCode::InvalidName, "the name is empty")
            .next("name a file, or list files with ?list")
            .into());
    }
    page(&gateway, &uri, &headers, "/files").await
}

/// Whether the request is for a listing. Other parameters are judged by whom it concerns.
pub(super) fn is_asked(uri: &Uri) -> Result<bool, Problem> {
    let mut parts = uri.query().unwrap_or("").split('&');
    let asked = parts.any(|part| part == "list" || part.starts_with("list="));
    if asked {
        Query::read(uri, &[PARAMETERS.as_slice(), &["download"]].concat())?.is_set("list")
    } else {
        Ok(false)
    }
}

/// One page of the names under `route`.
pub(super) async fn page(gateway: &Gateway, uri: &Uri, headers: &HeaderMap, route: &str) -> Answer {
    let query = Query::read(uri, &PARAMETERS)?;
    let delimited = match query.get("delimiter") {
        None | Some("") => false,
        Some("/") => true,
        Some(_) => return Err(invalid("`delimiter` must be `/` or absent".into()).into()),
    };
    // The path and the parameter add up, so that `/files/photos/?list&prefix=2024` is natural.
    let path = names::prefix(uri, route)?;
    let prefix = format!("{path}{}", query.get("prefix").unwrap_or(""));
    let prefix = PathPrefix::parse(&prefix).map_err(Problem::from)?;
    let limit = query.limit(DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT)?;
    let after = match query.get("cursor") {
        Some(cursor) => Some(read_cursor(cursor, &prefix, delimited)?),
        None => None,
    };
    let request = ListRequest {
        prefix: prefix.clone(),
        delimited,
        limit,
        after,
    };
    let listed = gateway.tracker.list(request).await.map_err(refused)?;
    let next = listed.next.map(|after| cursor(&after, &prefix, delimited));
    let link = next.as_ref().map(|next| next_link(uri, &query, next));
    let mut response = if wants_ndjson(headers) {
        ndjson(&listed.entries)?
    } else {
        Json(Page {
            prefix,
            delimiter: delimited.then_some("/"),
            entries: listed.entries,
            cursor: next,
        })
        .into_response()
    };
    if let Some(link) = link {
        file::put(response.headers_mut(), LINK, &link);
    }
    Ok(response)
}

fn wants_ndjson(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter();
    accepted.any(|value| {
        let mut media = value.to_str().unwrap_or("").split(',');
        media.any(|media| {
            let media = media.split(';').next().unwrap_or("").trim();
            media.eq_ignore_ascii_case(NDJSON)
        })
    })
}

fn ndjson(entries: &[ListEntry]) -> Result<Response, Problem> {
    let mut text = Vec::new();
    for entry in entries {
        let written = serde_json::to_writer(&mut text, entry);
        written.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        text.push(b'\n');
    }
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from(text)).into_response())
}

/// The same request with the next cursor.
fn next_link(uri: &Uri, query: &Query, cursor: &str) -> String {
    let mut link = format!("<{}?list", uri.path());
    for name in ["prefix", "delimiter", "limit"] {
        if let Some(value) = query.get(name) {
            let _infallible = write!(link, "&{name}={}", names::encode(value));
        }
    }
    format!("{link}&cursor={cursor}>; rel=\"next\"")
}

/// Version, checksum over listing and position, position: base64 that only we can read.
pub(super) fn cursor(after: &str, prefix: &PathPrefix, delimited: bool) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend_from_slice(&seal(after, prefix, delimited).to_be_bytes());
    bytes.extend_from_slice(after.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_cursor(
    text: &str,
    prefix: &PathPrefix,
    delimited: bool,
) -> Result<String, Problem> {
    let foreign = || {
        Problem::new(
            ErrorCode::InvalidCursor,
            "the cursor was not given out for this listing",
        )
        .next("begin again without a cursor")
    };
    // Base64 of the longest position, with room for its frame.
    if text.len() > 2 * MAX_PATH_BYTES {
        return Err(foreign());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| foreign())?;
    let (head, after) = bytes.split_at_checked(5).ok_or_else(foreign)?;
    let after = std::str::from_utf8(after).map_err(|_| foreign())?;
    let mut expected = vec![CURSOR_VERSION];
    expected.extend_from_slice(&seal(after, prefix, delimited).to_be_bytes());
    if head != expected.as_slice() {
        return Err(foreign());
    }
    Ok(after.to_owned())
}

/// Ties a position to its listing. Against mix-ups, not against attackers: a forged cursor only
/// names a place to go on from.
fn seal(after: &str, prefix: &PathPrefix, delimited: bool) -> u32 {
    crc32c(format!("{delimited}\0{prefix}\0{after}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_40_a_cursor_is_good_for_its_listing_only() {
        let prefix = |text: &str| PathPrefix::parse(text).unwrap();
        let given = cursor("a/🦀", &prefix("a/"), true);
        assert_eq!(read_cursor(&given, &prefix("a/"), true), Ok("a/🦀".into()));
        let code = |result: Result<String, Problem>| result.unwrap_err().code();
        for (text, place, delimited) in [
            (given.as_str(), "b/", true),
            (&given, "a/", false),
            (&given[1..], "a/", true),
            ("", "a/", true),
            ("AAAA", "a/", true),
            ("?", "a/", true),
            (&"A".repeat(5000), "a/", true),
        ] {
            let read = read_cursor(text, &prefix(place), delimited);
            assert_eq!(code(read), Some(ErrorCode::InvalidCursor), "{text}");
        }
    }
}
