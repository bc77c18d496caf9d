//! What request headers mean, and what answers carry. Pure: text in, decisions out.

pub(crate) mod conditional;
pub(crate) mod dates;
pub(crate) mod digests;
pub(crate) mod disposition;
pub(crate) mod file;
pub(crate) mod range;

use dfs_protocol::{ErrorCode, Problem};
use http::{HeaderMap, header::HeaderName};

/// The value of a header that may stand once; `None` when it is absent.
pub(crate) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::new(
            ErrorCode::BadRequest,
            format!("the header `{name}` stands twice"),
        ));
    }
    match first.map(http::HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim())),
        Some(Err(_)) => Err(Problem::new(
            ErrorCode::BadRequest,
            format!("the header `{name}` is not plain text"),
        )),
    }
}
