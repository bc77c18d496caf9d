//! The tracker as doors see it while it restarts: a call that does not reach it waits and is made
//! again, for a bounded time; then the client gets 503 with Retry-After. A tracker is back in seconds,
//! and its clients should not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dfs_client::{ClientError, TrackerApi};
use dfs_protocol::calls::{
    DatanodeRequest, FileRequest, FsckPage, FsckRequest, Nothing, PurgeRequest, RestoreRequest,
    SetAdminRequest, TrashPage, TrashRequest,
};
use dfs_protocol::factor::{FactorPage, FactorRequest};
use dfs_protocol::file::FileRecord;
use dfs_protocol::status::{ClusterStatus, DatanodeStatus, FileChunks, OkToStopRequest, Verdict};
use dfs_protocol::upload::{
    AllocateRequest, AllocateResponse, CommitRequest, CommitResponse, DeleteRequest,
    DeleteResponse, ListRequest, ListResponse, LocateRequest, LocateResponse, LocatedChunk,
    RenewRequest, RenewResponse, SuspectReplica, TransferRequest, TransferResponse,
};
use dfs_runtime::clock::SharedClock;

use crate::metrics::GatewayMetrics;

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at a tracker that gathers reports: datanodes are back within a heartbeat.
pub(crate) const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// What a call may be repeated after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Any broken connection: having it twice is having it once.
    Always,
    /// Only when it was surely not sent: its answer would change.
    Unsent,
}

/// Waits for the tracker.
#[derive(Debug)]
pub(crate) struct Patient {
    tracker: Arc<dyn TrackerApi>,
    clock: SharedClock,
    patience: Duration,
    metrics: GatewayMetrics,
    /// Monotonic milliseconds, plus one, of the last call that did not reach the tracker; 0 for never.
    last_missed: AtomicU64,
}

impl Patient {
    pub(crate) fn shared(
        tracker: Arc<dyn TrackerApi>,
        clock: SharedClock,
        patience: Duration,
        metrics: GatewayMetrics,
    ) -> Arc<dyn TrackerApi> {
        Arc::new(Self {
            tracker,
            clock,
            patience,
            metrics,
            last_missed: AtomicU64::new(0),
        })
    }

    async fn insist<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        repeat: Repeat,
        call: impl Fn() -> F,
    ) -> Result<T, ClientError> {
        let deadline = self.clock.monotonic() + self.patience;
        let mut pause = FIRST_PAUSE;
        let mut waited = false;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let now = self.clock.monotonic();
            if is_missed(&error) {
                let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1);
                self.last_missed.store(millis + 1, Ordering::Relaxed);
            }
            if !self.is_worth_waiting(&error, repeat, now) {
                return Err(error);
            }
            if now + pause > deadline {
                if waited {
                    self.metrics.tracker_given_up.inc();
                }
                return Err(error);
            }
            waited = true;
            self.metrics.tracker_retries.inc();
            tracing::debug!(%error, "the tracker is waited for");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_worth_waiting(&self, error: &ClientError, repeat: Repeat, now: Duration) -> bool {
        match error {
            ClientError::NotConnected { .. } => true,
            ClientError::Unreachable { .. } => repeat == Repeat::Always,
            // One that was away a moment ago still gathers reports and datanodes. An answer that
            // has nothing to do with that is the client's to hear at once.
            ClientError::Refused(_) => error.is_transient() && self.was_missed_lately(now),
            ClientError::TimedOut { .. }
            | ClientError::BrokenOff { .. }
            | ClientError::Malformed { .. } => false,
        }
    }

    fn was_missed_lately(&self, now: Duration) -> bool {
        let missed = self.last_missed.load(Ordering::Relaxed);
        let since = |at: u64| now.saturating_sub(Duration::from_millis(at));
        missed
            .checked_sub(1)
            .is_some_and(|at| since(at) < self.patience)
    }
}

fn is_missed(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::NotConnected { .. } | ClientError::Unreachable { .. }
    )
}

/// Whether a tracker that gathers reports does not know yet where any of it is. Where it knows some of the chunks,
/// the reader waits for those that it comes to, and for no others.
pub(crate) fn is_unreported(located: &LocateResponse) -> bool {
    let unreported = |chunk: &LocatedChunk| chunk.replicas.is_empty();
    located.safe_mode && !located.chunks.is_empty() && located.chunks.iter().all(unreported)
}

#[async_trait]
impl TrackerApi for Patient {
    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, ClientError> {
        let call = || self.tracker.allocate(request.clone());
        self.insist(Repeat::Always, call).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<RenewResponse, ClientError> {
        self.tracker.renew(request).await
    }

    /// Repeated by the upload, which knows what an unheard answer means.
    async fn commit(&self, request: CommitRequest) -> Result<CommitResponse, ClientError> {
        self.tracker.commit(request).await
    }

    /// A tracker that gathers reports is waited for also by a door that did not miss it: none may have asked it while
    /// it was away, and this one may be younger than the tracker's start.
    async fn locate(&self, request: LocateRequest) -> Result<LocateResponse, ClientError> {
        let call = || self.tracker.locate(request.clone());
        let deadline = self.clock.monotonic() + self.patience;
        let mut waited = false;
        loop {
            let located = self.insist(Repeat::Always, call).await?;
            let now = self.clock.monotonic();
            if !is_unreported(&located) {
                return Ok(located);
            }
            if now >= deadline {
                if waited {
                    self.metrics.tracker_given_up.inc();
                }
                return Ok(located);
            }
            waited = true;
            self.metrics.tracker_retries.inc();
            tokio::time::sleep(REPORT_PAUSE).await;
        }
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, ClientError> {
        let call = || self.tracker.list(request.clone());
        self.insist(Repeat::Always, call).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, ClientError> {
        let call = || self.tracker.delete(request.clone());
        self.insist(Repeat::Unsent, call).await
    }

    async fn transfer(&self, request: TransferRequest) -> Result<TransferResponse, ClientError> {
        let call = || self.tracker.transfer(request.clone());
        self.insist(Repeat::Unsent, call).await
    }

    async fn factor(&self, request: FactorRequest) -> Result<FactorPage, ClientError> {
        let call = || self.tracker.factor(request.clone());
        self.insist(Repeat::Always, call).await
    }

    async fn suspect(&self, request: SuspectReplica) -> Result<Nothing, ClientError> {
        self.tracker.suspect(request).await
    }

    /// Asked to learn how the tracker is now: not waited for.
    async fn status(&self, request: Nothing) -> Result<ClusterStatus, ClientError> {
        self.tracker.status(request).await
    }

    async fn datanodes(&self, request: Nothing) -> Result<Vec<DatanodeStatus>, ClientError> {
        self.tracker.datanodes(request).await
    }

    async fn chunks(&self, request: FileRequest) -> Result<FileChunks, ClientError> {
        self.tracker.chunks(request).await
    }

    async fn fsck(&self, request: FsckRequest) -> Result<FsckPage, ClientError> {
        self.tracker.fsck(request).await
    }

    async fn trash(&self, request: TrashRequest) -> Result<TrashPage, ClientError> {
        self.tracker.trash(request).await
    }

    async fn restore(&self, request: RestoreRequest) -> Result<FileRecord, ClientError> {
        self.tracker.restore(request).await
    }

    async fn purge(&self, request: PurgeRequest) -> Result<Nothing, ClientError> {
        self.tracker.purge(request).await
    }

    async fn set_admin(&self, request: SetAdminRequest) -> Result<DatanodeStatus, ClientError> {
        self.tracker.set_admin(request).await
    }

    async fn safe_to_remove(&self, request: DatanodeRequest) -> Result<Verdict, ClientError> {
        self.tracker.safe_to_remove(request).await
    }

    async fn ok_to_stop(&self, request: OkToStopRequest) -> Result<Verdict, ClientError> {
        self.tracker.ok_to_stop(request).await
    }

    async fn acknowledge_partition(&self, request: Nothing) -> Result<Nothing, ClientError> {
        self.tracker.acknowledge_partition(request).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use dfs_protocol::{ErrorCode, Problem};
    use dfs_runtime::clock::SystemClock;

    use super::*;
    use crate::testing::{CHUNK, parts};

    async fn patient(patience: Duration) -> Patient {
        let (parts, _, tracker, _end) = parts(1, CHUNK).await;
        Patient {
            tracker,
            clock: SystemClock::shared(),
            patience,
            metrics: GatewayMetrics::register(&parts.registry).unwrap(),
            last_missed: AtomicU64::new(0),
        }
    }

    fn not_connected() -> ClientError {
        ClientError::NotConnected {
            address: "tracker".into(),
            detail: "connection refused".into(),
        }
    }

    fn broken() -> ClientError {
        ClientError::Unreachable {
            address: "tracker".into(),
            detail: "reset".into(),
        }
    }

    fn refusal(code: ErrorCode) -> ClientError {
        Problem::new(code, "x").into()
    }

    /// Fails with each error in turn, then answers; how often it was asked.
    async fn asked(
        patient: &Patient,
        repeat: Repeat,
        errors: Vec<fn() -> ClientError>,
    ) -> (u32, bool) {
        let count = AtomicU32::new(0);
        let answer = patient.insist(repeat, || {
            let at = count.fetch_add(1, Ordering::SeqCst) as usize;
            let error = errors.get(at).map(|error| error());
            async move { error.map_or(Ok(()), Err) }
        });
        let is_ok = answer.await.is_ok();
        (count.load(Ordering::SeqCst), is_ok)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_tracker_that_restarts_is_waited_for_until_it_is_ready() {
        let patient = patient(LONG).await;
        let errors: Vec<fn() -> ClientError> = vec![
            not_connected,
            not_connected,
            || refusal(ErrorCode::SafeMode),
            || refusal(ErrorCode::TooFewDatanodes),
        ];
        assert_eq!(asked(&patient, Repeat::Unsent, errors).await, (5, true));
        assert_eq!(patient.metrics.tracker_retries.get(), 4);
    }

    #[tokio::test]
    async fn a_read_waits_while_a_tracker_gathers_reports_also_where_nobody_missed_it() {
        let (world, _) = crate::download::tests::stored().await;
        let patient = Arc::new(Patient {
            tracker: world.tracker.clone(),
            clock: SystemClock::shared(),
            patience: LONG,
            metrics: world.gateway.metrics.clone(),
            last_missed: AtomicU64::new(0),
        });
        let request = || LocateRequest {
            path: crate::download::tests::path(),
            locations: true,
        };
        world.tracker.safe_mode.store(true, Ordering::SeqCst);
        let retries = patient.metrics.tracker_retries.get();
        let waiting = tokio::spawn({
            let (patient, request) = (patient.clone(), request());
            async move { patient.locate(request).await.unwrap() }
        });
        while patient.metrics.tracker_retries.get() == retries && !waiting.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        world.tracker.safe_mode.store(false, Ordering::SeqCst);
        assert!(!is_unreported(&waiting.await.unwrap()));
    }

    #[tokio::test]
    async fn a_refusal_of_a_tracker_that_was_never_away_is_told_at_once() {
        let patient = patient(LONG).await;
        for code in [ErrorCode::SafeMode, ErrorCode::TooFewDatanodes] {
            let error = patient
                .insist(
                    Repeat::Always,
                    || async move { Err::<(), _>(refusal(code)) },
                )
                .await
                .unwrap_err();
            assert!(error.is(code));
        }
        let errors: Vec<fn() -> ClientError> = vec![not_connected, || refusal(ErrorCode::NotFound)];
        assert_eq!(asked(&patient, Repeat::Always, errors).await, (2, false));
    }

    #[tokio::test]
    async fn i19_a_change_that_may_have_taken_effect_is_not_sent_twice() {
        let patient = patient(LONG).await;
        let errors: Vec<fn() -> ClientError> = vec![broken];
        assert_eq!(
            asked(&patient, Repeat::Unsent, errors.clone()).await,
            (1, false)
        );
        assert_eq!(asked(&patient, Repeat::Always, errors).await, (2, true));
    }

    #[tokio::test]
    async fn the_wait_is_bounded_and_ends_in_503_with_a_time_to_try_again() {
        let patient = patient(Duration::from_millis(200)).await;
        let error = patient
            .insist(Repeat::Always, || async { Err::<(), _>(not_connected()) })
            .await
            .unwrap_err();
        let problem = error.into_problem();
        assert_eq!(problem.status, 503);
        assert!(problem.retry_after.is_some());
        assert_eq!(patient.metrics.tracker_given_up.get(), 1);
    }
}
