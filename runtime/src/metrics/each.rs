//! Gauges of things that come and go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntGaugeVec, Opts, Registry};

use super::registered;

/// Values of the labels, in the order in which the labels were registered.
pub type Member<const N: usize> = [String; N];

/// A gauge for each member of a set that changes, such as the datanodes that are known now. A series
/// goes with its member, so that there are never more than members, however many were seen over
/// time. The set must be bounded where it is kept.
#[derive(Debug, Clone)]
pub struct GaugeOfEach<const N: usize> {
    vec: IntGaugeVec,
    shown: Arc<Mutex<BTreeSet<Member<N>>>>,
}

impl<const N: usize> GaugeOfEach<N> {
    /// Registers the gauge; no series yet.
    pub fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            vec: registered(registry, IntGaugeVec::new(Opts::new(name, help), &labels)?)?,
            shown: Arc::default(),
        })
    }

    /// Shows these members and no others.
    pub fn show(&self, members: impl IntoIterator<Item = (Member<N>, i64)>) {
        self.show_among(|_| true, members);
    }

    /// Shows, of the part of the set that `part` names, these members and no others. `members` lie in
    /// that part.
    pub fn show_among(
        &self,
        part: impl Fn(&Member<N>) -> bool,
        members: impl IntoIterator<Item = (Member<N>, i64)>,
    ) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone: BTreeSet<Member<N>> = shown.iter().filter(|m| part(m)).cloned().collect();
        for (member, value) in members {
            self.vec.with_label_values(&member).set(value);
            gone.remove(&member);
            shown.insert(member);
        }
        for member in gone {
            let _was_there = self.vec.remove_label_values(&member);
            shown.remove(&member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let text = text.unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    fn member(group: &str, name: &str) -> Member<2> {
        [group.to_owned(), name.to_owned()]
    }

    #[test]
    fn a_series_goes_with_its_member_and_other_parts_stay() {
        let registry = Registry::new();
        let gauge = GaugeOfEach::register(&registry, "dfs_x", "x", ["group", "name"]).unwrap();
        gauge.show([(member("a", "1"), 1), (member("b", "1"), 2)]);
        gauge.show_among(|m| m[0] == "a", [(member("a", "2"), 3)]);
        let left = [
            r#"dfs_x{group="a",name="2"} 3"#,
            r#"dfs_x{group="b",name="1"} 2"#,
        ];
        assert_eq!(series(&registry), left);
        gauge.show_among(|m| m[0] == "b", []);
        assert_eq!(series(&registry), left[..1]);
        gauge.show([]);
        assert!(series(&registry).is_empty());
    }
}
