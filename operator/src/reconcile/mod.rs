//! One pass over one cluster: observe, validate, decide, build, apply, tell the tracker, status.
//!
//! A plain function of context and object, without the watch machinery. It may be dropped at any
//! await: every call is idempotent or guarded, and the next pass starts from what is there.
//!
//! There is no finalizer. Owner references let the garbage collector remove everything that the
//! operator made; claims are not among it, because data outlives its `DfsCluster`. A finalizer would
//! only make `kubectl delete` hang where the operator is gone.

mod growth;
mod objects;
mod removal;
mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use jiff::Timestamp;
use kube::api::Resource as _;

use crate::apply::{Applier, is_current};
use crate::crd::DfsCluster;
use crate::ctx::Ctx;
use crate::decide::conditions::{Trouble, invalid, registered};
use crate::decide::{self, Input, Judgement, Kind, Plan, Step, Stop, Truth};
use crate::error::ReconcileError;
use crate::events::{EventReason, Note, transitions};
use crate::metrics::{ReconcileResult, RequeueReason};
use crate::observe::{Inventory, Observed, Part, Verdicts, observe, read_tracker, verdicts};
use crate::status::{self, Change, Numbers};
use crate::tracker_client::Endpoint;
use crate::validate::{Cluster, InvalidSpec, Rest};

/// While something moves.
const MOVING: Duration = Duration::from_secs(5);
/// While evictions of datanodes wait.
const HELD: Duration = Duration::from_secs(10);
/// Right after the tracker was told something.
const SOON: Duration = Duration::from_secs(2);
/// How long after its last change a cluster counts as moving.
const RECENT: Duration = Duration::from_mins(1);

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// For metrics.
    pub result: ReconcileResult,
    /// When to look again at the latest; none waits for a change of the object.
    pub requeue: Option<Requeue>,
}

/// When to look again, and why then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requeue {
    /// From the end of the pass on.
    pub after: Duration,
    /// For metrics.
    pub why: RequeueReason,
}

/// What a pass carries from step to step.
struct Pass<'a> {
    ctx: &'a Ctx,
    cluster: Cluster,
    object: DfsCluster,
    endpoint: Option<Endpoint>,
    notes: Vec<Note>,
    /// Why the tracker keeps a datanode that was given up.
    loss_refused: Option<String>,
}

/// What one look showed, and what was decided from it.
struct Looked {
    observed: Observed,
    verdicts: Verdicts,
    waited: BTreeMap<DatanodeId, Duration>,
    now: Timestamp,
    plan: Plan,
}

impl Looked {
    fn input<'a>(&'a self, cluster: &'a Cluster) -> Input<'a> {
        Input {
            cluster,
            observed: &self.observed,
            verdicts: &self.verdicts,
            waited: &self.waited,
            now: self.now,
        }
    }
}

/// Makes one cluster be what it says, as far as that is possible now.
pub async fn reconcile(ctx: &Ctx, object: &DfsCluster) -> Result<Outcome, ReconcileError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome {
            result: ReconcileResult::Ok,
            requeue: None,
        });
    }
    let cluster = match Cluster::read(object) {
        Ok(cluster) => cluster,
        Err(reason) => return reject(ctx, object, &reason).await,
    };
    let mut pass = Pass {
        ctx,
        cluster,
        object: object.clone(),
        endpoint: None,
        notes: Vec::new(),
        loss_refused: None,
    };
    let token = crate::secret::token(ctx, &pass.cluster, object).await?;
    pass.endpoint = token.map(|token| Endpoint {
        address: (ctx.address_of)(&pass.cluster.key),
        token,
    });
    let mut observed = observe(ctx.inventory.as_ref(), &pass.cluster.key).await?;
    if let Some(endpoint) = &pass.endpoint
        && (observed
            .tracker_set
            .as_ref()
            .is_some_and(|set| set.wanted > 0)
            || observed.pods_of(Part::Tracker).next().is_some())
    {
        observed.tracker = read_tracker(&ctx.asking(), endpoint).await;
    }
    pass.record_cluster_id(&observed).await?;
    let mut looked = pass.look(observed).await;
    let mut refused = None;
    let mut told = 0;
    if !pass.cluster.paused {
        let wanted = match objects::desired(ctx, &pass.object, &pass.cluster, &looked.plan) {
            Ok(wanted) => wanted,
            Err(reason) => return reject(ctx, object, &reason).await,
        };
        refused = pass.applier().apply_all(&wanted).await?;
        let stays = pass.grow(&looked.plan.growth.asks).await?;
        if refused
            .as_ref()
            .is_none_or(|refused| !refused.stops_everything())
        {
            told = pass.tell(&mut looked).await?;
        }
        if stays.is_some() {
            looked.plan.growth.refused = stays;
        }
        looked.plan.loss.refused = pass.loss_refused.take();
    }
    pass.note_refusals(&looked.observed);
    pass.note_budget(&looked.plan);
    let error = refused.map(|refused| refused.error);
    let trouble = error.as_ref().map(|error| Trouble(error.to_string()));
    let moving = pass.finish(&looked, trouble.as_ref()).await?;
    error.map_or(Ok(()), Err)?;
    Ok(Outcome {
        result: ReconcileResult::Ok,
        requeue: Some(requeue(told, moving, &looked.plan, ctx.resync)),
    })
}

fn requeue(told: usize, moving: bool, plan: &Plan, resync: Duration) -> Requeue {
    let (after, why) = match (told, moving) {
        (0, true) => (MOVING, RequeueReason::Moving),
        (0, false) if plan.budget.held.is_some() => {
            (resync.min(HELD), RequeueReason::EvictionsHeld)
        }
        (0, false) => (resync, RequeueReason::Resync),
        _ => (SOON, RequeueReason::Told),
    };
    Requeue { after, why }
}

/// A spec that makes no sense: nothing is touched, its status says why. The object's own change
/// brings it back.
async fn reject(
    ctx: &Ctx,
    object: &DfsCluster,
    reason: &InvalidSpec,
) -> Result<Outcome, ReconcileError> {
    let judgements = invalid(&reason.to_string());
    if let Ok(cluster) = Cluster::unchecked(object) {
        let pass = Pass {
            ctx,
            cluster,
            object: object.clone(),
            endpoint: None,
            notes: Vec::new(),
            loss_refused: None,
        };
        pass.publish(None, &judgements).await?;
    }
    Ok(Outcome {
        result: ReconcileResult::Invalid,
        requeue: None,
    })
}

impl Pass<'_> {
    fn applier(&self) -> Applier<'_> {
        Applier {
            client: &self.ctx.client,
            inventory: self.ctx.inventory.as_ref(),
            key: &self.cluster.key,
            owner: &self.cluster.uid,
            seen: &self.object,
            metrics: &self.ctx.metrics,
            settled: &self.ctx.settled,
        }
    }

    /// Writes down which cluster this is, before anything depends on it.
    async fn record_cluster_id(&mut self, observed: &Observed) -> Result<(), ReconcileError> {
        let (None, Some(open)) = (self.cluster.cluster_id, observed.tracker.open()) else {
            return Ok(());
        };
        let id = open.status.cluster;
        let mut status = self.object.status.clone().unwrap_or_default();
        status.cluster_id = Some(id.to_string());
        self.object = status::write(self.ctx, &self.cluster, &self.object, &status).await?;
        self.cluster.cluster_id = Some(id);
        Ok(())
    }

    async fn look(&self, observed: Observed) -> Looked {
        let ctx = self.ctx;
        let open = observed.tracker.open();
        let pending = open.into_iter().flat_map(|open| &open.nodes);
        let pending = pending
            .filter(|entry| entry.admin == AdminState::Pending)
            .map(|entry| entry.id);
        let now = ctx.clock.monotonic();
        let waited = ctx.memory.waited(&self.cluster.uid, pending, now);
        let verdicts = match &self.endpoint {
            Some(endpoint) => verdicts(&ctx.asking(), endpoint, &self.cluster, &observed).await,
            None => Verdicts::default(),
        };
        // The API keeps whole seconds.
        let now = ctx.clock.wall();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let plan = decide::decide(&Input {
            cluster: &self.cluster,
            observed: &observed,
            verdicts: &verdicts,
            waited: &waited,
            now,
        });
        Looked {
            observed,
            verdicts,
            waited,
            now,
            plan,
        }
    }

    /// Tells the tracker what was decided; returns how much. What was decided from caches is decided
    /// again from a look at the API server itself: a volume is bound to a uuid for ever.
    async fn tell(&mut self, looked: &mut Looked) -> Result<usize, ReconcileError> {
        if looked.plan.steps.is_empty() {
            return Ok(0);
        }
        let Some(endpoint) = self.endpoint.clone() else {
            return Ok(0);
        };
        let mut observed = observe(&self.ctx.live as &dyn Inventory, &self.cluster.key).await?;
        observed.tracker = read_tracker(&self.ctx.asking(), &endpoint).await;
        *looked = self.look(observed).await;
        if looked.plan.steps.iter().any(Step::is_final) {
            is_current(&self.ctx.client, &self.cluster.key, &self.object).await?;
        }
        let steps = looked.plan.steps.clone();
        for step in &steps {
            self.step(&endpoint, step).await?;
        }
        Ok(steps.len())
    }

    /// Registrations that the tracker refused by itself become events.
    fn note_refusals(&mut self, observed: &Observed) {
        let Some(open) = observed.tracker.open() else {
            return;
        };
        self.ctx.memory.with(&self.cluster.uid, |memory| {
            let known = std::mem::take(&mut memory.refusals);
            // Those that the operator had refused were told when it did.
            for refusal in open.refusals.iter().filter(|one| one.reason != "refused") {
                let note = steps::refusal(refusal);
                if known
                    .get(&note.note)
                    .is_none_or(|count| *count < refusal.count)
                {
                    self.notes.push(note.clone());
                }
                memory.refusals.insert(note.note, refusal.count);
            }
        });
    }

    /// The eviction gate's turns become events. What a new process sees first is no turn.
    fn note_budget(&mut self, plan: &Plan) {
        let budget = &plan.budget;
        let runs = self.cluster.rest == Rest::None;
        if self.cluster.paused || self.cluster.factor < 2 || !runs {
            return;
        }
        let held = budget.held.is_some();
        let was_held = self.ctx.memory.with(&self.cluster.uid, |memory| {
            memory.evictions_held.replace(held)
        });
        match (was_held, &budget.held) {
            (Some(false), Some(why)) => self.notes.push(Note::new(
                EventReason::EvictionsHeld,
                format!("no datanode may be evicted: {why}"),
            )),
            (Some(true), None) => self.notes.push(Note::new(
                EventReason::EvictionsAllowed,
                "one datanode at a time may be evicted",
            )),
            (None, _) | (Some(true), Some(_)) | (Some(false), None) => {}
        }
    }

    /// Writes the status and tells the events; returns whether something moves.
    async fn finish(
        &self,
        looked: &Looked,
        trouble: Option<&Trouble>,
    ) -> Result<bool, ReconcileError> {
        let input = looked.input(&self.cluster);
        let judgements = decide::conditions(&input, &looked.plan, trouble);
        let numbers = Numbers {
            observed: &looked.observed,
            registered: registered(&input),
            desired: self.cluster.datanodes,
            decommissions: &looked.plan.scale.decommissions,
            replacements: &looked.plan.growth.replacements,
            loss: looked.plan.loss.record.as_ref(),
            foreign_cluster: decide::foreign_cluster(&input),
            rests: looked.plan.stop.as_ref().is_some_and(Stop::ends_datanodes),
        };
        let changed = self.publish(Some(numbers), &judgements).await?;
        let moves = judgements
            .iter()
            .any(|one| one.kind == Kind::Progressing && one.truth == Truth::True);
        // Something that has been stuck for a while need not be looked at more often than the rest.
        let since = self.since_last_write();
        let recently = changed == Change::Major || since.is_some_and(|since| since < RECENT);
        let leaves = !looked.plan.scale.decommissions.is_empty()
            || !looked.plan.growth.replacements.is_empty()
            || looked.plan.loss.record.is_some();
        Ok(moves && (recently || leaves))
    }

    fn since_last_write(&self) -> Option<Duration> {
        let written = self
            .ctx
            .memory
            .with(&self.cluster.uid, |memory| memory.status_written)?;
        Some(self.ctx.clock.monotonic().saturating_sub(written))
    }

    async fn publish(
        &self,
        numbers: Option<Numbers<'_>>,
        judgements: &[Judgement],
    ) -> Result<Change, ReconcileError> {
        let ctx = self.ctx;
        ctx.metrics.clusters.judged(&self.cluster.key, judgements);
        let next = status::compose(&self.object, numbers, judgements, ctx.clock.wall());
        let change = status::change(self.object.status.as_ref(), &next);
        let mut notes = self.notes.clone();
        if status::is_due(change, self.since_last_write()) {
            status::write(ctx, &self.cluster, &self.object, &next).await?;
            notes.extend(transitions(
                &status::before(self.object.status.as_ref()),
                judgements,
            ));
        }
        let about = self.object.object_ref(&());
        for note in &notes {
            ctx.events.tell(&about, note).await;
        }
        Ok(change)
    }
}
