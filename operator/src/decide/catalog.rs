//! A lost catalog: the tracker's volume is empty although the cluster exists. Nothing is done
//! before a human agrees, because the old volume may still be found.

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
    if cluster.acknowledged.as_deref() != Some(&id.to_string()) {
        let name = &cluster.key.name;
        return CatalogStep::AwaitAcknowledgement(format!(
            "the tracker's volume holds no catalog of cluster {id}; bring the old volume back, or \
             rebuild it from the datanodes with `kubectl annotate dfs {name} \
             {ACKNOWLEDGE_CATALOG_LOST}={id}`{}",
            suffix(detail)
        ));
    }
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
        return CatalogStep::AwaitDatanodes(format!(
            "the catalog is rebuilt as soon as every datanode runs; missing: {}",
            if missing.is_empty() {
                "all".to_owned()
            } else {
                missing.join(", ")
            }
        ));
    }
    CatalogStep::Rebuild(addresses)
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
