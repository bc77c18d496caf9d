//! The accept loop: takes connections up to the cap and survives every error of `accept`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::{RefusalReason, ServerMetrics};
use crate::process::handle_limit;

/// Pause after an error of `accept` that will not pass by itself at once.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections that are told 503 at the same time; more are dropped without a word.
const REFUSALS: usize = 64;
/// How long a refused connection may take to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Of the process's file handles, the part that connections of one listener may take: files, peers
/// and the health listener need the others.
const CONNECTIONS_SHARE: u64 = 2;
/// The part that refused connections may take for the moment.
const REFUSALS_SHARE: u64 = 8;

/// One part of `parts` of the limit, never nothing.
fn handle_share(limit: Option<u64>, parts: u64) -> usize {
    let share = limit.map_or(u64::MAX, |limit| (limit / parts).max(1));
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// A connection and its place under the cap, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: OwnedSemaphorePermit,
}

/// The cap on connections.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
}

impl Places {
    fn new(connections: usize) -> Self {
        let all = connections
            .min(handle_share(handle_limit(), CONNECTIONS_SHARE))
            .min(u32::MAX as usize)
            .min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(all)),
            all,
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.all.saturating_sub(self.free.available_permits())
    }

    /// Waits until no connection is left.
    pub(super) async fn all_free(&self) {
        let all = u32::try_from(self.all).unwrap_or(u32::MAX);
        let _never_closed = self.free.acquire_many(all).await;
    }
}

/// Takes connections from one listener.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    metrics: ServerMetrics,
    places: Places,
    refusals: Arc<Semaphore>,
    /// Duplicates of the listener's handle, whose only worth is that they can be closed.
    spares: Vec<OwnedFd>,
    wanted_spares: usize,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        connections: usize,
        spares: usize,
        metrics: ServerMetrics,
    ) -> Self {
        Self {
            listener,
            metrics,
            places: Places::new(connections),
            refusals: Arc::new(Semaphore::new(
                REFUSALS.min(handle_share(handle_limit(), REFUSALS_SHARE)),
            )),
            spares: Vec::new(),
            wanted_spares: spares,
        }
    }

    /// Closes the listener; what was taken goes on.
    pub(super) fn close(self) -> Places {
        self.places
    }

    /// Waits for the next connection under the cap. Cancel-safe.
    pub(super) async fn next(&mut self) -> Accepted {
        // Not again in the loop: it would take back at once what `recover` gives up.
        self.refill();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(accepted) = self.admit(stream, peer) {
                        return accepted;
                    }
                }
                Err(error) => self.recover(&error).await,
            }
        }
    }

    /// Keeps the reserve full while handles are to be had.
    fn refill(&mut self) {
        while self.spares.len() < self.wanted_spares {
            match self.listener.as_fd().try_clone_to_owned() {
                Ok(spare) => self.spares.push(spare),
                Err(_) => return,
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        // Without it small answers wait for the peer's delayed ACK. Fails only on a dead socket.
        let _dead_soon = stream.set_nodelay(true);
        if let Ok(place) = self.places.free.clone().try_acquire_owned() {
            self.metrics.accepted.inc();
            return Some(Accepted {
                stream,
                peer,
                place,
            });
        }
        if let Ok(refusal) = self.refusals.clone().try_acquire_owned() {
            self.metrics.refused.inc(RefusalReason::Full);
            tokio::spawn(async move {
                let _too_slow = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                drop(refusal);
            });
        } else {
            self.metrics.refused.inc(RefusalReason::Dropped);
        }
        None
    }

    async fn recover(&mut self, error: &io::Error) {
        let errno = Errno::from_io_error(error);
        let no_handles = matches!(errno, Some(Errno::MFILE | Errno::NFILE));
        if no_handles {
            self.metrics.refused.inc(RefusalReason::NoHandles);
            if self.spares.pop().is_some() {
                return;
            }
        } else {
            self.metrics.refused.inc(RefusalReason::AcceptError);
            if is_of_one_connection(errno) {
                return;
            }
        }
        tracing::warn!(%error, "accepting connections pauses");
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Errors that the kernel found on a connection before it was taken; the next one may be fine.
fn is_of_one_connection(errno: Option<Errno>) -> bool {
    matches!(
        errno,
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::CONNREFUSED
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::TIMEDOUT
        )
    )
}

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
content-length: 142\r\n\r\n\
{\"type\":\"urn:dfs:problem:unavailable\",\"title\":\"The service is not available now\",\
\"status\":503,\"detail\":\"too many connections\",\"retry_after\":1}";

/// Answers without reading, then reads a little so that the answer is not lost to a reset.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    let mut scrap = [0; 4096];
    for _ in 0..16 {
        if stream.read(&mut scrap).await? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_29_connections_leave_handles_for_files_peers_and_health() {
        assert_eq!(handle_share(Some(96), CONNECTIONS_SHARE), 48);
        assert_eq!(handle_share(Some(96), REFUSALS_SHARE), 12);
        assert_eq!(handle_share(Some(0), REFUSALS_SHARE), 1);
        assert_eq!(handle_share(None, CONNECTIONS_SHARE), usize::MAX);
    }

    #[test]
    fn the_refusal_announces_its_length() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        let problem: dfs_protocol::problem::Problem = serde_json::from_str(body).unwrap();
        assert!(problem.is(dfs_protocol::problem::ErrorCode::Unavailable));
    }
}
