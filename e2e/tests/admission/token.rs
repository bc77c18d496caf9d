//! The cluster token.

use dfs_e2e::cluster::Cluster;
use dfs_e2e::http::Http;
use dfs_e2e::wait::eventually;
use dfs_protocol::admission::RefusalReason;
use dfs_protocol::routes::is_public;
use serde_json::Value;

use crate::{DEADLINE, TOKEN, ask, guarded, identity, is_closed, node, refused_for, store};

const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];

#[tokio::test(flavor = "multi_thread")]
async fn i35_every_route_of_tracker_and_datanodes_needs_the_token_unless_it_is_public() {
    let mut cluster = Cluster::start(guarded(3)).await;
    let open = cluster.store().door;
    let document: Value = open.get("/openapi.json").await.unwrap().ok().json();
    let id = "0".repeat(32);
    let concrete = |path: &str| path.replace("{id}", &id).replace("{name}", "status");
    let (mut closed, mut public) = (0, 0);
    // What people call, by the served document; another test holds it against the routers.
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = concrete(path).replace("{path}", "x");
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if is_public(&method, &path) {
                public += 1;
                assert_ne!(
                    ask(&open, &method, &path, None).await.status,
                    401,
                    "{method} {path}"
                );
            } else {
                closed += 1;
                is_closed(&open, &method, &path).await;
            }
        }
    }
    assert!(
        public >= 12 && closed >= 20,
        "{public} public, {closed} closed"
    );
    // The tracker's own routes by its router's table, those between roles included.
    for path in dfs_tracker::http::paths() {
        for method in METHODS {
            is_closed(&open, method, &concrete(&path)).await;
        }
    }
    // Datanodes have no public route.
    let datanode = Http::new(&cluster.datanodes[0].address);
    for path in dfs_datanode::http::paths() {
        for method in METHODS {
            is_closed(&datanode, method, &concrete(path)).await;
        }
    }
    assert_eq!(
        ask(&datanode, "GET", "/identity", Some(TOKEN)).await.status,
        200
    );
    assert_eq!(ask(&open, "GET", "/nodes", Some(TOKEN)).await.status, 200);
    // Roles show each other the token: chains, journals, reads, and the copies of repair.
    let bytes = cluster.bytes(700_000);
    let stored = cluster.store().put("a", bytes.clone()).await;
    assert_eq!(stored.wanted, 3);
    store(&cluster).wait_healthy(DEADLINE).await;
    let added = cluster.add_datanode().await;
    cluster.kill_datanode(0).await;
    let guarded = store(&cluster);
    let id = identity(&cluster, added).await.datanode;
    eventually("repair copied to the new one", DEADLINE, || async {
        let seen = node(&guarded, id).await;
        let has_some = seen.as_ref().is_some_and(|seen| seen.stats.chunks > 0);
        has_some.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;
    assert!(cluster.store().get("a").await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_with_a_wrong_token_is_refused_and_seen() {
    let mut cluster = Cluster::start(guarded(2)).await;
    let guarded = store(&cluster);
    for _ in 0..2 {
        let reply = ask(&cluster.store().door, "POST", "/register", Some("wrong")).await;
        assert_eq!(reply.status, 401);
    }
    let seen = refused_for(&guarded, RefusalReason::WrongToken)
        .await
        .unwrap();
    assert_eq!(
        (seen.datanode, seen.address.as_str(), seen.count),
        (None, "127.0.0.1", 2)
    );
    let metric = "registrations_refused_total{reason=\"wrong-token\"}";
    assert_eq!(cluster.tracker.metric(metric), 2.0);
    cluster.kill_tracker().await;
}
