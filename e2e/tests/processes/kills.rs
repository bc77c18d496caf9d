//! Datanodes are killed and wiped; everything is ended politely.

use dfs_e2e::http::Reply;
use dfs_e2e::wait::eventually;
use http::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::fleet::{CHUNK, DEADLINE, Fleet, Options, bytes, seeded, streamed};

/// An upload that has begun, and waits for the rest of its body.
pub(crate) struct Begun {
    pub(crate) sender: mpsc::Sender<bytes::Bytes>,
    pub(crate) answer: JoinHandle<std::io::Result<Reply>>,
}

/// Begins an upload and waits until a datanode is being written to.
pub(crate) async fn begin(fleet: &Fleet, path: &str, first: bytes::Bytes) -> Begun {
    let (sender, body) = streamed();
    let (door, uri) = (fleet.store().door, format!("/files/{path}"));
    let answer = tokio::spawn(async move { door.send(Method::PUT, &uri, &[], body).await });
    sender.send(first).await.unwrap();
    eventually("an attempt is open", DEADLINE, || async {
        let open: usize = fleet
            .datanodes
            .iter()
            .map(|one| one.files_in("staging"))
            .sum();
        if open >= 3 {
            Ok(())
        } else {
            Err(format!("{open} staged files"))
        }
    })
    .await;
    Begun { sender, answer }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_01_an_idle_datanode_killed_costs_no_read_and_comes_back_with_its_chunks() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::default()).await;
    let store = fleet.store();
    let files: Vec<_> = (0..20)
        .map(|n| (format!("f{n}"), bytes(&mut rng, n * 30_000)))
        .collect();
    for (path, body) in &files {
        store.put(path, body.clone()).await;
    }
    fleet.datanodes[1].process.kill_9().unwrap();
    // Before and after the tracker has noticed.
    for _ in 0..2 {
        for (path, body) in &files {
            assert!(store.get(path).await == *body, "{path}");
        }
        store
            .wait_status("it is missed", DEADLINE, |status| {
                status.datanodes.dead == 1
            })
            .await;
    }
    fleet.datanodes[1].process.restart().unwrap();
    fleet.wait_ready().await;
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i03_fault_02_a_datanode_killed_amid_an_upload_is_replaced_and_leaves_nothing_behind() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::calm(4)).await;
    let store = fleet.store();
    let body = bytes(&mut rng, CHUNK * 6);
    let begun = begin(&fleet, "f", body.slice(..CHUNK / 2)).await;
    let victim = fleet
        .datanodes
        .iter()
        .position(|one| one.files_in("staging") > 0)
        .unwrap();
    fleet.datanodes[victim].process.kill_9().unwrap();
    assert_eq!(store.content("f").await, Ok(None), "un-acked is invisible");
    begun.sender.send(body.slice(CHUNK / 2..)).await.unwrap();
    drop(begun.sender);
    let reply = begun.answer.await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    let stored: dfs_e2e::store::Stored = reply.json();
    eprintln!(
        "the upload went on: {} of {} replicas",
        stored.replica_count, stored.wanted
    );
    assert!(store.get("f").await == body);
    fleet.datanodes[victim].process.restart().unwrap();
    fleet.wait_ready().await;
    // The tracker may not have missed it yet: readiness alone does not say that it is back.
    eventually("what it had begun is gone", DEADLINE, || async {
        match fleet.datanodes[victim].files_in("staging") {
            0 => Ok(()),
            left => Err(format!("{left} staged files")),
        }
    })
    .await;
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i01_i23_fault_03_fault_04_two_of_three_named_datanodes_wiped_lose_nothing() {
    let mut rng = seeded();
    let options = Options {
        datanodes: 5,
        ..Options::default()
    };
    let mut fleet = Fleet::start(options).await;
    let store = fleet.store();
    let mut files = Vec::new();
    for n in 0..12 {
        let body = bytes(&mut rng, n * 60_000);
        let stored = store.put(&format!("f{n}"), body.clone()).await;
        assert_eq!(stored.replica_count, 3);
        files.push((format!("f{n}"), body, stored));
    }
    let (_, _, last) = &files[11];
    for id in &last.replicas[..2] {
        let victim = fleet.number_of(*id).await;
        fleet.datanodes[victim].process.kill_9().unwrap();
        fleet.datanodes[victim].wipe();
    }
    for (path, body, _) in &files {
        assert!(store.get(path).await == *body, "{path}");
    }
    store
        .wait_status("they are missed", DEADLINE, |status| {
            status.datanodes.dead == 2
        })
        .await;
    store.wait_repaired(DEADLINE).await;
    let chunks = store.chunks("f11").await.unwrap();
    for chunk in &chunks.chunks {
        let valid = chunk.replicas.iter();
        let valid = valid.filter(|one| one.state == dfs_protocol::status::ReplicaState::Valid);
        assert_eq!(valid.count(), 3);
    }
    for (path, body, _) in &files {
        assert!(store.get(path).await == *body, "{path}");
    }
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight_and_ends_with_0() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::calm(3)).await;
    let body = bytes(&mut rng, CHUNK * 3);
    fleet.store().put("before", body.clone()).await;
    let begun = begin(&fleet, "amid", body.slice(..CHUNK / 2)).await;
    fleet.tracker.process.terminate().unwrap();
    let store = fleet.store();
    eventually("no new connection is taken", DEADLINE, || async {
        match store.try_get("before").await {
            Err(_) => Ok(()),
            Ok(reply) => Err(reply.status.to_string()),
        }
    })
    .await;
    begun.sender.send(body.slice(CHUNK / 2..)).await.unwrap();
    drop(begun.sender);
    let reply = begun.answer.await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    assert_eq!(fleet.tracker.process.wait(DEADLINE).await.code(), Some(0));
    for datanode in &mut fleet.datanodes {
        datanode.process.terminate().unwrap();
        assert_eq!(datanode.process.wait(DEADLINE).await.code(), Some(0));
    }
    fleet.restart_all();
    fleet.wait_ready().await;
    for path in ["before", "amid"] {
        assert!(fleet.store().get(path).await == body, "{path}");
    }
    fleet.store().wait_fsck_clean(DEADLINE).await;
}
