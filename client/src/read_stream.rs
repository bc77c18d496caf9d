//! Reading chunks over connections of their own: checksums, then the blocks' bytes without frames between them. One connection carries many
//! reads in sequence. Every block is verified here, because the datanode sends it as it lies on the disk.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::Problem;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::frame::{self, FrameError, FrameKind, READ_STREAM_PROTOCOL, ReadChunk};
use dfs_protocol::routes::{DATANODE_HEADER, datanode};
use dfs_runtime::metrics::Label as _;
use dfs_runtime::trace::{self, Outgoing};
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::call::{Call, CallResult};
use crate::driven::IDLE_READS;
use crate::error::ClientError;
use crate::frame_io::{Frame, FrameIoError, FrameReader};
use crate::http::{HttpClient, empty, innermost, malformed, refusal, timed_out, unreachable};
use crate::metrics::Timed;

/// An idle connection is closed after so long; datanodes wait longer.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A datanode of an earlier version, which cannot be read from like this, is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_mins(1);

type Stream = FrameReader<TokioIo<hyper::upgrade::Upgraded>>;

/// A read whose blocks are on their way.
#[derive(Debug)]
pub(crate) struct RawBlocks {
    stream: Stream,
    checksums: Bytes,
}

/// Why a read did not begin.
enum NotBegun {
    /// The connection ended before an answer began.
    Ended(ClientError),
    Refused(ClientError),
}

/// Idle connections by datanode, and who cannot be read from like this. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadStreams(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those used last at the end. Several datanodes may share an address.
    idle: HashMap<DatanodeAddress, Vec<(Instant, Stream)>>,
    /// Datanodes of an earlier version, and when they were asked.
    earlier: HashMap<String, Instant>,
    /// Somebody closes those that nobody uses.
    is_swept: bool,
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
        let data = received.map_err(|error| unreachable(&from.address, &error))?;
        let told = self.checksums.get(4 * index..4 * index + 4);
        let told = told.and_then(|bytes| bytes.try_into().ok());
        let told = told.map(u32::from_le_bytes);
        match told {
            Some(crc) if crc32c(&data) == crc => Ok((crc, data)),
            _ => Err(malformed(&from.address, &"a block is damaged")),
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
        let begun = asking
            .await
            .unwrap_or_else(|_| Err(timed_out(&from.address, timeout)));
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
        while let Some(stream) = self.take(from) {
            match ask(stream, from, read).await {
                Ok(blocks) => return Ok(Some(blocks)),
                Err(NotBegun::Refused(error)) => return Err(error),
                Err(NotBegun::Ended(_)) => {
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
            Ok(blocks) => Ok(Some(blocks)),
            Err(NotBegun::Ended(error) | NotBegun::Refused(error)) => Err(error),
        }
    }

    fn is_of_an_earlier_version(&self, address: &str) -> bool {
        let known = self.lock();
        let asked = known.earlier.get(address);
        asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN)
    }

    fn note_earlier_version(&self, address: &str) {
        let mut known = self.lock();
        known.earlier.retain(|_, asked| asked.elapsed() < ASK_AGAIN);
        known.earlier.insert(address.to_owned(), Instant::now());
    }

    fn take(&self, from: &DatanodeAddress) -> Option<Stream> {
        let mut known = self.lock();
        let kept = known.idle.get_mut(from)?;
        let (since, stream) = kept.pop()?;
        if since.elapsed() < IDLE_TIME {
            return Some(stream);
        }
        // The others are idle for longer.
        kept.clear();
        None
    }

    /// Keeps the connection of a read whose last block was taken.
    pub(crate) fn keep(&self, from: &DatanodeAddress, mut blocks: RawBlocks) {
        blocks.stream.rest();
        let mut known = self.lock();
        if !known.is_swept {
            known.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
        let kept = known.idle.entry(from.clone()).or_default();
        if kept.len() < IDLE_READS {
            kept.push((Instant::now(), blocks.stream));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that nobody used for a while, until there are none.
async fn sweep(known: Weak<Mutex<Known>>) {
    loop {
        tokio::time::sleep(IDLE_TIME).await;
        let Some(known) = known.upgrade() else { return };
        let mut known = lock(&known);
        for kept in known.idle.values_mut() {
            kept.retain(|(since, _)| since.elapsed() < IDLE_TIME);
        }
        known.idle.retain(|_, kept| !kept.is_empty());
        if known.idle.is_empty() {
            known.is_swept = false;
            return;
        }
    }
}

async fn ask(
    mut stream: Stream,
    from: &DatanodeAddress,
    read: &ReadChunk,
) -> Result<RawBlocks, NotBegun> {
    let address = &from.address;
    let broken = |detail: &dyn std::fmt::Display| NotBegun::Refused(malformed(address, detail));
    let asked = frame::control(FrameKind::Read, read).ok_or_else(|| broken(&"too long"))?;
    let sent = stream.stream_mut().write_all(&asked).await;
    sent.map_err(|error| NotBegun::Ended(unreachable(address, &error)))?;
    let frame = match stream.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => {
            let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(NotBegun::Ended(unreachable(address, &ended)));
        }
        Err(FrameIoError::Io(error)) => return Err(NotBegun::Ended(unreachable(address, &error))),
        Err(FrameIoError::Frame(error)) => return Err(broken(&error)),
    };
    let Frame { header, payload } = frame;
    let blocks = read.blocks();
    let table = 4 * (blocks.end - blocks.start);
    match header.kind {
        FrameKind::Checksums if payload.len() as u64 == table => Ok(RawBlocks {
            stream,
            checksums: payload,
        }),
        FrameKind::Refused => {
            let problem: Result<Problem, FrameError> = frame::parse(&payload);
            Err(NotBegun::Refused(match problem {
                Ok(problem) => problem.into(),
                Err(error) => malformed(address, &error),
            }))
        }
        kind => Err(broken(&format!("unexpected {kind:?} frame"))),
    }
}

/// A new connection; `None` where the datanode does not know such reads.
async fn connect(http: &HttpClient, to: &DatanodeAddress) -> Result<Option<Stream>, ClientError> {
    let address = &to.address;
    let not_connected = |detail| ClientError::NotConnected {
        address: address.clone(),
        detail,
    };
    let stream = http.connector().connect(address).await;
    let stream = stream.map_err(|error| not_connected(innermost(&error)))?;
    let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(|error| not_connected(innermost(&error)))?;
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
