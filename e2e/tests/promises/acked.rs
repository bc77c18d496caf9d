//! What an acknowledgement is worth: the loss of all but one named datanode (I1), a power cut of
//! everything (I2), uploads that were not acknowledged (I3).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_e2e::cluster::Cluster;
use dfs_e2e::ledger::{Content, sha256_hex};
use dfs_e2e::store::{Store, says_later};
use dfs_e2e::wait::eventually;
use dfs_protocol::datanode::AdminState;
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kit::{CHUNK_BYTES, DEADLINE, Model, calm_options, options};
use crate::world::{id_of, node, post};

#[tokio::test(flavor = "multi_thread")]
async fn i01_any_single_named_datanode_is_enough_to_read_what_was_acknowledged() {
    for survivor in 0..3 {
        let mut cluster = Cluster::start(options(4)).await;
        let store = cluster.store();
        let mut model = Model::default();
        model.put(&mut cluster, "empty", 0).await;
        for (path, size) in [("small", 1), ("big", 4 * CHUNK_BYTES + 1)] {
            let stored = model.put(&mut cluster, path, size).await;
            assert_eq!((stored.replica_count, stored.wanted), (3, 3), "{path}");
            assert_eq!(stored.replicas.len(), 3, "{path}");
        }
        // The two files may lie on different datanodes; the answer of the second is tried.
        let stored = model.put(&mut cluster, "last", 2 * CHUNK_BYTES).await;
        let digest = sha256_hex(&model.bytes("last"));
        for (index, id) in stored.replicas.iter().enumerate() {
            if index != survivor {
                let number = cluster.number_of(*id).await;
                cluster.wipe_datanode(number).await;
            }
        }
        assert_eq!(sha256_hex(&store.get("last").await), digest);
        // Four datanodes, two gone: every other file has a replica left as well.
        model.check(&store).await;
        for number in 0..4 {
            cluster.start_datanode(number).await;
        }
        store.wait_ready(4, DEADLINE).await;
        store.wait_repaired(DEADLINE).await;
        model.settle(&cluster).await;
    }
}

/// What one writer was told, and what it asked for without an answer.
#[derive(Debug, Default)]
struct Heard {
    acked: BTreeMap<String, Content>,
    /// At most one: the last.
    open: Option<(String, Content)>,
}

/// Stores file after file, new paths and old ones, until the store breaks away.
async fn write_on(store: Store, name: String, seed: u64, acks: Arc<AtomicU64>) -> Heard {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut heard = Heard::default();
    for number in 0.. {
        let path = format!("{name}-{}", number % 5);
        let size = match rng.u8(..3) {
            0 => rng.usize(..100),
            1 => rng.usize(..CHUNK_BYTES),
            _ => rng.usize(CHUNK_BYTES..3 * CHUNK_BYTES),
        };
        let mut bytes = vec![0; size];
        rng.fill(&mut bytes);
        let content = Content::of(&bytes);
        heard.open = Some((path.clone(), content.clone()));
        let bytes = Bytes::from(bytes);
        let answer = loop {
            match store.try_put(&path, bytes.clone()).await {
                Ok(reply) if says_later(&reply) => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        match answer {
            Ok(reply) if reply.status.is_success() => {
                heard.acked.insert(path, content);
                heard.open = None;
                acks.fetch_add(1, Ordering::SeqCst);
            }
            Ok(_) | Err(_) => break,
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn i02_i03_fault_06_a_power_cut_amid_uploads_keeps_acks_and_leaves_no_part() {
    let mut cluster = Cluster::start(calm_options(3)).await;
    let mut known: BTreeMap<String, Content> = BTreeMap::new();
    for round in 0..5u64 {
        let acks = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let seed = cluster.rng.u64(..);
                let name = format!("w{writer}");
                tokio::spawn(write_on(cluster.store(), name, seed, acks.clone()))
            })
            .collect();
        let enough = 4 + cluster.rng.u64(..12);
        eventually("some uploads are acknowledged", DEADLINE, || async {
            let count = acks.load(Ordering::SeqCst);
            (count >= enough).then_some(()).ok_or(count.to_string())
        })
        .await;
        cluster.power_cut_all(round > 0).await;
        let mut open = Vec::new();
        for writer in writers {
            let heard = writer.await.unwrap();
            known.extend(heard.acked);
            open.extend(heard.open);
        }
        assert!(!open.is_empty(), "nothing was in flight");
        cluster.start_all().await;
        let store = cluster.store();
        for (path, content) in open {
            settle_open(&store, &mut known, path, content).await;
        }
        check_known(&store, &known).await;
    }
    let verdict = cluster.store().wait_fsck_clean(DEADLINE).await;
    assert_eq!(verdict.files, known.len() as u64);
    check_known(&cluster.store(), &known).await;
}

/// What was in flight is there whole or not at all; what is found counts from now on.
async fn settle_open(
    store: &Store,
    known: &mut BTreeMap<String, Content>,
    path: String,
    content: Content,
) {
    let found = store.content(&path).await.unwrap();
    if found.as_ref() == Some(&content) {
        known.insert(path, content);
    } else {
        assert_eq!(
            found.as_ref(),
            known.get(&path),
            "{path} holds neither before nor after"
        );
    }
}

async fn check_known(store: &Store, known: &BTreeMap<String, Content>) {
    let listed = store.list("").await;
    assert_eq!(listed, known.keys().cloned().collect::<Vec<_>>());
    for (path, content) in known {
        let found = store.content(path).await.unwrap();
        assert_eq!(found.as_ref(), Some(content), "{path}");
        let head = store.door.head(&format!("/files/{path}")).await.unwrap();
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.header("content-length"), content.size.to_string());
    }
}

/// Sends a whole file and hangs up without waiting for the answer.
async fn send_and_hang_up(cluster: &Cluster, path: &str, body: &[u8], patience: Duration) {
    let mut stream = TcpStream::connect(cluster.tracker.address).await.unwrap();
    let head = format!(
        "PUT /files/{path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    // Not a wait for anything: where in the commit the client is gone is what varies.
    tokio::time::sleep(patience).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i03_i25_fault_23_who_hangs_up_after_the_last_byte_leaves_a_whole_file_or_none() {
    let mut cluster = Cluster::start(calm_options(4)).await;
    let store = cluster.store();
    let mut model = Model::default();
    // How long a whole upload takes here and now: on a slow machine patience is longer too.
    let began = std::time::Instant::now();
    model.put(&mut cluster, "first", 500).await;
    let mut whole = u64::try_from(began.elapsed().as_micros().clamp(1000, 300_000)).unwrap();
    for number in 0..120 {
        // It became slower since.
        if number % 30 == 29 && store.list("dropped/").await.is_empty() {
            whole *= 4;
        }
        let bytes = cluster.bytes(500);
        let patience = Duration::from_micros(cluster.rng.u64(0..3 * whole));
        let path = format!("dropped/{number}");
        send_and_hang_up(&cluster, &path, &bytes, patience).await;
        model.note(&path, bytes.into());
    }
    // Whatever was still under way is over once a later change is answered.
    model.put(&mut cluster, "last", 500).await;
    let there = store.list("dropped/").await;
    eprintln!("{} of 120 took effect", there.len());
    assert!(!there.is_empty(), "nobody hung up after the commit began");
    for path in &there {
        assert!(store.get(path).await == model.bytes(path), "{path}");
    }
    store.wait_fsck_clean(DEADLINE).await;
    // A datanode goes: the verdict must have counted those files too.
    let leaving = id_of(&cluster, 0).await;
    let _ = post(&store, &format!("/nodes/{leaving}/decommission"))
        .await
        .ok();
    eventually("it is decommissioned", DEADLINE, || async {
        let seen = node(&store, leaving).await;
        let gone = seen
            .as_ref()
            .is_some_and(|seen| seen.admin == AdminState::Decommissioned);
        gone.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    cluster.kill_datanode(0).await;
    for path in &there {
        assert!(store.get(path).await == model.bytes(path), "{path}");
    }
}
