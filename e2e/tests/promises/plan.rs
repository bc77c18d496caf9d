//! What is foretold of a loss is what happens, and a proof names what is in the way.

use dfs_e2e::cluster::Cluster;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::plan::{PlanAnswer, Proof};
use http::StatusCode;

use crate::kit::{CHUNK_BYTES, DEADLINE, Model, options};
use crate::world::{id_of, post, wait_admin};

#[tokio::test(flavor = "multi_thread")]
async fn i25_fault_05_a_loss_is_foretold_by_its_files_and_a_proof_by_what_is_in_the_way() {
    let mut cluster = Cluster::start(options(4)).await;
    let mut model = Model::default();
    for name in ["two", "three"] {
        model.put(&mut cluster, name, CHUNK_BYTES).await;
    }
    let store = cluster.store();
    let _ = post(&store, "/files/two?factor=2").await.ok();
    store.wait_repaired(DEADLINE).await;
    let two = store.chunks("two").await.unwrap();
    let holders: Vec<_> = two.chunks[0].replicas.iter().map(|r| r.datanode).collect();
    assert_eq!(holders.len(), 2);
    let ask = async |query: &str| -> PlanAnswer {
        let reply = store.door.get(&format!("/plan?{query}")).await;
        reply.unwrap().ok().json()
    };
    // One is nothing; both are the end of one file. An address does as well as an id.
    let nodes = store.nodes().await.unwrap();
    let address = |id| {
        nodes
            .iter()
            .find(|node| node.id == id)
            .unwrap()
            .address
            .clone()
    };
    let one = ask(&format!("lose={}", holders[0])).await;
    assert!(one.missing == 0 && one.under_replicated > 0, "{one:?}");
    let both = ask(&format!("lose={},{}", holders[0], address(holders[1]))).await;
    let files: Vec<_> = both.missing_files.iter().map(ToString::to_string).collect();
    assert_eq!(files, ["two"]);
    assert_eq!(both.missing_chunks, [two.chunks[0].chunk.id]);
    assert!(
        !both.full_factor_again,
        "two are left for three replicas: {both:?}"
    );
    let scaled = ask("scale=3").await;
    assert_eq!((scaled.gone.len(), scaled.missing), (1, 0));
    assert!(scaled.full_factor_again, "{scaled:?}");
    for (query, status) in [
        ("lose=nobody", StatusCode::NOT_FOUND),
        ("lose=", StatusCode::CONFLICT),
        ("scale=-1", StatusCode::BAD_REQUEST),
        ("scale=2&lose=x", StatusCode::BAD_REQUEST),
        ("", StatusCode::BAD_REQUEST),
    ] {
        let reply = store.door.get(&format!("/plan?{query}")).await.unwrap();
        assert_eq!(reply.status, status, "{query}: {}", reply.text());
    }
    let prove = async |name: &str| -> Proof {
        let reply = store.door.get(&format!("/nodes/{name}/proof")).await;
        reply.unwrap().ok().json()
    };
    let proof = prove(&holders[0].to_string()[..12]).await;
    assert_eq!(proof.datanode.id, holders[0]);
    assert!(
        !proof.may_go.safe && proof.may_go.chunk_count > 0,
        "{proof:?}"
    );
    assert!(
        proof.files.iter().any(|path| path.as_str() == "two"),
        "{proof:?}"
    );
    let leaver = id_of(&cluster, 0).await;
    let _ = post(&store, &format!("/nodes/{leaver}/decommission"))
        .await
        .ok();
    wait_admin(&store, leaver, AdminState::Decommissioned).await;
    let proof = prove(&address(leaver)).await;
    assert!(proof.may_go.safe && proof.files.is_empty(), "{proof:?}");
}
