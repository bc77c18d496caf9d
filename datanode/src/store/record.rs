//! One chunk on disk, format version 1: header, data, footer. `docs/formats-datanode.md` gives it
//! byte by byte.
//!
//! The footer's checksum also covers the chunk's id and version, so that data and footer of one
//! chunk under the header of another are noticed (fault 9).

use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{
    BLOCK_SIZE, BLOCK_SIZE_U64, ChunkKind, ChunkOrigin, MAX_CHUNK_SIZE, Replica, SealedChunk,
};
use dfs_protocol::{ChunkId, ChunkVersion, ClusterId, FileId};

/// Bytes of a record's header; data begins here.
pub const HEADER_LEN: usize = 4096;
/// [`HEADER_LEN`] where lengths are counted in u64.
pub const HEADER_LEN_U64: u64 = 4096;
/// Longest path hint that a header holds, in bytes.
pub const MAX_HINT: usize = 1024;
/// The format that this program writes.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"DFSCHNK1";
pub(super) const HINT_AT: usize = 86;
const CRC_AT: usize = HEADER_LEN - 4;

/// Whether a record may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// Being written: length and checksum mean nothing yet.
    Open,
    /// Final.
    Sealed,
}

/// What a record says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Open or sealed.
    pub state: RecordState,
    /// The cluster that the chunk belongs to.
    pub cluster: ClusterId,
    /// Which chunk, with which bytes.
    pub chunk: SealedChunk,
    /// Where the chunk belongs.
    pub origin: ChunkOrigin,
}

/// Bytes that are not a header of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Magic, checksum or a field is wrong.
    #[error("the header is damaged")]
    Damaged,
    /// Whole, but written by another version of the program.
    #[error("the header has format version {0}, this program reads {FORMAT_VERSION}")]
    UnknownFormat(u16),
}

impl RecordHeader {
    /// The replica that this header describes.
    pub fn replica(&self) -> Replica {
        Replica {
            chunk: self.chunk,
            kind: self.origin.kind,
        }
    }

    /// The disk form, [`HEADER_LEN`] bytes. A hint over [`MAX_HINT`] bytes is cut.
    pub fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            RecordState::Open => 0,
            RecordState::Sealed => 1,
        };
        let mut bytes = self.encode_fields(*MAGIC, state);
        bytes.resize(CRC_AT, 0);
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Everything from the magic to the hint's last byte.
    pub(super) fn encode_fields(&self, magic: [u8; 8], state: u8) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&magic);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.push(match self.origin.kind {
            ChunkKind::Data => 1,
            ChunkKind::Checkpoint => 2,
        });
        bytes.push(state);
        bytes.extend_from_slice(&self.cluster.to_bytes());
        bytes.extend_from_slice(&self.chunk.id.to_bytes());
        bytes.extend_from_slice(&self.chunk.version.0.to_le_bytes());
        bytes.extend_from_slice(&self.origin.file.to_bytes());
        bytes.extend_from_slice(&self.origin.index.to_le_bytes());
        bytes.extend_from_slice(&self.chunk.length.to_le_bytes());
        bytes.extend_from_slice(&self.chunk.crc32c.to_le_bytes());
        let block_size = u32::try_from(BLOCK_SIZE).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&block_size.to_le_bytes());
        let hint = cut_hint(&self.origin.path_hint);
        let hint_len = u16::try_from(hint.len()).unwrap_or(0);
        bytes.extend_from_slice(&hint_len.to_le_bytes());
        bytes.extend_from_slice(hint.as_bytes());
        bytes
    }

    /// Reads the disk form. Any flipped bit is [`HeaderError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() != HEADER_LEN || !bytes.starts_with(MAGIC) {
            return Err(HeaderError::Damaged);
        }
        let stored = Reader {
            bytes,
            position: CRC_AT,
        }
        .u32()?;
        if crc32c(&bytes[..CRC_AT]) != stored {
            return Err(HeaderError::Damaged);
        }
        let (state, mut header) = Self::decode_fields(bytes)?;
        header.state = match state {
            0 => RecordState::Open,
            1 => RecordState::Sealed,
            _ => return Err(HeaderError::Damaged),
        };
        Ok(header)
    }

    /// Reads what [`RecordHeader::encode_fields`] wrote, of bytes whose checksum was right: the state
    /// byte, and the header as if it was sealed.
    pub(super) fn decode_fields(bytes: &[u8]) -> Result<(u8, Self), HeaderError> {
        let mut at = Reader { bytes, position: 8 };
        let format = u16::from_le_bytes(at.take()?);
        if format != FORMAT_VERSION {
            return Err(HeaderError::UnknownFormat(format));
        }
        let kind = match at.take::<1>()? {
            [1] => ChunkKind::Data,
            [2] => ChunkKind::Checkpoint,
            [_] => return Err(HeaderError::Damaged),
        };
        let [state] = at.take()?;
        let cluster = ClusterId::from_bytes(at.take()?);
        let id = ChunkId::from_bytes(at.take()?);
        let version = ChunkVersion(at.u32()?);
        let file = FileId::from_bytes(at.take()?);
        let index = at.u32()?;
        let length = u64::from_le_bytes(at.take()?);
        let crc = at.u32()?;
        let block_size = at.u32()?;
        let hint_len = usize::from(u16::from_le_bytes(at.take()?));
        let sound = length <= MAX_CHUNK_SIZE
            && usize::try_from(block_size) == Ok(BLOCK_SIZE)
            && hint_len <= MAX_HINT;
        let hint = bytes.get(HINT_AT..HINT_AT + hint_len).unwrap_or_default();
        let Ok(path_hint) = std::str::from_utf8(hint) else {
            return Err(HeaderError::Damaged);
        };
        if !sound {
            return Err(HeaderError::Damaged);
        }
        let header = Self {
            state: RecordState::Sealed,
            cluster,
            chunk: SealedChunk {
                id,
                version,
                length,
                crc32c: crc,
            },
            origin: ChunkOrigin {
                kind,
                file,
                index,
                path_hint: path_hint.to_owned(),
            },
        };
        Ok((state, header))
    }
}

/// Blocks of a chunk of `length` bytes.
pub const fn block_count(length: u64) -> u64 {
    length.div_ceil(BLOCK_SIZE_U64)
}

/// Bytes of a sealed record that holds `length` bytes of data.
pub const fn record_length(length: u64) -> u64 {
    HEADER_LEN_U64 + length + footer_length(length)
}

/// Bytes of the footer after `length` bytes of data.
pub const fn footer_length(length: u64) -> u64 {
    block_count(length) * 4 + 4
}

/// The footer: each block's CRC32C, then a CRC32C over id, version and those.
pub fn encode_footer(id: ChunkId, version: ChunkVersion, blocks: &[u32]) -> Vec<u8> {
    let mut table = Vec::with_capacity(blocks.len() * 4 + 4);
    for crc in blocks {
        table.extend_from_slice(&crc.to_le_bytes());
    }
    let crc = footer_crc(id, version, &table);
    table.extend_from_slice(&crc.to_le_bytes());
    table
}

/// Reads a footer; `None` when it is damaged or another chunk's.
pub fn decode_footer(id: ChunkId, version: ChunkVersion, bytes: &[u8]) -> Option<Vec<u32>> {
    let (table, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let stored = u32::from_le_bytes(crc.try_into().ok()?);
    if footer_crc(id, version, table) != stored {
        return None;
    }
    let blocks = table.chunks_exact(4).map(|b| {
        b.iter()
            .rev()
            .fold(0, |crc, byte| crc << 8 | u32::from(*byte))
    });
    Some(blocks.collect())
}

fn footer_crc(id: ChunkId, version: ChunkVersion, table: &[u8]) -> u32 {
    let mut bytes = Vec::with_capacity(20 + table.len());
    bytes.extend_from_slice(&id.to_bytes());
    bytes.extend_from_slice(&version.0.to_le_bytes());
    bytes.extend_from_slice(table);
    crc32c(&bytes)
}

pub(super) fn cut_hint(hint: &str) -> &str {
    let mut end = hint.len().min(MAX_HINT);
    while !hint.is_char_boundary(end) {
        end -= 1;
    }
    &hint[..end]
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let end = self.position + N;
        let taken = self.bytes.get(self.position..end);
        self.position = end;
        taken
            .and_then(|slice| slice.try_into().ok())
            .ok_or(HeaderError::Damaged)
    }

    fn u32(&mut self) -> Result<u32, HeaderError> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            state: RecordState::Sealed,
            cluster: ClusterId::from_u128(0xc1),
            chunk: SealedChunk {
                id: ChunkId::from_u128(0xabcd),
                version: ChunkVersion(3),
                length: 70_000,
                crc32c: 0x1234_5678,
            },
            origin: ChunkOrigin {
                kind: ChunkKind::Data,
                file: FileId::from_u128(9),
                index: 4,
                path_hint: "a/ü.txt".into(),
            },
        }
    }

    #[test]
    fn a_header_survives_the_disk() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(RecordHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn i04_every_flipped_bit_of_a_header_is_noticed() {
        let bytes = header().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                RecordHeader::decode(&flipped),
                Err(HeaderError::Damaged),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn i32_headers_of_any_length_and_content_are_refused_not_feared() {
        for length in [0, 1, 8, 86, 4095, 4097] {
            assert!(RecordHeader::decode(&vec![0; length]).is_err());
            assert!(RecordHeader::decode(&vec![0xff; length]).is_err());
        }
    }

    #[test]
    fn a_header_of_a_later_format_is_told_from_a_damaged_one() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let crc = crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            RecordHeader::decode(&bytes),
            Err(HeaderError::UnknownFormat(2))
        );
    }

    #[test]
    fn a_hint_is_cut_between_characters() {
        let mut long = header();
        long.origin.path_hint = format!("a{}", "ü".repeat(600));
        let read = RecordHeader::decode(&long.encode()).unwrap();
        assert_eq!(read.origin.path_hint.len(), 1023);
    }

    #[test]
    fn i04_every_flipped_bit_of_a_footer_and_every_other_chunk_is_noticed() {
        let (id, version) = (ChunkId::from_u128(7), ChunkVersion(1));
        let blocks = [1, 0xdead_beef, u32::MAX];
        let bytes = encode_footer(id, version, &blocks);
        assert_eq!(decode_footer(id, version, &bytes).unwrap(), blocks);
        assert!(decode_footer(ChunkId::from_u128(8), version, &bytes).is_none());
        assert!(decode_footer(id, ChunkVersion(2), &bytes).is_none());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_footer(id, version, &flipped).is_none(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode_footer(id, version, &bytes[..cut]).is_none());
        }
    }
}
