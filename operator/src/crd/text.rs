//! Strings with a form, and maps of them, each with bounds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use dfs_runtime::units::parse_duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// `500ms`, `30s`, `5m`, `1h30m`, `7d`: as the roles' flags take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

impl DurationText {
    pub(super) fn five_minutes() -> Self {
        Self("5m".to_owned())
    }

    pub(super) fn one_day() -> Self {
        Self("24h".to_owned())
    }

    pub(super) fn thirty_seconds() -> Self {
        Self("30s".to_owned())
    }

    pub(super) fn thirty_minutes() -> Self {
        Self("30m".to_owned())
    }

    /// How long that is, as the roles read it; none for text that the schema refuses.
    pub fn duration(&self) -> Option<Duration> {
        // Flags may have spaces, the schema has none.
        let is_dense = self.0.chars().all(|c| c.is_ascii_alphanumeric());
        let read = is_dense.then(|| parse_duration(&self.0));
        read?.ok()
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 24,
            "pattern": "^(0|([0-9]{1,6}(ms|s|m|h|d)){1,4})$",
        })
    }
}

/// Labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

impl JsonSchema for Labels {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": {
                "type": "string",
                "maxLength": 63,
                "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
            },
            "x-kubernetes-validations": [{
                "rule": "self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
                "message": "keys must be label keys, like disk or example.com/disk",
            }],
        })
    }
}

/// Annotations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Annotations(pub BTreeMap<String, String>);

impl JsonSchema for Annotations {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Annotations".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 32,
            "additionalProperties": {"type": "string", "maxLength": 4096},
            "x-kubernetes-validations": [{
                "rule": "self.all(k, size(k) <= 317 && k.matches('^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
                "message": "keys must be annotation keys, like example.com/limit",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_roles_read_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            let read = DurationText(text.into()).duration();
            assert_eq!(read, Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "5", "m", "5x", "-1s"] {
            assert_eq!(DurationText(bad.into()).duration(), None, "{bad}");
        }
    }
}
