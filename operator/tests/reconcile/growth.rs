//! Volumes that grow: claims, then the template, and no pod notices.

use serde_json::{Value, json};

use crate::api::Fault;
use crate::world::World;

pub fn grow(world: &World) {
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["storage"]["size"] = json!("20Gi");
    });
}

fn asked(world: &World, claim: &str) -> Value {
    let claim = world.api.get("persistentvolumeclaims", claim).unwrap();
    claim["spec"]["resources"]["requests"]["storage"].clone()
}

fn template(world: &World) -> (Value, Value, Value) {
    let set = world.api.get("statefulsets", "a-datanode").unwrap();
    let spec = &set["spec"];
    let claim = &spec["volumeClaimTemplates"][0]["spec"];
    (
        claim["resources"]["requests"]["storage"].clone(),
        spec["replicas"].clone(),
        set["metadata"]["uid"].clone(),
    )
}

fn pods(world: &World) -> Vec<Value> {
    let pods = world.api.list("pods").into_iter();
    pods.map(|pod| pod["metadata"]["uid"].clone()).collect()
}

#[tokio::test]
async fn volumes_grow_with_the_spec_and_no_pod_is_restarted() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    let before = pods(&world);
    assert_eq!(template(&world).2, "statefulsets-a-datanode-1");
    grow(&world);
    world.reconcile(&ctx).await.unwrap();
    let (resizing, reason, message) = world.condition("StorageResizing");
    assert_eq!((resizing.as_str(), reason.as_str()), ("True", "Resizing"));
    assert!(
        message.contains("data-a-datanode-0 has 10Gi of 20Gi"),
        "{message}"
    );
    assert_eq!(world.condition("Ready").0, "True");
    world.converge(&ctx).await;
    for ordinal in 0..3 {
        assert_eq!(asked(&world, &format!("data-a-datanode-{ordinal}")), "20Gi");
    }
    assert_eq!(asked(&world, "data-a-tracker-0"), "10Gi");
    let made_anew = (json!("20Gi"), json!(3), json!("statefulsets-a-datanode-2"));
    assert_eq!(template(&world), made_anew);
    assert_eq!(pods(&world), before, "a pod was restarted");
    assert_eq!(world.condition("StorageResizing").0, "False");
    assert_eq!(world.condition("Ready").0, "True");
    for reason in ["VolumesGrowing", "SetReplaced", "VolumesGrown"] {
        assert!(world.was_told(reason), "{reason}: {:?}", world.events());
    }
    for reason in ["NotReady", "DatanodeRefused"] {
        assert!(!world.was_told(reason), "{reason}: {:?}", world.events());
    }
    let status = world.api.get("dfsclusters", "a").unwrap()["status"].clone();
    assert_eq!(status["replacements"], Value::Null);
    // New datanodes have the new size from the start.
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(4);
    });
    world.converge(&ctx).await;
    assert_eq!(asked(&world, "data-a-datanode-3"), "20Gi");
}

#[tokio::test]
async fn a_storage_class_that_forbids_growth_is_told_and_the_rest_goes_on() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.api.script(|call| {
        let grows = call.is_write() && call.plural == "persistentvolumeclaims";
        grows.then_some(Fault::Status(403))
    });
    grow(&world);
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["gateway"] = json!({"replicas": 4});
    });
    world.reconcile(&ctx).await.unwrap();
    let (resizing, reason, message) = world.condition("StorageResizing");
    assert_eq!(
        (resizing.as_str(), reason.as_str()),
        ("True", "ExpansionRefused")
    );
    assert!(message.contains("as scripted"), "{message}");
    assert!(world.was_told("ExpansionRefused"));
    let gateway = world.api.get("deployments", "a-gateway").unwrap();
    assert_eq!(gateway["spec"]["replicas"], 4);
    for _ in 0..4 {
        world.settle();
        world.reconcile(&ctx).await.unwrap();
    }
    assert_eq!(
        template(&world).0,
        "20Gi",
        "new claims have the new size all the same"
    );
    assert_eq!(world.condition("Ready").0, "True");
    world.api.heal();
    world.converge(&ctx).await;
    assert_eq!(asked(&world, "data-a-datanode-2"), "20Gi");
    assert_eq!(world.condition("StorageResizing").0, "False");
}

#[tokio::test]
async fn i28_a_set_that_was_scaled_since_it_was_recorded_is_not_deleted() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    grow(&world);
    world.reconcile(&ctx).await.unwrap();
    world.api.change("statefulsets", "a-datanode", |set| {
        set["spec"]["replicas"] = json!(5);
        set["status"]["replicas"] = json!(5);
    });
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(template(&world).2, "statefulsets-a-datanode-1");
    let record = &world.api.get("dfsclusters", "a").unwrap()["status"]["replacements"][0];
    assert_eq!(record["replicas"], 5);
}
