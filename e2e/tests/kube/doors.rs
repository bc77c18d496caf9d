//! Ways in: files larger than memory through the ingress, and the Gateway API beside it.

use dfs_e2e::http::Http;
use serde_json::json;

use crate::door::Door;
use crate::image::curl_in_and_out;
use crate::measure::{MIB, cost};
use crate::store::Cluster;
use crate::tools::{kubectl, number, until};
use crate::world::{DEADLINE, World};

/// How much more memory a role may have after a large file than before it: windows, not the file.
const GROWTH: f64 = 128.0 * MIB;

fn big_mib() -> u64 {
    number("DFS_KUBE_BIG_MIB", 256)
}

#[tokio::test(flavor = "multi_thread")]
async fn i31_a_file_larger_than_any_window_streams_through_and_memory_stays_flat() {
    let Some(mut world) = World::start("big").await else {
        return;
    };
    world.install_operator(&[]);
    // One copy of a big file, its staged chunks and what the file system keeps have to fit.
    let size = format!("{}Mi", 2 * big_mib() + 512);
    let room = json!({ "dataNodes": { "storage": { "size": size } } });
    let cluster = Cluster::apply_with(&world, "store", 3, &room);
    cluster.wait_ready().await;
    cluster.wait_registered(3).await;
    let door = cluster.door().await;
    curl_in_and_out(&door, 1);
    let roles = ["gateway", "datanode", "tracker"];
    let pods = roles
        .iter()
        .flat_map(|role| world.nodes_of(role).into_keys());
    let watched: Vec<String> = pods.collect();
    let mut before = Vec::new();
    for pod in &watched {
        before.push(cost(&world.namespace, pod).await);
    }
    curl_in_and_out(&door, big_mib());
    for (pod, before) in watched.iter().zip(before) {
        let after = cost(&world.namespace, pod).await;
        eprintln!(
            "  {pod}: {:.1} MiB before, {:.1} MiB after",
            before.memory / MIB,
            after.memory / MIB
        );
        assert!(after.memory < before.memory + GROWTH, "{pod}");
    }
    cluster.wait_whole().await;
}

fn gateway(class: &str, port: &str) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "name": "door" },
        "spec": {
            "gatewayClassName": class,
            "listeners": [{ "name": "web", "protocol": "HTTP", "port": port.parse::<u16>().unwrap() }],
        },
    })
    .to_string()
}

/// An address that a client makes up for itself (RFC 5737).
const MADE_UP: &str = "192.0.2.7";

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_39_through_the_gateway_api_files_stream_and_a_made_up_address_is_not_believed() {
    let Ok(class) = std::env::var("DFS_KUBE_GATEWAY_CLASS") else {
        eprintln!("skipped: the Gateway API needs DFS_KUBE_GATEWAY_CLASS and INGRESS");
        return;
    };
    let Some(mut world) = World::start("route").await else {
        return;
    };
    let Some(address) = world.ingress.clone() else {
        eprintln!("skipped: the Gateway API is reached at INGRESS");
        return;
    };
    world.install_operator(&[]);
    let port = address.rsplit(':').next().unwrap();
    world.apply(&gateway(&class, port));
    let host = format!("route.{}.example", world.namespace);
    let by_route = json!({ "gateway": {
        "httpRoute": { "parentRefs": [{ "name": "door" }], "hostnames": [&host] },
        "ingress": null,
        // Whoever the controller is: what it says of the client counts.
        "trustedProxies": ["0.0.0.0/0"],
    } });
    let cluster = Cluster::apply_with(&world, "store", 3, &by_route);
    cluster.wait_ready().await;
    let ingresses = world.kubectl(&["get", "ingress", "-o", "name"]).unwrap();
    assert_eq!(ingresses, "", "there is no other way in");
    let door = Door::at(Http::through(&address, &host)).await;
    curl_in_and_out(&door, 1);
    curl_in_and_out(&door, 64);

    let forged = [("x-forwarded-for", MADE_UP)];
    let told = door.store.door.get_with("/files/not-there", &forged).await;
    assert_eq!(told.unwrap().status, 404);
    let by_gateways = ["-l", "app.kubernetes.io/component=gateway"];
    let logs = until("the gateways' logs tell of it", DEADLINE, || async {
        let logs = [
            &["-n", &world.namespace, "logs"],
            &by_gateways[..],
            &["--tail=-1"],
        ]
        .concat();
        let logs = kubectl(&logs)?;
        let line = logs.lines().find(|line| line.contains(r#""status":404"#));
        line.map(str::to_owned).ok_or(logs)
    })
    .await;
    eprintln!("  {logs}");
    assert!(!logs.contains(MADE_UP), "a client's own word was believed");
    cluster.wait_whole().await;
}
