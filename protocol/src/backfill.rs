//! The body of a [`crate::datanode::JournalBackfill`]: for each record its sequence, u64, the length of its
//! payload, u32, both little-endian, and the payload. Sequences rise by one.

use crate::datanode::JournalRecord;

/// Records of one backfill that a datanode takes at most.
pub const MAX_RECORDS: usize = 1024;
/// Bytes before each payload.
pub const RECORD_HEAD_LEN: usize = 12;

/// Why a body is no backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    /// It ends within a record.
    #[error("the body ends within a record")]
    Truncated,
    /// It says nothing.
    #[error("the body holds no record")]
    Empty,
    /// A sequence that no record has, or that does not follow the one before it.
    #[error("record {sequence} does not follow the one before it, or has no place in a journal")]
    OutOfOrder {
        /// Which.
        sequence: u64,
    },
    /// More than [`MAX_RECORDS`].
    #[error("the body holds more than {MAX_RECORDS} records")]
    TooMany,
}

/// Whether a journal has a place for a record of this sequence: there is always a next one.
pub const fn is_sequence(sequence: u64) -> bool {
    sequence != 0 && sequence != u64::MAX
}

/// Records as a body.
pub fn encode(records: &[JournalRecord]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        let length = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&record.sequence.to_le_bytes());
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&record.payload);
    }
    body
}

/// Sequences and payloads of a body: at least one, at most [`MAX_RECORDS`], in order without a gap.
pub fn decode(mut body: &[u8]) -> Result<Vec<(u64, &[u8])>, BackfillError> {
    let mut records: Vec<(u64, &[u8])> = Vec::new();
    while !body.is_empty() {
        let (sequence, payload, rest) = split_record(body).ok_or(BackfillError::Truncated)?;
        let expected = records.last().and_then(|(last, _)| last.checked_add(1));
        if !is_sequence(sequence) || expected.is_some_and(|expected| sequence != expected) {
            return Err(BackfillError::OutOfOrder { sequence });
        }
        if records.len() >= MAX_RECORDS {
            return Err(BackfillError::TooMany);
        }
        records.push((sequence, payload));
        body = rest;
    }
    if records.is_empty() {
        return Err(BackfillError::Empty);
    }
    Ok(records)
}

fn split_record(body: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((u64::from_le_bytes(*sequence), payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fence;

    fn body(sequences: &[u64]) -> Vec<u8> {
        let record = |sequence: &u64| JournalRecord {
            fence: Fence::default(),
            sequence: *sequence,
            payload: sequence.to_le_bytes().to_vec(),
        };
        encode(&sequences.iter().map(record).collect::<Vec<_>>())
    }

    #[test]
    fn records_come_back_as_they_were_sent() {
        let body = body(&[7, 8, 9]);
        let records = decode(&body).unwrap();
        let expected: Vec<[u8; 8]> = [7u64, 8, 9].map(u64::to_le_bytes).into();
        let payloads: Vec<&[u8]> = records.iter().map(|(_, payload)| *payload).collect();
        assert_eq!(payloads, expected);
        assert_eq!(
            records.iter().map(|one| one.0).collect::<Vec<_>>(),
            [7, 8, 9]
        );
    }

    #[test]
    fn i32_a_body_that_is_empty_out_of_order_or_beyond_the_last_sequence_is_refused() {
        assert_eq!(decode(&[]), Err(BackfillError::Empty));
        let last = u64::MAX - 1;
        assert!(decode(&body(&[last])).is_ok());
        for (sequences, sequence) in [
            (&[0][..], 0),
            (&[u64::MAX], u64::MAX),
            (&[last, u64::MAX], u64::MAX),
            (&[last, 0], 0),
            (&[5, 5], 5),
            (&[5, 4], 4),
            (&[5, 7], 7),
            (&[5, 6, u64::MAX], u64::MAX),
        ] {
            let body = body(sequences);
            let expected = Err(BackfillError::OutOfOrder { sequence });
            assert_eq!(decode(&body), expected, "{sequences:?}");
        }
    }

    #[test]
    fn i32_a_body_of_too_many_records_is_refused_before_it_takes_memory() {
        let most: Vec<u64> = (1..=MAX_RECORDS as u64).collect();
        assert_eq!(decode(&body(&most)).unwrap().len(), MAX_RECORDS);
        let over: Vec<u64> = (1..=MAX_RECORDS as u64 + 1).collect();
        assert_eq!(decode(&body(&over)), Err(BackfillError::TooMany));
    }

    #[test]
    fn i32_a_body_cut_at_any_byte_within_a_record_is_refused() {
        let whole = body(&[1, 2]);
        for end in 1..whole.len() {
            let decoded = decode(&whole[..end]);
            if end == whole.len() / 2 {
                assert_eq!(decoded.unwrap().len(), 1);
            } else {
                assert_eq!(decoded, Err(BackfillError::Truncated), "cut at {end}");
            }
        }
        // A length beyond the body, up to the largest.
        let mut long = body(&[1]);
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&long), Err(BackfillError::Truncated));
    }

    #[test]
    fn i32_of_a_body_with_any_bit_turned_only_records_in_order_come_back() {
        let whole = body(&[1, 2, 3]);
        for bit in 0..whole.len() * 8 {
            let mut turned = whole.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            if let Ok(records) = decode(&turned) {
                let mut pairs = records.windows(2);
                assert!(pairs.all(|two| two[0].0 + 1 == two[1].0), "bit {bit}");
            }
        }
    }
}
