//! What the hook of a datanode's pod does: it delays a stop that chunks cannot do with, and never more than that.

use std::path::Path;

use dfs_e2e::http::Http;
use dfs_e2e::process::{Process, ProcessSpec, free_ports};
use dfs_e2e::wait::eventually;
use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Verdict;

use crate::fleet::{CHUNK, DEADLINE, Fleet, Options, bytes, seeded};

/// Longer than any test takes.
const UNTIL_SAFE: &str = "1h";

/// Runs the hook before the datanode at `datanode` is told to stop.
fn hook(root: &Path, tracker: &str, datanode: &str, limit: &str) -> Process {
    let args = [
        "datanode-stop",
        "--tracker",
        tracker,
        "--datanode",
        datanode,
    ];
    let args = args.into_iter().chain(["--limit", limit]);
    Process::start(ProcessSpec::dfs("stop", args), root).unwrap()
}

/// Waits until it has ended well; what it said.
async fn ended(hook: &mut Process) -> String {
    let hook = std::sync::Mutex::new(hook);
    let status = eventually("the hook ends", DEADLINE, || async {
        let ended = hook.lock().unwrap().status().unwrap();
        ended.ok_or_else(|| "it runs".to_owned())
    })
    .await;
    let log = hook.into_inner().unwrap().log();
    assert!(status.success(), "{status}: {log}");
    assert!(!log.is_empty(), "it says nothing");
    log
}

async fn id_of(fleet: &Fleet, number: usize) -> DatanodeId {
    let address = fleet.datanodes[number].address();
    let nodes = fleet.store().nodes().await.unwrap();
    nodes
        .iter()
        .find(|node| node.address == address)
        .unwrap()
        .id
}

/// Waits until the tracker does not let it stop.
async fn wait_needed(fleet: &Fleet, id: DatanodeId) {
    let tracker = Http::new(&fleet.tracker.address());
    eventually("it may not stop", DEADLINE, || async {
        let question = serde_json::json!({"datanodes": [id]});
        let answer = tracker.post_json("/ok-to-stop", &question).await;
        let verdict: Verdict = answer.map_err(|error| error.to_string())?.ok().json();
        if verdict.safe {
            Err(verdict.reason)
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_announced_and_waits_until_the_chunks_can_do_without_the_datanode() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::default()).await;
    let store = fleet.store();
    store.put("file", bytes(&mut rng, 2 * CHUNK)).await;
    store.wait_healthy(DEADLINE).await;
    let id = id_of(&fleet, 1).await;
    fleet.datanodes[0].process.kill_9().unwrap();
    wait_needed(&fleet, id).await;
    let (tracker, datanode) = (fleet.tracker.address(), fleet.datanodes[1].address());
    let mut hook = hook(fleet.root.path(), &tracker, &datanode, UNTIL_SAFE);
    eventually("it waits, or has ended", DEADLINE, || async {
        let log = hook.log();
        if log.contains("waits:") || log.contains("may stop") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert_eq!(
        hook.status().unwrap(),
        None,
        "it did not wait: {}",
        hook.log()
    );
    let nodes = store.nodes().await.unwrap();
    let waiting = nodes.iter().find(|node| node.id == id).unwrap();
    assert!(waiting.maintenance_until.is_some(), "{waiting:?}");
    fleet.datanodes[0].process.restart().unwrap();
    assert!(ended(&mut hook).await.contains("may stop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_stops_at_once_one_waits_until_the_other_datanode_is_back() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::default()).await;
    let store = fleet.store();
    store.put("file", bytes(&mut rng, 2 * CHUNK)).await;
    store.wait_healthy(DEADLINE).await;
    let tracker = fleet.tracker.address();
    let mut hooks = [0, 1].map(|number| {
        let datanode = fleet.datanodes[number].address();
        hook(fleet.root.path(), &tracker, &datanode, UNTIL_SAFE)
    });
    let first = {
        let hooks = std::sync::Mutex::new(&mut hooks);
        eventually("one may stop, the other waits", DEADLINE, || async {
            let mut hooks = hooks.lock().unwrap();
            let ended = hooks
                .each_mut()
                .map(|hook| hook.status().unwrap().is_some());
            let waits = hooks.each_ref().map(|hook| hook.log().contains("waits:"));
            match (ended, waits) {
                ([true, false], [_, true]) => Ok(0),
                ([false, true], [true, _]) => Ok(1),
                _ => Err(format!("ended: {ended:?}, waits: {waits:?}")),
            }
        })
        .await
    };
    let [one, two] = &mut hooks;
    let (stops, waits) = if first == 0 { (one, two) } else { (two, one) };
    assert!(ended(stops).await.contains("may stop"));
    fleet.datanodes[first].process.kill_9().unwrap();
    store
        .wait_status("it is missed", DEADLINE, |status| status.datanodes.live < 3)
        .await;
    assert_eq!(waits.status().unwrap(), None, "it waits: {}", waits.log());
    fleet.datanodes[first].process.restart().unwrap();
    assert!(ended(waits).await.contains("may stop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_nobody_can_answer_for_goes_on() {
    let fleet = Fleet::start(Options::default()).await;
    let root = fleet.root.path();
    let (tracker, datanode) = (fleet.tracker.address(), fleet.datanodes[0].address());
    let nobody = format!("127.0.0.1:{}", free_ports(1)[0]);
    let told = ended(&mut hook(root, &nobody, &datanode, UNTIL_SAFE)).await;
    assert!(told.contains("ask for the datanodes"), "{told}");
    let told = ended(&mut hook(root, &tracker, &nobody, UNTIL_SAFE)).await;
    assert!(told.contains("ask the datanode who it is"), "{told}");
    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let told = ended(&mut hook(root, &silent, &datanode, "1s")).await;
    assert!(told.contains("stops without the tracker's word"), "{told}");
    // The datanode of another store.
    let stranger = Fleet::start(Options::default()).await;
    let datanode = stranger.datanodes[0].address();
    let told = ended(&mut hook(root, &tracker, &datanode, UNTIL_SAFE)).await;
    assert!(told.contains("is not known to the tracker"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_the_token_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let token = root.path().join("token");
    std::fs::write(&token, "right\n").unwrap();
    let token = token.display().to_string();
    let fleet = Fleet::launch(Options {
        datanodes: 1,
        tracker: vec!["--token-file".to_owned(), token.clone()],
        datanode_env: vec![("DFS_TOKEN_FILE".to_owned(), token)],
        ..Options::default()
    });
    let (tracker, datanode) = (fleet.tracker.address(), fleet.datanodes[0].address());
    eventually("the token is refused", DEADLINE, || async {
        let told = ended(&mut hook(root.path(), &tracker, &datanode, UNTIL_SAFE)).await;
        if told.to_lowercase().contains("token") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_that_is_decommissioned_stops_whatever_the_chunks_need() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options {
        datanodes: 4,
        ..Options::default()
    })
    .await;
    let store = fleet.store();
    store.put("file", bytes(&mut rng, 2 * CHUNK)).await;
    store.wait_healthy(DEADLINE).await;
    let id = id_of(&fleet, 0).await;
    let tracker = Http::new(&fleet.tracker.address());
    let route = format!("/nodes/{id}/decommission");
    let answer = tracker.post_json(&route, &serde_json::json!({})).await;
    let _begun = answer.unwrap().ok();
    eventually("it is decommissioned", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let node = nodes.iter().find(|node| node.id == id).unwrap();
        let is_done = node.admin == AdminState::Decommissioned;
        is_done.then_some(()).ok_or_else(|| format!("{node:?}"))
    })
    .await;
    for number in [1, 2] {
        fleet.datanodes[number].process.kill_9().unwrap();
    }
    wait_needed(&fleet, id_of(&fleet, 3).await).await;
    let (tracker, datanode) = (fleet.tracker.address(), fleet.datanodes[0].address());
    let told = ended(&mut hook(
        fleet.root.path(),
        &tracker,
        &datanode,
        UNTIL_SAFE,
    ))
    .await;
    assert!(told.contains("is decommissioned"), "{told}");
}
