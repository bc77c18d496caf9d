//! Reading chunks over connections of their own: checksums, then the blocks' bytes without frames between them. One connection carries many
//! reads in sequence. Every block is verified here, because the datanode sends it as it lies on the disk.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::Problem;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::frame::{self, FrameKind, HEADER_LEN, READ_STREAM_PROTOCOL, ReadChunk};
use dfs_protocol::routes::{DATANODE_HEADER, datanode};
use dfs_runtime::metrics::Label as _;
use dfs_runtime::trace::{self, Outgoing};
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::call::{Call, CallResult};
use crate::driven;
use crate::error::ClientError;
use crate::frame_io::{Frame, FrameIoError, FrameReader};
use crate::http::{HttpClient, empty, malformed, refusal, timed_out, unreachable};
use crate::idle::{IDLE_READS, IdleConnections};
use crate::metrics::Timed;

/// A datanode of an earlier version, which cannot be read from like this, is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_mins(1);

type Stream = FrameReader<TokioIo<hyper::upgrade::Upgraded>>;

/// A read whose blocks are on their way.
#[derive(Debug)]
pub(crate) struct RawBlocks {
    stream: Stream,
    checksums: Bytes,
}

/// What a datanode says to a read.
enum Answer {
    Blocks(RawBlocks),
    /// No. The connection may carry the next read.
    Refusal(ClientError, Stream),
}

/// Why there is no answer.
enum NotAnswered {
    /// The connection ended before it began.
    Ended(ClientError),
    /// It cannot be understood.
    Malformed(ClientError),
}

/// Idle connections, and who cannot be read from like this. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct ReadStreams {
    /// Several datanodes may share an address.
    idle: IdleConnections<DatanodeAddress, Stream>,
    /// Addresses of datanodes of an earlier version, and when they were asked.
    earlier: Arc<Mutex<HashMap<String, Instant>>>,
}

impl RawBlocks {
    /// The next `length` bytes, which are block `index` of the read. Safe to cancel.
    pub(crate) async fn block(
        &mut self,
        from: &DatanodeAddress,
        index: usize,
        length: usize,
    ) -> Result<(u32, Bytes), ClientError> {
        let received = self.stream.bytes(length).await;
        let data = received.map_err(|error| ClientError::BrokenOff {
            address: from.address.clone(),
            detail: error.to_string(),
        })?;
        let told = self.checksums.get(4 * index..4 * index + 4);
        let told = told.and_then(|bytes| bytes.try_into().ok());
        let told = told.map(u32::from_le_bytes);
        match told {
            Some(crc) if crc32c(&data) == crc => Ok((crc, data)),
            _ => Err(malformed(&from.address, &"a block is damaged")),
        }
    }
}

impl Default for ReadStreams {
    fn default() -> Self {
        Self {
            idle: IdleConnections::new(IDLE_READS),
            earlier: Arc::default(),
        }
    }
}

impl ReadStreams {
    /// Begins a read; `None` where the datanode is of an earlier version. The answer's head is here on return.
    pub(crate) async fn begin(
        &self,
        http: &HttpClient,
        from: &DatanodeAddress,
        read: ReadChunk,
        timeout: Duration,
    ) -> Result<Option<RawBlocks>, ClientError> {
        if self.is_of_an_earlier_version(&from.address) {
            return Ok(None);
        }
        let timed = Timed::begin(http.metrics(), Call::Read);
        let Outgoing {
            context, mut span, ..
        } = trace::outgoing(Call::Read.name());
        span.text("server.address", || from.address.clone());
        let read = ReadChunk {
            trace: context,
            ..read
        };
        let asking = tokio::time::timeout(timeout, self.ask_any(http, from, &read));
        let begun = asking.await.unwrap_or_else(|_| {
            // The others would keep the next reads waiting for as long.
            self.idle.forget(from);
            Err(timed_out(&from.address, timeout))
        });
        let result = match &begun {
            Ok(_) => CallResult::Ok,
            Err(error) => CallResult::from(error),
        };
        if begun.is_err() {
            span.failed(result.as_str());
        }
        timed.end(result);
        begun
    }

    async fn ask_any(
        &self,
        http: &HttpClient,
        from: &DatanodeAddress,
        read: &ReadChunk,
    ) -> Result<Option<RawBlocks>, ClientError> {
        // One that idled may have been closed by its peer, which shows on first use: asking twice is asking once.
        while let Some(stream) = self.idle.take(from) {
            match ask(stream, from, read).await {
                Ok(answer) => return self.begun(from, answer).map(Some),
                Err(NotAnswered::Malformed(error)) => return Err(error),
                Err(NotAnswered::Ended(_)) => {
                    if let Some(metrics) = http.metrics() {
                        metrics.retried();
                    }
                }
            }
        }
        let Some(stream) = connect(http, from).await? else {
            self.note_earlier_version(&from.address);
            return Ok(None);
        };
        match ask(stream, from, read).await {
            Ok(answer) => self.begun(from, answer).map(Some),
            Err(NotAnswered::Ended(error) | NotAnswered::Malformed(error)) => Err(error),
        }
    }

    fn begun(&self, from: &DatanodeAddress, answer: Answer) -> Result<RawBlocks, ClientError> {
        match answer {
            Answer::Blocks(blocks) => Ok(blocks),
            Answer::Refusal(error, stream) => {
                self.put_back(from, stream);
                Err(error)
            }
        }
    }

    fn is_of_an_earlier_version(&self, address: &str) -> bool {
        let earlier = self.earlier();
        let asked = earlier.get(address);
        asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN)
    }

    fn note_earlier_version(&self, address: &str) {
        let mut earlier = self.earlier();
        earlier.retain(|_, asked| asked.elapsed() < ASK_AGAIN);
        earlier.insert(address.to_owned(), Instant::now());
    }

    fn earlier(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection of a read whose last block was taken.
    pub(crate) fn keep(&self, from: &DatanodeAddress, blocks: RawBlocks) {
        self.put_back(from, blocks.stream);
    }

    fn put_back(&self, from: &DatanodeAddress, mut stream: Stream) {
        // What came beside an answer is nobody's.
        if stream.rest() {
            self.idle.keep(from, stream);
        }
    }
}

async fn ask(
    mut stream: Stream,
    from: &DatanodeAddress,
    read: &ReadChunk,
) -> Result<Answer, NotAnswered> {
    let address = &from.address;
    let broken =
        |detail: &dyn std::fmt::Display| NotAnswered::Malformed(malformed(address, detail));
    let ended = |error: io::Error| NotAnswered::Ended(unreachable(address, &error));
    let asked = frame::control(FrameKind::Read, read).ok_or_else(|| broken(&"too long"))?;
    stream.expect(answer_length(read));
    let sent = stream.stream_mut().write_all(&asked).await;
    sent.map_err(ended)?;
    let frame = match stream.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(ended(io::ErrorKind::UnexpectedEof.into())),
        Err(FrameIoError::Io(error)) => return Err(ended(error)),
        Err(FrameIoError::Frame(error)) => return Err(broken(&error)),
    };
    let Frame { header, payload } = frame;
    match header.kind {
        FrameKind::Checksums
            if header.offset == read.start && payload.len() as u64 == table_length(read) =>
        {
            Ok(Answer::Blocks(RawBlocks {
                stream,
                checksums: payload,
            }))
        }
        FrameKind::Refused => {
            let problem: Problem = frame::parse(&payload).map_err(|error| broken(&error))?;
            Ok(Answer::Refusal(problem.into(), stream))
        }
        kind => Err(broken(&format!("unexpected {kind:?} frame"))),
    }
}

/// Bytes of the checksums of a read's blocks.
fn table_length(read: &ReadChunk) -> u64 {
    let blocks = read.blocks();
    4 * (blocks.end - blocks.start)
}

/// Bytes of the answer to a read that is not refused.
fn answer_length(read: &ReadChunk) -> usize {
    let data = read.end.saturating_sub(read.start);
    let answer = data.saturating_add(table_length(read));
    usize::try_from(answer).map_or(usize::MAX, |bytes| bytes.saturating_add(HEADER_LEN))
}

/// A new connection; `None` where the datanode does not know such reads.
async fn connect(http: &HttpClient, to: &DatanodeAddress) -> Result<Option<Stream>, ClientError> {
    let address = &to.address;
    let (mut sender, connection) = driven::open(http.connector(), address).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a read stream's connection ended");
        }
    });
    let mut upgrade = Request::get(datanode::READ_STREAM)
        .header(HOST, address)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, READ_STREAM_PROTOCOL)
        .header(DATANODE_HEADER, to.id.to_string())
        .body(empty())
        .map_err(|error| malformed(address, &error))?;
    if let Some(token) = http.tokens().to_send() {
        upgrade.headers_mut().insert(AUTHORIZATION, token);
    }
    let response = sender.send_request(upgrade).await;
    let response = response.map_err(|error| unreachable(address, &error))?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let upgraded = hyper::upgrade::on(response).await;
            let upgraded = upgraded.map_err(|error| unreachable(address, &error))?;
            Ok(Some(FrameReader::new(TokioIo::new(upgraded))))
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
        _ => Err(refusal(address, response).await),
    }
}
