//! What the tracker says. Whatever cannot be read becomes a view that says so: never an error, and
//! never an assumption.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use dfs_protocol::DatanodeId;

use super::{Observed, OpenTracker, TrackerView};
use crate::decide::{budget, lost, roll};
use crate::metrics::Metrics;
use crate::tracker_client::{CatalogState, Endpoint, Tracker, TrackerError, Verdict};
use crate::validate::Cluster;
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

/// The tracker's word about datanodes. One that gave none is not here, and no word means no.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// May they go for ever: those whose volume is gone, and those on their way out.
    pub removal: BTreeMap<DatanodeId, Verdict>,
    /// May they stop for a while: the one that is to restart next.
    pub stop: BTreeMap<DatanodeId, Verdict>,
    /// May any further datanode stop, beside those that are down.
    pub further: Option<Verdict>,
}

/// Asks for everything that a decision about this cluster may need.
pub async fn verdicts(
    ask: &Asking<'_>,
    at: &Endpoint,
    cluster: &Cluster,
    observed: &Observed,
) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let Some(open) = observed.tracker.open() else {
        return verdicts;
    };
    let gone = lost::gone(&cluster.key.name, observed, open);
    let gone = gone.iter().map(|gone| gone.id);
    let leaving = cluster.decommissions.iter().filter_map(|entry| entry.id);
    let asked: BTreeSet<_> = gone.chain(leaving).collect();
    for id in asked {
        let answer = ask.counted(ask.tracker.safe_to_remove(at, id)).await;
        verdicts
            .removal
            .extend(word(&id, answer).map(|word| (id, word)));
    }
    if let Some(id) = roll::candidate(cluster, observed) {
        let answer = ask.counted(ask.tracker.ok_to_stop(at, &[id], false)).await;
        verdicts
            .stop
            .extend(word(&id, answer).map(|word| (id, word)));
    }
    let down = budget::down(observed, open);
    let answer = ask.counted(ask.tracker.ok_to_stop(at, &down, true)).await;
    verdicts.further = word(&"any further one", answer);
    verdicts
}

fn word(datanode: &dyn fmt::Display, answer: Result<Verdict, TrackerError>) -> Option<Verdict> {
    answer
        .inspect_err(|error| tracing::info!(%datanode, %error, "no verdict"))
        .ok()
}
