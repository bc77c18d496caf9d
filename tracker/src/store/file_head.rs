//! The head of a stored file record: what a listing shows. What it does not show is passed over where it lies, and
//! the chunks behind the head, which may be thousands, are not looked at.

use dfs_protocol::upload::ListEntry;
use dfs_protocol::{FileId, FilePath, VersionId};
use jiff::Timestamp;
use serde::Deserialize;

use super::codec::VALUE_FORMAT;
use super::error::StoreError;
use super::factor_value::OWN_FACTOR_FORMAT;

/// The first fields of a `FileRecord`, in its order (`docs/formats-catalog.md`).
#[derive(Deserialize)]
struct FileHead<'a> {
    path: &'a str,
    _file: FileId,
    version: VersionId,
    size: u64,
    _crc64nvme: u64,
    _md5: Option<[u8; 16]>,
    content_type: &'a str,
    _content_encoding: Option<&'a str>,
    /// A map is written as the sequence of its pairs.
    #[serde(borrow)]
    _metadata: Vec<(&'a str, &'a str)>,
    _created: &'a str,
    #[serde(deserialize_with = "dfs_protocol::timestamp::deserialize")]
    modified: Timestamp,
}

/// A line of a listing from the bytes of a file record, of either format.
pub(super) fn entry(bytes: &[u8]) -> Result<ListEntry, StoreError> {
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt {
        detail: format!("a file record cannot be decoded: {error}"),
    };
    let body = match bytes.split_first() {
        Some((&(VALUE_FORMAT | OWN_FACTOR_FORMAT), body)) => body,
        Some((&found, _)) => {
            return Err(StoreError::FormatUnknown {
                what: "a file record",
                found,
                known: OWN_FACTOR_FORMAT,
            });
        }
        None => return Err(corrupt(&"it is empty")),
    };
    let (head, _chunks) =
        postcard::take_from_bytes::<FileHead<'_>>(body).map_err(|error| corrupt(&error))?;
    Ok(ListEntry::File {
        path: FilePath::parse(head.path).map_err(|error| corrupt(&error))?,
        size: head.size,
        etag: head.version,
        modified: head.modified,
        content_type: head.content_type.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use dfs_protocol::chunk::SealedChunk;
    use dfs_protocol::file::FileRecord;
    use dfs_protocol::{ChunkId, ChunkVersion};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::store::factor_value::{self, Factored as _};

    fn moments() -> impl Strategy<Value = Timestamp> {
        let seconds = Timestamp::MIN.as_second()..Timestamp::MAX.as_second();
        (seconds, 0..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
    }

    prop_compose! {
        fn records()(
            path in "[a-zé🦀 ]{1,20}(/[a-z]{1,5}){0,3}",
            (file, version, size, crc64nvme) in any::<(u128, u128, u64, u64)>(),
            md5 in any::<Option<[u8; 16]>>(),
            content_type in ".{0,30}",
            content_encoding in proptest::option::of("[a-z]{0,9}"),
            metadata in btree_map("[a-z-]{1,9}", ".{0,200}", 0..4),
            (created, modified) in (moments(), moments()),
            (factor, own_factor) in any::<(u32, bool)>(),
            chunks in vec(any::<(u128, u32, u64, u32)>(), 0..4),
        ) -> FileRecord {
            let chunk = |(id, version, length, crc32c): (u128, u32, u64, u32)| SealedChunk {
                id: ChunkId::from_u128(id),
                version: ChunkVersion(version),
                length,
                crc32c,
            };
            FileRecord {
                path: FilePath::parse(&path).unwrap(),
                file: FileId::from_u128(file),
                version: VersionId::from_u128(version),
                size,
                crc64nvme,
                md5,
                content_type,
                content_encoding,
                metadata,
                created,
                modified,
                factor,
                chunks: chunks.into_iter().map(chunk).collect(),
                own_factor,
            }
        }
    }

    proptest! {
        #[test]
        fn the_head_says_of_any_record_what_the_whole_record_says(record in records()) {
            let bytes = record.to_value().unwrap();
            let whole: FileRecord = factor_value::decode(&bytes).unwrap();
            prop_assert_eq!(&whole, &record);
            let expected = ListEntry::File {
                path: whole.path,
                size: whole.size,
                etag: whole.version,
                modified: whole.modified,
                content_type: whole.content_type,
            };
            prop_assert_eq!(entry(&bytes).unwrap(), expected);
        }

        #[test]
        fn i13_a_record_cut_in_its_head_is_refused(record in records(), cut in any::<prop::sample::Index>()) {
            let headless = FileRecord { chunks: Vec::new(), ..record };
            let bytes = headless.to_value().unwrap();
            // Behind the head stand the factor and the number of chunks, a byte each at least.
            let cut = cut.index(bytes.len() - 6);
            let refused = matches!(
                entry(&bytes[..cut]),
                Err(StoreError::Corrupt { .. })
            );
            prop_assert!(refused, "cut at {}", cut);
        }
    }

    #[test]
    fn a_newer_format_is_named_and_not_guessed_at() {
        let newer = entry(&[9, 1, 2, 3]);
        assert!(matches!(
            newer,
            Err(StoreError::FormatUnknown { found: 9, .. })
        ));
    }
}
