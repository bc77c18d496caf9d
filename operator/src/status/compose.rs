//! From observation, plan and judgements to the status. What cannot be read now stays as it was.

use std::collections::BTreeMap;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{
    CapacityStatus, CatalogState, ChunkStatus, Condition, ConditionStatus, DataNodeStatus,
    DecommissionStatus, DfsCluster, DfsClusterStatus, EndpointStatus, MAX_DECOMMISSIONS,
    MemberState, MemberStatus, TrackerStatus,
};
use crate::decide::conditions::coarse;
use crate::decide::{Judgement, Truth};
use crate::observe::{Observed, OpenTracker, Part, TrackerView};
use crate::tracker_client::{self, DatanodeEntry};
use crate::validate::{Decommissioning, Loss, Replacement};

/// Longest message that the API server takes.
const MAX_MESSAGE: usize = 1024;

/// What is counted beside conditions.
#[derive(Debug, Clone)]
pub struct Numbers<'a> {
    /// What is there.
    pub observed: &'a Observed,
    /// Datanodes that are admitted and heard.
    pub registered: i64,
    /// Datanodes that are wanted.
    pub desired: i32,
    /// Datanodes on their way out.
    pub decommissions: &'a [Decommissioning],
    /// StatefulSets that are made anew.
    pub replacements: &'a [Replacement],
    /// The datanode that a human gave up.
    pub loss: Option<&'a Loss>,
    /// The other cluster whose the tracker is, or was when it was last asked.
    pub foreign_cluster: Option<String>,
    /// Datanodes are away because the spec says so: what the tracker sees of them meanwhile is not kept.
    pub rests: bool,
}

/// The status as it should be. `numbers` is none where nothing was looked at.
pub fn compose(
    object: &DfsCluster,
    numbers: Option<Numbers<'_>>,
    judgements: &[Judgement],
    now: Timestamp,
) -> DfsClusterStatus {
    let before = object.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = object.metadata.generation;
    status.conditions = judgements
        .iter()
        .map(|judged| condition(judged, &before, object.metadata.generation, now))
        .collect();
    let name = object.metadata.name.clone().unwrap_or_default();
    status.selector = Some(format!(
        "app.kubernetes.io/name=dfs,app.kubernetes.io/instance={name},\
         app.kubernetes.io/component={}",
        Part::Datanode.as_str()
    ));
    status.endpoints = Some(endpoints(object, &name));
    if let Some(numbers) = numbers {
        fill(&mut status, numbers);
    }
    status
}

fn condition(
    judged: &Judgement,
    before: &DfsClusterStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    use dfs_runtime::metrics::Label as _;
    let status = match judged.truth {
        Truth::True => ConditionStatus::True,
        Truth::False => ConditionStatus::False,
        Truth::Unknown => ConditionStatus::Unknown,
    };
    let kind = judged.kind.as_str();
    let was = before.conditions.iter().find(|one| one.kind == kind);
    let since = was.filter(|was| was.status == status);
    Condition {
        kind: kind.to_owned(),
        status,
        reason: judged.reason.as_str().to_owned(),
        message: shortened(&judged.message),
        last_transition_time: since.map_or_else(
            // The API keeps whole seconds.
            || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            |was| was.last_transition_time.clone(),
        ),
        observed_generation: generation,
    }
}

fn shortened(message: &str) -> String {
    // The API server counts characters.
    if message.chars().count() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let head: String = message.chars().take(MAX_MESSAGE - 3).collect();
    format!("{head}...")
}

fn fill(status: &mut DfsClusterStatus, numbers: Numbers<'_>) {
    let Numbers {
        observed,
        registered,
        desired,
        decommissions,
        replacements,
        loss,
        foreign_cluster,
        rests,
    } = numbers;
    status.loss = loss.map(Loss::to_status);
    status.replacements = replacements.iter().map(Replacement::to_status).collect();
    let leaving = decommissions.iter().take(MAX_DECOMMISSIONS);
    status.decommissions = leaving.map(decommissioning).collect();
    let tracker = observed.tracker_set.as_ref();
    status.tracker = Some(TrackerStatus {
        foreign_cluster,
        replicas: tracker.map_or(0, |set| set.replicas),
        ready_replicas: tracker.map_or(0, |set| set.ready),
        catalog: Some(catalog(&observed.tracker)),
    });
    let (replicas, ready) = observed.datanode_pods();
    let is_open = observed.tracker.open().is_some();
    let known = status
        .data_nodes
        .as_ref()
        .map_or(0, |known| known.registered);
    status.data_nodes = Some(DataNodeStatus {
        desired,
        replicas,
        ready,
        registered: if is_open {
            i32::try_from(registered).unwrap_or(i32::MAX)
        } else if rests {
            0
        } else {
            known
        },
        updated: observed.datanode_set.as_ref().map_or(0, |set| set.updated),
        summary: Some(format!("{ready}/{desired}")),
    });
    if let Some(open) = observed.tracker.open().filter(|_| !rests) {
        from_tracker(status, open);
    }
}

fn decommissioning(entry: &Decommissioning) -> DecommissionStatus {
    let mut status = entry.to_status();
    status.reason = status.reason.map(|reason| shortened(&reason));
    status
}

fn from_tracker(status: &mut DfsClusterStatus, open: &OpenTracker) {
    let count = |number: u64| i64::try_from(coarse(number)).unwrap_or(i64::MAX);
    status.version = Some(open.status.version.clone());
    // While reports are gathered every chunk looks missing.
    if open.status.safe_mode.is_none() {
        status.chunks = Some(ChunkStatus {
            under_replicated: count(open.status.under_replicated()),
            missing: count(open.status.missing()),
        });
    }
    status.capacity = Some(CapacityStatus {
        total: Some(bytes(open.status.capacity.total_bytes)),
        used: Some(bytes(open.status.capacity.used_bytes)),
    });
    status.members = members(&open.nodes);
}

/// One for each uuid, their key in the list: a copied volume that asks to be let in stands behind who has its uuid.
pub(super) fn members(nodes: &[DatanodeEntry]) -> Vec<MemberStatus> {
    let mut by_id: BTreeMap<DatanodeId, MemberStatus> = BTreeMap::new();
    for entry in nodes {
        let Some(one) = member(entry) else { continue };
        if entry.admin != AdminState::Pending || !by_id.contains_key(&entry.id) {
            by_id.insert(entry.id, one);
        }
    }
    let mut members: Vec<_> = by_id.into_values().collect();
    members.sort_by(|a, b| (&a.pod, &a.datanode_id).cmp(&(&b.pod, &b.datanode_id)));
    members.truncate(500);
    members
}

fn member(entry: &DatanodeEntry) -> Option<MemberStatus> {
    let state = match (entry.admin, entry.liveness) {
        (AdminState::Tombstoned, _) => return None,
        (AdminState::Pending, _) if entry.refused.is_some() => MemberState::Refused,
        (AdminState::Pending, _) => MemberState::Pending,
        (_, Liveness::Dead) => MemberState::Dead,
        (AdminState::Decommissioning, _) => MemberState::Decommissioning,
        (AdminState::Decommissioned, _) => MemberState::Decommissioned,
        (AdminState::InService, Liveness::Suspect) => MemberState::Suspect,
        (AdminState::InService, Liveness::Live) => MemberState::InService,
    };
    // A stranger says what it likes: only lengths that the API server takes go into status.
    let bounded = |text: &Option<String>| text.clone().filter(|text| text.len() <= 253);
    Some(MemberStatus {
        datanode_id: entry.id.to_string(),
        pod: bounded(&entry.pod),
        pvc_uid: entry.volume.clone().filter(|uid| uid.len() <= 64),
        node: bounded(&entry.host),
        zone: bounded(&entry.zone),
        state,
    })
}

fn catalog(tracker: &TrackerView) -> CatalogState {
    match tracker {
        TrackerView::Open(_) => CatalogState::Open,
        TrackerView::NoCatalog(catalog) => match catalog.state {
            tracker_client::CatalogState::Lost => CatalogState::Lost,
            tracker_client::CatalogState::Rebuilding => CatalogState::Rebuilding,
            tracker_client::CatalogState::Open => CatalogState::Open,
        },
        TrackerView::Absent | TrackerView::Unreadable(_) => CatalogState::Unknown,
    }
}

fn endpoints(object: &DfsCluster, name: &str) -> EndpointStatus {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let gateway = &object.spec.gateway;
    EndpointStatus {
        gateway: Some(format!(
            "http://{}.{namespace}.svc",
            crate::names::gateway(name)
        )),
        ingress: gateway.ingress.as_ref().map(|ingress| {
            let scheme = if ingress.tls_secret.is_some() {
                "https"
            } else {
                "http"
            };
            format!("{scheme}://{}", ingress.host)
        }),
        http_route: gateway
            .http_route
            .as_ref()
            .map(|route| route.hostnames.clone())
            .unwrap_or_default(),
    }
}

/// Two significant digits and a unit, as in Kubernetes quantities.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut unit = 0;
    let mut rest = bytes as f64;
    while rest >= 1000.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    if unit == 0 || rest >= 10.0 {
        let digits = if rest >= 100.0 {
            (rest / 10.0).round() * 10.0
        } else {
            rest.round()
        };
        return format!("{digits:.0}{}", UNITS[unit]);
    }
    format!("{rest:.1}{}", UNITS[unit])
}
