//! Who is in: the cluster token, admission by an administrator, refusals, lost volumes, and a tracker
//! whose catalog is gone. Whole clusters in the test's process.
#![allow(clippy::unwrap_used, clippy::panic)]
// Metrics are counted in whole steps, so they compare exactly; a scenario reads best in one piece.
#![allow(clippy::float_cmp, clippy::too_many_lines)]

use std::sync::Mutex;
use std::time::Duration;

use dfs_client::http::{empty, whole};
use dfs_e2e::cluster::{Cluster, Options, SOON};
use dfs_e2e::http::{Http, Reply};
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::admission::{CatalogState, CatalogStatus, Refusal, RefusalReason};
use dfs_protocol::datanode::{AdminState, DatanodeStats, Identity, Liveness, RegisterRequest};
use dfs_protocol::routes::is_public;
use dfs_protocol::status::DatanodeStatus;
use dfs_protocol::{ClusterId, DatanodeId, Fence, InstanceId};
use dfs_runtime::token::Tokens;
use dfs_tracker::AdmissionPolicy;
use http::Method;
use serde_json::{Value, json};

const TOKEN: &str = "the-token-of-this-cluster";
const DEADLINE: Duration = Duration::from_secs(90);
const CHUNK: u64 = 256 * 1024;

fn tokens() -> Tokens {
    Tokens::fixed(TOKEN).unwrap()
}

fn guarded(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.tokens = tokens();
        },
        datanode: |config| config.tokens = tokens(),
        ..Options::default()
    }
}

fn by_operator(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.tokens = tokens();
            config.admission = AdmissionPolicy::Operator;
        },
        datanode: |config| {
            config.tokens = tokens();
            let name = config.dir.file_name().unwrap().to_string_lossy();
            config.pod = Some(format!("pod-of-{name}"));
        },
        ..Options::default()
    }
}

/// The store, with the token.
fn store(cluster: &Cluster) -> Store {
    let open = cluster.store();
    Store {
        door: open.door.with_token(TOKEN),
    }
}

async fn post(store: &Store, path: &str, body: &Value) -> Reply {
    store.door.post_json(path, body).await.unwrap()
}

fn claim(number: usize, volume: &str) -> Value {
    json!({
        "pod": format!("pod-of-datanode-{number}"), "volume": volume,
        "host": format!("machine-{number}"), "zone": null,
    })
}

async fn identity(cluster: &Cluster, number: usize) -> Identity {
    let door = Http::new(&cluster.datanodes[number].address).with_token(TOKEN);
    door.get("/identity").await.unwrap().ok().json()
}

async fn node(store: &Store, id: DatanodeId) -> Option<DatanodeStatus> {
    let nodes = store.nodes().await.unwrap();
    nodes.into_iter().find(|node| node.id == id)
}

/// Waits until a datanode waits, and gives its id.
async fn waits(cluster: &Cluster, number: usize) -> DatanodeId {
    let store = store(cluster);
    let address = cluster.datanodes[number].address.to_string();
    eventually("the datanode is pending", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let is_it =
            |node: &&DatanodeStatus| node.address == address && node.admin == AdminState::Pending;
        nodes
            .iter()
            .find(is_it)
            .map(|node| node.id)
            .ok_or_else(|| format!("{nodes:?}"))
    })
    .await
}

async fn admit(cluster: &Cluster, number: usize) -> DatanodeId {
    let id = waits(cluster, number).await;
    let path = format!("/nodes/{id}/admit");
    let body = claim(number, &format!("volume-{number}"));
    let admitted: DatanodeStatus = post(&store(cluster), &path, &body).await.ok().json();
    assert_eq!(admitted.admin, AdminState::InService);
    assert_eq!(admitted.volume, Some(format!("volume-{number}")));
    assert_eq!(admitted.host, Some(format!("machine-{number}")));
    id
}

async fn dead(store: &Store, id: DatanodeId) {
    eventually("the datanode is dead", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let found = nodes.iter().find(|node| node.id == id).unwrap();
        let is_dead = found.liveness == Liveness::Dead;
        is_dead.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
}

async fn refusals(store: &Store) -> Vec<Refusal> {
    store.door.get("/refusals").await.unwrap().ok().json()
}

async fn refused_for(store: &Store, reason: RefusalReason) -> Option<Refusal> {
    let all = refusals(store).await;
    all.into_iter().rev().find(|line| line.reason == reason)
}

async fn ask(door: &Http, method: &str, path: &str, token: Option<&str>) -> Reply {
    let mut door = door.clone();
    door.token = token.map(str::to_owned);
    let method: Method = method.parse().unwrap();
    door.send(method, path, &[], empty()).await.unwrap()
}

/// 401 without a token and with a wrong one, and says what to do.
async fn is_closed(door: &Http, method: &str, path: &str) {
    for token in [None, Some("a-wrong-token"), Some("")] {
        let reply = ask(door, method, path, token).await;
        assert_eq!(
            reply.status,
            401,
            "{method} {path} {token:?}: {}",
            reply.text()
        );
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
        if method != "HEAD" {
            let problem: Value = reply.json();
            assert_eq!(problem["type"], "urn:dfs:problem:unauthorized");
            assert!(problem["next"].as_str().unwrap().contains("--token-file"));
        }
    }
}

const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];

#[tokio::test(flavor = "multi_thread")]
async fn i35_every_route_of_tracker_and_datanodes_needs_the_token_unless_it_is_public() {
    let mut cluster = Cluster::start(guarded(3)).await;
    let open = cluster.store().door;
    let document: Value = open.get("/openapi.json").await.unwrap().ok().json();
    let id = "0".repeat(32);
    let concrete = |path: &str| path.replace("{id}", &id).replace("{name}", "status");
    let (mut closed, mut public) = (0, 0);
    // What people call, by the served document; another test holds it against the routers.
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = concrete(path).replace("{path}", "x");
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if is_public(&method, &path) {
                public += 1;
                assert_ne!(
                    ask(&open, &method, &path, None).await.status,
                    401,
                    "{method} {path}"
                );
            } else {
                closed += 1;
                is_closed(&open, &method, &path).await;
            }
        }
    }
    assert!(
        public >= 12 && closed >= 20,
        "{public} public, {closed} closed"
    );
    // The tracker's own routes by its router's table, those between roles included.
    for path in dfs_tracker::http::paths() {
        for method in METHODS {
            is_closed(&open, method, &concrete(&path)).await;
        }
    }
    // Datanodes have no public route.
    let datanode = Http::new(&cluster.datanodes[0].address);
    for path in dfs_datanode::http::paths() {
        for method in METHODS {
            is_closed(&datanode, method, &concrete(path)).await;
        }
    }
    assert_eq!(
        ask(&datanode, "GET", "/identity", Some(TOKEN)).await.status,
        200
    );
    assert_eq!(ask(&open, "GET", "/nodes", Some(TOKEN)).await.status, 200);
    // Roles show each other the token: chains, journals, reads, and the copies of repair.
    let bytes = cluster.bytes(700_000);
    let stored = cluster.store().put("a", bytes.clone()).await;
    assert_eq!(stored.replica_count, 3);
    let added = cluster.add_datanode().await;
    cluster.kill_datanode(0).await;
    let guarded = store(&cluster);
    guarded.wait_repaired(DEADLINE).await;
    assert!(cluster.datanodes[added].metric("dfs_datanode") > 0.0);
    assert!(cluster.store().get("a").await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_with_a_wrong_token_is_refused_and_seen() {
    let mut cluster = Cluster::start(guarded(2)).await;
    let guarded = store(&cluster);
    for _ in 0..2 {
        let reply = ask(&cluster.store().door, "POST", "/register", Some("wrong")).await;
        assert_eq!(reply.status, 401);
    }
    let seen = refused_for(&guarded, RefusalReason::WrongToken)
        .await
        .unwrap();
    assert_eq!(
        (seen.datanode, seen.address.as_str(), seen.count),
        (None, "127.0.0.1", 2)
    );
    let metric = "registrations_refused_total{reason=\"wrong-token\"}";
    assert_eq!(cluster.tracker.metric(metric), 2.0);
    cluster.kill_tracker().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_datanode_takes_part_in_nothing_until_it_is_admitted() {
    let mut cluster = Cluster::launch(by_operator(3)).await;
    let guarded = store(&cluster);
    for number in 0..3 {
        let id = waits(&cluster, number).await;
        let seen = node(&guarded, id).await.unwrap();
        assert_eq!(seen.pod, Some(format!("pod-of-datanode-{number}")));
        assert_eq!((seen.volume, seen.liveness), (None, Liveness::Live));
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
    assert_eq!(guarded.put("a", bytes.clone()).await.replica_count, 3);
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
    // Longer than the repair delay of these clusters.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = guarded.status().await.unwrap();
    assert_eq!(
        (status.datanodes.registered, status.datanodes.pending),
        (3, 1)
    );
    assert_eq!((status.repair_held, status.safe_mode), (None, None));
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
    assert_eq!(node(&guarded, id).await.unwrap().liveness, Liveness::Live);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_volume_is_taken_out_and_repaired_at_once() {
    let mut cluster = Cluster::start(Options {
        datanodes: 4,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.repair_delay = Duration::from_hours(1);
        },
        ..Options::default()
    })
    .await;
    let open = cluster.store();
    let bytes = cluster.bytes(500_000);
    let stored = open.put("a", bytes.clone()).await;
    let holder = stored.replicas[0];
    let number = cluster.number_of(holder).await;
    let lost = format!("/nodes/{holder}/lost");
    let reply = ask(&open.door, "POST", &lost, None).await;
    assert_eq!(reply.status, 409, "it is alive: {}", reply.text());
    cluster.kill_datanode(number).await;
    dead(&open, holder).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(open.status().await.unwrap().chunks[&dfs_protocol::status::ChunkHealth::Healthy] == 0);
    let _taken_out = ask(&open.door, "POST", &lost, None).await.ok();
    open.wait_repaired(DEADLINE).await;
    assert!(node(&open, holder).await.is_none());
    assert!(open.get("a").await == bytes);
    // If it comes back after all, it starts anew.
    cluster.start_datanode(number).await;
    open.wait_ready(4, SOON).await;
    assert_ne!(identity(&cluster, number).await.datanode, holder);
    assert!(
        refused_for(&open, RefusalReason::Tombstoned)
            .await
            .is_some()
    );
    open.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i01_the_only_remaining_replica_is_given_up_by_nobody_unasked() {
    let mut cluster = Cluster::start(Options {
        datanodes: 2,
        tracker: |config| config.replication_factor = 1,
        ..Options::default()
    })
    .await;
    let open = cluster.store();
    let holder = open.put("only", vec![1; 5000]).await.replicas[0];
    let number = cluster.number_of(holder).await;
    cluster.kill_datanode(number).await;
    dead(&open, holder).await;
    let lost = format!("/nodes/{holder}/lost");
    for restarted in [false, true] {
        if restarted {
            // This tracker never heard of what the datanode holds.
            cluster.kill_tracker().await;
            cluster.start_tracker().await;
            dead(&open, holder).await;
            open.wait_status("safe mode is over", DEADLINE, |status| {
                status.safe_mode.is_none()
            })
            .await;
        }
        let reply = post(&open, &lost, &json!({})).await;
        assert_eq!(reply.status, 409, "{}", reply.text());
        assert!(reply.text().contains("accept_loss"), "{}", reply.text());
        assert!(node(&open, holder).await.is_some());
    }
    let _given_up = post(&open, &lost, &json!({"accept_loss": true})).await.ok();
    assert!(node(&open, holder).await.is_none());
    assert_eq!(open.try_get("only").await.unwrap().status, 503);
}

/// What trackers of the next test expect.
static EXPECTED: Mutex<Option<ClusterId>> = Mutex::new(None);

async fn catalog(door: &Http) -> CatalogStatus {
    door.get("/catalog").await.unwrap().ok().json()
}

async fn catalog_becomes(door: &Http, state: CatalogState) -> CatalogStatus {
    eventually("the catalog's state", DEADLINE, || async {
        let now = catalog(door).await;
        if now.state == state {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn i34_a_tracker_that_lost_its_catalog_denies_no_file_makes_no_cluster_and_is_rebuilt_in_place()
 {
    let mut options = guarded(3);
    options.tracker = |config| {
        config.chunk_size = CHUNK;
        config.tokens = tokens();
        config.expect_cluster = *EXPECTED.lock().unwrap();
    };
    let mut cluster = Cluster::start(options).await;
    let guarded = store(&cluster);
    let own = guarded.status().await.unwrap().cluster;
    let bytes = cluster.bytes(600_000);
    guarded.put("kept", bytes.clone()).await;
    assert_eq!(catalog(&guarded.door).await.state, CatalogState::Open);
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &json!({"datanodes": ["x:1"]}))
            .await
            .status,
        409
    );
    *EXPECTED.lock().unwrap() = Some(own);
    cluster.wipe_tracker().await;
    cluster.start_tracker().await;
    let status = catalog_becomes(&guarded.door, CatalogState::Lost).await;
    assert_eq!(status.cluster, own);
    for path in [
        "/files/kept",
        "/files/never",
        "/files?list",
        "/download/kept",
        "/status",
        "/nodes",
    ] {
        let reply = guarded.door.get(path).await.unwrap();
        assert_eq!(reply.status, 503, "{path}: {}", reply.text());
        assert!(
            reply.text().contains("catalog-lost"),
            "{path}: {}",
            reply.text()
        );
        assert!(!reply.header("retry-after").is_empty());
    }
    assert_eq!(guarded.try_put("new", vec![1]).await.unwrap().status, 503);
    is_closed(&cluster.store().door, "GET", "/catalog").await;
    is_closed(&cluster.store().door, "POST", "/catalog/rebuild").await;
    assert_eq!(cluster.tracker.metric("dfs_tracker_catalog_lost"), 1.0);
    // A rebuild that fails leaves nothing behind and says why.
    let nobody = json!({"datanodes": ["127.0.0.1:9"]});
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &nobody).await.status,
        202
    );
    let failed = eventually("the rebuild failed", DEADLINE, || async {
        let now = catalog(&guarded.door).await;
        let is_over = now.state == CatalogState::Lost && now.detail.contains("failed");
        is_over
            .then_some(now.clone())
            .ok_or_else(|| format!("{now:?}"))
    })
    .await;
    assert!(failed.detail.contains("127.0.0.1:9"), "{failed:?}");
    assert!(!cluster.tracker.dir.join("catalog.redb").exists());
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &json!({"datanodes": []}))
            .await
            .status,
        400
    );
    // Still lost after another restart, whatever a process that died at once left.
    cluster.kill_tracker().await;
    std::fs::write(cluster.tracker.dir.join("rebuild.unfinished"), "x").unwrap();
    cluster.start_tracker().await;
    catalog_becomes(&guarded.door, CatalogState::Lost).await;
    let all: Vec<String> = cluster
        .datanodes
        .iter()
        .map(|role| role.address.to_string())
        .collect();
    assert_eq!(
        post(&guarded, "/catalog/rebuild", &json!({"datanodes": all}))
            .await
            .status,
        202
    );
    guarded.wait_ready(3, DEADLINE).await;
    assert_eq!(catalog(&guarded.door).await.state, CatalogState::Open);
    assert_eq!(guarded.status().await.unwrap().cluster, own);
    assert!(guarded.get("kept").await == bytes);
    assert_eq!(guarded.try_get("never").await.unwrap().status, 404);
    guarded.put("new", vec![1; 100]).await;
    guarded.wait_fsck_clean(DEADLINE).await;
    assert_eq!(cluster.tracker.metric("dfs_tracker_catalog_lost"), 0.0);
    // A whole catalog that is another cluster's is left alone.
    *EXPECTED.lock().unwrap() = Some(ClusterId::from_u128(1));
    cluster.kill_tracker().await;
    cluster.start_tracker().await;
    let reason = eventually("the tracker refuses to start", DEADLINE, || async {
        cluster.tracker.ended().ok_or_else(|| "it runs".to_owned())
    })
    .await;
    assert!(reason.contains("--expect-cluster"), "{reason}");
}
