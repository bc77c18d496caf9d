//! What clients see of each other's writes (I16, I17, I18), through several gateways.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_client::http::{HttpClient, whole};
use dfs_client::{ClientMetrics, HttpTracker};
use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options, SOON};
use dfs_e2e::store::Store;
use dfs_gateway::{GatewayConfig, GatewayParts};
use dfs_runtime::clock::SystemClock;
use dfs_runtime::request::{RequestEdge, RequestMetrics};
use dfs_runtime::rng::SharedRng;
use dfs_runtime::server::{ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use dfs_runtime::trace::Tracer;
use http::{Method, StatusCode};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::kit::{CHUNK, CHUNK_BYTES, Model, calm_options, options};

/// A gateway of its own, beside the tracker's.
pub(crate) struct Gateway {
    address: String,
    _until: ShutdownTrigger,
}

impl Gateway {
    pub(crate) async fn start(cluster: &Cluster, name: &str) -> Self {
        Self::traced(cluster, name, Tracer::off()).await
    }

    /// One that writes requests down.
    pub(crate) async fn traced(cluster: &Cluster, name: &str, tracer: Tracer) -> Self {
        let (trigger, shutdown) = shutdown_pair();
        let registry = Registry::new();
        let connector = cluster.links.connector(name);
        let calls = ClientMetrics::register(&registry).unwrap();
        let http = HttpClient::counted(connector, calls);
        let (rng, clock) = (SharedRng::from_seed(cluster.seed), SystemClock::shared());
        let parts = GatewayParts {
            tracker: Arc::new(HttpTracker::new(
                http.clone(),
                cluster.tracker.address.to_string(),
            )),
            http,
            clock: clock.clone(),
            rng: rng.clone(),
            registry: registry.clone(),
            shutdown: shutdown.clone(),
        };
        let config = GatewayConfig {
            commit_deadline: Duration::from_secs(20),
            ..GatewayConfig::default()
        };
        let doors = dfs_gateway::doors(parts, config).unwrap();
        let edge = RequestEdge::new(
            rng,
            clock,
            RequestMetrics::register(&registry).unwrap(),
            512,
        )
        .traced(tracer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let metrics = ServerMetrics::register(&registry, "api").unwrap();
        tokio::spawn(serve(
            listener,
            edge.wrap(doors.public),
            ServerLimits::default(),
            metrics,
            shutdown,
        ));
        Self {
            address,
            _until: trigger,
        }
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(&self.address)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i16_what_one_gateway_acknowledged_every_other_serves_and_lists_at_once() {
    let mut cluster = Cluster::start(calm_options(3)).await;
    let one = Gateway::start(&cluster, "gateway-1").await;
    let two = Gateway::start(&cluster, "gateway-2").await;
    let doors = [one.store(), two.store(), cluster.store()];
    let mut model = Model::default();
    for round in 0..24usize {
        let path = format!("f{}", round % 5);
        let (writer, reader) = (&doors[round % 3], &doors[(round + 1) % 3]);
        let bytes = bytes::Bytes::from(cluster.bytes(round * 20_000));
        writer.put(&path, bytes.clone()).await;
        model.note(&path, bytes.clone());
        assert!(reader.get(&path).await == bytes, "round {round}");
        assert_eq!(reader.list("").await, model.paths());
        if round % 4 == 3 {
            model.delete(writer, &path).await;
            let gone = reader.try_get(&path).await.unwrap();
            assert_eq!(gone.status, StatusCode::NOT_FOUND);
            assert_eq!(reader.list("").await, model.paths());
        }
    }
    model.settle(&cluster).await;
}

/// The times of one value of a register: its write, and all reads that saw it.
#[derive(Debug, Clone)]
struct Zone {
    written: Option<(Duration, Option<Duration>)>,
    first_end: Duration,
    last_start: Duration,
}

/// What everybody did to one name, with times. Every value is written once.
#[derive(Debug, Default)]
struct History(Mutex<BTreeMap<u32, Zone>>);

impl History {
    fn wrote(&self, value: u32, start: Duration, end: Option<Duration>) {
        let mut zones = self.0.lock().unwrap();
        let zone = zones.entry(value).or_insert(Zone {
            written: None,
            first_end: Duration::MAX,
            last_start: Duration::ZERO,
        });
        zone.written = Some((start, end));
        zone.first_end = zone.first_end.min(end.unwrap_or(Duration::MAX));
        zone.last_start = zone.last_start.max(start);
    }

    fn read(&self, value: u32, start: Duration, end: Duration) {
        let mut zones = self.0.lock().unwrap();
        let zone = zones.entry(value).or_insert(Zone {
            written: None,
            first_end: Duration::MAX,
            last_start: Duration::ZERO,
        });
        zone.first_end = zone.first_end.min(end);
        zone.last_start = zone.last_start.max(start);
    }

    /// Gibbons and Korach: a history of a register with unique values is linearizable when no
    /// read ends before its write begins, no two forward zones overlap, and no backward zone lies within a
    /// forward one.
    fn check(&self) -> Result<usize, String> {
        let zones = self.0.lock().unwrap();
        for (value, zone) in zones.iter() {
            match zone.written {
                Some((start, _)) if zone.first_end >= start => {}
                other => return Err(format!("{value} was read before its write {other:?}")),
            }
        }
        let seen: Vec<(&u32, &Zone)> = zones
            .iter()
            .filter(|(_, zone)| zone.first_end < Duration::MAX)
            .collect();
        let forward: Vec<_> = seen
            .iter()
            .filter(|(_, zone)| zone.first_end < zone.last_start)
            .collect();
        for (value, zone) in &forward {
            for (other, against) in &seen {
                if value == other {
                    continue;
                }
                let (low, high) = if against.first_end < against.last_start {
                    (against.first_end, against.last_start)
                } else {
                    (against.last_start, against.first_end)
                };
                let is_forward = against.first_end < against.last_start;
                let clash = if is_forward {
                    low < zone.last_start && zone.first_end < high
                } else {
                    zone.first_end < low && high < zone.last_start
                };
                if clash {
                    return Err(format!("{value} {zone:?} against {other} {against:?}"));
                }
            }
        }
        Ok(seen.len())
    }
}

#[test]
fn the_check_of_histories_can_fail() {
    let second = Duration::from_secs;
    let history = History::default();
    history.wrote(1, second(0), Some(second(1)));
    history.wrote(2, second(2), Some(second(3)));
    history.read(2, second(3), second(4));
    assert_eq!(history.check(), Ok(2));
    // Back in time.
    history.read(1, second(5), second(6));
    assert!(history.check().is_err());
    // From nowhere.
    let history = History::default();
    history.read(9, second(1), second(2));
    assert!(history.check().is_err());
}

/// A body that says at each block which value it is of.
fn body_of(value: u32, blocks: usize) -> Vec<u8> {
    let block = value.to_le_bytes().repeat(1024);
    block.repeat(blocks)
}

/// The value that a whole body is of.
fn value_of(body: &[u8], blocks: usize) -> u32 {
    let value = u32::from_le_bytes(body[..4].try_into().unwrap());
    assert!(body == body_of(value, blocks), "a mix of versions was read");
    value
}

const BLOCKS: usize = 3 * CHUNK_BYTES / 2 / 4096;

async fn storm(cluster: &mut Cluster, doors: &[Store], restart: bool) {
    let start = std::time::Instant::now();
    let history = Arc::new(History::default());
    let over = Arc::new(AtomicBool::new(false));
    let now = move || start.elapsed();
    let began = now();
    doors[0].put("same", body_of(0, BLOCKS)).await;
    history.wrote(0, began, Some(now()));
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let (store, history, over) = (
                doors[number % doors.len()].clone(),
                history.clone(),
                over.clone(),
            );
            tokio::spawn(async move {
                let mut reads = 0;
                while !over.load(Ordering::SeqCst) {
                    let began = now();
                    let Ok(reply) = store.try_get("same").await else {
                        continue;
                    };
                    if reply.status == StatusCode::OK {
                        history.read(value_of(&reply.body, BLOCKS), began, now());
                        reads += 1;
                    } else {
                        let why = String::from_utf8_lossy(&reply.body);
                        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{why}");
                    }
                }
                reads
            })
        })
        .collect();
    let writers: Vec<_> = (1..=50u32)
        .map(|value| {
            let (store, history) = (doors[value as usize % doors.len()].clone(), history.clone());
            tokio::spawn(async move {
                if restart {
                    // Some before, some amid, some after the restart.
                    tokio::time::sleep(Duration::from_millis(u64::from(value) * 60)).await;
                }
                let began = now();
                let reply = store.try_put("same", body_of(value, BLOCKS)).await;
                match reply.as_ref().map(|reply| reply.status) {
                    Ok(StatusCode::OK | StatusCode::CREATED) => {
                        history.wrote(value, began, Some(now()));
                        true
                    }
                    Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => {
                        history.wrote(value, began, None);
                        false
                    }
                    // Also a conflict or a failed precondition: no condition was set.
                    Ok(_) => panic!("{reply:?}"),
                }
            })
        })
        .collect();
    if restart {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.power_cut_tracker(true).await;
        cluster.start_tracker().await;
    }
    let mut acked = 0;
    for writer in writers {
        acked += u32::from(writer.await.unwrap());
    }
    cluster.store().wait_ready(3, SOON).await;
    let began = now();
    let last = doors[0].get("same").await;
    history.read(value_of(&last, BLOCKS), began, now());
    over.store(true, Ordering::SeqCst);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    assert!(
        reads > 0 && (restart || acked == 50),
        "{reads} reads, {acked} acks"
    );
    let values = history
        .check()
        .unwrap_or_else(|why| panic!("not linearizable: {why}"));
    assert!(values > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_bad_input_35_fifty_concurrent_puts_of_one_name_are_linearizable() {
    // A busy machine must not be taken for datanodes that are silent.
    let mut cluster = Cluster::start(Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.heartbeat_interval = 2 * CALM_HEARTS;
        },
        ..options(3)
    })
    .await;
    let gateway = Gateway::start(&cluster, "gateway-1").await;
    let doors = [gateway.store(), cluster.store()];
    storm(&mut cluster, &doors, false).await;
    cluster.store().wait_fsck_clean(crate::kit::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_i18_puts_of_one_name_stay_linearizable_over_a_restart_of_the_tracker() {
    let mut cluster = Cluster::start(options(3)).await;
    let gateway = Gateway::start(&cluster, "gateway-1").await;
    let doors = [gateway.store(), cluster.store()];
    storm(&mut cluster, &doors, true).await;
    cluster.store().wait_fsck_clean(crate::kit::DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_if_none_match_has_exactly_one_winner() {
    let mut cluster = Cluster::start(calm_options(3)).await;
    let gateway = Gateway::start(&cluster, "gateway-1").await;
    let doors = [gateway.store(), cluster.store()];
    for round in 0..3 {
        let puts = (0..24u32).map(|value| {
            let store = doors[value as usize % 2].clone();
            async move {
                let headers = [("if-none-match", "*")];
                let uri = format!("/files/only{round}");
                let body = whole(body_of(value, 3));
                let reply = store
                    .door
                    .send(Method::PUT, &uri, &headers, body)
                    .await
                    .unwrap();
                (value, reply.status)
            }
        });
        let answers = futures_util::future::join_all(puts.map(tokio::spawn)).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let winners: Vec<u32> = answers
            .iter()
            .filter(|(_, status)| *status == StatusCode::CREATED)
            .map(|(value, _)| *value)
            .collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        for (_, status) in &answers {
            assert!([201, 409, 412].contains(&status.as_u16()), "{status}");
        }
        let found = doors[0].get(&format!("only{round}")).await;
        assert_eq!(value_of(&found, 3), winners[0]);
    }
    let _ = cluster.bytes(1);
    cluster.store().wait_fsck_clean(crate::kit::DEADLINE).await;
}
