//! The loop: watches fill caches and say which cluster to look at; one reconcile at a time for each
//! cluster, a few at once in all. One scope is one namespace, or all of them.

mod pace;
mod queue;
mod watches;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_runtime::shutdown::Shutdown;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use kube::api::Resource as _;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{
    Action, Config, Error as ControllerError, ReconcileRequest, applier,
};
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use kube::runtime::watcher;

pub use pace::{backoff, with_jitter};
use queue::Queue;

use crate::crd::DfsCluster;
use crate::ctx::Ctx;
use crate::error::{Category, ReconcileError};
use crate::events::{EventReason, Note};
use crate::metrics::{ReconcileResult, RequeueReason};
use crate::observe::Uid;
use crate::observe::inventory::CachedInventory;
use crate::reconcile::reconcile;
use crate::validate::ClusterKey;

/// How long one reconcile may take.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(90);
/// Reconciles under way at once, in each scope.
const CONCURRENCY: u16 = 8;
/// Several changes within this time are one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// A cluster, or an object that claims to be one and cannot be read.
pub(crate) type Guarded = DeserializeGuard<DfsCluster>;
type Trigger = Result<ReconcileRequest<Guarded>, watcher::Error>;
type Triggers = Pin<Box<dyn Stream<Item = Trigger> + Send>>;

/// Where to look for clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    All,
    /// In one namespace.
    Namespace(String),
}

/// Runs one scope until the shutdown: reconciles under way are finished first. `context` makes the
/// context from the caches.
pub async fn run_scope(
    scope: Scope,
    client: Client,
    context: impl FnOnce(CachedInventory) -> Ctx + Send,
    shutdown: Shutdown,
) {
    let watches::Watched {
        clusters,
        triggers,
        inventory,
        ready,
    } = watches::watch(&scope, &client).await;
    let ctx = Arc::new(context(inventory));
    // An empty cache looks like an empty cluster: nobody decides before all are filled. The watches
    // are driven by the queue, so the waiting happens inside each reconcile.
    let ready = Arc::new(ready);
    let ending = shutdown.clone();
    let waiting = Arc::new(Queue::new(ctx.metrics.waiting.clone()));
    let (entering, leaving) = (Arc::clone(&waiting), Arc::clone(&waiting));
    let queue: Triggers = Box::pin(
        stream::select_all(triggers)
            .filter_map(|trigger| async move { logged(trigger) })
            .inspect_ok(move |request| entering.entered(key_of(&request.obj_ref)))
            .take_until(async move { ending.triggered().await }),
    );
    let reconciler = move |object: Arc<Guarded>, ctx: Arc<Ctx>| {
        let ready = Arc::clone(&ready);
        leaving.left(&key_of(&ObjectRef::from_obj(object.as_ref())));
        Box::pin(async move {
            ready.wait().await;
            pass(&object, &ctx).await
        })
    };
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(CONCURRENCY);
    let store = clusters.clone();
    let policy = |object: Arc<Guarded>, error: &ReconcileError, ctx: Arc<Ctx>| {
        error_policy(&object, error, &ctx)
    };
    applier(reconciler, policy, Arc::clone(&ctx), store, queue, config)
        .for_each(|ended| {
            if let Err(ControllerError::ObjectNotFound(gone)) = &ended {
                let key = key_of(gone);
                waiting.left(&key);
                settle(&key, &ctx, &clusters);
            }
            std::future::ready(())
        })
        .await;
}

/// A watch that breaks is begun again by itself; it must not end the queue.
fn logged(trigger: Trigger) -> Option<Trigger> {
    match trigger {
        Ok(request) => Some(Ok(request)),
        Err(error) => {
            tracing::warn!(%error, "a watch broke; it is begun again");
            None
        }
    }
}

/// One reconcile: bounded in time, counted.
async fn pass(object: &Guarded, ctx: &Ctx) -> Result<Action, ReconcileError> {
    let cluster = match &object.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            ctx.metrics.reconciles.inc(ReconcileResult::Poisoned);
            let note = format!(
                "the object cannot be read, nothing is changed: {}",
                invalid.error
            );
            tracing::warn!(
                name = object.meta().name,
                error = invalid.error,
                "poisoned object"
            );
            let about = object.object_ref(&());
            ctx.events
                .tell(&about, &Note::new(EventReason::Unreadable, note))
                .await;
            return Ok(Action::await_change());
        }
    };
    let started = ctx.clock.monotonic();
    ctx.metrics.in_flight.inc();
    let ended = tokio::time::timeout(RECONCILE_TIMEOUT, reconcile(ctx, cluster)).await;
    ctx.metrics.in_flight.dec();
    let took = ctx.clock.monotonic().saturating_sub(started);
    ctx.metrics.duration.observe(took.as_secs_f64());
    let outcome = ended.unwrap_or(Err(ReconcileError::Timeout(RECONCILE_TIMEOUT)))?;
    ctx.metrics.reconciles.inc(outcome.result);
    if let Some(uid) = &cluster.metadata.uid {
        ctx.memory
            .with(&Uid(uid.clone()), |memory| memory.failures = 0);
    }
    if let (Some(namespace), Some(name)) = (&cluster.metadata.namespace, &cluster.metadata.name)
        && outcome.result == ReconcileResult::Ok
    {
        let key = ClusterKey {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        ctx.metrics.clusters.succeeded(&key, ctx.clock.wall());
    }
    Ok(outcome.requeue.map_or_else(Action::await_change, |next| {
        ctx.metrics.requeues.inc(next.why);
        Action::requeue(with_jitter(next.after, ctx.rng.u64()))
    }))
}

/// When to try again after a failure.
fn error_policy(object: &Guarded, error: &ReconcileError, ctx: &Ctx) -> Action {
    let category = error.category();
    ctx.metrics.reconciles.inc(ReconcileResult::Error);
    ctx.metrics.failures.inc(category);
    let meta = object.meta();
    let uid = Uid(meta.uid.clone().unwrap_or_default());
    let failures = ctx.memory.with(&uid, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
    if category == Category::Conflict {
        tracing::debug!(namespace, name, %error, "changed while it was looked at");
    } else {
        tracing::warn!(namespace, name, failures, %error, "cannot reconcile");
    }
    let changed = category == Category::Conflict;
    ctx.metrics.requeues.inc(if changed {
        RequeueReason::Conflict
    } else {
        RequeueReason::Failure
    });
    let after = backoff(failures, changed);
    Action::requeue(with_jitter(after, ctx.rng.u64()))
}

fn key_of<K: Lookup>(object: &ObjectRef<K>) -> ClusterKey {
    ClusterKey {
        namespace: object.namespace.clone().unwrap_or_default(),
        name: object.name.clone(),
    }
}

/// A cluster was deleted: owner references clean up, here only what is remembered goes.
fn settle(gone: &ClusterKey, ctx: &Ctx, clusters: &Store<Guarded>) {
    ctx.metrics.clusters.forget(gone);
    let state = clusters.state();
    let present: BTreeSet<Uid> = state
        .iter()
        .filter_map(|cluster| cluster.meta().uid.clone().map(Uid))
        .collect();
    ctx.memory.keep(&present);
}
