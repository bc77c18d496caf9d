//! Repair copies between two datanodes under the tracker's terms.

use std::collections::BTreeSet;

use dfs_protocol::repair::RepairTerms;

use super::*;

/// What a node counted as received, and as sent, for repair.
fn moved(node: &Node) -> [u64; 2] {
    let families = node.registry.gather();
    let mut own = families.iter();
    let family = own.find(|family| family.name() == "dfs_datanode_repair_bytes_total");
    let of = |direction: &str| {
        let mut metrics = family.unwrap().get_metric().iter();
        let one = metrics.find(|metric| metric.get_label()[0].value() == direction);
        one.unwrap().get_counter().get_value()
    };
    [of("received"), of("sent")].map(|bytes| format!("{bytes}").parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_copy_takes_of_the_bandwidth_at_both_ends_and_a_clients_read_does_not() {
    let tracker = FakeTracker::start().await;
    let (a, b) = (
        Node::admitted(&tracker).await,
        Node::admitted(&tracker).await,
    );
    let data = bytes(3_000_000);
    let chunk = put(&[&a], 1, &data).await;
    assert_eq!(get(&a, &chunk).await.unwrap(), data);
    assert_eq!(moved(&a), [0, 0], "a client read it");
    let limit = "dfs_datanode_repair_limit_bytes";
    assert_eq!(a.metric(limit), 256 << 20, "before anything was said");
    tracker.tell(|s| {
        s.terms = Some(RepairTerms {
            rate: 64 << 20,
            last_replicas: BTreeSet::from([TaskId(1)]),
        });
        s.commands = vec![Command::Copy {
            task: TaskId(1),
            chunk,
            sources: vec![a.address.clone()],
        }];
    });
    let length = data.len() as u64;
    eventually("the copy is there", async || {
        get(&b, &chunk).await.as_ref() == Some(&data)
    })
    .await;
    assert_eq!([a.metric(limit), b.metric(limit)], [64 << 20; 2]);
    assert!(moved(&b)[0] >= length && moved(&b)[1] == 0);
    // Frames have headers.
    assert!(moved(&a)[1] >= length && moved(&a)[0] == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i23_a_copy_of_a_last_replica_does_not_wait_for_the_workers_of_slow_copies() {
    let tracker = FakeTracker::start().await;
    let (a, b) = (
        Node::admitted(&tracker).await,
        Node::admitted(&tracker).await,
    );
    let large = bytes(3_000_000);
    let mut commands = Vec::new();
    for number in 1..=12u32 {
        let chunk = put(&[&a], number.into(), &large).await;
        commands.push(Command::Copy {
            task: TaskId(number.into()),
            chunk,
            sources: vec![a.address.clone()],
        });
    }
    let small = bytes(1000);
    let last = put(&[&a], 100, &small).await;
    let last_replicas = BTreeSet::from([TaskId(100)]);
    tracker.tell(|s| {
        // Minutes for each of the large ones.
        s.terms = Some(RepairTerms {
            rate: 64 << 10,
            last_replicas: last_replicas.clone(),
        });
        s.commands = commands;
    });
    eventually("slow copies are under way", async || moved(&b)[0] > 0).await;
    tracker.tell(|s| {
        s.commands = vec![Command::Copy {
            task: TaskId(100),
            chunk: last,
            sources: vec![a.address.clone()],
        }];
    });
    eventually("the last replica has a second one", async || {
        get(&b, &last).await.as_ref() == Some(&small)
    })
    .await;
}
