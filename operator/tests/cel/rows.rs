//! Row by row what was found when such rules were tried on a real API server.

use serde_json::{Value, json};

use crate::cluster::{Cluster, good, with, with_cluster};

async fn stored(cluster: &Cluster, name: &str) -> String {
    cluster.create(&good(name), false).await.unwrap();
    name.to_owned()
}

#[tokio::test]
async fn the_factor_guards_the_scale_subresource_too() {
    with_cluster("factor", async |cluster| {
        let few = with(good("few"), "spec.dataNodes.replicas", json!(2));
        let no = cluster.create(&few, true).await.unwrap_err();
        no.says("spec.dataNodes.replicas");
        no.says("must not be lower than replication.factor");
        let name = stored(cluster, "a").await;
        cluster
            .scale(&name, 2)
            .await
            .unwrap_err()
            .says("spec.dataNodes.replicas");
        cluster.scale(&name, 5).await.unwrap();
        let raised = json!({"spec": {"replication": {"factor": 6}}});
        cluster
            .change(&name, raised)
            .await
            .unwrap_err()
            .says("must not be lower");
    })
    .await;
}

#[tokio::test]
async fn leaving_the_number_of_datanodes_out_is_refused_and_a_scale_owns_it() {
    with_cluster("replicas", async |cluster| {
        let mut without = good("a");
        without["spec"]["dataNodes"]
            .as_object_mut()
            .unwrap()
            .remove("replicas");
        cluster
            .create(&without, true)
            .await
            .unwrap_err()
            .says("spec.dataNodes.replicas");
        let applied = with(good("a"), "spec.dataNodes.replicas", json!(3));
        cluster.apply("gitops", &applied).await.unwrap();
        cluster.scale("a", 4).await.unwrap();
        let again = cluster.apply("gitops", &applied).await.unwrap_err();
        assert_eq!(again.code, 409, "{}", again.message);
        assert!(
            again.message.contains(".spec.dataNodes.replicas"),
            "{}",
            again.message
        );
        let seen = cluster.dfs.get("a").await.unwrap();
        assert_eq!(seen.data["spec"]["dataNodes"]["replicas"], 4);
    })
    .await;
}

#[tokio::test]
async fn a_number_that_the_operator_could_not_read_is_refused() {
    with_cluster("range", async |cluster| {
        for number in [5_000_000_000_i64, 501, -1] {
            let object = with(good("a"), "spec.dataNodes.replicas", json!(number));
            cluster
                .create(&object, true)
                .await
                .unwrap_err()
                .says("spec.dataNodes.replicas");
        }
        for factor in [0, 8] {
            let object = with(good("a"), "spec.replication.factor", json!(factor));
            cluster
                .create(&object, true)
                .await
                .unwrap_err()
                .says("spec.replication.factor");
        }
        let over = with(good("a"), "spec.replication.minWrite", json!(4));
        cluster
            .create(&over, true)
            .await
            .unwrap_err()
            .says("minWrite must not be higher");
    })
    .await;
}

#[tokio::test]
async fn volumes_are_quantities_that_grow() {
    with_cluster("quantity", async |cluster| {
        for (size, words) in [
            (json!("ten"), "must be a quantity"),
            (json!("0"), "must be more than zero"),
            (json!(0), "must be more than zero"),
            (json!("-1Gi"), "must be more than zero"),
            (
                json!("10000000000000000000000Gi"),
                "spec.dataNodes.storage.size",
            ),
        ] {
            let object = with(good("a"), "spec.dataNodes.storage.size", size);
            cluster.create(&object, true).await.unwrap_err().says(words);
        }
        let name = stored(cluster, "a").await;
        let size = |size: Value| json!({"spec": {"dataNodes": {"storage": {"size": size}}}});
        let shrunk = cluster.change(&name, size(json!("9Gi"))).await.unwrap_err();
        shrunk.says("a volume can grow but not shrink");
        cluster.change(&name, size(json!("10240Mi"))).await.unwrap();
        cluster
            .change(&name, size(json!(21_474_836_480_i64)))
            .await
            .unwrap();
        cluster
            .change(&name, size(json!("10Gi")))
            .await
            .unwrap_err()
            .says("not shrink");
        let tracker = json!({"spec": {"tracker": {"storage": {"size": "1Gi"}}}});
        cluster
            .change(&name, tracker)
            .await
            .unwrap_err()
            .says("not shrink");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_change_later_is_immutable_however_it_is_written() {
    with_cluster("immutable", async |cluster| {
        let name = stored(cluster, "a").await;
        let class = json!({"spec": {"dataNodes": {"storage": {"storageClassName": "x"}}}});
        cluster
            .change(&name, class)
            .await
            .unwrap_err()
            .says("storageClassName is immutable");
        let chunk = |size: Value| json!({"spec": {"chunkSize": size}});
        cluster
            .change(&name, chunk(json!("65536Ki")))
            .await
            .unwrap();
        cluster
            .change(&name, chunk(json!("32Mi")))
            .await
            .unwrap_err()
            .says("immutable");
        let mut small = with(good("b"), "spec.chunkSize", json!("32Mi"));
        small["spec"]["dataNodes"]["storage"]["storageClassName"] = json!("x");
        cluster.create(&small, false).await.unwrap();
        // Without a value the default comes back, which is another one.
        cluster
            .change("b", chunk(Value::Null))
            .await
            .unwrap_err()
            .says("immutable");
        for class in [json!("y"), Value::Null] {
            let class = json!({"spec": {"dataNodes": {"storage": {"storageClassName": class}}}});
            cluster
                .change("b", class)
                .await
                .unwrap_err()
                .says("storageClassName is immutable");
        }
        for size in ["1Ki", "65537", "1025Mi", "1.5Mi"] {
            let object = with(good("c"), "spec.chunkSize", json!(size));
            cluster
                .create(&object, true)
                .await
                .unwrap_err()
                .says("multiple of 1Mi");
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_must_fit_into_the_names_made_from_it() {
    with_cluster("names", async |cluster| {
        cluster.create(&good(&"n".repeat(40)), true).await.unwrap();
        let long = cluster
            .create(&good(&"n".repeat(41)), true)
            .await
            .unwrap_err();
        long.says("more than 40 characters");
        for name in ["4ever", "dotted.name"] {
            let no = cluster.create(&good(name), true).await.unwrap_err();
            no.says("must start with a letter");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_managed_paused_or_stopped_and_nothing_else() {
    with_cluster("states", async |cluster| {
        for state in ["Managed", "Paused", "Stopped"] {
            let made = with(good("a"), "spec.managementState", json!(state));
            let made = cluster.create(&made, true).await.unwrap();
            assert_eq!(made.data["spec"]["managementState"], state);
        }
        for wrong in [json!("stopped"), json!("Off"), json!(""), json!(0)] {
            let made = with(good("a"), "spec.managementState", wrong);
            let no = cluster.create(&made, true).await.unwrap_err();
            no.says("spec.managementState");
        }
    })
    .await;
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn conditions_have_one_of_three_states_and_a_reason_and_each_has_its_owner() {
    with_cluster("conditions", async |cluster| {
        let name = stored(cluster, "a").await;
        for bad in [
            condition("Ready", "Maybe", "Because"),
            condition("Ready", "True", "just because"),
            condition("Ready", "True", ""),
            condition("", "True", "Because"),
        ] {
            let status = json!({"conditions": [bad]});
            let no = cluster.apply_status("x", &name, status).await.unwrap_err();
            no.says("status.conditions");
        }
        let one = json!({"conditions": [condition("Ready", "True", "Because")]});
        let other = json!({"conditions": [condition("Custom", "False", "Because")]});
        cluster.apply_status("one", &name, one).await.unwrap();
        let both = cluster.apply_status("other", &name, other).await.unwrap();
        assert_eq!(
            both.data["status"]["conditions"].as_array().unwrap().len(),
            2
        );
        let member =
            |id: &str, state: &str| json!({"members": [{"datanodeId": id, "state": state}]});
        cluster
            .apply_status("m1", &name, member("d-1", "InService"))
            .await
            .unwrap();
        let both = cluster
            .apply_status("m2", &name, member("d-2", "Pending"))
            .await
            .unwrap();
        assert_eq!(both.data["status"]["members"].as_array().unwrap().len(), 2);
        let no = cluster
            .apply_status("m3", &name, member("d-3", "Odd"))
            .await
            .unwrap_err();
        no.says("state");
    })
    .await;
}

#[tokio::test]
async fn the_same_status_again_changes_nothing_and_a_status_never_changes_the_spec() {
    with_cluster("status", async |cluster| {
        let name = stored(cluster, "a").await;
        let status = json!({
            "observedGeneration": 1,
            "conditions": [condition("Ready", "True", "Because")],
            "dataNodes": {"desired": 3, "replicas": 3, "ready": 3, "registered": 3, "summary": "3/3"},
        });
        let first = cluster.apply_status("operator", &name, status.clone()).await.unwrap();
        let second = cluster.apply_status("operator", &name, status).await.unwrap();
        assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
        let patch = json!({"spec": {"dataNodes": {"replicas": 7}}, "status": {"version": "1"}});
        let patch = kube::api::Patch::Merge(patch);
        let parameters = kube::api::PatchParams::default();
        let after = cluster.dfs.patch_status(&name, &parameters, &patch).await.unwrap();
        assert_eq!(after.data["spec"]["dataNodes"]["replicas"], 3);
        assert_eq!(after.data["status"]["version"], "1");
        assert_eq!(after.metadata.generation, first.metadata.generation);
    })
    .await;
}

#[tokio::test]
async fn an_apply_with_an_unknown_field_or_without_a_name_is_refused() {
    with_cluster("apply", async |cluster| {
        cluster.apply("gitops", &good("a")).await.unwrap();
        let odd = with(good("a"), "spec.repairDelayy", json!("5m"));
        let no = cluster.apply("gitops", &odd).await.unwrap_err();
        assert!([400, 422, 500].contains(&no.code), "{no:?}");
        assert!(no.message.contains("repairDelayy"), "{no:?}");
        let mut nameless = good("a");
        nameless["metadata"] = json!({});
        let no = cluster.apply("gitops", &nameless).await.unwrap_err();
        assert_eq!(no.code, 400, "{no:?}");
    })
    .await;
}

#[tokio::test]
async fn scaling_shows_the_number_and_the_selector_of_the_datanodes() {
    with_cluster("scale", async |cluster| {
        let name = stored(cluster, "a").await;
        let selector = "app.kubernetes.io/instance=a";
        let status = json!({"selector": selector, "dataNodes": {"replicas": 3}});
        cluster
            .apply_status("operator", &name, status)
            .await
            .unwrap();
        let scale = cluster.scale(&name, 4).await.unwrap();
        assert_eq!(scale["spec"]["replicas"], 4);
        assert_eq!(scale["status"]["replicas"], 3);
        assert_eq!(scale["status"]["selector"], selector);
    })
    .await;
}

#[tokio::test]
async fn the_samples_are_accepted() {
    with_cluster("samples", async |cluster| {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples");
        let mut seen = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let object: Value = serde_saphyr::from_str(&text).unwrap();
            cluster.create(&object, true).await.unwrap();
            seen += 1;
        }
        assert!(seen >= 3);
    })
    .await;
}

#[tokio::test]
async fn the_smallest_manifest_is_filled_up_with_the_defaults() {
    with_cluster("defaults", async |cluster| {
        let seen = cluster.create(&good("a"), true).await.unwrap();
        let spec = &seen.data["spec"];
        assert_eq!(spec["chunkSize"], "64Mi");
        assert_eq!(spec["gateway"]["replicas"], 2);
        assert_eq!(spec["gateway"]["service"]["type"], "ClusterIP");
        assert_eq!(
            spec["dataNodes"]["scheduling"]["topologySpread"]["hostname"],
            "DoNotSchedule"
        );
        assert_eq!(spec["tracker"]["storage"]["size"], "10Gi");
        let nulls = with(good("a"), "spec.chunkSize", Value::Null);
        let nulls = with(nulls, "spec.replication.minWrite", Value::Null);
        let nulls = with(
            nulls,
            "spec.tracker",
            json!({"storage": null, "resources": {"limits": null}}),
        );
        let dropped = cluster.create(&nulls, true).await.unwrap();
        assert_eq!(dropped.data["spec"]["chunkSize"], "64Mi");
        assert_eq!(dropped.data["spec"]["tracker"]["storage"]["size"], "10Gi");
        let typed: dfs_operator::crd::DfsCluster =
            serde_json::from_value(serde_json::to_value(&seen).unwrap()).unwrap();
        assert_eq!(typed.spec.replication.min_write, None);
    })
    .await;
}

/// Every object that is built from a rich spec is one that the API server would store.
#[tokio::test]
async fn the_objects_of_a_cluster_are_accepted() {
    with_cluster("objects", async |cluster| {
        Box::pin(crate::bad::objects_are_accepted(cluster)).await;
    })
    .await;
}
