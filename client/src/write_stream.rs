//! The writing end of a chunk stream: what a gateway, or a hop towards the next, speaks.

mod whole;

use std::io;
use std::time::Duration;

use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{
    self, FrameKind, HopFailure, HopFault, OpenChunk, SealedReport, WRITE_STREAM_PROTOCOL,
};
use dfs_protocol::routes::{DATANODE_HEADER, TAKES_TRACE_HEADER, TAKES_WHOLE_HEADER, datanode};
use dfs_protocol::{DatanodeId, Problem, TraceContext};
use dfs_runtime::trace::{self, Outgoing, Span};
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf};

use crate::call::{Call, CallResult};
use crate::frame_io::{Frame, FrameIoError, FrameReader, FrameWriter};
use crate::http::HttpClient;
use crate::idle::{IDLE_WRITES, IdleConnections};
use crate::metrics::{ClientMetrics, IdleStream, Timed};
use crate::silence::SilenceWatch;

pub use whole::WholeBlock;

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Room for what a datanode says: most of it fills a fifth.
const ANSWER: usize = 1024;
/// How long a chain may take to open whose first hop lives.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Opens chunk streams and keeps idle ones: one connection carries many chunks in sequence.
#[derive(Debug)]
pub struct WriteStreams {
    http: HttpClient,
    watch: SilenceWatch,
    idle: IdleConnections<DatanodeAddress, Idle>,
}

/// A stream that waits for its next chunk.
#[derive(Debug)]
struct Idle {
    halves: Halves,
    _counted: Option<IdleStream>,
}

#[derive(Debug)]
struct Halves {
    sender: FrameWriter<WriteHalf<Upgraded>>,
    receiver: FrameReader<ReadHalf<Upgraded>>,
    takes: Takes,
}

/// What the datanode at the other end understands beside what every one does.
#[derive(Debug, Clone, Copy)]
struct Takes {
    /// Whose request writes a chunk.
    trace: bool,
    /// A chunk of one block at once.
    whole: bool,
}

/// One chunk being written. `sender` and `receiver` may live in different tasks.
#[derive(Debug)]
pub struct ChunkWriter {
    /// Towards the datanode.
    pub sender: ChunkSender,
    /// From the datanode.
    pub receiver: ChunkReceiver,
}

/// The half that sends blocks.
#[derive(Debug)]
pub struct ChunkSender {
    to: DatanodeAddress,
    frames: FrameWriter<WriteHalf<Upgraded>>,
}

/// The half that receives confirmations.
#[derive(Debug)]
pub struct ChunkReceiver {
    from: DatanodeAddress,
    frames: FrameReader<ReadHalf<Upgraded>>,
    takes: Takes,
    /// From the opening to the end of the chunk.
    span: Span,
}

/// Why a chunk is not open.
enum NotOpen {
    /// The stream ended before the first hop said anything.
    Ended(HopFailure),
    /// The first hop is silent: no other stream to it is better.
    Silent(HopFailure),
    /// A hop refused or took too long, or its answer cannot be understood.
    Refused(HopFailure),
}

impl NotOpen {
    fn failure(self) -> HopFailure {
        match self {
            Self::Ended(failure) | Self::Silent(failure) | Self::Refused(failure) => failure,
        }
    }
}

/// What a datanode says while a chunk is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkEvent {
    /// Every live hop has the bytes before this offset.
    Progress(u64),
    /// Durable on the hops that the report names; the stream may carry the next chunk.
    Sealed(SealedReport),
    /// The chunk failed; the stream is of no use.
    Failed(HopFailure),
}

impl WriteStreams {
    /// Streams over connections as `http` opens them, with the token that it sends; `watch` tells
    /// whether a hop that does not answer lives.
    pub fn new(http: HttpClient, watch: SilenceWatch) -> Self {
        Self {
            http,
            watch,
            idle: IdleConnections::new(IDLE_WRITES),
        }
    }

    /// Tells whether a hop lives.
    pub fn watch(&self) -> &SilenceWatch {
        &self.watch
    }

    /// Ends when the hop is silent, with that as its failure; to be raced against what is waited for.
    pub async fn silent_hop(&self, at: &DatanodeAddress) -> HopFailure {
        self.watch.silence(at).await;
        let detail = "it is silent: it neither goes on nor says who it is";
        failure(at.id, HopFault::Unreachable, &detail)
    }

    /// Opens a chunk on `first` and the hops behind it. `open.datanode` must be `first.id`.
    ///
    /// A failure names the hop at fault, which need not be `first`.
    pub async fn open(
        &self,
        first: &DatanodeAddress,
        open: &OpenChunk,
    ) -> Result<ChunkWriter, HopFailure> {
        let timed = Timed::begin(self.http.metrics(), Call::Write);
        let Outgoing {
            context, mut span, ..
        } = trace::outgoing(Call::Write.name());
        span.text("server.address", || first.address.clone());
        let opened = self.open_any(first, &Opening { open, context }).await;
        match opened {
            Ok(mut writer) => {
                timed.end(CallResult::Ok);
                writer.receiver.span = span;
                Ok(writer)
            }
            Err(failed) => {
                timed.end(match failed.cause {
                    HopFault::Unreachable => CallResult::Unreachable,
                    _ => CallResult::Refused,
                });
                span.failed(failed.cause.as_str());
                Err(failed)
            }
        }
    }

    async fn open_any(
        &self,
        first: &DatanodeAddress,
        opening: &Opening<'_>,
    ) -> Result<ChunkWriter, HopFailure> {
        // A stream that idled may have been closed by its peer: it shows on first use, before any
        // byte of the chunk was sent, and a fresh connection decides.
        while let Some(halves) = self.take_idle(first) {
            match self.try_open(first, halves, opening).await {
                Ok(writer) => return Ok(writer),
                Err(NotOpen::Ended(_)) => {
                    if let Some(metrics) = self.http.metrics() {
                        metrics.retried();
                    }
                }
                Err(NotOpen::Silent(silent)) => {
                    self.idle.forget(first);
                    return Err(silent);
                }
                Err(NotOpen::Refused(refused)) => return Err(refused),
            }
        }
        let halves = tokio::select! {
            connected = self.connect_in_time(first) => connected?,
            silent = self.silent_hop(first) => return Err(silent),
        };
        let opened = self.try_open(first, halves, opening).await;
        opened.map_err(NotOpen::failure)
    }

    /// Keeps the stream of a chunk that was sealed for the next one.
    pub fn put_back(&self, sender: ChunkSender, receiver: ChunkReceiver) {
        let ChunkSender { to, frames } = sender;
        let mut halves = Halves {
            sender: frames,
            receiver: receiver.frames,
            takes: receiver.takes,
        };
        // What came behind the answer is nobody's.
        if !halves.receiver.rest() {
            return;
        }
        let metrics = self.http.metrics();
        let idle = Idle {
            halves,
            _counted: metrics.map(ClientMetrics::stream_idle),
        };
        let is_kept = self.idle.keep(&to, idle);
        if let Some(metrics) = metrics.filter(|_| !is_kept) {
            metrics.stream_dropped();
        }
    }

    fn take_idle(&self, first: &DatanodeAddress) -> Option<Halves> {
        self.idle.take(first).map(|idle| idle.halves)
    }

    async fn try_open(
        &self,
        first: &DatanodeAddress,
        halves: Halves,
        opening: &Opening<'_>,
    ) -> Result<ChunkWriter, NotOpen> {
        let Halves {
            mut sender,
            receiver,
            takes,
        } = halves;
        let opening = opening.frame(FrameKind::Open, takes, first)?;
        let mut receiver = ChunkReceiver {
            from: first.clone(),
            frames: receiver,
            takes,
            span: Span::none(),
        };
        let exchange = async {
            let sent = sender.raw(&opening).await;
            sent.map_err(|error| failure(first.id, HopFault::Unreachable, &error))?;
            receiver.next_frame().await
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(OPEN_TIMEOUT, exchange) => answer.map_err(|_| {
                let detail = "opening the chunk timed out";
                NotOpen::Refused(failure(first.id, HopFault::Unreachable, &detail))
            })?,
            silent = self.silent_hop(first) => return Err(NotOpen::Silent(silent)),
        };
        let frame = answer.map_err(|failed| match failed.cause {
            HopFault::Unreachable => NotOpen::Ended(failed),
            _ => NotOpen::Refused(failed),
        })?;
        match frame.header.kind {
            FrameKind::Opened => Ok(ChunkWriter {
                sender: ChunkSender {
                    to: first.clone(),
                    frames: sender,
                },
                receiver,
            }),
            FrameKind::Failed => {
                let told = receiver.parse(&frame);
                Err(NotOpen::Refused(told.unwrap_or_else(|malformed| malformed)))
            }
            kind => Err(NotOpen::Refused(failure(
                first.id,
                HopFault::Protocol,
                &format!("{kind:?} before opened"),
            ))),
        }
    }

    async fn connect_in_time(&self, to: &DatanodeAddress) -> Result<Halves, HopFailure> {
        let connected = tokio::time::timeout(OPEN_TIMEOUT, self.connect(to)).await;
        connected.unwrap_or_else(|_| {
            let detail = "connecting timed out";
            Err(failure(to.id, HopFault::Unreachable, &detail))
        })
    }

    async fn connect(&self, to: &DatanodeAddress) -> Result<Halves, HopFailure> {
        let unreachable =
            |error: &dyn std::fmt::Display| failure(to.id, HopFault::Unreachable, error);
        let connecting = self.http.connector().connect(&to.address);
        let stream = connecting.await.map_err(|e| unreachable(&e))?;
        let (mut request, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a chunk stream's connection ended");
            }
        });
        let mut upgrade = Request::get(datanode::WRITE_STREAM)
            .header(HOST, &to.address)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, WRITE_STREAM_PROTOCOL)
            .header(DATANODE_HEADER, to.id.to_string())
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|e| failure(to.id, HopFault::Protocol, &e))?;
        if let Some(token) = self.http.tokens().to_send() {
            upgrade.headers_mut().insert(AUTHORIZATION, token);
        }
        let response = request
            .send_request(upgrade)
            .await
            .map_err(|e| unreachable(&e))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(to.id, response).await);
        }
        let says = |header| response.headers().contains_key(header);
        let takes = Takes {
            trace: says(TAKES_TRACE_HEADER),
            whole: says(TAKES_WHOLE_HEADER),
        };
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|e| unreachable(&e))?;
        let (read, write) = tokio::io::split(TokioIo::new(upgraded));
        let mut receiver = FrameReader::new(read);
        receiver.expect(ANSWER);
        Ok(Halves {
            sender: FrameWriter::new(write),
            receiver,
            takes,
        })
    }
}

/// A chunk as it is to be opened.
struct Opening<'a> {
    open: &'a OpenChunk,
    /// Of the request that writes it.
    context: Option<TraceContext>,
}

impl Opening<'_> {
    /// An older datanode would refuse what it does not know.
    fn frame(
        &self,
        kind: FrameKind,
        takes: Takes,
        first: &DatanodeAddress,
    ) -> Result<Vec<u8>, NotOpen> {
        let open = OpenChunk {
            trace: self.context.filter(|_| takes.trace),
            ..self.open.clone()
        };
        frame::control(kind, &open).ok_or_else(|| {
            let detail = "the open frame is too large";
            NotOpen::Refused(failure(first.id, HopFault::Protocol, &detail))
        })
    }
}

impl ChunkSender {
    /// Sends one block whose CRC32C is known.
    pub async fn block(&mut self, offset: u64, crc32c: u32, data: &[u8]) -> Result<(), HopFailure> {
        let sent = self.frames.block(offset, crc32c, data).await;
        self.check(sent)
    }

    /// Says that there are no more blocks; the whole as the writer saw it.
    pub async fn seal(&mut self, chunk: &SealedChunk) -> Result<(), HopFailure> {
        let Some(seal) = frame::control(FrameKind::Seal, chunk) else {
            return Err(failure(
                self.to.id,
                HopFault::Protocol,
                &"the seal frame is too large",
            ));
        };
        let sent = self.frames.raw(&seal).await;
        self.check(sent)
    }

    /// Lets the datanodes drop what was written.
    pub async fn abort(&mut self) -> Result<(), HopFailure> {
        let sent = self.frames.raw(&frame::signal(FrameKind::Abort, 0)).await;
        self.check(sent)
    }

    /// Hands everything to the network.
    pub async fn flush(&mut self) -> Result<(), HopFailure> {
        let sent = self.frames.flush().await;
        self.check(sent)
    }

    fn check(&self, sent: io::Result<()>) -> Result<(), HopFailure> {
        sent.map_err(|error| failure(self.to.id, HopFault::Unreachable, &error))
    }
}

impl ChunkReceiver {
    /// What the datanode says next. Safe to cancel.
    pub async fn next(&mut self) -> Result<ChunkEvent, HopFailure> {
        let event = self.next_event().await;
        if let Err(failed) | Ok(ChunkEvent::Failed(failed)) = &event {
            self.span.failed(failed.cause.as_str());
        }
        event
    }

    async fn next_event(&mut self) -> Result<ChunkEvent, HopFailure> {
        let frame = self.next_frame().await?;
        match frame.header.kind {
            FrameKind::Progress => Ok(ChunkEvent::Progress(frame.header.offset)),
            FrameKind::Sealed => Ok(ChunkEvent::Sealed(self.parse(&frame)?)),
            FrameKind::Failed => Ok(ChunkEvent::Failed(self.parse(&frame)?)),
            kind => Err(failure(
                self.from.id,
                HopFault::Protocol,
                &format!("unexpected {kind:?}"),
            )),
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, HopFailure> {
        match self.frames.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(failure(
                self.from.id,
                HopFault::Unreachable,
                &"the stream ended",
            )),
            Err(FrameIoError::Io(error)) => {
                Err(failure(self.from.id, HopFault::Unreachable, &error))
            }
            Err(FrameIoError::Frame(error)) => {
                Err(failure(self.from.id, HopFault::Corrupt, &error))
            }
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, frame: &Frame) -> Result<T, HopFailure> {
        frame::parse(&frame.payload).map_err(|e| failure(self.from.id, HopFault::Protocol, &e))
    }
}

/// A failure of one hop.
pub fn failure(
    datanode: DatanodeId,
    cause: HopFault,
    detail: &dyn std::fmt::Display,
) -> HopFailure {
    HopFailure {
        datanode,
        cause,
        detail: detail.to_string(),
    }
}

/// The failure behind a datanode that would not upgrade the connection.
async fn refused(
    datanode: DatanodeId,
    response: http::Response<hyper::body::Incoming>,
) -> HopFailure {
    let cause = match response.status() {
        StatusCode::MISDIRECTED_REQUEST => HopFault::WrongDatanode,
        StatusCode::INSUFFICIENT_STORAGE => HopFault::NoSpace,
        StatusCode::CONFLICT => HopFault::Fenced,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => HopFault::Busy,
        _ => HopFault::Protocol,
    };
    let status = response.status();
    let body = Limited::new(response.into_body(), 64 * 1024).collect();
    let bytes = tokio::time::timeout(Duration::from_secs(5), body).await;
    let problem = bytes
        .ok()
        .and_then(Result::ok)
        .and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    match problem {
        Some(problem) => failure(datanode, cause, &problem),
        None => failure(datanode, cause, &format!("refused with status {status}")),
    }
}
