//! Reads over streams, as a reader of this version makes them.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::ClientError;
use dfs_client::blocks::{BlockStream, read_blocks};
use dfs_client::frame_io::FrameReader;
use dfs_protocol::chunk::{BLOCK_SIZE_U64, DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::Damage;
use dfs_protocol::frame::{FrameKind, READ_STREAM_PROTOCOL, ReadChunk};
use dfs_protocol::{ChunkVersion, DatanodeId, ErrorCode, Problem, frame};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http::tests::{one, send};
use crate::store::PackLimits;
use crate::testing::nodes::{FakeTracker, Node, bytes, chunk_file, client, put, sealed};
use crate::testing::{EIO, Faults, eventually};

/// Longer than a busy machine takes for a read.
const DRAIN: Duration = Duration::from_mins(1);
/// Larger than what sockets hold.
const LARGE: usize = 24 << 20;

async fn begin(from: &Node, chunk: &SealedChunk, range: Range<u64>) -> BlockStream {
    let client = client();
    let opened = read_blocks(client.http(), &from.address, chunk, range).await;
    opened.unwrap()
}

/// All bytes of the blocks that cover a range, or those before the error.
async fn rest(mut blocks: BlockStream) -> (Vec<u8>, Option<ClientError>) {
    let mut all = Vec::new();
    loop {
        match blocks.next().await {
            Ok(Some(block)) => {
                assert_eq!(dfs_protocol::checksum::crc32c(&block.data), block.crc32c);
                all.extend_from_slice(&block.data);
            }
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn edit(node: &Node, chunk: &SealedChunk, change: impl FnOnce(&mut Vec<u8>)) {
    let path = chunk_file(&node.root(), chunk);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

async fn told(tracker: &FakeTracker, chunk: &SealedChunk, damage: Damage) {
    let is_told = || {
        tracker.tell(|script| {
            let mut corrupt = script.heartbeats.iter().flat_map(|beat| &beat.corrupt);
            corrupt.any(|found| found.chunk == chunk.id && found.damage == damage)
        })
    };
    eventually("the damage is told", async || is_told()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_is_sent_over_one_connection_from_memory_and_from_the_disk() {
    let (_tracker, node) = one().await;
    let data = bytes(3_000_007);
    let chunk = put(&[&node], 1, &data).await;
    let http = client().http().clone();
    for cold in [false, true] {
        node.disk.set(Faults {
            cold,
            ..Faults::default()
        });
        let before = node.counted("dfs_datanode_uncopied_read_bytes_total");
        for range in [
            0..chunk.length,
            1..200_000,
            65_536..327_680,
            2_000_000..chunk.length,
            1_048_575..2_097_153,
        ] {
            let blocks = read_blocks(&http, &node.address, &chunk, range.clone()).await;
            let (got, error) = rest(blocks.unwrap()).await;
            assert!(error.is_none(), "{error:?}");
            let from = range.start / BLOCK_SIZE_U64 * BLOCK_SIZE_U64;
            let to = range.end.div_ceil(BLOCK_SIZE_U64) * BLOCK_SIZE_U64;
            let to = to.min(chunk.length);
            let at = |offset: u64| usize::try_from(offset).unwrap();
            assert!(got == data[at(from)..at(to)], "{cold} {range:?}");
        }
        let uncopied = node.counted("dfs_datanode_uncopied_read_bytes_total") - before;
        assert_eq!(uncopied > 0.0, !cold);
    }
    no_read_is_under_way(&node).await;
}

/// A reader has its last byte before its place is given back.
async fn no_read_is_under_way(node: &Node) {
    let reads = || node.metric("dfs_datanode_reads");
    eventually("no read is under way", async || reads() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_chunks_and_ranges_come_over_one_connection_too() {
    read_small(PackLimits::NONE).await;
    // Writers of these tests ask for room for 8 MiB.
    let packs = PackLimits {
        chunk: 8 << 20,
        ..PackLimits::default()
    };
    read_small(packs).await;
}

async fn read_small(packs: PackLimits) {
    let tracker = FakeTracker::start().await;
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let node = Node::on(&tracker, dir, |config| config.packs = packs).await;
    node.wait_admitted(&tracker).await;
    let http = client().http().clone();
    let accepted = || node.counted("dfs_http_connections_accepted_total");
    let before = accepted();
    let chunks = [(1, 1), (2, 4096), (3, 65_536), (4, 65_537), (5, 300_000)];
    for (id, length) in chunks {
        let data = bytes(length);
        let chunk = put(&[&node], id, &data).await;
        let last = chunk.length - 1;
        for range in [0..chunk.length, last..chunk.length, 0..1] {
            for cold in [false, true] {
                node.disk.set(Faults {
                    cold,
                    ..Faults::default()
                });
                let blocks = read_blocks(&http, &node.address, &chunk, range.clone()).await;
                let (got, error) = rest(blocks.unwrap()).await;
                assert!(error.is_none(), "{length} {range:?} {error:?}");
                let from = usize::try_from(range.start / BLOCK_SIZE_U64 * BLOCK_SIZE_U64).unwrap();
                assert!(got == data[from..from + got.len()] && !got.is_empty());
                assert!(from + got.len() >= usize::try_from(range.end).unwrap());
            }
        }
    }
    // Each chunk was written over another one.
    let for_reads = accepted() - before - 5.0;
    assert!((for_reads - 1.0).abs() < 0.1, "{for_reads}");
    let stay_open = if packs == PackLimits::NONE { 5 } else { 0 };
    let open = || node.metric("dfs_datanode_open_chunks");
    eventually("files stay open", async || open() == stay_open).await;
    no_read_is_under_way(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_37_a_read_under_way_is_finished_before_the_datanode_ends() {
    let tracker = FakeTracker::start().await;
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let node = Node::on(&tracker, dir, |config| config.limits.drain = DRAIN).await;
    node.wait_admitted(&tracker).await;
    let data = bytes(LARGE);
    let chunk = put(&[&node], 1, &data).await;
    let mut blocks = begin(&node, &chunk, 0..chunk.length).await;
    let first = blocks.next().await.unwrap().unwrap();
    let stopped = tokio::spawn(node.stop());
    let (got, error) = rest(blocks).await;
    assert!(error.is_none(), "{error:?}");
    assert!([&first.data[..], &got].concat() == data);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_memory_while_its_reader_waits_goes_on_where_it_was() {
    let (_tracker, node) = one().await;
    // The same nowhere twice: bytes that come again are seen.
    let numbers = 0..LARGE as u64 / 8;
    let data: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    let chunk = put(&[&node], 1, &data).await;
    let mut blocks = begin(&node, &chunk, 0..chunk.length).await;
    let first = blocks.next().await.unwrap().unwrap();
    let buffers = || node.metric("dfs_datanode_read_buffers");
    let idle = buffers();
    // What sockets hold is full, within a step.
    let (mut before, mut looks) = (0.0, 0);
    eventually("the datanode waits for its reader", async || {
        let now = node.counted("dfs_datanode_uncopied_read_bytes_total");
        looks = if now > before { 0 } else { looks + 1 };
        before = now;
        looks == 100
    })
    .await;
    node.disk.set(Faults {
        cold: true,
        ..Faults::default()
    });
    eventually("the step is read", async || buffers() > idle).await;
    let (got, error) = rest(blocks).await;
    assert!(error.is_none(), "{error:?}");
    assert!([&first.data[..], &got].concat() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_a_damaged_block_is_sent_as_it_lies_and_refused_by_its_reader() {
    let (_tracker, node) = one().await;
    let data = bytes(3 << 20);
    let chunk = put(&[&node], 1, &data).await;
    edit(&node, &chunk, |bytes| bytes[4096 + (2 << 20) + 5] ^= 1);
    let (got, error) = rest(begin(&node, &chunk, 0..chunk.length).await).await;
    assert!(
        matches!(error, Some(ClientError::Malformed { .. })),
        "{error:?}"
    );
    assert!(got == data[..2 << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_a_damaged_block_that_must_be_read_is_found_here_and_breaks_the_connection() {
    let (tracker, node) = one().await;
    let data = bytes(3 << 20);
    let chunk = put(&[&node], 1, &data).await;
    edit(&node, &chunk, |bytes| bytes[4096 + (2 << 20) + 5] ^= 1);
    node.disk.set(Faults {
        cold: true,
        ..Faults::default()
    });
    let (got, error) = rest(begin(&node, &chunk, 0..chunk.length).await).await;
    assert!(
        matches!(error, Some(ClientError::BrokenOff { .. })),
        "{error:?}"
    );
    assert!(got == data[..2 << 20]);
    told(&tracker, &chunk, Damage::Block).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_08_fault_12_a_file_that_fails_while_it_is_sent_breaks_the_read_and_is_set_aside() {
    for damage in [Damage::Length, Damage::ReadError] {
        let (tracker, node) = one().await;
        let data = bytes(LARGE);
        let chunk = put(&[&node], 1, &data).await;
        let mut blocks = begin(&node, &chunk, 0..chunk.length).await;
        let first = blocks.next().await.unwrap().unwrap();
        if damage == Damage::Length {
            let path = chunk_file(&node.root(), &chunk);
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(4096 + (20 << 20) + 11).unwrap();
        } else {
            node.disk.set(Faults {
                read: Some(EIO),
                ..Faults::default()
            });
        }
        let (got, error) = rest(blocks).await;
        assert!(error.is_some(), "{damage:?}");
        let got = [&first.data[..], &got].concat();
        assert!(got == data[..got.len()] && got.len() < LARGE, "{damage:?}");
        told(&tracker, &chunk, damage).await;
        no_read_is_under_way(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i31_a_reader_that_goes_away_gives_its_place_back() {
    let (_tracker, node) = one().await;
    let chunk = put(&[&node], 1, &bytes(LARGE)).await;
    for cold in [false, true] {
        node.disk.set(Faults {
            cold,
            ..Faults::default()
        });
        let mut blocks = begin(&node, &chunk, 0..chunk.length).await;
        blocks.next().await.unwrap();
        assert_eq!(node.metric("dfs_datanode_reads"), 1);
        drop(blocks);
        let reads = || node.metric("dfs_datanode_reads");
        eventually("the place is free", async || reads() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i31_reads_over_the_limit_are_refused_and_the_connection_goes_on() {
    let tracker = FakeTracker::start().await;
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let node = Node::on(&tracker, dir, |config| config.max_reads = 1).await;
    node.wait_admitted(&tracker).await;
    let chunk = put(&[&node], 1, &bytes(LARGE)).await;
    let mut held = begin(&node, &chunk, 0..chunk.length).await;
    held.next().await.unwrap();
    let http = client().http().clone();
    let accepted = || node.counted("dfs_http_connections_accepted_total");
    let before = accepted();
    for _ in 0..2 {
        let refused = read_blocks(&http, &node.address, &chunk, 0..chunk.length).await;
        let Err(ClientError::Refused(problem)) = refused else {
            panic!("{refused:?}")
        };
        assert!(problem.is(ErrorCode::Unavailable), "{problem}");
    }
    drop(held);
    let reads = || node.metric("dfs_datanode_reads");
    eventually("the place is free", async || reads() == 0).await;
    let blocks = read_blocks(&http, &node.address, &chunk, 0..chunk.length).await;
    assert!(rest(blocks.unwrap()).await.1.is_none());
    assert!((accepted() - before - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i21_i32_reads_of_others_or_of_what_is_not_there_are_refused_and_nonsense_ends_the_connection()
 {
    let (_tracker, node) = one().await;
    let chunk = put(&[&node], 1, &bytes(300_000)).await;
    let read = ReadChunk {
        datanode: node.address.id,
        chunk: chunk.id,
        version: chunk.version,
        start: 0,
        end: chunk.length,
        trace: None,
    };
    let absent = sealed(7, 1, b"absent");
    let other = DatanodeId::from_u128(99);
    let mut frames = stream(&node.address).await;
    let cases = [
        (
            ReadChunk {
                datanode: other,
                ..read
            },
            ErrorCode::WrongDatanode,
        ),
        (
            ReadChunk {
                chunk: absent.id,
                ..read
            },
            ErrorCode::NotFound,
        ),
        (
            ReadChunk {
                version: ChunkVersion(9),
                ..read
            },
            ErrorCode::NotFound,
        ),
        (
            ReadChunk { start: 5, ..read },
            ErrorCode::RangeNotSatisfiable,
        ),
        (
            ReadChunk {
                end: chunk.length + 1,
                ..read
            },
            ErrorCode::RangeNotSatisfiable,
        ),
    ];
    for (asked, code) in cases {
        let problem = refused(&mut frames, &asked).await;
        assert!(problem.is(code), "{problem}");
    }
    ask(&mut frames, &read).await;
    let head = frames.next().await.unwrap().unwrap();
    assert_eq!(
        (head.header.kind, head.payload.len()),
        (FrameKind::Checksums, 5 * 4)
    );
    let mut got = Vec::new();
    while got.len() < 300_000 {
        let length = (300_000 - got.len()).min(65_536);
        got.extend_from_slice(&frames.bytes(length).await.unwrap());
    }
    assert!(got == bytes(300_000));
    let nonsense = frame::signal(FrameKind::Seal, 0);
    frames.stream_mut().write_all(&nonsense).await.unwrap();
    assert!(frames.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_upgrade_to_reads_is_refused() {
    let (_tracker, node) = one().await;
    let plain = send(&node, "GET", "/read-stream", &[], b"").await;
    assert_eq!(plain.status, http::StatusCode::BAD_REQUEST);
}

type Frames = FrameReader<TokioIo<hyper::upgrade::Upgraded>>;

async fn stream(to: &DatanodeAddress) -> Frames {
    let io = TokioIo::new(TcpStream::connect(&to.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = http::Request::get("/read-stream")
        .header("host", &to.address)
        .header("connection", "upgrade")
        .header("upgrade", READ_STREAM_PROTOCOL);
    let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    FrameReader::new(TokioIo::new(hyper::upgrade::on(response).await.unwrap()))
}

async fn ask(frames: &mut Frames, read: &ReadChunk) {
    let asked = frame::control(FrameKind::Read, read).unwrap();
    frames.stream_mut().write_all(&asked).await.unwrap();
}

async fn refused(frames: &mut Frames, read: &ReadChunk) -> Problem {
    ask(frames, read).await;
    let frame = frames.next().await.unwrap().unwrap();
    assert_eq!(frame.header.kind, FrameKind::Refused);
    frame::parse(&frame.payload).unwrap()
}
