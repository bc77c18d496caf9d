//! A lost catalog: the tracker's volume is empty although the cluster exists. Nothing is done
//! before a human agrees, because the old volume may still be found.

use dfs_protocol::ClusterId;

use super::Input;
use crate::observe::{Part, TrackerView};
use crate::tracker_client::CatalogState;
use crate::validate::ACKNOWLEDGE_CATALOG_LOST;

/// Port of a datanode's API.
const DATANODE_PORT: u16 = 6001;

/// What to do about the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogStep {
    /// It is there, or nothing is known.
    Nothing,
    /// Lost: a human must agree first.
    AwaitAcknowledgement(String),
    /// Lost and acknowledged: these datanodes must run first.
    AwaitDatanodes(String),
    /// Rebuild it from these addresses.
    Rebuild(Vec<String>),
    /// Being rebuilt.
    Rebuilding(String),
    /// It is back: the agreement was for that one loss.
    Forget,
}

/// Decides from the tracker's word and the annotation.
pub fn catalog(input: &Input<'_>) -> CatalogStep {
    match &input.observed.tracker {
        TrackerView::NoCatalog(catalog) => {
            let detail = catalog.detail.clone().unwrap_or_default();
            match catalog.state {
                CatalogState::Rebuilding => CatalogStep::Rebuilding(detail),
                CatalogState::Lost => lost(input, &detail),
                CatalogState::Open => CatalogStep::Nothing,
            }
        }
        TrackerView::Open(_) if input.cluster.acknowledged.is_some() => CatalogStep::Forget,
        TrackerView::Open(_) | TrackerView::Absent | TrackerView::Unreadable(_) => {
            CatalogStep::Nothing
        }
    }
}

fn lost(input: &Input<'_>, detail: &str) -> CatalogStep {
    let cluster = input.cluster;
    let Some(id) = cluster.cluster_id else {
        return CatalogStep::AwaitAcknowledgement(format!(
            "the tracker has no catalog and status holds no cluster id to rebuild: {detail}"
        ));
    };
    let name = &cluster.key.name;
    let without = cluster
        .acknowledged
        .as_deref()
        .and_then(|word| word.strip_prefix(&id.to_string()))
        .and_then(given_up);
    let Some(without) = without else {
        return CatalogStep::AwaitAcknowledgement(format!(
            "the tracker's volume holds no catalog of cluster {id}; bring the old volume back, or \
             rebuild it from the datanodes with `kubectl annotate dfs {name} \
             {ACKNOWLEDGE_CATALOG_LOST}={id}`{}",
            suffix(detail)
        ));
    };
    let present = input
        .observed
        .datanode_set
        .as_ref()
        .map_or(0, |set| set.wanted);
    let mut missing = Vec::new();
    let mut addresses = Vec::new();
    let set = crate::names::datanode_set(&cluster.key.name);
    for ordinal in 0..present {
        let name = crate::names::pod(&set, ordinal);
        // Also one that has an address still: the pod of a node without power keeps it.
        if without.contains(&name.as_str()) {
            continue;
        }
        let pod = input
            .observed
            .pods_of(Part::Datanode)
            .find(|p| p.name == name);
        match pod.and_then(|pod| pod.ips.first().filter(|_| !pod.deleting)) {
            Some(ip) => addresses.push(join(ip)),
            None => missing.push(name),
        }
    }
    // What only an absent datanode's journal knows would be lost.
    if addresses.is_empty() || !missing.is_empty() {
        let mut told =
            "the catalog is rebuilt as soon as every datanode runs; missing: ".to_owned();
        if missing.is_empty() {
            told.push_str("all");
        } else {
            let missing = missing.join(",");
            told.push_str(&missing);
            told.push_str(&do_without(name, id, &missing));
        }
        return CatalogStep::AwaitDatanodes(told);
    }
    CatalogStep::Rebuild(addresses)
}

/// How to rebuild without datanodes that never come back.
fn do_without(name: &str, id: ClusterId, pods: &str) -> String {
    format!(
        "; to do without what is gone for good, and lose the changes that only it knows: `kubectl annotate \
         --overwrite dfs {name} '{ACKNOWLEDGE_CATALOG_LOST}={id} without {pods}'`"
    )
}

/// The pods that a human gives up, from what follows the cluster's id: nothing, or ` without POD,POD`.
fn given_up(rest: &str) -> Option<Vec<&str>> {
    match rest.strip_prefix(" without ") {
        None => rest.is_empty().then(Vec::new),
        Some(pods) => Some(pods.split(',').map(str::trim).collect()),
    }
}

fn join(ip: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{DATANODE_PORT}")
    } else {
        format!("{ip}:{DATANODE_PORT}")
    }
}

fn suffix(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}
