mod journal;
mod repair;
mod small;

use dfs_client::ClientError;
use dfs_client::http::whole;
use dfs_protocol::chunk::{BLOCK_SIZE, ChunkKind, ChunkOrigin, Replica, SealedChunk};
use dfs_protocol::datanode::{Admission, Command, CopyRequest, Damage, JournalRecord, TaskOutcome};
use dfs_protocol::routes::{DATANODE_HEADER, FENCE_HEADER};
use dfs_protocol::{ChunkVersion, DatanodeId, Epoch, ErrorCode, Fence, Incarnation, TaskId};
use dfs_runtime::net::TcpConnector;
use http::header::{CONTENT_RANGE, RANGE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use crate::testing::eventually;
use crate::testing::nodes::{
    FENCE, FakeTracker, Node, bytes, chunk_file, client, get, origin, put, sealed,
};

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    /// None when the connection broke within the body.
    pub(crate) body: Option<bytes::Bytes>,
}

pub(crate) async fn send(
    to: &Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let connector = TcpConnector::shared();
    let stream = connector.connect(&to.address.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", &to.address.address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(whole(body.to_vec())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body
            .collect()
            .await
            .ok()
            .map(http_body_util::Collected::to_bytes),
    }
}

pub(crate) fn download(chunk: &SealedChunk) -> String {
    format!("/download-chunk?id={}&version={}", chunk.id, chunk.version)
}

pub(crate) async fn one() -> (FakeTracker, Node) {
    let tracker = FakeTracker::start().await;
    let node = Node::admitted(&tracker).await;
    (tracker, node)
}

fn flip(node: &Node, chunk: &SealedChunk, at: usize) {
    let path = chunk_file(&node.root(), chunk);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_sent_as_a_plain_body_comes_back_whole_and_in_ranges() {
    let (_tracker, node) = one().await;
    let data = bytes(3 * BLOCK_SIZE + 100);
    let chunk = sealed(7, 1, &data);
    let path = format!("/upload-chunk?id={}&version=1", chunk.id);
    let stored = send(&node, "POST", &path, &[], &data).await;
    assert_eq!(stored.status, StatusCode::CREATED);
    let replica: Replica = serde_json::from_slice(&stored.body.unwrap()).unwrap();
    assert_eq!(replica.chunk, chunk);
    let all = send(&node, "GET", &download(&chunk), &[], b"").await;
    assert_eq!(
        (all.status, all.body.unwrap().to_vec()),
        (StatusCode::OK, data.clone())
    );
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=65535-65536", 65_535..65_537),
        ("bytes=-100", 3 * BLOCK_SIZE..data.len()),
        ("bytes=70000-", 70_000..data.len()),
    ] {
        let part = send(
            &node,
            "GET",
            &download(&chunk),
            &[(RANGE.as_str(), range)],
            b"",
        )
        .await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        let said = format!(
            "bytes {}-{}/{}",
            expected.start,
            expected.end - 1,
            data.len()
        );
        assert_eq!(part.headers[CONTENT_RANGE], said);
        assert_eq!(part.body.unwrap(), data[expected], "{range}");
    }
    let outside = [(RANGE.as_str(), "bytes=999999999-")];
    let outside = send(&node, "GET", &download(&chunk), &outside, b"").await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(
        outside.headers[CONTENT_RANGE],
        format!("bytes */{}", data.len())
    );
    let again = send(&node, "POST", &path, &[], &data).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn i32_requests_of_any_shape_get_a_problem() {
    let (_tracker, node) = one().await;
    for (method, path, status) in [
        ("GET", "/download-chunk", 400),
        ("GET", "/download-chunk?id=x", 400),
        (
            "GET",
            "/download-chunk?id=00000000000000000000000000000001",
            404,
        ),
        ("GET", "/chunks/zz", 400),
        ("GET", "/inventory?kind=nothing", 400),
        ("GET", "/journal?from=-1", 400),
        ("POST", "/journal?epoch=1", 400),
        ("GET", "/chunks/write-stream", 400),
        ("POST", "/chunks/copy", 400),
        ("DELETE", "/identity", 405),
        ("GET", "/nothing", 404),
    ] {
        let answer = send(&node, method, path, &[], b"").await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        let body = answer.body.unwrap();
        let problem: dfs_protocol::Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_a_request_for_another_datanode_is_refused() {
    let (_tracker, node) = one().await;
    let other = DatanodeId::from_u128(9).to_string();
    let own = node.address.id.to_string();
    for path in [
        "/identity",
        "/download-chunk?id=1",
        "/journal?from=1",
        "/chunks/write-stream",
    ] {
        for wrong in [other.as_str(), "garbage"] {
            let answer = send(&node, "GET", path, &[(DATANODE_HEADER, wrong)], b"").await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{path}");
        }
    }
    let answer = send(&node, "GET", "/identity", &[(DATANODE_HEADER, &own)], b"").await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn i08_i20_an_order_of_a_deposed_tracker_is_refused_also_after_a_restart() {
    let (tracker, node) = one().await;
    let newer = Fence {
        epoch: Epoch(9),
        incarnation: Incarnation(1),
    };
    let fenced = |fence: Fence| (FENCE_HEADER, fence.to_string());
    let ask = async |node: &Node, fence: Fence| {
        let (name, value) = fenced(fence);
        send(node, "GET", "/identity", &[(name, &value)], b"")
            .await
            .status
    };
    assert_eq!(ask(&node, FENCE).await, StatusCode::OK);
    assert_eq!(ask(&node, newer).await, StatusCode::OK);
    assert_eq!(ask(&node, FENCE).await, StatusCode::CONFLICT);
    let dir = node.stop().await;
    // The old tracker still runs: its answers no longer admit this datanode.
    let node = Node::on(&tracker, dir, |_| {}).await;
    assert_eq!(ask(&node, FENCE).await, StatusCode::CONFLICT);
    let copy = CopyRequest {
        fence: FENCE,
        chunk: sealed(1, 1, b"x"),
        sources: vec![],
    };
    let refused = client().copy(&node.address, &copy).await.unwrap_err();
    assert!(refused.is(ErrorCode::Fenced), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_datanode_takes_and_serves_no_chunk() {
    let tracker = FakeTracker::start().await;
    tracker.tell(|s| s.admission = Admission::Pending);
    let node = Node::start(&tracker).await;
    eventually("an announcement", async || {
        tracker.tell(|s| s.registered.len() > 1)
    })
    .await;
    let id = sealed(1, 1, b"x").id;
    let path = format!("/upload-chunk?id={id}");
    let up = send(&node, "POST", &path, &[], b"x").await;
    assert_eq!(up.status, StatusCode::SERVICE_UNAVAILABLE);
    let down = send(&node, "GET", &format!("/download-chunk?id={id}"), &[], b"").await;
    assert_eq!(down.status, StatusCode::SERVICE_UNAVAILABLE);
    tracker.tell(|s| s.admission = Admission::Admitted);
    node.wait_admitted(&tracker).await;
    assert_eq!(
        send(&node, "POST", &path, &[], b"x").await.status,
        StatusCode::CREATED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i05_damage_behind_the_first_bytes_breaks_the_connection() {
    let (_tracker, node) = one().await;
    let data = bytes(8 << 20);
    let chunk = put(&[&node], 1, &data).await;
    let other = put(&[&node], 2, &data).await;
    for damaged in [&chunk, &other] {
        flip(&node, damaged, 4096 + (7 << 20));
    }
    let accept = [("accept", dfs_protocol::frame::BLOCK_STREAM_MEDIA_TYPE)];
    let blocks = send(&node, "GET", &download(&other), &accept, b"").await;
    assert_eq!(blocks.status, StatusCode::OK);
    assert!(blocks.body.is_none(), "nor may the blocks");
    let raw = send(&node, "GET", &download(&chunk), &[], b"").await;
    assert_eq!(raw.status, StatusCode::OK);
    assert!(raw.body.is_none(), "the body must not end cleanly");
    let after = send(&node, "GET", &download(&chunk), &[], b"").await;
    assert_eq!(after.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn i05_damage_in_the_last_byte_never_makes_an_answer_as_long_as_announced() {
    let (_tracker, node) = one().await;
    let chunk = put(&[&node], 1, &bytes((8 << 20) + 1)).await;
    flip(&node, &chunk, 4096 + (8 << 20));
    let accept = [("accept", dfs_protocol::frame::BLOCK_STREAM_MEDIA_TYPE)];
    let blocks = send(&node, "GET", &download(&chunk), &accept, b"").await;
    assert_eq!(blocks.status, StatusCode::OK);
    assert!(
        blocks.body.is_none(),
        "what tells of the damage is no block"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_sent_with_their_length() {
    let (_tracker, node) = one().await;
    let chunk = put(&[&node], 1, &bytes(2_500_000)).await;
    let accept = ("accept", dfs_protocol::frame::BLOCK_STREAM_MEDIA_TYPE);
    for range in ["bytes=0-", "bytes=70000-70001", "bytes=1200000-2400000"] {
        let headers = [accept, ("range", range)];
        let blocks = send(&node, "GET", &download(&chunk), &headers, b"").await;
        let body = blocks.body.unwrap();
        let announced = blocks.headers["content-length"].to_str().unwrap();
        assert_eq!(announced, body.len().to_string(), "{range}");
        let end = &body[body.len() - dfs_protocol::frame::HEADER_LEN..];
        let end = dfs_protocol::frame::FrameHeader::decode(end.first_chunk().unwrap());
        assert_eq!(end.unwrap().kind, dfs_protocol::frame::FrameKind::End);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_damage_at_the_start_is_refused_told_and_healed_from_a_peer() {
    let tracker = FakeTracker::start().await;
    let (a, b) = (
        Node::admitted(&tracker).await,
        Node::admitted(&tracker).await,
    );
    let data = bytes(300_000);
    let chunk = put(&[&a, &b], 1, &data).await;
    flip(&a, &chunk, 4096 + 5);
    assert!(get(&a, &chunk).await.is_none());
    let told = |damage| {
        tracker.tell(|s| {
            let mut corrupt = s.heartbeats.iter().flat_map(|h| &h.corrupt);
            corrupt.any(|c| c.chunk == chunk.id && c.damage == damage)
        })
    };
    eventually("the damage is told", async || told(Damage::Block)).await;
    let request = CopyRequest {
        fence: FENCE,
        chunk,
        sources: vec![a.address.clone(), b.address.clone()],
    };
    let copied = client().copy(&a.address, &request).await.unwrap();
    assert_eq!(copied.replica.chunk, chunk);
    assert_eq!(get(&a, &chunk).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_a_copy_from_damaged_sources_is_refused_and_leaves_nothing() {
    let tracker = FakeTracker::start().await;
    let (a, b) = (
        Node::admitted(&tracker).await,
        Node::admitted(&tracker).await,
    );
    let chunk = put(&[&a], 1, &bytes(5 << 20)).await;
    flip(&a, &chunk, 4096 + (4 << 20));
    let request = CopyRequest {
        fence: FENCE,
        chunk,
        sources: vec![a.address.clone()],
    };
    let refused = client().copy(&b.address, &request).await;
    assert!(
        matches!(refused, Err(ClientError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(
        std::fs::read_dir(b.root().join("staging")).unwrap().count(),
        0
    );
    let state = client().chunk_state(&b.address, chunk.id).await.unwrap();
    assert_eq!((state.sealed, state.open), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_carried_out_once_and_their_results_told() {
    let tracker = FakeTracker::start().await;
    let (a, b) = (
        Node::admitted(&tracker).await,
        Node::admitted(&tracker).await,
    );
    let data = bytes(200_000);
    let (kept, gone) = (put(&[&a], 1, &data).await, put(&[&a, &b], 2, &data).await);
    let result = async |node: &Node, task: u64| {
        let id = node.address.id;
        let find = || {
            tracker.tell(|s| {
                let told = s.heartbeats.iter().filter(|h| h.datanode == id);
                let mut told = told.flat_map(|h| &h.finished);
                told.find(|f| f.task == TaskId(task))
                    .map(|f| f.outcome.clone())
            })
        };
        eventually("the result is told", async || find().is_some()).await;
        find().unwrap()
    };
    tracker.tell(|s| {
        s.commands = vec![
            Command::Copy {
                task: TaskId(1),
                chunk: kept,
                sources: vec![a.address.clone()],
            },
            Command::Delete {
                task: TaskId(2),
                chunk: gone.id,
                version: gone.version,
                kind: ChunkKind::Data,
            },
            Command::Verify {
                task: TaskId(3),
                chunk: gone.id,
                version: ChunkVersion(9),
            },
        ];
    });
    assert_eq!(result(&b, 1).await, TaskOutcome::Done);
    assert_eq!(result(&a, 2).await, TaskOutcome::Done);
    assert!(matches!(result(&b, 3).await, TaskOutcome::Failed { .. }));
    assert_eq!(get(&b, &kept).await.unwrap(), data);
    assert!(get(&a, &gone).await.is_none());
    let id = b.address.id;
    eventually("the change is told", async || {
        tracker.tell(|s| {
            let mut told = s.heartbeats.iter().filter(|h| h.datanode == id);
            told.any(|h| h.removed.contains(&gone))
                && s.heartbeats
                    .iter()
                    .any(|h| h.datanode == id && h.added.iter().any(|r| r.chunk == kept))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_report_follows_when_the_tracker_asks_and_says_everything() {
    let (tracker, node) = one().await;
    let chunk = put(&[&node], 1, b"abc").await;
    tracker.tell(|s| s.full_report = true);
    eventually("a report", async || tracker.tell(|s| !s.reports.is_empty())).await;
    let report = tracker.tell(|s| s.reports[0].clone());
    let chunks: Vec<_> = report.replicas.iter().map(|r| r.chunk).collect();
    assert_eq!((report.datanode, chunks), (node.address.id, vec![chunk]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_takes_records_and_gives_them_back_and_trims_below_the_floor() {
    let (_tracker, node) = one().await;
    let record = |sequence: u64| JournalRecord {
        fence: FENCE,
        sequence,
        payload: format!("batch {sequence}").into_bytes(),
    };
    for sequence in [1, 2, 2, 3] {
        let appended = client()
            .journal_append(&node.address, &record(sequence))
            .await;
        appended.unwrap();
    }
    let page = client().journal_page(&node.address, 2).await.unwrap();
    let mut rest = &page[..];
    let mut found = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (entry, more) = more.split_at(u32::from_le_bytes(*length) as usize);
        found.push(postcard::from_bytes::<JournalRecord>(entry).unwrap());
        rest = more;
    }
    assert_eq!(found, [record(2), record(3)]);
    assert!(
        client()
            .journal_page(&node.address, 4)
            .await
            .unwrap()
            .is_empty()
    );
    let deposed = JournalRecord {
        fence: Fence::default(),
        ..record(4)
    };
    let refused = client().journal_append(&node.address, &deposed).await;
    assert!(refused.unwrap_err().is(ErrorCode::Fenced));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_says_where_each_chunk_belongs() {
    let (_tracker, node) = one().await;
    let chunk = put(&[&node], 1, b"abc").await;
    let inventory = client()
        .inventory(&node.address, ChunkKind::Data)
        .await
        .unwrap();
    let listed: Vec<(Replica, ChunkOrigin)> = postcard::from_bytes(&inventory).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].0.chunk, &listed[0].1), (chunk, &origin()));
    let empty = client()
        .inventory(&node.address, ChunkKind::Checkpoint)
        .await
        .unwrap();
    assert!(
        postcard::from_bytes::<Vec<(Replica, ChunkOrigin)>>(&empty)
            .unwrap()
            .is_empty()
    );
}
