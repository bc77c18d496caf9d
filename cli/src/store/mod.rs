//! The public HTTP API as the verbs call it: one request each, no retries (see [`crate::retry`]).

mod admin;
mod answers;
mod files;

use dfs_client::HttpClient;
use dfs_protocol::{FilePath, PathPrefix};
use dfs_runtime::token::Tokens;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

#[cfg(test)]
pub(crate) use answers::write_crc64;
pub use answers::{
    Checksum, Download, FactorAnswer, FileHead, ListPage, PutAnswer, TrashList, read_crc64,
};
pub use files::{FileGuard, Upload};

/// A store, as seen from its door.
#[derive(Debug, Clone)]
pub struct Store {
    http: HttpClient,
    address: String,
}

impl Store {
    /// The store behind `host:port`.
    pub fn new(http: HttpClient, address: impl Into<String>) -> Self {
        Self {
            http,
            address: address.into(),
        }
    }

    /// Every request carries the cluster token.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self {
            http: self.http.with_tokens(tokens),
            ..self
        }
    }

    /// The store behind another `host:port`, with the token that it takes.
    #[must_use]
    pub fn at(self, address: impl Into<String>, tokens: Tokens) -> Self {
        Self::new(self.http.with_tokens(tokens), address)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether a connection can be opened at all: tells a store that is not there from one that
    /// broke a connection.
    pub async fn is_reachable(&self) -> bool {
        self.http.connector().connect(&self.address).await.is_ok()
    }
}

/// Everything but RFC 3986's unreserved characters: read back the same by every server.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// A path keeps its slashes.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// `/files/PATH`, encoded.
fn file_route(path: &FilePath) -> String {
    format!("/files/{}", utf8_percent_encode(path.as_str(), PATH))
}

/// `/files/PREFIX`, encoded.
fn prefix_route(prefix: &PathPrefix) -> String {
    format!("/files/{}", utf8_percent_encode(prefix.as_str(), PATH))
}

/// A query parameter's value, encoded.
fn parameter(value: &str) -> String {
    utf8_percent_encode(value, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_02_names_are_encoded_once_and_slashes_stay() {
        let route = |name: &str| file_route(&FilePath::parse(name).unwrap());
        assert_eq!(route("a/b c.txt"), "/files/a/b%20c.txt");
        assert_eq!(route("%2e%2e"), "/files/%252e%252e");
        assert_eq!(route("q?x#y&z"), "/files/q%3Fx%23y%26z");
        assert_eq!(route("é+;"), "/files/%C3%A9%2B%3B");
        assert_eq!(parameter("a/b c"), "a%2Fb%20c");
    }
}
