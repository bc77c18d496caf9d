//! The tracker's story: the last events in a ring, and those who watch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_protocol::events::Event;
use dfs_protocol::{Epoch, ErrorCode, Problem};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Tracker;
use crate::metrics::EventMetrics;
use crate::model::story::Telling;

/// Events that are kept.
const KEPT: usize = 1000;
/// Streams that may be open at once.
const READERS: usize = 64;
/// Events that may wait for one reader.
const WAITING: usize = 256;
/// Bits of an id that count the events of one tracker's life. The epoch is above them, so that ids
/// rise over restarts too; JSON readers that know only doubles keep 2^25 epochs apart.
const LIFE_BITS: u32 = 28;

/// The ring and the readers.
#[derive(Debug)]
pub(crate) struct EventLog {
    inner: Mutex<Inner>,
    metrics: EventMetrics,
}

#[derive(Debug)]
struct Inner {
    last: u64,
    ring: VecDeque<Arc<Event>>,
    readers: Vec<mpsc::Sender<Arc<Event>>>,
    closed: bool,
}

/// One reader's view: what was asked for, then what comes.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Whether events after the one that was named are forgotten already.
    pub(crate) gap: bool,
    /// Events to be sent at once.
    pub(crate) backlog: VecDeque<Arc<Event>>,
    /// What comes; ends when this reader is too slow, or with the tracker.
    pub(crate) coming: mpsc::Receiver<Arc<Event>>,
}

impl EventLog {
    /// Nothing happened yet, in the life of the tracker with this epoch.
    pub(crate) fn new(metrics: EventMetrics, epoch: Epoch) -> Self {
        Self {
            inner: Mutex::new(Inner {
                last: epoch.0 << LIFE_BITS,
                ring: VecDeque::with_capacity(KEPT),
                readers: Vec::new(),
                closed: false,
            }),
            metrics,
        }
    }

    /// Appends to the story. Never waits: a reader that does not keep up is dropped.
    pub(crate) fn tell(&self, telling: Telling, at: Timestamp) {
        let Telling {
            kind,
            datanode,
            chunk,
            count,
            detail,
        } = telling;
        self.metrics.told.with_label_values(&[kind.as_str()]).inc();
        let mut inner = self.lock();
        inner.last += 1;
        let event = Arc::new(Event {
            id: inner.last,
            at,
            kind,
            datanode,
            chunk,
            count,
            detail,
        });
        if inner.ring.len() == KEPT {
            inner.ring.pop_front();
        }
        inner.ring.push_back(event.clone());
        let dropped = &self.metrics.dropped;
        inner
            .readers
            .retain(|reader| match reader.try_send(event.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    dropped.inc();
                    false
                }
            });
        self.count(&inner);
    }

    /// What is kept of the events after this id; everything that is kept without one.
    pub(crate) fn since(&self, since: Option<u64>) -> Vec<Arc<Event>> {
        self.lock().after(since.unwrap_or(0))
    }

    /// Opens a stream: after this id, or from now on.
    ///
    /// Errors: `too-many-requests`; `unavailable` while the tracker ends.
    pub(crate) fn subscribe(&self, since: Option<u64>) -> Result<Subscription, Problem> {
        let mut inner = self.lock();
        inner.readers.retain(|reader| !reader.is_closed());
        if inner.closed {
            return Err(Problem::new(
                ErrorCode::Unavailable,
                "the tracker is about to end",
            ));
        }
        if inner.readers.len() >= READERS {
            self.metrics.refused.inc();
            let detail = format!("{READERS} readers watch the events already");
            return Err(Problem::new(ErrorCode::TooManyRequests, detail)
                .next("ask with ?format=json&since=ID now and then"));
        }
        let backlog = since.map(|id| inner.after(id)).unwrap_or_default();
        let oldest = inner.ring.front().map_or(inner.last, |event| event.id - 1);
        // Ids are not dense over restarts: what an earlier life told is forgotten too.
        let gap = since.is_some_and(|id| id < oldest);
        let (sender, coming) = mpsc::channel(WAITING);
        inner.readers.push(sender);
        self.count(&inner);
        Ok(Subscription {
            gap,
            backlog: backlog.into(),
            coming,
        })
    }

    /// Ends every stream; they would hold the shutdown up.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.readers.clear();
        self.count(&inner);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, inner: &Inner) {
        let readers = i64::try_from(inner.readers.len()).unwrap_or(i64::MAX);
        self.metrics.readers.set(readers);
    }
}

impl Inner {
    fn after(&self, id: u64) -> Vec<Arc<Event>> {
        let from = self.ring.partition_point(|event| event.id <= id);
        self.ring.range(from..).cloned().collect()
    }
}

impl Tracker {
    /// Tells what happened.
    pub(crate) fn tell(&self, telling: Telling) {
        self.events.tell(telling, self.clock.wall());
    }
}

#[cfg(test)]
mod tests {
    use dfs_protocol::events::EventKind;

    use super::*;

    fn log() -> EventLog {
        let registry = prometheus::Registry::new();
        EventLog::new(EventMetrics::register(&registry).unwrap(), Epoch(3))
    }

    fn tell(log: &EventLog, count: usize) {
        for n in 0..count {
            let telling = Telling::new(EventKind::CheckpointTaken, format!("{n}"));
            log.tell(telling, Timestamp::UNIX_EPOCH);
        }
    }

    fn ids(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn ids_rise_over_lives_and_the_ring_keeps_the_last_thousand() {
        let log = log();
        tell(&log, KEPT + 5);
        let base = 3 << LIFE_BITS;
        let all = ids(&log.since(None));
        assert_eq!(all, (base + 6..=base + KEPT as u64 + 5).collect::<Vec<_>>());
        assert_eq!(
            ids(&log.since(Some(base + 1003))),
            [base + 1004, base + 1005]
        );
        assert!(log.since(Some(u64::MAX)).is_empty());
        let next = EventLog::new(log.metrics.clone(), Epoch(4));
        tell(&next, 1);
        assert!(next.since(None)[0].id > *all.last().unwrap());
    }

    #[test]
    fn a_stream_resumes_behind_an_id_and_says_when_events_are_forgotten() {
        let log = log();
        let base = 3 << LIFE_BITS;
        assert!(log.subscribe(Some(base - 7)).unwrap().gap, "another life's");
        tell(&log, 3);
        let mut resumed = log.subscribe(Some(base + 1)).unwrap();
        assert!(!resumed.gap && !log.subscribe(Some(base)).unwrap().gap);
        assert_eq!(ids(resumed.backlog.make_contiguous()), [base + 2, base + 3]);
        assert!(log.subscribe(None).unwrap().backlog.is_empty());
        tell(&log, 1);
        assert_eq!(resumed.coming.try_recv().unwrap().id, base + 4);
        tell(&log, KEPT);
        assert!(log.subscribe(Some(base + 1)).unwrap().gap);
    }

    #[test]
    fn i31_readers_are_few_and_a_slow_one_is_dropped() {
        let log = log();
        let mut slow = log.subscribe(None).unwrap();
        let mut open: Vec<_> = (1..READERS).map(|_| log.subscribe(None).unwrap()).collect();
        assert_eq!(
            log.subscribe(None).unwrap_err().code(),
            Some(ErrorCode::TooManyRequests)
        );
        assert_eq!(log.metrics.refused.get(), 1);
        for _ in 0..=WAITING {
            tell(&log, 1);
            for reader in &mut open {
                reader.coming.try_recv().unwrap();
            }
        }
        assert_eq!(log.metrics.dropped.get(), 1);
        assert_eq!(
            log.metrics.readers.get(),
            i64::try_from(READERS).unwrap() - 1
        );
        for _ in 0..WAITING {
            slow.coming.try_recv().unwrap();
        }
        let over = mpsc::error::TryRecvError::Disconnected;
        assert_eq!(slow.coming.try_recv().unwrap_err(), over);
        open.pop();
        let _two = (log.subscribe(None).unwrap(), log.subscribe(None).unwrap());
        log.close();
        assert!(log.subscribe(None).is_err());
        assert_eq!(open[0].coming.try_recv().unwrap_err(), over);
    }
}
