//! Bytes of values and batches. A value is one format byte and postcard; a batch is a list of key
//! changes. `docs/formats-catalog.md` shows both byte by byte.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::kv::{Table, WriteTxn};

/// Format byte of values that this program writes.
pub const VALUE_FORMAT: u8 = 1;
/// Format byte of batches that this program writes.
pub const BATCH_FORMAT: u8 = 1;

const DELETE: u8 = 0;
const PUT: u8 = 1;

/// One key and what became of it: a value, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Which table.
    pub table: Table,
    /// Which key, at most 65,535 bytes.
    pub key: Vec<u8>,
    /// The new value; none deletes.
    pub value: Option<Vec<u8>>,
}

/// Encodes a value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    encode_as(VALUE_FORMAT, value)
}

/// As [`encode`], in another format.
pub(super) fn encode_as<T: Serialize>(format: u8, value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(value, vec![format]).map_err(|error| StoreError::Engine {
        detail: format!("encoding a value failed: {error}"),
    })
}

/// Decodes what [`encode`] wrote; `what` names it in errors.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VALUE_FORMAT, body)) => decode_body(what, body),
        Some((&found, _)) => Err(StoreError::FormatUnknown {
            what,
            found,
            known: VALUE_FORMAT,
        }),
        None => Err(StoreError::Corrupt {
            detail: format!("{what} is empty"),
        }),
    }
}

/// Decodes what follows the format byte.
pub(super) fn decode_body<T: DeserializeOwned>(
    what: &'static str,
    body: &[u8],
) -> Result<T, StoreError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(StoreError::Corrupt {
            detail: format!("{what} has {} bytes too many", rest.len()),
        }),
        Err(error) => Err(StoreError::Corrupt {
            detail: format!("{what} cannot be decoded: {error}"),
        }),
    }
}

/// Encodes changes, in their order.
pub fn encode_batch<'a>(changes: impl IntoIterator<Item = &'a KeyChange>) -> Vec<u8> {
    let mut bytes = vec![BATCH_FORMAT];
    for change in changes {
        push_change(
            &mut bytes,
            change.table,
            &change.key,
            change.value.as_deref(),
        );
    }
    bytes
}

/// Appends one change to a batch's bytes. Keys are paths, ids and names: far below 65,535 bytes.
pub(super) fn push_change(bytes: &mut Vec<u8>, table: Table, key: &[u8], value: Option<&[u8]>) {
    bytes.push(table as u8);
    bytes.push(if value.is_some() { PUT } else { DELETE });
    let key_length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&key_length.to_le_bytes());
    bytes.extend_from_slice(&key[..usize::from(key_length)]);
    if let Some(value) = value {
        let value_length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&value_length.to_le_bytes());
        bytes.extend_from_slice(value);
    }
}

/// Decodes a batch.
pub fn decode_batch(bytes: &[u8]) -> Result<Vec<KeyChange>, StoreError> {
    let mut rest = match bytes.split_first() {
        Some((&BATCH_FORMAT, rest)) => rest,
        Some((&found, _)) => {
            return Err(StoreError::FormatUnknown {
                what: "a batch",
                found,
                known: BATCH_FORMAT,
            });
        }
        None => return Err(bad_batch(bytes.len())),
    };
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let position = bytes.len() - rest.len();
        let (change, behind) = take_change(rest).ok_or_else(|| bad_batch(position))?;
        changes.push(change);
        rest = behind;
    }
    Ok(changes)
}

fn take_change(bytes: &[u8]) -> Option<(KeyChange, &[u8])> {
    let ([table, tag], rest) = bytes.split_first_chunk::<2>()?;
    let table = Table::from_byte(*table).filter(|table| *table != Table::Journal)?;
    let (key_length, rest) = rest.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_length)))?;
    let (value, rest) = match *tag {
        DELETE => (None, rest),
        PUT => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            (Some(value.to_vec()), rest)
        }
        _ => return None,
    };
    let key = key.to_vec();
    Some((KeyChange { table, key, value }, rest))
}

fn bad_batch(position: usize) -> StoreError {
    StoreError::Corrupt {
        detail: format!("a batch makes no sense at byte {position}"),
    }
}

/// Writes changes into a transaction.
pub fn replay(changes: &[KeyChange], txn: &mut dyn WriteTxn) -> Result<(), StoreError> {
    for change in changes {
        match &change.value {
            Some(value) => txn.put(change.table, &change.key, value)?,
            None => txn.delete(change.table, &change.key)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Vec<KeyChange> {
        vec![
            KeyChange {
                table: Table::Files,
                key: b"a/b".to_vec(),
                value: Some(vec![1, 2, 3]),
            },
            KeyChange {
                table: Table::Condemned,
                key: vec![0; 16],
                value: None,
            },
            KeyChange {
                table: Table::Meta,
                key: Vec::new(),
                value: Some(Vec::new()),
            },
        ]
    }

    #[test]
    fn a_batch_survives_its_bytes() {
        assert_eq!(decode_batch(&encode_batch(&batch())).unwrap(), batch());
        assert_eq!(decode_batch(&encode_batch(&[])).unwrap(), []);
    }

    #[test]
    fn i13_a_batch_cut_at_any_byte_is_refused_or_shorter_never_different() {
        let bytes = encode_batch(&batch());
        for cut in 0..bytes.len() {
            if let Ok(changes) = decode_batch(&bytes[..cut]) {
                assert_eq!(changes, batch()[..changes.len()], "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_named_and_not_guessed_at() {
        let mut bytes = encode(&7u64).unwrap();
        assert_eq!(decode::<u64>("a number", &bytes).unwrap(), 7);
        bytes[0] = 9;
        assert!(matches!(
            decode::<u64>("a number", &bytes),
            Err(StoreError::FormatUnknown { found: 9, .. })
        ));
        assert!(decode::<u64>("a number", &[]).is_err());
        assert!(decode::<u64>("a number", &[1, 7, 7]).is_err());
    }
}
