//! The answer's body: as long as announced, or broken. Never a clean short end (I5).

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::error::DownloadError;
use crate::metrics::GatewayMetrics;

/// Blocks that are at hand, then those that arrive from the reader.
#[derive(Debug)]
pub(super) struct DownloadBody {
    ready: VecDeque<Bytes>,
    blocks: Option<mpsc::Receiver<Result<Bytes, DownloadError>>>,
    remaining: u64,
    metrics: GatewayMetrics,
    _place: OwnedSemaphorePermit,
}

impl DownloadBody {
    pub(super) fn new(
        ready: VecDeque<Bytes>,
        blocks: Option<mpsc::Receiver<Result<Bytes, DownloadError>>>,
        length: u64,
        metrics: GatewayMetrics,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            ready,
            blocks,
            remaining: length,
            metrics,
            _place: place,
        }
    }

    fn hand_out(&mut self, block: Bytes) -> Result<Frame<Bytes>, DownloadError> {
        let length = block.len() as u64;
        self.remaining = self
            .remaining
            .checked_sub(length)
            .ok_or(DownloadError::Interrupted)?;
        self.metrics.sent_bytes.inc_by(length);
        Ok(Frame::data(block))
    }

    fn broken(&mut self, error: DownloadError) -> DownloadError {
        tracing::warn!(%error, remaining = self.remaining, "a download is broken off");
        self.metrics.broken_downloads.inc();
        error
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let this = self.get_mut();
        if let Some(block) = this.ready.pop_front() {
            return Poll::Ready(Some(this.hand_out(block)));
        }
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let arrived = match &mut this.blocks {
            Some(blocks) => ready!(blocks.poll_recv(cx)),
            None => None,
        };
        let next = match arrived {
            Some(Ok(block)) => this.hand_out(block),
            Some(Err(error)) => Err(error),
            // The reader ended before the end of the range.
            None => Err(DownloadError::Interrupted),
        };
        Poll::Ready(Some(next.map_err(|error| this.broken(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
