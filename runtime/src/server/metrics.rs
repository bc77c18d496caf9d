//! Every limit hit is counted, per listener.

use dfs_protocol::problem::ErrorCode;
use prometheus::{IntCounter, IntGauge, Opts, Registry};

use crate::metrics::{CounterBy, registered};

crate::label_enum! {
    /// Why a connection was closed by us.
    pub enum CutReason: "reason" {
        /// No whole request header in time.
        HeaderTimeout = "header_timeout",
        /// Idle between two requests.
        Idle = "idle",
        /// A request body below the minimum rate.
        SlowRequest = "slow_request",
        /// The client read its answer below the minimum rate.
        SlowReader = "slow_reader",
        /// Still busy at the end of the drain.
        Shutdown = "shutdown",
    }
}

crate::label_enum! {
    /// Why a connection was not taken.
    pub enum RefusalReason: "reason" {
        /// Answered 503: the cap is reached.
        Full = "full",
        /// Closed without an answer: too many are being told 503 already.
        Dropped = "dropped",
        /// The process has no file handle left.
        NoHandles = "no_handles",
        /// Any other error of `accept`.
        AcceptError = "accept_error",
    }
}

/// `dfs_http_connections_*` of one listener.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    pub(super) open: IntGauge,
    pub(super) accepted: IntCounter,
    pub(super) refused: CounterBy<RefusalReason>,
    pub(super) cut: CounterBy<CutReason>,
    pub(super) malformed: CounterBy<ErrorCode>,
}

impl ServerMetrics {
    /// Registers the metrics of the listener that is called so (`api`, `admin`): a constant label,
    /// so that several listeners share a registry.
    pub fn register(
        registry: &Registry,
        listener: &'static str,
    ) -> Result<Self, prometheus::Error> {
        let options =
            |name: &str, help: &str| Opts::new(name, help).const_label("listener", listener);
        let open = options("dfs_http_connections_open", "Open connections");
        let accepted = options("dfs_http_connections_accepted_total", "Connections taken");
        Ok(Self {
            open: registered(registry, IntGauge::with_opts(open)?)?,
            accepted: registered(registry, IntCounter::with_opts(accepted)?)?,
            refused: CounterBy::with_options(
                registry,
                options(
                    "dfs_http_connections_refused_total",
                    "Connections not taken, and errors of accept",
                ),
            )?,
            cut: CounterBy::with_options(
                registry,
                options(
                    "dfs_http_connections_cut_total",
                    "Connections closed because the client broke a limit, or by the shutdown",
                ),
            )?,
            malformed: CounterBy::with_options(
                registry,
                options(
                    "dfs_http_requests_malformed_total",
                    "Requests refused for their header alone",
                ),
            )?,
        })
    }

    /// Connections open now.
    pub fn open_count(&self) -> i64 {
        self.open.get()
    }

    /// Connections taken so far.
    pub fn accepted_count(&self) -> u64 {
        self.accepted.get()
    }

    /// Connections refused so far.
    pub fn refused_count(&self, reason: RefusalReason) -> u64 {
        self.refused.get(reason)
    }

    /// Connections cut so far.
    pub fn cut_count(&self, reason: CutReason) -> u64 {
        self.cut.get(reason)
    }

    /// Requests refused for their header so far.
    pub fn malformed_count(&self, code: ErrorCode) -> u64 {
        self.malformed.get(code)
    }
}
