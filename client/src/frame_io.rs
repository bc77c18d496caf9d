//! Frames over byte streams, for both ends of a chunk stream.

use std::io::{self, IoSlice};

use bytes::{Bytes, BytesMut};
use dfs_protocol::frame::{FrameError, FrameHeader, FrameKind, HEADER_LEN};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pieces::Pieces;

/// Bytes asked of the stream at once: a few blocks, so that a block costs less than one call.
const READ_STEP: usize = 256 * 1024;
/// A buffer with less room left is replaced before more is asked for.
const LEAST_READ: usize = 16 * 1024;

/// A frame whose payload matches its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub header: FrameHeader,
    /// Its bytes: shares a receive buffer; copied only where it lies in two of them.
    pub payload: Bytes,
}

/// A stream that stopped being one of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameIoError {
    /// The connection broke or ended within a frame.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// Bytes arrived damaged, or are not our protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Takes frames out of bytes as they arrive, wherever they come from.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    received: Pieces,
    header: Option<FrameHeader>,
}

impl FrameDecoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: Bytes) {
        self.received.push(bytes);
    }

    /// The next whole frame, verified; `None` until more bytes arrive.
    // Not an iterator: `None` is not the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = if let Some(header) = self.header {
            header
        } else {
            let Some(bytes) = self.received.take(HEADER_LEN) else {
                return Ok(None);
            };
            let bytes = bytes.first_chunk().ok_or(FrameError::Header)?;
            *self.header.insert(FrameHeader::decode(bytes)?)
        };
        let Some(payload) = self.received.take(header.length as usize) else {
            return Ok(None);
        };
        self.header = None;
        header.verify(&payload)?;
        Ok(Some(Frame { header, payload }))
    }

    /// Whether the bytes so far end with a whole frame.
    pub fn is_between_frames(&self) -> bool {
        self.received.len() == 0 && self.header.is_none()
    }
}

/// Reads frames from a byte stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    decoder: FrameDecoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `stream`.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            decoder: FrameDecoder::default(),
        }
    }

    /// The next frame; `None` when the stream ended between frames. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameIoError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() < LEAST_READ {
                self.buffer.reserve(READ_STEP);
            }
            if self.stream.read_buf(&mut self.buffer).await? > 0 {
                self.decoder.push(self.buffer.split().freeze());
            } else {
                return if self.decoder.is_between_frames() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }
}

/// Writes frames to a byte stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream }
    }

    /// Sends one block whose CRC32C the caller knows already.
    pub async fn block(&mut self, offset: u64, crc32c: u32, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.frame(
            FrameHeader {
                kind: FrameKind::Block,
                length,
                crc32c,
                offset,
            },
            data,
        )
        .await
    }

    /// Sends one frame as it is.
    pub async fn frame(&mut self, header: FrameHeader, payload: &[u8]) -> io::Result<()> {
        let header = header.encode();
        let mut sent = 0;
        while sent < HEADER_LEN {
            let slices = [IoSlice::new(&header[sent..]), IoSlice::new(payload)];
            match self.stream.write_vectored(&slices).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => sent += count,
            }
        }
        self.stream.write_all(&payload[sent - HEADER_LEN..]).await
    }

    /// Sends bytes that are whole frames already ([`dfs_protocol::frame::control`], `signal`).
    pub async fn raw(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames).await?;
        self.stream.flush().await
    }

    /// Hands everything to the network.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_a_stream_that_cuts_them_anywhere() {
        let (near, far) = tokio::io::duplex(7);
        let data: Vec<u8> = (0..200u8).collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            for part in sent.chunks(50) {
                writer
                    .block(3, dfs_protocol::checksum::crc32c(part), part)
                    .await
                    .unwrap();
            }
            writer
                .raw(&dfs_protocol::frame::signal(FrameKind::End, 9))
                .await
                .unwrap();
        });
        let mut reader = FrameReader::new(far);
        let mut got = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            got.extend_from_slice(&frame.payload);
        }
        writer.await.unwrap();
        assert_eq!(got, data);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_an_error() {
        let frame = dfs_protocol::frame::signal(FrameKind::End, 9);
        let mut reader = FrameReader::new(&frame[..20]);
        assert!(matches!(reader.next().await, Err(FrameIoError::Io(_))));
    }
}
