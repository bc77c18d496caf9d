//! Sends spans to a collector, in batches, beside the requests: a collector that hangs or refuses costs
//! spans and nothing else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::metrics::{Drop, TraceMetrics};
use super::otlp;
use super::span::Ended;
use super::tracer::{QUEUE, Resource};
use crate::net::SharedConnector;
use crate::shutdown::{Shutdown, ShutdownTrigger, shutdown_pair};

/// Most spans of one request to the collector.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the spans of the last requests hold the end of a process up.
const FINISH: Duration = Duration::from_secs(2);
/// Where collectors take traces, below their address.
const TRACES: &str = "v1/traces";

/// What is sent where.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// Who takes the spans.
    pub collector: Collector,
    /// The share of requests that are written down, from 0 to 1.
    pub ratio: f64,
}

/// An OTLP endpoint over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    authority: Authority,
    path: String,
}

impl Collector {
    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(80)
    }

    /// `host:port`.
    fn address(&self) -> String {
        format!("{}:{}", self.authority.host(), self.port())
    }
}

/// An address that spans cannot be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseCollectorError {
    /// TLS is another process's work.
    #[error("spans are sent over plain http; let a collector beside the store speak https")]
    Tls,
    /// Anything else.
    #[error("this is no collector's address; write http://HOST:4318")]
    Malformed,
}

impl FromStr for Collector {
    type Err = ParseCollectorError;

    fn from_str(text: &str) -> Result<Self, ParseCollectorError> {
        let uri: Uri = text.parse().map_err(|_| ParseCollectorError::Malformed)?;
        let authority = uri.authority().filter(|at| !at.as_str().contains('@'));
        let authority = authority.filter(|at| uri.query().is_none() && has_usable_port(at));
        match (uri.scheme_str(), authority) {
            (Some("https"), _) => Err(ParseCollectorError::Tls),
            (Some("http"), Some(authority)) => Ok(Self {
                authority: authority.clone(),
                path: format!("{}/{TRACES}", uri.path().trim_end_matches('/')),
            }),
            _ => Err(ParseCollectorError::Malformed),
        }
    }
}

/// A port that is none leaves no trace in the parsed address: it would be taken for http's own.
fn has_usable_port(authority: &Authority) -> bool {
    let host = authority.host().len();
    match authority.as_str().get(host..) {
        None | Some("") => true,
        Some(_) => authority.port_u16().is_some_and(|port| port > 0),
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// The exporter at work.
#[derive(Debug)]
pub struct Exporting {
    task: JoinHandle<()>,
    stop: ShutdownTrigger,
}

impl Exporting {
    /// Sends what waits, within two seconds, and ends.
    pub async fn finish(self) {
        let Self { mut task, stop } = self;
        stop.trigger();
        if tokio::time::timeout(FINISH, &mut task).await.is_err() {
            task.abort();
        }
    }
}

pub(super) fn start(
    collector: Collector,
    resource: Resource,
    connector: SharedConnector,
    metrics: TraceMetrics,
    waiting: mpsc::Receiver<Ended>,
) -> Exporting {
    metrics
        .queue_limit
        .set(i64::try_from(QUEUE).unwrap_or(i64::MAX));
    let (stop, stopping) = shutdown_pair();
    let exporter = Exporter {
        collector,
        resource,
        connector,
        metrics,
        was_taken: true,
    };
    Exporting {
        task: tokio::spawn(exporter.run(waiting, stopping)),
        stop,
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("it cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the call failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Refused(http::StatusCode),
    #[error("it did not answer within {} s", ANSWER.as_secs())]
    Late,
}

struct Exporter {
    collector: Collector,
    resource: Resource,
    connector: SharedConnector,
    metrics: TraceMetrics,
    /// The last batch was: a collector that is away is one line in the log, not one for each batch.
    was_taken: bool,
}

impl Exporter {
    async fn run(mut self, mut waiting: mpsc::Receiver<Ended>, stopping: Shutdown) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let gathered = tokio::select! {
                any = gather(&mut waiting, &mut batch) => any,
                () = stopping.triggered() => break,
            };
            if !gathered {
                break;
            }
            self.send(&mut batch).await;
        }
        waiting.close();
        while !batch.is_empty() || waiting.recv_many(&mut batch, BATCH).await > 0 {
            self.send(&mut batch).await;
        }
    }

    async fn send(&mut self, batch: &mut Vec<Ended>) {
        let count = batch.len() as u64;
        let body = otlp::body(&self.resource, batch);
        batch.clear();
        let sent = tokio::time::timeout(ANSWER, self.post(body)).await;
        match sent.unwrap_or(Err(NotTaken::Late)) {
            Ok(()) => {
                self.metrics.exported.inc_by(count);
                if !self.was_taken {
                    tracing::info!(collector = %self.collector, "the collector takes traces again");
                }
                self.was_taken = true;
            }
            Err(error) => {
                self.metrics.failures.inc();
                self.metrics.dropped.add(Drop::NotSent, count);
                if self.was_taken {
                    tracing::warn!(collector = %self.collector, %error, "the collector takes no traces");
                }
                self.was_taken = false;
            }
        }
    }

    /// Over a connection of its own: batches are a second apart.
    async fn post(&self, body: Vec<u8>) -> Result<(), NotTaken> {
        let stream = self.connector.connect(&self.collector.address()).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(self.collector.path.as_str())
            .header(HOST, self.collector.authority.as_str())
            .header(CONNECTION, HeaderValue::from_static("close"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::from(body)))?;
        let mut call = std::pin::pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut call => answer?,
            // With its last breath it may have brought the answer.
            ended = connection => {
                ended?;
                call.await?
            }
        };
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(NotTaken::Refused(answer.status()))
        }
    }
}

/// Waits for a span and a little longer for others; false when nobody can send one any more. Safe to
/// cancel: what came is in the batch.
async fn gather(waiting: &mut mpsc::Receiver<Ended>, batch: &mut Vec<Ended>) -> bool {
    if batch.is_empty() && waiting.recv_many(batch, BATCH).await == 0 {
        return false;
    }
    let more = async {
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            if waiting.recv_many(batch, room).await == 0 {
                return;
            }
        }
    };
    let _full = tokio::time::timeout(GATHER, more).await;
    true
}
