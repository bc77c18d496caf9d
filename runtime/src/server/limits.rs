//! Every limit on what a client may do to a connection.

use std::time::Duration;

/// The slowest that a peer may be while it owes us bytes (or while ours wait for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How long a peer is watched before it is judged. Only time in which we wait for the peer
    /// counts.
    pub window: Duration,
    /// Bytes that must move in a window.
    pub bytes: u64,
}

impl RateLimit {
    /// At least `bytes_per_second`, on the average of each window.
    pub const fn per_second(bytes_per_second: u64, window: Duration) -> Self {
        Self {
            window,
            bytes: bytes_per_second.saturating_mul(window.as_secs()),
        }
    }
}

/// Limits of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once, upgraded ones included; the next gets 503 and is closed. Never more
    /// than half of the process's file handles.
    pub connections: usize,
    /// From the first byte of a request (or from the connection's start) to the end of its header.
    pub header_timeout: Duration,
    /// How long a connection may lie idle between two requests.
    pub idle_timeout: Duration,
    /// Bytes of a request's line and header.
    pub header_bytes: usize,
    /// Lines of a request's header.
    pub headers: usize,
    /// Bytes of a request's URI.
    pub uri_bytes: usize,
    /// Slowest request body.
    pub receive_rate: RateLimit,
    /// Slowest reader of an answer.
    pub send_rate: RateLimit,
    /// How long requests in flight may go on after the shutdown.
    pub drain: Duration,
    /// How long the rest of a refused body is read and dropped after the answer, so that the
    /// client sees the answer rather than a reset.
    pub linger: Duration,
    /// File handles kept in reserve: given up one by one to accept connections when the process
    /// has run out of them.
    pub spare_handles: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_timeout: Duration::from_secs(30),
            // Longer than the common proxies keep theirs, so that it is never us who close a
            // connection on which a proxy is about to send.
            idle_timeout: Duration::from_mins(2),
            header_bytes: 64 * 1024,
            headers: 100,
            uri_bytes: 8 * 1024,
            receive_rate: RateLimit::per_second(1024, Duration::from_secs(30)),
            send_rate: RateLimit::per_second(1024, Duration::from_secs(30)),
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            spare_handles: 0,
        }
    }
}

impl ServerLimits {
    /// Small caps for probes and scrapes, and handles in reserve for them.
    pub fn admin() -> Self {
        Self {
            connections: 64,
            header_timeout: Duration::from_secs(5),
            header_bytes: 16 * 1024,
            drain: Duration::from_secs(1),
            spare_handles: 4,
            ..Self::default()
        }
    }
}
