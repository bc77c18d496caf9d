//! The tracker as a service: what doors, gateways and datanodes call. Each file is one side of it;
//! decisions come from `plan`, durable changes go through `store`.

mod admission;
mod api;
mod applied;
mod census;
mod committing;
pub(crate) mod events;
mod factor;
mod fsck;
mod hot;
mod membership;
mod placing;
mod plans;
mod reads;
mod state;
mod trash;
mod writes;

pub use state::{State, expected};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dfs_client::datanode::DatanodeClient;
use dfs_client::silence::SilenceWatch;
use dfs_client::write_stream::WriteStreams;
use dfs_client::{ClientMetrics, HttpClient};
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::status::Verdict;
use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Epoch, Fence, Incarnation, Problem, TrashId};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::net::SharedConnector;
use dfs_runtime::rng::SharedRng;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::events::EventLog;
use crate::config::TrackerConfig;
use crate::journal_set::{JournalSet, Roster, RosterSource};
use crate::metrics::{EventMetrics, TrackerMetrics};
use crate::model::comparison::Comparison;
use crate::model::datanodes::Picture;
use crate::model::hot::{HALF_LIFE, HOT_FILES, HotSketch};
use crate::model::op::{ChunkRecord, Op};
use crate::plan::removal::{ok_to_stop, one_more_may_stop, safe_to_remove};
use crate::plan::tasks::TaskTable;
use crate::store::{
    Catalog, CatalogConfig, CatalogLimits, CatalogMetrics, CommitObserver, Engine, Snapshot,
    StoreError, SubmitError, new_trash_id,
};

/// Chunks of one page while the catalog is loaded.
const LOAD_PAGE: usize = 10_000;

/// What the tracker works with.
#[derive(Debug, Clone)]
pub struct TrackerParts {
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Connections to datanodes.
    pub connector: SharedConnector,
    /// Numbers.
    pub registry: prometheus::Registry,
}

/// The tracker.
#[derive(Debug)]
pub struct Tracker {
    pub(crate) config: TrackerConfig,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) catalog: Catalog,
    pub(crate) cluster: ClusterId,
    pub(crate) metrics: TrackerMetrics,
    pub(crate) journal: Arc<JournalSet>,
    pub(crate) datanode_client: DatanodeClient,
    pub(crate) write_streams: WriteStreams,
    pub(crate) started: Duration,
    pub(crate) events: EventLog,
    fence: Mutex<Fence>,
    raising: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    deposed: watch::Sender<Option<String>>,
    hot: Mutex<HotSketch>,
}

/// Why the tracker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalog cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first change was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A metric was registered twice.
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// More datanodes in the catalog than may be known.
    #[error(transparent)]
    Datanodes(#[from] crate::model::datanodes::TooManyDatanodes),
}

impl Tracker {
    /// Opens the catalog, begins an epoch of its own and learns what the catalog expects.
    ///
    /// Errors: [`StartError`]; a damaged catalog says how to rebuild it.
    pub async fn open(
        engine: Arc<dyn Engine>,
        config: TrackerConfig,
        parts: TrackerParts,
    ) -> Result<Arc<Self>, StartError> {
        let TrackerParts {
            clock,
            rng,
            connector,
            registry,
        } = parts;
        let metrics = TrackerMetrics::register(&registry)?;
        let http = HttpClient::counted(connector, ClientMetrics::register(&registry)?);
        let http = http.with_tokens(config.tokens.clone());
        let silence = SilenceWatch::new(http.clone(), metrics.silent_datanodes.clone());
        let deposed = watch::Sender::new(None);
        let journal = JournalSet::new(
            http.clone(),
            silence.clone(),
            clock.clone(),
            deposed.clone(),
            metrics.journal_backfills_paused.clone(),
        );
        let catalog = Catalog::open(
            engine,
            CatalogConfig {
                journal: journal.clone(),
                mode: config.journal,
                clock: clock.clone(),
                rng: rng.clone(),
                limits: CatalogLimits::default(),
                metrics: CatalogMetrics::register(&registry)?,
            },
        )
        .await?;
        let meta = catalog.meta().await?;
        let tracker = Arc::new(Self {
            cluster: meta.cluster,
            metrics,
            journal,
            write_streams: WriteStreams::new(http.clone(), silence),
            datanode_client: DatanodeClient::new(http),
            started: clock.monotonic(),
            // The epoch that this tracker is about to begin.
            events: EventLog::new(
                EventMetrics::register(&registry)?,
                Epoch(meta.fence.epoch.0 + 1),
            ),
            fence: Mutex::new(meta.fence),
            raising: tokio::sync::Mutex::new(()),
            state: Mutex::new(State::new(
                config.policy(),
                Comparison::new(meta.sequence, meta.fence),
                TaskTable::numbered_anew(rng.u64()),
            )),
            deposed,
            hot: Mutex::new(HotSketch::new(HOT_FILES, HALF_LIFE, clock.monotonic())),
            config,
            clock,
            rng,
            catalog,
        });
        let roster: Weak<dyn RosterSource> = Arc::<Self>::downgrade(&tracker);
        tracker.journal.attach(tracker.catalog.clone(), roster);
        let observer: Weak<dyn CommitObserver> = Arc::<Self>::downgrade(&tracker);
        tracker.catalog.observe(observer);
        let fence = tracker.new_fence(meta.fence.epoch);
        tracker.catalog.submit(Op::BeginEpoch { fence }).await?;
        tracker.load().await?;
        Ok(tracker)
    }

    /// The acting fence.
    pub fn fence(&self) -> Fence {
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What calls datanodes: the process's one client, for the doors beside the tracker too.
    pub fn http(&self) -> &HttpClient {
        self.datanode_client.http()
    }

    /// The catalog, for dumps and tests.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Set when a later tracker acts, or when the catalog failed: this process must end.
    pub async fn until_over(&self) -> String {
        let mut deposed = self.deposed.subscribe();
        tokio::select! {
            reason = self.catalog.until_poisoned() => format!("the catalog failed: {reason}"),
            // The sender lives as long as this tracker.
            changed = deposed.wait_for(Option::is_some) => {
                changed.ok().and_then(|reason| reason.clone()).unwrap_or_default()
            }
        }
    }

    /// What is known apart from the catalog. Never held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May this datanode go for ever?
    pub fn may_remove(&self, id: DatanodeId) -> Verdict {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        let hold = state.hold(now);
        safe_to_remove(&state.removal_view(hold.as_ref()), id, now)
    }

    /// May these datanodes stop for a while, all together?
    /// With `one_more`: and any one more besides, whichever it is?
    pub fn may_stop(&self, ids: &[DatanodeId], one_more: bool) -> Verdict {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        let hold = state.hold(now);
        let view = state.removal_view(hold.as_ref());
        if one_more {
            one_more_may_stop(&view, ids, now)
        } else {
            ok_to_stop(&view, ids, now)
        }
    }

    fn new_fence(&self, above: Epoch) -> Fence {
        Fence {
            epoch: Epoch(above.0 + 1),
            incarnation: Incarnation(self.rng.u64()),
        }
    }

    fn set_fence(&self, fence: Fence) {
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = fence;
    }

    fn trash_id(&self) -> Option<TrashId> {
        self.config
            .keeps_trash()
            .then(|| new_trash_id(self.clock.wall(), &self.rng))
    }

    async fn load(&self) -> Result<(), StartError> {
        let now = self.clock.monotonic();
        let datanodes = self.catalog.datanodes().await?;
        let meta = self.catalog.meta().await?;
        {
            let mut state = self.state();
            for (id, record) in datanodes {
                state.datanodes.put(id, record, now)?;
            }
            state.expect_checkpoints(meta.checkpoints, self.config.replication_factor, now);
        }
        let mut reading = self.read_chunks(None);
        loop {
            let page = reading.await.map_err(|error| StoreError::Engine {
                detail: error.to_string(),
            })??;
            let Some((last, _)) = page.last() else { break };
            // The next page is read while this one is taken in.
            reading = self.read_chunks(Some(*last));
            let mut state = self.state();
            for (id, record) in &page {
                state.expect(*id, record, self.config.replication_factor);
            }
        }
        self.load_condemned(now).await?;
        self.load_trash(now).await?;
        self.state().sync(now);
        Ok(())
    }

    fn read_chunks(
        &self,
        after: Option<ChunkId>,
    ) -> JoinHandle<Result<Vec<(ChunkId, ChunkRecord)>, StoreError>> {
        let catalog = self.catalog.clone();
        let scan = move |snapshot: &Snapshot<'_>| snapshot.scan_chunks(after, LOAD_PAGE);
        tokio::spawn(async move { catalog.read(scan).await })
    }

    async fn load_condemned(&self, now: Duration) -> Result<(), StartError> {
        let mut after = None;
        loop {
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_condemned(after, LOAD_PAGE))
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            let mut state = self.state();
            for (id, record) in &page {
                state.condemned.insert(*id, record, now);
            }
        }
    }

    async fn load_trash(&self, now: Duration) -> Result<(), StartError> {
        let wall = self.clock.wall();
        let mut after = None;
        loop {
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_trash(after, LOAD_PAGE))
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.id);
            let mut state = self.state();
            let limits = state.policy.trash;
            for entry in &page {
                let bytes =
                    entry.file.size * u64::from(entry.file.wanted(self.config.replication_factor));
                state
                    .trash
                    .load(entry.id, entry.deleted, bytes, &limits, now, wall);
            }
        }
    }
}

impl RosterSource for Tracker {
    fn roster(&self) -> Roster {
        let now = self.clock.monotonic();
        let state = self.state();
        let in_service = state
            .datanodes
            .iter()
            .filter(|node| node.record.admin == AdminState::InService);
        let (mut candidates, mut full, mut count) = (Vec::new(), Vec::new(), 0);
        for node in in_service {
            count += 1;
            // One that has not reported yet may not know that it is admitted.
            let reported = node.picture != Picture::Unknown;
            // Nothing is written beside a journal that may know more than this catalog.
            let compared = state.comparison.has_passed() && state.comparison.is_compared(node.id);
            let heard = state.datanodes.liveness(node, now) == Liveness::Live;
            if heard && reported && compared && !node.unreachable {
                // A full volume keeps a reserve, and deletes must be journalled there too: without
                // them it would stay full for ever.
                if node.stats.read_only {
                    full.push(node.at());
                } else {
                    candidates.push(node.at());
                }
            }
        }
        candidates.append(&mut full);
        Roster {
            candidates,
            in_service: count,
            factor: self.config.replication_factor,
            min_write: self.config.min_write(),
        }
    }

    fn unreachable(&self, id: DatanodeId, detail: &str) {
        if self.state().datanodes.set_unreachable(id) {
            tracing::error!(
                datanode = %id, detail,
                "a datanode is heard but takes no journal records: it gets no chunks until it does"
            );
        }
    }

    fn reachable(&self, id: DatanodeId) {
        tracing::info!(datanode = %id, "a datanode takes journal records again");
        self.state().datanodes.set_reachable(id);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Refusals on the way out.
impl From<SubmitError> for dfs_client::ClientError {
    fn from(error: SubmitError) -> Self {
        Problem::from(error).into()
    }
}
