//! Counts and durations of requests.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::metrics::{DURATION_BUCKETS, Label, counter, gauge, registered};

crate::label_enum! {
    /// Method as a label: a client cannot invent series.
    pub enum MethodLabel: "method" {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// PUT.
        Put = "PUT",
        /// POST.
        Post = "POST",
        /// DELETE.
        Delete = "DELETE",
        /// OPTIONS.
        Options = "OPTIONS",
        /// Any other token.
        Other = "other",
    }
}

impl MethodLabel {
    /// The label of a method.
    pub fn of(method: &Method) -> Self {
        match method.as_str() {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

crate::label_enum! {
    /// First digit of the status.
    pub enum StatusClass: "status" {
        /// 1xx.
        Informational = "1xx",
        /// 2xx.
        Success = "2xx",
        /// 3xx.
        Redirection = "3xx",
        /// 4xx.
        ClientError = "4xx",
        /// 5xx.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of a status.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// `dfs_http_requests_*`. Routes are the router's patterns, never raw paths.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    sent: IntCounter,
    in_flight: IntGauge,
    refused: IntCounter,
    panics: IntCounter,
}

impl RequestMetrics {
    /// Registers the metrics; one set per registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = Opts::new("dfs_http_requests_total", "Requests answered");
        let seconds = HistogramOpts::new(
            "dfs_http_request_duration_seconds",
            "From the end of the request's header to the end of its answer",
        );
        Ok(Self {
            requests: registered(
                registry,
                IntCounterVec::new(requests, &[MethodLabel::NAME, "route", StatusClass::NAME])?,
            )?,
            seconds: registered(
                registry,
                HistogramVec::new(seconds.buckets(DURATION_BUCKETS.to_vec()), &["route"])?,
            )?,
            sent: counter(
                registry,
                "dfs_http_response_body_bytes_total",
                "Body bytes handed to connections",
            )?,
            in_flight: gauge(
                registry,
                "dfs_http_requests_in_flight",
                "Requests between their header and the end of their answer",
            )?,
            refused: counter(
                registry,
                "dfs_http_requests_refused_total",
                "Requests answered 503 because too many were in flight",
            )?,
            panics: counter(
                registry,
                "dfs_http_handler_panics_total",
                "Panics that became a 500",
            )?,
        })
    }

    /// Requests refused by the cap so far.
    pub fn refused_count(&self) -> u64 {
        self.refused.get()
    }

    /// Requests in flight now.
    pub fn in_flight_count(&self) -> i64 {
        self.in_flight.get()
    }

    /// Panics so far.
    pub fn panic_count(&self) -> u64 {
        self.panics.get()
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    pub(super) fn started(&self) {
        self.in_flight.inc();
    }

    pub(super) fn ended(
        &self,
        method: MethodLabel,
        route: &str,
        status: StatusCode,
        bytes: u64,
        duration: Duration,
    ) {
        self.in_flight.dec();
        let class = StatusClass::of(status);
        self.requests
            .with_label_values(&[method.as_str(), route, class.as_str()])
            .inc();
        self.seconds
            .with_label_values(&[route])
            .observe(duration.as_secs_f64());
        self.sent.inc_by(bytes);
    }
}
