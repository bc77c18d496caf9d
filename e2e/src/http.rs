//! A plain HTTP/1.1 client for tests: one connection a request, any status is an answer, a body
//! that breaks is an error. And raw sockets, for what is not HTTP.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::http::{RequestBody, empty, whole};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one exchange may take unless a test says otherwise: an upload may be held back.
const LIMIT: Duration = Duration::from_mins(10);

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not the JSON that the test expects.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Itself, when its status is a success.
    ///
    /// # Panics
    /// With the body, when it is not.
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self
    }
}

/// A door at `host:port`.
#[derive(Debug, Clone)]
pub struct Http {
    /// `host:port`.
    pub address: String,
    /// What requests name as their host: the address, unless a proxy tells stores apart by it.
    pub host: String,
    /// The cluster token that is shown, if one is.
    pub token: Option<String>,
    /// How long one exchange may take.
    pub limit: Duration,
}

impl Http {
    /// A door.
    pub fn new(address: &(impl ToString + ?Sized)) -> Self {
        Self::through(address, address)
    }

    /// A door behind a proxy that finds it by its host name.
    pub fn through(address: &(impl ToString + ?Sized), host: &(impl ToString + ?Sized)) -> Self {
        Self {
            address: address.to_string(),
            host: host.to_string(),
            limit: LIMIT,
            token: None,
        }
    }

    /// Shows a cluster token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> io::Result<Reply> {
        self.send(Method::GET, path, &[], empty()).await
    }

    /// GET with headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> io::Result<Reply> {
        self.send(Method::GET, path, headers, empty()).await
    }

    /// HEAD.
    pub async fn head(&self, path: &str) -> io::Result<Reply> {
        self.send(Method::HEAD, path, &[], empty()).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> io::Result<Reply> {
        self.send(Method::DELETE, path, &[], empty()).await
    }

    /// PUT of bytes at hand.
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> io::Result<Reply> {
        self.send(Method::PUT, path, &[], whole(body)).await
    }

    /// POST of JSON.
    pub async fn post_json(&self, path: &str, json: &serde_json::Value) -> io::Result<Reply> {
        let headers = [("content-type", "application/json")];
        self.send(Method::POST, path, &headers, whole(json.to_string()))
            .await
    }

    /// Any request; the answer is read whole.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: RequestBody,
    ) -> io::Result<Reply> {
        let exchange = async {
            let response = self.open(method, path, headers, body).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            Ok(Reply {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(self.limit, exchange)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the exchange took too long"))?
    }

    /// Any request; the answer's body is the caller's to read.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: RequestBody,
    ) -> io::Result<Response<Incoming>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // It ends with the answer's body; its error is the body's error as well.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }
}

/// A socket on which a test says what it likes.
#[derive(Debug)]
pub struct RawSocket(TcpStream);

/// What came back on a [`RawSocket`].
#[derive(Debug, Clone)]
pub struct RawReply {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Whether the peer closed (or reset) the connection; otherwise the time was over.
    pub closed: bool,
}

impl RawReply {
    /// The status of the first answer, when there is one.
    pub fn status(&self) -> Option<u16> {
        let text = self.text();
        let rest = text.strip_prefix("HTTP/1.")?;
        rest.split_whitespace().nth(1)?.parse().ok()
    }

    /// Status lines among the bytes: more than one answer to one request is smuggling.
    pub fn answers(&self) -> usize {
        let text = self.text();
        let after = text.split("HTTP/1.1 ").skip(1);
        after
            .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            .count()
    }

    /// The bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl RawSocket {
    /// Connects.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref()).await
    }

    /// Says that no more will come.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }

    /// Reads until the peer closes, or for so long. An answer that is whole ends the wait only
    /// with the connection: give `connection: close`, or a short time.
    pub async fn read(&mut self, within: Duration) -> RawReply {
        let mut reply = RawReply {
            bytes: Vec::new(),
            closed: false,
        };
        let reading = async {
            // A reset after the answer is a close as well.
            let _end = self.0.read_to_end(&mut reply.bytes).await;
        };
        reply.closed = tokio::time::timeout(within, reading).await.is_ok();
        reply
    }

    /// Reads whatever comes next, at least a byte unless the peer closed.
    pub async fn read_some(&mut self, within: Duration) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 64 * 1024];
        let read = tokio::time::timeout(within, self.0.read(&mut bytes))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// The socket, for what is not provided here.
    pub fn into_inner(self) -> TcpStream {
        self.0
    }
}

/// Sends bytes, and reads until the peer closes or the time is over.
pub async fn raw_exchange(
    address: &str,
    bytes: impl AsRef<[u8]>,
    within: Duration,
) -> io::Result<RawReply> {
    let mut socket = RawSocket::connect(address).await?;
    // A peer that refuses early closes before it has read everything.
    let _refused = socket.write(bytes).await;
    Ok(socket.read(within).await)
}
