//! Who is in: the cluster token, admission by an administrator, refusals, lost volumes, and a tracker
//! whose catalog is gone. Whole clusters in the test's process.
#![allow(clippy::unwrap_used, clippy::panic)]
// Metrics are counted in whole steps, so they compare exactly; a scenario reads best in one piece.
#![allow(clippy::float_cmp, clippy::too_many_lines)]

mod lost;
mod members;
mod token;

use std::time::Duration;

use dfs_client::http::empty;
use dfs_e2e::cluster::{Cluster, Options};
use dfs_e2e::http::{Http, Reply};
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::DatanodeId;
use dfs_protocol::admission::{Refusal, RefusalReason};
use dfs_protocol::datanode::{AdminState, Identity, Liveness};
use dfs_protocol::status::DatanodeStatus;
use dfs_runtime::token::Tokens;
use dfs_tracker::AdmissionPolicy;
use http::Method;
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "the-token-of-this-cluster";
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
pub(crate) const CHUNK: u64 = 256 * 1024;

pub(crate) fn tokens() -> Tokens {
    Tokens::fixed(TOKEN).unwrap()
}

pub(crate) fn guarded(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.tokens = tokens();
        },
        datanode: |config| config.tokens = tokens(),
        ..Options::default()
    }
}

pub(crate) fn by_operator(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.tokens = tokens();
            config.admission = AdmissionPolicy::Operator;
        },
        datanode: |config| {
            config.tokens = tokens();
            let name = config.dir.file_name().unwrap().to_string_lossy();
            config.pod = Some(format!("pod-of-{name}"));
        },
        ..Options::default()
    }
}

/// The store, with the token.
pub(crate) fn store(cluster: &Cluster) -> Store {
    let open = cluster.store();
    Store {
        door: open.door.with_token(TOKEN),
    }
}

pub(crate) async fn post(store: &Store, path: &str, body: &Value) -> Reply {
    store.door.post_json(path, body).await.unwrap()
}

pub(crate) fn claim(number: usize, volume: &str) -> Value {
    json!({
        "pod": format!("pod-of-datanode-{number}"), "volume": volume,
        "host": format!("machine-{number}"), "zone": null,
    })
}

pub(crate) async fn identity(cluster: &Cluster, number: usize) -> Identity {
    let door = Http::new(&cluster.datanodes[number].address).with_token(TOKEN);
    door.get("/identity").await.unwrap().ok().json()
}

pub(crate) async fn node(store: &Store, id: DatanodeId) -> Option<DatanodeStatus> {
    let nodes = store.nodes().await.unwrap();
    nodes.into_iter().find(|node| node.id == id)
}

/// Waits until a datanode waits, and gives its id.
pub(crate) async fn waits(cluster: &Cluster, number: usize) -> DatanodeId {
    let store = store(cluster);
    let address = cluster.datanodes[number].address.to_string();
    eventually("the datanode is pending", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let is_it =
            |node: &&DatanodeStatus| node.address == address && node.admin == AdminState::Pending;
        nodes
            .iter()
            .find(is_it)
            .map(|node| node.id)
            .ok_or_else(|| format!("{nodes:?}"))
    })
    .await
}

pub(crate) async fn admit(cluster: &Cluster, number: usize) -> DatanodeId {
    let id = waits(cluster, number).await;
    let path = format!("/nodes/{id}/admit");
    let body = claim(number, &format!("volume-{number}"));
    let admitted: DatanodeStatus = post(&store(cluster), &path, &body).await.ok().json();
    assert_eq!(admitted.admin, AdminState::InService);
    assert_eq!(admitted.volume, Some(format!("volume-{number}")));
    assert_eq!(admitted.host, Some(format!("machine-{number}")));
    id
}

pub(crate) async fn dead(store: &Store, id: DatanodeId) {
    eventually("the datanode is dead", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let found = nodes.iter().find(|node| node.id == id).unwrap();
        let is_dead = found.liveness == Liveness::Dead;
        is_dead.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
}

pub(crate) async fn refusals(store: &Store) -> Vec<Refusal> {
    store.door.get("/refusals").await.unwrap().ok().json()
}

pub(crate) async fn refused_for(store: &Store, reason: RefusalReason) -> Option<Refusal> {
    let all = refusals(store).await;
    all.into_iter().rev().find(|line| line.reason == reason)
}

pub(crate) async fn ask(door: &Http, method: &str, path: &str, token: Option<&str>) -> Reply {
    let mut door = door.clone();
    door.token = token.map(str::to_owned);
    let method: Method = method.parse().unwrap();
    door.send(method, path, &[], empty()).await.unwrap()
}

/// 401 without a token and with a wrong one, and says what to do.
pub(crate) async fn is_closed(door: &Http, method: &str, path: &str) {
    for token in [None, Some("a-wrong-token"), Some("")] {
        let reply = ask(door, method, path, token).await;
        assert_eq!(
            reply.status,
            401,
            "{method} {path} {token:?}: {}",
            reply.text()
        );
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
        if method != "HEAD" {
            let problem: Value = reply.json();
            assert_eq!(problem["type"], "urn:dfs:problem:unauthorized");
            assert!(problem["next"].as_str().unwrap().contains("--token-file"));
        }
    }
}
