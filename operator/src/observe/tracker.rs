//! What the tracker says. Whatever cannot be read becomes a view that says so: never an error, and
//! never an assumption.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::DatanodeId;

use super::{Observed, OpenTracker, TrackerView};
use crate::decide::{budget, lost};
use crate::metrics::Metrics;
use crate::tracker_client::{CatalogState, Endpoint, Tracker, TrackerError, Verdict};
use dfs_runtime::clock::Clock;

/// A tracker's clock and counters.
pub struct Asking<'a> {
    /// The tracker.
    pub tracker: &'a dyn Tracker,
    /// For the time that calls take.
    pub clock: &'a dyn Clock,
    /// Where they are counted.
    pub metrics: &'a Metrics,
}

impl Asking<'_> {
    /// One call, counted.
    pub async fn counted<T>(
        &self,
        call: impl Future<Output = Result<T, TrackerError>>,
    ) -> Result<T, TrackerError> {
        let started = self.clock.monotonic();
        let answer = call.await;
        let took: Duration = self.clock.monotonic().saturating_sub(started);
        self.metrics.tracker_call(took, answer.is_err());
        answer
    }
}

/// Reads status, datanodes and refusals, or the state of a lost catalog.
pub async fn read_tracker(ask: &Asking<'_>, at: &Endpoint) -> TrackerView {
    let tracker = ask.tracker;
    match open(ask, at).await {
        Ok(open) => TrackerView::Open(Box::new(open)),
        Err(TrackerError::NoCatalog(_)) => match ask.counted(tracker.catalog(at)).await {
            Ok(catalog) if catalog.state == CatalogState::Open => {
                TrackerView::Unreadable("the tracker has just opened its catalog".to_owned())
            }
            Ok(catalog) => TrackerView::NoCatalog(catalog),
            Err(error) => TrackerView::Unreadable(error.to_string()),
        },
        Err(error) => TrackerView::Unreadable(error.to_string()),
    }
}

async fn open(ask: &Asking<'_>, at: &Endpoint) -> Result<OpenTracker, TrackerError> {
    let tracker = ask.tracker;
    Ok(OpenTracker {
        status: ask.counted(tracker.status(at)).await?,
        nodes: ask.counted(tracker.nodes(at)).await?,
        refusals: ask.counted(tracker.refusals(at)).await?,
    })
}

/// The tracker's word about every datanode whose volume is gone, and about `leaving`.
pub async fn verdicts(
    ask: &Asking<'_>,
    at: &Endpoint,
    cluster: &str,
    leaving: &[DatanodeId],
    observed: &Observed,
) -> BTreeMap<DatanodeId, Verdict> {
    let mut verdicts = BTreeMap::new();
    let Some(open) = observed.tracker.open() else {
        return verdicts;
    };
    let gone = lost::gone(cluster, observed, open);
    let gone = gone.iter().map(|gone| gone.id);
    let asked: BTreeSet<_> = gone.chain(leaving.iter().copied()).collect();
    for id in asked {
        match ask.counted(ask.tracker.safe_to_remove(at, id)).await {
            Ok(verdict) => {
                verdicts.insert(id, verdict);
            }
            // No word means no.
            Err(error) => tracing::info!(datanode = %id, %error, "no verdict"),
        }
    }
    verdicts
}

/// The tracker's word on whether, beside the datanodes that are down, any further one may stop.
pub async fn further(ask: &Asking<'_>, at: &Endpoint, observed: &Observed) -> Option<Verdict> {
    let down = budget::down(observed, observed.tracker.open()?);
    let asked = ask.counted(ask.tracker.ok_to_stop(at, &down, true)).await;
    asked
        // No word means no.
        .inspect_err(|error| tracing::info!(%error, "no word on whether a datanode may stop"))
        .ok()
}
