//! Links between roles that a test cuts, blinds, slows, pauses and corrupts while they are in use.
//!
//! Every connection goes over real loopback TCP; a task in the middle carries its bytes. A link is
//! named by who opens it and whom it opens it to. The two ends of a link are not symmetrical: what
//! the tracker opens to a datanode and what the datanode opens to the tracker are two links.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use dfs_runtime::net::{Connection, Connector, SharedConnector};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::disk::lock;
use crate::relay::{Broken, relay, reset};

/// Bytes on their way within a link, each way.
const IN_FLIGHT: usize = 64 * 1024;

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent faults, any of which may hold at once.
pub struct LinkFault {
    /// Connections break at once, new ones are refused.
    pub cut: bool,
    /// What the opener sends vanishes. Connections that lost bytes break when the link heals;
    /// new ones are not answered.
    pub lose_forth: bool,
    /// What the opened side sends vanishes; otherwise as `lose_forth`.
    pub lose_back: bool,
    /// Nothing moves, nothing breaks; all goes on when the link heals.
    pub paused: bool,
    /// Every piece of up to 64 KiB arrives so much later, and so does a new connection.
    pub delay: Duration,
}

impl LinkFault {
    /// Broken and refused.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }

    /// Nothing arrives in either direction, and nobody is told.
    pub fn black_hole() -> Self {
        Self {
            lose_forth: true,
            lose_back: true,
            ..Self::default()
        }
    }

    /// Requests vanish, answers would pass.
    pub fn lose_forth() -> Self {
        Self {
            lose_forth: true,
            ..Self::default()
        }
    }

    /// Requests arrive, answers vanish.
    pub fn lose_back() -> Self {
        Self {
            lose_back: true,
            ..Self::default()
        }
    }

    /// Stalled.
    pub fn paused() -> Self {
        Self {
            paused: true,
            ..Self::default()
        }
    }

    /// Slow.
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            cut: self.cut || other.cut,
            lose_forth: self.lose_forth || other.lose_forth,
            lose_back: self.lose_back || other.lose_back,
            paused: self.paused || other.paused,
            delay: self.delay + other.delay,
        }
    }
}

/// Which way bytes go on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the opener.
    Forth,
    /// To the opener.
    Back,
}

/// What happens once, when a number of bytes has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnceEffect {
    /// The next byte arrives with a bit flipped.
    Flip,
    /// The connection that carries the next byte breaks before it.
    Cut,
    /// Nothing: it only tells that so many bytes went this way.
    Tell,
}

/// Waits for its byte; tells whether it came.
#[derive(Debug)]
pub struct Once {
    pub(crate) direction: Direction,
    pub(crate) effect: OnceEffect,
    left: AtomicI64,
    done: AtomicBool,
}

impl Once {
    /// Whether it has happened.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Counts `bytes` that pass, and says which of them it hits.
    pub(crate) fn pass(&self, bytes: usize) -> Option<usize> {
        let count = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = self.left.fetch_sub(count, Ordering::SeqCst);
        if left < 0 || left >= count {
            return None;
        }
        self.done.store(true, Ordering::SeqCst);
        usize::try_from(left).ok()
    }
}

/// Names a fault of [`Links`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkFaultId(u64);

#[derive(Debug)]
struct Rule {
    id: LinkFaultId,
    from: String,
    to: String,
    fault: LinkFault,
    once: Option<Arc<Once>>,
}

/// All links of a test. Cloning shares them.
///
/// Ends are names; a pattern is a name, or a beginning followed by `*`.
#[derive(Debug, Clone)]
pub struct Links(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, String>,
    rules: Vec<Rule>,
    next_id: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self::new()
    }
}

impl Links {
    /// Links without faults.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changes: watch::channel(0).0,
        }))
    }

    /// Gives `host:port` a name; without one it is its own name.
    pub fn name(&self, address: &str, name: &str) {
        let mut state = lock(&self.0.state);
        state.names.insert(address.to_owned(), name.to_owned());
        drop(state);
        self.changed();
    }

    /// What a role opens its connections with. A connection that is not answered fails after a second.
    pub fn connector(&self, from: &str) -> SharedConnector {
        Arc::new(LinkConnector {
            links: self.clone(),
            from: from.to_owned(),
            timeout: Duration::from_secs(1),
        })
    }

    /// Hurts the links that match, also those in use. Faults of several rules add up.
    pub fn inject(&self, from: &str, to: &str, fault: LinkFault) -> LinkFaultId {
        self.add(from, to, fault, None)
    }

    /// Hurts one connection of the links that match, after `bytes` in that direction, counted over
    /// all of them from now on.
    pub fn once(
        &self,
        from: &str,
        to: &str,
        direction: Direction,
        bytes: u64,
        effect: OnceEffect,
    ) -> Arc<Once> {
        let once = Arc::new(Once {
            direction,
            effect,
            left: AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX)),
            done: AtomicBool::new(false),
        });
        self.add(from, to, LinkFault::default(), Some(once.clone()));
        once
    }

    /// Hurts all links from and to the ends that match.
    pub fn isolate(&self, name: &str, fault: LinkFault) -> [LinkFaultId; 2] {
        [self.inject(name, "*", fault), self.inject("*", name, fault)]
    }

    /// Takes one fault away.
    pub fn remove(&self, id: LinkFaultId) {
        lock(&self.0.state).rules.retain(|rule| rule.id != id);
        self.changed();
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        lock(&self.0.state).rules.clear();
        self.changed();
    }

    /// Hurts all links, instead of all faults before.
    pub fn set_all(&self, fault: LinkFault) {
        let mut state = lock(&self.0.state);
        state.rules.clear();
        state.next_id += 1;
        let id = LinkFaultId(state.next_id);
        state.rules.push(Rule {
            id,
            from: "*".to_owned(),
            to: "*".to_owned(),
            fault,
            once: None,
        });
        drop(state);
        self.changed();
    }

    fn add(&self, from: &str, to: &str, fault: LinkFault, once: Option<Arc<Once>>) -> LinkFaultId {
        let mut state = lock(&self.0.state);
        state.next_id += 1;
        let id = LinkFaultId(state.next_id);
        state.rules.push(Rule {
            id,
            from: from.to_owned(),
            to: to.to_owned(),
            fault,
            once,
        });
        drop(state);
        self.changed();
        id
    }

    fn changed(&self) {
        self.0.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn view(&self, from: &str, address: &str) -> LinkView {
        LinkView {
            links: self.clone(),
            from: from.to_owned(),
            address: address.to_owned(),
            changes: self.0.changes.subscribe(),
        }
    }
}

/// One link, as whoever carries its bytes sees it.
#[derive(Debug, Clone)]
pub(crate) struct LinkView {
    links: Links,
    from: String,
    address: String,
    changes: watch::Receiver<u64>,
}

impl LinkView {
    /// The fault now; changes after this call end [`LinkView::changed`].
    pub(crate) fn fault(&mut self) -> LinkFault {
        self.changes.borrow_and_update();
        let rules = |rule: &Rule| rule.fault;
        self.matching(rules)
            .into_iter()
            .fold(LinkFault::default(), LinkFault::and)
    }

    pub(crate) fn onces(&self, direction: Direction) -> Vec<Arc<Once>> {
        let onces = self
            .matching(|rule| rule.once.clone())
            .into_iter()
            .flatten();
        onces.filter(|once| once.direction == direction).collect()
    }

    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn matching<T>(&self, take: impl Fn(&Rule) -> T) -> Vec<T> {
        let state = lock(&self.links.0.state);
        let to = state.names.get(&self.address).unwrap_or(&self.address);
        let rules = state.rules.iter();
        rules
            .filter(|rule| is_match(&rule.from, &self.from) && is_match(&rule.to, to))
            .map(take)
            .collect()
    }

    /// Waits as a new connection would.
    async fn admit(&mut self) -> io::Result<()> {
        loop {
            let fault = self.fault();
            if fault.cut {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if fault.paused || fault.lose_forth || fault.lose_back {
                self.changed().await;
                continue;
            }
            if !fault.delay.is_zero() {
                tokio::time::sleep(fault.delay).await;
            }
            return Ok(());
        }
    }

    /// Connects over the link as it is now.
    pub(crate) async fn connect(
        &mut self,
        address: &str,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let stream = tokio::time::timeout(limit, async {
            self.admit().await?;
            TcpStream::connect(address).await
        });
        let stream = stream
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting timed out"))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

/// Opens connections over [`Links`], under the name of a role.
#[derive(Debug)]
pub struct LinkConnector {
    links: Links,
    from: String,
    timeout: Duration,
}

#[async_trait]
impl Connector for LinkConnector {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let mut view = self.links.view(&self.from, address);
        let far = view.connect(address, self.timeout).await?;
        let (near, carried) = tokio::io::duplex(IN_FLIGHT);
        let broken = Arc::new(AtomicBool::new(false));
        let flag = broken.clone();
        tokio::spawn(async move {
            let (mut near_read, mut near_write) = tokio::io::split(carried);
            let (mut far_read, mut far_write) = far.into_split();
            let near = (&mut near_read, &mut near_write);
            if let Err(Broken) = relay(near, (&mut far_read, &mut far_write), view).await {
                flag.store(true, Ordering::SeqCst);
                reset(far_read, far_write);
            }
        });
        Ok(Box::new(NearEnd {
            stream: near,
            broken,
        }))
    }
}

/// The opener's end; knows whether the link broke or the peer closed.
struct NearEnd {
    stream: DuplexStream,
    broken: Arc<AtomicBool>,
}

impl AsyncRead for NearEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let ended = matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if ended && buffer.remaining() > 0 && self.broken.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for NearEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
