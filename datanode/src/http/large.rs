//! What only reads of many blocks need: what to read ahead, and how long a stream of blocks will be.

use std::ops::Range;

use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::frame::HEADER_LEN;

/// Blocks that the disk is asked for beyond those being read: 4 MiB, so that a cold disk is never idle.
const AHEAD: u64 = 64;

/// Bytes of the frames of the blocks `first .. end` of a chunk of `length` bytes, with the end mark.
pub(super) fn framed_length(blocks: &Range<u64>, length: u64) -> u64 {
    let at = |block: u64| block.saturating_mul(BLOCK_SIZE_U64).min(length);
    let data = at(blocks.end).saturating_sub(at(blocks.start));
    let frames = blocks.end.saturating_sub(blocks.start) + 1;
    data.saturating_add(frames.saturating_mul(HEADER_LEN as u64))
}

/// Follows a read through its blocks.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Blocks before this one were asked for.
    asked: u64,
    /// After the last one that is wanted.
    end: u64,
}

impl Ahead {
    pub(crate) fn new(end: u64) -> Self {
        Self { asked: 0, end }
    }

    /// What to ask the disk for while the blocks before `next` are read; each block once.
    pub(crate) fn beyond(&mut self, next: u64) -> Range<u64> {
        let from = self.asked.max(next);
        let to = next.saturating_add(AHEAD).min(self.end).max(from);
        self.asked = to;
        from..to
    }
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

    #[test]
    fn everything_behind_the_first_step_is_asked_for_once() {
        for (end, step) in (0..200).flat_map(|end| [1, 3, 16, 39, 64].map(|step| (end, step))) {
            let mut ahead = Ahead::new(end);
            let (mut next, mut asked) = (0, Vec::new());
            while next < end {
                next = (next + step).min(end);
                let beyond = ahead.beyond(next);
                assert!(beyond.end <= next + AHEAD, "{end} {step}");
                asked.extend(beyond);
            }
            let wanted: Vec<u64> = (step.min(end)..end).collect();
            assert_eq!(asked, wanted, "{end} {step}");
        }
    }
}
