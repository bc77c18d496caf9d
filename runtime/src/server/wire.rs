//! The connection as hyper sees it. Headers are held back until they are whole and judged; bodies
//! and answers pass through, watched for their pace. A refused header is replaced by a small
//! request that the service answers with the refusal, so that answers keep their order.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use dfs_protocol::problem::ErrorCode;
use futures_util::task::AtomicWaker;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::framing::BodyBorder;
use super::head::{self, Head, Refusal};
use super::limits::ServerLimits;
use super::metrics::{CutReason, ServerMetrics};
use super::rate::{Alarm, RateMeter, Verdict};

/// Stands for a refused request; see [`Shared::take_refusal`].
pub(super) const REFUSED_METHOD: &str = "DFS-REFUSED";
const REFUSED_HEAD: &[u8] = b"DFS-REFUSED / HTTP/1.1\r\nconnection: close\r\n\r\n";
/// Bytes read at once while waiting for a header.
const HEAD_READ: usize = 8 * 1024;

/// What the wire and the service of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    in_flight: AtomicUsize,
    all_answered: AtomicWaker,
    refusal: Mutex<Option<Refusal>>,
    slow_body: AtomicBool,
}

impl Shared {
    /// A request is being answered until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }

    fn set_refusal(&self, refusal: Refusal) {
        let mut slot = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(refusal);
    }

    /// Why the header that [`REFUSED_METHOD`] stands for was refused. `None` for a client that
    /// sends that method itself.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Whether the request's body was given up for its pace.
    pub(super) fn is_slow_body(&self) -> bool {
        self.slow_body.load(Ordering::Acquire)
    }

    fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }
}

/// A request between its header and the end of its answer.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        // The idle time starts: the read side must set its alarm.
        self.0.all_answered.wake();
    }
}

/// What comes next from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Head,
    /// Then a header, or another protocol.
    Body {
        border: BodyBorder,
        upgrade: bool,
    },
    /// Another protocol, or nothing: not ours to judge.
    Opaque,
    /// Nothing more is taken.
    Refused,
}

/// What a missing header makes us wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Our own answer.
    Answer,
    /// The first byte of another request.
    Idle,
    /// The rest of a header, or the first one.
    Head,
}

/// The socket with its guards and its place under the cap.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    limits: Arc<ServerLimits>,
    metrics: ServerMetrics,
    shared: Arc<Shared>,
    mode: Mode,
    /// Read from the socket, not judged yet.
    pending: BytesMut,
    /// Bytes of `pending` in which no header ends.
    seen: usize,
    /// Judged, for hyper to read.
    approved: BytesMut,
    wait: (Wait, Instant),
    first_request: bool,
    received: RateMeter,
    receive_alarm: Alarm,
    sent: RateMeter,
    send_alarm: Alarm,
    linger_until: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        limits: Arc<ServerLimits>,
        metrics: ServerMetrics,
        shared: Arc<Shared>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        metrics.open.inc();
        Self {
            stream,
            metrics,
            shared,
            mode: Mode::Head,
            pending: BytesMut::new(),
            seen: 0,
            approved: BytesMut::new(),
            wait: (Wait::Head, Instant::now()),
            first_request: true,
            received: RateMeter::new(limits.receive_rate),
            receive_alarm: Alarm::default(),
            sent: RateMeter::new(limits.send_rate),
            send_alarm: Alarm::default(),
            linger_until: None,
            limits,
            _place: place,
        }
    }

    /// Sends with `send`, which writes to the socket and does not wait: watched like any write.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.watch_write(
            cx,
            |stream, cx| {
                loop {
                    ready!(stream.poll_write_ready(cx))?;
                    match stream.try_io(Interest::WRITABLE, || send(&stream)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        done => return Poll::Ready(done),
                    }
                }
            },
            |stream| send(stream).map_err(|_| Errno::AGAIN),
        )
    }

    /// Moves towards a judged header: `Ready(true)` when there is progress, `Ready(false)` at the
    /// end of the connection.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // Empty lines between requests are allowed (RFC 9112, section 2.2).
        while self.pending.starts_with(b"\r\n") {
            self.pending.advance(2);
        }
        match head::scan(&self.pending, self.seen, &self.limits) {
            Ok(Some(head)) => {
                self.pass(head);
                return Poll::Ready(Ok(true));
            }
            Ok(None) => self.seen = self.pending.len(),
            Err(refusal) => {
                self.metrics.malformed.inc(refusal.0);
                self.refuse(refusal);
                return Poll::Ready(Ok(true));
            }
        }
        let mut scrap = [0; HEAD_READ];
        let mut buffer = ReadBuf::new(&mut scrap);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer)? {
            Poll::Ready(()) => {
                self.pending.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(!buffer.filled().is_empty()))
            }
            Poll::Pending => self.poll_head_timeout(cx).map(Ok),
        }
    }

    fn pass(&mut self, head: Head) {
        self.approved = self.pending.split_to(head.length);
        self.seen = 0;
        self.first_request = false;
        self.wait = (Wait::Answer, Instant::now());
        self.received.restart();
        self.mode = Mode::Body {
            border: BodyBorder::new(head.framing),
            upgrade: head.upgrade,
        };
        self.leave_body_at_border();
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.shared.set_refusal(refusal);
        self.approved = BytesMut::from(REFUSED_HEAD);
        self.pending = BytesMut::new();
        self.mode = Mode::Refused;
    }

    fn leave_body_at_border(&mut self) {
        if let Mode::Body { border, upgrade } = self.mode
            && border.is_reached()
        {
            self.mode = if upgrade { Mode::Opaque } else { Mode::Head };
            self.seen = 0;
        }
    }

    /// Ready when the time for a header is over.
    fn poll_head_timeout(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let wait = if self.shared.is_busy() || self.sent.is_waiting() {
            Wait::Answer
        } else if self.first_request || !self.pending.is_empty() {
            Wait::Head
        } else {
            Wait::Idle
        };
        if wait != self.wait.0 {
            self.wait = (wait, Instant::now());
        }
        let timeout = match wait {
            Wait::Answer => {
                self.shared.all_answered.register(cx.waker());
                // The last answer may have ended before the registration.
                if !self.shared.is_busy() && !self.sent.is_waiting() {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            Wait::Head => self.limits.header_timeout,
            Wait::Idle => self.limits.idle_timeout,
        };
        ready!(self.receive_alarm.poll_at(cx, self.wait.1 + timeout));
        if wait == Wait::Idle {
            self.metrics.cut.inc(CutReason::Idle);
            return Poll::Ready(false);
        }
        self.metrics.cut.inc(CutReason::HeaderTimeout);
        if self.pending.is_empty() {
            return Poll::Ready(false);
        }
        self.refuse(Refusal(
            ErrorCode::RequestTimeout,
            "the header did not arrive in time",
        ));
        Poll::Ready(true)
    }

    /// Reads body bytes and leaves what follows the body for the next header.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() {
            let bytes = std::mem::take(&mut self.pending);
            let taken = self.advance(&bytes)?;
            self.pending = bytes;
            self.approved = self.pending.split_to(taken);
            self.leave_body_at_border();
            return Poll::Ready(Ok(()));
        }
        loop {
            self.received.resume(Instant::now());
            let before = buffer.filled().len();
            if Pin::new(&mut self.stream).poll_read(cx, buffer)?.is_ready() {
                let taken = self.advance(&buffer.filled()[before..])?;
                self.pending
                    .extend_from_slice(&buffer.filled()[before + taken..]);
                buffer.set_filled(before + taken);
                self.leave_body_at_border();
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            match self.received.waiting(now) {
                Verdict::Within(left) => ready!(self.receive_alarm.poll_at(cx, now + left)),
                Verdict::TooSlow => {
                    self.metrics.cut.inc(CutReason::SlowRequest);
                    self.shared.slow_body.store(true, Ordering::Release);
                    self.mode = Mode::Refused;
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    fn advance(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Mode::Body { border, .. } = &mut self.mode else {
            return Ok(0);
        };
        let taken = border
            .advance(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "malformed chunked body"))?;
        self.received.moved(taken);
        Ok(taken)
    }

    /// Watches a write. `nudge` writes past the runtime's idea of readiness: the kernel reports a
    /// full buffer as writable only when a third of it is free again, and a reader that is slow but
    /// fast enough may take longer than a window for that.
    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
        nudge: impl Fn(&TcpStream) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let was_waiting = self.sent.is_waiting();
            self.sent.resume(Instant::now());
            let mut written = write(Pin::new(&mut self.stream), cx);
            if written.is_pending()
                && was_waiting
                && let Ok(bytes @ 1..) = nudge(&self.stream)
            {
                written = Poll::Ready(Ok(bytes));
            }
            if let Poll::Ready(result) = &written {
                self.sent.moved(*result.as_ref().unwrap_or(&0));
                if was_waiting {
                    // The read side waited for this write; see `poll_head_timeout`.
                    cx.waker().wake_by_ref();
                }
                return written;
            }
            let now = Instant::now();
            let Verdict::Within(left) = self.sent.waiting(now) else {
                self.metrics.cut.inc(CutReason::SlowReader);
                // What the reader did not take is dropped at once, not kept by the kernel.
                let _best_effort = self.stream.set_zero_linger();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            };
            let next = left.min(self.limits.send_rate.window / 8);
            ready!(
                self.send_alarm
                    .poll_at(cx, now + next.max(Duration::from_millis(1)))
            );
        }
    }

    /// Reads and drops what a peer still sends after its answer: closing at once would reset the
    /// connection, and the peer might never see the answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.mode, Mode::Body { .. } | Mode::Refused) || self.limits.linger.is_zero() {
            return Poll::Ready(());
        }
        let until = *self
            .linger_until
            .get_or_insert_with(|| Instant::now() + self.limits.linger);
        let mut scrap = [0; HEAD_READ];
        loop {
            let mut buffer = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && Instant::now() < until => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.receive_alarm.poll_at(cx, until),
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.approved.is_empty() {
                let length = self.approved.len().min(buffer.remaining());
                buffer.put_slice(&self.approved.split_to(length));
                return Poll::Ready(Ok(()));
            }
            match self.mode {
                Mode::Head => {
                    if !ready!(self.poll_head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Mode::Body { .. } => {
                    let before = buffer.filled().len();
                    ready!(self.poll_body(cx, buffer))?;
                    // Without bytes to hand out now this is the end, unless some wait above.
                    if buffer.filled().len() > before || self.approved.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
                Mode::Opaque if self.pending.is_empty() => {
                    return Pin::new(&mut self.stream).poll_read(cx, buffer);
                }
                Mode::Opaque => self.approved = self.pending.split(),
                // The end of the answer closes the connection; an end of file here would make
                // hyper give up the answer.
                Mode::Refused => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch_write(
            cx,
            |stream, cx| stream.poll_write(cx, bytes),
            |stream| rustix::io::write(stream, bytes),
        )
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch_write(
            cx,
            |stream, cx| stream.poll_write_vectored(cx, slices),
            |stream| rustix::io::writev(stream, slices),
        )
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_linger(cx).map(Ok)
    }
}
