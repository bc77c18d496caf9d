//! Bytes of a datanode's record. Format 1 is that of every value; format 2 has the claim behind it. A
//! record without a claim is written as format 1, so that a cluster whose datanodes nobody had to
//! admit stays readable for the program before.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use dfs_protocol::datanode::AdminState;

use super::codec;
use super::error::StoreError;
use crate::model::op::{Claim, DatanodeRecord};

/// Format byte of a record with a claim.
pub const CLAIMED_FORMAT: u8 = 2;

const WHAT: &str = "a datanode record";

/// Format 1.
#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    admin: AdminState,
    zone: Option<String>,
    host: Option<String>,
    address: String,
    registered: Timestamp,
}

/// Encodes a record.
pub fn encode(record: &DatanodeRecord) -> Result<Vec<u8>, StoreError> {
    let DatanodeRecord {
        admin,
        zone,
        host,
        address,
        registered,
        claim,
    } = record.clone();
    let plain = Plain {
        admin,
        zone,
        host,
        address,
        registered,
    };
    match claim {
        None => codec::encode(&plain),
        Some(claim) => codec::encode_as(CLAIMED_FORMAT, &(plain, claim)),
    }
}

/// Decodes a record of any format.
pub fn decode(bytes: &[u8]) -> Result<DatanodeRecord, StoreError> {
    let (plain, claim): (Plain, Option<Claim>) = match bytes.split_first() {
        Some((&CLAIMED_FORMAT, body)) => {
            let (plain, claim) = codec::decode_body(WHAT, body)?;
            (plain, Some(claim))
        }
        Some((&format, _)) if format > CLAIMED_FORMAT => {
            return Err(StoreError::FormatUnknown {
                what: WHAT,
                found: format,
                known: CLAIMED_FORMAT,
            });
        }
        _ => (codec::decode(WHAT, bytes)?, None),
    };
    let Plain {
        admin,
        zone,
        host,
        address,
        registered,
    } = plain;
    Ok(DatanodeRecord {
        admin,
        zone,
        host,
        address,
        registered,
        claim,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(claim: Option<Claim>) -> DatanodeRecord {
        DatanodeRecord {
            admin: AdminState::InService,
            zone: Some("z".into()),
            host: None,
            address: "10.0.0.1:6001".into(),
            registered: Timestamp::UNIX_EPOCH,
            claim,
        }
    }

    fn claim() -> Claim {
        Claim {
            pod: "store-datanode-0".into(),
            volume: "6f1c".into(),
        }
    }

    /// What the program before claims existed wrote, byte for byte.
    fn old_bytes() -> Vec<u8> {
        let mut bytes = vec![1, 1, 1, 1, b'z', 0, 13];
        bytes.extend(b"10.0.0.1:6001");
        bytes.push(20);
        bytes.extend(b"1970-01-01T00:00:00Z");
        bytes
    }

    #[test]
    fn records_of_the_first_format_are_read_and_written_as_they_were() {
        assert_eq!(decode(&old_bytes()).unwrap(), record(None));
        assert_eq!(encode(&record(None)).unwrap(), old_bytes());
    }

    #[test]
    fn a_claim_survives_its_bytes() {
        let bytes = encode(&record(Some(claim()))).unwrap();
        assert_eq!(bytes[0], CLAIMED_FORMAT);
        assert_eq!(decode(&bytes).unwrap(), record(Some(claim())));
    }

    #[test]
    fn i13_a_record_that_is_cut_or_newer_is_refused_and_not_guessed_at() {
        let bytes = encode(&record(Some(claim()))).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let newer = [&[3], &bytes[1..]].concat();
        let error = decode(&newer).unwrap_err();
        assert!(matches!(error, StoreError::FormatUnknown { found: 3, .. }));
    }
}
