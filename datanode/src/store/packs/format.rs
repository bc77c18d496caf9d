//! A pack on disk, format version 1: a header, then entries, each on a boundary of [`ALIGN`] bytes.
//! `docs/formats-datanode.md` gives it byte by byte.
//!
//! An entry's checksum covers where it lies: the pack's number, its salt, its own offset. So a chunk
//! whose bytes look like an entry (somebody stores a copy of a pack) is never taken for one when the
//! place behind damage is searched for.

use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{ChunkKind, ChunkOrigin, SealedChunk};
use dfs_protocol::{ChunkId, ChunkVersion, ClusterId, FileId};

use crate::store::index::ReplicaKey;
use crate::store::record::{
    HINT_AT, HeaderError, MAX_HINT, RecordHeader, RecordState, cut_hint, footer_length,
};

/// Entries begin at multiples of this.
pub const ALIGN: u64 = 512;
/// Bytes of a pack's header; the first entry follows.
pub const PACK_HEADER_LEN: u64 = ALIGN;
/// Bytes of a removal.
pub const REMOVAL_LEN: u64 = ALIGN;
/// Longest header of an entry: that of the longest hint.
pub const MAX_ENTRY_HEADER: u64 = entry_header_length(MAX_HINT);
/// The format that this program writes.
pub const PACK_FORMAT: u16 = 1;

const PACK_MAGIC: &[u8; 8] = b"DFSPACK1";
const ENTRY_MAGIC: &[u8; 8] = b"DFSPREC1";
const PACK_CRC_AT: usize = 508;
/// Salt, number, offset and durable length behind the hint.
const SITE_LEN: usize = 40;

/// What a pack says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHeader {
    /// Its place in the order of packs.
    pub number: u64,
    /// Random; every entry of the pack bears it.
    pub salt: u128,
}

impl PackHeader {
    /// The disk form, [`PACK_HEADER_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(PACK_MAGIC);
        bytes.extend_from_slice(&PACK_FORMAT.to_le_bytes());
        bytes.resize(16, 0);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_be_bytes());
        bytes.resize(PACK_CRC_AT, 0);
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the disk form. Any flipped bit is [`HeaderError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let damaged = HeaderError::Damaged;
        let whole = bytes.get(..PACK_CRC_AT + 4).ok_or(damaged)?;
        let (fields, crc) = whole.split_at(PACK_CRC_AT);
        if !fields.starts_with(PACK_MAGIC) || crc32c(fields).to_le_bytes() != *crc {
            return Err(damaged);
        }
        let format = u16::from_le_bytes(array(fields, 8)?);
        if format != PACK_FORMAT {
            return Err(HeaderError::UnknownFormat(format));
        }
        Ok(Self {
            number: u64::from_le_bytes(array(fields, 16)?),
            salt: u128::from_be_bytes(array(fields, 24)?),
        })
    }
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The pack's number.
    pub number: u64,
    /// The pack's salt.
    pub salt: u128,
    /// The entry's first byte in the pack.
    pub offset: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A sealed chunk: header, data, footer.
    Chunk,
    /// The word that an earlier entry of the same chunk and version is gone.
    Removal,
    /// The pack was closed: everything before this was durable.
    End,
}

/// The header of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Of a removal, only chunk id and version count.
    pub header: RecordHeader,
    /// Bytes of this pack that were durable when it was written.
    pub durable: u64,
}

impl Entry {
    /// A removal.
    pub fn removal((id, version): ReplicaKey, durable: u64) -> Self {
        Self {
            kind: EntryKind::Removal,
            header: nameless(id, version),
            durable,
        }
    }

    /// The word that a pack is closed.
    pub fn end(durable: u64) -> Self {
        Self {
            kind: EntryKind::End,
            header: nameless(ChunkId::from_u128(0), ChunkVersion(0)),
            durable,
        }
    }

    /// The chunk and version that it is about.
    pub fn key(&self) -> ReplicaKey {
        (self.header.chunk.id, self.header.chunk.version)
    }

    /// Bytes of its header.
    pub fn header_length(&self) -> u64 {
        entry_header_length(cut_hint(&self.header.origin.path_hint).len())
    }

    /// Bytes of the whole, to the next boundary.
    pub fn length(&self) -> u64 {
        match self.kind {
            EntryKind::Chunk => entry_length(self.header_length(), self.header.chunk.length),
            EntryKind::Removal | EntryKind::End => self.header_length(),
        }
    }

    /// The disk form of the header. A hint over [`MAX_HINT`] bytes is cut.
    pub fn encode(&self, site: Site) -> Vec<u8> {
        let state = match self.kind {
            EntryKind::Chunk => 1,
            EntryKind::Removal => 2,
            EntryKind::End => 3,
        };
        let mut bytes = self.header.encode_fields(*ENTRY_MAGIC, state);
        let length = entry_header_length(bytes.len() - HINT_AT);
        bytes.extend_from_slice(&site.salt.to_be_bytes());
        bytes.extend_from_slice(&site.number.to_le_bytes());
        bytes.extend_from_slice(&site.offset.to_le_bytes());
        bytes.extend_from_slice(&self.durable.to_le_bytes());
        bytes.resize(usize::try_from(length).unwrap_or(usize::MAX) - 4, 0);
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the entry that begins with `bytes`, with its pack's salt. `None` unless
    /// it is whole and was written for this very place.
    pub fn decode(
        bytes: &[u8],
        number: u64,
        offset: u64,
        salt: Option<u128>,
    ) -> Option<(Self, u128)> {
        if !bytes.starts_with(ENTRY_MAGIC) {
            return None;
        }
        let hint = usize::from(u16::from_le_bytes(array(bytes, HINT_AT - 2).ok()?));
        if hint > MAX_HINT {
            return None;
        }
        let length = usize::try_from(entry_header_length(hint)).ok()?;
        let (fields, crc) = bytes.get(..length)?.split_at(length - 4);
        if crc32c(fields).to_le_bytes() != *crc {
            return None;
        }
        let (state, header) = RecordHeader::decode_fields(fields).ok()?;
        let kind = match state {
            1 => EntryKind::Chunk,
            2 => EntryKind::Removal,
            3 => EntryKind::End,
            _ => return None,
        };
        let site = fields.get(HINT_AT + hint..HINT_AT + hint + SITE_LEN)?;
        let own = u128::from_be_bytes(array(site, 0).ok()?);
        let placed = (
            u64::from_le_bytes(array(site, 16).ok()?),
            u64::from_le_bytes(array(site, 24).ok()?),
        );
        if placed != (number, offset) || salt.is_some_and(|salt| salt != own) {
            return None;
        }
        let durable = u64::from_le_bytes(array(site, 32).ok()?);
        let entry = Self {
            kind,
            header,
            durable,
        };
        Some((entry, own))
    }
}

/// Bytes of an entry's header whose hint has `hint` bytes.
pub const fn entry_header_length(hint: usize) -> u64 {
    ((HINT_AT + hint + SITE_LEN + 4) as u64).next_multiple_of(ALIGN)
}

/// Bytes of an entry of a chunk of `length` bytes, to the next boundary.
pub const fn entry_length(header: u64, length: u64) -> u64 {
    (header + length + footer_length(length)).next_multiple_of(ALIGN)
}

fn nameless(id: ChunkId, version: ChunkVersion) -> RecordHeader {
    RecordHeader {
        state: RecordState::Sealed,
        cluster: ClusterId::from_u128(0),
        chunk: SealedChunk {
            id,
            version,
            length: 0,
            crc32c: 0,
        },
        origin: ChunkOrigin {
            kind: ChunkKind::Data,
            file: FileId::from_u128(0),
            index: 0,
            path_hint: String::new(),
        },
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], HeaderError> {
    let taken = bytes
        .get(at..at + N)
        .and_then(|slice| slice.try_into().ok());
    taken.ok_or(HeaderError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site = Site {
        number: 7,
        salt: 0x5a17,
        offset: 1536,
    };

    fn entry(hint: &str) -> Entry {
        let mut header = nameless(ChunkId::from_u128(5), ChunkVersion(3));
        header.chunk.length = 70_000;
        header.origin.path_hint = hint.to_owned();
        Entry {
            kind: EntryKind::Chunk,
            header,
            durable: 1024,
        }
    }

    #[test]
    fn an_entry_survives_the_disk_and_is_read_at_its_own_place_only() {
        for hint in ["", "a/ü.txt", &"x".repeat(MAX_HINT)] {
            let entry = entry(hint);
            let bytes = entry.encode(SITE);
            assert_eq!(bytes.len() as u64, entry.header_length());
            let read = |number, offset, salt| Entry::decode(&bytes, number, offset, salt);
            assert_eq!(read(7, 1536, None), Some((entry.clone(), SITE.salt)));
            assert_eq!(read(7, 1536, Some(SITE.salt)), Some((entry, SITE.salt)));
            assert_eq!(read(8, 1536, None), None);
            assert_eq!(read(7, 2048, None), None);
            assert_eq!(read(7, 1536, Some(1)), None);
        }
        assert_eq!(MAX_ENTRY_HEADER, 1536);
    }

    #[test]
    fn i04_every_flipped_bit_and_every_cut_of_an_entry_header_is_noticed() {
        let bytes = entry("a/b").encode(SITE);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&flipped, 7, 1536, None), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(Entry::decode(&bytes[..cut], 7, 1536, None), None);
        }
    }

    #[test]
    fn i04_every_flipped_bit_of_a_pack_header_is_noticed_and_a_later_format_is_told() {
        let header = PackHeader { number: 9, salt: 4 };
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, PACK_HEADER_LEN);
        assert_eq!(PackHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(PackHeader::decode(&flipped), Err(HeaderError::Damaged));
        }
        let mut later = bytes;
        later[8] = 2;
        let crc = crc32c(&later[..PACK_CRC_AT]);
        later[PACK_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            PackHeader::decode(&later),
            Err(HeaderError::UnknownFormat(2))
        );
    }
}
