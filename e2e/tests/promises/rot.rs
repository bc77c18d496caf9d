//! Damage at rest is never served, is healed, and is counted (I4, faults 7 to 11).

use std::path::Path;

use dfs_datanode::store::record::{HEADER_LEN_U64, footer_length};
use dfs_e2e::cluster::Cluster;
use dfs_e2e::http::Reply;
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::chunk::SealedChunk;
use dfs_protocol::status::{ChunkHealth, FsckProblem};
use http::StatusCode;

use crate::kit::{
    CHUNK, CHUNK_BYTES, DEADLINE, Model, calm_options, chunks_of, flip, listed, record,
    start_heard, wait_valid, with_files,
};

/// How a record is hurt, and the label under which that is counted.
type Harm = (&'static str, fn(&Path));

const HARMS: [Harm; 9] = [
    ("block", |path| flip(path, HEADER_LEN_U64 + CHUNK / 2)),
    ("block", |path| flip(path, HEADER_LEN_U64)),
    ("block", |path| flip(path, HEADER_LEN_U64 + CHUNK - 1)),
    ("header", |path| flip(path, 40)),
    ("header", |path| flip(path, HEADER_LEN_U64 - 1)),
    ("footer", |path| flip(path, HEADER_LEN_U64 + CHUNK + 1)),
    ("length", |path| cut(path, HEADER_LEN_U64 + CHUNK - 1)),
    ("length", |path| cut(path, 0)),
    ("missing", |path| std::fs::remove_file(path).unwrap()),
];

fn cut(path: &Path, length: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn set_aside(cluster: &Cluster, damage: &str) -> f64 {
    let label = format!("dfs_datanode_corrupt_replicas_total{{damage=\"{damage}\"}}");
    cluster
        .datanodes
        .iter()
        .map(|role| role.metric(&label))
        .sum()
}

fn told(cluster: &Cluster) -> f64 {
    cluster.tracker.metric("dfs_tracker_corrupt_replicas_total")
}

/// Reads the file, whole and in part, until the damage was found; every read is right.
async fn read_until_found(cluster: &Cluster, model: &Model, path: &str, told_before: f64) {
    let store = cluster.store();
    let bytes = model.bytes(path);
    let uri = format!("/files/{path}");
    let half = bytes.len() / 2;
    let range = format!("bytes={half}-{}", half + 9);
    eventually("a read finds the damage", DEADLINE, || async {
        assert!(store.get(path).await == bytes, "wrong bytes were served");
        let part = store.door.get_with(&uri, &[("range", &range)]).await;
        let part = part.unwrap();
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert!(
            part.body == bytes[half..half + 10],
            "wrong bytes of a range"
        );
        let now = told(cluster);
        (now > told_before).then_some(()).ok_or(now.to_string())
    })
    .await;
}

/// All replicas are there again, and where the record was there is none, or a whole one.
async fn healed(cluster: &Cluster, model: &Model, path: &str) {
    cluster.store().wait_healthy(DEADLINE).await;
    model.settle(cluster).await;
    wait_valid(&cluster.store(), path, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_07_fault_08_damage_at_rest_is_never_served_and_is_healed() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let mut model = Model::default();
    model.put(&mut cluster, "other", 100).await;
    model.put(&mut cluster, "f", 3 * CHUNK_BYTES).await;
    for (turn, (damage, harm)) in HARMS.into_iter().enumerate() {
        let chunks = chunks_of(&cluster.store(), "f").await;
        let datanode = turn % 3;
        let (counted, told_before) = (set_aside(&cluster, damage), told(&cluster));
        harm(&record(&cluster, datanode, &chunks[turn / 3]));
        read_until_found(&cluster, &model, "f", told_before).await;
        assert!(set_aside(&cluster, damage) > counted, "{damage} {turn}");
        healed(&cluster, &model, "f").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_07_fault_08_damage_found_at_a_start_stops_nothing_and_is_healed() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let mut model = Model::default();
    for (turn, (damage, _)) in HARMS.iter().enumerate() {
        model
            .put(&mut cluster, &format!("{damage}-{turn}"), CHUNK_BYTES)
            .await;
    }
    cluster.store().wait_healthy(DEADLINE).await;
    let told_before = told(&cluster);
    let mut victims = Vec::new();
    for (turn, (damage, _)) in HARMS.iter().enumerate() {
        let chunks = chunks_of(&cluster.store(), &format!("{damage}-{turn}")).await;
        victims.push(record(&cluster, 1, &chunks[0]));
    }
    cluster.kill_datanode(1).await;
    for ((_, harm), path) in HARMS.iter().zip(&victims) {
        harm(path);
    }
    start_heard(&mut cluster, 1).await;
    model.check(&cluster.store()).await;
    // What no reader met, the scrub finds; a missing file is no damaged one at a start.
    let wanted = HARMS
        .iter()
        .filter(|(damage, _)| *damage != "missing")
        .count();
    eventually("all damage was told", DEADLINE, || async {
        let now = told(&cluster) - told_before;
        (now >= wanted as f64).then_some(()).ok_or(now.to_string())
    })
    .await;
    model.settle(&cluster).await;
    eventually("all are made again", DEADLINE, || async {
        let lacking = victims.iter().find(|path| !path.exists());
        lacking.map_or(Ok(()), |path| Err(path.display().to_string()))
    })
    .await;
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_09_swapped_chunk_files_are_noticed_and_healed() {
    for while_it_runs in [true, false] {
        let mut cluster = Cluster::start(with_files(calm_options(3))).await;
        let mut model = Model::default();
        model.put(&mut cluster, "a", CHUNK_BYTES).await;
        model.put(&mut cluster, "b", CHUNK_BYTES).await;
        let a = record(&cluster, 0, &chunks_of(&cluster.store(), "a").await[0]);
        let b = record(&cluster, 0, &chunks_of(&cluster.store(), "b").await[0]);
        let told_before = told(&cluster);
        if !while_it_runs {
            cluster.kill_datanode(0).await;
        }
        let (bytes_a, bytes_b) = (std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        std::fs::write(&a, bytes_b).unwrap();
        std::fs::write(&b, bytes_a).unwrap();
        if !while_it_runs {
            start_heard(&mut cluster, 0).await;
        }
        for path in ["a", "b"] {
            read_until_found(&cluster, &model, path, told_before).await;
        }
        eventually("both are told", DEADLINE, || async {
            model.check(&cluster.store()).await;
            let now = told(&cluster) - told_before;
            (now >= 2.0).then_some(()).ok_or(now.to_string())
        })
        .await;
        assert!(set_aside(&cluster, "misplaced") >= 2.0);
        healed(&cluster, &model, "a").await;
        healed(&cluster, &model, "b").await;
    }
}

/// Data and footer of one chunk under the header of another: only the footer's seal over id and
/// version tells.
#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_09_the_bytes_of_one_chunk_under_the_header_of_another_are_not_served() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let mut model = Model::default();
    model.put(&mut cluster, "a", CHUNK_BYTES).await;
    model.put(&mut cluster, "b", CHUNK_BYTES).await;
    let a = record(&cluster, 2, &chunks_of(&cluster.store(), "a").await[0]);
    let b = record(&cluster, 2, &chunks_of(&cluster.store(), "b").await[0]);
    let mut mixed = std::fs::read(&a).unwrap();
    let header = usize::try_from(HEADER_LEN_U64).unwrap();
    mixed[header..].copy_from_slice(&std::fs::read(&b).unwrap()[header..]);
    assert_eq!(
        mixed.len() as u64,
        HEADER_LEN_U64 + CHUNK + footer_length(CHUNK)
    );
    std::fs::write(&a, mixed).unwrap();
    let told_before = told(&cluster);
    read_until_found(&cluster, &model, "a", told_before).await;
    healed(&cluster, &model, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_10_foreign_files_are_counted_and_left_alone() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", 2 * CHUNK_BYTES).await;
    let chunk = chunks_of(&cluster.store(), "f").await[0];
    let beside = record(&cluster, 0, &chunk);
    let dir = cluster.datanodes[0].dir.clone();
    let name = beside.file_name().unwrap().to_string_lossy().into_owned();
    let foreign = [
        dir.join("notes.txt"),
        dir.join("chunks").join("README"),
        beside.with_file_name("x.chunk"),
        beside.with_file_name(format!("{name}.bak")),
        beside.with_file_name(name.to_uppercase()),
    ];
    for path in &foreign {
        std::fs::write(path, "somebody's").unwrap();
    }
    for _ in 0..2 {
        cluster.kill_datanode(0).await;
        start_heard(&mut cluster, 0).await;
        let counted = cluster.datanodes[0].metric("dfs_datanode_foreign_files");
        assert_eq!(counted.to_bits(), 5f64.to_bits());
        model.settle(&cluster).await;
    }
    for path in &foreign {
        assert_eq!(std::fs::read(path).unwrap(), b"somebody's");
    }
}

/// Damages the same chunk on every datanode.
async fn ruin(cluster: &Cluster, path: &str, index: usize) -> SealedChunk {
    let chunk = chunks_of(&cluster.store(), path).await[index];
    for datanode in 0..3 {
        flip(
            &record(cluster, datanode, &chunk),
            HEADER_LEN_U64 + CHUNK / 2,
        );
    }
    chunk
}

/// Neither a wrong byte nor a clean end, and a range that lies in other chunks is there.
async fn assert_broken(store: &Store, model: &Model, path: &str) {
    let bytes = model.bytes(path);
    let uri = format!("/files/{path}");
    let whole = store.try_get(path).await;
    assert!(
        whole.is_err(),
        "a clean end: {:?}",
        whole.map(|reply| reply.status)
    );
    let part = store.door.get_with(&uri, &[("range", "bytes=0-99")]).await;
    assert!(part.unwrap().ok().body == bytes[..100]);
    let tail = store.door.get_with(&uri, &[("range", "bytes=-100")]).await;
    assert!(tail.unwrap().ok().body == bytes[bytes.len() - 100..]);
    let many = format!("bytes=0-9,{}-{},-5", CHUNK, 2 * CHUNK - 1);
    let many = store.door.get_with(&uri, &[("range", &many)]).await;
    assert!(
        !many.is_ok_and(|reply| reply.status.is_success()),
        "parts with a clean end"
    );
}

/// An answer that says that there is none, and of which file.
fn assert_refused(answer: &Reply, path: &str) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let text = answer.text();
    assert!(
        text.contains("data-unavailable") && text.contains(path),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i05_fault_11_damage_of_every_replica_costs_that_file_alone() {
    let mut cluster = Cluster::start(with_files(calm_options(3))).await;
    let store = cluster.store();
    let mut model = Model::default();
    model.put(&mut cluster, "fine", 3 * CHUNK_BYTES).await;
    model.put(&mut cluster, "bad/first", CHUNK_BYTES).await;
    model.put(&mut cluster, "bad/middle", 3 * CHUNK_BYTES).await;
    let lost = [
        ruin(&cluster, "bad/first", 0).await,
        ruin(&cluster, "bad/middle", 1).await,
    ];
    for _ in 0..2 {
        assert_broken(&store, &model, "bad/middle").await;
        // Its first blocks are whole: until the damage is known, an answer may have begun with them.
        if let Ok(refused) = store.try_get("bad/first").await {
            assert_refused(&refused, "bad/first");
        }
    }
    store
        .wait_status("both chunks are missed", DEADLINE, |status| {
            status.chunks[&ChunkHealth::Missing] == 2 && !status.healthy
        })
        .await;
    assert_refused(&store.try_get("bad/first").await.unwrap(), "bad/first");
    let (findings, verdict) = store.fsck().await.unwrap();
    assert!(!verdict.clean);
    for chunk in lost {
        let named = findings.iter().any(|finding| {
            finding.chunk == Some(chunk.id) && finding.problem == FsckProblem::Missing
        });
        assert!(named, "{findings:#?}");
    }
    model.check_file(&store, "fine").await;
    model.put(&mut cluster, "new", 2 * CHUNK_BYTES).await;
    assert_eq!(store.list("bad/").await, ["bad/first", "bad/middle"]);
    for path in ["bad/first", "bad/middle"] {
        model.delete(&store, path).await;
    }
    model.check(&store).await;
    let trash = store.status().await.unwrap().trash;
    assert_eq!(trash.entries, 2, "what was deleted waits in the trash");
    // The bytes are kept for a human.
    let kept = (0..3).map(|number| listed(&cluster, number, "quarantine").len());
    assert!(kept.sum::<usize>() >= 4);
}
