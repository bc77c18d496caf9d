//! Bytes of records that hold a replication factor: files, trash entries, chunks. Format 1 is that of
//! every value and says that the cluster's factor is meant, whatever it is by now. Format 2 says
//! that the factor was set for this file, or that some of those that name the chunk have one of
//! their own. What nobody set a factor for is written as format 1, so that it stays readable for the
//! program before.

use dfs_protocol::file::{FileRecord, TrashEntry};

use super::codec;
use super::error::StoreError;
use crate::model::op::{ChunkRecord, OwnFactors};

/// Format byte of a record with a factor of its own.
pub const OWN_FACTOR_FORMAT: u8 = 2;

/// A record whose bytes tell whether it has a factor of its own.
pub(super) trait Factored: Sized {
    /// Names it in errors.
    const WHAT: &'static str;

    /// Its bytes, of either format.
    fn to_value(&self) -> Result<Vec<u8>, StoreError>;

    /// Reads what follows the format byte.
    fn from_body(own: bool, body: &[u8]) -> Result<Self, StoreError>;
}

/// Decodes a record of any format.
pub(super) fn decode<T: Factored>(bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&codec::VALUE_FORMAT, body)) => T::from_body(false, body),
        Some((&OWN_FACTOR_FORMAT, body)) => T::from_body(true, body),
        Some((&found, _)) => Err(StoreError::FormatUnknown {
            what: T::WHAT,
            found,
            known: OWN_FACTOR_FORMAT,
        }),
        None => Err(StoreError::Corrupt {
            detail: format!("{} is empty", T::WHAT),
        }),
    }
}

impl Factored for FileRecord {
    const WHAT: &'static str = "a file record";

    fn to_value(&self) -> Result<Vec<u8>, StoreError> {
        codec::encode_as(format_of(self.own_factor), self)
    }

    fn from_body(own: bool, body: &[u8]) -> Result<Self, StoreError> {
        let mut file: Self = codec::decode_body(Self::WHAT, body)?;
        file.own_factor = own;
        Ok(file)
    }
}

impl Factored for TrashEntry {
    const WHAT: &'static str = "a trash entry";

    fn to_value(&self) -> Result<Vec<u8>, StoreError> {
        codec::encode_as(format_of(self.file.own_factor), self)
    }

    fn from_body(own: bool, body: &[u8]) -> Result<Self, StoreError> {
        let mut entry: Self = codec::decode_body(Self::WHAT, body)?;
        entry.file.own_factor = own;
        Ok(entry)
    }
}

impl Factored for ChunkRecord {
    const WHAT: &'static str = "a chunk record";

    fn to_value(&self) -> Result<Vec<u8>, StoreError> {
        if self.own.is_empty() {
            codec::encode(self)
        } else {
            codec::encode_as(OWN_FACTOR_FORMAT, &(self, self.own))
        }
    }

    fn from_body(own: bool, body: &[u8]) -> Result<Self, StoreError> {
        if !own {
            return codec::decode_body(Self::WHAT, body);
        }
        let (chunk, own): (Self, OwnFactors) = codec::decode_body(Self::WHAT, body)?;
        Ok(Self { own, ..chunk })
    }
}

fn format_of(own: bool) -> u8 {
    if own {
        OWN_FACTOR_FORMAT
    } else {
        codec::VALUE_FORMAT
    }
}
