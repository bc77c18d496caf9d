//! How many pods may be evicted at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Frame;
use super::labels::{Component, metadata, selector};

/// What is asked of a pod that is not ready.
#[derive(Clone, Copy)]
enum Unhealthy {
    /// It may hold a last replica: it goes only within the budget.
    WithinBudget,
    /// It serves nobody: it goes.
    Goes,
}

pub(super) fn budgets(frame: &Frame<'_>) -> Vec<PodDisruptionBudget> {
    let mut budgets = vec![budget(frame, Component::Tracker, Unhealthy::WithinBudget)];
    // With one replica of each chunk no datanode can be missed, and a budget would block every drain.
    if frame.spec.replication.factor > 1 {
        budgets.push(budget(frame, Component::Datanode, Unhealthy::WithinBudget));
    }
    if frame.spec.gateway.replicas > 1 {
        budgets.push(budget(frame, Component::Gateway, Unhealthy::Goes));
    }
    budgets
}

/// Of datanodes as many as their chunks allow, the tracker unless it leaves its node last; of gateways one.
const fn max_unavailable(frame: &Frame<'_>, component: Component) -> i32 {
    match component {
        Component::Datanode => frame.datanodes_away,
        Component::Tracker => frame.tracker_away,
        Component::Gateway => 1,
    }
}

fn budget(frame: &Frame<'_>, component: Component, unhealthy: Unhealthy) -> PodDisruptionBudget {
    let policy = match unhealthy {
        Unhealthy::WithinBudget => "IfHealthyBudget",
        Unhealthy::Goes => "AlwaysAllow",
    };
    PodDisruptionBudget {
        metadata: metadata(frame, component),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(max_unavailable(frame, component))),
            selector: Some(selector(frame.name, component)),
            unhealthy_pod_eviction_policy: Some(policy.to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
