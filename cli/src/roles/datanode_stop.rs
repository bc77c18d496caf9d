//! `dfs datanode-stop`: runs before a datanode is told to end, as the hook of its pod. Announces it as away, so that
//! nothing is copied meanwhile, and waits until the chunks can do without it. It only ever delays: whatever goes
//! wrong is told, and the stop goes on.
//!
//! Hooks that run at once share nothing but what the tracker tells. Each announces its datanode, then looks who
//! else is announced, then asks for all of these together: of two, at least one sees the other, so that no two
//! hear yes that the chunks cannot do without. Where the answer is no, all but the one with the lowest uuid take
//! their announcements back until it is yes.

use std::time::Duration;

use dfs_client::HttpClient;
use dfs_client::http::decode;
use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Identity, Liveness};
use dfs_protocol::routes::datanode::IDENTITY;
use dfs_protocol::status::DatanodeStatus;
use dfs_runtime::net::SharedConnector;
use http::Method;

use crate::args::DatanodeStopArgs;
use crate::exit::Failure;
use crate::output::Output;
use crate::session::Session;
use crate::tokens;

/// For how long it is announced as away: a pod that restarts is back by then.
const AWAY: Duration = Duration::from_mins(5);
/// A datanode on this machine that takes longer to say who it is hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Between two questions whether it may stop.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until the datanode may stop, at most for the limit. Never fails: see the module.
pub async fn run_datanode_stop(args: &DatanodeStopArgs, connector: SharedConnector, out: &Output) {
    let end = tokio::time::timeout(args.limit, until_safe(args, connector, out)).await;
    match end {
        Ok(Ok(told)) => out.note(&format!("datanode-stop: {told}")),
        Ok(Err(failure)) => out.failure(&failure),
        Err(_) => out.note(&format!(
            "datanode-stop: the datanode stops without the tracker's word: none came within {} s",
            args.limit.as_secs()
        )),
    }
}

/// Returns why there is nothing more to wait for.
async fn until_safe(
    args: &DatanodeStopArgs,
    connector: SharedConnector,
    out: &Output,
) -> Result<String, Failure> {
    let tokens = tokens::of_client(&args.client).await?;
    let http = HttpClient::new(connector.clone()).with_tokens(tokens.clone());
    let id = who(&http, args.datanode.as_str()).await?;
    let session = Session::new(&args.client, connector, out.clone()).with_tokens(tokens);
    let nodes = session
        .call("ask for the datanodes", || session.store.nodes())
        .await?;
    if let Some(why) = needs_no_word(id, &nodes) {
        return Ok(why);
    }
    announce(&session, id, Some(AWAY)).await?;
    let mut told = String::new();
    loop {
        let nodes = session
            .call("ask who else stops", || session.store.nodes())
            .await?;
        let others = others(id, &nodes);
        let stopping: Vec<DatanodeId> = others.iter().copied().chain([id]).collect();
        let verdict = session
            .call("ask whether the datanode may stop", || {
                session.store.ok_to_stop(&stopping)
            })
            .await?;
        let announced = is_announced(id, &nodes);
        match next_step(id, announced, &others, verdict.safe) {
            Step::Stop => {
                let (short, reason) = (id.short(), verdict.reason);
                return Ok(format!("datanode {short} may stop: {reason}"));
            }
            Step::Announce => announce(&session, id, Some(AWAY)).await?,
            // Also what a human announced for longer: two that stand fast would both wait in vain.
            Step::TakeBack => announce(&session, id, None).await?,
            Step::Wait => {}
        }
        if verdict.reason != told && !verdict.safe {
            out.note(&format!("datanode-stop: waits: {}", verdict.reason));
            told = verdict.reason;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Announces the datanode as away, or takes that back.
async fn announce(
    session: &Session,
    id: DatanodeId,
    away: Option<Duration>,
) -> Result<(), Failure> {
    session
        .call("announce that the datanode stops", || {
            session.store.maintain(id, away)
        })
        .await
}

/// What a hook does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The datanode may stop.
    Stop,
    /// Its announcement is to be made, again where it was taken back or forgotten.
    Announce,
    /// It gives way: as long as it is announced, the one before it may not stop.
    TakeBack,
    /// Nothing but to ask again.
    Wait,
}

/// `announced` and `others` as the tracker told them before it was asked; `safe`: whether they may stop with it.
fn next_step(id: DatanodeId, announced: bool, others: &[DatanodeId], safe: bool) -> Step {
    let is_first = others.iter().all(|other| id < *other);
    match (safe, announced) {
        (true, true) => Step::Stop,
        // A yes without an announcement is none: another may hear it as well.
        (true, false) => Step::Announce,
        (false, false) if is_first => Step::Announce,
        (false, true) if !is_first => Step::TakeBack,
        (false, true | false) => Step::Wait,
    }
}

/// Others that are announced and still heard: those that are gone already count in no answer.
fn others(id: DatanodeId, nodes: &[DatanodeStatus]) -> Vec<DatanodeId> {
    let stopping = nodes.iter().filter(|node| {
        node.id != id && node.maintenance_until.is_some() && node.liveness == Liveness::Live
    });
    stopping.map(|node| node.id).collect()
}

fn is_announced(id: DatanodeId, nodes: &[DatanodeStatus]) -> bool {
    let own = nodes.iter().find(|node| node.id == id);
    own.is_some_and(|node| node.maintenance_until.is_some())
}

/// The uuid on the volume of the datanode there.
async fn who(http: &HttpClient, address: &str) -> Result<DatanodeId, Failure> {
    let answer = http
        .fetch(Method::GET, address, IDENTITY, &[], ANSWERS_WITHIN)
        .await;
    let identity = answer.and_then(|bytes| decode::<Identity>(address, &bytes));
    identity
        .map(|identity| identity.datanode)
        .map_err(|error| Failure::request("ask the datanode who it is", &error))
}

/// Why a datanode may stop whatever the chunks need: it serves none, or the tracker does not know it.
fn needs_no_word(id: DatanodeId, nodes: &[DatanodeStatus]) -> Option<String> {
    let short = id.short();
    let state = match nodes
        .iter()
        .find(|node| node.id == id)
        .map(|node| node.admin)
    {
        Some(AdminState::InService | AdminState::Decommissioning) => return None,
        Some(AdminState::Pending) => "is not admitted",
        Some(AdminState::Decommissioned) => "is decommissioned",
        Some(AdminState::Tombstoned) => "is deregistered",
        None => "is not known to the tracker",
    };
    Some(format!("datanode {short} {state}: nothing waits for it"))
}

#[cfg(test)]
mod tests {
    use dfs_runtime::net::TcpConnector;
    use serde_json::json;

    use super::*;
    use crate::args::{Command, parse};
    use crate::testing::{Captured, datanode};
    use crate::verbs::tests::fake::Fake;

    /// Runs the hook where tracker and datanode are both behind `fake`; what it said.
    async fn stopped(fake: &Fake) -> String {
        let there = format!("http://{}", fake.address);
        let line = format!("dfs datanode-stop --tracker {there} --datanode {there} --limit 1h");
        let words = line.split(' ').map(std::ffi::OsString::from).collect();
        let Command::DatanodeStop(args) = parse(words).unwrap().command else {
            unreachable!()
        };
        let captured = Captured::default();
        run_datanode_stop(&args, TcpConnector::shared(), &captured.output()).await;
        captured.stderr()
    }

    #[tokio::test]
    async fn a_stop_is_announced_and_waits_until_the_tracker_says_that_it_is_safe() {
        let fake = Fake::start().await;
        let id = DatanodeId::from_u128(0xab);
        let verdict = |safe: bool| json!({"safe": safe, "reason": "2 chunks", "chunks": [], "chunk_count": 0});
        let identity = json!({"cluster": null, "datanode": id,
            "instance": 1,
            "fence": {"epoch": 1, "incarnation": 1}, "tracker": "t:6000", "version": "1"});
        let nodes = |announced| json!([node(0xab, announced)]);
        fake.doings().answers = [
            ("/identity", [identity].into()),
            ("/nodes", [nodes(false), nodes(true)].into()),
            ("/ok-to-stop", [verdict(false), verdict(true)].into()),
        ]
        .into();
        let told = stopped(&fake).await;
        assert!(told.contains("waits: 2 chunks"), "{told}");
        let asked = fake.doings().changes.join("\n");
        let expected = format!(
            "GET /identity?\nGET /nodes?\nPOST /nodes/{id}/maintenance?seconds=300\n\
             GET /nodes?\nPOST /ok-to-stop?\nGET /nodes?\nPOST /ok-to-stop?"
        );
        assert_eq!(asked, expected, "{told}");
    }

    fn node(id: u128, announced: bool) -> DatanodeStatus {
        DatanodeStatus {
            maintenance_until: announced.then(|| "2026-05-04T03:02:01Z".parse().unwrap()),
            ..datanode(id, "h:1")
        }
    }

    #[test]
    fn a_hook_stops_on_a_yes_that_holds_for_everybody_announced_and_gives_way_to_a_lower_uuid() {
        let id = DatanodeId::from_u128;
        let (none, lower, higher, both) = (vec![], vec![id(1)], vec![id(9)], vec![id(9), id(1)]);
        for (announced, others, safe, step) in [
            (true, &none, true, Step::Stop),
            (true, &both, true, Step::Stop),
            (true, &none, false, Step::Wait),
            (true, &higher, false, Step::Wait),
            (true, &lower, false, Step::TakeBack),
            (true, &both, false, Step::TakeBack),
            // What was taken back, or what a tracker forgot that started again.
            (false, &none, true, Step::Announce),
            (false, &lower, true, Step::Announce),
            (false, &none, false, Step::Announce),
            (false, &higher, false, Step::Announce),
            (false, &lower, false, Step::Wait),
            (false, &both, false, Step::Wait),
        ] {
            let next = next_step(id(5), announced, others, safe);
            assert_eq!(next, step, "{announced} {others:?} {safe}");
        }
    }

    #[test]
    fn asked_for_together_are_those_that_are_announced_and_heard() {
        let silent = DatanodeStatus {
            liveness: Liveness::Suspect,
            ..node(3, true)
        };
        let nodes = [
            node(1, true),
            node(2, false),
            silent,
            node(4, true),
            node(5, true),
        ];
        let expected = [1, 4].map(DatanodeId::from_u128);
        assert_eq!(others(DatanodeId::from_u128(5), &nodes), expected);
    }

    /// A tracker with some datanodes, of which the chunks can do without one.
    #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct World {
        announced: Vec<bool>,
        hooks: Vec<Hook>,
    }

    /// How far a hook is: its two looks at the tracker are not one.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
    enum Hook {
        /// It announces next.
        #[default]
        Begins,
        /// It looks who else is announced next.
        Looks,
        /// It asks next; bits of those it asks for besides itself, and whether it is announced.
        Asks(u8, bool),
        /// It decides next, on this answer.
        Decides(u8, bool, bool),
        Stopped,
        Back,
    }

    impl World {
        fn of(hooks: usize) -> Self {
            Self {
                announced: vec![false; hooks],
                hooks: vec![Hook::default(); hooks],
            }
        }

        fn stopped(&self) -> usize {
            self.hooks
                .iter()
                .filter(|hook| **hook == Hook::Stopped)
                .count()
        }

        /// The world after hook `at` did one thing.
        fn step(&self, at: usize) -> Self {
            let mut next = self.clone();
            next.hooks[at] = match self.hooks[at] {
                Hook::Begins => {
                    next.announced[at] = true;
                    Hook::Looks
                }
                Hook::Looks => {
                    let others = (0..self.hooks.len()).filter(|other| *other != at);
                    let seen = others.filter(|other| self.announced[*other]);
                    Hook::Asks(
                        seen.fold(0, |bits, other| bits | 1 << other),
                        self.announced[at],
                    )
                }
                // Those that stopped a moment ago are still taken for live.
                Hook::Asks(others, announced) => Hook::Decides(others, announced, others == 0),
                Hook::Decides(others, announced, safe) => {
                    let id = |number: usize| DatanodeId::from_u128(number as u128);
                    let all = 0..self.hooks.len();
                    let others: Vec<_> = all
                        .filter(|other| others >> other & 1 == 1)
                        .map(id)
                        .collect();
                    match next_step(id(at), announced, &others, safe) {
                        Step::Stop => Hook::Stopped,
                        Step::Announce => Hook::Begins,
                        Step::TakeBack => {
                            next.announced[at] = false;
                            Hook::Looks
                        }
                        Step::Wait => Hook::Looks,
                    }
                }
                // A new run of the process ends the announcement.
                Hook::Stopped => {
                    next.announced[at] = false;
                    Hook::Back
                }
                Hook::Back => Hook::Back,
            };
            next
        }
    }

    #[test]
    fn i29_however_hooks_take_turns_no_two_datanodes_are_away_and_each_gets_its_turn() {
        let mut seen = std::collections::BTreeSet::new();
        let mut open = vec![World::of(3)];
        while let Some(world) = open.pop() {
            assert!(world.stopped() <= 1, "{world:?}");
            if seen.insert(world.clone()) {
                open.extend((0..3).map(|at| world.step(at)));
            }
        }
        // From wherever they are: turn by turn, not at any one order's mercy.
        for world in seen {
            let mut now = world.clone();
            for turn in 0..200 {
                now = now.step(turn / 5 % 3);
            }
            let all_were = now.hooks.iter().all(|hook| *hook == Hook::Back);
            assert!(all_were, "{world:?} ends as {now:?}");
        }
    }

    #[test]
    fn only_a_datanode_that_serves_waits_for_the_trackers_word() {
        let id = DatanodeId::from_u128(1);
        for (admin, waits) in [
            (AdminState::InService, true),
            (AdminState::Decommissioning, true),
            (AdminState::Pending, false),
            (AdminState::Decommissioned, false),
            (AdminState::Tombstoned, false),
        ] {
            let mut node = datanode(1, "h:1");
            node.admin = admin;
            assert_eq!(needs_no_word(id, &[node]).is_none(), waits, "{admin:?}");
        }
        assert!(needs_no_word(id, &[datanode(2, "h:2")]).is_some());
    }
}
