//! Finds the end of a request's body in the bytes of a connection. The bytes themselves are for
//! hyper; here only the border to the next request matters.

use super::head::Framing;

/// Hex digits of a chunk's size: more cannot be a length.
const SIZE_DIGITS: u8 = 15;

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyBorder {
    /// That many bytes; 0 at the end.
    Length(u64),
    /// Chunks, at this point of their grammar (RFC 9112, section 7.1).
    Chunked(ChunkState),
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkState {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLf,
    Done,
}

/// The chunks are not chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedChunk;

const NEXT_CHUNK: ChunkState = ChunkState::Size { size: 0, digits: 0 };

impl BodyBorder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Nothing => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(NEXT_CHUNK),
        }
    }

    pub(super) fn is_reached(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(ChunkState::Done))
    }

    /// Moves over `bytes`; returns how many of them belong to the body.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunk> {
        match self {
            Self::Length(left) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(state) => {
                let mut at = 0;
                while at < bytes.len() && *state != ChunkState::Done {
                    if let ChunkState::Data { left } = state {
                        let rest = bytes.len() - at;
                        let taken = rest.min(usize::try_from(*left).unwrap_or(usize::MAX));
                        at += taken;
                        *left -= taken as u64;
                        if *left == 0 {
                            *state = ChunkState::DataCr;
                        }
                    } else {
                        *state = state.step(bytes[at]).ok_or(MalformedChunk)?;
                        at += 1;
                    }
                }
                Ok(at)
            }
        }
    }
}

impl ChunkState {
    /// The state behind one byte of the grammar; `None` when it does not fit.
    fn step(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16)?;
                (digits < SIZE_DIGITS).then_some(Self::Size {
                    size: size * 16 + u64::from(digit),
                    digits: digits + 1,
                })
            }
            (Self::Size { digits: 0, .. }, _) | (Self::Extension { .. }, b'\n') => None,
            (Self::Size { size, .. } | Self::Extension { size }, b'\r') => {
                Some(Self::SizeEnd { size })
            }
            (Self::Size { size, .. }, b';' | b' ' | b'\t') | (Self::Extension { size }, _) => {
                Some(Self::Extension { size })
            }
            (Self::SizeEnd { size: 0 } | Self::TrailerEnd, b'\n') => Some(Self::TrailerStart),
            (Self::SizeEnd { size }, b'\n') => Some(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Some(Self::DataLf),
            (Self::DataLf, b'\n') => Some(NEXT_CHUNK),
            (Self::TrailerStart, b'\r') => Some(Self::LastLf),
            (Self::Trailer, b'\r') => Some(Self::TrailerEnd),
            (Self::TrailerStart | Self::Trailer, _) if byte != b'\n' => Some(Self::Trailer),
            (Self::LastLf, b'\n') => Some(Self::Done),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end_of(text: &[u8]) -> Result<Option<usize>, MalformedChunk> {
        let mut border = BodyBorder::new(Framing::Chunked);
        let taken = border.advance(text)?;
        Ok(border.is_reached().then_some(taken))
    }

    #[test]
    fn the_end_of_chunks_is_behind_the_trailers() {
        assert_eq!(end_of(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok(Some(15)));
        assert_eq!(
            end_of(b"1;a=\"b\"\r\nx\r\n00\r\nA: b\r\nC: d\r\n\r\n"),
            Ok(Some(30))
        );
        assert_eq!(end_of(b"5\r\nhel"), Ok(None));
        assert_eq!(end_of(b"0\r\nA: b\r\n"), Ok(None));
    }

    #[test]
    fn bad_input_16_chunks_that_break_the_grammar_are_refused() {
        for text in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"5\nhello",
            b"5;a\nhello",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"ffffffffffffffff\r\n",
            b"0\r\n\rX",
            b"0\r\nA: b\n",
        ] {
            assert_eq!(end_of(text), Err(MalformedChunk), "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn i32_any_bytes_in_any_pieces_end_at_the_same_place(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'0'), Just(b'2'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60),
            cut in 0_usize..60,
        ) {
            let cut = cut.min(bytes.len());
            let mut whole = BodyBorder::new(Framing::Chunked);
            let mut pieces = whole;
            let at_once = whole.advance(&bytes);
            let in_two = pieces.advance(&bytes[..cut]).and_then(|first| {
                Ok(first + pieces.advance(&bytes[cut..])?)
            });
            prop_assert_eq!(at_once, in_two);
        }

        #[test]
        fn a_length_takes_its_bytes_and_no_more(length in 0_u64..100, given in 0_usize..100) {
            let mut border = BodyBorder::new(Framing::Length(length));
            let taken = border.advance(&vec![0; given]).unwrap();
            prop_assert_eq!(taken as u64, length.min(given as u64));
            prop_assert_eq!(border.is_reached(), given as u64 >= length);
        }
    }
}
