//! What the doors answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_protocol::file::TrashEntry;
use dfs_protocol::upload::ListEntry;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

/// The checksum of a whole file, base64 of its 8 bytes, most significant first.
pub(super) const CRC64_HEADER: &str = "x-amz-checksum-crc64nvme";

/// The answer to an upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Where it lives.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its version.
    pub etag: String,
    /// What the server computed.
    #[serde(default)]
    pub checksum: Checksum,
    /// The chunks, as the server tells them.
    #[serde(default)]
    pub chunks: serde_json::Value,
    /// Datanodes that hold it.
    #[serde(default)]
    pub replicas: serde_json::Value,
    /// Fewest replicas of any chunk.
    #[serde(default)]
    pub replica_count: u32,
    /// Wanted replicas.
    #[serde(default)]
    pub wanted: u32,
}

/// Checksums of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// CRC64-NVME, base64.
    pub crc64nvme: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Clone, Deserialize)]
pub struct ListPage {
    /// Files and common prefixes, in byte order.
    pub entries: Vec<ListEntry>,
    /// Pass it back to go on; none at the end.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// How far the replication factor of files is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorAnswer {
    /// Files looked at.
    pub files: u64,
    /// Those whose factor was changed.
    pub changed: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Chunks that do not have as many replicas as wanted.
    pub chunks_to_go: u64,
    /// Bytes of replicas that are still to be made.
    pub bytes_to_copy: u64,
    /// Bytes of replicas that are more than wanted.
    pub bytes_to_free: u64,
    /// Seconds until the copies are made.
    pub eta_seconds: Option<u64>,
    /// Why the factor cannot be reached now.
    pub unreachable: Option<String>,
    /// Pass it back to go on; none at the end.
    #[serde(skip_serializing)]
    pub cursor: Option<String>,
}

impl FactorAnswer {
    /// Adds what came behind.
    pub fn add(&mut self, next: Self) {
        let Self {
            files,
            changed,
            chunks,
            chunks_to_go,
            bytes_to_copy,
            bytes_to_free,
            eta_seconds,
            unreachable,
            cursor,
        } = next;
        self.files += files;
        self.changed += changed;
        self.chunks += chunks;
        self.chunks_to_go += chunks_to_go;
        self.bytes_to_copy += bytes_to_copy;
        self.bytes_to_free += bytes_to_free;
        let sum = [self.eta_seconds, eta_seconds].into_iter().flatten().sum();
        self.eta_seconds = eta_seconds.map(|_| sum);
        self.unreachable = unreachable.or(self.unreachable.take());
        self.cursor = cursor;
    }
}

/// One page of the trash.
#[derive(Debug, Clone, Deserialize)]
pub struct TrashList {
    /// Oldest first.
    pub entries: Vec<TrashEntry>,
    /// Pass it back to go on; none at the end.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// What the headers tell of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileHead {
    /// Where it lives.
    pub path: String,
    /// Bytes of the whole file.
    pub size: Option<u64>,
    /// Its version, unquoted.
    pub etag: Option<String>,
    /// CRC64-NVME of the whole file, base64.
    pub crc64nvme: Option<String>,
    /// Media type.
    pub content_type: Option<String>,
    /// `Last-Modified`.
    pub modified: Option<String>,
}

/// A download that has begun.
#[derive(Debug)]
pub struct Download {
    /// What the headers tell.
    pub head: FileHead,
    /// Where the body starts in the file: 0, or the offset that was asked for.
    pub start: u64,
    /// The bytes.
    pub body: Incoming,
}

impl FileHead {
    pub(super) fn read(path: &str, headers: &HeaderMap) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self {
            path: path.to_owned(),
            size: text("content-length").and_then(|length| length.parse().ok()),
            etag: text("etag").map(|tag| tag.trim_matches('"').to_owned()),
            crc64nvme: text(CRC64_HEADER),
            content_type: text("content-type"),
            modified: text("last-modified"),
        }
    }
}

impl Download {
    pub(super) fn read(path: &str, response: Response<Incoming>) -> Self {
        let mut head = FileHead::read(path, response.headers());
        let range = response.headers().get("content-range");
        let range = range.and_then(|range| parse_content_range(range.to_str().ok()?));
        let start = match range {
            Some((start, total)) if response.status() == http::StatusCode::PARTIAL_CONTENT => {
                head.size = Some(total);
                start
            }
            _ => 0,
        };
        Self {
            head,
            start,
            body: response.into_body(),
        }
    }
}

/// First byte and total of `bytes 5-9/10`.
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()?))
}

/// Reads a checksum from base64.
pub fn read_crc64(base64: &str) -> Option<u64> {
    let bytes = STANDARD.decode(base64.trim()).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

pub(crate) fn write_crc64(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_survive_their_text() {
        assert_eq!(
            read_crc64(&write_crc64(0xae8b_1486_0a79_9888)),
            Some(0xae8b_1486_0a79_9888)
        );
        for bad in ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAAA"] {
            assert_eq!(read_crc64(bad), None, "{bad}");
        }
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, 10)));
        assert_eq!(parse_content_range("bytes */10"), None);
        assert_eq!(parse_content_range("5-9/10"), None);
    }
}
