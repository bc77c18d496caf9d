//! A chunk of one block, sent at once: one frame with the order, the block, and one answer when it is
//! durable. A datanode that does not know the frame gets the same as any other chunk.

use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{FrameHeader, FrameKind, HopFailure, HopFault, OpenChunk, SealedReport};
use dfs_runtime::trace::{self, Outgoing, Span};

use super::{
    ChunkEvent, ChunkReceiver, ChunkSender, ChunkWriter, Halves, NotOpen, Opening, WriteStreams,
    failure,
};
use crate::call::{Call, CallResult};
use crate::metrics::Timed;

/// All bytes of a chunk, at most one block.
#[derive(Debug, Clone)]
pub struct WholeBlock {
    /// The bytes.
    pub data: Bytes,
    /// CRC32C of them: of the block and of the chunk.
    pub crc32c: u32,
}

impl WholeBlock {
    /// The chunk as it is sealed with these bytes.
    pub fn sealed(&self, open: &OpenChunk) -> SealedChunk {
        SealedChunk {
            id: open.chunk,
            version: open.version,
            length: self.data.len() as u64,
            crc32c: self.crc32c,
        }
    }

    fn header(&self) -> Option<FrameHeader> {
        Some(FrameHeader {
            kind: FrameKind::Block,
            length: u32::try_from(self.data.len()).ok()?,
            crc32c: self.crc32c,
            offset: 0,
        })
    }
}

impl WriteStreams {
    /// Writes a whole chunk over `first` and the hops behind it, within `limit`: durable on return on
    /// the hops that the report names. A failure names the hop at fault, which need not be `first`;
    /// whether anything was sealed is then not known.
    pub async fn put(
        &self,
        first: &DatanodeAddress,
        open: &OpenChunk,
        block: &WholeBlock,
        limit: Duration,
    ) -> Result<SealedReport, HopFailure> {
        let timed = Timed::begin(self.http.metrics(), Call::Write);
        let Outgoing {
            context, mut span, ..
        } = trace::outgoing(Call::Write.name());
        span.text("server.address", || first.address.clone());
        let opening = Opening { open, context };
        let put = tokio::select! {
            put = tokio::time::timeout(limit, self.put_any(first, &opening, block)) => {
                put.unwrap_or_else(|_| {
                    let detail = "the seal took too long";
                    Err(failure(first.id, HopFault::Unreachable, &detail))
                })
            }
            silent = self.silent_hop(first) => {
                self.idle.forget(first);
                Err(silent)
            }
        };
        match &put {
            Ok(_) => timed.end(CallResult::Ok),
            Err(failed) => {
                timed.end(match failed.cause {
                    HopFault::Unreachable => CallResult::Unreachable,
                    _ => CallResult::Refused,
                });
                span.failed(failed.cause.as_str());
            }
        }
        put
    }

    async fn put_any(
        &self,
        first: &DatanodeAddress,
        opening: &Opening<'_>,
        block: &WholeBlock,
    ) -> Result<SealedReport, HopFailure> {
        // As with an open: a stream that idled may have been closed by its peer. Should it have taken
        // the chunk before, the same chunk is refused as being there, and is looked for.
        while let Some(halves) = self.take_idle(first) {
            match self.try_put(first, halves, opening, block).await {
                Err(NotOpen::Ended(_)) => {
                    if let Some(metrics) = self.http.metrics() {
                        metrics.retried();
                    }
                }
                put => return put.map_err(NotOpen::failure),
            }
        }
        let halves = self.connect_in_time(first).await?;
        let put = self.try_put(first, halves, opening, block).await;
        put.map_err(NotOpen::failure)
    }

    async fn try_put(
        &self,
        first: &DatanodeAddress,
        halves: Halves,
        opening: &Opening<'_>,
        block: &WholeBlock,
    ) -> Result<SealedReport, NotOpen> {
        if !halves.takes.whole {
            let writer = self.try_open(first, halves, opening).await?;
            let put = self.put_in_steps(writer, opening.open, block).await;
            return put.map_err(NotOpen::Refused);
        }
        let Halves {
            mut sender,
            receiver,
            takes,
        } = halves;
        let mut frames = opening.frame(FrameKind::Whole, takes, first)?;
        let Some(header) = block.header() else {
            let detail = "the block is too large";
            return Err(NotOpen::Refused(failure(
                first.id,
                HopFault::Protocol,
                &detail,
            )));
        };
        // One buffer, so that all of it is one call and mostly one packet.
        frames.reserve_exact(header.encode().len() + block.data.len());
        frames.extend_from_slice(&header.encode());
        frames.extend_from_slice(&block.data);
        let mut receiver = ChunkReceiver {
            from: first.clone(),
            frames: receiver,
            takes,
            span: Span::none(),
        };
        let sent = sender.raw(&frames).await;
        let unreachable = |error| NotOpen::Ended(failure(first.id, HopFault::Unreachable, &error));
        sent.map_err(unreachable)?;
        match receiver.next().await {
            Ok(ChunkEvent::Sealed(report)) => {
                let to = first.clone();
                let sender = ChunkSender { to, frames: sender };
                self.put_back(sender, receiver);
                Ok(report)
            }
            Ok(ChunkEvent::Progress(_)) => {
                let detail = "progress of a chunk that was sent whole";
                let failed = failure(first.id, HopFault::Protocol, &detail);
                Err(NotOpen::Refused(failed))
            }
            Err(failed) if failed.cause == HopFault::Unreachable => Err(NotOpen::Ended(failed)),
            Ok(ChunkEvent::Failed(failed)) | Err(failed) => Err(NotOpen::Refused(failed)),
        }
    }

    /// The chunk as a datanode takes it that does not know whole ones.
    async fn put_in_steps(
        &self,
        writer: ChunkWriter,
        open: &OpenChunk,
        block: &WholeBlock,
    ) -> Result<SealedReport, HopFailure> {
        let ChunkWriter {
            mut sender,
            mut receiver,
        } = writer;
        sender.block(0, block.crc32c, &block.data).await?;
        sender.seal(&block.sealed(open)).await?;
        loop {
            match receiver.next().await? {
                ChunkEvent::Progress(_) => {}
                ChunkEvent::Sealed(report) => {
                    self.put_back(sender, receiver);
                    return Ok(report);
                }
                ChunkEvent::Failed(failed) => return Err(failed),
            }
        }
    }
}
