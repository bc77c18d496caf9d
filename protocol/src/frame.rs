//! Frames of the chunk stream: what writers, hops and readers of a chunk say over one connection.
//!
//! A frame is a 24-byte header and a payload. Header, little-endian: kind u8, three zero bytes,
//! payload length u32, payload CRC32C u32, offset u64, CRC32C of the first 20 bytes u32. A block
//! frame carries at most one 64 KiB block, so its payload CRC is the block's checksum: computed
//! once by the writer, verified at every hop, stored beside the block and verified by the reader.

use std::ops::Range;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::checksum::crc32c;
use crate::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, ChunkOrigin, DatanodeAddress, SealedChunk};
use crate::ids::{ChunkId, ChunkVersion, ClusterId, DatanodeId, Fence};
use crate::trace::TraceContext;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 24;
/// No frame's payload is longer. Control frames hold JSON; block frames one block.
pub const MAX_PAYLOAD: usize = BLOCK_SIZE;
/// Progress is confirmed each time this many bytes arrived.
pub const PROGRESS_STEP: u64 = 1024 * 1024;
/// Value of the `Upgrade` header that turns a connection into a chunk write stream.
pub const WRITE_STREAM_PROTOCOL: &str = "dfs-chunk-write/1";
/// Value of the `Upgrade` header that turns a connection into one on which chunks are read.
pub const READ_STREAM_PROTOCOL: &str = "dfs-chunk-read/1";
/// Media type of a chunk read as block frames.
pub const BLOCK_STREAM_MEDIA_TYPE: &str = "application/vnd.dfs.blocks";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Writer: begins a chunk; payload [`OpenChunk`].
    Open = 1,
    /// Writer or reader's source: one block at `offset`.
    Block = 2,
    /// Writer: no more blocks; payload [`SealedChunk`]: the whole as the writer saw it.
    Seal = 3,
    /// Writer: drop what was written; no payload, no answer.
    Abort = 4,
    /// Writer: begins a chunk that is one block; payload [`OpenChunk`]. The block follows at once and
    /// is the whole chunk: no seal, no [`FrameKind::Opened`], one answer when it is durable. Only to a
    /// datanode whose upgrade answer says [`crate::routes::TAKES_WHOLE_HEADER`].
    Whole = 5,
    /// Reader: asks for blocks; payload [`ReadChunk`]. Answered by [`FrameKind::Checksums`] or [`FrameKind::Refused`].
    Read = 6,
    /// Datanode: the chunk is open here and on every hop after; no payload.
    Opened = 16,
    /// Datanode: every live hop from here on has the bytes before `offset`; no payload.
    Progress = 17,
    /// Datanode: sealed and durable; payload [`SealedReport`].
    Sealed = 18,
    /// Datanode: the chunk failed; payload [`HopFailure`]. The connection may carry the next chunk.
    Failed = 19,
    /// Reader's source: the requested range is complete; payload none.
    End = 20,
    /// Reader's source: CRC32C of each block that was asked for, u32 each, the first one at `offset`. Their bytes follow at once, without
    /// frames, as they lie on the disk: the reader must verify each.
    Checksums = 21,
    /// Reader's source: nothing of what was asked for comes; payload [`crate::Problem`]. The connection may carry the next read.
    Refused = 22,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Block,
            3 => Self::Seal,
            4 => Self::Abort,
            5 => Self::Whole,
            6 => Self::Read,
            16 => Self::Opened,
            17 => Self::Progress,
            18 => Self::Sealed,
            19 => Self::Failed,
            20 => Self::End,
            21 => Self::Checksums,
            22 => Self::Refused,
            _ => return None,
        })
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: FrameKind,
    /// Bytes that follow.
    pub length: u32,
    /// CRC32C of them.
    pub crc32c: u32,
    /// Position in the chunk, for blocks and progress.
    pub offset: u64,
}

/// Bytes that are not a frame. The connection is of no use after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header's own checksum is wrong: damaged or not our protocol.
    #[error("a frame header is damaged")]
    Header,
    /// A kind that this version does not know.
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    /// Longer than any frame may be.
    #[error("a frame of {0} bytes is longer than the limit of {MAX_PAYLOAD}")]
    TooLong(u32),
    /// The payload does not match its checksum.
    #[error("a frame's payload is damaged at offset {offset}")]
    Payload {
        /// The frame's offset.
        offset: u64,
    },
    /// A control frame's payload is not what its kind says.
    #[error("a control frame's payload is malformed")]
    Malformed,
}

impl FrameHeader {
    /// The header of a frame with this payload.
    pub fn describe(kind: FrameKind, offset: u64, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Self {
            kind,
            length,
            crc32c: crc32c(payload),
            offset,
        }
    }

    /// The wire form.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc32c.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.offset.to_le_bytes());
        let own = crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [
            kind,
            zero1,
            zero2,
            zero3,
            l0,
            l1,
            l2,
            l3,
            c0,
            c1,
            c2,
            c3,
            offset @ ..,
            o0,
            o1,
            o2,
            o3,
        ] = bytes;
        if crc32c(&bytes[..20]) != u32::from_le_bytes([*o0, *o1, *o2, *o3])
            || [*zero1, *zero2, *zero3] != [0; 3]
        {
            return Err(FrameError::Header);
        }
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let offset: &[u8; 8] = offset;
        Ok(Self {
            kind: FrameKind::from_byte(*kind).ok_or(FrameError::UnknownKind(*kind))?,
            length,
            crc32c: u32::from_le_bytes([*c0, *c1, *c2, *c3]),
            offset: u64::from_le_bytes(*offset),
        })
    }

    /// Checks a payload against this header.
    pub fn verify(&self, payload: &[u8]) -> Result<(), FrameError> {
        if payload.len() == self.length as usize && crc32c(payload) == self.crc32c {
            Ok(())
        } else {
            Err(FrameError::Payload {
                offset: self.offset,
            })
        }
    }
}

/// A whole control frame, header and JSON payload.
///
/// `None` when the payload would exceed [`MAX_PAYLOAD`].
pub fn control<T: Serialize>(kind: FrameKind, payload: &T) -> Option<Vec<u8>> {
    let payload = serde_json::to_vec(payload)
        .ok()
        .filter(|json| json.len() <= MAX_PAYLOAD)?;
    let mut frame = FrameHeader::describe(kind, 0, &payload).encode().to_vec();
    frame.extend_from_slice(&payload);
    Some(frame)
}

/// A whole frame without payload.
pub fn signal(kind: FrameKind, offset: u64) -> [u8; HEADER_LEN] {
    FrameHeader::describe(kind, offset, &[]).encode()
}

/// Reads a control frame's payload.
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|_| FrameError::Malformed)
}

/// Begins a chunk on a chain of datanodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenChunk {
    /// The cluster that the chunk belongs to.
    pub cluster: ClusterId,
    /// The hop that reads this frame: refused by any other.
    pub datanode: DatanodeId,
    /// The tracker that placed the chunk.
    pub fence: Fence,
    /// The chunk.
    pub chunk: ChunkId,
    /// The version of this attempt.
    pub version: ChunkVersion,
    /// Where the chunk belongs.
    pub origin: ChunkOrigin,
    /// Bytes that the chunk may take: room is checked before the first block.
    pub expected: u64,
    /// Goes on with an attempt that lost a hop.
    pub resume: Option<Resume>,
    /// The hops after this one, nearest first.
    pub downstream: Vec<DatanodeAddress>,
    /// The request that writes it. Filled in by who opens the stream, for a hop that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// Asks for blocks of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadChunk {
    /// Whose replica is meant: any other datanode refuses.
    pub datanode: DatanodeId,
    /// The chunk.
    pub chunk: ChunkId,
    /// In this version.
    pub version: ChunkVersion,
    /// First byte; a multiple of the block size.
    pub start: u64,
    /// After the last byte; a multiple of the block size, or the chunk's end.
    pub end: u64,
    /// The request that reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

impl ReadChunk {
    /// The blocks that are asked for.
    pub fn blocks(&self) -> Range<u64> {
        self.start / BLOCK_SIZE_U64..self.end.div_ceil(BLOCK_SIZE_U64)
    }

    /// Whether a chunk of `length` bytes has these blocks, and one answer holds the checksums of all.
    pub fn is_within(&self, length: u64) -> bool {
        let blocks = self.blocks();
        let at_border = |at: u64| at.is_multiple_of(BLOCK_SIZE_U64) || at == length;
        !blocks.is_empty()
            && blocks.end - blocks.start <= MAX_PAYLOAD as u64 / 4
            && self.start.is_multiple_of(BLOCK_SIZE_U64)
            && self.end <= length
            && at_border(self.end)
    }
}

/// Goes on with an attempt that lost a hop: truncate to `length`, take the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The version of the broken attempt.
    pub version: ChunkVersion,
    /// Bytes that every survivor has confirmed; a multiple of the block size.
    pub length: u64,
}

/// Who sealed a chunk, and who could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedReport {
    /// The chunk as it was sealed.
    pub chunk: SealedChunk,
    /// Durable on these, this hop first.
    pub replicas: Vec<DatanodeId>,
    /// Lost after the last block: the others stand.
    pub failed: Vec<HopFailure>,
}

/// A hop that could not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HopFailure {
    /// The datanode at fault.
    pub datanode: DatanodeId,
    /// What kind of fault.
    pub cause: HopFault,
    /// For people.
    pub detail: String,
}

/// Kinds of fault of a hop. Metric label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopFault {
    /// Not reached, or the connection broke.
    Unreachable,
    /// The volume is full or read-only.
    NoSpace,
    /// The disk failed.
    Disk,
    /// The fence is older than one already accepted.
    Fenced,
    /// Not the datanode, or not the cluster, that was meant.
    WrongDatanode,
    /// The attempt to resume is not there, or shorter than confirmed.
    CannotResume,
    /// A sealed replica of this chunk is already there.
    AlreadySealed,
    /// Bytes did not match their checksum on arrival.
    Corrupt,
    /// The stream broke the protocol.
    Protocol,
    /// Too many streams.
    Busy,
}

impl HopFault {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::NoSpace,
        Self::Disk,
        Self::Fenced,
        Self::WrongDatanode,
        Self::CannotResume,
        Self::AlreadySealed,
        Self::Corrupt,
        Self::Protocol,
        Self::Busy,
    ];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::NoSpace => "no-space",
            Self::Disk => "disk",
            Self::Fenced => "fenced",
            Self::WrongDatanode => "wrong-datanode",
            Self::CannotResume => "cannot-resume",
            Self::AlreadySealed => "already-sealed",
            Self::Corrupt => "corrupt",
            Self::Protocol => "protocol",
            Self::Busy => "busy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i32_a_read_asks_for_whole_blocks_that_the_chunk_has_or_is_refused() {
        let length = 2 * BLOCK_SIZE_U64 + 5;
        let is_within = |start, end, length| {
            let read = ReadChunk {
                datanode: DatanodeId::from_u128(1),
                chunk: ChunkId::from_u128(2),
                version: ChunkVersion::FIRST,
                start,
                end,
                trace: None,
            };
            read.is_within(length)
        };
        let block = BLOCK_SIZE_U64;
        for (start, end) in [
            (0, block),
            (block, 2 * block),
            (0, length),
            (2 * block, length),
        ] {
            assert!(is_within(start, end, length), "{start}..{end}");
        }
        let wrong = [
            (0, 0),
            (block, block),
            (block, 0),
            (1, block),
            (0, block + 1),
            (0, length + 1),
            (0, 3 * block),
            (3 * block, 4 * block),
            (u64::MAX, u64::MAX),
            (0, u64::MAX),
        ];
        for (start, end) in wrong {
            assert!(!is_within(start, end, length), "{start}..{end}");
        }
        let most = MAX_PAYLOAD as u64 / 4 * block;
        assert!(is_within(0, most, u64::MAX) && !is_within(0, most + block, u64::MAX));
    }

    #[test]
    fn a_header_survives_the_wire() {
        let header = FrameHeader::describe(FrameKind::Block, 7 << 40, b"hello");
        assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        assert_eq!(header.verify(b"hello"), Ok(()));
        assert!(header.verify(b"hellp").is_err());
        assert!(header.verify(b"hell").is_err());
    }

    #[test]
    fn fault_25_every_flipped_bit_of_a_header_is_noticed() {
        let bytes = FrameHeader::describe(FrameKind::Seal, 1234, b"payload").encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn i32_an_announced_length_is_bounded_before_anything_is_allocated() {
        let mut header = FrameHeader::describe(FrameKind::Block, 0, b"");
        header.length = u32::MAX;
        assert_eq!(
            FrameHeader::decode(&header.encode()),
            Err(FrameError::TooLong(u32::MAX))
        );
    }
}
