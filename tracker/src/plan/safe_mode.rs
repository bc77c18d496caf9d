//! Safe mode after a start: reads are served, repair, gc and removal verdicts wait until enough
//! was reported.

use std::time::Duration;

use crate::model::datanodes::{DatanodeTable, Picture};
use crate::model::replicas::ReplicaMap;

/// Whether the tracker still gathers reports. Once over, it is over for this tracker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SafeMode {
    over: bool,
}

impl SafeMode {
    /// As after a start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends safe mode when it may end: to be called on every tick. Returns whether it ended now.
    pub fn tick(
        &mut self,
        datanodes: &DatanodeTable,
        replicas: &ReplicaMap,
        now: Duration,
    ) -> bool {
        let ends = !self.over && waits_for(datanodes, replicas, now).is_none();
        self.over |= ends;
        ends
    }

    /// What is awaited, for people; none when safe mode is over.
    pub fn waits_for(
        &self,
        datanodes: &DatanodeTable,
        replicas: &ReplicaMap,
        now: Duration,
    ) -> Option<String> {
        if self.over {
            return None;
        }
        Some(waits_for(datanodes, replicas, now).unwrap_or_else(|| "nothing: about to end".into()))
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

/// It ends when every chunk has a reported replica, or when every in-service datanode has reported
/// or missed ten heartbeats.
fn waits_for(datanodes: &DatanodeTable, replicas: &ReplicaMap, now: Duration) -> Option<String> {
    let unreported = replicas.counters().unreported;
    if unreported == 0 {
        return None;
    }
    let there = datanodes.there(now);
    let waiting = there.filter(|node| node.picture == Picture::Unknown);
    let waiting: Vec<String> = waiting.map(|node| node.id.short()).collect();
    if waiting.is_empty() {
        return None;
    }
    let named = waiting
        .iter()
        .take(5)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let more = if waiting.len() > 5 { ", ..." } else { "" };
    Some(format!(
        "{unreported} chunks have no reported replica yet; waiting for the chunk report of {} \
         datanodes ({named}{more})",
        waiting.len()
    ))
}
