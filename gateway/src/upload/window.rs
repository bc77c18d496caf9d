//! The window: bytes of an upload that no chain confirmed yet. It is the whole memory of an upload.

use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shared by the chunks of one upload.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    room: Arc<Semaphore>,
    gauge: IntGauge,
}

/// Bytes under the window; given back on drop.
#[derive(Debug)]
struct Held {
    _permit: Option<OwnedSemaphorePermit>,
    bytes: i64,
    gauge: IntGauge,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

/// One block of a chunk, kept until every live hop has it.
#[derive(Debug)]
pub(crate) struct Block {
    /// Position in the chunk.
    pub(crate) offset: u64,
    pub(crate) crc32c: u32,
    pub(crate) data: Bytes,
    _held: Held,
}

impl Block {
    /// Position behind the block.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

impl Window {
    pub(crate) fn new(bytes: usize, gauge: IntGauge) -> Self {
        Self {
            room: Arc::new(Semaphore::new(bytes)),
            gauge,
        }
    }

    /// Waits until the window has room for a block.
    pub(crate) async fn admit(&self, offset: u64, crc32c: u32, data: Bytes) -> Block {
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let permit = self.room.clone().acquire_many_owned(bytes).await.ok();
        self.gauge.add(i64::from(bytes));
        Block {
            offset,
            crc32c,
            data,
            _held: Held {
                _permit: permit,
                bytes: i64::from(bytes),
                gauge: self.gauge.clone(),
            },
        }
    }
}
