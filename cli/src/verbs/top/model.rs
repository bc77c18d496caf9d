//! What is watched: two looks at the store make rates. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::Liveness;
use dfs_protocol::status::{ClusterStatus, DatanodeStatus};
use dfs_protocol::traffic::{DatanodeTraffic, HotFiles};
use jiff::Timestamp;
use serde::Serialize;

/// Beyond the interval, a picture may be so old before its store counts as silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// One look at the store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Sample {
    /// When it was answered, by this machine's clock.
    pub taken: Timestamp,
    /// How the store is.
    pub status: ClusterStatus,
    /// Its datanodes.
    pub nodes: Vec<DatanodeStatus>,
    /// Hot files; none where the tracker is of an earlier version and counts none.
    pub hot: Option<HotFiles>,
}

/// Bytes a second of one datanode, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Rates {
    /// Sent to readers, copying datanodes among them.
    pub read: f64,
    /// Received from writers.
    pub written: f64,
    /// Fetched from other datanodes.
    pub copied: f64,
}

/// Files opened for reading, and written, a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct FileRates {
    /// Reads begun.
    pub reads: f64,
    /// Files written.
    pub writes: f64,
}

/// What is shown: the newest look, and what changed since those before. A rate that is not known is
/// absent, never zero.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Picture {
    /// The newest look.
    #[serde(flatten)]
    pub sample: Sample,
    /// Of each datanode whose counters could be compared.
    pub rates: BTreeMap<DatanodeId, Rates>,
    /// What clients read and write, and what is copied inside: sums over the datanodes.
    pub throughput: Option<Rates>,
    /// Files a second.
    pub file_rates: Option<FileRates>,
    /// The most that was seen to be left to copy since repair began.
    pub repair_peak: u64,
}

impl Picture {
    /// The first look: nothing to compare with.
    pub(super) fn first(sample: Sample) -> Self {
        Self {
            rates: BTreeMap::new(),
            throughput: None,
            file_rates: None,
            repair_peak: repair_left(&sample.status),
            sample,
        }
    }

    /// The next look.
    pub(super) fn then(&self, sample: Sample) -> Self {
        let before = |id| self.sample.nodes.iter().find(|node| node.id == id);
        let mut rates = BTreeMap::new();
        for node in &sample.nodes {
            let Some(now) = told_of(node) else { continue };
            let Some(then) = before(node.id).and_then(told_of) else {
                continue;
            };
            // No heartbeat since: what was measured last stands.
            let known = self.rates.get(&node.id).filter(|_| now == then).copied();
            if let Some(rate) = known.or_else(|| rates_between(&then, &now)) {
                rates.insert(node.id, rate);
            }
        }
        let left = repair_left(&sample.status);
        Self {
            throughput: throughput(&rates),
            file_rates: self.file_rates(sample.hot.as_ref()),
            repair_peak: if left == 0 {
                0
            } else {
                self.repair_peak.max(left)
            },
            rates,
            sample,
        }
    }

    fn file_rates(&self, now: Option<&HotFiles>) -> Option<FileRates> {
        let (then, now) = (self.sample.hot.as_ref()?, now?);
        if then.fence != now.fence {
            return None;
        }
        let passed = now.at_ms.checked_sub(then.at_ms)?;
        Some(FileRates {
            reads: per_second(then.reads, now.reads, passed)?,
            writes: per_second(then.writes, now.writes, passed)?,
        })
    }

    /// The share of the repair that was seen that is done.
    pub(super) fn repair_done(&self) -> (u64, u64) {
        let left = repair_left(&self.sample.status);
        (self.repair_peak.saturating_sub(left), self.repair_peak)
    }
}

fn repair_left(status: &ClusterStatus) -> u64 {
    status.repair.bytes_remaining
}

/// What a datanode told of its traffic, while it is heard.
fn told_of(node: &DatanodeStatus) -> Option<DatanodeTraffic> {
    node.traffic.filter(|_| node.liveness == Liveness::Live)
}

/// What passed between two tellings of one run of a process. None when it started anew in between, when
/// the tellings are the same one, or when they came out of order.
pub(super) fn rates_between(then: &DatanodeTraffic, now: &DatanodeTraffic) -> Option<Rates> {
    if now.instance != then.instance {
        return None;
    }
    let passed = now.at_ms.checked_sub(then.at_ms)?;
    Some(Rates {
        read: per_second(then.read_bytes, now.read_bytes, passed)?,
        written: per_second(then.written_bytes, now.written_bytes, passed)?,
        copied: per_second(then.copied_bytes, now.copied_bytes, passed)?,
    })
}

/// None where a counter went back or no time passed.
fn per_second(then: u64, now: u64, passed_ms: u64) -> Option<f64> {
    let grown = now.checked_sub(then)?;
    (passed_ms > 0).then(|| grown as f64 * 1000.0 / passed_ms as f64)
}

/// What clients move: datanodes that copy read from others, so that their bytes are taken off.
fn throughput(rates: &BTreeMap<DatanodeId, Rates>) -> Option<Rates> {
    if rates.is_empty() {
        return None;
    }
    let mut sum = Rates::default();
    for Rates {
        read,
        written,
        copied,
    } in rates.values()
    {
        sum.read += read;
        sum.written += written;
        sum.copied += copied;
    }
    sum.read = (sum.read - sum.copied).max(0.0);
    Some(sum)
}

/// A picture, and whether the store still answers.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// What is shown.
    pub picture: Picture,
    interval: Duration,
    failure: Option<String>,
}

/// The store does not answer: what is shown is from then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silence {
    /// When the store answered last.
    pub since: Timestamp,
    /// How long ago that is.
    pub lasted: Duration,
    /// What the last try came to, once it ended.
    pub why: Option<String>,
}

impl Watch {
    /// Begins with the first look.
    pub(super) fn new(picture: Picture, interval: Duration) -> Self {
        Self {
            picture,
            interval,
            failure: None,
        }
    }

    /// The store answered.
    pub(super) fn answered(&mut self, sample: Sample) {
        self.picture = self.picture.then(sample);
        self.failure = None;
    }

    /// It did not; the picture stays.
    pub(super) fn failed(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// Whether the picture is of the past: the last look failed, or a look takes too long.
    pub(super) fn silence(&self, now: Timestamp) -> Option<Silence> {
        let since = self.picture.sample.taken;
        let lasted = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let too_old = lasted > self.interval + PATIENCE;
        (self.failure.is_some() || too_old).then(|| Silence {
            since,
            lasted,
            why: self.failure.clone(),
        })
    }
}
