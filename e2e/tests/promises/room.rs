//! Volumes that are full (I15, fault 14), and what deleting does about it.

use std::time::Duration;

use dfs_e2e::cluster::{Cluster, Options};
use dfs_e2e::store::{patiently, says_later};
use dfs_e2e::wait::eventually;
use dfs_protocol::status::DatanodeStatus;
use http::StatusCode;

use crate::kit::{
    CHUNK, CHUNK_BYTES, ChainWatch, DEADLINE, Model, Upload, calm_options, files_below, listed,
    options,
};

const MIB: u64 = 1024 * 1024;
/// Within this a store that was emptied takes files again.
const BOUNDED: Duration = Duration::from_secs(150);

/// Leaves a datanode `room` bytes beside what its volume holds.
fn limit(cluster: &Cluster, datanode: usize, room: u64) {
    let role = &cluster.datanodes[datanode];
    let used: u64 = files_below(&role.dir)
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|data| data.len())
        .sum();
    role.disk().limit_room(&role.dir, used + room).unwrap();
}

async fn node(cluster: &Cluster, datanode: usize) -> Result<DatanodeStatus, String> {
    let address = cluster.datanodes[datanode].address.to_string();
    let nodes = cluster.store().nodes().await?;
    let found = nodes.into_iter().find(|node| node.address == address);
    found.ok_or_else(|| format!("no datanode {datanode}"))
}

/// Waits until the tracker knows how full a datanode is.
async fn wait_read_only(cluster: &Cluster, datanode: usize, wanted: bool) {
    eventually("the datanode says how full it is", DEADLINE, || async {
        let node = node(cluster, datanode).await?;
        let is = node.stats.read_only;
        (is == wanted)
            .then_some(())
            .ok_or(format!("{:?}", node.stats))
    })
    .await;
}

/// Stores files until the store is full; the answer that said so.
async fn fill(cluster: &mut Cluster, model: &mut Model, name: &str, size: usize) {
    for number in 0.. {
        assert!(number < 400, "it is never full");
        let path = format!("{name}{number:03}");
        let bytes = cluster.bytes(size);
        let store = cluster.store();
        let reply = patiently(&path, || store.try_put(&path, bytes.clone())).await;
        if reply.status.is_success() {
            model.note(&path, bytes.into());
            continue;
        }
        assert_eq!(
            reply.status,
            StatusCode::INSUFFICIENT_STORAGE,
            "{}",
            reply.text()
        );
        assert!(
            reply.text().contains("insufficient-storage"),
            "{}",
            reply.text()
        );
        return;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_fault_14_a_full_datanode_is_left_out_and_taken_back_when_its_volume_grows() {
    let mut cluster = Cluster::start(calm_options(4)).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "before", CHUNK_BYTES).await;
    limit(&cluster, 1, 100 * 1024);
    wait_read_only(&cluster, 1, true).await;
    for number in 0..5 {
        let stored = model
            .put(&mut cluster, &format!("f{number}"), 2 * CHUNK_BYTES)
            .await;
        assert_eq!(stored.replica_count, 3);
        for id in &stored.replicas {
            assert_ne!(cluster.number_of(*id).await, 1);
        }
    }
    model.delete(&store, "before").await;
    model.settle(&cluster).await;
    cluster.datanodes[1].faults.grow_to(100 * MIB);
    wait_read_only(&cluster, 1, false).await;
    model.put(&mut cluster, "after", CHUNK_BYTES).await;
    model.settle(&cluster).await;
}

/// The volume fills while the tracker still believes in it: ENOSPC amid a write.
#[tokio::test(flavor = "multi_thread")]
async fn i15_fault_14_enospc_amid_a_write_leaves_nothing_behind_and_the_ack_names_others() {
    let options = Options {
        datanode: |config| config.space.reserve_bytes = 0,
        chunk_files: true,
        ..calm_options(4)
    };
    let mut cluster = Cluster::start(options).await;
    let mut model = Model::default();
    model.put(&mut cluster, "before", CHUNK_BYTES).await;
    limit(&cluster, 1, CHUNK + CHUNK / 2);
    for number in 0..8 {
        let stored = model
            .put(&mut cluster, &format!("f{number}"), CHUNK_BYTES * 2 - 9)
            .await;
        assert_eq!(stored.replica_count, 3);
    }
    eventually("no staged file is left", DEADLINE, || async {
        let left = listed(&cluster, 1, "staging");
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    cluster.datanodes[1].faults.grow_to(100 * MIB);
    cluster.store().wait_ready(4, DEADLINE).await;
    model.settle(&cluster).await;
    assert_eq!(cluster.datanodes[1].ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_fault_14_when_all_are_full_writes_get_507_and_all_else_goes_on() {
    let mut cluster = Cluster::start(options(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    for datanode in 0..3 {
        limit(&cluster, datanode, 4 * MIB);
    }
    fill(&mut cluster, &mut model, "f", CHUNK_BYTES).await;
    model.check(&store).await;
    let victim = model.paths()[0].clone();
    model.delete(&store, &victim).await;
    model.settle(&cluster).await;
    for datanode in 0..3 {
        cluster.datanodes[datanode].faults.grow_to(100 * MIB);
    }
    wait_room(&cluster).await;
    model.put(&mut cluster, "after", 3 * CHUNK_BYTES).await;
    model.settle(&cluster).await;
}

/// Its bytes lie on the volumes already: the commit needs no more room.
#[tokio::test(flavor = "multi_thread")]
async fn i15_fault_14_an_upload_that_filled_the_volumes_is_committed() {
    // Its second half comes once the tracker has heard of the full volumes, however long that takes.
    let mut cluster = Cluster::start(Options {
        datanode: |config| config.stream_idle = Duration::from_mins(2),
        chunk_files: true,
        ..calm_options(3)
    })
    .await;
    let store = cluster.store();
    let mut model = Model::default();
    let bytes = cluster.bytes(CHUNK_BYTES);
    let watch = ChainWatch::begin(&cluster, CHUNK / 4);
    let upload = Upload::begin(&store, "last", Some(bytes.len()));
    let (begin, end) = bytes.split_at(CHUNK_BYTES / 2);
    assert!(upload.feed(begin).await);
    let _chain = watch.wait(3).await;
    for datanode in 0..3 {
        // Less than the reserve, more than the rest of the chunk.
        limit(&cluster, datanode, 3 * MIB / 4);
    }
    for datanode in 0..3 {
        wait_read_only(&cluster, datanode, true).await;
    }
    assert!(upload.feed(end).await);
    let reply = upload.finish().await.unwrap();
    assert!(reply.status.is_success(), "{}", reply.text());
    model.note("last", bytes.into());
    for datanode in 0..3 {
        // A hop that a busy machine cost the chain is made up for.
        cluster.datanodes[datanode].faults.grow_to(100 * MIB);
    }
    model.settle(&cluster).await;
}

/// The shares of a production volume: full begins above the trash's threshold.
fn production_shares() -> Options {
    Options {
        datanode: |config| {
            config.space.soft_fraction = 0.10;
            config.space.hard_fraction = 0.05;
            config.space.reserve_bytes = 0;
            config.journal_segment = 64 * 1024;
        },
        ..options(3)
    }
}

/// Fills all volumes and deletes everything. How many files there were.
async fn fill_and_delete(cluster: &mut Cluster, model: &mut Model, name: &str) -> usize {
    fill(cluster, model, name, CHUNK_BYTES).await;
    let store = cluster.store();
    model.check(&store).await;
    let paths = model.paths();
    assert!(paths.len() >= 20, "full with {} files", paths.len());
    for path in &paths {
        model.delete(&store, path).await;
    }
    paths.len()
}

/// Neither the trash nor collection needs room that only they could make.
#[tokio::test(flavor = "multi_thread")]
async fn i11_fault_14_the_trash_gives_way_on_full_volumes_within_bounded_time() {
    let mut cluster = Cluster::start(production_shares()).await;
    let mut model = Model::default();
    for datanode in 0..3 {
        limit(&cluster, datanode, 10 * MIB);
    }
    let files = fill_and_delete(&mut cluster, &mut model, "f").await;
    let store = cluster.store();
    put_when_room(&mut cluster, &mut model, "after").await;
    let trash = store.status().await.unwrap().trash.entries;
    assert!(trash < files as u64, "nothing left the trash");
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_fault_14_without_trash_full_volumes_take_as_much_again_after_deletion() {
    let options = Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_secs(1);
            config.trash_retention = Duration::ZERO;
        },
        ..production_shares()
    };
    let mut cluster = Cluster::start(options).await;
    let mut model = Model::default();
    for datanode in 0..3 {
        limit(&cluster, datanode, 10 * MIB);
    }
    let files = fill_and_delete(&mut cluster, &mut model, "before").await;
    for number in 0..files - 2 {
        put_when_room(&mut cluster, &mut model, &format!("again{number}")).await;
    }
    model.settle(&cluster).await;
}

/// Stores a chunk as soon as collection made room for it. Until then "the store is full" is the truth,
/// whatever the tracker, a heartbeat behind the volumes, shows of them.
async fn put_when_room(cluster: &mut Cluster, model: &mut Model, path: &str) {
    let bytes = cluster.bytes(CHUNK_BYTES);
    let store = cluster.store();
    eventually("a file is taken again", BOUNDED, || async {
        let reply = store.try_put(path, bytes.clone()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if reply.status.is_success() {
            return Ok(());
        }
        let full = reply.status == StatusCode::INSUFFICIENT_STORAGE;
        assert!(full || says_later(&reply), "{}", reply.text());
        Err(reply.text())
    })
    .await;
    model.note(path, bytes.into());
}

/// Waits until every datanode has room for a few chunks.
async fn wait_room(cluster: &Cluster) {
    eventually("there is room again", BOUNDED, || async {
        let nodes = cluster.store().nodes().await?;
        let roomy =
            |node: &DatanodeStatus| !node.stats.read_only && node.stats.free_bytes >= 2 * CHUNK;
        nodes
            .iter()
            .all(roomy)
            .then_some(())
            .ok_or(format!("{nodes:#?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_fault_14_a_full_tracker_refuses_writes_serves_reads_and_takes_deletes() {
    let mut cluster = Cluster::start(options(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    for number in 0..4 {
        model.put(&mut cluster, &format!("f{number}"), 1000).await;
    }
    let role = &cluster.tracker;
    let used: u64 = files_below(&role.dir)
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|data| data.len())
        .sum();
    // Half of the reserve is left.
    role.disk().limit_room(&role.dir, used + MIB / 2).unwrap();
    let bytes = cluster.bytes(1000);
    eventually("writes are refused", DEADLINE, || async {
        let reply = store
            .try_put("refused", bytes.clone())
            .await
            .map_err(|e| e.to_string())?;
        let full = reply.status == StatusCode::INSUFFICIENT_STORAGE;
        let told = full || says_later(&reply) || reply.status.is_success();
        assert!(told, "{}", reply.text());
        full.then_some(()).ok_or_else(|| reply.status.to_string())
    })
    .await;
    if store.content("refused").await.unwrap().is_some() {
        model.note("refused", bytes.into());
    }
    model.check(&store).await;
    model.delete(&store, "f1").await;
    model.delete(&store, "f2").await;
    model.check(&store).await;
    cluster.tracker.faults.grow_to(used + 100 * MIB);
    store.wait_ready(3, DEADLINE).await;
    eventually("writes are taken again", DEADLINE, || async {
        let reply = store
            .try_put("after", "x")
            .await
            .map_err(|e| e.to_string())?;
        reply.status.is_success().then_some(()).ok_or(reply.text())
    })
    .await;
    model.note("after", "x".into());
    model.settle(&cluster).await;
    cluster.restart_tracker().await;
    model.settle(&cluster).await;
}
