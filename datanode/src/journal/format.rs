//! Journal segments byte by byte, and how a damaged one is read. `docs/formats-datanode.md` has
//! the tables.

use dfs_protocol::checksum::crc32c;
use dfs_protocol::{ClusterId, Epoch, Fence, Incarnation};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_LEN: usize = 40;
/// Bytes before a record's payload.
pub const RECORD_HEADER_LEN: usize = 44;
/// Longest payload of one record.
pub const MAX_PAYLOAD: usize = 32 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"DFSJRNL1";
const FORMAT_VERSION: u16 = 1;

/// The header of segment `number`.
pub fn encode_segment_header(number: u64, cluster: ClusterId) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&cluster.to_bytes());
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether `bytes` begin with the header of segment `number`.
pub fn is_segment_header(bytes: &[u8], number: u64) -> bool {
    let Some(header) = bytes.first_chunk::<SEGMENT_HEADER_LEN>() else {
        return false;
    };
    header.starts_with(MAGIC)
        && header[8..10] == FORMAT_VERSION.to_le_bytes()
        && header[12..20] == number.to_le_bytes()
        && header[36..] == crc32c(&header[..36]).to_le_bytes()
}

/// What stands before a record's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// Bytes of payload.
    pub length: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Written under this fence.
    pub fence: Fence,
    /// Position in the journal.
    pub sequence: u64,
    /// Bytes of this segment that were known to be durable when the record was written. It tells
    /// a torn tail (never acknowledged) from rot (was acknowledged).
    pub durable: u64,
}

impl RecordHead {
    /// The disk form.
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.fence.epoch.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.fence.incarnation.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_le_bytes());
        let crc = crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the disk form at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<RECORD_HEADER_LEN>()?;
        if head[40..] != crc32c(&head[..40]).to_le_bytes() {
            return None;
        }
        let u32_at = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(head[at..at + 8].try_into().ok()?));
        Some(Self {
            length: u32_at(0)?,
            payload_crc: u32_at(4)?,
            fence: Fence {
                epoch: Epoch(u64_at(8)?),
                incarnation: Incarnation(u64_at(16)?),
            },
            sequence: u64_at(24)?,
            durable: u64_at(32)?,
        })
    }

    /// Bytes of the whole record.
    pub fn total(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + u64::from(self.length)
    }
}

/// One record found in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where its header begins.
    pub at: u64,
    /// What it says.
    pub head: RecordHead,
}

/// How a segment reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentScan {
    /// Whole records from the beginning.
    pub records: Vec<Found>,
    /// Whole records behind damage that took payloads only: headers lead from one to the next. What a
    /// search through damaged bytes turns up is not among them, since a payload may look like a record.
    pub behind: Vec<Found>,
    /// Where the last of them ends.
    pub end: u64,
    /// What comes after.
    pub tail: Tail,
}

/// What comes after the last whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// Bytes that were never acknowledged: to be cut.
    Torn,
    /// Damage in what was acknowledged.
    Rot {
        /// Highest sequence among the records that still read behind the damage.
        highest: Option<u64>,
        /// Whether every record from the damage to the end is accounted for by its header.
        mapped: bool,
    },
}

/// Reads a whole segment. `is_last` segments may have a torn tail; in others any damage is rot.
pub fn scan(bytes: &[u8], number: u64, is_last: bool) -> SegmentScan {
    let mut scan = SegmentScan {
        records: Vec::new(),
        behind: Vec::new(),
        end: 0,
        tail: Tail::Clean,
    };
    let mut at = 0;
    if is_segment_header(bytes, number) {
        at = SEGMENT_HEADER_LEN;
        while let Some(head) = record_at(bytes, at) {
            scan.records.push(Found {
                at: at as u64,
                head,
            });
            at += RECORD_HEADER_LEN + head.length as usize;
        }
    }
    scan.end = at as u64;
    if at == bytes.len() && at > 0 {
        return scan;
    }
    let mut highest = None;
    let mut acknowledged = false;
    let mut behind = at + 1;
    while behind + RECORD_HEADER_LEN <= bytes.len() {
        match record_at(bytes, behind) {
            Some(head) => {
                highest = highest.max(Some(head.sequence));
                acknowledged |= head.durable > scan.end;
                behind += RECORD_HEADER_LEN + head.length as usize;
            }
            None => behind += 1,
        }
    }
    if is_last && !acknowledged {
        scan.tail = Tail::Torn;
        return scan;
    }
    let upto = follow_headers(bytes, at, &mut scan.behind);
    scan.tail = Tail::Rot {
        highest,
        mapped: upto == bytes.len(),
    };
    scan
}

/// Collects whole records from `at` on, over damaged payloads, until a header does not read. Where.
fn follow_headers(bytes: &[u8], mut at: usize, whole: &mut Vec<Found>) -> usize {
    if at < SEGMENT_HEADER_LEN {
        return at;
    }
    while let Some(head) = bytes.get(at..).and_then(RecordHead::decode) {
        if record_at(bytes, at).is_some() {
            whole.push(Found {
                at: at as u64,
                head,
            });
        }
        at = at.saturating_add(RECORD_HEADER_LEN + head.length as usize);
    }
    at
}

fn record_at(bytes: &[u8], at: usize) -> Option<RecordHead> {
    let rest = bytes.get(at..)?;
    let head = RecordHead::decode(rest)?;
    let payload = rest.get(RECORD_HEADER_LEN..)?.get(..head.length as usize)?;
    (crc32c(payload) == head.payload_crc).then_some(head)
}
