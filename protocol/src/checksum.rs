//! The two checksums of the store. CRC32C guards each 64 KiB block and each whole chunk; CRC64-NVME
//! guards a whole file and is what the client is told. Both are linear, so the whole is combined
//! from its parts without a second pass over the bytes.

use std::sync::LazyLock;

use crc_fast::CrcAlgorithm::{Crc32Iscsi, Crc64Nvme};

use crate::chunk::BLOCK_SIZE_U64;

/// What a CRC becomes when a full block of zeroes follows it, byte by byte of the CRC. Combining is
/// linear, so the whole is the XOR of its bytes' parts. Nearly every part that is ever combined is
/// a full block, and the general way costs more than the checksum of the block itself
/// (docs/decisions/write-path-first-figures.md).
struct BlockShift<const BYTES: usize>([[u64; 256]; BYTES]);

impl<const BYTES: usize> BlockShift<BYTES> {
    fn new(combine: impl Fn(u64) -> u64) -> Self {
        let mut table = [[0; 256]; BYTES];
        for (place, row) in table.iter_mut().enumerate() {
            // Of single bits the general way tells it; the rest are sums of two that are known. Asked for
            // all of them, it took a process longer than the checksums of its first GiB.
            for byte in 1..256_usize {
                let lowest = byte & byte.wrapping_neg();
                row[byte] = if byte == lowest {
                    combine((byte as u64) << (8 * place))
                } else {
                    row[lowest] ^ row[byte ^ lowest]
                };
            }
        }
        Self(table)
    }

    fn shift(&self, crc: u64) -> u64 {
        let bytes = crc.to_le_bytes();
        let parts = self.0.iter().zip(bytes);
        parts.fold(0, |sum, (row, byte)| sum ^ row[usize::from(byte)])
    }
}

static CRC32C_SHIFT: LazyLock<BlockShift<4>> = LazyLock::new(|| {
    BlockShift::new(|crc| crc_fast::checksum_combine(Crc32Iscsi, crc, 0, BLOCK_SIZE_U64))
});
static CRC64_SHIFT: LazyLock<BlockShift<8>> = LazyLock::new(|| {
    BlockShift::new(|crc| crc_fast::checksum_combine(Crc64Nvme, crc, 0, BLOCK_SIZE_U64))
});

/// CRC32C (Castagnoli, RFC 3720) of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    truncate(crc_fast::checksum(Crc32Iscsi, data))
}

/// CRC32C of a concatenation, from the CRC of both parts and the second part's length in bytes.
pub fn crc32c_combine(first: u32, second: u32, second_len: u64) -> u32 {
    if second_len == BLOCK_SIZE_U64 {
        return truncate(CRC32C_SHIFT.shift(u64::from(first))) ^ second;
    }
    truncate(crc_fast::checksum_combine(
        Crc32Iscsi,
        u64::from(first),
        u64::from(second),
        second_len,
    ))
}

/// CRC64-NVME of `data`.
pub fn crc64nvme(data: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Nvme, data)
}

/// CRC64-NVME of a concatenation, from the CRC of both parts and the second part's length in bytes.
pub fn crc64nvme_combine(first: u64, second: u64, second_len: u64) -> u64 {
    if second_len == BLOCK_SIZE_U64 {
        return CRC64_SHIFT.shift(first) ^ second;
    }
    crc_fast::checksum_combine(Crc64Nvme, first, second, second_len)
}

/// A CRC32C that grows as blocks arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunningCrc32c {
    value: u32,
    length: u64,
}

impl RunningCrc32c {
    /// Adds a part whose own CRC32C is already known.
    pub fn push(&mut self, part_crc: u32, part_len: u64) {
        self.value = if self.length == 0 {
            part_crc
        } else {
            crc32c_combine(self.value, part_crc, part_len)
        };
        self.length += part_len;
    }

    /// CRC32C of everything pushed; 0 for nothing, as CRC32C of the empty string is.
    pub fn value(self) -> u32 {
        self.value
    }

    /// Bytes pushed.
    pub fn length(self) -> u64 {
        self.length
    }
}

// `crc-fast` hands every CRC out as u64; a 32-bit one has its upper half clear.
#[allow(clippy::cast_possible_truncation)]
fn truncate(crc: u64) -> u32 {
    crc as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_match_the_published_ones() {
        // The catalogue of parametrised CRC algorithms gives these for "123456789".
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn combined_parts_equal_the_whole() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut running = RunningCrc32c::default();
        for part in data.chunks(65_536) {
            running.push(crc32c(part), part.len() as u64);
        }
        assert_eq!(running.value(), crc32c(&data));
        assert_eq!(running.length(), data.len() as u64);
        let (a, b) = data.split_at(1234);
        assert_eq!(
            crc64nvme_combine(crc64nvme(a), crc64nvme(b), b.len() as u64),
            crc64nvme(&data)
        );
    }

    #[test]
    fn a_full_block_combines_as_any_other_length_does() {
        let data: Vec<u8> = (0..131_072u32 + 77).map(|i| (i * 31 % 253) as u8).collect();
        for start in [0, 1, 77] {
            let (first, block) = data[start..].split_at(data.len() - start - 65_536);
            let length = block.len() as u64;
            assert_eq!(
                crc32c_combine(crc32c(first), crc32c(block), length),
                crc32c(&data[start..])
            );
            assert_eq!(
                crc64nvme_combine(crc64nvme(first), crc64nvme(block), length),
                crc64nvme(&data[start..])
            );
        }
        for crc in [0, 1, u64::MAX, 0x8000_0000_0000_0001] {
            let general = crc_fast::checksum_combine(Crc64Nvme, crc, 5, BLOCK_SIZE_U64);
            assert_eq!(crc64nvme_combine(crc, 5, BLOCK_SIZE_U64), general);
        }
    }
}
