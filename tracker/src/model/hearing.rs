//! What the tracker may conclude from silence: a partition is not a loss, and a tracker that a
//! majority does not reach takes no writes.

use std::fmt;
use std::time::Duration;

use dfs_protocol::datanode::{AdminState, Liveness};

use super::datanodes::{Datanode, DatanodeTable};

/// So many datanodes fell silent together that the network is likelier to blame (fault 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Datanodes that fell silent within the window.
    pub silent: u32,
    /// Datanodes in service or leaving.
    pub total: u32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { silent, total } = self;
        write!(
            f,
            "{silent} of {total} datanodes fell silent together, which looks like a network \
             partition: held until they return or the loss is acknowledged"
        )
    }
}

/// Why the tracker takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unheard {
    /// In-service datanodes heard within the liveness window.
    pub heard: u32,
    /// In-service datanodes, without newcomers that were not heard yet.
    pub in_service: u32,
}

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { in_service: 0, .. } => write!(f, "no datanode is in service"),
            Self { heard, in_service } => write!(
                f,
                "only {heard} of {in_service} in-service datanodes are heard; writes need a \
                 majority"
            ),
        }
    }
}

impl DatanodeTable {
    /// Whether more than max(R-1, half) of the datanodes fell silent within one `window` and have
    /// neither returned nor been acknowledged as lost. Newcomers that were not heard yet are none of them.
    pub fn partition(&self, factor: u32, window: Duration, now: Duration) -> Option<Partition> {
        let total = count(self.seasoned());
        let mut since: Vec<Duration> = self
            .seasoned()
            .filter(|node| !node.loss_acknowledged && self.liveness(node, now) != Liveness::Live)
            .map(Datanode::silent_since)
            .collect();
        since.sort_unstable();
        let together = |(first, from): (usize, &Duration)| {
            let end = since.partition_point(|at| *at <= from.saturating_add(window));
            count(since[first..end].iter())
        };
        let silent = since.iter().enumerate().map(together).max().unwrap_or(0);
        let suspicious =
            silent > factor.saturating_sub(1) && u64::from(silent) * 2 > u64::from(total);
        suspicious.then_some(Partition { silent, total })
    }

    /// A human says that the datanodes that are silent now are lost: repair may go on.
    pub fn acknowledge_loss(&mut self, now: Duration) {
        let silent: Vec<_> = self
            .serving()
            .filter(|node| self.liveness(node, now) != Liveness::Live)
            .map(|node| node.id)
            .collect();
        for node in self.nodes_mut().filter(|node| silent.contains(&node.id)) {
            node.loss_acknowledged = true;
        }
    }

    /// Why writes are refused: not heard by a majority of the in-service datanodes within the
    /// liveness window (ten heartbeats). None when they are taken. A newcomer counts once it was heard: until then it
    /// took no other tracker's word either, and one that is let in beside a lost datanode refuses no writes.
    pub fn writes_refused(&self, now: Duration) -> Option<Unheard> {
        let in_service = || {
            self.seasoned()
                .filter(|node| node.record.admin == AdminState::InService)
        };
        let window = self.policy().dead_window();
        let heard = count(in_service().filter(|node| {
            node.last_heard
                .is_some_and(|at| now.saturating_sub(at) < window)
        }));
        let unheard = Unheard {
            heard,
            in_service: count(in_service()),
        };
        (u64::from(heard) * 2 <= u64::from(unheard.in_service)).then_some(unheard)
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
