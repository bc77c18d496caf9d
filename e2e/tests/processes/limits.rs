//! Memory and handles stay under their limits, whatever clients do.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::http::empty;
use dfs_e2e::http::Reply;
use dfs_e2e::wait::eventually;
use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::fleet::{CHUNK, DEADLINE, Fleet, Member, Options, bytes, seeded, streamed};

/// Uploads at once, and bytes of each that no datanode confirmed: the gateway's defaults.
const MAX_UPLOADS: u64 = 128;
const WINDOW: u64 = 4 * 1024 * 1024;
/// What connections, tasks and the allocator may take besides.
const PER_CONNECTION: u64 = 512 * 1024;
/// Most that the kernel keeps for one connection, both ways (tcp_wmem and tcp_rmem).
const SOCKETS: u64 = 12 * 1024 * 1024;
/// Bytes of each upload that show enough of its memory: twice the window is more than the bound. No more, for a disk
/// that keeps each three times.
const ENOUGH: u64 = 2 * WINDOW + 1024 * 1024;
/// Health that waits for handles is never answered while they are held; a machine that stalls answers late.
const HEALTH_LIMIT: Duration = Duration::from_mins(1);
const SLOW_CLIENTS: usize = 200;

type Clients = JoinSet<std::io::Result<Reply>>;

/// Begins uploads that go on as their senders do.
fn slow_clients(fleet: &Fleet, first: &Bytes) -> (Clients, Vec<mpsc::Sender<Bytes>>) {
    let door = fleet.store().door;
    let mut clients = JoinSet::new();
    let mut senders = Vec::new();
    for n in 0..SLOW_CLIENTS {
        let (sender, body) = streamed();
        let (door, path) = (door.clone(), format!("/files/slow{n:03}"));
        clients.spawn(async move { door.send(Method::PUT, &path, &[], body).await });
        // Those that are refused do not take it.
        let (first, sent) = (first.clone(), sender.clone());
        tokio::spawn(async move { sent.send(first).await });
        senders.push(sender);
    }
    (clients, senders)
}

/// Waits until so many were refused, as they should be; says how many of them by the limit of uploads. A tracker that
/// hears no majority for a moment, on a busy machine, refuses too.
async fn refusals(clients: &mut Clients, wanted: usize) -> (usize, u32) {
    let (mut refused, mut by_limit) = (0, 0);
    while refused < wanted {
        let reply = tokio::time::timeout(DEADLINE, clients.join_next()).await;
        let reply = reply
            .expect("the excess is refused")
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(
            matches!(
                reply.status,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            ),
            "{}: {}",
            reply.status,
            reply.text()
        );
        assert!(!reply.header("retry-after").is_empty());
        refused += 1;
        by_limit += u32::from(reply.text().contains("as many uploads"));
    }
    (refused, by_limit)
}

#[tokio::test(flavor = "multi_thread")]
async fn i31_two_hundred_slow_clients_and_huge_uploads_stay_within_the_stated_memory() {
    let mut rng = seeded();
    // Chunks larger than the window, as in production; but each upload is promised a whole one on three
    // datanodes, which a smaller disk could not keep were they as large as there.
    let options = Options {
        chunk_size: 8 << 20,
        ..Options::calm(3)
    };
    let fleet = Fleet::start(options).await;
    let store = fleet.store();
    let small = bytes(&mut rng, 64 * 1024);
    store.put("warm", small.clone()).await;
    let base = fleet.tracker.process.resident_bytes().unwrap();
    let (mut clients, senders) = slow_clients(&fleet, &small.slice(..1000));
    let wanted = SLOW_CLIENTS - usize::try_from(MAX_UPLOADS).unwrap();
    let (refused, by_limit) = refusals(&mut clients, wanted).await;
    // A datanode that stands still confirms nothing: every window fills up, and no more is taken until
    // its hops are given up. On a busy machine that may come before the last window is full: then the
    // uploads go on over the others, and their memory must be bounded all the same.
    fleet.datanodes[0].process.pause().unwrap();
    let mut pushed = 0_u64;
    let mut most = base;
    let mut quiet = 0;
    let mut looks = 0;
    let piece = bytes(&mut rng, 64 * 1024);
    eventually(
        "no upload takes more, or enough was offered",
        DEADLINE,
        || {
            let mut taken = 0;
            for sender in &senders {
                // What is full, or was refused, takes nothing.
                while sender.try_send(piece.clone()).is_ok() {
                    taken += piece.len() as u64;
                }
            }
            pushed += taken;
            most = most.max(fleet.tracker.process.resident_bytes().unwrap());
            quiet = if taken == 0 { quiet + 1 } else { 0 };
            looks += 1;
            let ended = if quiet > 50 || looks > 500 || pushed > MAX_UPLOADS * ENOUGH {
                Ok(())
            } else {
                Err(format!("{taken} more bytes"))
            };
            std::future::ready(ended)
        },
    )
    .await;
    let bound = base + MAX_UPLOADS * (WINDOW + PER_CONNECTION);
    eprintln!(
        "{SLOW_CLIENTS} clients, {refused} refused, {pushed} bytes offered beyond the first; resident \
         {base} bytes before, {most} at most, bound {bound}"
    );
    assert!(most <= bound);
    // Sockets of both ends hold some as well.
    if quiet > 50 {
        assert!(
            pushed <= MAX_UPLOADS * (WINDOW + SOCKETS),
            "{pushed} bytes were taken unconfirmed"
        );
    }
    fleet.datanodes[0].process.resume().unwrap();
    drop(senders);
    let mut stored = 0;
    while let Some(reply) = clients.join_next().await {
        let reply = reply.unwrap().unwrap();
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
        stored += 1;
    }
    let most = most.max(fleet.tracker.process.resident_bytes().unwrap());
    eprintln!("{stored} stored, {most} bytes at the end");
    assert_eq!(stored, SLOW_CLIENTS - refused);
    assert!(most <= bound);
    let counted = "dfs_gateway_refusals_total{limit=\"uploads\"}";
    assert!(by_limit > 0);
    assert!(fleet.tracker.metric(counted).await >= f64::from(by_limit));
    store.wait_fsck_clean(DEADLINE).await;
}

/// Takes connections until the member takes no more, and looks at its health meanwhile.
async fn exhaust(member: &mut Member, connections: usize) {
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(TcpStream::connect(member.address()).await.unwrap());
    }
    let this = &*member;
    eventually("the excess is refused", DEADLINE, || async {
        let api = "dfs_http_connections_refused_total{";
        let refused = this.metric(api).await;
        if refused > 0.0 {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    for _ in 0..50 {
        let door = member.admin_door();
        let asked = door.send(Method::GET, "/livez", &[], empty());
        let live = tokio::time::timeout(HEALTH_LIMIT, asked).await;
        let live = live.expect("health is answered all the time").unwrap();
        assert_eq!(live.status, StatusCode::OK);
    }
    assert!(member.process.status().unwrap().is_none(), "it still runs");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_a_datanode_without_file_handles_stays_up_and_recovers() {
    let mut rng = seeded();
    let options = Options {
        datanode_handles: Some(96),
        ..Options::calm(3)
    };
    let mut fleet = Fleet::start(options).await;
    let store = fleet.store();
    let body = bytes(&mut rng, CHUNK * 2);
    store.put("before", body.clone()).await;
    exhaust(&mut fleet.datanodes[0], 300).await;
    fleet.wait_ready().await;
    store.put("after", body.clone()).await;
    for path in ["before", "after"] {
        assert!(store.get(path).await == body, "{path}");
    }
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_29_a_tracker_without_file_handles_stays_up_and_recovers() {
    let mut rng = seeded();
    let options = Options {
        tracker_handles: Some(96),
        ..Options::calm(3)
    };
    let mut fleet = Fleet::start(options).await;
    let body = bytes(&mut rng, CHUNK * 2);
    fleet.store().put("before", body.clone()).await;
    exhaust(&mut fleet.tracker, 300).await;
    fleet.wait_ready().await;
    let store = fleet.store();
    store.put("after", body.clone()).await;
    for path in ["before", "after"] {
        assert!(store.get(path).await == body, "{path}");
    }
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
}
