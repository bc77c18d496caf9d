//! The one client that drives everybody: plain HTTP/1.1, a connection kept for many requests.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::http::{RequestBody, empty};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::broken;

/// How long one exchange may take.
const LIMIT: Duration = Duration::from_mins(10);
/// How often one request may be refused for now.
const MAX_REFUSALS: u64 = 60;
/// Before it is repeated.
const PAUSE: Duration = Duration::from_millis(500);

/// A kept connection.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    sender: SendRequest<RequestBody>,
}

impl Connection {
    pub(super) async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the sender; its error is the exchange's.
        tokio::spawn(connection);
        Ok(Self {
            address: address.to_owned(),
            sender,
        })
    }

    /// PUTs a body until it is taken; gives the answer, and how often it was refused for now (503): on a machine
    /// that others use, datanodes may miss heartbeats. Any other refusal is an error.
    pub(super) async fn put(
        &mut self,
        path: &str,
        body: impl Fn() -> RequestBody,
    ) -> io::Result<(Bytes, u64)> {
        let mut refusals = 0;
        loop {
            match self.whole_answer(Method::PUT, path, body()).await {
                Ok(answer) => return Ok((answer, refusals)),
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && refusals < MAX_REFUSALS =>
                {
                    refusals += 1;
                    tokio::time::sleep(PAUSE).await;
                    // A refusal before the body's end closes the connection.
                    self.sender = Self::open(&self.address).await?.sender;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// GETs and counts the bytes.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<u64> {
        self.exchange(Method::GET, path, &[], empty()).await
    }

    /// GETs a short answer whole.
    pub(super) async fn tell(&mut self, path: &str) -> io::Result<Bytes> {
        self.whole_answer(Method::GET, path, empty()).await
    }

    async fn whole_answer(
        &mut self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> io::Result<Bytes> {
        bounded(async {
            let response = self.send(method, path, &[], body).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes();
            if !head.status.is_success() {
                return Err(refused(head.status, &body));
            }
            Ok(body)
        })
        .await
    }

    pub(super) async fn delete(&mut self, path: &str) -> io::Result<()> {
        let done = self.exchange(Method::DELETE, path, &[], empty()).await;
        done.map(drop)
    }

    /// Any request; the answer's bytes are counted.
    pub(super) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: RequestBody,
    ) -> io::Result<u64> {
        bounded(async {
            let response = self.send(method, path, headers, body).await?;
            drain(response).await
        })
        .await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: RequestBody,
    ) -> io::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(broken)?;
        if self.sender.is_closed() {
            // The other side closes what rested too long.
            self.sender = Self::open(&self.address).await?.sender;
        }
        self.sender.ready().await.map_err(broken)?;
        self.sender.send_request(request).await.map_err(broken)
    }
}

async fn bounded<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the exchange took too long"))?
}

async fn drain(response: Response<Incoming>) -> io::Result<u64> {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = 0;
    let mut first = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            bytes += data.len() as u64;
            if !status.is_success() && first.len() < 2048 {
                first.extend_from_slice(&data);
            }
        }
    }
    if status.is_success() {
        return Ok(bytes);
    }
    Err(refused(status, &first))
}

fn refused(status: StatusCode, body: &[u8]) -> io::Error {
    let told = format!("{status}: {}", String::from_utf8_lossy(body));
    match status {
        StatusCode::SERVICE_UNAVAILABLE => io::Error::new(io::ErrorKind::ResourceBusy, told),
        _ => io::Error::other(told),
    }
}
