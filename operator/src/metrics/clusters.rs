//! Series of single clusters: they go with their cluster, and there is a limit to them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use dfs_runtime::metrics::{GaugeOfEach, Label as _, gauge};
use prometheus::{IntGauge, Registry};

use crate::decide::{Judgement, Truth};
use crate::validate::ClusterKey;

/// Most clusters that have series of their own.
pub const MAX_CLUSTERS: usize = 500;

/// When each cluster was last reconciled, and how its conditions stand.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    last_success: GaugeOfEach<2>,
    conditions: GaugeOfEach<3>,
    left_out: IntGauge,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    taken: BTreeSet<ClusterKey>,
    left_out: BTreeSet<ClusterKey>,
}

impl ClusterMetrics {
    /// Registers the metrics; no series yet.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            last_success: GaugeOfEach::register(
                registry,
                "dfs_operator_last_success_timestamp_seconds",
                "When a cluster was last reconciled without an error",
                ["namespace", "cluster"],
            )?,
            conditions: GaugeOfEach::register(
                registry,
                "dfs_operator_cluster_condition",
                "A condition of a cluster: 1 true, 0 false, -1 unknown",
                ["namespace", "cluster", "condition"],
            )?,
            left_out: gauge(
                registry,
                "dfs_operator_clusters_left_out",
                "Clusters beyond the number that have series of their own",
            )?,
            places: Arc::default(),
        })
    }

    /// A cluster was reconciled without an error.
    pub fn succeeded(&self, key: &ClusterKey, at: jiff::Timestamp) {
        if self.has_place(key) {
            let member = [key.namespace.clone(), key.name.clone()];
            let of_it = member.clone();
            self.last_success
                .show_among(|other| *other == of_it, [(member, at.as_second())]);
        }
    }

    /// What was judged of a cluster.
    pub fn judged(&self, key: &ClusterKey, judgements: &[Judgement]) {
        if self.has_place(key) {
            let members = judgements.iter().map(|judgement| {
                let condition = judgement.kind.as_str().to_owned();
                let member = [key.namespace.clone(), key.name.clone(), condition];
                (member, number(judgement.truth))
            });
            self.conditions
                .show_among(|[namespace, name, _]| is(key, namespace, name), members);
        }
    }

    /// A cluster is gone: so are its series.
    pub fn forget(&self, key: &ClusterKey) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken.remove(key);
        places.left_out.remove(key);
        self.tell(&places);
        drop(places);
        self.last_success
            .show_among(|[namespace, name]| is(key, namespace, name), []);
        self.conditions
            .show_among(|[namespace, name, _]| is(key, namespace, name), []);
    }

    /// Takes a place for the cluster if there is one.
    fn has_place(&self, key: &ClusterKey) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.taken.contains(key) && places.taken.len() >= MAX_CLUSTERS {
            places.left_out.insert(key.clone());
            self.tell(&places);
            return false;
        }
        if places.taken.insert(key.clone()) {
            places.left_out.remove(key);
            self.tell(&places);
        }
        true
    }

    fn tell(&self, places: &Places) {
        let count = i64::try_from(places.left_out.len()).unwrap_or(i64::MAX);
        self.left_out.set(count);
    }
}

fn is(key: &ClusterKey, namespace: &str, name: &str) -> bool {
    key.namespace == namespace && key.name == name
}

fn number(truth: Truth) -> i64 {
    match truth {
        Truth::True => 1,
        Truth::False => 0,
        Truth::Unknown => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Kind, conditions::invalid};

    fn key(n: usize) -> ClusterKey {
        ClusterKey {
            namespace: "default".into(),
            name: format!("c{n}"),
        }
    }

    fn series(registry: &Registry) -> usize {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let text = text.unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn clusters_beyond_the_limit_get_no_series_and_are_counted_once() {
        let registry = Registry::new();
        let metrics = ClusterMetrics::register(&registry).unwrap();
        for n in 0..MAX_CLUSTERS + 3 {
            for _pass in 0..2 {
                metrics.succeeded(&key(n), jiff::Timestamp::UNIX_EPOCH);
            }
        }
        assert_eq!(metrics.left_out.get(), 3);
        assert_eq!(series(&registry), 1 + MAX_CLUSTERS);
        metrics.forget(&key(0));
        metrics.succeeded(&key(MAX_CLUSTERS + 1), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(metrics.left_out.get(), 2);
        assert_eq!(series(&registry), 1 + MAX_CLUSTERS);
    }

    #[test]
    fn a_clusters_conditions_are_shown_until_it_is_gone() {
        let registry = Registry::new();
        let metrics = ClusterMetrics::register(&registry).unwrap();
        let judgements = invalid("no sense");
        // Clusters come and go, more than there are places.
        for n in 0..MAX_CLUSTERS + 9 {
            metrics.judged(&key(n), &judgements);
            metrics.succeeded(&key(n), jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(series(&registry), 2 + Kind::ALL.len());
            metrics.forget(&key(n));
            assert_eq!(series(&registry), 1, "only the number of those left out");
        }
        assert_eq!(metrics.left_out.get(), 0);
    }
}
