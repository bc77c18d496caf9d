//! Connections that their user drives: a call and its connection are polled by one task. With a task for
//! each connection, as pools have, a small answer wakes three tasks, often on other threads, and that costs more than
//! the answer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use dfs_runtime::net::SharedConnector;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;

use crate::error::ClientError;
use crate::http::{RequestBody, SeamIo, empty, innermost, malformed, unreachable};
use crate::idle::{IDLE_READS, IdleConnections};

/// A connection and the right to ask over it.
#[derive(Debug)]
pub(crate) struct Driven {
    sender: SendRequest<RequestBody>,
    /// None once it has ended.
    connection: Option<HttpConnection>,
}

/// A connection without whoever asks over it.
pub(crate) type HttpConnection = Connection<SeamIo, RequestBody>;

/// A new connection; nothing happens on it unless it is polled.
pub(crate) async fn open(
    connector: &SharedConnector,
    address: &str,
) -> Result<(SendRequest<RequestBody>, HttpConnection), ClientError> {
    let not_connected = |detail| ClientError::NotConnected {
        address: address.to_owned(),
        detail,
    };
    let stream = connector.connect(address).await;
    let stream = stream.map_err(|error| not_connected(innermost(&error)))?;
    let made = handshake(SeamIo(TokioIo::new(stream))).await;
    made.map_err(|error| not_connected(innermost(&error)))
}

impl Driven {
    async fn open(connector: &SharedConnector, address: &str) -> Result<Self, ClientError> {
        let (sender, connection) = open(connector, address).await?;
        Ok(Self {
            sender,
            connection: Some(connection),
        })
    }

    /// Runs work that waits for an answer over this connection.
    pub(crate) async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        drive(&mut self.connection, work).await
    }

    /// The next frame of an answer's body. Safe to cancel.
    pub(crate) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        drive(&mut self.connection, body.frame()).await
    }

    /// Whether another request can be sent, as far as can be known without waiting.
    async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            poll_connection(&mut self.connection, cx);
            Poll::Ready(self.connection.is_some() && self.sender.is_ready())
        })
        .await
    }

    async fn ask(&mut self, parts: Parts) -> Result<Response<Incoming>, hyper::Error> {
        let request = Request::from_parts(parts, empty());
        let answer = self.sender.send_request(request);
        drive(&mut self.connection, answer).await
    }
}

/// Polls a connection until what waits for it is ready.
async fn drive<F: Future>(connection: &mut Option<HttpConnection>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        poll_connection(connection, cx);
        work.as_mut().poll(cx)
    })
    .await
}

fn poll_connection(connection: &mut Option<HttpConnection>, cx: &mut Context<'_>) {
    // How it ended is told to whoever waits for an answer.
    if let Some(open) = connection
        && Pin::new(open).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// Opens connections and keeps idle ones. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct DrivenPool {
    connector: SharedConnector,
    idle: IdleConnections<String, Driven>,
}

impl DrivenPool {
    pub(crate) fn new(connector: SharedConnector) -> Self {
        Self {
            connector,
            idle: IdleConnections::new(IDLE_READS),
        }
    }

    /// GETs. Whoever reads the answer's body to its end gives the connection back with [`Self::keep`]. One that was
    /// kept and fails is replaced, once: its peer may have closed it meanwhile, and asking twice is asking once.
    pub(crate) async fn get(
        &self,
        address: &str,
        request: Request<()>,
    ) -> Result<(Response<Incoming>, Driven), ClientError> {
        let (mut parts, ()) = request.into_parts();
        let host = HeaderValue::from_str(address).map_err(|error| malformed(address, &error))?;
        parts.headers.insert(HOST, host);
        while let Some(mut kept) = self.idle.take(address) {
            if !kept.is_usable().await {
                continue;
            }
            match kept.ask(parts.clone()).await {
                Ok(response) => return Ok((response, kept)),
                Err(_) => break,
            }
        }
        let mut fresh = Driven::open(&self.connector, address).await?;
        let response = fresh.ask(parts).await;
        let response = response.map_err(|error| unreachable(address, &error))?;
        Ok((response, fresh))
    }

    /// Keeps a connection whose answer was read to its end; any other is closed.
    pub(crate) async fn keep(&self, address: &str, mut driven: Driven) {
        if driven.is_usable().await {
            self.idle.keep(address, driven);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use dfs_runtime::net::{Connection, Connector};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::idle::IDLE_TIME;

    /// Each connection answers so many requests, then closes with the next one unanswered.
    #[derive(Debug)]
    struct Closing {
        answers: usize,
        connections: AtomicUsize,
    }

    #[async_trait]
    impl Connector for Closing {
        async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
            self.connections.fetch_add(1, Ordering::SeqCst);
            let (near, mut far) = tokio::io::duplex(4096);
            let answers = self.answers;
            tokio::spawn(async move {
                let mut request = [0; 4096];
                for _ in 0..answers {
                    if !far.read(&mut request).await.is_ok_and(|read| read > 0) {
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    let _gone = far.write_all(answer).await;
                }
                let _unanswered = far.read(&mut request).await;
            });
            Ok(Box::new(near))
        }
    }

    fn pool(answers: usize) -> (DrivenPool, Arc<Closing>) {
        let closing = Arc::new(Closing {
            answers,
            connections: AtomicUsize::new(0),
        });
        (DrivenPool::new(closing.clone()), closing)
    }

    async fn get(pool: &DrivenPool) {
        let request = Request::get("/").body(()).unwrap();
        let (response, mut driven) = pool.get("datanode:1", request).await.unwrap();
        let mut body = response.into_body();
        let frame = driven.frame(&mut body).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "ok");
        assert!(driven.frame(&mut body).await.is_none());
        pool.keep("datanode:1", driven).await;
    }

    #[tokio::test]
    async fn one_connection_carries_many_answers_that_are_read_to_their_ends() {
        let (pool, closing) = pool(usize::MAX);
        for _ in 0..20 {
            get(&pool).await;
        }
        assert_eq!(closing.connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_kept_connection_that_its_peer_closed_is_replaced() {
        let (pool, closing) = pool(1);
        for _ in 0..5 {
            get(&pool).await;
        }
        assert_eq!(closing.connections.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn i31_no_more_idle_connections_are_kept_than_allowed_and_none_for_long() {
        tokio::time::pause();
        let (pool, closing) = pool(usize::MAX);
        let mut open = Vec::new();
        for _ in 0..=IDLE_READS {
            let request = Request::get("/").body(()).unwrap();
            let (response, mut driven) = pool.get("datanode:1", request).await.unwrap();
            let mut body = response.into_body();
            while driven.frame(&mut body).await.is_some() {}
            open.push(driven);
        }
        for driven in open {
            pool.keep("datanode:1", driven).await;
        }
        assert_eq!(pool.idle.count(), IDLE_READS);
        tokio::time::sleep(3 * IDLE_TIME).await;
        assert_eq!(pool.idle.count(), 0);
        get(&pool).await;
        assert_eq!(closing.connections.load(Ordering::SeqCst), IDLE_READS + 2);
    }
}
