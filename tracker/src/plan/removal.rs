//! May these datanodes stop, may this one go for ever? Only proof says yes; unknown means no.

use std::time::Duration;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Verdict;
use dfs_protocol::{ChunkId, DatanodeId};

use super::tasks::TaskTable;
use super::{Hold, Policy};
use crate::model::datanodes::{DatanodeTable, Picture};
use crate::model::health::ReplicaClass;
use crate::model::leases::LeaseTable;
use crate::model::replicas::{ChunkView, ReplicaMap};

/// Most offending chunks that an answer names.
pub const NAMED_CHUNKS: usize = 100;

/// What a verdict looks at.
#[derive(Debug, Clone, Copy)]
pub struct RemovalView<'a> {
    /// The datanodes.
    pub datanodes: &'a DatanodeTable,
    /// The replicas, synced with `datanodes`.
    pub replicas: &'a ReplicaMap,
    /// The write leases.
    pub leases: &'a LeaseTable,
    /// Work under way: a replica whose deletion was ordered proves nothing.
    pub tasks: &'a TaskTable,
    /// Why verdicts are held.
    pub hold: Option<&'a Hold>,
    /// The knobs.
    pub policy: &'a Policy,
}

/// Whether these datanodes may stop, all together, and come back later: without them every chunk
/// that they touch keeps at least max(1, min(min_write, factor - 1)) valid live replicas. Chunks
/// that they do not touch lose nothing; when the chunk set of one of them is unknown, every chunk
/// is looked at.
pub fn ok_to_stop(view: &RemovalView<'_>, nodes: &[DatanodeId], now: Duration) -> Verdict {
    stop_verdict(view, nodes, false, now)
}

/// Whether, beside these datanodes, any one more may stop, whichever it is: every chunk that can be
/// read without them keeps what [`ok_to_stop`] asks for when it loses one more replica.
pub fn one_more_may_stop(view: &RemovalView<'_>, besides: &[DatanodeId], now: Duration) -> Verdict {
    stop_verdict(view, besides, true, now)
}

fn stop_verdict(
    view: &RemovalView<'_>,
    nodes: &[DatanodeId],
    one_more: bool,
    now: Duration,
) -> Verdict {
    if let Some(refusal) = refusal(view, nodes) {
        return refusal;
    }
    let too_few =
        |left: u32, factor| left.saturating_sub(u32::from(one_more)) < floor(view, factor);
    let mut found = Offenders::default();
    let chunks: Box<dyn Iterator<Item = ChunkView>> = if one_more {
        // It may hold a replica of any of them.
        Box::new(view.replicas.iter())
    } else {
        touched(view, nodes)
    };
    for chunk in chunks {
        let left = proven_elsewhere(view, &chunk, nodes, ReplicaUse::Read);
        found.note(
            chunk.expected.chunk.id,
            too_few(left, chunk.expected.factor),
        );
    }
    for (chunk, leased) in view.leases.leased(now) {
        let left = live_targets(view, &leased.targets, nodes, now);
        let touches = one_more
            || leased.targets.is_empty()
            || leased.targets.iter().any(|id| nodes.contains(id));
        found.note_leased(chunk, touches && too_few(left, leased.wanted));
    }
    found.verdict("chunks would have too few live replicas")
}

/// Fewest live replicas that a chunk of this factor keeps while datanodes stop.
fn floor(view: &RemovalView<'_>, factor: u32) -> u32 {
    let min_write = view.policy.min_write(factor);
    min_write.min(factor.saturating_sub(1)).max(1)
}

fn live_targets<'a>(
    view: &RemovalView<'_>,
    targets: impl IntoIterator<Item = &'a DatanodeId>,
    without: &[DatanodeId],
    now: Duration,
) -> u32 {
    let live = |id: &&DatanodeId| {
        let node = view.datanodes.get(**id);
        !without.contains(id) && node.is_some_and(|node| view.datanodes.view(node, now).live)
    };
    let count = targets.into_iter().filter(live).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whether this datanode may go for ever: without it every chunk has its full factor on live
/// in-service datanodes whose chunk sets are known.
pub fn safe_to_remove(view: &RemovalView<'_>, node: DatanodeId, now: Duration) -> Verdict {
    let nodes = [node];
    if let Some(refusal) = refusal(view, &nodes) {
        return refusal;
    }
    let mut found = Offenders::default();
    for chunk in touched(view, &nodes) {
        let left = proven_elsewhere(view, &chunk, &nodes, ReplicaUse::Count);
        found.note(chunk.expected.chunk.id, left < chunk.expected.factor);
    }
    // No commit counts a replica on a datanode that is leaving: what is placed there ahead of need
    // will not rest on it, unless its commit began before.
    let takes_part = view
        .datanodes
        .get(node)
        .is_some_and(|node| node.record.admin == AdminState::InService);
    for (chunk, leased) in view.leases.leased(now) {
        let touches = leased.targets.is_empty() || leased.targets.contains(&node);
        found.note_leased(chunk, touches && (takes_part || leased.named));
    }
    found.verdict("chunks would not have their full replication factor")
}

fn refusal(view: &RemovalView<'_>, nodes: &[DatanodeId]) -> Option<Verdict> {
    if let Some(hold) = view.hold {
        return Some(no(format!("not known yet: {hold}")));
    }
    let stranger = nodes.iter().find(|id| view.datanodes.get(**id).is_none())?;
    Some(no(format!(
        "datanode {stranger} is not known to the tracker"
    )))
}

fn no(reason: String) -> Verdict {
    Verdict {
        safe: false,
        reason,
        chunks: Vec::new(),
        chunk_count: 0,
    }
}

/// Chunks that may lose a replica: those of the datanodes, or all when one's set is not known.
fn touched<'a>(
    view: &RemovalView<'a>,
    nodes: &'a [DatanodeId],
) -> Box<dyn Iterator<Item = ChunkView> + 'a> {
    let replicas = view.replicas;
    let known = nodes.iter().all(|id| {
        view.datanodes
            .get(*id)
            .is_some_and(|node| node.picture == Picture::Current)
    });
    if !known {
        return Box::new(replicas.iter());
    }
    Box::new(held_by(replicas, nodes))
}

/// Chunks of which one of the datanodes has a replica. One on several of them comes once, with the first.
pub(super) fn held_by<'a>(
    replicas: &'a ReplicaMap,
    nodes: &'a [DatanodeId],
) -> impl Iterator<Item = ChunkView> + 'a {
    nodes.iter().enumerate().flat_map(move |(at, id)| {
        replicas.of_datanode(*id).filter(move |chunk| {
            !chunk
                .replicas
                .iter()
                .any(|r| r.present && nodes[..at].contains(&r.datanode))
        })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplicaUse {
    /// Can be read from.
    Read,
    /// Counts towards the factor.
    Count,
}

fn proven_elsewhere(
    view: &RemovalView<'_>,
    chunk: &ChunkView,
    without: &[DatanodeId],
    use_: ReplicaUse,
) -> u32 {
    let left = chunk.replicas.iter().filter(|replica| {
        let usable = match use_ {
            // A datanode has it durably as soon as its writer was told so. A stop takes nothing away; to wait for
            // the next report would let nobody stop while files are written.
            ReplicaUse::Read => {
                let is_there = replica.verified() || replica.class == ReplicaClass::Promised;
                is_there && replica.holder.readable() && replica.holder.current
            }
            ReplicaUse::Count => replica.verified() && replica.holder.proven(),
        };
        usable
            && !without.contains(&replica.datanode)
            && !view
                .tasks
                .is_going(chunk.expected.chunk.id, replica.datanode)
    });
    u32::try_from(left.count()).unwrap_or(u32::MAX)
}

#[derive(Debug, Default)]
struct Offenders {
    chunks: Vec<ChunkId>,
    stored: u64,
    leased: u64,
}

impl Offenders {
    fn note(&mut self, chunk: ChunkId, offends: bool) {
        self.stored += u64::from(offends);
        self.name(chunk, offends);
    }

    fn note_leased(&mut self, chunk: ChunkId, offends: bool) {
        self.leased += u64::from(offends);
        self.name(chunk, offends);
    }

    fn name(&mut self, chunk: ChunkId, offends: bool) {
        if offends && self.chunks.len() < NAMED_CHUNKS {
            self.chunks.push(chunk);
        }
    }

    fn verdict(self, what: &str) -> Verdict {
        let Self {
            chunks,
            stored,
            leased,
        } = self;
        let reason = match (stored, leased) {
            (0, 0) => "every chunk is safe without it".to_owned(),
            (stored, 0) => format!("{stored} {what}"),
            (0, leased) => format!("{leased} chunks are being written there"),
            (stored, leased) => format!("{stored} {what}, and {leased} are being written there"),
        };
        Verdict {
            safe: stored + leased == 0,
            reason,
            chunks,
            chunk_count: stored + leased,
        }
    }
}
