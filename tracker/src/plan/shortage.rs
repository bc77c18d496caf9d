//! What people want to know of chunks that fall short of their factor.

use std::time::Duration;

use dfs_protocol::status::{Shortage, ShortageStatus};

use super::repair;
use crate::model::datanodes::DatanodeTable;
use crate::model::replicas::ReplicaMap;

/// Chunks that fall short, by cause. `rate` is repair's measured rate in bytes per second.
pub fn status(
    datanodes: &DatanodeTable,
    replicas: &ReplicaMap,
    rate: Option<f64>,
    now: Duration,
) -> ShortageStatus {
    let counters = replicas.counters();
    let (largest, _) = counters.largest_factor();
    ShortageStatus {
        leaving: counters.of_shortage(Shortage::Leaving),
        raising: counters.of_shortage(Shortage::Raising),
        removal: counters.of_shortage(Shortage::Removal),
        absence: counters.of_shortage(Shortage::Absence),
        raising_bytes: counters.raising_bytes,
        raising_eta_seconds: rate.map(|rate| repair::eta(counters.raising_bytes, rate)),
        unreachable: unreachable(datanodes, largest, now),
    }
}

/// Why a factor cannot be reached with the datanodes that are there: fewer are in service than
/// replicas are wanted.
pub fn unreachable(datanodes: &DatanodeTable, factor: u32, now: Duration) -> Option<String> {
    let there = datanodes.there(now).count();
    (there < factor as usize)
        .then(|| format!("{factor} replicas wanted, {there} datanodes are in service"))
}
