//! The set over datanodes that a test answers for, in virtual time where time matters.

mod backfill;
mod member;

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

use async_trait::async_trait;
use dfs_protocol::{Epoch, Fence, Incarnation};
use dfs_runtime::clock::{Clock, SystemClock};
use dfs_runtime::net::{Connection, Connector, TcpConnector};
use dfs_runtime::rng::SharedRng;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::*;
use crate::store::{
    CatalogConfig, CatalogLimits, CatalogMetrics, JournalMode, JournalSink as _, MemoryEngine,
    NullJournal,
};

/// The clock that tokio's timers go by.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

/// Datanodes named by their addresses. The silent ones take connections and say nothing.
#[derive(Debug, Default)]
struct World {
    silent: Mutex<BTreeSet<String>>,
    /// Heard by the tracker although they are silent here.
    heartbeats: bool,
    datanodes: usize,
    /// When the silence began, on the virtual clock.
    since: Mutex<Option<Instant>>,
    left_out: Mutex<BTreeSet<DatanodeId>>,
}

impl World {
    fn address(number: usize) -> DatanodeAddress {
        DatanodeAddress {
            id: DatanodeId::from_u128(number as u128),
            address: format!("datanode-{number}:1"),
        }
    }

    fn silence(&self, number: usize) {
        self.silent
            .lock()
            .unwrap()
            .insert(Self::address(number).address);
        *self.since.lock().unwrap() = Some(Instant::now());
    }
}

#[derive(Debug)]
struct Net(Arc<World>);

#[async_trait]
impl Connector for Net {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let (world, address) = (self.0.clone(), address.to_owned());
        tokio::spawn(async move {
            let mut request = vec![0; 64 * 1024];
            while far.read(&mut request).await.is_ok_and(|read| read > 0) {
                if !world.silent.lock().unwrap().contains(&address) {
                    // Whoever is asked has nothing yet.
                    let is_asked = request.starts_with(b"GET /journal/backfill");
                    let body = if is_asked {
                        r#"{"first_missing":1}"#
                    } else {
                        ""
                    };
                    let length = body.len();
                    let done = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                    let _gone = far.write_all(done.as_bytes()).await;
                }
            }
        });
        Ok(Box::new(near))
    }
}

impl RosterSource for World {
    fn roster(&self) -> Roster {
        let silent = self.silent.lock().unwrap().clone();
        // Three missed heartbeats of a second each.
        let since = *self.since.lock().unwrap();
        let is_noticed = !self.heartbeats && since.is_some_and(|s| s.elapsed().as_secs() >= 3);
        let left_out = self.left_out.lock().unwrap().clone();
        let candidates = (1..=self.datanodes).map(Self::address).filter(|at| {
            let is_missed = is_noticed && silent.contains(&at.address);
            !is_missed && !left_out.contains(&at.id)
        });
        Roster {
            candidates: candidates.collect(),
            in_service: u32::try_from(self.datanodes).unwrap(),
            factor: 3,
            min_write: 2,
        }
    }

    fn unreachable(&self, id: DatanodeId, _detail: &str) {
        self.left_out.lock().unwrap().insert(id);
    }

    fn reachable(&self, id: DatanodeId) {
        self.left_out.lock().unwrap().remove(&id);
    }
}

/// Three datanodes in service, none of which can take a record yet.
#[derive(Debug)]
struct NobodyYet;

impl RosterSource for NobodyYet {
    fn roster(&self) -> Roster {
        Roster {
            candidates: Vec::new(),
            in_service: 3,
            factor: 3,
            min_write: 2,
        }
    }

    fn unreachable(&self, _id: DatanodeId, _detail: &str) {}

    fn reachable(&self, _id: DatanodeId) {}
}

async fn set_over(
    http: HttpClient,
    clock: SharedClock,
    source: &Arc<dyn RosterSource>,
) -> Arc<JournalSet> {
    let config = CatalogConfig {
        journal: Arc::new(NullJournal),
        mode: JournalMode::Sync,
        clock: clock.clone(),
        rng: SharedRng::from_seed(1),
        limits: CatalogLimits::default(),
        metrics: CatalogMetrics::register(&prometheus::Registry::new()).unwrap(),
    };
    let engine = Arc::new(MemoryEngine::default());
    let catalog = Catalog::open(engine, config).await.unwrap();
    let set = new_set(http, clock);
    set.attach(catalog, Arc::downgrade(source));
    set
}

fn new_set(http: HttpClient, clock: SharedClock) -> Arc<JournalSet> {
    let counter = |name| prometheus::IntCounter::new(name, name).unwrap();
    let silence = SilenceWatch::new(http.clone(), counter("silent"));
    let deposed = watch::Sender::new(None);
    JournalSet::new(http, silence, clock, deposed, counter("paused"))
}

fn record(sequence: u64) -> JournalRecord {
    JournalRecord {
        fence: Fence {
            epoch: Epoch(1),
            incarnation: Incarnation(1),
        },
        sequence,
        payload: Vec::new(),
    }
}

#[tokio::test]
async fn i02_without_members_only_the_trackers_own_records_pass_and_only_before_the_first_client() {
    let http = HttpClient::new(TcpConnector::shared());
    let source: Arc<dyn RosterSource> = Arc::new(NobodyYet);
    let set = set_over(http, SystemClock::shared(), &source).await;
    set.close();
    set.append(&record(1)).await.unwrap();
    set.require();
    let refused = set.append(&record(1)).await.unwrap_err();
    assert!(matches!(
        refused,
        JournalError::TooFew {
            confirmed: 0,
            wanted: 2,
            ..
        }
    ));
}

/// A set that wrote one record to `datanodes`; the second one is silent from then on.
async fn with_a_silent_member(datanodes: usize, heartbeats: bool) -> (Arc<World>, Arc<JournalSet>) {
    let world = Arc::new(World {
        heartbeats,
        datanodes,
        ..World::default()
    });
    let http = HttpClient::new(Arc::new(Net(world.clone())));
    let source: Arc<dyn RosterSource> = world.clone();
    let clock = Arc::new(VirtualClock(Instant::now()));
    let set = set_over(http, clock, &source).await;
    set.append(&record(1)).await.unwrap();
    assert_eq!(set.members().len(), 3);
    world.silence(2);
    (world, set)
}

// The times below are virtual: they pass when nothing else is left to be done.

#[tokio::test(start_paused = true)]
async fn fault_21_a_member_that_falls_silent_is_replaced_at_once_when_another_datanode_is_there() {
    let (_world, set) = with_a_silent_member(4, false).await;
    let begun = Instant::now();
    set.append(&record(2)).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let members: Vec<_> = [1, 3, 4].map(|number| World::address(number).id).into();
    assert_eq!(set.members(), members);
    let begun = Instant::now();
    set.append(&record(3)).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "the new member is used"
    );
}

#[tokio::test(start_paused = true)]
async fn fault_21_of_exactly_r_members_a_silent_one_is_waited_for_until_the_tracker_misses_it() {
    let (_world, set) = with_a_silent_member(3, false).await;
    let begun = Instant::now();
    set.append(&record(2)).await.unwrap();
    // Not before: the record would be on fewer datanodes than are placeable.
    assert!(
        begun.elapsed() >= Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(set.members().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn fault_21_a_member_that_heartbeats_and_takes_nothing_is_left_out_within_the_deadline() {
    let (world, set) = with_a_silent_member(3, true).await;
    set.append(&record(2)).await.unwrap();
    let left_out = world.left_out.lock().unwrap().clone();
    assert!(left_out.contains(&World::address(2).id));
    assert_eq!(set.members().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn i02_with_fewer_members_than_min_write_a_change_is_not_acknowledged() {
    let (world, set) = with_a_silent_member(3, false).await;
    world.silence(3);
    let refused = set.append(&record(2)).await.unwrap_err();
    assert!(matches!(
        refused,
        JournalError::TooFew {
            confirmed: 1,
            wanted: 2,
            ..
        }
    ));
}
