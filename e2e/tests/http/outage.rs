//! Row 44: too few datanodes, no room, no replica. Never 200 with a short body.

use std::time::Duration;

use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::http::Reply;
use dfs_e2e::wait::eventually;

use crate::site::assert_problem;

const DEADLINE: Duration = Duration::from_secs(90);

fn small_chunks() -> Options {
    Options {
        tracker: |config| config.chunk_size = 256 * 1024,
        ..Options::default()
    }
}

async fn put_until(cluster: &Cluster, status: u16) -> Reply {
    let store = cluster.store();
    eventually("the store refuses", DEADLINE, || async {
        let reply = store.try_put("refused", vec![1; 300_000]).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if reply.status.as_u16() == status {
            Ok(reply)
        } else {
            Err(reply.text())
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_44_without_enough_datanodes_writes_get_503_and_reads_are_whole_or_503() {
    let mut cluster = Cluster::start(small_chunks()).await;
    let store = cluster.store();
    let bytes = cluster.bytes(1_000_000);
    store.put("kept", bytes.clone()).await;
    store.wait_healthy(DEADLINE).await;
    cluster.kill_datanode(0).await;
    cluster.kill_datanode(1).await;
    let reply = put_until(&cluster, 503).await;
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert!(
        store.get("kept").await == bytes,
        "one replica is enough to read"
    );
    cluster.kill_datanode(2).await;
    let reply = eventually("nothing can be read", DEADLINE, || async {
        match store.try_get("kept").await {
            Err(broken) => Err(format!("broken off: {broken}")),
            Ok(reply) if reply.status == 200 => panic!("{} bytes out of nowhere", reply.body.len()),
            Ok(reply) => Ok(reply),
        }
    })
    .await;
    assert_problem(&reply, 503, "data-unavailable", "no replica");
    assert!(!reply.header("retry-after").is_empty());
    cluster.start_all().await;
    assert!(store.get("kept").await == bytes);
    assert_eq!(store.list("").await, ["kept"]);
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_44_a_full_store_gets_507_or_503_and_deletions_still_work() {
    let mut cluster = Cluster::start(small_chunks()).await;
    let store = cluster.store();
    let bytes = cluster.bytes(600_000);
    store.put("kept", bytes.clone()).await;
    for role in &cluster.datanodes {
        role.disk().limit_room(&role.dir, 4 * 1024 * 1024).unwrap();
    }
    let reply = eventually("the store is full", DEADLINE, || async {
        let name = format!("more-{}", fastrand::u64(..));
        let reply = store
            .try_put(&name, vec![1; 900_000])
            .await
            .map_err(|error| error.to_string())?;
        if reply.status.is_success() {
            Err("it still takes files".to_owned())
        } else {
            Ok(reply)
        }
    })
    .await;
    assert!(
        [503, 507].contains(&reply.status.as_u16()),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert!(store.get("kept").await == bytes);
    for name in store.list("more").await {
        store.delete(&name).await;
    }
    for role in &cluster.datanodes {
        role.faults.grow_to(1 << 40);
    }
    store.wait_ready(3, SOON).await;
    store.wait_repaired(DEADLINE).await;
    eventually("there is room again", DEADLINE, || async {
        let reply = store.try_put("again", bytes.clone()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if reply.status.is_success() {
            Ok(())
        } else {
            Err(reply.text())
        }
    })
    .await;
    store.wait_fsck_clean(DEADLINE).await;
}
