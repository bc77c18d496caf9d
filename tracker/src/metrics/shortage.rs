//! Chunks below their factor: how many, for how long, why.

use std::time::Duration;

use dfs_protocol::status::Shortage;
use dfs_runtime::metrics::{gauge, registered};
use prometheus::{CounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{gauges, whole};
use crate::model::replicas::{Counters, ReplicaMap};

/// Numbers of chunks below their factor.
#[derive(Debug, Clone)]
pub struct ShortageMetrics {
    chunks: IntGaugeVec,
    seconds: CounterVec,
    oldest: IntGaugeVec,
    raising: IntGauge,
}

impl ShortageMetrics {
    /// Registers every number; every cause starts at zero.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let causes = Shortage::ALL.map(Shortage::as_str);
        let seconds = Opts::new(
            "dfs_tracker_chunks_below_factor_seconds_total",
            "Seconds that chunks had fewer replicas that count than wanted, summed over chunks, by \
             cause.",
        );
        let metrics = Self {
            chunks: gauges(
                registry,
                "dfs_tracker_chunks_below_factor",
                "Chunks with fewer replicas that count than wanted, by cause.",
                "cause",
                &causes,
            )?,
            seconds: registered(registry, CounterVec::new(seconds, &["cause"])?)?,
            oldest: gauges(
                registry,
                "dfs_tracker_oldest_shortage_seconds",
                "Time since the chunk that fell short first, of those that still do, fell short, by \
                 cause; 0 when none does. Counts from the end of this tracker's safe mode at the earliest.",
                "cause",
                &causes,
            )?,
            raising: gauge(
                registry,
                "dfs_tracker_raising_remaining_bytes",
                "Bytes still to copy because a factor was raised.",
            )?,
        };
        metrics.add([0.0; 4]);
        Ok(metrics)
    }

    /// Chunk-seconds since the last call, in the order of [`Shortage::ALL`].
    pub fn add(&self, chunk_seconds: [f64; 4]) {
        for (cause, seconds) in Shortage::ALL.into_iter().zip(chunk_seconds) {
            let counter = self.seconds.with_label_values(&[cause.as_str()]);
            counter.inc_by(seconds);
        }
    }

    /// Chunk-seconds so far.
    pub fn seconds(&self, cause: Shortage) -> f64 {
        self.seconds.with_label_values(&[cause.as_str()]).get()
    }

    /// How it is now.
    pub fn set(&self, counters: &Counters) {
        for cause in Shortage::ALL {
            let gauge = self.chunks.with_label_values(&[cause.as_str()]);
            gauge.set(whole(counters.of_shortage(cause)));
        }
        self.raising.set(whole(counters.raising_bytes));
    }

    /// How old the oldest shortages are; `now` is monotonic.
    pub fn set_oldest(&self, replicas: &ReplicaMap, now: Duration) {
        for cause in Shortage::ALL {
            let since = replicas.short_since(cause);
            let age = since.map_or(0, |since| now.saturating_sub(since).as_secs());
            let gauge = self.oldest.with_label_values(&[cause.as_str()]);
            gauge.set(whole(age));
        }
    }
}
