//! The one client that drives everybody: plain HTTP/1.1, a connection kept for many requests.

use std::io;
use std::time::Duration;

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

    /// PUTs a body until it is taken, and says how often it was refused for now (503): on a machine
    /// that others use, datanodes may miss heartbeats. Any other refusal is an error.
    pub(super) async fn put(
        &mut self,
        path: &str,
        body: impl Fn() -> RequestBody,
    ) -> io::Result<u64> {
        let mut refusals = 0;
        loop {
            match self.exchange(Method::PUT, path, body()).await {
                Ok(_) => return Ok(refusals),
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
        self.exchange(Method::GET, path, empty()).await
    }

    pub(super) async fn delete(&mut self, path: &str) -> io::Result<()> {
        self.exchange(Method::DELETE, path, empty()).await.map(drop)
    }

    async fn exchange(&mut self, method: Method, path: &str, body: RequestBody) -> io::Result<u64> {
        let exchange = async {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", &self.address)
                .body(body)
                .map_err(broken)?;
            self.sender.ready().await.map_err(broken)?;
            let response = self.sender.send_request(request).await.map_err(broken)?;
            drain(response).await
        };
        tokio::time::timeout(LIMIT, exchange)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the exchange took too long"))?
    }
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
    let told = format!("{status}: {}", String::from_utf8_lossy(&first));
    Err(match status {
        StatusCode::SERVICE_UNAVAILABLE => io::Error::new(io::ErrorKind::ResourceBusy, told),
        _ => io::Error::other(told),
    })
}

/// Opens so many connections.
pub(super) async fn connections(address: &str, count: usize) -> io::Result<Vec<Connection>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(Connection::open(address).await?);
    }
    Ok(open)
}
