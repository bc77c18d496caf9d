//! Whether replicas can be spread as wanted at all: hosts first, then zones. For people; placement
//! and repair do the best they can either way, and repair copies nothing that would not be better.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::status::SpreadStatus;

use crate::model::datanodes::{Datanode, DatanodeTable};

/// What people want to know of the spread.
pub fn status(
    datanodes: &DatanodeTable,
    factor: u32,
    badly_spread: u64,
    now: Duration,
) -> SpreadStatus {
    status_of(datanodes, factor, badly_spread, now, |_| true)
}

/// As [`status`], with only those datanodes that `stays` lets through.
pub fn status_of(
    datanodes: &DatanodeTable,
    factor: u32,
    badly_spread: u64,
    now: Duration,
    stays: impl Fn(&Datanode) -> bool,
) -> SpreadStatus {
    let mut hosts: BTreeSet<String> = BTreeSet::new();
    let mut zones: BTreeMap<Option<&str>, BTreeSet<String>> = BTreeMap::new();
    for node in datanodes.there(now).filter(|node| stays(node)) {
        hosts.insert(node.host());
        let zone = node.record.zone.as_deref();
        zones.entry(zone).or_default().insert(node.host());
    }
    let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    let host_count = count(hosts.len());
    let rule = datanodes.spread_rule();
    let (possible, mut sentence) = match rule.zone_limit(factor) {
        _ if host_count < factor => (
            false,
            format!("{factor} replicas wanted, datanodes on {host_count} hosts"),
        ),
        None => (true, format!("{factor} replicas on distinct hosts")),
        Some(limit) => {
            let room: u32 = zones.values().map(|on| count(on.len()).min(limit)).sum();
            let zones = rule.zones;
            if room < factor {
                let sentence = format!(
                    "{factor} replicas wanted, at most {limit} in a zone: the hosts of {zones} \
                     zones take {room}"
                );
                (false, sentence)
            } else {
                let sentence = format!(
                    "{factor} replicas on distinct hosts, at most {limit} in each of {zones} zones"
                );
                (true, sentence)
            }
        }
    };
    if rule.zones == 0 && zones.len() > 1 {
        sentence.push_str("; zones do not count until every datanode in service names its own");
    }
    SpreadStatus {
        possible,
        sentence,
        wanted: factor,
        hosts: host_count,
        zones: rule.zones,
        badly_spread,
    }
}
