//! Replication factors that change while the store runs, what the catalog keeps of them, and who is to
//! blame when chunks fall short (I23, I24, I25).

use dfs_e2e::cluster::{CALM_HEARTS, Cluster, SOON};
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::datanode::AdminState;
use dfs_tracker::TrackerConfig;
use dfs_tracker::store::rebuild::RebuildOptions;

use crate::kit::{CHUNK, CHUNK_BYTES, DEADLINE, Model, calm_options, wait_valid};
use crate::world::{id_of, post, post_ok, verdict, wait_admin};

fn with_factor(config: &mut TrackerConfig, factor: u32) {
    config.chunk_size = CHUNK;
    config.replication_factor = factor;
    config.heartbeat_interval = CALM_HEARTS;
    config.checkpoint_interval = std::time::Duration::from_secs(1);
}

/// Waits until each chunk of these files has exactly so many valid replicas.
async fn wait_replicas(store: &Store, wanted: &[(&str, usize)]) {
    for (path, wanted) in wanted {
        wait_valid(store, path, *wanted).await;
    }
}

async fn factor_of(store: &Store, path: &str) -> (u32, bool) {
    let file = store.chunks(path).await.unwrap();
    (file.factor, file.own_factor)
}

async fn set(store: &Store, path: &str, factor: &str) -> serde_json::Value {
    let uri = format!("/files/{path}?factor={factor}");
    post_ok(store, &uri).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_i23_factors_come_back_with_the_catalog_and_files_without_one_follow_the_clusters() {
    let mut cluster = Cluster::start(calm_options(4)).await;
    let mut model = Model::default();
    for name in ["own/a", "own/b", "plain", "back"] {
        model.put(&mut cluster, name, 2 * CHUNK_BYTES + 5).await;
    }
    let store = cluster.store();
    let answer = set(&store, "own/", "2").await;
    assert_eq!(
        (&answer["files"], &answer["changed"]),
        (&2.into(), &2.into())
    );
    assert_eq!(answer["bytes_to_free"], 2 * (2 * CHUNK_BYTES + 5));
    set(&store, "own/b", "4").await;
    set(&store, "back", "2").await;
    set(&store, "back", "default").await;
    let wanted = [("own/a", 2), ("own/b", 4), ("plain", 3), ("back", 3)];
    wait_replicas(&store, &wanted).await;
    // From checkpoints and journals alone.
    cluster.wipe_tracker().await;
    let all = [0, 1, 2, 3];
    let rebuilt = cluster.rebuild_tracker(&all, RebuildOptions::default());
    rebuilt.await.unwrap();
    cluster.start_tracker().await;
    let store = cluster.store();
    store.wait_ready(4, SOON).await;
    for (path, factor) in wanted {
        let own = path.starts_with("own/");
        assert_eq!(
            factor_of(&store, path).await,
            (u32::try_from(factor).unwrap(), own),
            "{path}"
        );
    }
    model.settle(&cluster).await;
    wait_replicas(&store, &wanted).await;
    // The cluster's factor, changed by a restart, in both directions.
    for factor in [4, 2] {
        cluster.kill_tracker().await;
        cluster.configure_tracker(match factor {
            4 => |config| with_factor(config, 4),
            _ => |config| with_factor(config, 2),
        });
        cluster.start_tracker().await;
        let store = cluster.store();
        store.wait_ready(4, SOON).await;
        assert_eq!(factor_of(&store, "plain").await, (factor, false));
        let factor = usize::try_from(factor).unwrap();
        let wanted = [
            ("own/a", 2),
            ("own/b", 4),
            ("plain", factor),
            ("back", factor),
        ];
        wait_replicas(&store, &wanted).await;
    }
    model.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i25_chunk_seconds_below_factor_by_removal_stay_zero_when_every_removal_has_its_proof() {
    let mut cluster = Cluster::start(calm_options(3)).await;
    let mut model = Model::default();
    model.put(&mut cluster, "f", CHUNK_BYTES).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    let id = id_of(&cluster, 0).await;
    let uri = format!("/nodes/{id}");
    let _ = post(&store, &format!("{uri}/decommission")).await.ok();
    // With three datanodes its chunks have nowhere to go: all can be read, none is lost.
    let status = store.wait_status("they are leaving", DEADLINE, |s| s.shortage.leaving > 0);
    let shortage = status.await.shortage;
    assert_eq!((shortage.removal, shortage.absence), (0, 0));
    assert!(!verdict(&store, id).await.safe);
    // Too early: whatever is answered, nobody may be the worse for it.
    let early = store.door.delete(&uri).await.unwrap();
    let seconds = "dfs_tracker_chunks_below_factor_seconds_total{cause=";
    let leaving = format!("{seconds}\"leaving\"}}");
    let removal = format!("{seconds}\"removal\"}}");
    let before = cluster.tracker.metric(&leaving) + cluster.tracker.metric(&removal);
    let counted = || cluster.tracker.metric(&leaving) + cluster.tracker.metric(&removal);
    eventually("time passes for its chunks", DEADLINE, || async {
        let now = counted();
        (now > before).then_some(()).ok_or_else(|| now.to_string())
    })
    .await;
    assert_eq!(cluster.tracker.metric(&removal), 0.0, "{early:?}");
    assert_eq!(early.status, http::StatusCode::CONFLICT);
    // With a fourth it goes, and still nothing fell short by it.
    cluster.add_datanode().await;
    wait_admin(&store, id, AdminState::Decommissioned).await;
    assert!(verdict(&store, id).await.safe);
    let _ = store.door.delete(&uri).await.unwrap().ok();
    cluster.kill_datanode(0).await;
    let left = store.wait_status("nothing falls short", DEADLINE, |status| {
        status.shortage.leaving + status.shortage.absence + status.shortage.removal == 0
    });
    assert_eq!(left.await.shortage.removal, 0);
    assert_eq!(cluster.tracker.metric(&removal), 0.0);
    assert!(store.get("f").await == model.bytes("f"));
}
