//! Registration and heartbeats: how the tracker knows what is here, and how its commands arrive.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dfs_client::{ClientError, HttpTracker};
use dfs_protocol::chunk::SetDigest;
use dfs_protocol::datanode::{
    Admission, ChunkReport, Heartbeat, HeartbeatReply, RegisterRequest, RegisterResponse,
};
use dfs_protocol::repair::RepairTerms;
use dfs_protocol::{ClusterId, DatanodeId, ErrorCode, Problem};

use crate::commands::{self, Workers};
use crate::context::{Context, Standing};
use crate::store::VolumeError;

/// First wait after a failed registration.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait between registrations.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Between two registrations of one that an administrator refused.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Bounds of what a tracker may ask for as the time between heartbeats.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(1));
/// Heartbeats that may fail before the datanode announces itself anew.
const MAX_FAILURES: u32 = 10;

/// What one exchange with the tracker leads to.
enum Step {
    /// Heartbeat again after the interval.
    Admitted,
    /// Announce again.
    Register,
}

/// Registers and heartbeats until the shutdown. An error is for ever: a volume of another cluster,
/// or one that cannot be written.
pub async fn run(ctx: Arc<Context>, tracker: HttpTracker) -> Result<(), VolumeError> {
    let workers = Workers::new(ctx.config.max_commands);
    while !ctx.shutdown.is_triggered() {
        let Some(interval) = admitted(&ctx, &tracker).await? else {
            break;
        };
        heartbeats(&ctx, &tracker, &workers, interval).await?;
    }
    workers.close();
    Ok(())
}

/// Announces this datanode until it is in. None at the shutdown.
async fn admitted(
    ctx: &Arc<Context>,
    tracker: &HttpTracker,
) -> Result<Option<Duration>, VolumeError> {
    let (mut wait, mut failures) = (FIRST_WAIT, 0);
    while !ctx.shutdown.is_triggered() {
        match tracker.register(&announcement(ctx)).await {
            Ok(response) => {
                let interval = Duration::from_millis(response.heartbeat_interval_ms)
                    .clamp(INTERVALS.0, INTERVALS.1);
                if settle(ctx, &response).await? {
                    return Ok(Some(interval));
                }
                wait = interval;
            }
            // Neither side will change its cluster: a volume of another one is not for this tracker.
            Err(ClientError::Refused(problem)) if problem.is(ErrorCode::WrongCluster) => {
                return Err(VolumeError::Refused {
                    path: ctx.volume.root().to_path_buf(),
                    detail: problem.detail.clone(),
                });
            }
            Err(error) => {
                failures += 1;
                refused(ctx, &error, failures);
                wait = if error.is(ErrorCode::Refused) {
                    // Nothing of it is used, and nobody is in a hurry.
                    ctx.standing.send_replace(Standing::Pending);
                    REFUSED_WAIT
                } else {
                    (wait * 2).min(LONGEST_WAIT)
                };
            }
        }
        pause(ctx, wait, false).await;
    }
    Ok(None)
}

/// Acts on the answer to an announcement; true when this datanode is in.
async fn settle(ctx: &Arc<Context>, response: &RegisterResponse) -> Result<bool, VolumeError> {
    if let Some(volume) = ctx.volume.record().cluster
        && volume != response.cluster
    {
        return Err(VolumeError::ForeignCluster {
            path: ctx.volume.root().to_path_buf(),
            volume,
            tracker: response.cluster,
        });
    }
    if let Err(problem) = ctx.accept(response.fence).await {
        tracing::warn!(%problem, "the answer of a deposed tracker was ignored");
        return Ok(false);
    }
    match response.admission {
        Admission::Admitted => {
            let cluster = response.cluster;
            adopt(ctx, cluster).await?;
            ctx.standing.send_replace(Standing::Admitted);
            ctx.readiness.set("registered", Ok(()));
            tracing::info!(%cluster, datanode = %ctx.id(), "admitted by the tracker");
            Ok(true)
        }
        Admission::Pending => {
            let before = ctx.standing.send_replace(Standing::Pending);
            if before != Standing::Pending {
                tracing::info!(datanode = %ctx.id(), "announced; waiting to be admitted");
            }
            // Known to the tracker: whoever admits must be able to see it.
            ctx.readiness.set("registered", Ok(()));
            Ok(false)
        }
        Admission::Reset => {
            reset(ctx).await?;
            Ok(false)
        }
    }
}

async fn adopt(ctx: &Arc<Context>, cluster: ClusterId) -> Result<(), VolumeError> {
    let adopted = ctx.blocking(move |ctx| ctx.volume.adopt(cluster)).await;
    adopted.unwrap_or_else(|problem| Err(lost(ctx, "writing the cluster id", &problem)))
}

/// The uuid is tombstoned: the chunks are moved out of sight and the datanode becomes a newcomer.
/// A crash on the way leaves the old uuid, and the tracker says the same again.
async fn reset(ctx: &Arc<Context>) -> Result<(), VolumeError> {
    ctx.standing.send_replace(Standing::Pending);
    let fresh = DatanodeId::from_u128(ctx.rng.u128());
    tracing::warn!(old = %ctx.id(), new = %fresh, "this uuid is tombstoned: starting anew");
    ctx.retired_since.store(ctx.seconds(), Ordering::Relaxed);
    let done = ctx.blocking(move |ctx| {
        ctx.store
            .retire_all()
            .map_err(|error| lost(ctx, "retiring chunks", &error.describe()))?;
        ctx.volume.rename(fresh)
    });
    match done.await {
        Ok(result) => result,
        Err(problem) => Err(lost(ctx, "retiring chunks", &problem)),
    }
}

fn lost(ctx: &Context, doing: &'static str, error: &dyn std::fmt::Display) -> VolumeError {
    VolumeError::Disk {
        path: ctx.volume.root().to_path_buf(),
        doing,
        source: std::io::Error::other(error.to_string()),
    }
}

/// Notes a failed registration, the `failures`th in a row.
fn refused(ctx: &Context, error: &ClientError, failures: u32) {
    ctx.metrics.heartbeat_errors.inc();
    let reason = format!(
        "the tracker at {} does not take it: {error}",
        ctx.config.tracker
    );
    ctx.readiness.set("registered", Err(reason));
    if matches!(error, ClientError::Refused(_)) {
        tracing::warn!(%error, "the tracker refused this datanode; trying again");
    } else if failures >= 4 && failures.is_power_of_two() {
        // Often the tracker starts a moment later; a wrong address must be seen, and must not fill the log.
        tracing::warn!(tracker = %ctx.config.tracker, %error, failures,
            "cannot register; trying again: check that the tracker runs, and --tracker");
    } else {
        tracing::debug!(%error, "could not register; trying again");
    }
}

fn announcement(ctx: &Context) -> RegisterRequest {
    let record = ctx.volume.record();
    RegisterRequest {
        cluster: record.cluster,
        datanode: record.datanode,
        instance: ctx.instance,
        address: ctx.config.advertise.clone(),
        zone: ctx.config.zone.clone(),
        host: ctx.config.host.clone(),
        pod: ctx.config.pod.clone(),
        fence: record.fence,
        stats: ctx.stats(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Heartbeats until the tracker wants an announcement, or the shutdown.
async fn heartbeats(
    ctx: &Arc<Context>,
    tracker: &HttpTracker,
    workers: &Arc<Workers>,
    interval: Duration,
) -> Result<(), VolumeError> {
    let mut failures = 0;
    while !ctx.shutdown.is_triggered() {
        match heartbeat(ctx, tracker, workers).await {
            Ok(Step::Admitted) => {
                failures = 0;
                ctx.metrics.heartbeats.inc();
                ctx.readiness.set("registered", Ok(()));
            }
            Ok(Step::Register) => return Ok(()),
            Err(error) => {
                ctx.metrics.heartbeat_errors.inc();
                failures += 1;
                let unknown = error.is(ErrorCode::NotFound)
                    || error.is(ErrorCode::WrongCluster)
                    || error.is(ErrorCode::Conflict);
                tracing::debug!(%error, failures, "a heartbeat failed");
                if unknown || failures >= MAX_FAILURES {
                    refused(ctx, &error, failures);
                    return Ok(());
                }
            }
        }
        pause(ctx, interval, failures == 0).await;
    }
    Ok(())
}

async fn heartbeat(
    ctx: &Arc<Context>,
    tracker: &HttpTracker,
    workers: &Arc<Workers>,
) -> Result<Step, ClientError> {
    let Ok(cluster) = ctx.admitted() else {
        return Ok(Step::Register);
    };
    let delta = ctx.store.index().delta();
    let finished: Vec<_> = {
        let tasks = ctx.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.finished.iter().cloned().collect()
    };
    let told = finished.len();
    let record = ctx.volume.record();
    let heartbeat = Heartbeat {
        cluster,
        datanode: record.datanode,
        instance: ctx.instance,
        sequence: ctx.sequence.fetch_add(1, Ordering::Relaxed) + 1,
        address: ctx.config.advertise.clone(),
        fence: record.fence,
        stats: ctx.stats(),
        base: delta.base,
        added: delta.added,
        removed: delta.removed,
        digest: delta.digest,
        corrupt: delta.corrupt,
        finished,
    };
    let (reply, terms) = tracker.heartbeat(&heartbeat, Some(&ctx.traffic())).await?;
    if !obey(ctx, workers, &reply, terms).await {
        return Ok(Step::Admitted);
    }
    {
        let mut tasks = ctx.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.finished.drain(..told);
    }
    ctx.store.index().confirm(delta.mark, true);
    if reply.full_report {
        report(ctx, tracker, workers, cluster).await?;
    }
    Ok(standing(reply.admission))
}

async fn report(
    ctx: &Arc<Context>,
    tracker: &HttpTracker,
    workers: &Arc<Workers>,
    cluster: ClusterId,
) -> Result<(), ClientError> {
    let (replicas, mark) = ctx.store.index().report();
    let digest = SetDigest::of(replicas.iter().map(|replica| &replica.chunk));
    let report = ChunkReport {
        cluster,
        datanode: ctx.id(),
        instance: ctx.instance,
        sequence: ctx.sequence.fetch_add(1, Ordering::Relaxed) + 1,
        replicas,
        digest,
    };
    let encoded = postcard::to_stdvec(&report)
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    let (reply, terms) = tracker.chunk_report(encoded).await?;
    ctx.metrics.reports.inc();
    if obey(ctx, workers, &reply, terms).await {
        ctx.store.index().confirm(mark, false);
    }
    Ok(())
}

/// Takes a reply's orders; false when it comes from a deposed tracker and is ignored.
async fn obey(
    ctx: &Arc<Context>,
    workers: &Arc<Workers>,
    reply: &HeartbeatReply,
    terms: Option<RepairTerms>,
) -> bool {
    if let Err(problem) = ctx.accept(reply.fence).await {
        tracing::warn!(%problem, "the reply of a deposed tracker was ignored");
        return false;
    }
    if let Some(terms) = &terms {
        ctx.repair.set_rate(terms.rate);
    }
    let last_replicas = terms.unwrap_or_default().last_replicas;
    let commands = reply.commands.clone();
    commands::start(ctx, workers, reply.fence, commands, &last_replicas);
    let floor = reply.journal_floor;
    let trimmed = ctx.blocking(move |ctx| {
        let trimmed = ctx.journal.trim(floor);
        let damaged = i64::try_from(ctx.journal.damaged()).unwrap_or(i64::MAX);
        ctx.metrics.journal_damaged.set(damaged);
        trimmed
    });
    if let Ok(Err(error)) = trimmed.await {
        tracing::warn!(%error, "could not trim the journal");
    }
    true
}

fn standing(admission: Admission) -> Step {
    match admission {
        Admission::Admitted => Step::Admitted,
        // The announcement's answer says what to do.
        Admission::Pending | Admission::Reset => Step::Register,
    }
}

/// Waits for about `interval`, so that datanodes do not march in step; less when there is
/// something to tell at once.
async fn pause(ctx: &Arc<Context>, interval: Duration, may_hurry: bool) {
    let jitter = 0.9 + 0.2 * ctx.rng.fork().f64();
    let hurried = async {
        if may_hurry {
            ctx.store.index().hurried().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(interval.mul_f64(jitter)) => {}
        () = ctx.shutdown.triggered() => {}
        () = hurried => {}
    }
}
