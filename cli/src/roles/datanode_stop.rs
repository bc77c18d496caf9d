//! `dfs datanode-stop`: runs before a datanode is told to end, as the hook of its pod. Announces it as away, so that
//! nothing is copied meanwhile, and waits until the chunks can do without it. It only ever delays: whatever goes
//! wrong is told, and the stop goes on.

use std::time::Duration;

use dfs_client::HttpClient;
use dfs_client::http::decode;
use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Identity};
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
    session
        .call("announce that the datanode stops", || {
            session.store.maintain(id, Some(AWAY))
        })
        .await?;
    let stopping = [id];
    let mut told = String::new();
    loop {
        let verdict = session
            .call("ask whether the datanode may stop", || {
                session.store.ok_to_stop(&stopping)
            })
            .await?;
        if verdict.safe {
            return Ok(format!(
                "datanode {} may stop: {}",
                id.short(),
                verdict.reason
            ));
        }
        if verdict.reason != told {
            out.note(&format!("datanode-stop: waits: {}", verdict.reason));
            told = verdict.reason;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
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
        let nodes = json!([datanode(0xab, "h:1")]);
        fake.doings().answers = [
            ("/identity", [identity].into()),
            ("/nodes", [nodes].into()),
            ("/ok-to-stop", [verdict(false), verdict(true)].into()),
        ]
        .into();
        let told = stopped(&fake).await;
        assert!(told.contains("waits: 2 chunks"), "{told}");
        let asked = fake.doings().changes.join("\n");
        let expected = format!(
            "GET /identity?\nGET /nodes?\nPOST /nodes/{id}/maintenance?seconds=300\n\
             POST /ok-to-stop?\nPOST /ok-to-stop?"
        );
        assert_eq!(asked, expected, "{told}");
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
