//! Counts and durations of requests.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::endpoints::Endpoint;
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
        /// Any other token, or one that the route does not take.
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

/// Statuses that every endpoint has series of before the first request.
const EXPECTED: [StatusClass; 3] = [
    StatusClass::Success,
    StatusClass::ClientError,
    StatusClass::ServerError,
];

/// `dfs_http_requests_*`. Routes are the router's patterns, never raw paths, and methods those that the
/// route takes: clients cannot make series.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    endpoints: Arc<OnceLock<HashSet<Endpoint>>>,
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
            endpoints: Arc::default(),
            requests: registered(
                registry,
                IntCounterVec::new(requests, &[MethodLabel::NAME, "route", StatusClass::NAME])?,
            )?,
            seconds: registered(
                registry,
                HistogramVec::new(
                    seconds.buckets(DURATION_BUCKETS.to_vec()),
                    &[MethodLabel::NAME, "route"],
                )?,
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

    /// Makes the series of these endpoints, at zero, so that a rate sees the first error too. From then
    /// on the methods of others are counted as [`MethodLabel::Other`]. Only the first call counts.
    pub(super) fn expect(&self, endpoints: Vec<Endpoint>) {
        if endpoints.is_empty() {
            return;
        }
        for Endpoint { route, method } in &endpoints {
            for status in EXPECTED {
                self.requests
                    .with_label_values(&[method.as_str(), route, status.as_str()]);
            }
        }
        let _first = self.endpoints.set(endpoints.into_iter().collect());
    }

    /// The method as it is counted.
    fn method_at(&self, method: MethodLabel, route: &str) -> MethodLabel {
        let taken = self.endpoints.get().is_none_or(|endpoints| {
            let route = route.to_owned();
            endpoints.contains(&Endpoint { route, method })
        });
        if taken { method } else { MethodLabel::Other }
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

    #[cfg(test)]
    fn requests_at(&self, labels: [&str; 3]) -> u64 {
        self.requests.with_label_values(&labels).get()
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
        let method = self.method_at(method, route);
        self.requests
            .with_label_values(&[method.as_str(), route, class.as_str()])
            .inc();
        self.seconds
            .with_label_values(&[method.as_str(), route])
            .observe(duration.as_secs_f64());
        self.sent.inc_by(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(registry: &Registry) -> usize {
        let families = registry.gather();
        let ours = families
            .iter()
            .filter(|f| f.name() == "dfs_http_requests_total");
        ours.map(|family| family.get_metric().len()).sum()
    }

    #[test]
    fn every_endpoint_has_its_series_before_the_first_error_and_clients_make_none() {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry).unwrap();
        let endpoint = |method| Endpoint {
            route: "/files/{*path}".to_owned(),
            method,
        };
        metrics.expect(vec![endpoint(MethodLabel::Get), endpoint(MethodLabel::Put)]);
        assert_eq!(series(&registry), 2 * EXPECTED.len());
        let end = |method, status| {
            metrics.started();
            metrics.ended(method, "/files/{*path}", status, 0, Duration::ZERO);
        };
        end(MethodLabel::Get, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(series(&registry), 2 * EXPECTED.len());
        assert_eq!(metrics.requests_at(["GET", "/files/{*path}", "5xx"]), 1);
        for method in MethodLabel::ALL {
            end(*method, StatusCode::METHOD_NOT_ALLOWED);
        }
        assert_eq!(
            series(&registry),
            2 * EXPECTED.len() + 1,
            "all others are one"
        );
    }
}
