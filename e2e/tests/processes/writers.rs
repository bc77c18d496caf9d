//! Clients that write as fast as they can over kept-alive connections, each with the ledger open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::http::{RequestBody, whole};
use dfs_e2e::ledger::{Allowed, Comparison, Content, Ledger, compare};
use dfs_e2e::store::Store;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fleet::{CHUNK, bytes};

/// Longer than any request may rightly take.
const REQUEST_LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(10);
/// Checks under way at once.
const CHECKERS: usize = 8;

/// What all writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    address: String,
    ledger: Ledger,
    ledger_path: PathBuf,
    stop: AtomicBool,
    /// Requests that were sent and are not answered.
    pub(crate) in_flight: AtomicU64,
    /// Acknowledgements in the ledger.
    pub(crate) acks: AtomicU64,
    /// Requests that were sent and never answered.
    pub(crate) broken: AtomicU64,
    /// Requests that were refused.
    pub(crate) refused: AtomicU64,
}

/// The running writers.
#[derive(Debug)]
pub(crate) struct Writers {
    pub(crate) shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts `count` writers; their paths start with `round`.
    pub(crate) fn start(
        address: &str,
        ledger_path: PathBuf,
        count: usize,
        round: usize,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            ledger: Ledger::open(&ledger_path).unwrap(),
            ledger_path,
            stop: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            acks: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let writer = Writer {
                shared: shared.clone(),
                connection: None,
                name: format!("r{round}/w{number:02}"),
                rng: rng.fork(),
                settled: Vec::new(),
            };
            tasks.spawn(writer.run());
        }
        Self { shared, tasks }
    }

    /// Lets requests under way end, and stops.
    pub(crate) async fn stop(mut self) -> PathBuf {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.shared.ledger_path.clone()
    }

    /// Waits until so many are acknowledged in all: each is several fsyncs, here and there, of a disk that may be slow.
    pub(crate) async fn wait_acks(&self, wanted: u64) {
        const DEADLINE: Duration = Duration::from_mins(10);
        dfs_e2e::wait::eventually("acknowledgements", DEADLINE, || async {
            let acks = self.shared.acks.load(Ordering::SeqCst);
            if acks >= wanted {
                return Ok(());
            }
            let refused = self.shared.refused.load(Ordering::SeqCst);
            Err(format!("{acks} of {wanted} acks, {refused} refusals"))
        })
        .await;
    }
}

struct Writer {
    shared: Arc<Shared>,
    connection: Option<SendRequest<RequestBody>>,
    name: String,
    rng: fastrand::Rng,
    /// Paths of which the last request was acknowledged.
    settled: Vec<String>,
}

impl Writer {
    async fn run(mut self) {
        let mut next = 0_u64;
        while !self.shared.stop.load(Ordering::SeqCst) {
            if self.connect().await.is_err() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            next += 1;
            let (path, body) = self.choose(next);
            let effect = body.as_ref().map(|body| Content::of(body));
            self.shared.ledger.ask(&path, effect.as_ref()).unwrap();
            self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
            let answer = self.exchange(&path, body).await;
            self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            match answer {
                Ok(status) if status.is_success() => {
                    self.shared.ledger.ack(&path, effect.as_ref()).unwrap();
                    self.shared.acks.fetch_add(1, Ordering::SeqCst);
                    // What was deleted is not asked for again: its DELETE would rightly be a 404.
                    if effect.is_some() {
                        self.settled.push(path);
                    }
                }
                Ok(_) => {
                    self.shared.refused.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => {
                    self.connection = None;
                    self.shared.broken.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    /// Mostly new small files; some larger ones, some replaced, some deleted.
    fn choose(&mut self, next: u64) -> (String, Option<Bytes>) {
        let reuse = !self.settled.is_empty() && next.is_multiple_of(10);
        let path = if reuse {
            self.settled
                .swap_remove(self.rng.usize(..self.settled.len()))
        } else {
            format!("{}/{next}", self.name)
        };
        if reuse && self.rng.u8(..2) == 0 {
            return (path, None);
        }
        let length = if next.is_multiple_of(25) {
            self.rng.usize(CHUNK / 2..CHUNK * 5 / 2)
        } else {
            self.rng.usize(..3000)
        };
        (path, Some(bytes(&mut self.rng, length)))
    }

    async fn connect(&mut self) -> io::Result<()> {
        if self
            .connection
            .as_ref()
            .is_some_and(|sender| !sender.is_closed())
        {
            return Ok(());
        }
        let stream = TcpStream::connect(&self.shared.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // Its error is the request's error as well.
        tokio::spawn(connection);
        sender.ready().await.map_err(io::Error::other)?;
        self.connection = Some(sender);
        Ok(())
    }

    async fn exchange(&mut self, path: &str, body: Option<Bytes>) -> io::Result<StatusCode> {
        let method = if body.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("/files/{path}"))
            .header("host", &self.shared.address)
            .body(whole(body.unwrap_or_default()))
            .map_err(io::Error::other)?;
        let sender = self
            .connection
            .as_mut()
            .ok_or(io::ErrorKind::NotConnected)?;
        let exchange = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            assert!(
                status.is_success()
                    || status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS,
                "{path}: {status}: {}",
                String::from_utf8_lossy(&body)
            );
            Ok::<_, hyper::Error>(status)
        };
        let answer = tokio::time::timeout(REQUEST_LIMIT, exchange).await;
        answer
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .map_err(io::Error::other)
    }
}

/// Holds the store against the ledger: GET of every path, and HEAD and the listing must agree with it.
pub(crate) async fn check(store: &Store, ledger: PathBuf) -> Comparison {
    let allowed = Ledger::load(&ledger).unwrap();
    let paths: Vec<(String, Allowed)> = allowed.into_iter().collect();
    let mut tasks = JoinSet::new();
    for part in paths.chunks(paths.len().div_ceil(CHECKERS).max(1)) {
        let (part, store) = (part.iter().cloned().collect(), store.clone());
        tasks.spawn(async move {
            let mut present = Vec::new();
            let seen = std::sync::Mutex::new(&mut present);
            let comparison = compare(&part, |path| {
                let (store, seen) = (&store, &seen);
                async move {
                    let found = store.content(&path).await?;
                    let head = store.door.head(&format!("/files/{path}")).await;
                    let head = head.map_err(|error| error.to_string())?;
                    let size = head.header("content-length").parse().ok();
                    let agrees = match &found {
                        Some(content) => {
                            head.status == StatusCode::OK && size == Some(content.size)
                        }
                        None => head.status == StatusCode::NOT_FOUND,
                    };
                    if found.is_some() {
                        seen.lock().unwrap().push(path);
                    }
                    if agrees {
                        Ok(found)
                    } else {
                        Err(format!("GET has {found:?}, HEAD {}, {size:?}", head.status))
                    }
                }
            })
            .await;
            (comparison, present)
        });
    }
    let mut all = Comparison::default();
    let mut present = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (part, seen) = ended.unwrap();
        all.acked += part.acked;
        all.open_visible += part.open_visible;
        all.open_absent += part.open_absent;
        all.broken.extend(part.broken);
        present.extend(seen);
    }
    present.sort_unstable();
    let listed = store.list("").await;
    if listed != present {
        let detail = format!("{} listed, {} can be read", listed.len(), present.len());
        all.broken
            .push(format!("the listing and the files differ: {detail}"));
    }
    all
}
