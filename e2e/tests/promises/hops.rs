//! Datanodes that fail amid a chunk write (fault 2), and what they leave behind (I7).

use std::time::Duration;

use dfs_datanode::store::record::{RecordHeader, RecordState, encode_footer};
use dfs_e2e::cluster::{Cluster, Options};
use dfs_e2e::net::LinkFault;
use dfs_e2e::store::Stored;
use dfs_e2e::wait::eventually;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, ChunkKind, ChunkOrigin, SealedChunk};
use dfs_protocol::status::ClusterStatus;
use dfs_protocol::{ChunkVersion, ClusterId, FileId};
use http::StatusCode;

use crate::kit::{
    ChainWatch, DEADLINE, Model, Upload, chunks_of, listed, record, start_heard, wait_valid,
};

const MIB: usize = 1024 * 1024;

/// Chunks of 4 MiB: a chain that breaks has confirmed something, and has much to come.
fn options(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = 4 * 1024 * 1024;
            config.checkpoint_interval = Duration::from_secs(1);
            config.heartbeat_interval = Duration::from_secs(1);
        },
        chunk_files: true,
        ..Options::default()
    }
}

async fn acked(upload: Upload, cluster: &Cluster, victims: &[usize]) -> Stored {
    let stored: Stored = upload.finish().await.unwrap().ok().json();
    for id in &stored.replicas {
        let number = cluster.number_of(*id).await;
        assert!(
            !victims.contains(&number),
            "the answer names a dead datanode"
        );
    }
    stored
}

/// What was begun and not ended is dropped.
async fn nothing_staged(cluster: &Cluster, datanode: usize) {
    eventually("no staged file is left", DEADLINE, || async {
        let staged = listed(cluster, datanode, "staging");
        staged
            .is_empty()
            .then_some(())
            .ok_or(format!("{datanode}: {staged:?}"))
    })
    .await;
}

async fn back_to_full(cluster: &mut Cluster, model: &Model, victims: &[usize]) {
    for victim in victims {
        start_heard(cluster, *victim).await;
    }
    let all = cluster.datanodes.len() as u64;
    cluster.store().wait_ready(all, DEADLINE).await;
    cluster.store().wait_healthy(DEADLINE).await;
    model.settle(cluster).await;
    for number in 0..cluster.datanodes.len() {
        nothing_staged(cluster, number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_a_datanode_killed_at_any_hop_amid_a_chunk_costs_the_client_nothing() {
    let mut cluster = Cluster::start(options(5)).await;
    let mut model = Model::default();
    for hop in 0..3 {
        // Before the first confirmation, and after it.
        for before in [MIB / 2, 2 * MIB] {
            let store = cluster.store();
            let path = format!("hop{hop}-{before}");
            let bytes = cluster.bytes(6 * MIB + 77);
            let watch = ChainWatch::begin(&cluster, 100 * 1024);
            let upload = Upload::begin(&store, &path, Some(bytes.len()));
            assert!(upload.feed(&bytes[..before]).await);
            let victim = watch.wait(3).await[hop];
            cluster.kill_datanode(victim).await;
            assert!(
                upload.feed(&bytes[before..]).await,
                "the upload was refused"
            );
            let stored = acked(upload, &cluster, &[victim]).await;
            assert_eq!((stored.replica_count, stored.wanted), (3, 3), "{path}");
            model.note(&path, bytes.into());
            model.check_file(&store, &path).await;
            cluster.links.heal();
            back_to_full(&mut cluster, &model, &[victim]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_two_hops_lost_in_turn_leave_the_upload_whole() {
    for order in [[0, 1], [1, 2], [2, 0]] {
        let mut cluster = Cluster::start(options(5)).await;
        let store = cluster.store();
        let mut model = Model::default();
        let bytes = cluster.bytes(4 * MIB - 5);
        let watch = ChainWatch::begin(&cluster, 100 * 1024);
        let upload = Upload::begin(&store, "f", Some(bytes.len()));
        assert!(upload.feed(&bytes[..3 * MIB / 2]).await);
        let chain = watch.wait(3).await;
        let victims = order.map(|hop| chain[hop]);
        cluster.kill_datanode(victims[0]).await;
        assert!(upload.feed(&bytes[3 * MIB / 2..3 * MIB]).await);
        cluster.kill_datanode(victims[1]).await;
        assert!(upload.feed(&bytes[3 * MIB..]).await);
        let stored = acked(upload, &cluster, &victims).await;
        assert_eq!(stored.replica_count, 3, "{order:?}");
        model.note("f", bytes.into());
        model.check(&store).await;
        back_to_full(&mut cluster, &model, &victims).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_with_only_r_datanodes_a_lost_hop_is_said_in_the_answer_and_made_good_later() {
    let mut cluster = Cluster::start(options(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    let bytes = cluster.bytes(4 * MIB);
    let watch = ChainWatch::begin(&cluster, 100 * 1024);
    let upload = Upload::begin(&store, "f", None);
    assert!(upload.feed(&bytes[..2 * MIB]).await);
    let victim = watch.wait(3).await[1];
    cluster.kill_datanode(victim).await;
    assert!(upload.feed(&bytes[2 * MIB..]).await);
    let stored = acked(upload, &cluster, &[victim]).await;
    assert_eq!((stored.replica_count, stored.wanted), (2, 3));
    model.note("f", bytes.into());
    // Each of the two named is enough (I1).
    for id in &stored.replicas {
        let number = cluster.number_of(*id).await;
        cluster.kill_datanode(number).await;
        assert!(store.get("f").await == model.bytes("f"));
        cluster.start_datanode(number).await;
        store.wait_ready(2, DEADLINE).await;
    }
    back_to_full(&mut cluster, &model, &[victim]).await;
    wait_valid(&store, "f", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_without_any_hop_left_nothing_is_acknowledged_and_nothing_is_seen() {
    let mut cluster = Cluster::start(options(3)).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "before", 1000).await;
    let bytes = cluster.bytes(4 * MIB);
    let watch = ChainWatch::begin(&cluster, 100 * 1024);
    let upload = Upload::begin(&store, "f", Some(bytes.len()));
    assert!(upload.feed(&bytes[..2 * MIB]).await);
    let chain = watch.wait(3).await;
    for victim in &chain {
        cluster.kill_datanode(*victim).await;
    }
    let _refused = upload.feed(&bytes[2 * MIB..]).await;
    let answer = upload.finish().await;
    assert!(!answer.is_ok_and(|reply| reply.status.is_success()));
    assert_eq!(
        store.try_get("f").await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(store.list("").await, ["before"]);
    back_to_full(&mut cluster, &model, &chain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i07_a_datanode_cut_off_amid_a_write_keeps_nothing_that_is_read_when_it_is_back() {
    for fault in [LinkFault::black_hole(), LinkFault::cut()] {
        let mut cluster = Cluster::start(options(4)).await;
        let store = cluster.store();
        let mut model = Model::default();
        let bytes = cluster.bytes(4 * MIB);
        let watch = ChainWatch::begin(&cluster, 100 * 1024);
        let upload = Upload::begin(&store, "f", Some(bytes.len()));
        assert!(upload.feed(&bytes[..2 * MIB]).await);
        let victim = watch.wait(3).await[1];
        let _isolated = cluster.isolate_datanode(victim, fault);
        assert!(upload.feed(&bytes[2 * MIB..]).await);
        let stored = acked(upload, &cluster, &[victim]).await;
        assert_eq!(stored.replica_count, 3);
        model.note("f", bytes.into());
        let chunk = chunks_of(&store, "f").await[0];
        // A hop that got every byte may seal the first attempt before the break is noticed.
        assert!(
            chunk.version > ChunkVersion::FIRST || fault == LinkFault::black_hole(),
            "the version was not raised"
        );
        cluster.links.heal();
        store.wait_ready(4, DEADLINE).await;
        nothing_staged(&cluster, victim).await;
        back_to_full(&mut cluster, &model, &[]).await;
    }
}

/// What a datanode would hold had it sealed the first attempt of a chunk: whole in itself, older
/// than the catalog's, with other bytes.
fn forge_older(cluster: &Cluster, datanode: usize, of: &SealedChunk, id: ClusterId) {
    let data = vec![0xAB; BLOCK_SIZE];
    let chunk = SealedChunk {
        id: of.id,
        version: ChunkVersion(of.version.0 - 1),
        length: data.len() as u64,
        crc32c: crc32c(&data),
    };
    let header = RecordHeader {
        state: RecordState::Sealed,
        cluster: id,
        chunk,
        origin: ChunkOrigin {
            kind: ChunkKind::Data,
            file: FileId::from_u128(7),
            index: 0,
            path_hint: "f".to_owned(),
        },
    };
    let mut bytes = header.encode();
    bytes.extend_from_slice(&data);
    bytes.extend_from_slice(&encode_footer(chunk.id, chunk.version, &[chunk.crc32c]));
    let path = record(cluster, datanode, &chunk);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Stores a file whose only chunk has a raised version; the datanode that was lost on the way. A busy
/// machine may notice the loss so late that the chunk is written anew under another id: then once more.
async fn store_with_raised_version(cluster: &mut Cluster, model: &mut Model) -> usize {
    for _ in 0..5 {
        let victim = store_over_a_lost_hop(cluster, model).await;
        if chunks_of(&cluster.store(), "f").await[0].version > ChunkVersion::FIRST {
            return victim;
        }
        cluster.start_datanode(victim).await;
        cluster.store().wait_ready(4, DEADLINE).await;
    }
    panic!("no version was raised in five uploads over a lost hop");
}

async fn store_over_a_lost_hop(cluster: &mut Cluster, model: &mut Model) -> usize {
    let store = cluster.store();
    let bytes = cluster.bytes(3 * MIB);
    let watch = ChainWatch::begin(cluster, 100 * 1024);
    let upload = Upload::begin(&store, "f", Some(bytes.len()));
    assert!(upload.feed(&bytes[..2 * MIB]).await);
    let victim = watch.wait(3).await[2];
    cluster.kill_datanode(victim).await;
    assert!(upload.feed(&bytes[2 * MIB..]).await);
    let stored = acked(upload, cluster, &[victim]).await;
    assert_eq!(stored.replica_count, 3);
    model.note("f", bytes.into());
    cluster.links.heal();
    victim
}

#[tokio::test(flavor = "multi_thread")]
async fn i07_a_replica_of_an_older_version_is_never_read_never_copied_and_removed() {
    let mut cluster = Cluster::start(options(4)).await;
    let store = cluster.store();
    let mut model = Model::default();
    let victim = store_with_raised_version(&mut cluster, &mut model).await;
    let chunk = chunks_of(&store, "f").await[0];
    assert!(chunk.version > ChunkVersion::FIRST);
    let ClusterStatus { cluster: id, .. } = store.status().await.unwrap();
    forge_older(&cluster, victim, &chunk, id);
    let older = SealedChunk {
        version: ChunkVersion(chunk.version.0 - 1),
        ..chunk
    };
    // It comes back while every current replica is away: there is nothing to read, and nothing
    // to copy from.
    let others: Vec<usize> = (0..4).filter(|number| *number != victim).collect();
    for number in &others {
        cluster.kill_datanode(*number).await;
    }
    cluster.start_datanode(victim).await;
    let wiped = cluster.add_datanode().await;
    eventually("the older replica is known", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let address = cluster.datanodes[victim].address.to_string();
        let known = nodes
            .iter()
            .any(|node| node.address == address && node.stats.chunks > 0);
        known.then_some(()).ok_or(format!("{nodes:?}"))
    })
    .await;
    for _ in 0..5 {
        let refused = store.try_get("f").await.unwrap();
        assert_eq!(
            refused.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{}",
            refused.text()
        );
    }
    for number in &others {
        cluster.start_datanode(*number).await;
    }
    store.wait_ready(5, DEADLINE).await;
    eventually("the older replica is removed", DEADLINE, || async {
        assert!(store.get("f").await == model.bytes("f"));
        let there = record(&cluster, victim, &older).exists();
        (!there).then_some(()).ok_or("it is there".to_owned())
    })
    .await;
    assert!(!record(&cluster, wiped, &older).exists(), "it was copied");
    back_to_full(&mut cluster, &model, &[]).await;
    wait_valid(&store, "f", 3).await;
}
