//! A cluster that stops, is stopped, or is coming back from that: what the spec itself took away is no trouble,
//! and what nobody can be asked about is not known.

use super::super::{Input, Plan, Stop, stop};
use super::{Judgement, Kind, Reason, Truth};
use crate::validate::Rest;

/// Says it in the judgements of what runs.
pub(super) fn told(all: &mut [Judgement], input: &Input<'_>, plan: &Plan) {
    if let Some(stop) = &plan.stop {
        for judged in all {
            stopped(judged, stop);
            if judged.kind == Kind::Ready && stop::foreign_cluster(input).is_some() {
                beside_a_stranger(judged, stop);
            }
        }
    } else if input.cluster.rest == Rest::Over || plan.doors.is_some() {
        starting(all, input, plan);
    }
}

fn stopped(judged: &mut Judgement, stop: &Stop) {
    let is_moving = *stop != Stop::Done;
    judged.truth = match judged.kind {
        Kind::Progressing if is_moving => Truth::True,
        _ if !stop.is_under_way() => return,
        Kind::Ready | Kind::Available | Kind::Degraded | Kind::Progressing => Truth::False,
        Kind::DataRedundant if stop.ends_datanodes() => Truth::Unknown,
        Kind::CatalogLost if !is_moving => Truth::Unknown,
        Kind::DataRedundant
        | Kind::CatalogLost
        | Kind::Decommissioning
        | Kind::ScaleDownBlocked
        | Kind::StorageResizing
        | Kind::NodeLost
        | Kind::Paused => return,
    };
    judged.reason = if is_moving {
        Reason::Stopping
    } else {
        Reason::Stopped
    };
    judged.message = format!("managementState is Stopped: {}", stop.sentence());
}

/// Said whatever else is wrong by now: it is why nothing goes on.
fn beside_a_stranger(ready: &mut Judgement, stop: &Stop) {
    if ready.reason != Reason::WrongCluster {
        ready.reason = Reason::WrongCluster;
        ready.message = format!("{}; {}", stop.sentence(), ready.message);
    }
}

/// Pods that come up are what was asked for, until one of them cannot.
fn starting(all: &mut [Judgement], input: &Input<'_>, plan: &Plan) {
    let mut pods = input.observed.pods.iter();
    if input.cluster.paused || pods.any(|pod| !pod.ready && pod.cannot_start()) {
        return;
    }
    let ready = all.iter().find(|one| one.kind == Kind::Ready);
    let Some(ready) = ready.filter(|one| one.truth == Truth::False && is_awaited(one.reason))
    else {
        return;
    };
    let doors = plan
        .doors
        .iter()
        .map(|why| format!("; gateways wait: {why}"));
    let message = format!(
        "it starts after a stop: {}{}",
        ready.message,
        doors.collect::<String>()
    );
    for judged in all {
        judged.truth = match judged.kind {
            Kind::Degraded if judged.truth == Truth::True && !is_awaited(judged.reason) => continue,
            Kind::Ready | Kind::Degraded => Truth::False,
            Kind::Progressing => Truth::True,
            Kind::Available
            | Kind::DataRedundant
            | Kind::CatalogLost
            | Kind::Decommissioning
            | Kind::ScaleDownBlocked
            | Kind::StorageResizing
            | Kind::NodeLost
            | Kind::Paused => continue,
        };
        judged.reason = Reason::Starting;
        judged.message.clone_from(&message);
    }
}

/// What every start passes through.
const fn is_awaited(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TrackerNotReady
            | Reason::TrackerUnreadable
            | Reason::SafeMode
            | Reason::DatanodesNotReady
            | Reason::DatanodesNotRegistered
            | Reason::GatewaysNotReady
    )
}
