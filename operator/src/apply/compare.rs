//! Whether an object is already as wanted: nothing is written while nothing changes.
//!
//! Two things are compared. The annotation [`HASH`] tells whether *we* want something else than at
//! the last write (fields that we gave up included); the wanted fields are looked for in the live
//! object, which tells whether *someone else* changed them.

use serde_json::{Map, Value};

/// Annotation that holds the hash of what was last applied.
pub const HASH: &str = "dfs.io/applied-hash";

/// FNV-1a over the canonical JSON: stable between versions and machines. Not for secrets.
pub fn hash(wanted: &Value) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    // serde_json keeps objects sorted, so equal values have equal text.
    for byte in wanted.to_string().bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// The wanted object with its hash among the annotations.
pub fn stamped(mut wanted: Value) -> Value {
    let hash = hash(&wanted);
    let metadata = entry(&mut wanted, "metadata");
    let annotations = entry(metadata, "annotations");
    if let Value::Object(annotations) = annotations {
        annotations.insert(HASH.to_owned(), Value::String(hash));
    }
    wanted
}

fn entry<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    // Indexing an object by a missing key makes the key.
    let child = &mut value[key];
    if child.is_null() {
        *child = Value::Object(Map::new());
    }
    child
}

/// Whether every wanted field is in the live object, with the same value.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| match live.get(key) {
                Some(live) => contains(live, value),
                None => is_empty(value),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live
                    .iter()
                    .zip(wanted)
                    .all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

/// What the API server drops.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_no_difference_and_drift_is_one() {
        let wanted = json!({"spec": {"replicas": 3, "ports": [{"port": 80}], "selector": {}}});
        let live = json!({"spec": {
            "replicas": 3, "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "protocol": "TCP"}],
        }});
        assert!(contains(&live, &wanted));
        for drifted in [
            json!({"spec": {"replicas": 2, "ports": [{"port": 80}]}}),
            json!({"spec": {"replicas": 3, "ports": []}}),
            json!({"spec": {"replicas": 3, "ports": [{"port": 80}, {"port": 81}]}}),
            json!({"spec": {"replicas": 3}}),
        ] {
            assert!(!contains(&drifted, &wanted), "{drifted}");
        }
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_changes_the_hash() {
        let before = stamped(json!({"metadata": {"name": "a"}, "spec": {"a": 1, "b": 2}}));
        let after = stamped(json!({"metadata": {"name": "a"}, "spec": {"a": 1}}));
        assert!(!contains(&before, &after));
        assert_eq!(
            after["metadata"]["annotations"][HASH]
                .as_str()
                .unwrap()
                .len(),
            16
        );
    }
}
