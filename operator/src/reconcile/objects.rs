//! From the builder's objects to what is applied.

use crate::apply::Desired;
use crate::build::{Inputs, Objects, build};
use crate::crd::DfsCluster;
use crate::ctx::Ctx;
use crate::decide::{Plan, Stop, growth};
use crate::error::ReconcileError;
use crate::observe::OwnedKind;
use crate::validate::{Cluster, InvalidSpec};

/// Everything that is to be applied; the error says why the spec allows none of it.
pub(super) fn desired(
    ctx: &Ctx,
    object: &DfsCluster,
    cluster: &Cluster,
    plan: &Plan,
) -> Result<Vec<Desired>, InvalidSpec> {
    let cluster_id = cluster.cluster_id.map(|id| id.to_string());
    let inputs = Inputs {
        cluster: object,
        default_image: &ctx.image,
        cluster_id: cluster_id.as_deref(),
        datanodes: plan.scale.replicas,
        trackers: plan.trackers,
        gateways: plan.gateways,
        datanodes_away: plan.budget.max_unavailable,
        tracker_away: plan.tracker_away,
        operator_namespace: ctx.operator_namespace.as_deref(),
    };
    let objects = build(&inputs).map_err(|error| InvalidSpec::Unbuildable(error.to_string()))?;
    let mut all = listed(&objects).map_err(|error| InvalidSpec::Unbuildable(error.to_string()))?;
    let datanodes = crate::names::datanode_set(&cluster.key.name);
    for set in all
        .iter_mut()
        .filter(|one| one.kind == OwnedKind::StatefulSet)
    {
        let stops = plan.stop.as_ref().is_some_and(Stop::is_under_way);
        set.keeps_replicas = stops || (plan.scale.as_is && set.name == datanodes);
        set.had_replicas = growth::recorded(cluster, &set.name).map(|record| record.replicas);
    }
    Ok(all)
}

fn listed(objects: &Objects) -> Result<Vec<Desired>, ReconcileError> {
    let Objects {
        service_accounts,
        config_map,
        services,
        tracker,
        datanodes,
        gateway,
        budgets,
        network_policies,
        ingress,
        http_route,
    } = objects;
    let mut all = Vec::new();
    for account in service_accounts {
        all.push(Desired::typed(OwnedKind::ServiceAccount, account)?);
    }
    if let Some(map) = config_map {
        all.push(Desired::typed(OwnedKind::ConfigMap, map)?);
    }
    for service in services {
        all.push(Desired::typed(OwnedKind::Service, service)?);
    }
    for policy in network_policies {
        all.push(Desired::typed(OwnedKind::NetworkPolicy, policy)?);
    }
    for set in [tracker, datanodes] {
        all.push(Desired::typed(OwnedKind::StatefulSet, set)?);
    }
    all.push(Desired::typed(OwnedKind::Deployment, gateway)?);
    for budget in budgets {
        all.push(Desired::typed(OwnedKind::PodDisruptionBudget, budget)?);
    }
    if let Some(door) = ingress {
        all.push(Desired::typed(OwnedKind::Ingress, door)?);
    }
    if let Some(door) = http_route {
        all.push(Desired::dynamic(OwnedKind::HTTPRoute, door)?);
    }
    Ok(all)
}
