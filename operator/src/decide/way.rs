//! A second drain ends the first one's announcement.
//!
//! A datanode that is drained says that it is away for a few minutes, and nothing of it is copied before. Where its
//! volume is bound to the cordoned node it does not come back in that time, and the next node's drain is refused
//! until its chunks are whole. The API server tells nobody of refused evictions. So a drain that waits is read from
//! the nodes: another one is cordoned and still carries a datanode that serves.

use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::Liveness;
use jiff::Timestamp;

use super::{Input, Step, waits};
use crate::names;
use crate::observe::{OpenTracker, Part, PodView};
use crate::tracker_client::DatanodeEntry;

/// For how long a datanode that restarts is announced as away, by its pod's hook and by a roll.
pub const SHORT_ABSENCE: Duration = Duration::from_mins(5);
/// By how much the tracker's clock may be ahead of this one.
const SKEW: Duration = Duration::from_secs(30);

/// A datanode that is waited for in vain while somebody waits for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Which is waited for no longer.
    pub away: DatanodeId,
    /// Its pod.
    pub pod: String,
    /// The cordoned node whose drain waits.
    pub node: String,
    /// The pod there that may not go yet.
    pub waits: String,
    /// Why it may not, in the tracker's words.
    pub why: String,
}

/// Whose short absence ends now, so that repair frees the way for a drain that waits.
pub(super) fn make_way(input: &Input<'_>, open: &OpenTracker) -> Vec<Step> {
    // Without a verdict nobody knows whether a drain waits for chunks; with a good one it does not.
    let Some(verdict) = input.verdicts.further.as_ref().filter(|word| !word.safe) else {
        return Vec::new();
    };
    // With one replica of each chunk there is neither hook nor budget.
    if input.cluster.factor < 2 {
        return Vec::new();
    }
    let away = open.nodes.iter().filter_map(|entry| {
        let (pod, home) = away(input, entry)?;
        let (node, waits) = waiting(input, open, &home)?;
        Some(Step::MakeWay(Way {
            away: entry.id,
            pod,
            node,
            waits,
            why: verdict.reason.clone(),
        }))
    });
    away.collect()
}

/// The pod and the node of a datanode that was announced as away for a short while and cannot come back meanwhile.
fn away(input: &Input<'_>, entry: &DatanodeEntry) -> Option<(String, String)> {
    let observed = input.observed;
    let is_silent = entry.liveness != Liveness::Live;
    if !entry.is_member() || !is_silent || !is_short(entry, input.now) {
        return None;
    }
    let name = entry.pod.clone()?;
    names::ordinal(&names::datanode_set(&input.cluster.key.name), &name)?;
    let bound = observed.claim(&names::claim(&name))?.node.clone();
    let is_bound = bound.is_some();
    let home = bound.or_else(|| entry.host.clone())?;
    let is_cordoned = observed.nodes.get(&home).map(|node| node.unschedulable);
    let cannot_come = match observed.pod(&name) {
        None => is_bound && is_cordoned == Some(true),
        // One that has a node ends there, or starts. Where a cordon was ended, the scheduler's word may be older than that.
        Some(pod) => pod.node.is_none() && pod.unscheduled.is_some() && is_cordoned != Some(false),
    };
    cannot_come.then_some((name, home))
}

/// Whether it may be a hook's, or a roll's, announcement: the tracker does not say whose one is, and only people
/// announce longer ones. The last minutes of such a long one look the same, and end early as well.
fn is_short(entry: &DatanodeEntry, now: Timestamp) -> bool {
    let until = entry.maintenance_until.as_ref();
    let until = until.and_then(|until| until.parse::<Timestamp>().ok());
    let longest = SHORT_ABSENCE + SKEW;
    until.is_some_and(|until| until.duration_since(now) <= signed(longest))
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// Another cordoned node than `home`, and the first datanode on it that serves.
fn waiting(input: &Input<'_>, open: &OpenTracker, home: &str) -> Option<(String, String)> {
    let observed = input.observed;
    let serves = |pod: &&PodView| {
        let mut members = open.nodes.iter();
        let is_its = |entry: &DatanodeEntry| entry.pod.as_ref() == Some(&pod.name);
        let is_live = |entry: &DatanodeEntry| entry.liveness == Liveness::Live;
        let is_member = members.any(|entry| entry.is_member() && is_its(entry) && is_live(entry));
        pod.ready && !pod.deleting && is_member
    };
    let mut pods = observed.pods_of(Part::Datanode).filter(serves);
    pods.find_map(|pod| {
        let node = pod.node.as_ref().filter(|node| *node != home)?;
        let is_cordoned = observed.nodes.get(node)?.unschedulable;
        is_cordoned.then(|| (node.clone(), pod.name.clone()))
    })
}

impl Way {
    /// For people.
    pub fn sentence(&self) -> String {
        let Self {
            away,
            pod,
            node,
            waits,
            why,
        } = self;
        let why = waits::quote(why);
        format!(
            "datanode {} (pod {pod}) is away and cannot come back, and the drain of {node} waits for {waits} ({why}): \
             its chunks are copied now",
            away.short()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dfs_protocol::datanode::AdminState;

    use super::super::tests::{cluster, entry, observed};
    use super::super::{Plan, decide};
    use super::*;
    use crate::observe::{NodeView, Observed, TrackerView, Verdicts};
    use crate::tracker_client::Verdict;

    const NOW: i64 = 10_000;

    fn after(seconds: i64) -> String {
        Timestamp::from_second(NOW + seconds).unwrap().to_string()
    }

    fn nodes(seen: &mut Observed) -> &mut Vec<DatanodeEntry> {
        match &mut seen.tracker {
            TrackerView::Open(open) => &mut open.nodes,
            _ => panic!("the tracker serves"),
        }
    }

    fn node<'a>(seen: &'a mut Observed, name: &str) -> &'a mut NodeView {
        seen.nodes.get_mut(name).unwrap()
    }

    /// Datanode 0 was drained from `node-0`, which holds its volume; `node-1` with datanode 1 is cordoned as well.
    fn two_drains() -> Observed {
        let mut members: Vec<_> = (0..3)
            .zip(10..)
            .map(|(ordinal, id)| DatanodeEntry {
                volume: Some(format!("volume-{ordinal}")),
                host: Some(format!("node-{ordinal}")),
                zone: Some(format!("z{ordinal}")),
                ..entry(id, ordinal, AdminState::InService)
            })
            .collect();
        members[0].liveness = Liveness::Suspect;
        members[0].maintenance_until = Some(after(280));
        let mut seen = observed(members);
        for (ordinal, claim) in seen.claims.iter_mut().enumerate() {
            claim.node = Some(format!("node-{ordinal}"));
        }
        (seen.pods[0].node, seen.pods[0].ready) = (None, false);
        seen.pods[0].phase = "Pending".into();
        seen.pods[0].unscheduled = Some("no node has its volume".into());
        for name in ["node-0", "node-1"] {
            let cordoned = NodeView {
                name: name.into(),
                unschedulable: true,
                ..seen.nodes["node-0"].clone()
            };
            seen.nodes.insert(name.into(), cordoned);
        }
        seen
    }

    fn planned(seen: &Observed, further: Option<bool>) -> Plan {
        let (spec, waited) = (cluster(3), BTreeMap::new());
        let verdicts = Verdicts {
            further: further.map(|safe| Verdict {
                safe,
                reason: "4 chunks would have too few live replicas".into(),
                ..Verdict::default()
            }),
            ..Verdicts::default()
        };
        decide(&Input {
            cluster: &spec,
            observed: seen,
            verdicts: &verdicts,
            waited: &waited,
            now: Timestamp::from_second(NOW).unwrap(),
        })
    }

    fn ways(change: impl Fn(&mut Observed), further: Option<bool>) -> Vec<Way> {
        let mut seen = two_drains();
        change(&mut seen);
        let steps = planned(&seen, further).steps.into_iter();
        let ways = steps.filter_map(|step| match step {
            Step::MakeWay(way) => Some(way),
            _ => None,
        });
        ways.collect()
    }

    #[test]
    fn a_second_drain_that_waits_ends_the_first_ones_announcement_and_says_why() {
        let ways = ways(|_| {}, Some(false));
        let [way] = &ways[..] else {
            panic!("{ways:?}");
        };
        assert_eq!(way.away, DatanodeId::from_u128(10));
        let sentence = way.sentence();
        for part in [
            "pod a-datanode-0",
            "drain of node-1",
            "waits for a-datanode-1",
            "4 chunks",
        ] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn it_ends_too_where_the_pod_is_not_made_anew_yet_or_the_scheduler_has_no_node_for_it() {
        type Change = fn(&mut Observed);
        let rows: [(&str, Change); 3] = [
            ("no pod", |o| drop(o.pods.remove(0))),
            ("its claim names no node", |o| o.claims[0].node = None),
            ("dead", |o| nodes(o)[0].liveness = Liveness::Dead),
        ];
        for (name, change) in rows {
            assert_eq!(ways(change, Some(false)).len(), 1, "{name}");
        }
    }

    #[test]
    fn nobody_is_given_up_while_no_drain_waits_or_it_may_be_back_in_a_moment() {
        type Change = fn(&mut Observed);
        let rows: [(&str, Change); 14] = [
            ("one node is cordoned", |o| {
                node(o, "node-1").unschedulable = false;
            }),
            ("its pod was made a moment ago", |o| {
                o.pods[0].unscheduled = None;
            }),
            ("its node's cordon was ended a moment ago", |o| {
                node(o, "node-0").unschedulable = false;
            }),
            ("it was on the node that is drained", |o| {
                o.pods[1].node = Some("node-0".into());
            }),
            ("nodes may not be read", |o| {
                o.nodes.clear();
                o.nodes_unreadable = true;
            }),
            ("it restarts", |o| o.pods[0].node = Some("node-0".into())),
            ("it ends", |o| {
                (o.pods[0].node, o.pods[0].deleting) = (Some("node-0".into()), true);
            }),
            ("it is heard", |o| nodes(o)[0].liveness = Liveness::Live),
            ("it was announced no more", |o| {
                nodes(o)[0].maintenance_until = None;
            }),
            ("somebody announced an hour", |o| {
                nodes(o)[0].maintenance_until = Some(after(3600));
            }),
            ("the other one goes already", |o| o.pods[1].deleting = true),
            ("the other one is not ready", |o| o.pods[1].ready = false),
            ("the other one is silent", |o| {
                nodes(o)[1].liveness = Liveness::Suspect;
            }),
            ("the tracker answers nothing", |o| {
                o.tracker = TrackerView::Unreadable("connection refused".into());
            }),
        ];
        for (name, change) in rows {
            assert_eq!(ways(change, Some(false)), [], "{name}");
        }
        assert_eq!(ways(|_| {}, Some(true)), [], "the second may go");
        assert_eq!(ways(|_| {}, None), [], "no verdict");
    }
}
