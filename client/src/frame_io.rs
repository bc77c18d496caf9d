//! Frames over byte streams, for both ends of a chunk stream.

use std::io::{self, IoSlice};

use bytes::{Buf as _, Bytes, BytesMut};
use dfs_protocol::frame::{FrameError, FrameHeader, FrameKind, HEADER_LEN, MAX_PAYLOAD};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pieces::Pieces;

/// Bytes of one receive buffer: whole frames of whole blocks, so that once one of them begins a
/// buffer none lies in two.
const READ_STEP: usize = 4 * (HEADER_LEN + MAX_PAYLOAD);
/// A buffer with less room left is replaced before more is asked for.
const LEAST_READ: usize = 16 * 1024;

/// A frame whose payload matches its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub header: FrameHeader,
    /// Its bytes: shares a receive buffer.
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
}

/// Reads frames from a byte stream. Payloads are handed out where they were received: a frame is copied
/// only when its buffer ends within it.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    /// Begins with a frame.
    buffer: BytesMut,
    /// Of that frame, once it is here.
    header: Option<FrameHeader>,
    /// Bytes of a buffer.
    step: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `stream`.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            header: None,
            step: READ_STEP,
        }
    }

    /// So many bytes are about to come: buffers are not larger than that from here on.
    pub fn expect(&mut self, bytes: usize) {
        self.step = bytes.min(READ_STEP);
    }

    /// The next frame; `None` when the stream ended between frames. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameIoError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.make_room();
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// The next `length` bytes, at most [`MAX_PAYLOAD`] of them: what follows a frame that says so. Safe to cancel.
    pub async fn bytes(&mut self, length: usize) -> io::Result<Bytes> {
        while self.buffer.len() < length {
            if self.buffer.capacity() < length {
                let room = self.step.max(length) - self.buffer.len();
                self.buffer.reserve(room);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Gives the buffer back while nothing is expected; false where something is in it.
    pub fn rest(&mut self) -> bool {
        let is_empty = self.buffer.is_empty();
        if is_empty {
            self.buffer = BytesMut::new();
        }
        is_empty
    }

    /// What frames are read from: to answer them.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The frame that the buffer begins with, verified; `None` until all of it is here.
    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => match self.buffer.first_chunk() {
                Some(bytes) => *self.header.insert(FrameHeader::decode(bytes)?),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < whole(&header) {
            return Ok(None);
        }
        self.header = None;
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(header.length as usize).freeze();
        header.verify(&payload)?;
        Ok(Some(Frame { header, payload }))
    }

    /// Room for the rest of the frame at hand; what is here of it moves where the buffer is too short.
    fn make_room(&mut self) {
        let least = LEAST_READ.min(self.step);
        let frame = self.header.as_ref().map_or(least, whole);
        if self.buffer.capacity() < frame {
            let room = self.step.max(frame) - self.buffer.len();
            self.buffer.reserve(room);
        }
    }
}

/// Bytes of a frame.
fn whole(header: &FrameHeader) -> usize {
    HEADER_LEN + header.length as usize
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

    /// Hands over `step` bytes for each call at most.
    struct Dribble<'a>(&'a [u8], usize);

    impl AsyncRead for Dribble<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let count = self.0.len().min(self.1).min(buffer.remaining());
            let (now, later) = self.0.split_at(count);
            buffer.put_slice(now);
            self.0 = later;
            std::task::Poll::Ready(Ok(()))
        }
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader::describe(FrameKind::Block, 0, payload);
        [&header.encode()[..], payload].concat()
    }

    #[tokio::test]
    async fn whole_blocks_lie_where_they_were_received() {
        let block = vec![5; MAX_PAYLOAD];
        let stream = framed(&block).repeat(9);
        // Cut anywhere within the blocks: only the end of a buffer could make a copy necessary.
        let mut reader = FrameReader::new(Dribble(&stream, 40_000));
        let mut places = Vec::new();
        let mut held = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            assert!(frame.payload == block);
            places.push(frame.payload.as_ptr() as usize);
            held.push(frame);
        }
        for (four, from) in places.chunks(4).zip((0..).step_by(4)) {
            let apart = |pair: &[usize]| pair[1] - pair[0] == HEADER_LEN + MAX_PAYLOAD;
            assert!(four.windows(2).all(apart), "a buffer's blocks from {from}");
        }
        assert_eq!(held.len(), 9);
    }

    proptest::proptest! {
        #[test]
        fn frames_of_any_length_survive_reads_of_any_length(
            lengths in proptest::collection::vec(0..=MAX_PAYLOAD, 0..12),
            step in 1_usize..300_000,
            is_held in proptest::prelude::any::<bool>(),
        ) {
            let payloads: Vec<Vec<u8>> = (1..).zip(&lengths).map(|(n, len)| vec![n; *len]).collect();
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(async {
                let mut reader = FrameReader::new(Dribble(&stream, step));
                let (mut got, mut held) = (Vec::new(), Vec::new());
                while let Some(frame) = reader.next().await.unwrap() {
                    got.push(frame.payload.to_vec());
                    // With and without the buffer's reuse.
                    if is_held {
                        held.push(frame.payload);
                    }
                }
                got
            });
            proptest::prop_assert!(got == payloads);
        }
    }
}
