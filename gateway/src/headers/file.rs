//! What a file carries in headers: media type, encoding, user metadata, validators.

use std::collections::BTreeMap;

use dfs_protocol::file::{DEFAULT_CONTENT_TYPE, FileRecord};
use dfs_protocol::{ErrorCode, Problem};
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderName, HeaderValue, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Uri};

use super::{dates, digests, disposition, single};

/// Prefix of the headers that carry user metadata.
const META_PREFIX: &str = "x-dfs-meta-";
/// Bytes of all metadata names and values.
pub(crate) const MAX_METADATA_BYTES: usize = 8 * 1024;
/// Bytes of a media type or an encoding.
const MAX_TYPE_BYTES: usize = 255;
/// CRC64-NVME of the whole file, base64.
const CRC64_HEADER: &str = "x-amz-checksum-crc64nvme";
const REPR_DIGEST: &str = "repr-digest";

/// The media type as given, or the default one.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let given = short(headers, &CONTENT_TYPE)?;
    Ok(given.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned()))
}

/// The encoding as given: stored and sent back, never undone.
pub(crate) fn content_encoding(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    short(headers, &CONTENT_ENCODING)
}

fn short(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let value = single(headers, name)?.filter(|value| !value.is_empty());
    match value {
        Some(value) if value.len() > MAX_TYPE_BYTES => Err(Problem::new(
            ErrorCode::BadRequest,
            format!("the header `{name}` has more than {MAX_TYPE_BYTES} bytes"),
        )),
        value => Ok(value.map(str::to_owned)),
    }
}

/// User metadata; `None` when it is over its limit.
pub(crate) fn metadata(headers: &HeaderMap) -> Result<Option<BTreeMap<String, String>>, Problem> {
    let mut metadata = BTreeMap::new();
    let mut bytes = 0;
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(META_PREFIX) else {
            continue;
        };
        let value = single(headers, name)?.unwrap_or("");
        bytes += key.len() + value.len();
        if bytes > MAX_METADATA_BYTES {
            return Ok(None);
        }
        metadata.insert(key.to_owned(), value.to_owned());
    }
    Ok(Some(metadata))
}

/// `"VERSION"`.
pub(crate) fn etag(file: &FileRecord) -> String {
    format!("\"{}\"", file.version)
}

/// Validators: on 200, 206 and 304 alike.
pub(crate) fn put_validators(headers: &mut HeaderMap, file: &FileRecord) {
    put(headers, ETAG, &etag(file));
    if let Some(date) = dates::format(file.modified) {
        put(headers, LAST_MODIFIED, &date);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

/// What describes the content. `whole`: the checksum of all bytes fits the body.
pub(crate) fn put_content(headers: &mut HeaderMap, file: &FileRecord, whole: bool) {
    put(headers, CONTENT_TYPE, &file.content_type);
    if let Some(encoding) = &file.content_encoding {
        put(headers, CONTENT_ENCODING, encoding);
    }
    for (name, value) in &file.metadata {
        if let Ok(name) = format!("{META_PREFIX}{name}").parse::<HeaderName>() {
            put(headers, name, value);
        }
    }
    if whole {
        let name = HeaderName::from_static(CRC64_HEADER);
        put(headers, name, &digests::crc64_text(file.crc64nvme));
    }
    if let Some(md5) = file.md5 {
        let name = HeaderName::from_static(REPR_DIGEST);
        put(headers, name, &digests::md5_dictionary(md5));
    }
    // Nothing stored here may run as a page of ours.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
}

/// `attachment` when asked for, and for types that a browser would run.
pub(crate) fn put_disposition(headers: &mut HeaderMap, file: &FileRecord, asked: bool) {
    if asked || disposition::is_active(&file.content_type) {
        let value = disposition::attachment(file.path.file_name());
        put(headers, CONTENT_DISPOSITION, &value);
    }
}

/// Where a stored file is read.
pub(crate) fn location(file: &FileRecord) -> String {
    let text = format!("/files/{}", crate::names::encode(file.path.as_str()));
    // An encoded name is always a URI path.
    text.parse::<Uri>().map_or(text, |uri| uri.to_string())
}

/// Sets a header; a value that no header can hold is left out.
pub(crate) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_28_an_encoding_is_kept_as_given() {
        let headers = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
        let headers: HeaderMap = headers.into_iter().collect();
        assert_eq!(content_encoding(&headers), Ok(Some("gzip".into())));
        assert_eq!(content_type(&headers), Ok(DEFAULT_CONTENT_TYPE.into()));
    }

    #[test]
    fn metadata_is_bounded() {
        let with = |length: usize| {
            let name = HeaderName::from_static("x-dfs-meta-a");
            let value = HeaderValue::from_str(&"x".repeat(length)).unwrap();
            metadata(&[(name, value)].into_iter().collect()).unwrap()
        };
        assert_eq!(with(3).unwrap()["a"], "xxx");
        assert!(with(MAX_METADATA_BYTES - 1).is_some());
        assert!(with(MAX_METADATA_BYTES).is_none());
    }
}
