//! A cluster's ordinary life, and an API server that is not in a good mood.

use std::time::Duration;

use dfs_operator::error::Category;
use dfs_operator::metrics::ReconcileResult;
use serde_json::json;

use crate::api::Fault;
use crate::tracker::{Told, pending};
use crate::world::World;
use dfs_protocol::DatanodeId;

#[tokio::test]
async fn a_cluster_is_made_from_nothing_and_comes_to_rest() {
    let world = World::new();
    let ctx = world.operator();
    world.reconcile(&ctx).await.unwrap();
    let (ready, ..) = world.condition("Ready");
    assert_eq!(ready, "False");
    let conditions = world.cluster().status.unwrap().conditions;
    assert_eq!(
        conditions.len(),
        11,
        "every condition is set at the first visit"
    );
    world.converge(&ctx).await;
    assert_eq!(
        world.condition("Ready").0,
        "True",
        "{:?}",
        world.condition("Ready")
    );
    assert_eq!(world.condition("Available").0, "True");
    assert_eq!(world.condition("DataRedundant").1, "FullyReplicated");
    assert_eq!(world.condition("Progressing").0, "False");
    assert_eq!(world.condition("Degraded").0, "False");
    let status = world.cluster().status.unwrap();
    assert_eq!(status.cluster_id.unwrap().len(), 32);
    let nodes = status.data_nodes.unwrap();
    assert_eq!((nodes.desired, nodes.ready, nodes.registered), (3, 3, 3));
    assert_eq!(nodes.summary.as_deref(), Some("3/3"));
    assert_eq!(status.members.len(), 3);
    assert_eq!(status.members[0].zone.as_deref(), Some("z0"));
    for reason in ["Created", "DatanodeAdmitted", "Ready"] {
        assert!(world.was_told(reason), "{reason}: {:?}", world.events());
    }
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    for _ in 0..3 {
        world.clock.advance(Duration::from_mins(1));
        world.reconcile(&ctx).await.unwrap();
        assert_eq!(world.writes(), []);
    }
    // A new process knows nothing and still has nothing to write.
    world.reconcile(&world.operator()).await.unwrap();
    assert_eq!(world.writes(), []);
}

#[tokio::test]
async fn the_cluster_id_is_on_record_and_handed_to_the_tracker_before_anyone_is_admitted() {
    let world = World::new();
    let ctx = world.operator();
    for _ in 0..10 {
        world.settle();
        world.reconcile(&ctx).await.unwrap();
        if world.tracker.with(|state| state.told.is_empty()) {
            continue;
        }
        let id = world.tracker.with(|state| state.cluster.to_string());
        let map = world.api.get("configmaps", "a-cluster").unwrap();
        assert_eq!(map["data"]["clusterId"], json!(id));
        assert_eq!(world.cluster().status.unwrap().cluster_id, Some(id));
        return;
    }
    panic!("nobody was admitted");
}

#[tokio::test]
async fn nobody_is_admitted_while_the_id_cannot_be_handed_to_the_tracker() {
    let world = World::new();
    let ctx = world.operator();
    world.api.script(|call| {
        (call.is_write() && call.plural == "configmaps").then_some(Fault::Status(403))
    });
    for _ in 0..6 {
        world.settle();
        let _refused = world.reconcile(&ctx).await;
    }
    assert_eq!(world.tracker.take_told(), []);
    assert_eq!(world.condition("Ready").1, "ApplyFailed");
    world.api.heal();
    world.converge(&ctx).await;
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn i28_an_unreadable_tracker_holds_everything_and_nothing_is_removed() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.with(|state| state.mute = true);
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(3);
    });
    world.api.remove("pods", "a-datanode-2");
    world
        .api
        .remove("persistentvolumeclaims", "data-a-datanode-2");
    world.converge(&ctx).await;
    assert_eq!(
        world.tracker.take_told().len(),
        3,
        "only the first admissions"
    );
    let (ready, reason, message) = world.condition("Ready");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("False", "TrackerUnreadable")
    );
    assert!(message.contains("connection refused"), "{message}");
    assert_eq!(world.condition("DataRedundant").0, "Unknown");
}

#[tokio::test]
async fn a_stranger_is_refused_with_an_event_and_the_cluster_stays_ready() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    world.tracker.take_told();
    let stranger = DatanodeId::from_u128(0xbad);
    world.tracker.with(|state| {
        let mut entry = pending(stranger);
        entry.address = "10.9.9.9:6001".into();
        entry.pod = Some("intruder-0".into());
        state.nodes.insert(stranger, entry);
        state.refusals.push(dfs_operator::tracker_client::Refusal {
            datanode: None,
            address: "10.9.9.8".into(),
            pod: None,
            reason: "wrong-token".into(),
            detail: "the token is not this cluster's".into(),
            count: 1,
        });
    });
    world.converge(&ctx).await;
    let told = world.tracker.take_told();
    assert!(
        matches!(&told[..], [Told::Refuse(id, _)] if *id == stranger),
        "{told:?}"
    );
    let events = world.events();
    let refused: Vec<_> = events
        .iter()
        .filter(|(reason, _)| reason == "DatanodeRefused")
        .collect();
    assert!(
        refused.iter().any(|(_, note)| note.contains("intruder-0")),
        "{refused:?}"
    );
    assert!(
        refused.iter().any(|(_, note)| note.contains("wrong-token")),
        "{refused:?}"
    );
    let (ready, _, message) = world.condition("Ready");
    assert_eq!(ready, "True");
    assert!(message.contains("is refused: pod intruder-0"), "{message}");
}

#[tokio::test]
async fn a_paused_cluster_is_looked_at_and_nothing_else() {
    let world = World::new();
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["managementState"] = json!("Paused");
    });
    let ctx = world.operator();
    world.converge(&ctx).await;
    assert_eq!(world.condition("Paused").0, "True");
    for plural in [
        "statefulsets",
        "deployments",
        "services",
        "secrets",
        "configmaps",
    ] {
        assert_eq!(world.api.list(plural), Vec::<serde_json::Value>::new());
    }
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["managementState"] = json!("Managed");
    });
    world.converge(&ctx).await;
    assert_eq!(world.condition("Ready").0, "True");
    assert!(world.was_told("Resumed"));
}

#[tokio::test]
async fn a_spec_that_makes_no_sense_touches_nothing_that_runs() {
    let world = World::new();
    let ctx = world.operator();
    world.converge(&ctx).await;
    let before = world.api.list("statefulsets");
    for (path, value) in [
        ("factor", json!(9)),
        ("factor", json!(-1)),
        ("factor", json!(5)),
    ] {
        world.api.change("dfsclusters", "a", |cluster| {
            cluster["spec"]["replication"][path] = value;
        });
        let outcome = world.reconcile(&ctx).await.unwrap();
        assert_eq!(
            (outcome.result, outcome.requeue),
            (ReconcileResult::Invalid, None)
        );
        assert_eq!(world.condition("Ready").1, "InvalidSpec");
    }
    assert_eq!(world.api.list("statefulsets"), before);
    assert!(world.was_told("InvalidSpec"));
}

#[tokio::test]
async fn an_object_of_someone_else_is_left_alone_and_named() {
    let world = World::new();
    world.api.put(
        "services",
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a-gateway"}, "spec": {"ports": [{"port": 1}]}}),
    );
    let ctx = world.operator();
    let error = world.reconcile(&ctx).await.unwrap_err();
    assert_eq!(error.category(), Category::Foreign);
    assert_eq!(
        world.api.get("services", "a-gateway").unwrap()["spec"]["ports"][0]["port"],
        1
    );
    assert!(
        world
            .condition("Ready")
            .2
            .contains("Service a-gateway exists")
    );
    assert!(
        world.api.get("statefulsets", "a-datanode").is_some(),
        "the rest is made"
    );
}

#[tokio::test]
async fn drift_is_put_right_and_doors_that_are_no_longer_wanted_go() {
    let world = World::new();
    let ctx = world.operator();
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["gateway"] = json!({"ingress": {"host": "dfs.test"}});
    });
    world.converge(&ctx).await;
    assert_eq!(world.api.list("ingresses").len(), 1);
    world.api.change("services", "a-gateway", |service| {
        service["spec"]["ports"][0]["port"] = json!(81);
    });
    world.api.change("statefulsets", "a-datanode", |set| {
        set["spec"]["replicas"] = json!(2);
    });
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["gateway"] = json!({});
    });
    world.converge(&ctx).await;
    assert_eq!(
        world.api.get("services", "a-gateway").unwrap()["spec"]["ports"][0]["port"],
        80
    );
    assert_eq!(
        world.api.get("statefulsets", "a-datanode").unwrap()["spec"]["replicas"],
        3
    );
    assert_eq!(world.api.list("ingresses").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_throttles_fails_or_dawdles_is_waited_for() {
    for fault in [
        Fault::Status(409),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::AnswerLost,
        Fault::Slow(Duration::from_secs(10)),
        Fault::Slow(Duration::from_secs(40)),
    ] {
        let world = World::new();
        let ctx = world.operator();
        let mut rng = fastrand::Rng::with_seed(3);
        world
            .api
            .script(move |_| (rng.u32(..6) == 0).then_some(fault));
        for _ in 0..40 {
            world.settle();
            if let Err(error) = world.reconcile(&ctx).await {
                assert_ne!(error.category(), Category::Internal, "{fault:?}: {error}");
            }
        }
        world.api.heal();
        world.converge(&ctx).await;
        assert_eq!(world.condition("Ready").0, "True", "{fault:?}");
    }
}
