use std::sync::Mutex;

use dfs_runtime::clock::Clock;
use dfs_runtime::shutdown::shutdown_pair;

use super::*;

/// Follows tokio's time, which the tests pause and advance.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.0.elapsed()
    }
}

#[derive(Debug, Default)]
struct FakeLock {
    held: Mutex<Option<Held>>,
    broken: std::sync::atomic::AtomicBool,
}

impl FakeLock {
    fn holder(&self) -> String {
        let held = self.held.lock().unwrap();
        held.as_ref()
            .map(|held| held.record.holder.clone())
            .unwrap_or_default()
    }

    fn break_it(&self, broken: bool) {
        self.broken
            .store(broken, std::sync::atomic::Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), LockError> {
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(LockError::Failed("the API server is away".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Lock for FakeLock {
    async fn read(&self) -> Result<Option<Held>, LockError> {
        self.check()?;
        Ok(self.held.lock().unwrap().clone())
    }

    async fn write(&self, record: &Record, over: Option<&str>) -> Result<(), LockError> {
        self.check()?;
        let mut held = self.held.lock().unwrap();
        let version = held.as_ref().map(|held| held.version.clone());
        if version.as_deref() != over {
            return Err(LockError::Raced);
        }
        let next = version.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
        *held = Some(Held {
            record: record.clone(),
            version: next.to_string(),
        });
        Ok(())
    }
}

fn elector(lock: &Arc<FakeLock>, name: &str) -> Elector {
    let clock = Arc::new(TokioClock(tokio::time::Instant::now()));
    let gauge = IntGauge::new("leader", "leader").unwrap();
    Elector::new(lock.clone(), clock, name.to_owned(), gauge)
}

#[tokio::test(start_paused = true)]
async fn one_of_two_holds_the_lease_and_the_other_takes_over_after_a_release() {
    let lock = Arc::new(FakeLock::default());
    let (trigger, shutdown) = shutdown_pair();
    let (mut first, mut second) = (elector(&lock, "a"), elector(&lock, "b"));
    assert!(first.acquire(&shutdown).await);
    assert_eq!((lock.holder().as_str(), first.gauge.get()), ("a", 1));
    let keep = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let kept = first.keep(&shutdown).await;
            first.release().await;
            kept
        }
    });
    // A holder that renews is never replaced.
    let patience = tokio::time::timeout(LEASE * 4, second.acquire(&shutdown)).await;
    assert!(patience.is_err(), "the second took a lease that is renewed");
    trigger.trigger();
    assert!(keep.await.unwrap());
    assert_eq!(lock.holder(), "");
    let (_keep, shutdown) = shutdown_pair();
    let started = tokio::time::Instant::now();
    assert!(second.acquire(&shutdown).await);
    assert!(
        started.elapsed() < LEASE,
        "a released lease is free at once"
    );
    assert_eq!(lock.holder(), "b");
    assert_eq!(
        lock.held
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .record
            .transitions,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_is_replaced_after_the_lease_and_learns_that_it_lost() {
    let lock = Arc::new(FakeLock::default());
    let (_trigger, shutdown) = shutdown_pair();
    let (mut first, mut second) = (elector(&lock, "a"), elector(&lock, "b"));
    assert!(first.acquire(&shutdown).await);
    let started = tokio::time::Instant::now();
    assert!(second.acquire(&shutdown).await);
    assert!(started.elapsed() >= LEASE, "taken before it expired");
    assert_eq!(lock.holder(), "b");
    assert!(
        !first.keep(&shutdown).await,
        "a holder that was replaced must stop"
    );
    assert_eq!(first.gauge.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_before_another_may_start() {
    let lock = Arc::new(FakeLock::default());
    let (_trigger, shutdown) = shutdown_pair();
    let mut first = elector(&lock, "a");
    assert!(first.acquire(&shutdown).await);
    lock.break_it(true);
    let started = tokio::time::Instant::now();
    assert!(!first.keep(&shutdown).await);
    assert!(
        started.elapsed() < LEASE,
        "it acted on when another could already hold the lease"
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_api_server_does_not_cost_the_lease() {
    let lock = Arc::new(FakeLock::default());
    let (trigger, shutdown) = shutdown_pair();
    let mut first = elector(&lock, "a");
    assert!(first.acquire(&shutdown).await);
    let keep = tokio::spawn(async move { first.keep(&shutdown).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    lock.break_it(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    lock.break_it(false);
    tokio::time::sleep(Duration::from_secs(20)).await;
    trigger.trigger();
    assert!(keep.await.unwrap());
}
