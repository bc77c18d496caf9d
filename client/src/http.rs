//! One pooled HTTP/1.1 client over the connector seam.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dfs_protocol::datanode::Identity;
use dfs_protocol::problem::PROBLEM_MEDIA_TYPE;
use dfs_protocol::routes::{TRACEPARENT_HEADER, datanode};
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::metrics::Label as _;
use dfs_runtime::net::{Connection, SharedConnector};
use dfs_runtime::token::Tokens;
use dfs_runtime::trace::{self, Outgoing, Span};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection as PoolConnection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::{Call, CallResult};
use crate::driven::{Driven, DrivenPool};
use crate::error::ClientError;
use crate::metrics::{ClientMetrics, Timed};
use crate::read_stream::ReadStreams;

/// A request's body: whole or streamed.
pub type RequestBody = BoxBody<Bytes, io::Error>;

/// Answers that are read whole hold at most this many bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long a call without a limit of its own may take.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept for each peer.
pub(crate) const IDLE_PER_PEER: usize = 128;

/// A pooled HTTP/1.1 client. Cloning shares the pool.
#[derive(Debug, Clone)]
pub struct HttpClient {
    pool: Client<SeamConnector, RequestBody>,
    /// For small answers.
    driven: DrivenPool,
    /// For large reads.
    reads: ReadStreams,
    connector: SharedConnector,
    tokens: Tokens,
    metrics: Option<ClientMetrics>,
}

impl HttpClient {
    /// A client whose connections come from `connector`. Nobody counts its calls.
    pub fn new(connector: SharedConnector) -> Self {
        Self::over(connector, None)
    }

    /// A role's client: its calls and connections are counted.
    pub fn counted(connector: SharedConnector, metrics: ClientMetrics) -> Self {
        Self::over(metrics.over(connector), Some(metrics))
    }

    fn over(connector: SharedConnector, metrics: Option<ClientMetrics>) -> Self {
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(IDLE_PER_PEER)
            .build(SeamConnector(connector.clone()));
        Self {
            pool,
            driven: DrivenPool::new(connector.clone()),
            reads: ReadStreams::default(),
            connector,
            tokens: Tokens::none(),
            metrics,
        }
    }

    /// The same pool; every request carries the cluster token as it stands then.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self { tokens, ..self }
    }

    /// Where connections come from.
    pub fn connector(&self) -> &SharedConnector {
        &self.connector
    }

    /// Connections of large reads.
    pub(crate) fn reads(&self) -> &ReadStreams {
        &self.reads
    }

    /// Where calls are counted.
    pub(crate) fn metrics(&self) -> Option<&ClientMetrics> {
        self.metrics.as_ref()
    }

    /// What requests carry.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Who listens at `host:port`, if it is a datanode.
    pub(crate) async fn identity(&self, address: &str) -> Result<Identity, ClientError> {
        self.get(address, datanode::IDENTITY, &[]).await
    }

    /// Sends a request; an answer that is not 2xx (nor 304, 412 or 416) becomes
    /// [`ClientError::Refused`]. `timeout` bounds the time to the answer's head. Carries the trace of the
    /// request that the running task works for, and is a span of it.
    pub async fn send(
        &self,
        address: &str,
        mut request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let sending = self.begin(address, &mut request);
        let sent = self.exchange(address, request, timeout).await;
        sending.end(&sent);
        sent
    }

    /// As [`Self::send`] of a GET, over a connection that the caller drives; it goes back with
    /// [`Self::keep`] when the body was read to its end.
    pub(crate) async fn get_driven(
        &self,
        address: &str,
        mut request: Request<()>,
        timeout: Duration,
    ) -> Result<(Response<Incoming>, Driven), ClientError> {
        let sending = self.begin(address, &mut request);
        let sent = self.exchange_driven(address, request, timeout).await;
        sending.end(&sent);
        sent
    }

    /// Keeps a connection for the next [`Self::get_driven`].
    pub(crate) async fn keep(&self, address: &str, driven: Driven) {
        self.driven.keep(address, driven).await;
    }

    /// Begins a call: the request carries its trace and the token from here on.
    fn begin<B>(&self, address: &str, request: &mut Request<B>) -> Sending<'_> {
        let call = Call::of(request.uri().path());
        let timed = Timed::begin(self.metrics.as_ref(), call);
        let Outgoing {
            header, mut span, ..
        } = trace::outgoing(call.name());
        span.text("server.address", || address.to_owned());
        if let Some(header) = header {
            request.headers_mut().insert(TRACEPARENT_HEADER, header);
        }
        if let Some(token) = self.tokens.to_send() {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        Sending { timed, span }
    }

    async fn exchange(
        &self,
        address: &str,
        request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let response = match tokio::time::timeout(timeout, self.pool.request(request)).await {
            Err(_) => return Err(timed_out(address, timeout)),
            Ok(Err(error)) if error.is_connect() => {
                return Err(ClientError::NotConnected {
                    address: address.to_owned(),
                    detail: innermost(&error),
                });
            }
            Ok(Err(error)) => return Err(unreachable(address, &error)),
            Ok(Ok(response)) => response,
        };
        if is_answer(response.status()) {
            return Ok(response);
        }
        Err(refusal(address, response).await)
    }

    async fn exchange_driven(
        &self,
        address: &str,
        request: Request<()>,
        timeout: Duration,
    ) -> Result<(Response<Incoming>, Driven), ClientError> {
        let asked = tokio::time::timeout(timeout, self.driven.get(address, request)).await;
        let (response, mut driven) = asked.map_err(|_| timed_out(address, timeout))??;
        if is_answer(response.status()) {
            return Ok((response, driven));
        }
        let refusal = driven.drive(refusal(address, response)).await;
        self.keep(address, driven).await;
        Err(refusal)
    }

    /// POSTs JSON and reads JSON.
    pub async fn call<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        headers: &[(&'static str, String)],
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, ClientError> {
        let response = self.post(address, path, headers, request, timeout).await?;
        decode(address, &read_whole(address, response, timeout).await?)
    }

    /// POSTs JSON; the answer's body is still to be read.
    pub(crate) async fn post<Req: Serialize>(
        &self,
        address: &str,
        path: &str,
        headers: &[(&'static str, String)],
        request: &Req,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let json = serde_json::to_vec(request).map_err(|error| malformed(address, &error))?;
        let mut builder = Request::post(uri(address, path)?)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            builder = builder.header(*name, value);
        }
        let request = builder
            .body(whole(json))
            .map_err(|error| malformed(address, &error))?;
        self.send(address, request, timeout).await
    }

    /// GETs (or DELETEs ...) and reads the whole answer.
    pub async fn fetch(
        &self,
        method: Method,
        address: &str,
        path: &str,
        headers: &[(&'static str, String)],
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let mut builder = Request::builder().method(method).uri(uri(address, path)?);
        for (name, value) in headers {
            builder = builder.header(*name, value);
        }
        let request = builder
            .body(empty())
            .map_err(|error| malformed(address, &error))?;
        let response = self.send(address, request, timeout).await?;
        read_whole(address, response, timeout).await
    }

    /// GETs JSON.
    pub async fn get<Resp: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Resp, ClientError> {
        decode(
            address,
            &self
                .fetch(Method::GET, address, path, headers, DEFAULT_TIMEOUT)
                .await?,
        )
    }
}

/// A call that was begun.
struct Sending<'a> {
    timed: Timed<'a>,
    span: Span,
}

impl Sending<'_> {
    fn end<T>(mut self, sent: &Result<T, ClientError>) {
        let result = match sent {
            Ok(_) => CallResult::Ok,
            Err(error) => {
                let result = CallResult::from(error);
                self.span.failed(result.as_str());
                result
            }
        };
        self.timed.end(result);
    }
}

fn is_answer(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

pub(crate) fn timed_out(address: &str, timeout: Duration) -> ClientError {
    ClientError::TimedOut {
        address: address.to_owned(),
        seconds: timeout.as_secs(),
    }
}

/// A body of bytes at hand.
pub fn whole(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// No body.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// `http://ADDRESS/PATH`.
pub fn uri(address: &str, path: &str) -> Result<Uri, ClientError> {
    Uri::builder()
        .scheme("http")
        .authority(address)
        .path_and_query(path)
        .build()
        .map_err(|error| malformed(address, &error))
}

/// Reads an answer's body whole, within [`MAX_ANSWER_BYTES`].
pub async fn read_whole(
    address: &str,
    response: Response<Incoming>,
    timeout: Duration,
) -> Result<Bytes, ClientError> {
    let read = async {
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreachable(address, &error))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_ANSWER_BYTES {
                    return Err(malformed(address, &"the answer is too large"));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(timeout, read)
        .await
        .unwrap_or_else(|_| Err(timed_out(address, timeout)))
}

/// Reads JSON.
pub fn decode<T: DeserializeOwned>(address: &str, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(address, &error))
}

/// The error behind an answer that is not a success.
pub(crate) async fn refusal(address: &str, response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let is_problem =
        header(CONTENT_TYPE).is_some_and(|media_type| media_type.starts_with(PROBLEM_MEDIA_TYPE));
    let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
    match read_whole(address, response, Duration::from_secs(10)).await {
        // The answer to HEAD has the headers of a problem and no body.
        Ok(bytes) if is_problem && !bytes.is_empty() => {
            match serde_json::from_slice::<Problem>(&bytes) {
                Ok(problem) => problem.into(),
                Err(error) => malformed(address, &error),
            }
        }
        Ok(_) => match code_of(status) {
            Some(code) => {
                let mut problem = Problem::new(code, format!("{address} answered {status}"));
                problem.retry_after = retry_after.or(problem.retry_after);
                problem.into()
            }
            None => malformed(address, &format!("status {status} without a problem")),
        },
        Err(error) => error,
    }
}

/// What a status alone says: the answer came from a proxy, or had no body.
fn code_of(status: StatusCode) -> Option<ErrorCode> {
    Some(match status.as_u16() {
        401 => ErrorCode::Unauthorized,
        404 => ErrorCode::NotFound,
        408 => ErrorCode::RequestTimeout,
        409 => ErrorCode::Conflict,
        412 => ErrorCode::PreconditionFailed,
        413 => ErrorCode::TooLarge,
        416 => ErrorCode::RangeNotSatisfiable,
        429 => ErrorCode::TooManyRequests,
        502..=504 => ErrorCode::Unavailable,
        507 => ErrorCode::InsufficientStorage,
        _ => return None,
    })
}

pub(crate) fn malformed(address: &str, detail: &dyn std::fmt::Display) -> ClientError {
    ClientError::Malformed {
        address: address.to_owned(),
        detail: detail.to_string(),
    }
}

pub(crate) fn unreachable(address: &str, error: &dyn std::error::Error) -> ClientError {
    ClientError::Unreachable {
        address: address.to_owned(),
        detail: innermost(error),
    }
}

/// The innermost cause is what people can act on ("connection refused").
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[derive(Debug, Clone)]
struct SeamConnector(SharedConnector);

impl tower::Service<Uri> for SeamConnector {
    type Response = SeamIo;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<SeamIo>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let authority = uri.authority().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "the address is missing")
            })?;
            Ok(SeamIo(TokioIo::new(
                connector.connect(authority.as_str()).await?,
            )))
        })
    }
}

/// A connection of the seam, as hyper sees it.
pub(crate) struct SeamIo(pub(crate) TokioIo<Box<dyn Connection>>);

impl std::fmt::Debug for SeamIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeamIo")
    }
}

impl PoolConnection for SeamIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for SeamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for SeamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}
