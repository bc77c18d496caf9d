//! The admin doors where they succeed, against real datanodes.

use std::time::Duration;

use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options};
use dfs_e2e::http::Http;
use dfs_e2e::wait::eventually;
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::status::{DatanodeStatus, Verdict};
use serde_json::Value;

use crate::site::assert_problem;

const DEADLINE: Duration = Duration::from_secs(90);

fn options(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| config.heartbeat_interval = CALM_HEARTS,
        ..Options::default()
    }
}

async fn post(door: &Http, uri: &str) -> dfs_e2e::http::Reply {
    let body = dfs_client::http::empty();
    door.send(http::Method::POST, uri, &[], body).await.unwrap()
}

async fn trash(door: &Http) -> Vec<Value> {
    let page: Value = door.get("/trash").await.unwrap().ok().json();
    page["entries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trash_lists_restores_and_purges() {
    let mut cluster = Cluster::start(options(3)).await;
    let (store, door) = (cluster.store(), cluster.store().door);
    let bytes = cluster.bytes(300_000);
    store.put("d/a", bytes.clone()).await;
    store.delete("d/a").await;
    store.put("b", "first").await;
    store.put("b", "second").await;
    let entries = trash(&door).await;
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry["file"]["path"].as_str().unwrap(),
                entry["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [("d/a", "deleted"), ("b", "replaced")],
        "oldest first"
    );
    // Page by page it is the same.
    let first: Value = door.get("/trash?limit=1").await.unwrap().ok().json();
    let cursor = first["cursor"].as_str().unwrap();
    let second: Value = door
        .get(&format!("/trash?limit=1&cursor={cursor}"))
        .await
        .unwrap()
        .ok()
        .json();
    assert_eq!(second["entries"][0], entries[1]);
    let id = |n: usize| entries[n]["id"].as_str().unwrap().to_owned();
    let restored: Value = post(&door, &format!("/trash/{}/restore", id(0)))
        .await
        .ok()
        .json();
    assert_eq!(restored["path"], "d/a");
    assert!(store.get("d/a").await == bytes);
    // Where something lives meanwhile, another place must be named.
    let taken = post(&door, &format!("/trash/{}/restore", id(1))).await;
    assert_problem(&taken, 409, "conflict", "a path that is taken");
    let _ = post(&door, &format!("/trash/{}/restore?to=b-first", id(1)))
        .await
        .ok();
    assert_eq!(store.get("b-first").await, "first");
    assert_eq!(store.get("b").await, "second");
    assert!(trash(&door).await.is_empty());
    store.delete("b-first").await;
    let entry = trash(&door).await.remove(0);
    let uri = format!("/trash/{}", entry["id"].as_str().unwrap());
    assert_eq!(door.delete(&uri).await.unwrap().status, 204);
    assert_problem(
        &door.delete(&uri).await.unwrap(),
        404,
        "not-found",
        "purged twice",
    );
    let gone = post(&door, &format!("{uri}/restore")).await;
    assert_problem(&gone, 404, "not-found", "purged");
    assert!(trash(&door).await.is_empty());
    assert_eq!(store.list("").await, ["b", "d/a"]);
    store.wait_fsck_clean(DEADLINE).await;
}

async fn verdict(door: &Http, id: &str) -> Verdict {
    let reply = door.get(&format!("/nodes/{id}/safe-to-remove")).await;
    reply.unwrap().ok().json()
}

async fn ok_to_stop(door: &Http, ids: &[&str]) -> Verdict {
    let body = serde_json::json!({ "datanodes": ids });
    door.post_json("/ok-to-stop", &body)
        .await
        .unwrap()
        .ok()
        .json()
}

async fn wait_admin(door: &Http, id: &str, wanted: AdminState) -> DatanodeStatus {
    eventually("the admin state", DEADLINE, || async {
        let nodes: Vec<DatanodeStatus> = door
            .get("/nodes")
            .await
            .map_err(|error| error.to_string())?
            .json();
        let node = nodes
            .into_iter()
            .find(|node| node.id.to_string() == id)
            .ok_or("it is not listed")?;
        if node.admin == wanted {
            Ok(node)
        } else {
            Err(format!("{node:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datanode_is_emptied_taken_back_and_deregistered() {
    let options = Options {
        gateway: |config| config.pool_max_age = Duration::from_secs(1),
        ..options(4)
    };
    let mut cluster = Cluster::start(options).await;
    let (store, door) = (cluster.store(), cluster.store().door);
    let bytes = cluster.bytes(400_000);
    let stored = store.put("f", bytes.clone()).await;
    let leaving = stored.replicas[0].to_string();
    let nodes = store.nodes().await.unwrap();
    assert_eq!(nodes.len(), 4);
    for node in &nodes {
        assert_eq!(
            (node.liveness, node.admin),
            (Liveness::Live, AdminState::InService)
        );
        assert!(
            node.last_heartbeat.is_some()
                && node.stats.capacity_bytes > 0
                && !node.address.is_empty()
        );
    }
    let before = verdict(&door, &leaving).await;
    assert!(
        !before.safe && before.chunk_count > 0 && !before.chunks.is_empty(),
        "{before:?}"
    );
    // Placements that nobody has used yet count until their lease is over.
    eventually("it may stop", DEADLINE, || async {
        let verdict = ok_to_stop(&door, &[&leaving]).await;
        if verdict.safe {
            Ok(())
        } else {
            Err(verdict.reason)
        }
    })
    .await;
    let all: Vec<_> = nodes.iter().map(|node| node.id.to_string()).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let never = ok_to_stop(&door, &all).await;
    assert!(!never.safe && never.chunk_count > 0, "{never:?}");
    assert!(ok_to_stop(&door, &[]).await.safe);
    // Not before it is empty.
    let early = door.delete(&format!("/nodes/{leaving}")).await.unwrap();
    assert_problem(&early, 409, "conflict", "deregistered while in service");

    let reply = post(&door, &format!("/nodes/{leaving}/decommission"))
        .await
        .ok();
    assert_ne!(reply.json::<DatanodeStatus>().admin, AdminState::InService);
    wait_admin(&door, &leaving, AdminState::Decommissioned).await;
    eventually("it may go", DEADLINE, || async {
        let verdict = verdict(&door, &leaving).await;
        if verdict.safe {
            Ok(())
        } else {
            Err(verdict.reason)
        }
    })
    .await;
    assert!(store.get("f").await == bytes);
    let _ = post(&door, &format!("/nodes/{leaving}/recommission"))
        .await
        .ok();
    wait_admin(&door, &leaving, AdminState::InService).await;
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;

    let _ = post(&door, &format!("/nodes/{leaving}/decommission"))
        .await
        .ok();
    wait_admin(&door, &leaving, AdminState::Decommissioned).await;
    let number = cluster.number_of(leaving.parse().unwrap()).await;
    cluster.kill_datanode(number).await;
    let _ = door
        .delete(&format!("/nodes/{leaving}"))
        .await
        .unwrap()
        .ok();
    assert!(store.get("f").await == bytes);
    let back = post(&door, &format!("/nodes/{leaving}/recommission")).await;
    assert_problem(&back, 409, "conflict", "recommissioned after the end");
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fsck_and_chunks_tell_the_truth_line_by_line() {
    let cluster = Cluster::start(options(3)).await;
    let (store, door) = (cluster.store(), cluster.store().door);
    for n in 0..30 {
        store.put(&format!("f{n}"), "x").await;
    }
    store.wait_fsck_clean(DEADLINE).await;
    let reply = door.get("/fsck").await.unwrap().ok();
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let text = reply.text();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["clean"]),
        (&"verdict".into(), &true.into())
    );
    assert_eq!((&last["files"], &last["chunks"]), (&30.into(), &30.into()));
    let chunks = store.chunks("f7").await.unwrap();
    assert_eq!((chunks.size, chunks.factor, chunks.chunks.len()), (1, 3, 1));
    assert_eq!(chunks.chunks[0].replicas.len(), 3);
    assert_eq!(
        post(&door, "/repair/acknowledge-partition").await.status,
        204
    );
    let status = store.wait_healthy(DEADLINE).await;
    assert_eq!(status.files, 30);
    // A second registration by hand is harmless, wherever the caller's datanode listens.
    let port = cluster.datanodes[0].address.port();
    let known: Value = door
        .get(&format!("/register?port={port}"))
        .await
        .unwrap()
        .ok()
        .json();
    assert_eq!(
        (&known["announced"], &known["already_known"]),
        (&true.into(), &true.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_of_a_running_store_names_its_own_routes_too() {
    let cluster = Cluster::start(options(3)).await;
    let document: Value = cluster
        .store()
        .door
        .get("/openapi.json")
        .await
        .unwrap()
        .ok()
        .json();
    for (path, method) in [
        ("/register", "get"),
        ("/register", "post"),
        ("/files/{path}", "put"),
        ("/nodes", "get"),
    ] {
        assert!(
            document["paths"][path][method].is_object(),
            "{method} {path}"
        );
    }
    let paths = document["paths"].as_object().unwrap();
    assert!(!paths.keys().any(|path| path.starts_with("/internal")));
}
