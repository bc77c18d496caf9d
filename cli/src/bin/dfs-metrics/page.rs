//! The page.

use crate::registries::{Families, Family};
use crate::uses::Asked;

/// More users of a metric than these are only counted.
const NAMED: usize = 4;

const SECTIONS: [(&str, &str); 5] = [
    ("dfs_tracker_", "Tracker"),
    ("dfs_datanode_", "Datanode"),
    ("dfs_gateway_", "Gateway, and the tracker's own doors"),
    ("dfs_operator_", "Operator"),
    ("", "Every process"),
];

const HEAD: &str = include_str!("head.md");
const TABLE: &str =
    "\n\n| metric | kind | unit | labels | meaning | used by |\n|---|---|---|---|---|---|\n";

/// The whole page.
pub(crate) fn render(families: &Families, asked: &Asked) -> String {
    let mut page = HEAD.to_owned();
    for (index, (prefix, title)) in SECTIONS.into_iter().enumerate() {
        page.push_str(&["\n## ", title, TABLE].concat());
        let earlier = &SECTIONS[..index];
        let own = families.iter().filter(|(name, _)| {
            let taken = earlier.iter().any(|(prefix, _)| name.starts_with(prefix));
            name.starts_with(prefix) && !taken
        });
        for (name, family) in own {
            page.push_str(&row(name, family, asked));
        }
    }
    page
}

fn row(name: &str, family: &Family, asked: &Asked) -> String {
    let Family {
        help,
        kind,
        labels,
        roles,
    } = family;
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let mut help = help.trim_end_matches('.').replace('|', "\\|");
    let shared = SECTIONS
        .iter()
        .all(|(prefix, _)| prefix.is_empty() || !name.starts_with(prefix));
    if shared && roles.len() < 4 {
        help = format!("{help} ({})", roles.join(", "));
    }
    let (labels, unit) = (labels.join(", "), unit(name));
    let users = users(name, family, asked);
    format!("| `{name}` | {kind} | {unit} | {labels} | {help} | {users} |\n")
}

fn users(name: &str, family: &Family, asked: &Asked) -> String {
    let who = asked.who(name, family);
    if who.is_empty() {
        let reason = asked.reasons.get(name).map_or("", String::as_str);
        return format!("none: {reason}");
    }
    let named = who
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join("; ");
    match who.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; {more} more"),
    }
}

/// Names end in their base unit; counts have none.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    if name.ends_with("_timestamp_seconds") || name.ends_with("_time_seconds") {
        "seconds since 1970"
    } else if name.ends_with("_seconds") {
        "seconds"
    } else if name.ends_with("_bytes") {
        "bytes"
    } else {
        "number"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_names() {
        let units = [
            "dfs_x_bytes_total",
            "dfs_x_seconds",
            "process_start_time_seconds",
            "dfs_x_total",
        ];
        let wanted = ["bytes", "seconds", "seconds since 1970", "number"];
        assert_eq!(units.map(unit), wanted);
    }
}
