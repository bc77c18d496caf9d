//! Who asks for which metric: alerts and recording rules of the chart, panels of its dashboards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::registries::{Families, Family};

const RULES: &str = "charts/dfs-operator/files/rules.yaml";
const DASHBOARDS: &str = "charts/dfs-operator/files/dashboards";
const REASONS: &str = "deploy/observability/unused-metrics.tsv";

/// What is asked for, and what is not and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Names as they are asked for, with who asks: alerts and rules, then panels.
    pub names: BTreeMap<String, Vec<String>>,
    /// Recorded numbers that rules make; `$window` stands for several.
    recorded: BTreeSet<String>,
    /// Reasons why a metric is asked for by nobody.
    pub reasons: BTreeMap<String, String>,
}

impl Asked {
    /// Reads the chart's files.
    pub(crate) fn read(root: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut asked = Self::default();
        asked.rules(&std::fs::read_to_string(root.join(RULES))?);
        let files = std::fs::read_dir(root.join(DASHBOARDS))?;
        let mut files: Vec<_> = files.collect::<Result<_, _>>()?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            let dashboard = serde_json::from_slice(&std::fs::read(file.path())?)?;
            asked.dashboard(&dashboard);
        }
        for line in std::fs::read_to_string(root.join(REASONS))?.lines() {
            if let Some((name, reason)) = line.split_once('\t') {
                asked.reasons.insert(name.to_owned(), reason.to_owned());
            }
        }
        Ok(asked)
    }

    fn rules(&mut self, text: &str) {
        let mut who = String::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') {
                continue;
            }
            if let Some(alert) = line.strip_prefix("- alert: ") {
                who = format!("alert {alert}");
            } else if let Some(record) = line.strip_prefix("- record: ") {
                who = format!("rule `{record}`");
                self.recorded.insert(record.to_owned());
            } else {
                self.ask(line, &who);
            }
        }
    }

    fn dashboard(&mut self, dashboard: &Value) {
        let title = dashboard["title"].as_str().unwrap_or_default();
        let title = title.strip_prefix("dfs / ").unwrap_or(title);
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let who = format!("{title}: {}", panel["title"].as_str().unwrap_or_default());
            for target in panel["targets"].as_array().into_iter().flatten() {
                self.ask(target["expr"].as_str().unwrap_or_default(), &who);
            }
        }
    }

    fn ask(&mut self, expression: &str, who: &str) {
        for name in names(expression) {
            let askers = self.names.entry(name.to_owned()).or_default();
            if !askers.iter().any(|asker| asker == who) {
                askers.push(who.to_owned());
            }
        }
    }

    /// Whether a recorded number is made by a rule.
    fn is_recorded(&self, name: &str) -> bool {
        self.recorded
            .iter()
            .any(|record| match record.split_once("$window") {
                Some((stem, _)) => name
                    .strip_prefix(stem)
                    .is_some_and(|window| !window.is_empty()),
                None => record == name,
            })
    }

    /// Who asks for a metric.
    pub(crate) fn who(&self, name: &str, family: &Family) -> Vec<&str> {
        let parts: &[&str] = match family.kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let askers = parts
            .iter()
            .filter_map(|part| self.names.get(&format!("{name}{part}")));
        let mut askers: Vec<&str> = askers.flatten().map(String::as_str).collect();
        askers.dedup();
        askers
    }
}

/// Metrics of ours in an expression, recorded numbers among them.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '$';
    let words = expression.split(move |c| !is_part(c));
    words.filter(|word| {
        let last = word
            .rsplit(':')
            .nth(usize::from(word.contains(':')))
            .unwrap_or(word);
        last.starts_with("dfs_") || last.starts_with("process_")
    })
}

/// What is asked for and does not exist; what exists and nobody asks for, without a reason.
pub(crate) fn problems(families: &Families, asked: &Asked) -> Vec<String> {
    let mut problems = Vec::new();
    let exists = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|part| {
            let family = name.strip_suffix(part).and_then(|name| families.get(name));
            family.is_some_and(|family| family.kind == "histogram")
        });
        let plain = families
            .get(name)
            .is_some_and(|family| family.kind != "histogram");
        of_histogram || plain || name.contains(':') && asked.is_recorded(name)
    };
    for (name, askers) in &asked.names {
        if !exists(name) {
            problems.push(format!(
                "{} asks for {name}, which nobody has",
                askers.join(", ")
            ));
        }
    }
    for (name, family) in families {
        match (asked.who(name, family).is_empty(), asked.reasons.get(name)) {
            (true, None) => problems.push(format!(
                "{name} is in no alert, rule or dashboard: use it, or say why not in {REASONS}"
            )),
            (false, Some(_)) => {
                problems.push(format!("{name} is used: {REASONS} says that it is not"));
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    for name in asked
        .reasons
        .keys()
        .filter(|name| !families.contains_key(*name))
    {
        problems.push(format!("{REASONS} names {name}, which nobody has"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(kind: &'static str) -> Family {
        Family {
            help: String::new(),
            kind,
            labels: BTreeSet::new(),
            roles: Vec::new(),
        }
    }

    fn families() -> Families {
        [("dfs_a_total", "counter"), ("dfs_b_seconds", "histogram")]
            .map(|(name, kind)| (name.to_owned(), family(kind)))
            .into()
    }

    fn asked(rules: &str) -> Asked {
        let mut asked = Asked::default();
        asked.rules(rules);
        asked
    }

    #[test]
    fn a_use_of_what_nobody_has_and_a_metric_without_use_or_reason_are_problems() {
        let found = |rules: &str| problems(&families(), &asked(rules));
        let both = "- alert: A\nexpr: rate(dfs_a_total[1m]) > dfs_b_seconds_count{x=\"y\"}";
        assert!(found(both).is_empty(), "{:?}", found(both));
        let misspelt = format!("{both}\n# dfs_none\n- alert: B\nexpr: sum(dfs_aa_total)");
        assert_eq!(
            found(&misspelt),
            ["alert B asks for dfs_aa_total, which nobody has"]
        );
        let bare = format!("{both} or dfs_b_seconds");
        assert_eq!(
            found(&bare),
            ["alert A asks for dfs_b_seconds, which nobody has"]
        );
        let one = found("- alert: A\nexpr: dfs_a_total");
        assert!(
            one.len() == 1 && one[0].starts_with("dfs_b_seconds is in no alert"),
            "{one:?}"
        );
    }

    #[test]
    fn recorded_numbers_are_made_by_a_rule() {
        let rule = "- record: c:dfs_a:rate$window\nexpr: dfs_a_total + dfs_b_seconds_sum";
        let rules = |name: &str| format!("{rule}\n- alert: A\nexpr: {name} > 1");
        assert!(problems(&families(), &asked(&rules("c:dfs_a:rate5m"))).is_empty());
        let none = problems(&families(), &asked(&rules("c:dfs_b:rate5m")));
        assert_eq!(none, ["alert A asks for c:dfs_b:rate5m, which nobody has"]);
    }

    #[test]
    fn a_reason_for_what_is_used_or_absent_is_a_problem() {
        let mut asked = asked("- alert: A\nexpr: dfs_a_total");
        let reason = |name: &str| (name.to_owned(), "why".to_owned());
        asked.reasons = ["dfs_b_seconds"].map(reason).into();
        assert!(problems(&families(), &asked).is_empty());
        asked.reasons = ["dfs_a_total", "dfs_b_seconds", "dfs_c"].map(reason).into();
        assert_eq!(problems(&families(), &asked).len(), 2);
    }
}
