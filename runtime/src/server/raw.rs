//! A connection that left HTTP, with its socket: files can be sent from the page cache without a copy of ours.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::wire::Wire;
use crate::disk::DiskFile;

/// What was in memory is taken to be there for so long.
const FRESH: Duration = Duration::from_secs(1);

/// An upgraded connection of [`super::serve`]. It holds its place under the cap until dropped.
#[derive(Debug)]
pub struct RawStream {
    wire: Wire,
    /// What arrived behind the request.
    received: Bytes,
}

impl RawStream {
    /// The connection itself; given back where it is not one of this server's.
    pub fn of(upgraded: Upgraded) -> Result<Self, Upgraded> {
        let parts = upgraded.downcast::<TokioIo<Wire>>()?;
        Ok(Self {
            wire: parts.io.into_inner(),
            received: parts.read_buf,
        })
    }

    /// Sends up to `length` bytes of a file at `offset`, as many as the socket takes; waits while it takes none. 0 at the end of the
    /// file. Bytes that are not in memory block the thread: `None`, and nothing sent, where the socket let it wait for long enough
    /// that they may be gone.
    pub async fn send_file(
        &mut self,
        file: &dyn DiskFile,
        offset: u64,
        length: usize,
    ) -> io::Result<Option<usize>> {
        let send = |socket: &TcpStream| file.send_to(socket.as_fd(), offset, length);
        let sending = poll_fn(|cx| self.wire.poll_send(cx, send));
        tokio::time::timeout(FRESH, sending).await.ok().transpose()
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let count = self.received.len().min(buffer.remaining());
            buffer.put_slice(&self.received[..count]);
            self.received.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
