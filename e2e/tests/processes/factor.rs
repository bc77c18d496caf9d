//! A factor is raised and lowered while somebody reads and the tracker is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use dfs_client::http::empty;
use dfs_e2e::store::{Store, patiently};
use dfs_e2e::wait::eventually;
use dfs_protocol::status::ReplicaState;
use http::{Method, StatusCode};

use crate::fleet::{CHUNK, DEADLINE, Fleet, Options, bytes, seeded};

/// Reads every file over and over: what is served is right, or nothing is.
#[derive(Debug)]
struct Reader {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    fn start(store: Store, files: BTreeMap<String, Bytes>) -> Self {
        let (stop, reads) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (stop.clone(), reads.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                for (path, content) in &files {
                    match store.try_get(path).await {
                        Ok(reply) if reply.status == StatusCode::OK => {
                            assert!(reply.body == *content, "{path} is not what was stored");
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                        // The tracker is away, or gathers reports.
                        Ok(reply) => assert_ne!(reply.status, StatusCode::NOT_FOUND, "{path}"),
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            }
        });
        Self { stop, reads, task }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.reads.load(Ordering::SeqCst)
    }
}

async fn set(store: &Store, path: &str, factor: u32) -> serde_json::Value {
    let uri = format!("/files/{path}?factor={factor}");
    let post = || store.door.send(Method::POST, &uri, &[], empty());
    patiently(&uri, post).await.ok().json()
}

/// Waits for exactly so many replicas of each chunk; meanwhile none has fewer than `never_below`.
async fn wait_replicas(store: &Store, path: &str, wanted: usize, never_below: usize) {
    let what = format!("{path} has {wanted} replicas");
    eventually(&what, DEADLINE, || async {
        let file = store.chunks(path).await?;
        let (mut counts, mut known) = (Vec::new(), Vec::new());
        for chunk in &file.chunks {
            let on = |state| chunk.replicas.iter().filter(|r| r.state == state).count();
            counts.push(on(ReplicaState::Valid));
            // A datanode that looks silent for a moment has lost nothing.
            known.push(on(ReplicaState::Valid) + on(ReplicaState::Unreachable));
        }
        assert!(
            known.iter().all(|count| *count >= never_below),
            "{path}: {known:?}"
        );
        if counts.iter().all(|count| *count == wanted) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i18_i24_a_reader_notices_nothing_while_factors_go_up_and_down_and_the_tracker_is_killed() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options {
        tracker: ["--replication", "2"].map(str::to_owned).into(),
        ..Options::calm(4)
    })
    .await;
    let store = fleet.store();
    let mut files = BTreeMap::new();
    for name in ["d/0", "d/1", "d/2", "d/3", "one", "plain"] {
        let content = bytes(&mut rng, 2 * CHUNK + 77);
        store.put(name, content.clone()).await;
        files.insert(name.to_owned(), content);
    }
    let reader = Reader::start(fleet.store(), files.clone());
    for (up, down) in [(3, 2), (4, 3)] {
        for (factor, before) in [(up, None), (down, Some(down))] {
            let answer = set(&store, "d/", factor).await;
            assert_eq!(answer["files"], 4);
            set(&store, "one", factor).await;
            // Acknowledged is durable, and repair goes on by itself.
            fleet.tracker.process.kill_9().unwrap();
            fleet.tracker.process.restart().unwrap();
            fleet.wait_ready().await;
            let factor = usize::try_from(factor).unwrap();
            let floor = before.map_or(2, |factor| usize::try_from(factor).unwrap());
            for path in ["d/0", "d/1", "d/2", "d/3", "one"] {
                wait_replicas(&store, path, factor, floor).await;
            }
            wait_replicas(&store, "plain", 2, 2).await;
        }
    }
    let reads = reader.stop().await;
    assert!(reads > 0);
    for (path, content) in &files {
        assert!(store.get(path).await == *content, "{path}");
    }
    store.wait_fsck_clean(DEADLINE).await;
}
