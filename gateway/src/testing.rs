//! Test helpers.

use dfs_protocol::checksum::crc64nvme;
use dfs_protocol::file::FileRecord;
use dfs_protocol::{FileId, FilePath, VersionId};
use std::collections::BTreeMap;

/// A record without chunks.
pub(crate) fn record(path: &str, content: &[u8]) -> FileRecord {
    let at = jiff::Timestamp::from_second(1_000_000_000).unwrap();
    FileRecord {
        path: FilePath::parse(path).unwrap(),
        file: FileId::from_u128(1),
        version: VersionId::from_u128(2),
        size: content.len() as u64,
        crc64nvme: crc64nvme(content),
        md5: None,
        content_type: "text/plain".into(),
        content_encoding: None,
        metadata: BTreeMap::new(),
        created: at,
        modified: at,
        factor: 3,
        chunks: Vec::new(),
    }
}
