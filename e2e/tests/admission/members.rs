//! Who is let in, by an administrator.

use std::time::Duration;

use dfs_client::http::whole;
use dfs_e2e::cluster::Cluster;
use dfs_e2e::http::Http;
use dfs_e2e::wait::eventually;
use dfs_protocol::admission::RefusalReason;
use dfs_protocol::datanode::{AdminState, DatanodeStats, Liveness, RegisterRequest};
use dfs_protocol::status::{ClusterStatus, DatanodeStatus};
use dfs_protocol::{ClusterId, DatanodeId, Fence, InstanceId};
use http::Method;
use serde_json::{Value, json};

use crate::{
    DEADLINE, TOKEN, admit, by_operator, claim, dead, identity, node, post, refused_for, store,
    waits,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_datanode_takes_part_in_nothing_until_it_is_admitted() {
    let mut cluster = Cluster::launch(by_operator(3)).await;
    let guarded = store(&cluster);
    for number in 0..3 {
        let id = waits(&cluster, number).await;
        let seen = node(&guarded, id).await.unwrap();
        assert_eq!(seen.pod, Some(format!("pod-of-datanode-{number}")));
        assert_eq!(seen.volume, None);
        assert_ne!(seen.liveness, Liveness::Dead);
    }
    let status = guarded.status().await.unwrap();
    assert_eq!(
        (status.datanodes.pending, status.datanodes.registered),
        (3, 0)
    );
    assert_eq!(
        (status.datanodes.placeable, status.capacity.total_bytes),
        (0, 0)
    );
    assert!(status.writes_refused.is_some() && status.journal.datanodes.is_empty());
    assert_eq!(
        guarded.try_put("early", vec![1; 10]).await.unwrap().status,
        503
    );
    let peer = Http::new(&cluster.datanodes[0].address).with_token(TOKEN);
    let reply = peer
        .send(
            Method::POST,
            "/upload-chunk?id=0&version=1",
            &[],
            whole("x"),
        )
        .await;
    assert!(
        !reply.unwrap().status.is_success(),
        "a pending datanode takes no chunk"
    );
    for number in 0..3 {
        admit(&cluster, number).await;
    }
    guarded.wait_ready(3, DEADLINE).await;
    let bytes = cluster.bytes(400_000);
    guarded.put("a", bytes.clone()).await;
    guarded.wait_repaired(DEADLINE).await;
    // A fourth waits: it gets nothing and serves nothing, also when it is the only one that could.
    let fourth = cluster.add_datanode().await;
    let newcomer = waits(&cluster, fourth).await;
    let gone = identity(&cluster, 0).await.datanode;
    cluster.kill_datanode(0).await;
    dead(&guarded, gone).await;
    for number in 0..5 {
        let stored = guarded.put(&format!("b{number}"), vec![7; 1000]).await;
        assert_eq!(stored.replica_count, 2);
        assert!(!stored.replicas.contains(&newcomer));
    }
    // A machine that stalls may look like a partition for a while: only what is not held says something.
    let free = |status: &ClusterStatus| status.repair_held.is_none() && status.safe_mode.is_none();
    guarded
        .wait_status("repair may begin", DEADLINE, free)
        .await;
    // Longer than the repair delay of these clusters.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = guarded.status().await.unwrap();
    assert_eq!(
        (status.datanodes.registered, status.datanodes.pending),
        (3, 1)
    );
    assert_eq!(node(&guarded, newcomer).await.unwrap().stats.chunks, 0);
    // A tracker that restarts knows who is in, and hears again who waits.
    cluster.kill_tracker().await;
    cluster.start_tracker().await;
    waits(&cluster, fourth).await;
    admit(&cluster, fourth).await;
    guarded.wait_repaired(DEADLINE).await;
    assert!(node(&guarded, newcomer).await.unwrap().stats.chunks > 0);
    // One that was admitted comes back by itself, wherever it lives now.
    cluster.start_datanode_elsewhere(0).await;
    guarded.wait_ready(4, DEADLINE).await;
    let back = node(&guarded, gone).await.unwrap();
    assert_eq!(back.address, cluster.datanodes[0].address.to_string());
    assert_eq!(back.volume.as_deref(), Some("volume-0"));
    guarded.wait_fsck_clean(DEADLINE).await;
    assert!(guarded.get("a").await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_datanode_hears_why_and_may_be_admitted_later() {
    let mut cluster = Cluster::launch(by_operator(1)).await;
    let guarded = store(&cluster);
    let id = waits(&cluster, 0).await;
    let refused = json!({"reason": "no pod of this cluster"});
    let path = format!("/nodes/{id}/refuse");
    let seen: DatanodeStatus = post(&guarded, &path, &refused).await.ok().json();
    assert_eq!(seen.refused.as_deref(), Some("no pod of this cluster"));
    eventually("it was told", DEADLINE, || async {
        let told = refused_for(&guarded, RefusalReason::Refused).await;
        told.filter(|line| line.datanode == Some(id))
            .ok_or_else(String::new)
    })
    .await;
    let stranger = format!("/nodes/{}/refuse", "1".repeat(32));
    assert_eq!(post(&guarded, &stranger, &refused).await.status, 404);
    admit(&cluster, 0).await;
    assert_eq!(post(&guarded, &path, &refused).await.status, 409);
    // It asks seldom by now; a restart asks at once.
    cluster.kill_datanode(0).await;
    cluster.start_datanode(0).await;
    eventually("it is in", DEADLINE, || async {
        let seen = node(&guarded, id).await.unwrap();
        let is_in = seen.liveness == Liveness::Live && seen.admin == AdminState::InService;
        assert_eq!(seen.refused, None);
        is_in.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;
}

fn registration(id: DatanodeId, cluster: Option<ClusterId>, pod: Option<&str>) -> Value {
    serde_json::to_value(RegisterRequest {
        cluster,
        datanode: id,
        instance: InstanceId(4711),
        address: "127.0.0.1:9".to_owned(),
        zone: None,
        host: None,
        pod: pod.map(str::to_owned),
        fence: Fence::default(),
        stats: DatanodeStats::default(),
        version: "x".to_owned(),
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_copies_and_strangers_are_refused_and_seen() {
    let mut cluster = Cluster::launch(by_operator(2)).await;
    let guarded = store(&cluster);
    for number in 0..2 {
        admit(&cluster, number).await;
    }
    guarded.wait_ready(2, DEADLINE).await;
    let own = guarded.status().await.unwrap().cluster;
    let id = identity(&cluster, 0).await.datanode;
    // Another cluster's.
    let foreign = Some(ClusterId::from_u128(7));
    let stranger = DatanodeId::from_u128(99);
    let reply = post(
        &guarded,
        "/register",
        &registration(stranger, foreign, Some("p")),
    )
    .await;
    assert_eq!(reply.status, 409);
    let line = refused_for(&guarded, RefusalReason::WrongCluster)
        .await
        .unwrap();
    assert_eq!(
        (line.datanode, line.pod.as_deref()),
        (Some(stranger), Some("p"))
    );
    // A twin: the one that is heard stays.
    let twin = registration(id, Some(own), Some("pod-of-datanode-0"));
    assert_eq!(post(&guarded, "/register", &twin).await.status, 409);
    let line = refused_for(&guarded, RefusalReason::UuidInUse)
        .await
        .unwrap();
    assert_eq!((line.datanode, line.count), (Some(id), 1));
    eventually("it is heard", DEADLINE, || async {
        let seen = node(&guarded, id).await.unwrap();
        let is_live = seen.liveness == Liveness::Live;
        is_live.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    // A copy of its volume, while the original is away: from another pod it waits, and on another
    // volume it is never let in.
    cluster.kill_datanode(0).await;
    dead(&guarded, id).await;
    let copy = registration(id, Some(own), Some("pod-of-a-copy"));
    let answer: Value = post(&guarded, "/register", &copy).await.ok().json();
    assert_eq!(answer["admission"], "pending");
    let mut body = claim(0, "another-volume");
    body["pod"] = "pod-of-a-copy".into();
    let admission = format!("/nodes/{id}/admit");
    let reply = post(&guarded, &admission, &body).await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(reply.text().contains("volume-0") && reply.text().contains("another-volume"));
    let line = refused_for(&guarded, RefusalReason::UuidInUse)
        .await
        .unwrap();
    assert_eq!(
        (line.datanode, line.pod.as_deref()),
        (Some(id), Some("pod-of-a-copy"))
    );
    assert_eq!(post(&guarded, "/register", &copy).await.status, 403);
    // The original comes back as if nothing had been.
    cluster.start_datanode(0).await;
    guarded.wait_ready(2, DEADLINE).await;
    for reason in ["wrong-cluster", "uuid-in-use", "refused"] {
        let metric = format!("registrations_refused_total{{reason=\"{reason}\"}}");
        assert!(cluster.tracker.metric(&metric) >= 1.0, "{reason}");
    }
}
