//! What a reconcile takes from outside, and what this process remembers between two of them.
//! Everything remembered may be forgotten: it only makes things quieter or slower, never different.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_runtime::clock::SharedClock;
use dfs_runtime::rng::SharedRng;
use kube::Client;

use crate::apply::Settled;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::observe::{Asking, Inventory, LiveInventory, Uid};
use crate::tracker_client::Tracker;
use crate::validate::ClusterKey;

/// Port of the tracker's API.
const TRACKER_PORT: u16 = 6000;
/// Where a cluster's tracker listens.
pub type AddressOf = Arc<dyn Fn(&ClusterKey) -> String + Send + Sync>;

/// The tracker's Service, as pods resolve it.
pub fn service_address() -> AddressOf {
    Arc::new(|key| {
        let service = crate::names::tracker_set(&key.name);
        format!("{service}.{}.svc:{TRACKER_PORT}", key.namespace)
    })
}

/// What a reconcile takes from outside.
pub struct Ctx {
    /// The API server.
    pub client: Client,
    /// What exists, from caches where there are some.
    pub inventory: Arc<dyn Inventory>,
    /// What exists, from the API server itself: asked before anything that cannot be taken back.
    pub live: LiveInventory,
    /// Trackers.
    pub tracker: Arc<dyn Tracker>,
    /// Where they listen.
    pub address_of: AddressOf,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// What is counted.
    pub metrics: Metrics,
    /// Events.
    pub events: Arc<Events>,
    /// What writes have shown.
    pub settled: Arc<Settled>,
    /// What is remembered of each cluster.
    pub memory: Arc<Memory>,
    /// Image of clusters that name none.
    pub image: String,
    /// Where the operator runs: the only namespace that may reach trackers from outside.
    pub operator_namespace: Option<String>,
    /// How often a cluster in which nothing moves is looked at.
    pub resync: Duration,
}

impl Ctx {
    /// The tracker with clock and counters.
    pub fn asking(&self) -> Asking<'_> {
        Asking {
            tracker: self.tracker.as_ref(),
            clock: self.clock.as_ref(),
            metrics: &self.metrics,
        }
    }
}

/// What is remembered of one cluster.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Since when newcomers are pending.
    pub pending: BTreeMap<DatanodeId, Duration>,
    /// When its status was last written by this process.
    pub status_written: Option<Duration>,
    /// Refusals of the tracker that were told, and how many there were.
    pub refusals: BTreeMap<String, u64>,
    /// Whether no datanode might be evicted when this process last looked.
    pub evictions_held: Option<bool>,
    /// Failed reconciles in a row.
    pub failures: u32,
}

/// What is remembered of each cluster.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<Uid, Remembered>>);

impl Memory {
    /// Looks at one cluster's memory, or changes it.
    pub fn with<T>(&self, uid: &Uid, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(uid.clone()).or_default())
    }

    /// Forgets clusters that no longer exist.
    pub fn keep(&self, uids: &BTreeSet<Uid>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, _| uids.contains(uid));
    }

    /// How long each newcomer has been pending; those that are no longer pending are forgotten.
    pub fn waited(
        &self,
        uid: &Uid,
        pending: impl IntoIterator<Item = DatanodeId>,
        now: Duration,
    ) -> BTreeMap<DatanodeId, Duration> {
        self.with(uid, |remembered| {
            let since: BTreeMap<_, _> = pending
                .into_iter()
                .map(|id| (id, remembered.pending.get(&id).copied().unwrap_or(now)))
                .collect();
            remembered.pending.clone_from(&since);
            let ages = since.into_iter();
            ages.map(|(id, since)| (id, now.saturating_sub(since)))
                .collect()
        })
    }
}
