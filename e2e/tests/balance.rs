//! Even volumes, spread over hosts and zones, excess after a return, and the story of it all, on
//! whole clusters.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dfs_datanode::DatanodeConfig;
use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options};
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;
use dfs_protocol::DatanodeId;
use dfs_protocol::events::{Event, EventKind};
use dfs_protocol::status::{ChunkHealth, ClusterStatus, DatanodeStatus, ReplicaState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_mins(3);
const CHUNK: u64 = 128 * 1024;

fn options(datanodes: usize, datanode: fn(&mut DatanodeConfig)) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            // A test's volumes hold megabytes.
            config.rebalance_slack = 64 * 1024;
        },
        datanode,
        gateway: |config| config.pool_max_age = Duration::from_secs(1),
        ..Options::default()
    }
}

/// The number in the name of the datanode's directory.
fn number(config: &DatanodeConfig) -> usize {
    let name = config.dir.file_name().unwrap().to_str().unwrap();
    name.strip_prefix("datanode-").unwrap().parse().unwrap()
}

/// `zone-1`, `zone-2`, `zone-3` in turn.
fn three_zones(config: &mut DatanodeConfig) {
    config.zone = Some(format!("zone-{}", number(config) % 3 + 1));
}

async fn fill(cluster: &mut Cluster, files: usize) -> BTreeMap<String, Bytes> {
    let mut kept = BTreeMap::new();
    for n in 0..files {
        let bytes = Bytes::from(cluster.bytes(200_000 + n * 7_919 % 200_000));
        let path = format!("f{n}");
        cluster.store().put(&path, bytes.clone()).await;
        kept.insert(path, bytes);
    }
    kept
}

async fn check(store: &Store, files: &BTreeMap<String, Bytes>) {
    for (path, bytes) in files {
        assert!(store.get(path).await == *bytes, "{path}");
    }
    store.wait_fsck_clean(DEADLINE).await;
}

/// How far apart the used bytes are, as a part of the largest.
fn apart(nodes: &[DatanodeStatus], zone: Option<&str>) -> f64 {
    let among = nodes.iter().filter(|node| node.zone.as_deref() == zone);
    let used: Vec<u64> = among.map(|node| node.stats.used_bytes).collect();
    let (most, least) = (used.iter().max().unwrap(), used.iter().min().unwrap());
    (most - least) as f64 / *most as f64
}

async fn wait_even(store: &Store, zones: &[Option<&str>]) -> ClusterStatus {
    eventually("the datanodes are even", DEADLINE, || async {
        let (status, nodes) = (store.status().await?, store.nodes().await?);
        let even = zones.iter().all(|zone| apart(&nodes, *zone) <= 0.1);
        let rests = !status.rebalance.running && status.rebalance.active == 0;
        if even && rests && status.healthy {
            return Ok(status);
        }
        let used: Vec<u64> = nodes.iter().map(|node| node.stats.used_bytes).collect();
        Err(format!("{used:?}, {:#?}", status.rebalance))
    })
    .await
}

async fn kept_events(store: &Store) -> Vec<Event> {
    let reply = store.door.get("/events?format=json").await.unwrap();
    reply.ok().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn i22_after_three_datanodes_became_five_each_zone_is_even_and_stays_spread() {
    // A datanode that looks silent for a moment would be made up for, and the volumes evened again.
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            (options(3, three_zones).tracker)(config);
            config.heartbeat_interval = CALM_HEARTS;
        },
        ..options(3, three_zones)
    })
    .await;
    let files = fill(&mut cluster, 24).await;
    for _ in 0..2 {
        cluster.add_datanode().await;
    }
    let store = cluster.store();
    store.wait_ready(5, DEADLINE).await;
    let zones = [Some("zone-1"), Some("zone-2"), Some("zone-3")];
    let status = wait_even(&store, &zones).await;
    assert!(status.rebalance.moved_bytes > 0 && status.rebalance.bytes_to_go == 0);
    assert!(status.spread.possible, "{}", status.spread.sentence);
    assert_eq!((status.spread.zones, status.spread.hosts), (3, 5));
    let zone_of: BTreeMap<DatanodeId, Option<String>> = store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .map(|node| (node.id, node.zone))
        .collect();
    for path in files.keys() {
        for chunk in store.chunks(path).await.unwrap().chunks {
            let held: BTreeSet<_> = chunk
                .replicas
                .iter()
                .map(|r| &zone_of[&r.datanode])
                .collect();
            assert_eq!(held.len(), 3, "{path}: {chunk:?}");
        }
    }
    check(&store, &files).await;
    let events = kept_events(&store).await;
    assert!(events.is_sorted_by(|a, b| a.id < b.id));
    let at = |kind| events.iter().position(|event| event.kind == kind);
    let (began, ended) = (at(EventKind::RebalanceBegan), at(EventKind::RebalanceEnded));
    assert!(began.is_some() && began < ended, "{events:#?}");
    let moved = events[ended.unwrap()].count.unwrap();
    assert!(moved > 0);
    // It rests: what moved does not move back.
    let before = cluster
        .tracker
        .metric("rebalance_moves_total{outcome=\"done\"}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = cluster
        .tracker
        .metric("rebalance_moves_total{outcome=\"done\"}");
    assert!(before >= moved as f64 && (later - before).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn i24_a_tracker_that_restarts_amid_moves_loses_nothing_and_ends_even() {
    let mut cluster = Cluster::start(options(3, |_| {})).await;
    let files = fill(&mut cluster, 24).await;
    for _ in 0..2 {
        cluster.add_datanode().await;
    }
    let moving = |status: &ClusterStatus| status.rebalance.active > 0;
    let store = cluster.store();
    store.wait_status("replicas move", DEADLINE, moving).await;
    cluster.restart_tracker().await;
    let store = cluster.store();
    wait_even(&store, &[None]).await;
    check(&store, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i24_a_power_cut_datanode_that_returns_after_the_repair_leaves_no_excess() {
    let mut cluster = Cluster::start(options(5, three_zones)).await;
    let files = fill(&mut cluster, 12).await;
    let store = cluster.store();
    store.wait_repaired(DEADLINE).await;
    let victim = 1;
    let address = cluster.datanodes[victim].address.to_string();
    let nodes = store.nodes().await.unwrap();
    let gone = nodes
        .iter()
        .find(|node| node.address == address)
        .unwrap()
        .id;
    cluster.power_cut_datanode(victim, true).await;
    // Told and not only seen: the story looks at the datanodes now and then.
    eventually("its death is told", DEADLINE, || async {
        let events = kept_events(&store).await;
        let dead =
            |event: &Event| event.kind == EventKind::DatanodeDead && event.datanode == Some(gone);
        let told = events.iter().any(dead);
        told.then_some(()).ok_or_else(|| format!("{events:#?}"))
    })
    .await;
    // Zone 2 is left with datanode 4: all goes there, and the spread is as it was.
    store.wait_repaired(DEADLINE).await;
    cluster.start_datanode(victim).await;
    store.wait_ready(5, DEADLINE).await;
    let status = store.wait_healthy(DEADLINE).await;
    assert_eq!(status.spread.badly_spread, 0);
    eventually("every chunk has three replicas", DEADLINE, || async {
        for path in files.keys() {
            for chunk in store.chunks(path).await?.chunks {
                let valid = |state: &ReplicaState| *state == ReplicaState::Valid;
                let count = chunk.replicas.iter().filter(|r| valid(&r.state)).count();
                if count != 3 || chunk.health != ChunkHealth::Healthy {
                    return Err(format!("{path}: {chunk:?}"));
                }
            }
        }
        Ok(())
    })
    .await;
    check(&store, &files).await;
    let events = kept_events(&store).await;
    let told = |kind, of| {
        let tells = |event: &&Event| event.kind == kind && event.datanode == of;
        events.iter().filter(tells).count()
    };
    // Of the victim alone, and until its return: on a machine that stalls anybody may look dead for a moment.
    let back =
        |event: &Event| event.kind == EventKind::DatanodeReturned && event.datanode == Some(gone);
    let first = events.iter().position(back);
    let away = &events[..first.unwrap_or_else(|| panic!("no return: {events:#?}"))];
    let dead =
        |event: &&Event| event.kind == EventKind::DatanodeDead && event.datanode == Some(gone);
    assert_eq!(away.iter().filter(dead).count(), 1, "{events:#?}");
    assert!(told(EventKind::RepairBegan, None) >= 1 && told(EventKind::RepairEnded, None) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i22_replicas_that_find_too_few_hosts_are_told_of_and_spread_when_one_comes() {
    let two_hosts = |config: &mut DatanodeConfig| {
        let host = ["a", "a", "b", "c"][number(config)];
        config.host = Some(host.to_owned());
    };
    let mut cluster = Cluster::start(options(3, two_hosts)).await;
    let files = fill(&mut cluster, 4).await;
    let store = cluster.store();
    let status = store
        .wait_status("the chunks are judged", DEADLINE, |status| {
            status.spread.badly_spread >= 4
        })
        .await;
    assert!(!status.spread.possible);
    assert_eq!(
        status.spread.sentence,
        "3 replicas wanted, datanodes on 2 hosts"
    );
    assert!(
        status.summary.contains(&status.spread.sentence),
        "{}",
        status.summary
    );
    let ordered = "repair_copies_total{priority=\"badly-spread\"}";
    assert!(
        cluster.tracker.metric(ordered) < 0.5,
        "nothing is copied in vain"
    );
    cluster.add_datanode().await;
    store
        .wait_status("the spread is as wanted", DEADLINE, |status| {
            status.spread.possible && status.spread.badly_spread == 0
        })
        .await;
    assert!(cluster.tracker.metric(ordered) > 0.5);
    check(&store, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i22_a_datanode_that_comes_back_on_another_host_is_judged_anew() {
    // Datanode 2 runs on host-0 once its volume was carried there.
    let hosts = |config: &mut DatanodeConfig| {
        let host = match number(config) {
            2 if config.dir.join("moved").exists() => "host-0".to_owned(),
            n => format!("host-{n}"),
        };
        config.host = Some(host);
    };
    let mut cluster = Cluster::start(options(4, hosts)).await;
    let files = fill(&mut cluster, 6).await;
    let store = cluster.store();
    store.wait_healthy(DEADLINE).await;
    cluster.kill_datanode(2).await;
    std::fs::write(cluster.datanodes[2].dir.join("moved"), "").unwrap();
    cluster.start_datanode(2).await;
    let both = |status: &ClusterStatus| status.spread.hosts == 3;
    store.wait_status("it is on host-0", DEADLINE, both).await;
    store
        .wait_status("no two replicas share host-0", DEADLINE, |status| {
            status.spread.badly_spread == 0 && status.healthy
        })
        .await;
    check(&store, &files).await;
}

/// Reads a stream until its text holds all of `parts`.
async fn read_until(stream: &mut TcpStream, text: &mut String, parts: &[&str]) {
    let read = async {
        let mut buffer = [0; 4096];
        while !parts.iter().all(|part| text.contains(part)) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, read).await;
    assert!(in_time.is_ok(), "{parts:?} is not in {text}");
}

async fn open_stream(cluster: &Cluster, target: &str, header: &str) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.tracker.address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_is_streamed_resumed_and_ends_with_the_tracker() {
    let mut cluster = Cluster::start(options(3, |_| {})).await;
    let mut stream = open_stream(&cluster, "/events", "").await;
    let mut text = String::new();
    let opening = ["text/event-stream", "retry: 3000"];
    read_until(&mut stream, &mut text, &opening).await;
    assert!(
        !text.contains("event: datanode-joined"),
        "from now on: {text}"
    );
    cluster.add_datanode().await;
    read_until(&mut stream, &mut text, &["event: datanode-joined", "\n\n"]).await;
    cluster.kill_datanode(3).await;
    read_until(
        &mut stream,
        &mut text,
        &["event: datanode-suspect", "event: datanode-dead"],
    )
    .await;
    let store = cluster.store();
    let events = kept_events(&store).await;
    let joined: Vec<&Event> = events
        .iter()
        .filter(|event| event.kind == EventKind::DatanodeJoined)
        .collect();
    assert_eq!(joined.len(), 4, "{events:#?}");
    assert!(joined.iter().all(|event| event.datanode.is_some()));
    // Others may have looked dead for a moment, on a machine that stalls.
    let newcomer = joined[3].datanode;
    let dead = eventually("its death is told", DEADLINE, || async {
        let events = kept_events(&store).await;
        let is_its =
            |event: &&Event| event.kind == EventKind::DatanodeDead && event.datanode == newcomer;
        let found = events.iter().find(is_its).map(|event| event.id);
        found.ok_or_else(|| format!("{events:#?}"))
    })
    .await;
    read_until(&mut stream, &mut text, &[&format!("id: {dead}\n")]).await;
    // Resumed behind the fourth that joined: what came after, and not itself.
    let last = joined[3].id;
    let header = format!("Last-Event-ID: {last}\r\n");
    let mut resumed = open_stream(&cluster, "/events?since=0", &header).await;
    let mut again = String::new();
    read_until(&mut resumed, &mut again, &["event: datanode-dead"]).await;
    assert!(!again.contains(&format!("id: {last}\n")), "{again}");
    let mut whole = open_stream(&cluster, "/events?since=0", "").await;
    let mut all = String::new();
    let id = format!("id: {}\n", events[0].id);
    read_until(&mut whole, &mut all, &[&id, "event: safe-mode-ended"]).await;
    let since: Vec<Event> = store
        .door
        .get(&format!("/events?format=json&since={last}"))
        .await
        .unwrap()
        .ok()
        .json();
    assert!(!since.is_empty() && since.iter().all(|event| event.id > last));
    for bad in ["/events?since=x", "/events?format=xml", "/events?from=1"] {
        assert_eq!(store.door.get(bad).await.unwrap().status, 400, "{bad}");
    }
    let mut bad = open_stream(&cluster, "/events", "Last-Event-ID: x\r\n").await;
    read_until(
        &mut bad,
        &mut String::new(),
        &["400 Bad Request", "invalid-parameter"],
    )
    .await;
    // Ids rise over a restart, and the streams end with the tracker.
    cluster.restart_tracker().await;
    let next = cluster.store();
    let later = eventually("the next life's story", DEADLINE, || async {
        let events = kept_events(&next).await;
        events.first().map(|event| event.id).ok_or_else(String::new)
    })
    .await;
    assert!(later > events.last().unwrap().id);
}
