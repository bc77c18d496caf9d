//! Connections that their user drives: a call and its connection are polled by one task. With a task for
//! each connection, as pools have, a small answer wakes three tasks, often on other threads, and that costs more than
//! the answer.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dfs_runtime::net::SharedConnector;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::http::{RequestBody, SeamIo, empty, innermost, malformed, unreachable};

/// Idle connections kept for each peer that is read from.
pub(crate) const IDLE_READS: usize = 128;
/// An idle connection is closed after so long; datanodes wait longer.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// A connection and the right to ask over it.
#[derive(Debug)]
pub(crate) struct Driven {
    sender: SendRequest<RequestBody>,
    /// None once it has ended.
    connection: Option<HttpConnection>,
}

type HttpConnection = Connection<SeamIo, RequestBody>;

impl Driven {
    async fn open(connector: &SharedConnector, address: &str) -> Result<Self, ClientError> {
        let not_connected = |detail| ClientError::NotConnected {
            address: address.to_owned(),
            detail,
        };
        let stream = connector.connect(address).await;
        let stream = stream.map_err(|error| not_connected(innermost(&error)))?;
        let made = handshake(SeamIo(TokioIo::new(stream))).await;
        let (sender, connection) = made.map_err(|error| not_connected(innermost(&error)))?;
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

/// Idle connections by peer. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct DrivenPool {
    connector: SharedConnector,
    idle: Arc<Mutex<Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Those used last at the end.
    peers: HashMap<String, Vec<(Instant, Driven)>>,
    /// Somebody closes those that nobody uses.
    is_swept: bool,
}

impl DrivenPool {
    pub(crate) fn new(connector: SharedConnector) -> Self {
        Self {
            connector,
            idle: Arc::default(),
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
        while let Some(mut kept) = self.take(address) {
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

    fn take(&self, address: &str) -> Option<Driven> {
        let mut idle = lock(&self.idle);
        let kept = idle.peers.get_mut(address)?;
        let (since, driven) = kept.pop()?;
        if since.elapsed() < IDLE_TIME {
            return Some(driven);
        }
        // The others are idle for longer.
        kept.clear();
        None
    }

    /// Keeps a connection whose answer was read to its end; any other is closed.
    pub(crate) async fn keep(&self, address: &str, mut driven: Driven) {
        if !driven.is_usable().await {
            return;
        }
        let mut idle = lock(&self.idle);
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.idle)));
        }
        let kept = match idle.peers.get_mut(address) {
            Some(kept) => kept,
            None => idle.peers.entry(address.to_owned()).or_default(),
        };
        if kept.len() < IDLE_READS {
            kept.push((Instant::now(), driven));
        }
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that nobody used for a while, until there are none.
async fn sweep(idle: Weak<Mutex<Idle>>) {
    loop {
        tokio::time::sleep(IDLE_TIME).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = lock(&idle);
        for kept in idle.peers.values_mut() {
            kept.retain(|(since, _)| since.elapsed() < IDLE_TIME);
        }
        idle.peers.retain(|_, kept| !kept.is_empty());
        if idle.peers.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use dfs_runtime::net::{Connection, Connector};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

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
        let kept = || lock(&pool.idle).peers.values().map(Vec::len).sum::<usize>();
        assert_eq!(kept(), IDLE_READS);
        tokio::time::sleep(3 * IDLE_TIME).await;
        assert_eq!(kept(), 0);
        get(&pool).await;
        assert_eq!(closing.connections.load(Ordering::SeqCst), IDLE_READS + 2);
    }
}
