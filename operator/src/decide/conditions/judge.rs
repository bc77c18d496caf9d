//! One judge for each condition.

use super::super::{CatalogStep, Input, Plan, Roll, Step, spread, waits};
use super::{Judgement, Kind, Reason, Trouble, Truth, coarse, nodes, storage};
use crate::crd::DecommissionState;
use crate::observe::{TrackerView, WorkloadView};
use dfs_protocol::datanode::Liveness;

pub(super) struct Judge<'a> {
    input: &'a Input<'a>,
    plan: &'a Plan,
    trouble: Option<&'a Trouble>,
}

/// What stands in the way of `Ready`.
struct Obstacle {
    reason: Reason,
    message: String,
}

impl<'a> Judge<'a> {
    pub(super) const fn new(
        input: &'a Input<'a>,
        plan: &'a Plan,
        trouble: Option<&'a Trouble>,
    ) -> Self {
        Self {
            input,
            plan,
            trouble,
        }
    }

    pub(super) fn all(&self) -> Vec<Judgement> {
        vec![
            self.ready(),
            self.available(),
            self.progressing(),
            self.degraded(),
            self.redundant(),
            self.decommissioning(),
            self.scale_down_blocked(),
            self.catalog_lost(),
            storage::resizing(self.plan),
            nodes::lost(self.input, self.plan),
            self.paused(),
        ]
    }

    fn registered(&self) -> i64 {
        registered(self.input)
    }

    /// Everything that is not as wanted, most telling first.
    fn obstacles(&self) -> Vec<Obstacle> {
        let mut found = Vec::new();
        let mut add = |reason, message: String| found.push(Obstacle { reason, message });
        if let Some(Trouble(message)) = self.trouble {
            add(Reason::ApplyFailed, message.clone());
        }
        if let Some(other) = self.plan.wrong_cluster {
            add(Reason::WrongCluster, self.wrong_cluster(other));
        }
        if let Roll::Stopped(why) = &self.plan.roll {
            add(Reason::RollStopped, why.clone());
        }
        if let Some((reason, message)) = self.tracker_obstacle() {
            add(reason, message);
        }
        self.datanode_obstacles(&mut add);
        let gateways = self.input.cluster.gateways;
        let ready = ready_of(self.input.observed.gateway.as_ref());
        if ready < gateways {
            let waits = waits::gateway_waits(self.input.observed);
            let message = with(format!("{ready} of {gateways} gateways ready"), &waits);
            add(Reason::GatewaysNotReady, message);
        }
        for conflict in &self.plan.conflicts {
            add(Reason::IdentityConflict, conflict.clone());
        }
        found
    }

    fn datanode_obstacles(&self, add: &mut impl FnMut(Reason, String)) {
        let wanted = self.input.cluster.datanodes;
        let (_, ready) = self.input.observed.datanode_pods();
        let waits = waits::datanode_waits(
            self.input.observed,
            &self.input.cluster.key.name,
            self.plan.scale.replicas,
        );
        if ready < wanted {
            let message = with(format!("{ready} of {wanted} datanodes ready"), &waits);
            add(Reason::DatanodesNotReady, message);
        }
        let registered = self.registered();
        if self.input.observed.tracker.open().is_some() && registered < i64::from(wanted) {
            let message = with(
                format!("{registered} of {wanted} datanodes registered"),
                &if ready < wanted {
                    Vec::new()
                } else {
                    self.hindrances()
                },
            );
            add(Reason::DatanodesNotRegistered, message);
        }
    }

    /// What keeps datanodes from being registered, at most three sentences.
    fn hindrances(&self) -> Vec<String> {
        let all = self.plan.waiting.iter().chain(&self.plan.refused);
        all.take(3).cloned().collect()
    }

    fn wrong_cluster(&self, other: dfs_protocol::ClusterId) -> String {
        let recorded = self.input.cluster.cluster_id.map(|id| id.to_string());
        format!(
            "the tracker answers for cluster {other} and status records {}; nothing is changed \
             until the tracker has its own volume back",
            recorded.unwrap_or_default()
        )
    }

    /// Why the tracker cannot be counted on.
    fn tracker_obstacle(&self) -> Option<(Reason, String)> {
        let observed = self.input.observed;
        let name = &self.input.cluster.key.name;
        let pod = waits::tracker_wait(observed, name);
        match &observed.tracker {
            TrackerView::Absent => Some((
                Reason::TrackerNotReady,
                pod.unwrap_or_else(|| "the tracker does not exist yet".to_owned()),
            )),
            TrackerView::Unreadable(why) => Some(match pod {
                Some(pod) => (Reason::TrackerNotReady, pod),
                None => (Reason::TrackerUnreadable, why.clone()),
            }),
            TrackerView::NoCatalog(_) => {
                let judged = self.catalog_lost();
                Some((judged.reason, judged.message))
            }
            TrackerView::Open(open) => {
                let safe_mode = open.status.safe_mode.as_ref();
                safe_mode.map(|why| {
                    (
                        Reason::SafeMode,
                        format!("the tracker is in safe mode: {why}"),
                    )
                })
            }
        }
    }

    fn ready(&self) -> Judgement {
        let cluster = self.input.cluster;
        let obstacles = self.obstacles();
        let Some(first) = obstacles.first() else {
            let message = format!(
                "{} datanodes registered and ready, {} gateways ready",
                cluster.datanodes, cluster.gateways
            );
            let message = with(message, &self.hindrances());
            return yes(Kind::Ready, Reason::AsWanted, message);
        };
        let messages: Vec<_> = obstacles.iter().map(|one| one.message.as_str()).collect();
        no(Kind::Ready, first.reason, messages.join("; "))
    }

    fn available(&self) -> Judgement {
        let kind = Kind::Available;
        let observed = self.input.observed;
        let gateways = ready_of(observed.gateway.as_ref());
        if let Some(open) = observed.tracker.open() {
            if let Some(other) = self.plan.wrong_cluster {
                return no(kind, Reason::WrongCluster, self.wrong_cluster(other));
            }
            if let Some(why) = &open.status.writes_refused {
                let message = format!("writes are refused: {why}");
                return no(kind, Reason::WritesRefused, message);
            }
            if gateways == 0 && self.input.cluster.gateways > 0 {
                let waits = waits::gateway_waits(observed);
                let message = with("no gateway is ready".to_owned(), &waits);
                return no(kind, Reason::GatewaysNotReady, message);
            }
            return yes(
                kind,
                Reason::Serving,
                "files can be read and written".to_owned(),
            );
        }
        match self.tracker_obstacle() {
            Some((Reason::TrackerUnreadable, why)) => Judgement {
                kind,
                truth: Truth::Unknown,
                reason: Reason::TrackerUnreadable,
                message: why,
            },
            Some((reason, message)) => no(kind, reason, message),
            None => no(
                kind,
                Reason::TrackerNotReady,
                "the tracker is not known".to_owned(),
            ),
        }
    }

    fn progressing(&self) -> Judgement {
        let kind = Kind::Progressing;
        if let CatalogStep::Rebuilding(detail) = &self.plan.catalog {
            let message = format!("the catalog is being rebuilt: {detail}");
            return yes(kind, Reason::Rebuilding, message);
        }
        let observed = self.input.observed;
        let resizing = storage::resizing(self.plan);
        if resizing.truth == Truth::True && resizing.reason == Reason::Resizing {
            return yes(kind, Reason::Resizing, resizing.message);
        }
        let (Some(set), Some(_), Some(_)) = (
            &observed.datanode_set,
            &observed.tracker_set,
            &observed.gateway,
        ) else {
            return yes(kind, Reason::Creating, "objects are being made".to_owned());
        };
        if set.replicas < self.plan.scale.replicas || set.wanted < self.plan.scale.replicas {
            let message = format!(
                "{} of {} datanodes exist",
                set.replicas, self.plan.scale.replicas
            );
            return yes(kind, Reason::ScalingUp, message);
        }
        if let Some(entry) = self.plan.scale.decommissions.first() {
            let why = entry.reason.clone().unwrap_or_default();
            let message = format!("{} is removed: {why}", entry.pod);
            return yes(kind, Reason::ScalingDown, message);
        }
        if let Some(message) = self.rolling(set) {
            return yes(kind, Reason::Rolling, message);
        }
        if let Some(open) = observed.tracker.open()
            && (open.status.repair.active > 0 || open.status.repair.bytes_remaining > 0)
        {
            let gib = coarse(open.status.repair.bytes_remaining >> 20);
            return yes(
                kind,
                Reason::Repairing,
                format!("chunks are copied: {gib} MiB left"),
            );
        }
        if let Some(first) = self.obstacles().into_iter().next() {
            return yes(kind, first.reason, format!("waiting: {}", first.message));
        }
        no(kind, Reason::AsWanted, "nothing moves".to_owned())
    }

    /// How far a change of the template is, while it goes on.
    fn rolling(&self, set: &WorkloadView) -> Option<String> {
        let what = match &self.plan.roll {
            Roll::Waiting(why) => why.clone(),
            Roll::Restart(Step::Restart { pod, proof, .. }) => format!("{pod} restarts: {proof}"),
            Roll::Restart(_) | Roll::Settled | Roll::Stopped(_) => return None,
        };
        let (updated, all) = (set.updated, set.replicas);
        Some(format!(
            "{updated} of {all} datanodes run the newest template; {what}"
        ))
    }

    /// With the reason why evictions wait, where they do.
    fn degraded(&self) -> Judgement {
        let judged = self.missing_something();
        let has_budget = self.input.cluster.factor > 1 && self.input.cluster.cluster_id.is_some();
        match self.plan.budget.held.as_ref().filter(|_| has_budget) {
            Some(why) => Judgement {
                message: format!("{}; evictions of datanodes wait: {why}", judged.message),
                ..judged
            },
            None => judged,
        }
    }

    fn missing_something(&self) -> Judgement {
        let kind = Kind::Degraded;
        let redundant = self.redundant();
        let full = storage::full(self.input);
        if redundant.truth == Truth::False {
            let also: Vec<_> = full.into_iter().collect();
            return yes(kind, redundant.reason, with(redundant.message, &also));
        }
        if let Some(full) = full {
            return yes(kind, Reason::VolumesFull, full);
        }
        // Before the first datanode was admitted there is nothing that could be worse than it was.
        if self.input.cluster.cluster_id.is_none() && self.trouble.is_none() {
            return no(
                kind,
                Reason::Creating,
                "the cluster is being made".to_owned(),
            );
        }
        match self.obstacles().into_iter().next() {
            Some(first) => yes(kind, first.reason, first.message),
            None => no(kind, Reason::AsWanted, "nothing is missing".to_owned()),
        }
    }

    fn redundant(&self) -> Judgement {
        let kind = Kind::DataRedundant;
        let unknown = |reason, message| Judgement {
            kind,
            truth: Truth::Unknown,
            reason,
            message,
        };
        let Some(open) = self.input.observed.tracker.open() else {
            let (reason, message) = self
                .tracker_obstacle()
                .unwrap_or((Reason::NotObserved, "not observed yet".to_owned()));
            return unknown(reason, message);
        };
        let status = &open.status;
        if let Some(why) = &status.safe_mode {
            return unknown(
                Reason::SafeMode,
                format!("the tracker is in safe mode: {why}"),
            );
        }
        let missing = status.missing();
        if missing > 0 {
            let message = format!("{} chunks have no readable replica", coarse(missing));
            return no(kind, Reason::ChunksMissing, message);
        }
        let under = status.short();
        if under > 0 {
            return no(kind, Reason::UnderReplicated, self.under_replicated(under));
        }
        let spread = spread::spread(open, self.input.cluster.factor);
        if status.mis_replicated() > 0 {
            let message = spread.unwrap_or_else(|| {
                format!(
                    "{} chunks are badly spread",
                    coarse(status.mis_replicated())
                )
            });
            return yes(kind, Reason::BadlySpread, message);
        }
        let leaving = status.shortage.leaving;
        let leaving = (leaving > 0).then(|| {
            let count = coarse(leaving);
            format!("{count} chunks are being copied off datanodes that leave")
        });
        let notes: Vec<_> = leaving.into_iter().chain(spread).collect();
        let message = with(
            "every chunk has its full number of replicas".to_owned(),
            &notes,
        );
        yes(kind, Reason::FullyReplicated, message)
    }

    /// How many, and why they are not being copied where they are not.
    fn under_replicated(&self, under: u64) -> String {
        let head = format!("{} chunks have too few replicas", coarse(under));
        let Some(open) = self.input.observed.tracker.open() else {
            return head;
        };
        let factor = u64::try_from(self.input.cluster.factor).unwrap_or(0);
        let placeable = open.status.datanodes.placeable;
        if placeable < factor {
            return format!(
                "{head}; no spare datanode: {placeable} take chunks and {factor} replicas are wanted"
            );
        }
        match &open.status.repair_held {
            Some(why) => format!("{head}; repair is held: {why}"),
            None => {
                format!("{head}; they are copied, what a silent datanode has after repairDelay")
            }
        }
    }

    fn decommissioning(&self) -> Judgement {
        let kind = Kind::Decommissioning;
        let scale = &self.plan.scale;
        let Some(entry) = scale.decommissions.first() else {
            return no(
                kind,
                Reason::NotRequested,
                "nobody is on the way out".to_owned(),
            );
        };
        let is_back = matches!(scale.step, Some(Step::Recommission { .. }));
        let reason = match entry.state {
            _ if is_back => Reason::Recommissioning,
            DecommissionState::Decommissioning => Reason::Emptying,
            DecommissionState::Quiet => Reason::QuietPeriod,
            DecommissionState::Removing | DecommissionState::Removed => Reason::Removing,
        };
        let who = entry.id.map_or_else(
            || format!("{} (never admitted)", entry.pod),
            |id| format!("{} (datanode {})", entry.pod, id.short()),
        );
        let message = match &entry.reason {
            Some(why) => format!("{who}: {why}"),
            None => who,
        };
        yes(kind, reason, message)
    }

    fn scale_down_blocked(&self) -> Judgement {
        let kind = Kind::ScaleDownBlocked;
        let wanted = self.input.cluster.datanodes;
        let scale = &self.plan.scale;
        let Some(blocked) = &scale.blocked else {
            if let Some(entry) = scale.decommissions.first() {
                let message = format!("{} is on its way out", entry.pod);
                return no(kind, Reason::ScalingDown, message);
            }
            let message = "no fewer datanodes are wanted than there are".to_owned();
            return no(kind, Reason::NotRequested, message);
        };
        let message = format!(
            "{wanted} datanodes are wanted and {} are kept: {}",
            scale.replicas, blocked.message
        );
        yes(kind, blocked.reason, message)
    }

    fn catalog_lost(&self) -> Judgement {
        let kind = Kind::CatalogLost;
        match (&self.plan.catalog, &self.input.observed.tracker) {
            (CatalogStep::AwaitAcknowledgement(why), _) => {
                yes(kind, Reason::AwaitingAcknowledgement, why.clone())
            }
            (CatalogStep::AwaitDatanodes(why), _) => {
                yes(kind, Reason::AwaitingDatanodes, why.clone())
            }
            (CatalogStep::Rebuild(from), view) => {
                // Said again after an attempt that failed: why stands in the tracker's own words.
                let said = match view {
                    TrackerView::NoCatalog(catalog) => catalog.detail.as_deref(),
                    _ => None,
                };
                let said = said.map_or_else(String::new, |word| format!("; the tracker: {word}"));
                let message = format!("the catalog is rebuilt from {} datanodes{said}", from.len());
                yes(kind, Reason::Rebuilding, message)
            }
            (CatalogStep::Rebuilding(detail), _) => {
                let message = format!("the catalog is being rebuilt: {detail}");
                yes(kind, Reason::Rebuilding, message)
            }
            (CatalogStep::Nothing | CatalogStep::Forget, TrackerView::Open(_)) => no(
                kind,
                Reason::CatalogPresent,
                "the tracker has its catalog".to_owned(),
            ),
            (CatalogStep::Nothing | CatalogStep::Forget, _) => Judgement {
                kind,
                truth: Truth::Unknown,
                reason: Reason::TrackerUnreadable,
                message: "the tracker was not heard".to_owned(),
            },
        }
    }

    fn paused(&self) -> Judgement {
        if self.input.cluster.paused {
            let message = "managementState is Paused: the operator looks and changes nothing";
            return yes(Kind::Paused, Reason::ManagementPaused, message.to_owned());
        }
        no(
            Kind::Paused,
            Reason::Managed,
            "the operator acts".to_owned(),
        )
    }
}

/// Datanodes that are admitted and not dead.
pub(crate) fn registered(input: &Input<'_>) -> i64 {
    let nodes = input.observed.tracker.open().map(|open| open.nodes.iter());
    let counted = nodes
        .into_iter()
        .flatten()
        .filter(|entry| entry.liveness != Liveness::Dead && entry.is_member());
    i64::try_from(counted.count()).unwrap_or(i64::MAX)
}

fn ready_of(workload: Option<&WorkloadView>) -> i32 {
    workload.map_or(0, |workload| workload.ready)
}

fn with(head: String, waits: &[String]) -> String {
    if waits.is_empty() {
        return head;
    }
    format!("{head}; {}", waits.join("; "))
}

pub(super) fn yes(kind: Kind, reason: Reason, message: String) -> Judgement {
    Judgement {
        kind,
        truth: Truth::True,
        reason,
        message,
    }
}

pub(super) fn no(kind: Kind, reason: Reason, message: String) -> Judgement {
    Judgement {
        kind,
        truth: Truth::False,
        reason,
        message,
    }
}
