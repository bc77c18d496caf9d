//! Buffers for reads of many blocks, and for writes past the page cache. Each one is used again and again: a fresh MiB
//! would have to be cleared, and its pages faulted in, for each MiB that is read. They are aligned as
//! [`OpenMode::Direct`](dfs_runtime::disk::OpenMode::Direct) wants it.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dfs_runtime::disk::DIRECT_ALIGN;
use prometheus::IntGauge;

/// Bytes of one buffer: a step of a read, or one of a write at any distance from an aligned place.
const SIZE: usize = 1024 * 1024 + DIRECT_ALIGN;
/// Reads of fewer bytes have memory of their own: a buffer is held until the last reader of its bytes is done.
pub(super) const LEAST: usize = 128 * 1024;
/// Buffers kept while nobody uses them. In use are at most three for each read and one for each write, whose numbers
/// have their own limits.
const MOST_IDLE: usize = 16;

/// The buffers of one store.
#[derive(Debug)]
pub(super) struct Buffers {
    idle: Mutex<Vec<Box<[u8]>>>,
    /// Buffers in use or idle.
    count: IntGauge,
}

impl Buffers {
    /// None yet; `count` tells how many there are.
    pub(super) fn new(count: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            count,
        })
    }

    /// Room for `length` bytes. What it holds is not defined: all of it must be written.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        if !(LEAST..=SIZE).contains(&length) {
            return Buffer::Own(vec![0; length]);
        }
        let idle = self.lock().pop();
        let bytes = idle.unwrap_or_else(|| {
            self.count.inc();
            vec![0; SIZE + DIRECT_ALIGN].into_boxed_slice()
        });
        // Memory that is no more aligned than this is used as it is: only a direct write would miss it.
        let begin = bytes.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        Buffer::Lent(Lent {
            bytes,
            used: begin..begin + length,
            home: Arc::clone(self),
        })
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let mut idle = self.lock();
        if idle.len() < MOST_IDLE {
            idle.push(bytes);
        } else {
            self.count.dec();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory for one read or write.
#[derive(Debug)]
pub(super) enum Buffer {
    /// Of no other length than this.
    Own(Vec<u8>),
    /// Goes back when the last of its bytes is dropped.
    Lent(Lent),
}

/// A buffer that is not idle.
#[derive(Debug)]
pub(super) struct Lent {
    bytes: Box<[u8]>,
    used: Range<usize>,
    home: Arc<Buffers>,
}

impl Buffer {
    /// The bytes, to be shared.
    pub(super) fn freeze(self) -> Bytes {
        match self {
            Self::Own(bytes) => bytes.into(),
            Self::Lent(lent) => Bytes::from_owner(lent),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(lent) => lent.as_ref(),
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(lent) => &mut lent.bytes[lent.used.clone()],
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.used.clone()]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers() -> (Arc<Buffers>, IntGauge) {
        let count = IntGauge::new("count", "count").unwrap();
        (Buffers::new(count.clone()), count)
    }

    #[test]
    fn a_buffer_is_used_again_only_when_the_last_of_its_bytes_is_dropped() {
        let (buffers, count) = buffers();
        let mut buffer = buffers.take(SIZE);
        buffer.fill(1);
        let mut bytes = buffer.freeze();
        let last = bytes.split_off(SIZE - 10);
        drop(bytes);
        let mut other = buffers.take(LEAST);
        assert_eq!((other.len(), count.get()), (LEAST, 2));
        other.fill(2);
        assert_eq!(last, [1; 10][..]);
        drop((last, other));
        let again = [buffers.take(SIZE), buffers.take(SIZE - 1)];
        assert_eq!(count.get(), 2);
        assert_eq!(again.map(|buffer| buffer.freeze().len()), [SIZE, SIZE - 1]);
    }

    #[test]
    fn every_buffer_of_the_pool_is_aligned_for_direct_writes() {
        let (buffers, _) = buffers();
        let many: Vec<Buffer> = (LEAST..LEAST + 9).map(|n| buffers.take(n)).collect();
        for (length, buffer) in (LEAST..).zip(&many) {
            assert_eq!(buffer.len(), length);
            assert!((buffer.as_ptr() as usize).is_multiple_of(DIRECT_ALIGN));
        }
    }

    #[test]
    fn idle_buffers_have_a_limit_and_small_reads_take_none() {
        let (buffers, count) = buffers();
        let small = buffers.take(LEAST - 1);
        assert_eq!((small.len(), count.get()), (LEAST - 1, 0));
        assert_eq!(buffers.take(SIZE + 1).freeze().len(), SIZE + 1);
        let many: Vec<Buffer> = (0..3 * MOST_IDLE).map(|_| buffers.take(SIZE)).collect();
        assert_eq!(count.get(), i64::try_from(3 * MOST_IDLE).unwrap());
        drop(many);
        assert_eq!(count.get(), i64::try_from(MOST_IDLE).unwrap());
    }
}
