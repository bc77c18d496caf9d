//! Frames of a checkpoint or dump: length, number and two checksums around each piece, so that an
//! input that ends early is told from one that is damaged, with the position (I13).

use std::io::{self, Read};

use dfs_protocol::checksum::crc32c;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"DFSC";
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 28;
/// No payload is longer: a move of the most files that one transaction takes fits.
pub const MAX_PAYLOAD: u32 = 256 * 1024 * 1024;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PieceKind {
    /// What the whole is; always first.
    Header = 1,
    /// Keys and values of the catalog.
    Page = 2,
    /// A journal record that was committed while the pages were read.
    Record = 3,
    /// Counts and checksum of the whole; always last.
    Trailer = 4,
}

impl PieceKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Header),
            2 => Some(Self::Page),
            3 => Some(Self::Record),
            4 => Some(Self::Trailer),
            _ => None,
        }
    }
}

/// One frame's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Its position among the frames, from 0.
    pub number: u64,
    /// The content.
    pub payload: Vec<u8>,
    /// CRC32C of the content.
    pub crc32c: u32,
}

/// Why no further frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The input ends inside a frame: its writer did not finish.
    #[error("the input ends early, inside the piece that begins at byte {position}")]
    Torn {
        /// Where the frame begins.
        position: u64,
    },
    /// The bytes are not what was written.
    #[error("the input is damaged at byte {position}: {detail}")]
    Damaged {
        /// Where the frame begins.
        position: u64,
        /// What is wrong.
        detail: &'static str,
    },
    /// The input cannot be read.
    #[error("reading at byte {position} failed: {source}")]
    Read {
        /// Where the frame begins.
        position: u64,
        /// What the input said.
        source: io::Error,
    },
}

/// Wraps a payload. Payloads stay far below [`MAX_PAYLOAD`].
pub fn encode_piece(kind: PieceKind, number: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c(payload).to_le_bytes());
    let header_crc = crc32c(&bytes);
    bytes.extend_from_slice(&header_crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads frames one after the other.
pub struct FrameReader<'r> {
    input: &'r mut dyn Read,
    position: u64,
    number: u64,
}

impl<'r> FrameReader<'r> {
    /// Reads from the input's beginning.
    pub fn new(input: &'r mut dyn Read) -> Self {
        Self {
            input,
            position: 0,
            number: 0,
        }
    }

    /// Bytes of whole frames read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next frame; none at the end.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, FrameError> {
        let header = self.take(HEADER_LEN)?;
        if header.is_empty() {
            return Ok(None);
        }
        let header: [u8; HEADER_LEN] = header.try_into().map_err(|_| FrameError::Torn {
            position: self.position,
        })?;
        let (kind, length, crc) = self.parse(&header)?;
        let payload = self.take(length)?;
        if payload.len() < length {
            return Err(FrameError::Torn {
                position: self.position,
            });
        }
        if crc32c(&payload) != crc {
            return Err(self.damaged("its content does not match its checksum"));
        }
        let number = self.number;
        self.number += 1;
        self.position += (HEADER_LEN + length) as u64;
        Ok(Some(Piece {
            kind,
            number,
            payload,
            crc32c: crc,
        }))
    }

    fn parse(&self, header: &[u8; HEADER_LEN]) -> Result<(PieceKind, usize, u32), FrameError> {
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        if word(24) != crc32c(&header[..24]) || header[..4] != MAGIC {
            return Err(self.damaged("its header is not one"));
        }
        let number = u64::from(word(8)) | (u64::from(word(12)) << 32);
        if number != self.number {
            return Err(self.damaged("a piece before it is missing or repeated"));
        }
        let kind = PieceKind::from_byte(header[4])
            .ok_or_else(|| self.damaged("its kind is unknown: read it with a newer program"))?;
        let length = word(16);
        if length > MAX_PAYLOAD {
            return Err(self.damaged("it is longer than any piece may be"));
        }
        Ok((kind, length as usize, word(20)))
    }

    fn damaged(&self, detail: &'static str) -> FrameError {
        FrameError::Damaged {
            position: self.position,
            detail,
        }
    }

    // Up to `length` bytes; fewer only at the end of the input.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, FrameError> {
        let mut bytes = Vec::new();
        let position = self.position;
        let mut limited = Read::take(&mut *self.input, length as u64);
        limited
            .read_to_end(&mut bytes)
            .map_err(|source| FrameError::Read { position, source })?;
        Ok(bytes)
    }
}
