//! The last gate before a write, on what the API server itself holds at that moment: whatever was
//! decided from an older look, applying never lowers a StatefulSet (only a removal's own step does)
//! and never takes a stranger's object.

use kube::api::DynamicObject;
use serde_json::Value;

use super::Desired;
use crate::error::ReconcileError;
use crate::observe::{OwnedKind, Uid};

/// Refuses an object that another owner controls, or none: a user's own object of the same name.
pub(super) fn ours(live: &DynamicObject, owner: &Uid, kind: &str) -> Result<(), ReconcileError> {
    let owners = live.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|reference| reference.controller == Some(true));
    if controllers.any(|reference| reference.uid == owner.0) {
        return Ok(());
    }
    Err(ReconcileError::Foreign {
        kind: kind.to_owned(),
        name: live.metadata.name.clone().unwrap_or_default(),
    })
}

/// What is written over `live`.
pub(super) fn guarded(
    desired: &Desired,
    live: Option<&DynamicObject>,
) -> Result<Value, ReconcileError> {
    let mut json = desired.json.clone();
    let Some(live) = live else {
        if let Some(had) = desired.had_replicas {
            json["spec"]["replicas"] = Value::from(had);
        }
        return Ok(json);
    };
    if desired.kind != OwnedKind::StatefulSet {
        return Ok(json);
    }
    let spec = &live.data["spec"];
    let present = spec["replicas"].as_i64().unwrap_or(1);
    let wanted = json["spec"]["replicas"].as_i64().ok_or_else(|| {
        ReconcileError::Internal(format!("StatefulSet {} has no replicas", desired.name))
    })?;
    let replicas = if desired.keeps_replicas {
        present
    } else {
        wanted.max(present)
    };
    json["spec"]["replicas"] = Value::from(replicas);
    // Templates of claims cannot be changed; claims that exist are what counts.
    for immutable in [
        "volumeClaimTemplates",
        "serviceName",
        "podManagementPolicy",
        "selector",
    ] {
        if !spec[immutable].is_null() {
            json["spec"][immutable] = stripped(&spec[immutable]);
        }
    }
    // Should it change between this look and the write, the write is refused.
    if let Some(version) = &live.metadata.resource_version {
        json["metadata"]["resourceVersion"] = Value::String(version.clone());
    }
    Ok(json)
}

/// Without what the API server adds by itself.
fn stripped(field: &Value) -> Value {
    let mut field = field.clone();
    if let Value::Array(items) = &mut field {
        for item in items {
            if let Value::Object(item) = item {
                item.remove("status");
                if let Some(Value::Object(metadata)) = item.get_mut("metadata") {
                    metadata.remove("creationTimestamp");
                }
            }
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(replicas: i64) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "a-datanode", "resourceVersion": "7", "ownerReferences": [
                {"apiVersion": "dfs.io/v1alpha1", "kind": "DfsCluster", "name": "a", "uid": "u1", "controller": true},
            ]},
            "spec": {"replicas": replicas, "volumeClaimTemplates": [{"spec": {"x": 1}, "status": {}}]},
        }))
        .unwrap()
    }

    fn desired(replicas: i64) -> Desired {
        Desired {
            kind: OwnedKind::StatefulSet,
            name: "a-datanode".into(),
            json: json!({"metadata": {"name": "a-datanode"}, "spec": {
                "replicas": replicas, "volumeClaimTemplates": [{"spec": {"x": 2}}],
            }}),
            keeps_replicas: false,
            had_replicas: None,
        }
    }

    #[test]
    fn i28_a_decision_from_an_old_look_never_lowers_a_stateful_set() {
        for (wanted, present, written) in [(3, 5, 5), (5, 3, 5), (3, 3, 3), (0, 4, 4)] {
            let json = guarded(&desired(wanted), Some(&live(present))).unwrap();
            assert_eq!(json["spec"]["replicas"], written);
            assert_eq!(
                json["metadata"]["resourceVersion"], "7",
                "the write has no precondition"
            );
            assert_eq!(
                json["spec"]["volumeClaimTemplates"],
                json!([{"spec": {"x": 1}}])
            );
        }
    }

    #[test]
    fn i28_an_old_look_does_not_raise_a_set_that_is_being_lowered() {
        let mut kept = desired(5);
        kept.keeps_replicas = true;
        let json = guarded(&kept, Some(&live(4))).unwrap();
        assert_eq!(json["spec"]["replicas"], 4);
    }

    #[test]
    fn i25_a_set_that_is_made_again_has_the_very_replicas_that_it_had() {
        for (wanted, had, written) in [(3, Some(5), 5), (5, Some(4), 4), (3, None, 3)] {
            let mut again = desired(wanted);
            again.had_replicas = had;
            let json = guarded(&again, None).unwrap();
            assert_eq!(json["spec"]["replicas"], written);
        }
    }

    #[test]
    fn an_object_of_someone_else_is_never_taken() {
        assert!(ours(&live(3), &Uid("u1".into()), "StatefulSet").is_ok());
        assert!(ours(&live(3), &Uid("u2".into()), "StatefulSet").is_err());
        let mut orphan = live(3);
        orphan.metadata.owner_references = None;
        assert!(ours(&orphan, &Uid("u1".into()), "StatefulSet").is_err());
    }
}
