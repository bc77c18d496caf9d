//! How many datanodes' pods may be unavailable at a time: what the API server's eviction gate goes by.
//!
//! The disruption controller lets evictions through while fewer of the StatefulSet's pods than this number
//! are unavailable. So the number is made such that exactly one more may go while the tracker says that any
//! one more may, and none otherwise. Unknown means none.

use dfs_protocol::DatanodeId;

use super::Input;
use crate::names;
use crate::observe::{Observed, OpenTracker, Part, PodView};

/// What the budget of the datanodes' pods says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// `maxUnavailable`.
    pub max_unavailable: i32,
    /// Why no datanode may be evicted now, for people.
    pub held: Option<String>,
}

/// Datanodes that are not served by a ready pod: the tracker is asked whether one more may stop beside
/// these. It may still hear one whose pod is about to end.
pub fn down(observed: &Observed, open: &OpenTracker) -> Vec<DatanodeId> {
    let members = open.nodes.iter().filter(|entry| entry.is_member());
    let served = |pod: &str| observed.pod(pod).is_some_and(|pod| state(pod) == State::Up);
    members
        .filter(|entry| !entry.pod.as_deref().is_some_and(served))
        .map(|entry| entry.id)
        .collect()
}

/// The budget for what is there now. `wanted` pods are what the StatefulSet asks for once this pass applied it.
pub fn budget(input: &Input<'_>, wanted: i32, wrong_cluster: bool) -> Budget {
    let held = |why: String| Budget {
        max_unavailable: 0,
        held: Some(why),
    };
    match &input.verdicts.further {
        _ if wrong_cluster => held("the tracker is not this cluster's".to_owned()),
        None => held("the tracker cannot be asked whether a datanode may stop".to_owned()),
        Some(verdict) if !verdict.safe => held(verdict.reason.clone()),
        Some(_) => Budget {
            max_unavailable: room(input, wanted),
            held: None,
        },
    }
}

/// Room for exactly one more beside those that are down. A pod that is on its way up counts as up, so that
/// room made for it lets nobody else go at the moment when it becomes ready; till then evictions wait.
fn room(input: &Input<'_>, wanted: i32) -> i32 {
    let set = names::datanode_set(&input.cluster.key.name);
    let pods = input.observed.pods_of(Part::Datanode);
    let mine: Vec<_> = pods
        .filter(|pod| names::ordinal(&set, &pod.name).is_some())
        .map(state)
        .collect();
    let count = |wanted| i32::try_from(mine.iter().filter(|one| **one == wanted).count());
    let (up, coming) = (count(State::Up), count(State::Coming));
    let (Ok(up), Ok(coming)) = (up, coming) else {
        return 0;
    };
    // Pods that a set which grows has yet to make come up as well.
    let grows = input.observed.datanode_set.as_ref();
    let grows = grows.is_none_or(|set| set.wanted < wanted);
    let unmade = i32::try_from(mine.len()).map_or(0, |there| wanted.saturating_sub(there));
    let unmade = if grows { unmade.max(0) } else { 0 };
    let above = wanted
        .saturating_add(1)
        .saturating_sub(up)
        .saturating_sub(coming)
        .saturating_sub(unmade);
    above.max(0)
}

/// How many of the tracker's pods may be unavailable: 1, or 0 while it is to leave its node last.
///
/// Without the tracker's word no datanode is evicted. Where its volume is bound to the node it comes back there only,
/// so a drain that took it first would wait for the datanodes beside it until somebody ends the cordon.
pub fn tracker_away(input: &Input<'_>) -> i32 {
    i32::from(!tracker_stays(input.observed, &input.cluster.key.name).unwrap_or(false))
}

/// Whether the tracker is to stay where it is. Nothing where it is nowhere, or its node may not be read or is gone:
/// there is no cordon to go by.
fn tracker_stays(observed: &Observed, cluster: &str) -> Option<bool> {
    let tracker = names::pod(&names::tracker_set(cluster), 0);
    let pod = observed.pod(&tracker)?;
    let node = pod.node.as_ref()?;
    // Whom nobody can ask keeps nobody: elsewhere it may come up.
    if state(pod) == State::Down {
        return Some(false);
    }
    let is_cordoned = observed.nodes.get(node)?.unschedulable;
    let home = |pod: &str| observed.claim(&names::claim(pod))?.node.as_ref();
    // A claim that names no node may be bound to one all the same.
    let is_bound = home(&tracker).is_none_or(|home| home == node);
    // A gateway that takes another's place becomes ready only once the tracker answered it, and the next one beside the
    // tracker is not evicted before that.
    let there = observed.pods.iter().filter(|pod| !pod.has_ended());
    let mut others = there.filter(|pod| pod.part != Part::Tracker);
    let is_shared = others.any(|pod| pod.node.as_ref() == Some(node));
    let set = names::datanode_set(cluster);
    let wanted = observed.datanode_set.as_ref().map_or(0, |set| set.wanted);
    // One that restarts comes back here at any moment, unless the cordon keeps it away.
    let comes = |pod: String| {
        let is_nowhere = observed.pod(&pod).is_none_or(|pod| pod.node.is_none());
        is_nowhere && home(&pod) == Some(node)
    };
    let is_awaited = !is_cordoned && (0..wanted).map(|n| names::pod(&set, n)).any(comes);
    Some(is_bound && (is_shared || is_awaited))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Ready.
    Up,
    /// It has a node and its container starts or runs.
    Coming,
    /// It ends, has no node, or its container does not run.
    Down,
}

fn state(pod: &PodView) -> State {
    if pod.deleting {
        State::Down
    } else if pod.ready {
        State::Up
    } else if pod.node.is_some() && pod.waiting.is_none() && !pod.has_ended() {
        State::Coming
    } else {
        State::Down
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dfs_protocol::datanode::AdminState;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::tests::{claim, cluster, entry, observed, pod, workload};
    use super::*;
    use crate::observe::Verdicts;
    use crate::tracker_client::Verdict;

    fn verdict(safe: bool) -> Verdict {
        Verdict {
            safe,
            reason: "1 chunks would have too few live replicas".into(),
            ..Verdict::default()
        }
    }

    fn judged(seen: &Observed, wanted: i32, further: Option<&Verdict>, wrong: bool) -> Budget {
        let (spec, pending) = (cluster(wanted), BTreeMap::new());
        let verdicts = Verdicts {
            further: further.cloned(),
            ..Verdicts::default()
        };
        let input = Input {
            cluster: &spec,
            observed: seen,
            verdicts: &verdicts,
            waited: &pending,
            now: Timestamp::UNIX_EPOCH,
        };
        budget(&input, wanted, wrong)
    }

    fn seen(pods: Vec<PodView>) -> Observed {
        Observed {
            datanode_set: Some(workload(5)),
            pods,
            ..observed(Vec::new())
        }
    }

    /// A pod in one of the ways in which one can be.
    fn made(ordinal: i32, letter: char) -> PodView {
        let mut view = pod(ordinal);
        view.ready = letter == 'u';
        match letter {
            // Without a node.
            'p' => view.node = None,
            // Ending; the kubelet still says that it is ready.
            'd' => (view.ready, view.deleting) = (true, true),
            // Its containers ended for good.
            'e' => view.phase = "Succeeded".into(),
            // Ends again and again.
            'w' => view.waiting = Some("CrashLoopBackOff".into()),
            // 'u' is up, 'c' is coming up.
            _ => {}
        }
        view
    }

    fn row(letters: &str) -> Observed {
        let letters = letters.chars().filter(|letter| *letter != '-');
        seen(
            (0..)
                .zip(letters)
                .map(|(n, letter)| made(n, letter))
                .collect(),
        )
    }

    #[test]
    fn one_more_than_are_down_may_be_unavailable_and_those_on_their_way_up_are_not_down() {
        for (letters, wanted, most) in [
            ("uuuuu", 5, 1),
            ("uuuup", 5, 2),
            ("uuuud", 5, 2),
            ("uuuuw", 5, 2),
            ("uuuue", 5, 2),
            ("uuupw", 5, 3),
            ("uuuuc", 5, 1),
            ("uuupc", 5, 2),
            // One is missing in a set that is as it is wanted.
            ("uuuu-", 5, 2),
            // The set grows: the newcomer comes up.
            ("uuuuu-", 6, 1),
            // The set was lowered and its last pod is not told yet.
            ("uuuuu", 4, 0),
        ] {
            let budget = judged(&row(letters), wanted, Some(&verdict(true)), false);
            assert_eq!(budget.max_unavailable, most, "{letters} of {wanted}");
            assert_eq!(budget.held, None);
        }
    }

    #[test]
    fn unknown_and_unsafe_hold_everyone_and_say_why() {
        for (further, wrong, words) in [
            (None, false, "cannot be asked"),
            (Some(verdict(false)), false, "too few live replicas"),
            (Some(verdict(true)), true, "not this cluster's"),
        ] {
            let budget = judged(&row("uuuup"), 5, further.as_ref(), wrong);
            assert_eq!(budget.max_unavailable, 0, "{words}");
            assert!(budget.held.unwrap().contains(words));
        }
    }

    /// What the tracker's budget is on `node-0`, where datanode 0 has its volume; the others are elsewhere.
    fn tracker_on(change: impl Fn(&mut Observed)) -> i32 {
        let mut seen = observed(Vec::new());
        let mut tracker = pod(0);
        tracker.name = "a-tracker-0".into();
        tracker.part = Part::Tracker;
        let mut volume = claim(0, "catalog");
        volume.name = "data-a-tracker-0".into();
        seen.pods.push(tracker);
        seen.claims.push(volume);
        for claim in &mut seen.claims {
            let home = usize::from(!claim.name.ends_with('0'));
            claim.node = Some(format!("node-{home}"));
        }
        change(&mut seen);
        let (spec, verdicts, waited) = (cluster(3), Verdicts::default(), BTreeMap::new());
        tracker_away(&Input {
            cluster: &spec,
            observed: &seen,
            verdicts: &verdicts,
            waited: &waited,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    fn cordon(seen: &mut Observed) {
        seen.nodes.get_mut("node-0").unwrap().unschedulable = true;
    }

    #[test]
    fn the_tracker_stays_on_its_node_until_a_cordon_has_rid_it_of_all_others() {
        type Change = fn(&mut Observed);
        let rows: [(&str, Change, i32); 15] = [
            ("a datanode is beside it", |_| {}, 0),
            ("and the node is cordoned", cordon, 0),
            ("the datanode restarts", |o| o.pods[0].node = None, 0),
            ("its pod is being made anew", |o| drop(o.pods.remove(0)), 0),
            (
                "it ends on a cordoned node",
                |o| (cordon(o), o.pods[0].deleting = true).1,
                0,
            ),
            (
                "it left the cordoned node",
                |o| (cordon(o), o.pods[0].node = None).1,
                1,
            ),
            (
                "it moved elsewhere",
                |o| {
                    o.pods[0].node = Some("node-1".into());
                    o.claims[0].node = Some("node-1".into());
                },
                1,
            ),
            (
                "of the cordoned node's pods a gateway is left",
                |o| (cordon(o), o.pods[0].part = Part::Gateway).1,
                0,
            ),
            (
                "it is not wanted any more",
                |o| {
                    o.pods.remove(0);
                    o.datanode_set = Some(workload(0));
                },
                1,
            ),
            (
                "the tracker's volume goes anywhere",
                |o| o.claims[3].node = Some("node-1".into()),
                1,
            ),
            (
                "whether it does is not known",
                |o| o.claims[3].node = None,
                0,
            ),
            ("the tracker is nowhere", |o| o.pods[3].node = None, 1),
            (
                "the tracker does not run, and nobody can ask it",
                |o| {
                    o.pods[3].ready = false;
                    o.pods[3].phase = "Failed".into();
                },
                1,
            ),
            (
                "nodes may not be read",
                |o| (o.nodes.clear(), o.nodes_unreadable = true).1,
                1,
            ),
            (
                "its node is gone",
                |o| {
                    o.nodes.clear();
                    o.gone_nodes.insert("node-0".into());
                },
                1,
            ),
        ];
        for (name, change, away) in rows {
            assert_eq!(tracker_on(change), away, "{name}");
        }
    }

    #[test]
    fn pods_that_ended_do_not_hold_the_tracker_on_its_drained_node() {
        for phase in ["Failed", "Succeeded"] {
            let ended = |pod: &mut PodView| (pod.phase, pod.ready) = (phase.into(), false);
            let gateway = tracker_on(|o| {
                cordon(o);
                o.pods[0].part = Part::Gateway;
                ended(&mut o.pods[0]);
            });
            assert_eq!(gateway, 1, "the record of a gateway: {phase}");
            let tracker = tracker_on(|o| ended(&mut o.pods[3]));
            assert_eq!(tracker, 1, "nobody can ask the tracker: {phase}");
        }
    }

    #[test]
    fn members_without_a_ready_pod_are_down_whatever_the_tracker_hears() {
        let mut nodes: Vec<_> = (0..5)
            .zip(10..)
            .map(|(ordinal, id)| entry(id, ordinal, AdminState::InService))
            .collect();
        nodes[4].pod = None;
        nodes.push(entry(20, 1, AdminState::Pending));
        let mut observed = observed(nodes);
        observed.pods = vec![made(0, 'u'), made(1, 'd'), made(2, 'c')];
        let down = down(&observed, observed.tracker.open().unwrap());
        let expected = [11, 12, 13, 14].map(DatanodeId::from_u128);
        assert_eq!(down, expected);
    }

    proptest! {
        /// As the disruption controller counts: wanted - budget must stay healthy.
        #[test]
        fn at_most_one_is_let_go_now_and_after_any_of_those_on_their_way_came_up(
            letters in "[updcw]{1,8}", wanted in 1..9i32, safe: bool, came in any::<u8>(),
        ) {
            let before = row(&letters);
            let budget = judged(&before, wanted, Some(&verdict(safe)), false).max_unavailable;
            let later: String = (0..).zip(letters.chars()).map(|(n, letter)| {
                if letter == 'c' && came & (1 << n) != 0 { 'u' } else { letter }
            }).collect();
            let healthy = later.chars().filter(|letter| *letter == 'u').count();
            let healthy = i32::try_from(healthy).unwrap();
            let allowed = healthy - (wanted - budget);
            prop_assert!(budget >= 0);
            if !safe {
                prop_assert_eq!(budget, 0);
            } else if budget > 0 {
                prop_assert!(allowed <= 1, "{letters} -> {later}: {allowed}");
            }
            if safe && budget > 0 && !letters.contains('c') && letters.len() >= usize::try_from(wanted).unwrap() {
                prop_assert_eq!(allowed, 1, "nobody may go although it is safe");
            }
        }
    }
}
