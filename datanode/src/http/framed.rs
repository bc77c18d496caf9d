//! How long a stream of framed blocks will be.

use std::ops::Range;

use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::frame::HEADER_LEN;

/// Bytes of the frames of the blocks `first .. end` of a chunk of `length` bytes, with the end mark.
pub(super) fn framed_length(blocks: &Range<u64>, length: u64) -> u64 {
    let at = |block: u64| block.saturating_mul(BLOCK_SIZE_U64).min(length);
    let data = at(blocks.end).saturating_sub(at(blocks.start));
    let frames = blocks.end.saturating_sub(blocks.start) + 1;
    data.saturating_add(frames.saturating_mul(HEADER_LEN as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_blocks_is_as_long_as_its_frames() {
        let header = HEADER_LEN as u64;
        assert_eq!(framed_length(&(0..0), 0), header, "the end mark alone");
        assert_eq!(framed_length(&(0..1), 10), 10 + 2 * header);
        assert_eq!(framed_length(&(1..3), 70_000), 70_000 - 65_536 + 3 * header);
        assert_eq!(framed_length(&(1..2), 200_000), 65_536 + 2 * header);
    }
}
