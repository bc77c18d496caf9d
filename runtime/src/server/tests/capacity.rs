//! More clients than the server takes, and its end.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;
use crate::server::{CutReason, RefusalReason};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A route that answers when the test lets it.
fn gated() -> (Router, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let wait = gate.clone();
    let router = Router::new().route(
        "/",
        get(move || async move {
            wait.acquire().await.unwrap().forget();
            "hello"
        }),
    );
    (router, gate)
}

#[tokio::test]
async fn bad_input_25_connections_above_the_cap_get_503_until_one_ends() {
    let limits = ServerLimits {
        connections: 3,
        ..ServerLimits::default()
    };
    let served = serve_simple(limits).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = served.connect().await;
        client.send(GET).await;
        client.until("hello").await;
        idle.push(client);
    }
    let answer = served.talk(GET).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    assert_eq!(served.metrics.refused_count(RefusalReason::Full), 1);
    idle.pop();
    eventually(|| served.metrics.open_count() == 2).await;
    let mut client = served.connect().await;
    client.send(GET).await;
    client.until("hello").await;
}

#[tokio::test]
async fn i31_a_crowd_of_connections_above_the_cap_leaves_nothing_behind() {
    let limits = ServerLimits {
        connections: 2,
        ..ServerLimits::default()
    };
    let served = serve_simple(limits).await;
    let mut first = served.connect().await;
    first.send(GET).await;
    first.until("hello").await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(served.connect().await);
    }
    let refused = || {
        served.metrics.refused_count(RefusalReason::Full)
            + served.metrics.refused_count(RefusalReason::Dropped)
    };
    eventually(|| refused() == 299).await;
    assert!(served.metrics.open_count() <= 2);
    drop(crowd);
    eventually(|| served.metrics.open_count() == 1).await;
    first.send(GET).await;
    first.until("hello").await;
}

#[tokio::test]
async fn i31_requests_above_the_cap_in_flight_get_503_at_once() {
    let (router, gate) = gated();
    let served = serve_router(ServerLimits::default(), router).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = served.connect().await;
        client.send(GET).await;
        waiting.push(client);
    }
    eventually(|| served.requests.refused_count() == 1).await;
    gate.add_permits(4);
    let mut statuses = Vec::new();
    for mut client in waiting {
        statuses.push(client.until("\r\n").await);
    }
    statuses.sort();
    assert_eq!(statuses[..4], ["HTTP/1.1 200 OK\r\n"; 4]);
    assert_eq!(statuses[4], "HTTP/1.1 503 Service Unavailable\r\n");
}

#[tokio::test]
async fn fault_37_the_shutdown_lets_requests_finish_and_takes_no_more() {
    let (router, gate) = gated();
    let served = serve_router(ServerLimits::default(), router).await;
    let mut idle = served.connect().await;
    let mut busy = served.connect().await;
    busy.send(GET).await;
    eventually(|| served.metrics.accepted_count() == 2).await;
    eventually(|| served.requests.in_flight_count() == 1).await;
    served.trigger.trigger();
    assert_eq!(idle.rest().await, "");
    gate.add_permits(1);
    let answer = busy.rest().await;
    assert!(answer.ends_with("hello"), "{answer}");
    tokio::time::timeout(DEADLINE, served.done)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    assert_eq!(served.metrics.cut_count(CutReason::Shutdown), 0);
}

#[tokio::test]
async fn fault_37_the_shutdown_does_not_wait_longer_than_the_drain() {
    let (router, _gate) = gated();
    let limits = ServerLimits {
        drain: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let served = serve_router(limits, router).await;
    let mut busy = served.connect().await;
    busy.send(GET).await;
    eventually(|| served.requests.in_flight_count() == 1).await;
    served.trigger.trigger();
    tokio::time::timeout(DEADLINE, served.done)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(busy.rest().await, "");
    assert_eq!(served.metrics.cut_count(CutReason::Shutdown), 1);
}
