//! What a process's calls to other roles cost and how they end.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use dfs_runtime::metrics::{CounterBy, DURATION_BUCKETS, Label, counter, gauge, registered};
use dfs_runtime::net::{Connection, Connector, SharedConnector};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::call::{Call, CallResult, Peer};
use crate::http::IDLE_PER_PEER;
use crate::idle::{IDLE_READS, IDLE_WRITES};

dfs_runtime::label_enum! {
    /// Whether a connection came to be.
    pub enum Connecting: "result" {
        /// It did.
        Ok = "ok",
        /// The peer did not accept in time, or refused.
        Failed = "failed",
    }
}

/// `dfs_client_*`: one set per process, whatever it calls.
#[derive(Clone)]
pub struct ClientMetrics(Arc<Registered>);

struct Registered {
    requests: IntCounterVec,
    seconds: HistogramVec,
    retries: IntCounter,
    open: IntGauge,
    connections: CounterBy<Connecting>,
    idle_streams: IntGauge,
    streams_dropped: IntCounter,
}

impl ClientMetrics {
    /// Registers the metrics, every series at zero; one set per registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let limits = IntGaugeVec::new(
            Opts::new(
                "dfs_client_idle_limit_connections",
                "Most connections without work that are kept for each peer",
            ),
            &["pool"],
        )?;
        let limits = registered(registry, limits)?;
        for (pool, limit) in [
            ("call", IDLE_PER_PEER),
            ("read", IDLE_READS),
            ("read-stream", IDLE_READS),
            ("stream", IDLE_WRITES),
        ] {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            limits.with_label_values(&[pool]).set(limit);
        }
        Ok(Self(Arc::new(Registered {
            requests: requests(registry)?,
            seconds: seconds(registry)?,
            retries: counter(
                registry,
                "dfs_client_retries_total",
                "Chunks that were opened again because their datanode had closed the idle stream",
            )?,
            open: gauge(
                registry,
                "dfs_client_open_connections",
                "Connections to other roles that are open, idle ones included",
            )?,
            connections: CounterBy::register(
                registry,
                "dfs_client_connections_total",
                "Connections to other roles that were tried",
            )?,
            idle_streams: gauge(
                registry,
                "dfs_client_idle_streams",
                "Chunk streams that wait for their next chunk",
            )?,
            streams_dropped: counter(
                registry,
                "dfs_client_idle_streams_dropped_total",
                "Chunk streams closed because enough of their datanode's were idle",
            )?,
        })))
    }

    pub(crate) fn ended(&self, call: Call, result: CallResult, lasted: Duration) {
        let (peer, call) = (call.peer().as_str(), call.as_str());
        let requests = &self.0.requests;
        requests
            .with_label_values(&[peer, call, result.as_str()])
            .inc();
        self.histogram(peer, call).observe(lasted.as_secs_f64());
    }

    fn histogram(&self, peer: &str, call: &str) -> Histogram {
        self.0.seconds.with_label_values(&[peer, call])
    }

    pub(crate) fn retried(&self) {
        self.0.retries.inc();
    }

    /// A stream is idle for as long as what is returned is there.
    pub(crate) fn stream_idle(&self) -> IdleStream {
        self.0.idle_streams.inc();
        IdleStream(self.clone())
    }

    pub(crate) fn stream_dropped(&self) {
        self.0.streams_dropped.inc();
    }

    /// Counts the connections that a connector opens.
    pub(crate) fn over(&self, inner: SharedConnector) -> SharedConnector {
        let metrics = self.clone();
        Arc::new(Counting { inner, metrics })
    }
}

fn requests(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let options = Opts::new(
        "dfs_client_requests_total",
        "Calls to other roles, by what they were for and how they ended",
    );
    let labels = [Peer::NAME, Call::NAME, CallResult::NAME];
    let requests = registered(registry, IntCounterVec::new(options, &labels)?)?;
    for call in Call::ALL {
        for result in CallResult::ALL {
            let peer = call.peer().as_str();
            requests.with_label_values(&[peer, call.as_str(), result.as_str()]);
        }
    }
    Ok(requests)
}

fn seconds(registry: &Registry) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(
        "dfs_client_request_duration_seconds",
        "From a call to the head of its answer; of a chunk that is written, to its opening on the whole chain",
    );
    let options = options.buckets(DURATION_BUCKETS.to_vec());
    let seconds = registered(
        registry,
        HistogramVec::new(options, &[Peer::NAME, Call::NAME])?,
    )?;
    for call in Call::ALL {
        seconds.with_label_values(&[call.peer().as_str(), call.as_str()]);
    }
    Ok(seconds)
}

impl fmt::Debug for ClientMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientMetrics")
    }
}

/// Counts one idle stream.
#[derive(Debug)]
pub(crate) struct IdleStream(ClientMetrics);

impl Drop for IdleStream {
    fn drop(&mut self) {
        self.0.0.idle_streams.dec();
    }
}

/// A connector whose connections are counted.
#[derive(Debug)]
struct Counting {
    inner: SharedConnector,
    metrics: ClientMetrics,
}

#[async_trait]
impl Connector for Counting {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let connected = self.inner.connect(address).await;
        let counters = &self.metrics.0;
        match connected {
            Ok(inner) => {
                counters.connections.inc(Connecting::Ok);
                counters.open.inc();
                let metrics = self.metrics.clone();
                Ok(Box::new(Counted { inner, metrics }))
            }
            Err(error) => {
                counters.connections.inc(Connecting::Failed);
                Err(error)
            }
        }
    }
}

struct Counted {
    inner: Box<dyn Connection>,
    metrics: ClientMetrics,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.0.open.dec();
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
}

/// A call under way. Dropped before it ended, whoever asked gave it up.
#[derive(Debug)]
pub(crate) struct Timed<'a> {
    metrics: Option<&'a ClientMetrics>,
    call: Call,
    began: tokio::time::Instant,
}

impl<'a> Timed<'a> {
    pub(crate) fn begin(metrics: Option<&'a ClientMetrics>, call: Call) -> Self {
        let began = tokio::time::Instant::now();
        Self {
            metrics,
            call,
            began,
        }
    }

    pub(crate) fn end(mut self, result: CallResult) {
        if let Some(metrics) = self.metrics.take() {
            metrics.ended(self.call, result, self.began.elapsed());
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.metrics {
            metrics.ended(self.call, CallResult::GivenUp, self.began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_protocol::DatanodeId;
    use dfs_protocol::chunk::DatanodeAddress;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::datanode::DatanodeClient;
    use crate::http::HttpClient;

    /// Refuses every request but the first connection, which fails.
    #[derive(Debug, Default)]
    struct Busy(std::sync::atomic::AtomicBool);

    #[async_trait]
    impl Connector for Busy {
        async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
            if !self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, mut far) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while far.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let refusal = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
                    let _gone = far.write_all(refusal).await;
                }
            });
            Ok(Box::new(near))
        }
    }

    fn count(registry: &Registry, part: &str) -> Vec<String> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let lines = text.lines().filter(|line| line.starts_with(part));
        lines.map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_counted_by_what_they_are_for_and_chunks_make_no_series() {
        let registry = Registry::new();
        let metrics = ClientMetrics::register(&registry).unwrap();
        let before = count(&registry, "dfs_client_").len();
        let http = HttpClient::counted(Arc::new(Busy::default()), metrics.clone());
        let datanodes = DatanodeClient::new(http);
        for n in 0..50 {
            let at = DatanodeAddress {
                id: DatanodeId::from_u128(n),
                address: "datanode:1".to_owned(),
            };
            let chunk = dfs_protocol::ChunkId::from_u128(n);
            let asked = datanodes.chunk_state(&at, chunk).await;
            assert!(asked.is_err());
        }
        assert_eq!(count(&registry, "dfs_client_").len(), before);
        let requests = "dfs_client_requests_total{call=\"holdings\",peer=\"datanode\"";
        let counted = |result: &str, number: u32| {
            let line = format!("{requests},result=\"{result}\"}} {number}");
            assert!(count(&registry, &line).contains(&line), "{line}");
        };
        counted("not-connected", 1);
        counted("refused", 49);
        counted("ok", 0);
        let connections = count(&registry, "dfs_client_connections_total");
        assert!(
            connections[0].ends_with("{result=\"failed\"} 1"),
            "{connections:?}"
        );
        assert!(metrics.0.open.get() >= 1);
        drop(datanodes);
        // Connections end with the pool that holds them.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(metrics.0.open.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_waits_for_is_given_up() {
        let registry = Registry::new();
        let metrics = ClientMetrics::register(&registry).unwrap();
        drop(Timed::begin(Some(&metrics), Call::Read));
        Timed::begin(Some(&metrics), Call::Read).end(CallResult::Ok);
        let line =
            "dfs_client_requests_total{call=\"read\",peer=\"datanode\",result=\"given-up\"} 1";
        assert_eq!(count(&registry, line).len(), 1);
        assert_eq!(metrics.histogram("datanode", "read").get_sample_count(), 2);
    }
}
