//! Uploads that are cut, and wires that flip bits (I3, I11, faults 23 and 25).

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_e2e::cluster::Cluster;
use dfs_e2e::net::{Direction, Once, OnceEffect};
use dfs_e2e::wait::eventually;
use dfs_protocol::chunk::ChunkKind;
use http::StatusCode;

use crate::kit::{
    CHUNK_BYTES, DEADLINE, Model, Upload, calm_options, chunk_files, chunks_of, files_below, flip,
    listed, record, wait_valid, with_files,
};

/// Records of data on all volumes, as files; checkpoints of the catalog are none.
fn data_records(cluster: &Cluster) -> usize {
    let count = |number: usize| {
        let sealed = files_below(&chunk_files(cluster, number).join("chunks"));
        let data = sealed.iter().filter(|path| is_data(path)).count();
        data + listed(cluster, number, "staging").len()
    };
    (0..cluster.datanodes.len()).map(count).sum()
}

fn is_data(path: &std::path::Path) -> bool {
    let header = std::fs::read(path).ok().and_then(|bytes| {
        let header = bytes.get(..4096)?;
        dfs_datanode::store::RecordHeader::decode(header).ok()
    });
    // Gone meanwhile: then it is none.
    header.is_some_and(|header| header.origin.kind == ChunkKind::Data)
}

#[tokio::test(flavor = "multi_thread")]
async fn i03_i11_fault_23_an_upload_cut_around_chunk_boundaries_is_never_seen_and_is_reclaimed() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "stays", CHUNK_BYTES + 1).await;
    store.wait_healthy(DEADLINE).await;
    let records = data_records(&cluster);
    let body = cluster.bytes(3 * CHUNK_BYTES);
    let mut cuts = vec![1];
    for boundary in 1..=3 {
        let at = boundary * CHUNK_BYTES;
        cuts.extend(
            [at - 1, at, at + 1]
                .into_iter()
                .filter(|cut| *cut < body.len()),
        );
    }
    for (number, cut) in cuts.iter().enumerate() {
        for length in [None, Some(body.len())] {
            let path = format!("cut{number}");
            let upload = Upload::begin(&store, &path, length);
            assert!(upload.feed(&body[..*cut]).await);
            upload.cut().await;
            let door = &store.door;
            let get = door.get(&format!("/files/{path}")).await.unwrap();
            assert_eq!(get.status, StatusCode::NOT_FOUND, "{path}");
            let head = door.head(&format!("/files/{path}")).await.unwrap();
            assert_eq!(head.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
    // Over what is there: it stays what it was.
    let upload = Upload::begin(&store, "stays", Some(body.len()));
    assert!(upload.feed(&body[..2 * CHUNK_BYTES]).await);
    upload.cut().await;
    assert_eq!(store.list("").await, ["stays"]);
    model.check(&store).await;
    eventually(
        "what was uploaded in part is reclaimed",
        DEADLINE,
        || async {
            let now = data_records(&cluster);
            (now == records)
                .then_some(())
                .ok_or(format!("{now} records, {records} before"))
        },
    )
    .await;
    model.settle(&cluster).await;
}

/// Waits until the flip happened, for as long as `step` moves bytes.
fn flips(
    cluster: &mut Cluster,
    from: &str,
    to: &str,
    direction: Direction,
    below: u64,
) -> Arc<Once> {
    let bytes = cluster.rng.u64(..below);
    cluster
        .links
        .once(from, to, direction, bytes, OnceEffect::Flip)
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_25_a_bit_flipped_on_the_way_to_or_between_datanodes_is_refused_and_sent_again() {
    let mut cluster = Cluster::start(with_files(calm_options(4))).await;
    let mut model = Model::default();
    let mut flipped = 0;
    for round in 0..24 {
        let from = ["tracker", "datanode-*"][round % 2];
        let direction = [Direction::Forth, Direction::Forth, Direction::Back][round % 3];
        // Back come confirmations alone.
        let below = if direction == Direction::Back {
            200
        } else {
            3 * CHUNK_BYTES as u64
        };
        let once = flips(&mut cluster, from, "datanode-*", direction, below);
        let path = format!("f{round}");
        let bytes = cluster.bytes(3 * CHUNK_BYTES + round);
        let reply = cluster.store().try_put(&path, bytes.clone()).await.unwrap();
        assert!(reply.status.is_success(), "round {round}: {}", reply.text());
        flipped += usize::from(once.is_done());
        cluster.links.heal();
        model.note(&path, bytes.into());
        model.check_file(&cluster.store(), &path).await;
    }
    assert!(flipped >= 16, "only {flipped} flips took place");
    cluster.store().wait_ready(4, DEADLINE).await;
    model.settle(&cluster).await;
    every_replica_is_right(&cluster, &model).await;
}

/// Reads every record on every volume past the store, and compares it with what was sent.
async fn every_replica_is_right(cluster: &Cluster, model: &Model) {
    let store = cluster.store();
    for path in model.paths() {
        let bytes = model.bytes(&path);
        let mut start = 0;
        for chunk in chunks_of(&store, &path).await {
            let end = start + usize::try_from(chunk.length).unwrap();
            let all = 0..cluster.datanodes.len();
            let copies =
                all.filter_map(|number| std::fs::read(record(cluster, number, &chunk)).ok());
            let mut count = 0;
            for copy in copies {
                assert!(
                    copy[4096..4096 + end - start] == bytes[start..end],
                    "{path}"
                );
                count += 1;
            }
            assert!(count >= 3, "{path} has {count} replicas");
            start = end;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_25_a_bit_flipped_on_the_way_back_is_never_served() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "f", 4 * CHUNK_BYTES).await;
    let mut flipped = 0;
    for _ in 0..24 {
        let once = flips(
            &mut cluster,
            "tracker",
            "datanode-*",
            Direction::Back,
            4 * CHUNK_BYTES as u64,
        );
        model.check_file(&store, "f").await;
        flipped += usize::from(once.is_done());
        cluster.links.heal();
    }
    assert!(flipped >= 20, "only {flipped} flips took place");
    model.settle(&cluster).await;
    wait_valid(&store, "f", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_25_a_bit_flipped_on_the_way_of_a_repair_copy_is_noticed() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "f", 4 * CHUNK_BYTES).await;
    let mut flipped = 0;
    for round in 0..6 {
        let victim = round % 3;
        let chunk = chunks_of(&store, "f").await[round % 4];
        let before: BTreeSet<_> = listed(&cluster, victim, "quarantine").into_iter().collect();
        let once = flips(
            &mut cluster,
            "datanode-*",
            "datanode-*",
            Direction::Back,
            CHUNK_BYTES as u64,
        );
        flip(&record(&cluster, victim, &chunk), 5000);
        eventually("the damage is found", DEADLINE, || async {
            model.check_file(&store, "f").await;
            let now = listed(&cluster, victim, "quarantine");
            let new = now.iter().any(|name| !before.contains(name));
            new.then_some(()).ok_or(format!("{now:?}"))
        })
        .await;
        eventually("the replica is copied", DEADLINE, || async {
            let there = record(&cluster, victim, &chunk).exists();
            there.then_some(()).ok_or("it is not there".to_owned())
        })
        .await;
        flipped += usize::from(once.is_done());
        cluster.links.heal();
        store.wait_healthy(DEADLINE).await;
    }
    assert!(flipped >= 4, "only {flipped} flips took place");
    model.settle(&cluster).await;
    every_replica_is_right(&cluster, &model).await;
}
